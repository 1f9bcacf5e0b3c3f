/* From bytes read to chunks that receivers share, in the form that each of them takes.
 *
 * Small pieces are gathered, so that many small paths travel in one chunk; large blocks are passed
 * on as they are. Blocks of the feed come in both forms already; what a serve process sent is packed
 * here, where a receiver wants that.
 */
#include <string.h>

#include "transport/copy_internal.h"

/* Blocks below this are gathered. */
#define SMALL_BYTES (32u * 1024u)

static void push(struct copy_pass *pass, struct chunk *chunk, bool packed) {
    for (size_t i = 0; i < pass->receiver_count; i++) {
        if (pass->receivers[i]->packed == packed) {
            copy_job_push(pass->receivers[i], chunk);
        }
    }
}

static bool any_packed(const struct copy_pass *pass) {
    for (size_t i = 0; i < pass->receiver_count; i++) {
        if (pass->receivers[i]->packed) {
            return true;
        }
    }
    return false;
}

/* What is gathered, as a chunk to measure; NULL where there is nothing. */
static struct chunk *take(struct copy_gather *gather) {
    if (gather->len == 0) {
        return NULL;
    }
    struct chunk *chunk = gather->chunk;
    if (gather->len >= COPY_CHUNK_BYTES / 2) {
        chunk->len = (uint32_t)gather->len;
        gather->chunk = NULL;
    } else {
        chunk = chunk_new(gather->len);
        memcpy(chunk->data, gather->chunk->data, gather->len);
    }
    gather->len = 0;
    return chunk;
}

static void flush_form(struct copy_pass *pass, struct copy_gather *gather, bool packed) {
    struct chunk *chunk = take(gather);
    if (chunk == NULL) {
        return;
    }
    push(pass, chunk, packed);
    if (!packed && !pass->direct && any_packed(pass)) {
        if (pass->packer == NULL) {
            pass->packer = zstd_packer_new();
        }
        struct chunk *frame = zstd_pack(pass->packer, chunk->data, chunk->len);
        push(pass, frame, true);
        chunk_unref(frame);
    }
    chunk_unref(chunk);
}

void copy_pass_flush(struct copy_pass *pass) {
    flush_form(pass, &pass->raw, false);
    flush_form(pass, &pass->packed, true);
}

static void gather_bytes(struct copy_pass *pass, struct copy_gather *gather, bool packed,
                         const void *bytes, size_t len) {
    const char *data = bytes;
    while (len > 0) {
        if (gather->chunk == NULL) {
            gather->chunk = chunk_new(COPY_CHUNK_BYTES);
        }
        size_t room = COPY_CHUNK_BYTES - gather->len;
        size_t piece = len < room ? len : room;
        memcpy(gather->chunk->data + gather->len, data, piece);
        gather->len += piece;
        data += piece;
        len -= piece;
        if (gather->len == COPY_CHUNK_BYTES) {
            flush_form(pass, gather, packed);
        }
    }
}

void copy_pass_gather(struct copy_pass *pass, const void *data, size_t len) {
    gather_bytes(pass, &pass->raw, false, data, len);
}

static void take_form(struct copy_pass *pass, struct copy_gather *gather, bool packed,
                      struct chunk *chunk) {
    if (chunk == NULL) {
        return;
    }
    if (chunk->len < SMALL_BYTES) {
        gather_bytes(pass, gather, packed, chunk->data, chunk->len);
    } else {
        flush_form(pass, gather, packed);
        push(pass, chunk, packed);
    }
    chunk_unref(chunk);
}

void copy_pass_take_block(struct copy_pass *pass, const struct nar_block *block) {
    take_form(pass, &pass->raw, false, block->raw);
    take_form(pass, &pass->packed, true, block->packed);
}

void copy_pass_drop_gathered(struct copy_pass *pass) {
    chunk_unref(pass->raw.chunk);
    chunk_unref(pass->packed.chunk);
    pass->raw = (struct copy_gather){0};
    pass->packed = (struct copy_gather){0};
}
