#include "inventory/name_table.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"

/* FNV-1a. */
static uint64_t hash(const void *name, size_t len) {
    const unsigned char *bytes = name;
    uint64_t value = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < len; i++) {
        value = (value ^ bytes[i]) * UINT64_C(0x100000001b3);
    }
    return value ^ value >> 32;
}

/* The slot that holds the name, or the free one where it would go. */
static struct name_slot *probe(const struct name_table *table, const void *name, size_t len) {
    size_t mask = table->cap - 1;
    size_t at = (size_t)hash(name, len) & mask;
    while (table->slots[at].name != NULL &&
           (table->slots[at].len != len || memcmp(table->slots[at].name, name, len) != 0)) {
        at = (at + 1) & mask;
    }
    return &table->slots[at];
}

static void grow(struct name_table *table) {
    struct name_table old = *table;
    table->cap = old.cap > 0 ? old.cap * 2 : 64;
    table->slots = xcalloc(table->cap, sizeof(*table->slots));
    for (size_t i = 0; i < old.cap; i++) {
        if (old.slots[i].name != NULL) {
            *probe(table, old.slots[i].name, old.slots[i].len) = old.slots[i];
        }
    }
    free(old.slots);
}

bool name_table_add(struct name_table *table, const void *name, size_t len, size_t index,
                    size_t *ret_index) {
    if (table->count * 4 >= table->cap * 3) {
        grow(table);
    }
    struct name_slot *slot = probe(table, name, len);
    if (slot->name != NULL) {
        if (ret_index != NULL) {
            *ret_index = slot->index;
        }
        return false;
    }
    *slot = (struct name_slot){.name = name, .len = len, .index = index};
    table->count++;
    return true;
}

bool name_table_find(const struct name_table *table, const void *name, size_t len,
                     size_t *ret_index) {
    if (table->cap == 0) {
        return false;
    }
    const struct name_slot *slot = probe(table, name, len);
    if (slot->name == NULL) {
        return false;
    }
    *ret_index = slot->index;
    return true;
}

void name_table_release(struct name_table *table) {
    free(table->slots);
    *table = (struct name_table)NAME_TABLE_INIT;
}
