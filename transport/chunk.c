#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/base/xalloc.h"
#include "transport/conn.h"

struct chunk *chunk_new(size_t len) {
    assert(len <= UINT32_MAX);
    struct chunk *chunk = xmalloc(sizeof(*chunk) + len);
    atomic_init(&chunk->refs, 1);
    chunk->len = (uint32_t)len;
    return chunk;
}

struct chunk *chunk_ref(struct chunk *chunk) {
    atomic_fetch_add_explicit(&chunk->refs, 1, memory_order_relaxed);
    return chunk;
}

void chunk_unref(struct chunk *chunk) {
    /* What any owner did with it comes before the last one frees it. */
    if (chunk != NULL && atomic_fetch_sub_explicit(&chunk->refs, 1, memory_order_acq_rel) == 1) {
        free(chunk);
    }
}
