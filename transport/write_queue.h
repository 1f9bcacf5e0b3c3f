/* The bytes that a stream still has to hand to its carrier: shared chunks, and copies of small
 * writes gathered into pieces of a packet's size, which are wiped once they are through.
 *
 * The front piece's address never changes while it is the front, and its length only grows:
 * libssh2 may be given the same bytes again after EAGAIN.
 */
#ifndef FLEET_TRANSPORT_WRITE_QUEUE_H
#define FLEET_TRANSPORT_WRITE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

#include "transport/conn.h"

struct write_piece;

struct write_queue {
    struct write_piece *head;
    struct write_piece *tail;
    size_t bytes;
    bool was_high; /* has been above STREAM_LOW_WATER since the last drain */
};

/* Copies. */
void write_queue_add(struct write_queue *queue, const void *data, size_t len);
/* Takes a reference of its own. */
void write_queue_add_chunk(struct write_queue *queue, struct chunk *chunk);
/* The first piece's unsent bytes, or false where the queue is empty. */
bool write_queue_front(const struct write_queue *queue, const char **ret_data, size_t *ret_len);
/* Drops `len` bytes of the front piece. */
void write_queue_pop(struct write_queue *queue, size_t len);
/* True once, when the queue has fallen below STREAM_LOW_WATER after having been above it. */
bool write_queue_drained(struct write_queue *queue);
void write_queue_clear(struct write_queue *queue);

#endif
