#include "transport/serve_list.h"

#include <stdlib.h>

#include "core/base/xalloc.h"

/* More are no system's closure, and comparing them takes too long. */
#define PATHS_MAX 20000u

static void keep(struct serve_list *list, char *path) {
    if (list->count >= PATHS_MAX) {
        free(path);
        return;
    }
    if ((list->count & (list->count + 1)) == 0) {
        list->paths = xrealloc(list->paths, (2 * list->count + 2) * sizeof(*list->paths));
    }
    list->paths[list->count++] = path;
}

int serve_list_take(struct serve_list *list, struct serve_reader *reader, uint64_t most,
                    struct error *error) {
    int got;
    if (!list->begun) {
        got = serve_take_count(reader, most, &list->left, error);
        if (got != 1) {
            return got;
        }
        list->begun = true;
    }
    while (list->left > 0) {
        char *path;
        got = serve_take_path(reader, &path, error);
        if (got != 1) {
            return got;
        }
        list->left--;
        keep(list, path);
    }
    return 1;
}

bool serve_list_is_whole(const struct serve_list *list) {
    return list->count < PATHS_MAX;
}

void serve_list_free(struct serve_list *list) {
    for (size_t i = 0; i < list->count; i++) {
        free(list->paths[i]);
    }
    free(list->paths);
    *list = (struct serve_list){0};
}
