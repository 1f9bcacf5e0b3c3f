/* Open addressing with linear probing; at most half full, so a search ends soon. */
#include "core/name_index.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"

struct slot {
    const char *name; /* NULL: free */
    size_t number;
};

struct name_index {
    struct slot *slots;
    size_t size; /* a power of two */
    size_t count;
};

/* FNV-1a, 64 bits. */
static uint64_t hash_of(const char *name) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (; *name != '\0'; name++) {
        hash = (hash ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
    }
    return hash ^ hash >> 32;
}

/* The slot that holds `name`, or the free one where it belongs. */
static struct slot *slot_of(const struct name_index *index, const char *name) {
    size_t at = (size_t)hash_of(name) & (index->size - 1);
    while (index->slots[at].name != NULL && strcmp(index->slots[at].name, name) != 0) {
        at = (at + 1) & (index->size - 1);
    }
    return &index->slots[at];
}

struct name_index *name_index_new(void) {
    struct name_index *index = xcalloc(1, sizeof(*index));
    index->size = 16;
    index->slots = xcalloc(index->size, sizeof(*index->slots));
    return index;
}

void name_index_free(struct name_index *index) {
    if (index != NULL) {
        free(index->slots);
        free(index);
    }
}

static void grow(struct name_index *index) {
    struct slot *old = index->slots;
    size_t old_size = index->size;
    index->size *= 2;
    index->slots = xcalloc(index->size, sizeof(*index->slots));
    for (size_t i = 0; i < old_size; i++) {
        if (old[i].name != NULL) {
            *slot_of(index, old[i].name) = old[i];
        }
    }
    free(old);
}

void name_index_add(struct name_index *index, const char *name, size_t number) {
    struct slot *slot = slot_of(index, name);
    if (slot->name != NULL) {
        return;
    }
    *slot = (struct slot){.name = name, .number = number};
    if (++index->count * 2 > index->size) {
        grow(index);
    }
}

size_t name_index_find(const struct name_index *index, const char *name) {
    const struct slot *slot = slot_of(index, name);
    return slot->name != NULL ? slot->number : NAME_INDEX_NONE;
}
