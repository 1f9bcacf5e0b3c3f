/* Memory that lives and dies together: everything of one loaded inventory, or of one error list.
 * Not thread-safe while it grows; free to read from any thread afterwards.
 */
#ifndef FLEET_INVENTORY_ARENA_H
#define FLEET_INVENTORY_ARENA_H

#include <stddef.h>

struct inv_arena;

/* Never NULL; release with arena_free, which takes NULL too. */
struct inv_arena *arena_new(void);
void arena_free(struct inv_arena *arena);

/* Zeroed memory, aligned for any type, owned by the arena. */
void *arena_alloc(struct inv_arena *arena, size_t count, size_t size);
void *arena_copy(struct inv_arena *arena, const void *data, size_t count, size_t size);
char *arena_text(struct inv_arena *arena, const char *text, size_t len);
char *arena_printf(struct inv_arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
