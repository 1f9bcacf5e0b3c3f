/* Finds a name's number: host names in a run of 10,000, tags, groups.
 *
 * Names are borrowed and outlive the index. Used by one thread at a time.
 */
#ifndef FLEET_CORE_NAME_INDEX_H
#define FLEET_CORE_NAME_INDEX_H

#include <stddef.h>

struct name_index;

#define NAME_INDEX_NONE ((size_t)-1)

struct name_index *name_index_new(void);
void name_index_free(struct name_index *index);
/* The first number given for a name stays. */
void name_index_add(struct name_index *index, const char *name, size_t number);
/* The number, or NAME_INDEX_NONE. */
size_t name_index_find(const struct name_index *index, const char *name);

#endif
