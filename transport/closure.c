/* The registry of paths and the closures made of it (see path_registry.h).
 *
 * Open addressing over the full path. An entry that is added gets its index only when a closure is
 * made, by a depth-first walk with a stack of its own: closures are hundreds of references deep.
 */
#include "transport/closure.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "transport/path_registry.h"

#define INDEX_VISITING (PATH_UNKNOWN - 1)
#define SLOTS_MIN      256u

struct entry {
    uint32_t index; /* PATH_UNKNOWN before it is ordered, INDEX_VISITING during the walk */
    uint32_t hash;
    struct path_info *info;
};

/* The closure as handed out, with its memory. */
struct kept_closure {
    struct closure closure; /* first */
    char *top;
    const struct path_info **paths;
    uint32_t *indices; /* of `paths`, ascending */
    struct kept_closure *next;
};

struct path_registry {
    struct entry **slots;
    size_t slot_count; /* a power of two */
    size_t used;
    struct entry **ordered;
    uint32_t count;
    uint32_t cap;
    struct kept_closure *closures;
};

struct path_registry *path_registry_new(void) {
    struct path_registry *registry = xcalloc(1, sizeof(*registry));
    registry->slot_count = SLOTS_MIN;
    registry->slots = xcalloc(SLOTS_MIN, sizeof(struct entry *));
    return registry;
}

void path_registry_free(struct path_registry *registry) {
    if (registry == NULL) {
        return;
    }
    for (size_t i = 0; i < registry->slot_count; i++) {
        if (registry->slots[i] != NULL) {
            free(registry->slots[i]->info);
            free(registry->slots[i]);
        }
    }
    while (registry->closures != NULL) {
        struct kept_closure *kept = registry->closures;
        registry->closures = kept->next;
        free(kept->top);
        free(kept->paths);
        free(kept->indices);
        free(kept);
    }
    free(registry->slots);
    free(registry->ordered);
    free(registry);
}

/* FNV-1a; store paths carry 160 random bits, so nobody needs a keyed hash here. */
static uint32_t hash_of(const char *path) {
    uint32_t hash = 2166136261u;
    for (const char *c = path; *c != '\0'; c++) {
        hash = (hash ^ (unsigned char)*c) * 16777619u;
    }
    return hash;
}

/* The slot that holds the path, or the free one where it belongs. */
static struct entry **slot_of(const struct path_registry *registry, const char *path,
                              uint32_t hash) {
    size_t mask = registry->slot_count - 1;
    size_t at = hash & mask;
    while (registry->slots[at] != NULL && (registry->slots[at]->hash != hash ||
                                           strcmp(registry->slots[at]->info->path, path) != 0)) {
        at = (at + 1) & mask;
    }
    return &registry->slots[at];
}

static struct entry *entry_of(const struct path_registry *registry, const char *path) {
    return *slot_of(registry, path, hash_of(path));
}

static void grow(struct path_registry *registry) {
    struct entry **old = registry->slots;
    size_t old_count = registry->slot_count;
    registry->slot_count *= 2;
    registry->slots = xcalloc(registry->slot_count, sizeof(struct entry *));
    for (size_t i = 0; i < old_count; i++) {
        if (old[i] != NULL) {
            *slot_of(registry, old[i]->info->path, old[i]->hash) = old[i];
        }
    }
    free(old);
}

void path_registry_add(struct path_registry *registry, struct path_info *info) {
    if (registry->used * 2 >= registry->slot_count) {
        grow(registry);
    }
    uint32_t hash = hash_of(info->path);
    struct entry **slot = slot_of(registry, info->path, hash);
    if (*slot != NULL) {
        free(info);
        return;
    }
    struct entry *entry = xcalloc(1, sizeof(*entry));
    entry->index = PATH_UNKNOWN;
    entry->hash = hash;
    entry->info = info;
    *slot = entry;
    registry->used++;
}

uint32_t path_registry_find(const struct path_registry *registry, const char *path) {
    const struct entry *entry = entry_of(registry, path);
    return entry != NULL && entry->index < INDEX_VISITING ? entry->index : PATH_UNKNOWN;
}

const struct path_info *path_registry_info(const struct path_registry *registry, uint32_t index) {
    return registry->ordered[index]->info;
}

uint32_t path_registry_count(const struct path_registry *registry) {
    return registry->count;
}

const struct closure *path_registry_closure(const struct path_registry *registry, const char *top) {
    for (const struct kept_closure *kept = registry->closures; kept != NULL; kept = kept->next) {
        if (strcmp(kept->top, top) == 0) {
            return &kept->closure;
        }
    }
    return NULL;
}

static void order_entry(struct path_registry *registry, struct entry *entry) {
    if (registry->count == registry->cap) {
        registry->cap = registry->cap > 0 ? registry->cap * 2 : 256;
        registry->ordered = xrealloc(registry->ordered, registry->cap * sizeof(struct entry *));
    }
    entry->index = registry->count;
    registry->ordered[registry->count++] = entry;
}

struct walk {
    struct frame {
        struct entry *entry;
        size_t next_ref;
    } * frames;
    size_t depth;
    size_t cap;
};

static void walk_push(struct walk *walk, struct entry *entry) {
    if (walk->depth == walk->cap) {
        walk->cap = walk->cap > 0 ? walk->cap * 2 : 64;
        walk->frames = xrealloc(walk->frames, walk->cap * sizeof(struct frame));
    }
    entry->index = INDEX_VISITING;
    walk->frames[walk->depth++] = (struct frame){entry, 0};
}

/* Leaves nothing half-visited behind after an error. */
static void walk_abandon(struct walk *walk) {
    while (walk->depth > 0) {
        walk->frames[--walk->depth].entry->index = PATH_UNKNOWN;
    }
}

static int walk_step(struct path_registry *registry, struct walk *walk, struct error *error) {
    struct frame *frame = &walk->frames[walk->depth - 1];
    const struct path_info *info = frame->entry->info;
    if (frame->next_ref == info->ref_count) {
        walk->depth--;
        order_entry(registry, frame->entry);
        return 0;
    }
    const char *ref = info->refs[frame->next_ref++];
    if (strcmp(ref, info->path) == 0) {
        return 0;
    }
    struct entry *target = entry_of(registry, ref);
    if (target == NULL) {
        return error_set(error, FLEET_ERR_PROTOCOL, "source-corrupt",
                         "%s refers to %s, which the source store does not list. Run \"nix-store "
                         "--verify\" there",
                         info->path, ref);
    }
    if (target->index == INDEX_VISITING) {
        return error_set(error, FLEET_ERR_PROTOCOL, "source-corrupt",
                         "the references of %s run in a circle through %s. Run \"nix-store "
                         "--verify\" on the source store",
                         info->path, ref);
    }
    if (target->index == PATH_UNKNOWN) {
        walk_push(walk, target);
    }
    return 0;
}

static int order_path(struct path_registry *registry, struct walk *walk, const char *path,
                      struct error *error) {
    struct entry *entry = entry_of(registry, path);
    if (entry == NULL) {
        return error_set(error, FLEET_ERR_PROTOCOL, "source-corrupt",
                         "the source store lists %s in a closure and knows nothing about it. Run "
                         "\"nix-store --verify\" there",
                         path);
    }
    if (entry->index != PATH_UNKNOWN) {
        return 0;
    }
    walk_push(walk, entry);
    int err = 0;
    while (err == 0 && walk->depth > 0) {
        err = walk_step(registry, walk, error);
    }
    walk_abandon(walk);
    return err;
}

static int by_index(const void *a, const void *b) {
    uint32_t left = *(const uint32_t *)a;
    uint32_t right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

const uint32_t *path_registry_indices(const struct closure *closure) {
    return ((const struct kept_closure *)(const void *)closure)->indices;
}

/* Sorts the paths' indices and makes the closure of what is left after duplicates. */
static struct kept_closure *keep(struct path_registry *registry, const char *top,
                                 char *const *paths, size_t count) {
    struct kept_closure *kept = xcalloc(1, sizeof(*kept));
    kept->indices = xcalloc(count, sizeof(uint32_t));
    kept->paths = xcalloc(count, sizeof(struct path_info *));
    for (size_t i = 0; i < count; i++) {
        kept->indices[i] = path_registry_find(registry, paths[i]);
    }
    qsort(kept->indices, count, sizeof(uint32_t), by_index);
    size_t distinct = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t index = kept->indices[i];
        if (distinct > 0 && index == kept->indices[distinct - 1]) {
            continue;
        }
        kept->indices[distinct] = index;
        kept->paths[distinct++] = path_registry_info(registry, index);
        kept->closure.nar_size += path_registry_info(registry, index)->nar_size;
    }
    kept->closure.count = distinct;
    kept->closure.paths = kept->paths;
    kept->top = xstrdup(top);
    kept->closure.top = kept->top;
    kept->next = registry->closures;
    registry->closures = kept;
    return kept;
}

int path_registry_make(struct path_registry *registry, const char *top, char *const *paths,
                       size_t count, const struct closure **ret_closure, struct error *error) {
    struct walk walk = {0};
    bool has_top = false;
    int err = 0;
    for (size_t i = 0; err == 0 && i < count; i++) {
        err = order_path(registry, &walk, paths[i], error);
        has_top = has_top || strcmp(paths[i], top) == 0;
    }
    free(walk.frames);
    if (err == 0 && !has_top) {
        err = error_set(error, FLEET_ERR_PROTOCOL, "source-corrupt",
                        "the source store's closure of %s does not contain it", top);
    }
    if (err == 0) {
        *ret_closure = &keep(registry, top, paths, count)->closure;
    }
    return err;
}
