#include "transport/write_queue.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"

enum {
    PIECE_BYTES = 32 * 1024
};

struct write_piece {
    struct write_piece *next;
    struct chunk *chunk;
    size_t start; /* sent already */
    size_t end;   /* filled up to here */
    size_t room;  /* what may be filled; equal to `end` for a shared chunk */
    bool copied;  /* of a write: a script's secret or a password may be in it, and is wiped */
};

static struct write_piece *append(struct write_queue *queue, struct chunk *chunk, size_t end) {
    struct write_piece *piece = xcalloc(1, sizeof(*piece));
    piece->chunk = chunk;
    piece->end = end;
    piece->room = chunk->len;
    if (queue->tail != NULL) {
        queue->tail->next = piece;
    } else {
        queue->head = piece;
    }
    queue->tail = piece;
    return piece;
}

static void grown(struct write_queue *queue, size_t len) {
    queue->bytes += len;
    if (queue->bytes >= STREAM_LOW_WATER) {
        queue->was_high = true;
    }
}

void write_queue_add(struct write_queue *queue, const void *data, size_t len) {
    const char *from = data;
    grown(queue, len);
    while (len > 0) {
        struct write_piece *piece = queue->tail;
        if (piece == NULL || piece->end == piece->room) {
            piece = append(queue, chunk_new(len > PIECE_BYTES ? len : PIECE_BYTES), 0);
            piece->copied = true;
        }
        size_t part = piece->room - piece->end;
        part = part < len ? part : len;
        memcpy(piece->chunk->data + piece->end, from, part);
        piece->end += part;
        from += part;
        len -= part;
    }
}

void write_queue_add_chunk(struct write_queue *queue, struct chunk *chunk) {
    if (chunk->len == 0) {
        return;
    }
    append(queue, chunk_ref(chunk), chunk->len);
    grown(queue, chunk->len);
}

bool write_queue_front(const struct write_queue *queue, const char **ret_data, size_t *ret_len) {
    const struct write_piece *piece = queue->head;
    if (piece == NULL) {
        return false;
    }
    *ret_data = (const char *)piece->chunk->data + piece->start;
    *ret_len = piece->end - piece->start;
    return true;
}

void write_queue_pop(struct write_queue *queue, size_t len) {
    struct write_piece *piece = queue->head;
    piece->start += len;
    queue->bytes -= len;
    if (piece->start < piece->end) {
        return;
    }
    queue->head = piece->next;
    if (queue->head == NULL) {
        queue->tail = NULL;
    }
    if (piece->copied) {
        secret_wipe(piece->chunk->data, piece->end);
    }
    chunk_unref(piece->chunk);
    free(piece);
}

bool write_queue_drained(struct write_queue *queue) {
    if (!queue->was_high || queue->bytes >= STREAM_LOW_WATER) {
        return false;
    }
    queue->was_high = false;
    return true;
}

void write_queue_clear(struct write_queue *queue) {
    while (queue->head != NULL) {
        write_queue_pop(queue, queue->head->end - queue->head->start);
    }
    queue->was_high = false;
}
