#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "transport/path_registry.h"

#define HASH "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-"

Test(store_path, is_what_nix_says_it_is) {
    cr_expect(store_path_is_valid(HASH "hello-2.12.1"));
    cr_expect(store_path_is_valid(HASH "a"));
    cr_expect(store_path_is_valid(HASH "A+z-._?=9"));
    cr_expect_not(store_path_is_valid(HASH));
    cr_expect_not(store_path_is_valid(HASH "a/b"));
    cr_expect_not(store_path_is_valid(HASH "a b"));
    cr_expect_not(store_path_is_valid(HASH "a'b"));
    cr_expect_not(store_path_is_valid(HASH "a\n"));
    cr_expect_not(store_path_is_valid(HASH ".."));
    cr_expect_not(store_path_is_valid("/nix/store/0123456789abcdefghijklmnpqrsvwxy-e"));
    cr_expect_not(store_path_is_valid("/nix/store/0123-short"));
    cr_expect_not(store_path_is_valid("/nix/storex/0123456789abcdfghijklmnpqrsvwxyz-a"));
    cr_expect_not(store_path_is_valid(""));
    char name[300];
    memset(name, 'a', sizeof(name));
    name[211] = '\0';
    AUTO_FREE char *longest = xasprintf(HASH "%s", name);
    AUTO_FREE char *longer = xasprintf(HASH "%sa", name);
    cr_expect(store_path_is_valid(longest));
    cr_expect_not(store_path_is_valid(longer));
}

static char *path_of(unsigned number) {
    return xasprintf("/nix/store/%032u-p", number);
}

/* As serve_take_info would make it, with one reference or none. */
static void add(struct path_registry *registry, unsigned number, unsigned ref_count,
                const unsigned *refs) {
    size_t text = 64;
    struct path_info *info =
        xcalloc(1, sizeof(*info) + ref_count * sizeof(char *) + (ref_count + 1) * text);
    const char **list = (const char **)(void *)(info + 1);
    char *room = (char *)(void *)(list + ref_count);
    snprintf(room, text, "/nix/store/%032u-p", number);
    info->path = room;
    info->deriver = info->ca = "";
    info->nar_size = 100;
    for (unsigned i = 0; i < ref_count; i++) {
        room += text;
        snprintf(room, text, "/nix/store/%032u-p", refs[i]);
        list[i] = room;
    }
    info->refs = list;
    info->ref_count = ref_count;
    path_registry_add(registry, info);
}

static int make(struct path_registry *registry, unsigned top, const unsigned *numbers, size_t count,
                const struct closure **ret_closure, struct error *error) {
    char *paths[1000];
    for (size_t i = 0; i < count; i++) {
        paths[i] = path_of(numbers[i]);
    }
    AUTO_FREE char *name = path_of(top);
    int err = path_registry_make(registry, name, paths, count, ret_closure, error);
    for (size_t i = 0; i < count; i++) {
        free(paths[i]);
    }
    return err;
}

Test(closure, stands_with_references_first) {
    struct path_registry *registry = path_registry_new();
    const struct closure *closure;
    add(registry, 1, 3, (unsigned[]){1, 2, 3});
    add(registry, 2, 1, (unsigned[]){4});
    add(registry, 3, 1, (unsigned[]){2});
    add(registry, 4, 0, NULL);
    cr_assert_eq(make(registry, 1, (unsigned[]){1, 2, 3, 4}, 4, &closure, NULL), 0);
    cr_expect_eq(closure->count, 4u);
    cr_expect_eq(closure->nar_size, 400u);
    static const unsigned order[] = {4, 2, 3, 1};
    for (size_t i = 0; i < 4; i++) {
        AUTO_FREE char *expected = path_of(order[i]);
        cr_expect_str_eq(closure->paths[i]->path, expected);
    }
    path_registry_free(registry);
}

Test(closure, shares_paths_and_one_order_with_other_closures) {
    struct path_registry *registry = path_registry_new();
    const struct closure *first;
    const struct closure *second;
    add(registry, 1, 1, (unsigned[]){3});
    add(registry, 3, 0, NULL);
    cr_assert_eq(make(registry, 1, (unsigned[]){3, 1}, 2, &first, NULL), 0);
    add(registry, 2, 2, (unsigned[]){3, 4});
    add(registry, 4, 1, (unsigned[]){3});
    cr_assert_eq(make(registry, 2, (unsigned[]){4, 3, 2, 3}, 4, &second, NULL), 0);
    cr_expect_eq(second->count, 3u);
    cr_expect_eq(first->paths[0], second->paths[0]);
    const uint32_t *indices = path_registry_indices(second);
    cr_expect(indices[0] < indices[1] && indices[1] < indices[2]);
    path_registry_free(registry);
}

Test(closure, is_found_again_among_many) {
    struct path_registry *registry = path_registry_new();
    const struct closure *closure;
    unsigned numbers[1000];
    for (unsigned i = 0; i < 1000; i++) {
        numbers[i] = 999 - i;
        unsigned before = i > 0 ? i - 1 : 0;
        add(registry, i, 1, &before);
    }
    cr_assert_eq(make(registry, 999, numbers, 1000, &closure, NULL), 0);
    for (unsigned i = 0; i < 1000; i++) {
        AUTO_FREE char *path = path_of(i);
        cr_expect_eq(path_registry_find(registry, path), i);
    }
    cr_expect_eq(path_registry_find(registry, "/nix/store/x"), PATH_UNKNOWN);
    path_registry_free(registry);
}

Test(closure, refuses_circles_and_holes_and_can_be_made_later) {
    struct path_registry *registry = path_registry_new();
    const struct closure *closure = NULL;
    struct error error = ERROR_INIT;
    add(registry, 1, 1, (unsigned[]){2});
    cr_expect_eq(make(registry, 1, (unsigned[]){1}, 1, &closure, &error), FLEET_ERR_PROTOCOL);
    cr_expect_str_eq(error.reason, "source-corrupt");
    add(registry, 2, 1, (unsigned[]){3});
    add(registry, 3, 1, (unsigned[]){2});
    cr_expect_eq(make(registry, 1, (unsigned[]){1, 2, 3}, 3, &closure, &error), FLEET_ERR_PROTOCOL);
    cr_expect(strstr(error.message, "circle") != NULL);
    cr_expect_eq(make(registry, 2, (unsigned[]){2, 3}, 2, &closure, &error), FLEET_ERR_PROTOCOL,
                 "the first try left something half done");
    cr_expect_eq(make(registry, 7, (unsigned[]){7}, 1, &closure, &error), FLEET_ERR_PROTOCOL);
    add(registry, 8, 0, NULL);
    cr_expect_eq(make(registry, 9, (unsigned[]){8}, 1, &closure, &error), FLEET_ERR_PROTOCOL);
    cr_expect_null(closure);
    cr_expect_eq(make(registry, 8, (unsigned[]){8}, 1, &closure, &error), 0);
    path_registry_free(registry);
}
