/* The units and the kernel of one system, as read here or told by a host (see plan.h). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "core/base/xalloc.h"
#include "core/plan.h"

/* Units are small; what is larger is no unit. */
#define UNIT_MAX_BYTES (1024u * 1024u)
#define FLAGS_MAX      256u

struct plan_unit *plan_system_add_unit(struct plan_system *system, const char *name,
                                       const char *hash) {
    if ((system->unit_count & (system->unit_count - 1)) == 0) {
        size_t room = system->unit_count == 0 ? 1 : system->unit_count * 2;
        system->units = xrealloc(system->units, room * sizeof(*system->units));
    }
    struct plan_unit *unit = &system->units[system->unit_count++];
    *unit = (struct plan_unit){.name = xstrdup(name)};
    snprintf(unit->hash, sizeof(unit->hash), "%s", hash);
    return unit;
}

static bool says_yes(const char *value) {
    return strcmp(value, "1") == 0 || strcmp(value, "yes") == 0 || strcmp(value, "true") == 0 ||
           strcmp(value, "on") == 0;
}

void plan_unit_flag(struct plan_unit *unit, const char *line) {
    const char *equals = strchr(line, '=');
    if (equals == NULL) {
        return;
    }
    bool yes = says_yes(equals + 1);
    size_t len = (size_t)(equals - line);
    AUTO_FREE char *key = xstrndup(line, len);
    if (strcmp(key, "X-StopOnRemoval") == 0) {
        unit->keep_on_removal = !yes;
    } else if (strcmp(key, "X-ReloadIfChanged") == 0) {
        unit->reload = yes;
    } else if (strcmp(key, "X-RestartIfChanged") == 0) {
        unit->leave = unit->leave || !yes;
    } else if (strcmp(key, "RefuseManualStop") == 0 || strcmp(key, "X-OnlyManualStart") == 0) {
        unit->leave = unit->leave || yes;
    }
}

static int by_name(const void *a, const void *b) {
    const struct plan_unit *left = a;
    const struct plan_unit *right = b;
    return strcmp(left->name, right->name);
}

void plan_system_settle(struct plan_system *system) {
    if (system->unit_count > 0) {
        qsort(system->units, system->unit_count, sizeof(*system->units), by_name);
    }
    plan_list_settle(&system->wants);
}

struct plan_unit *plan_system_unit(const struct plan_system *system, const char *name) {
    /* The key is only read. */
    struct plan_unit key = {.name = (char *)(uintptr_t)name};
    return system->unit_count == 0
               ? NULL
               : bsearch(&key, system->units, system->unit_count, sizeof(*system->units), by_name);
}

void plan_system_free(struct plan_system *system) {
    for (size_t i = 0; i < system->unit_count; i++) {
        free(system->units[i].name);
    }
    free(system->units);
    plan_list_free(&system->wants);
    free(system->kernel);
    free(system->initrd);
    free(system->modules);
    free(system->init_abi);
    *system = (struct plan_system){0};
}

/* ---- reading one in this machine's store ---- */

/* A small file whole; NULL where it is none. */
static char *read_small(const char *path, size_t *ret_len) {
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat info;
    bool null_device = fd >= 0 && fstat(fd, &info) == 0 && S_ISCHR(info.st_mode);
    if (fd < 0 || fstat(fd, &info) != 0 || (!S_ISREG(info.st_mode) && !null_device) ||
        info.st_size > (off_t)UNIT_MAX_BYTES) {
        return NULL;
    }
    char *text = xmalloc((size_t)info.st_size + 1);
    size_t len = 0;
    while (len < (size_t)info.st_size) {
        ssize_t n = read(fd, text + len, (size_t)info.st_size - len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            break;
        }
        len += (size_t)n;
    }
    text[len] = '\0';
    *ret_len = len;
    return text;
}

static void hash_text(const char *text, size_t len, char ret[PLAN_HASH_SIZE]) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    EVP_Digest(text, len, digest, &size, EVP_sha256(), NULL);
    for (unsigned int i = 0; i < size && i < (PLAN_HASH_SIZE - 1) / 2; i++) {
        snprintf(ret + i * 2, 3, "%02x", digest[i]);
    }
}

static void read_flags(struct plan_unit *unit, const char *text) {
    while (*text != '\0') {
        size_t len = strcspn(text, "\n");
        if (len < FLAGS_MAX && (text[0] == 'X' || text[0] == 'R')) {
            AUTO_FREE char *line = xstrndup(text, len);
            plan_unit_flag(unit, line);
        }
        text += len + (text[len] == '\n');
    }
}

static void read_unit(struct plan_system *system, const char *path, const char *name) {
    size_t len = 0;
    AUTO_FREE char *text = read_small(path, &len);
    if (text == NULL) {
        return;
    }
    char hash[PLAN_HASH_SIZE] = "";
    hash_text(text, len, hash);
    read_flags(plan_system_add_unit(system, name, hash), text);
}

static bool ends_with(const char *text, const char *end) {
    size_t len = strlen(text);
    size_t end_len = strlen(end);
    return len > end_len && strcmp(text + len - end_len, end) == 0;
}

/* "web.service.d" holds drop-ins, "multi-user.target.wants" what the target wants. */
static void read_folder(struct plan_system *system, const char *path, const char *name) {
    bool drop_ins = ends_with(name, ".d");
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return;
    }
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (entry->d_name[0] == '.') {
            continue;
        }
        AUTO_FREE char *inner = xasprintf("%s/%s", name, entry->d_name);
        AUTO_FREE char *full = xasprintf("%s/%s", path, entry->d_name);
        if (!drop_ins) {
            plan_list_add(&system->wants, inner);
        } else if (ends_with(entry->d_name, ".conf")) {
            read_unit(system, full, inner);
        }
    }
    closedir(dir);
}

static void read_units(struct plan_system *system, const char *path) {
    AUTO_FREE char *folder = xasprintf("%s/etc/systemd/system", path);
    DIR *dir = opendir(folder);
    if (dir == NULL) {
        return;
    }
    system->units_known = true;
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        const char *name = entry->d_name;
        AUTO_FREE char *full = xasprintf("%s/%s", folder, name);
        struct stat info;
        if (name[0] == '.' || stat(full, &info) != 0) {
            continue;
        }
        if (!S_ISDIR(info.st_mode)) {
            read_unit(system, full, name);
        } else if (ends_with(name, ".d") || ends_with(name, ".wants") ||
                   ends_with(name, ".requires")) {
            read_folder(system, full, name);
        }
    }
    closedir(dir);
}

static char *read_link(const char *system, const char *name, uint64_t *size) {
    AUTO_FREE char *link = xasprintf("%s/%s", system, name);
    char target[PATH_MAX];
    struct stat info;
    if (realpath(link, target) == NULL || stat(target, &info) != 0) {
        return NULL;
    }
    if (size != NULL && S_ISREG(info.st_mode)) {
        *size += (uint64_t)info.st_size;
    }
    return xstrdup(target);
}

void plan_system_read(const char *path, struct plan_system *ret) {
    *ret = (struct plan_system){0};
    read_units(ret, path);
    ret->kernel = read_link(path, "kernel", &ret->boot_bytes);
    ret->initrd = read_link(path, "initrd", &ret->boot_bytes);
    ret->modules = read_link(path, "kernel-modules", NULL);
    AUTO_FREE char *abi = xasprintf("%s/init-interface-version", path);
    size_t len = 0;
    ret->init_abi = read_small(abi, &len);
    if (ret->init_abi != NULL) {
        /* The line that a host's shell reads. */
        ret->init_abi[strcspn(ret->init_abi, "\n")] = '\0';
    }
    plan_system_settle(ret);
}
