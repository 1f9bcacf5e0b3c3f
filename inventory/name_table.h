/* A hash table from names to positions in an array. The names stay the caller's and must outlive
 * the table. Filled once, then free to read from any thread.
 */
#ifndef FLEET_INVENTORY_NAME_TABLE_H
#define FLEET_INVENTORY_NAME_TABLE_H

#include <stdbool.h>
#include <stddef.h>

struct name_slot {
    const void *name;
    size_t len;
    size_t index;
};

struct name_table {
    struct name_slot *slots;
    size_t cap, count; /* `cap` is 0 or a power of two */
};

#define NAME_TABLE_INIT                                                                            \
    { 0 }

/* Adds `name` (any `len` bytes) with `index`. False, and nothing changed, where it is in already;
 * `ret_index` (or NULL) then is the position it has. */
bool name_table_add(struct name_table *table, const void *name, size_t len, size_t index,
                    size_t *ret_index);
bool name_table_find(const struct name_table *table, const void *name, size_t len,
                     size_t *ret_index);
void name_table_release(struct name_table *table);

#endif
