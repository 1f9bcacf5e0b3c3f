/* Replies of a hostile nix-store. The first byte chooses the session: 'S' a source's (greeting,
 * closure, infos), anything else a target's (greeting, list, acknowledgements, list). What it
 * gives for infos is made into a closure, too. */
#include <stdint.h>
#include <stdlib.h>

#include "transport/path_registry.h"
#include "transport/serve.h"

#define PATHS_MAX 1000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t take_list(struct serve_reader *reader, char **paths) {
    uint64_t count;
    size_t taken = 0;
    if (serve_take_count(reader, PATHS_MAX, &count, NULL) != 1) {
        return 0;
    }
    while (taken < count && serve_take_path(reader, &paths[taken], NULL) == 1) {
        taken++;
    }
    return taken;
}

static void free_list(char **paths, size_t count) {
    for (size_t i = 0; i < count; i++) {
        free(paths[i]);
    }
}

static void read_source(struct serve_reader *reader) {
    char *paths[PATHS_MAX];
    size_t count = take_list(reader, paths);
    struct path_registry *registry = path_registry_new();
    struct path_info *info;
    while (serve_take_info(reader, &info, NULL) == 1 && info != NULL) {
        path_registry_add(registry, info);
    }
    const struct closure *closure;
    struct error error = ERROR_INIT;
    if (count > 0 && path_registry_make(registry, paths[0], paths, count, &closure, &error) == 0 &&
        closure->count > count) {
        abort();
    }
    path_registry_free(registry);
    free_list(paths, count);
}

static void read_target(struct serve_reader *reader) {
    char *paths[PATHS_MAX];
    free_list(paths, take_list(reader, paths));
    uint64_t ack;
    while (serve_take_int(reader, &ack) == 1 && ack == 1) {
    }
    free_list(paths, take_list(reader, paths));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct serve_reader reader = {0};
    struct error error = ERROR_INIT;
    uint32_t version;
    if (size == 0) {
        return 0;
    }
    serve_reader_feed(&reader, (const char *)data + 1, size - 1);
    if (serve_take_hello(&reader, &version, &error) == 1) {
        if (data[0] == 'S') {
            read_source(&reader);
        } else {
            read_target(&reader);
        }
    }
    serve_reader_free(&reader);
    return 0;
}
