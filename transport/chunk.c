#include <assert.h>
#include <stdlib.h>

#include "core/base/xalloc.h"
#include "transport/conn.h"

struct chunk *chunk_new(size_t len) {
    assert(len <= UINT32_MAX);
    struct chunk *chunk = xmalloc(sizeof(*chunk) + len);
    chunk->refs = 1;
    chunk->len = (uint32_t)len;
    return chunk;
}

struct chunk *chunk_ref(struct chunk *chunk) {
    chunk->refs++;
    return chunk;
}

void chunk_unref(struct chunk *chunk) {
    if (chunk != NULL && --chunk->refs == 0) {
        free(chunk);
    }
}
