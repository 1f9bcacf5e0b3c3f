#include "core/evaluated.h"

#include <dirent.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"
#include "inventory/git.h"
#include "transport/closure.h"

#define TREES_KEPT 50
#define TREES_MAX  4096
#define ID_BYTES   20
#define ID_SIZE    (2 * ID_BYTES + 1)
#define LINE_SIZE  1024

struct evaluated {
    const struct inventory *inventory;
    char *folder;
    char id[ID_SIZE];
    char *root;   /* of the working tree, ends in '/' */
    char **paths; /* by the host's index; NULL: not known */
    bool changed;
};

/* ---- the tree ---- */

/* The inventory counts by itself, too: it may be one that Git ignores. */
static bool find_id(const struct inventory *inventory, char ret_id[ID_SIZE], char **ret_root) {
    char tree[41];
    if (!git_tree_identity(inventory->dir, tree, ret_root)) {
        return false;
    }
    unsigned char digest[EVP_MAX_MD_SIZE] = {0};
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    EVP_DigestInit_ex(hash, EVP_sha256(), NULL);
    EVP_DigestUpdate(hash, tree, strlen(tree) + 1);
    EVP_DigestUpdate(hash, inventory->path, strlen(inventory->path) + 1);
    EVP_DigestUpdate(hash, inventory->text, inventory->text_len);
    EVP_DigestFinal_ex(hash, digest, NULL);
    EVP_MD_CTX_free(hash);
    for (size_t i = 0; i < ID_BYTES; i++) {
        snprintf(ret_id + 2 * i, 3, "%02x", digest[i]);
    }
    return true;
}

static const char *without(const char *text, const char *prefix) {
    size_t len = strlen(prefix);
    return strncmp(text, prefix, len) == 0 ? text + len : text;
}

static bool is_inside(const char *root, const char *path) {
    size_t len = strlen(root);
    return strstr(path, "/../") == NULL &&
           (strncmp(path, root, len) == 0 ||
            (strlen(path) == len - 1 && strncmp(path, root, len - 1) == 0));
}

/* Does the tree decide what the host's system is? */
static bool is_decided(const struct evaluated *evaluated, const struct inv_system *system) {
    switch (system->kind) {
    case INV_SYSTEM_FILE:
        return is_inside(evaluated->root, system->file);
    case INV_SYSTEM_FLAKE:
        return is_inside(evaluated->root,
                         without(without(system->flake_ref, "path:"), "git+file://"));
    case INV_SYSTEM_PATH:
    case INV_SYSTEM_COMMAND:
        break;
    }
    return false;
}

/* ---- the file ---- */

static void read_lines(struct evaluated *evaluated, FILE *file) {
    char line[LINE_SIZE];
    while (fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *path = strchr(line, ' ');
        if (path == NULL) {
            continue;
        }
        *path++ = '\0';
        const struct inv_host *host = inventory_host(evaluated->inventory, line);
        if (host != NULL && store_path_is_valid(path)) {
            auto_free(&evaluated->paths[host->index]);
            evaluated->paths[host->index] = xstrdup(path);
        }
    }
}

struct evaluated *evaluated_open(const char *state_dir, const struct inventory *inventory) {
    struct evaluated *evaluated = xcalloc(1, sizeof(*evaluated));
    if (!find_id(inventory, evaluated->id, &evaluated->root)) {
        auto_free(&evaluated);
        return NULL;
    }
    evaluated->inventory = inventory;
    evaluated->folder = xasprintf("%s/evaluated", state_dir);
    evaluated->paths = xcalloc(inventory->host_count + 1, sizeof(char *));
    char *name = xasprintf("%s/%s", evaluated->folder, evaluated->id);
    FILE *file = fopen(name, "re");
    if (file != NULL) {
        read_lines(evaluated, file);
        fclose(file);
    }
    auto_free(&name);
    return evaluated;
}

const char *evaluated_path(const struct evaluated *evaluated, const struct inv_host *host) {
    return is_decided(evaluated, &host->system) ? evaluated->paths[host->index] : NULL;
}

void evaluated_note(struct evaluated *evaluated, const struct inv_host *host, const char *path) {
    if (evaluated == NULL || !store_path_is_valid(path) || !is_decided(evaluated, &host->system)) {
        return;
    }
    char **slot = &evaluated->paths[host->index];
    if (*slot == NULL || strcmp(*slot, path) != 0) {
        auto_free(slot);
        *slot = xstrdup(path);
        evaluated->changed = true;
    }
}

struct tree_file {
    char name[ID_SIZE];
    int64_t age; /* seconds since 1970 of its last change */
};

static int by_age(const void *a, const void *b) {
    const struct tree_file *one = a;
    const struct tree_file *two = b;
    return (one->age < two->age) - (one->age > two->age);
}

/* Removes all but the latest. */
static void forget_old(const char *folder) {
    DIR *dir = opendir(folder);
    struct tree_file *files = xcalloc(TREES_MAX, sizeof(*files));
    size_t count = 0;
    const struct dirent *entry;
    while (dir != NULL && count < TREES_MAX && (entry = readdir(dir)) != NULL) {
        struct stat info;
        if (strlen(entry->d_name) == ID_SIZE - 1 &&
            fstatat(dirfd(dir), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0) {
            memcpy(files[count].name, entry->d_name, ID_SIZE);
            files[count++].age = (int64_t)info.st_mtime;
        }
    }
    qsort(files, count, sizeof(*files), by_age);
    for (size_t i = TREES_KEPT; i < count; i++) {
        unlinkat(dirfd(dir), files[i].name, 0);
    }
    if (dir != NULL) {
        closedir(dir);
    }
    free(files);
}

static bool write_lines(const struct evaluated *evaluated, const char *name) {
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (file == NULL) {
        auto_close(&fd);
        return false;
    }
    for (size_t i = 0; i < evaluated->inventory->host_count; i++) {
        if (evaluated->paths[i] != NULL) {
            fprintf(file, "%s %s\n", evaluated->inventory->hosts[i].name, evaluated->paths[i]);
        }
    }
    bool ok = ferror(file) == 0;
    return fclose(file) == 0 && ok;
}

/* What can't be made shows when the file is. */
static void make_folders(const char *path) {
    char *part = xstrdup(path);
    for (char *slash = strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(part, 0700);
        *slash = '/';
    }
    mkdir(part, 0700);
    auto_free(&part);
}

static void save(const struct evaluated *evaluated) {
    char id[ID_SIZE];
    char *root = NULL;
    bool same = find_id(evaluated->inventory, id, &root) && strcmp(id, evaluated->id) == 0;
    auto_free(&root);
    if (!same) {
        return; /* edited meanwhile: nobody knows which of the two was evaluated */
    }
    make_folders(evaluated->folder);
    char *name = xasprintf("%s/%s", evaluated->folder, evaluated->id);
    char *fresh = xasprintf("%s.%d", name, (int)getpid());
    if (!write_lines(evaluated, fresh) || rename(fresh, name) != 0) {
        unlink(fresh);
    }
    auto_free(&fresh);
    auto_free(&name);
    forget_old(evaluated->folder);
}

void evaluated_close(struct evaluated *evaluated) {
    if (evaluated == NULL) {
        return;
    }
    if (evaluated->changed) {
        save(evaluated);
    }
    for (size_t i = 0; i < evaluated->inventory->host_count; i++) {
        auto_free(&evaluated->paths[i]);
    }
    auto_free(&evaluated->paths);
    auto_free(&evaluated->folder);
    auto_free(&evaluated->root);
    auto_free(&evaluated);
}
