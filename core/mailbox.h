/* A queue of messages into one loop from any thread, woken by uv_async.
 *
 * A message embeds struct mail; the receiver frees it. Order is kept. The only thing that lanes
 * and coordinator share. However many messages there are, one turn of the loop hands out only what
 * takes some milliseconds, so that whatever else the loop does has its turn, too.
 */
#ifndef FLEET_CORE_MAILBOX_H
#define FLEET_CORE_MAILBOX_H

#include <uv.h>

struct mail {
    struct mail *next;
};

struct mailbox {
    uv_async_t async;
    uv_mutex_t mutex;
    struct mail *first;
    struct mail **last;
    void (*receive)(struct mail *mail, void *arg);
    void *arg;
};

/* On the receiving loop's thread, or before its thread runs. `receive` fires on the loop. */
void mailbox_init(struct mailbox *box, uv_loop_t *loop,
                  void (*receive)(struct mail *mail, void *arg), void *arg);
/* Any thread. Ownership passes. */
void mailbox_post(struct mailbox *box, struct mail *mail);
/* The receiver's thread: hands out all that is there, now. */
void mailbox_drain(struct mailbox *box);
/* The receiver's thread; nothing may be posted any more. */
void mailbox_close(struct mailbox *box);

#endif
