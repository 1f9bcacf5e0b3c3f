#include "inventory/arena.h"

#include <stdalign.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"

#define BLOCK_SIZE ((size_t)64 * 1024)
#define ALIGNMENT  alignof(max_align_t)

struct block {
    struct block *next;
    size_t used, size;
    alignas(ALIGNMENT) char data[];
};

struct inv_arena {
    struct block *blocks; /* the first one is being filled */
};

struct inv_arena *arena_new(void) {
    return xcalloc(1, sizeof(struct inv_arena));
}

void arena_free(struct inv_arena *arena) {
    if (arena == NULL) {
        return;
    }
    for (struct block *block = arena->blocks, *next; block != NULL; block = next) {
        next = block->next;
        free(block);
    }
    free(arena);
}

/* Uninitialised memory; only a string may ask for an alignment of 1. */
static void *take(struct inv_arena *arena, size_t size, size_t alignment) {
    struct block *block = arena->blocks;
    size_t start = block != NULL ? (block->used + alignment - 1) & ~(alignment - 1) : 0;
    if (block == NULL || start > block->size || size > block->size - start) {
        size_t room = size > BLOCK_SIZE / 4 ? size : BLOCK_SIZE;
        struct block *fresh = xmalloc(sizeof(*fresh) + room);
        fresh->size = room;
        if (room == size && block != NULL) {
            /* A large piece gets a block of its own, behind the one that still has room. */
            fresh->used = size;
            fresh->next = block->next;
            block->next = fresh;
            return fresh->data;
        }
        fresh->next = block;
        arena->blocks = block = fresh;
        start = 0;
    }
    block->used = start + size;
    return block->data + start;
}

void *arena_alloc(struct inv_arena *arena, size_t count, size_t size) {
    if (size != 0 && count > SIZE_MAX / 2 / size) {
        abort(); /* More than the address space: the sizes come from a file of bounded length. */
    }
    void *memory = take(arena, count * size, ALIGNMENT);
    memset(memory, 0, count * size);
    return memory;
}

void *arena_copy(struct inv_arena *arena, const void *data, size_t count, size_t size) {
    void *memory = arena_alloc(arena, count, size);
    if (count * size > 0) {
        memcpy(memory, data, count * size);
    }
    return memory;
}

char *arena_text(struct inv_arena *arena, const char *text, size_t len) {
    char *copy = take(arena, len + 1, 1);
    if (len > 0) {
        memcpy(copy, text, len);
    }
    copy[len] = '\0';
    return copy;
}

char *arena_printf(struct inv_arena *arena, const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *text = xvasprintf(format, args);
    va_end(args);
    char *copy = arena_text(arena, text, strlen(text));
    free(text);
    return copy;
}
