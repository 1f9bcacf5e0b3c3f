/* Packages of two closures, compared by the names of their store paths (see plan.h). */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"
#include "core/plan.h"
#include "transport/closure.h"

#define STORE_PREFIX_LEN (sizeof("/nix/store/") - 1 + 33) /* the hash and its dash included */

/* Outputs that nixpkgs gives names of their own; part of a package, not of its version. */
static const char *const outputs[] = {"bin",    "dev",    "lib",      "man",    "doc",
                                      "info",   "out",    "data",     "dist",   "debug",
                                      "devdoc", "static", "terminfo", "getent", "libgcc",
                                      "locale", "py",     "dnsutils", "nss"};

/* The version's length without the name of an output behind it. */
static size_t without_output(const char *version) {
    const char *dash = strrchr(version, '-');
    for (size_t i = 0; dash != NULL && i < ARRAY_LEN(outputs); i++) {
        if (strcmp(dash + 1, outputs[i]) == 0) {
            return (size_t)(dash - version);
        }
    }
    return strlen(version);
}

bool plan_package_parse(const char *path, char **ret_name, char **ret_version) {
    if (!store_path_is_valid(path)) {
        return false;
    }
    const char *name = path + STORE_PREFIX_LEN;
    const char *dash = strchr(name, '-');
    while (dash != NULL && (dash[1] == '\0' || isalpha((unsigned char)dash[1]) != 0)) {
        dash = strchr(dash + 1, '-');
    }
    if (dash == NULL || dash == name) {
        return false;
    }
    *ret_name = xstrndup(name, (size_t)(dash - name));
    *ret_version = xstrndup(dash + 1, without_output(dash + 1));
    return true;
}

struct package {
    char *name, *version;
};

struct packages {
    struct package *items;
    size_t count;
};

static int by_name(const void *a, const void *b) {
    const struct package *left = a;
    const struct package *right = b;
    int order = strcmp(left->name, right->name);
    return order != 0 ? order : strcmp(left->version, right->version);
}

/* All packages, by name and version, each pair once. */
static struct packages read_packages(const struct plan_list *paths) {
    struct packages all = {.items = xcalloc(paths->count + 1, sizeof(struct package))};
    for (size_t i = 0; i < paths->count; i++) {
        struct package *at = &all.items[all.count];
        all.count += plan_package_parse(paths->items[i], &at->name, &at->version) ? 1 : 0;
    }
    qsort(all.items, all.count, sizeof(*all.items), by_name);
    size_t kept = 0;
    for (size_t i = 0; i < all.count; i++) {
        if (kept > 0 && by_name(&all.items[i], &all.items[kept - 1]) == 0) {
            free(all.items[i].name);
            free(all.items[i].version);
        } else {
            all.items[kept++] = all.items[i];
        }
    }
    all.count = kept;
    return all;
}

static void free_packages(struct packages *all) {
    for (size_t i = 0; i < all->count; i++) {
        free(all->items[i].name);
        free(all->items[i].version);
    }
    free(all->items);
}

/* How many from `first` on have the same name; 0 at the end. */
static size_t same_name(const struct packages *all, size_t first) {
    size_t count = 0;
    while (first + count < all->count &&
           strcmp(all->items[first].name, all->items[first + count].name) == 0) {
        count++;
    }
    return count;
}

static char *join_versions(const struct package *first, size_t count) {
    struct buf text = BUF_INIT;
    for (size_t i = 0; i < count; i++) {
        buf_printf(&text, "%s%s", i > 0 ? ", " : "", first[i].version);
    }
    return buf_take(&text);
}

static void add_all(struct plan_list *list, const struct package *first, size_t count) {
    for (size_t i = 0; i < count; i++) {
        AUTO_FREE char *item = xasprintf("%s-%s", first[i].name, first[i].version);
        plan_list_add(list, item);
    }
}

static void compare_versions(const struct package *from, size_t from_count,
                             const struct package *to, size_t to_count, struct plan_packages *ret) {
    char *old = join_versions(from, from_count);
    char *new = join_versions(to, to_count);
    if (strcmp(old, new) == 0) {
        free(old);
        free(new);
        return;
    }
    ret->changed = xrealloc(ret->changed, (ret->changed_count + 1) * sizeof(*ret->changed));
    ret->changed[ret->changed_count++] =
        (struct plan_change){.name = xstrdup(from->name), .from = old, .to = new};
}

void plan_packages_compare(const struct plan_list *from, const struct plan_list *to,
                           struct plan_packages *ret) {
    struct packages old = read_packages(from);
    struct packages new = read_packages(to);
    size_t i = 0;
    size_t j = 0;
    *ret = (struct plan_packages){0};
    while (i < old.count || j < new.count) {
        size_t olds = same_name(&old, i);
        size_t news = same_name(&new, j);
        int order = olds == 0 ? 1 : news == 0 ? -1 : strcmp(old.items[i].name, new.items[j].name);
        if (order < 0) {
            add_all(&ret->removed, &old.items[i], olds);
        } else if (order > 0) {
            add_all(&ret->added, &new.items[j], news);
        } else {
            compare_versions(&old.items[i], olds, &new.items[j], news, ret);
        }
        i += order <= 0 ? olds : 0;
        j += order >= 0 ? news : 0;
    }
    free_packages(&old);
    free_packages(&new);
    plan_list_settle(&ret->added);
    plan_list_settle(&ret->removed);
}

void plan_packages_free(struct plan_packages *packages) {
    plan_list_free(&packages->added);
    plan_list_free(&packages->removed);
    for (size_t i = 0; i < packages->changed_count; i++) {
        free(packages->changed[i].name);
        free(packages->changed[i].from);
        free(packages->changed[i].to);
    }
    free(packages->changed);
    *packages = (struct plan_packages){0};
}
