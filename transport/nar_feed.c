/* The feed's thread and its ports (see nar_feed.h).
 *
 *   ask ─► reading (one path's blocks so far) ◄─ ask      asks hang on their port, in its order,
 *                                                           and on the reading that they follow
 *
 * The thread picks, port by port in turn, the first path whose blocks ahead of that port are fewer
 * than AHEAD, and makes one block of it (nar_reading.h has what is kept of them).
 */
#include "transport/nar_feed.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "transport/nar_reading.h"
#include "transport/zstd_frame.h"

#define END_NS UINT64_C(2000000000) /* the thread may finish its block */

/* A port's request for one path. */
struct ask {
    struct ask *next; /* of the port */
    struct nar_port *port;
    struct nar_follower follower;
    uint32_t tag;
};

struct nar_port {
    struct nar_port *next;
    struct feed *feed;
    char *root;
    uv_async_t async;
    void (*on_ready)(void *arg);
    void *arg;
    struct ask *first, **last;
};

struct feed {
    uv_mutex_t mutex;
    uv_cond_t work;
    uv_cond_t end; /* `ended` */
    uv_thread_t thread;
    bool stopping;
    bool ended;     /* the thread touches nothing any more */
    bool abandoned; /* it hung when it should have ended: it frees the feed, if it ever goes on */
    const struct nar_reading *busy; /* of the block that the thread is making, or NULL */
    uint64_t busy_since;            /* by uv_hrtime */
    struct nar_port *ports;
    struct nar_port *turn; /* served last */
    struct nar_readings readings;
    struct zstd_packer *packer; /* the thread's */
};

static uv_once_t once = UV_ONCE_INIT;
static uv_mutex_t feed_mutex; /* guards the two below; taken before the feed's own */
static struct feed *the_feed;
static unsigned feed_users;

static void init_once(void) {
    uv_mutex_init(&feed_mutex);
}

/* ---- the thread ---- */

/* Makes one block, with the mutex released meanwhile. */
static void work_on(struct feed *feed, struct nar_reading *reading) {
    struct nar_kept block;
    struct error error = ERROR_INIT;
    bool skip =
        reading->alone && reading->followers != NULL && reading->followers->cursor > reading->count;
    reading->busy = true;
    feed->busy = reading;
    feed->busy_since = uv_hrtime();
    uv_mutex_unlock(&feed->mutex);
    int err = nar_reading_make(reading, feed->packer, skip, &block, &error);
    uv_mutex_lock(&feed->mutex);
    feed->busy = NULL;
    reading->busy = false;
    if (err != 0) {
        nar_reading_fail(reading, &error);
    } else {
        nar_reading_add(&feed->readings, reading, &block);
        if (skip) {
            reading->first = reading->count;
        }
    }
    for (struct nar_follower *at = reading->followers; at != NULL; at = at->next) {
        uv_async_send(&container_of(at, struct ask, follower)->port->async);
    }
    if (reading->followers == NULL && (!reading->over || reading->error.code != FLEET_OK)) {
        nar_reading_free(&feed->readings, reading);
    }
    nar_readings_trim(&feed->readings);
}

/* The first path that this port will run short of. */
static struct nar_reading *short_of(const struct nar_port *port) {
    uint64_t ahead = 0;
    for (const struct ask *at = port->first; at != NULL && ahead < NAR_AHEAD_BYTES; at = at->next) {
        if (!at->follower.reading->over) {
            uint64_t end = at->follower.reading->end;
            ahead += end > at->follower.position ? end - at->follower.position : 0;
            return ahead < NAR_AHEAD_BYTES ? at->follower.reading : NULL;
        }
        ahead += at->follower.reading->end - at->follower.position;
    }
    return NULL;
}

/* What is to be done next: each port in turn. */
static struct nar_reading *pick(struct feed *feed) {
    struct nar_port *from = feed->turn != NULL ? feed->turn->next : feed->ports;
    for (unsigned round = 0; round < 2; round++) {
        for (struct nar_port *port = from; port != NULL; port = port->next) {
            struct nar_reading *reading = short_of(port);
            if (reading != NULL) {
                feed->turn = port;
                return reading;
            }
        }
        from = feed->ports;
    }
    return NULL;
}

static void feed_free(struct feed *feed) {
    while (feed->readings.oldest != NULL) {
        nar_reading_free(&feed->readings, feed->readings.oldest);
    }
    uv_cond_destroy(&feed->work);
    uv_cond_destroy(&feed->end);
    uv_mutex_destroy(&feed->mutex);
    zstd_packer_free(feed->packer);
    free(feed);
}

static void feed_main(void *arg) {
    struct feed *feed = arg;
    uv_mutex_lock(&feed->mutex);
    while (!feed->stopping) {
        struct nar_reading *reading = pick(feed);
        if (reading != NULL) {
            work_on(feed, reading);
        } else {
            uv_cond_wait(&feed->work, &feed->mutex);
        }
    }
    feed->ended = true;
    bool abandoned = feed->abandoned;
    uv_cond_signal(&feed->end);
    uv_mutex_unlock(&feed->mutex);
    if (abandoned) {
        feed_free(feed);
    }
}

/* ---- the feed's life ---- */

static struct feed *feed_acquire(void) {
    uv_once(&once, init_once);
    uv_mutex_lock(&feed_mutex);
    if (feed_users++ == 0) {
        struct feed *feed = xcalloc(1, sizeof(*feed));
        feed->packer = zstd_packer_new();
        uv_mutex_init(&feed->mutex);
        uv_cond_init(&feed->work);
        uv_cond_init(&feed->end);
        if (uv_thread_create(&feed->thread, feed_main, feed) != 0) {
            abort(); /* no thread, no copy: as out of memory */
        }
        the_feed = feed;
    }
    struct feed *feed = the_feed;
    uv_mutex_unlock(&feed_mutex);
    return feed;
}

/* Has the thread ended in time? One whose read hangs is left to itself: nobody can end it. */
static bool feed_stop(struct feed *feed) {
    uint64_t deadline = uv_hrtime() + END_NS;
    uint64_t now;
    uv_mutex_lock(&feed->mutex);
    feed->stopping = true;
    uv_cond_signal(&feed->work);
    while (!feed->ended && (now = uv_hrtime()) < deadline) {
        uv_cond_timedwait(&feed->end, &feed->mutex, deadline - now);
    }
    bool ended = feed->ended;
    feed->abandoned = !ended;
    uv_mutex_unlock(&feed->mutex);
    return ended;
}

static void feed_release(struct feed *feed) {
    uv_mutex_lock(&feed_mutex);
    bool last = --feed_users == 0;
    if (last) {
        the_feed = NULL;
    }
    uv_mutex_unlock(&feed_mutex);
    if (!last) {
        return;
    }
    uv_thread_t thread = feed->thread;
    if (feed_stop(feed)) {
        uv_thread_join(&thread);
        feed_free(feed);
    } else {
        pthread_detach(thread);
    }
}

/* ---- ports ---- */

static void on_async(uv_async_t *async) {
    struct nar_port *port = container_of(async, struct nar_port, async);
    port->on_ready(port->arg);
}

struct nar_port *nar_port_new(uv_loop_t *loop, const char *root, void (*on_ready)(void *arg),
                              void *arg) {
    struct nar_port *port = xcalloc(1, sizeof(*port));
    port->root = xstrdup(root);
    port->on_ready = on_ready;
    port->arg = arg;
    port->last = &port->first;
    uv_async_init(loop, &port->async, on_async);
    port->feed = feed_acquire();
    uv_mutex_lock(&port->feed->mutex);
    port->next = port->feed->ports;
    port->feed->ports = port;
    uv_mutex_unlock(&port->feed->mutex);
    return port;
}

static void on_port_closed(uv_handle_t *handle) {
    struct nar_port *port = container_of((uv_async_t *)(void *)handle, struct nar_port, async);
    free(port->root);
    free(port);
}

static void pop_ask(struct nar_port *port) {
    struct ask *ask = port->first;
    nar_reading_leave(&port->feed->readings, &ask->follower);
    port->first = ask->next;
    if (port->first == NULL) {
        port->last = &port->first;
    }
    free(ask);
}

bool nar_port_hangs(struct nar_port *port, uint64_t limit_ms, struct error *error) {
    struct feed *feed = port->feed;
    uv_mutex_lock(&feed->mutex);
    uint64_t spent_ms = feed->busy != NULL ? (uv_hrtime() - feed->busy_since) / 1000000 : 0;
    bool hangs = feed->busy != NULL && spent_ms >= limit_ms;
    if (hangs) {
        struct buf spent = BUF_INIT;
        text_add_duration(&spent, limit_ms);
        error_set(
            error, FLEET_ERR_TIMEOUT, "copy-stalled",
            "this machine's own store gave no byte for %s while %s was read. Look at its disk "
            "or network file system; what has arrived at the target stays",
            buf_text(&spent), feed->busy->file);
        buf_free(&spent);
    }
    uv_mutex_unlock(&feed->mutex);
    return hangs;
}

void nar_port_poke(struct nar_port *port) {
    uv_async_send(&port->async);
}

void nar_port_cancel(struct nar_port *port) {
    uv_mutex_lock(&port->feed->mutex);
    while (port->first != NULL) {
        pop_ask(port);
    }
    uv_mutex_unlock(&port->feed->mutex);
}

void nar_port_close(struct nar_port *port) {
    if (port == NULL) {
        return;
    }
    struct feed *feed = port->feed;
    nar_port_cancel(port);
    uv_mutex_lock(&feed->mutex);
    struct nar_port **slot = &feed->ports;
    while (*slot != port) {
        slot = &(*slot)->next;
    }
    *slot = port->next;
    if (feed->turn == port) {
        feed->turn = NULL;
    }
    uv_mutex_unlock(&feed->mutex);
    uv_close((uv_handle_t *)&port->async, on_port_closed);
    feed_release(feed);
}

void nar_port_ask(struct nar_port *port, uint32_t tag, const struct path_info *info,
                  unsigned forms) {
    struct feed *feed = port->feed;
    struct ask *ask = xcalloc(1, sizeof(*ask));
    ask->port = port;
    ask->tag = tag;
    uv_mutex_lock(&feed->mutex);
    nar_reading_join(&feed->readings, port->root, info, forms, &ask->follower);
    *port->last = ask;
    port->last = &ask->next;
    if (ask->follower.reading->count > 0) {
        uv_async_send(&port->async);
    }
    uv_cond_signal(&feed->work);
    uv_mutex_unlock(&feed->mutex);
}

int nar_port_next(struct nar_port *port, uint32_t *ret_tag, struct nar_block *ret_block,
                  bool *ret_begun, struct error *error) {
    struct feed *feed = port->feed;
    int got = 0;
    uv_mutex_lock(&feed->mutex);
    struct ask *ask = port->first;
    struct nar_reading *reading = ask != NULL ? ask->follower.reading : NULL;
    if (ask != NULL && ask->follower.cursor < reading->count) {
        const struct nar_kept *block = &reading->blocks[ask->follower.cursor++];
        *ret_tag = ask->tag;
        *ret_block = (struct nar_block){
            .raw = block->raw != NULL ? chunk_ref(block->raw) : NULL,
            .packed = block->packed != NULL ? chunk_ref(block->packed) : NULL,
            .nar_bytes = block->nar_bytes,
            .last = block->last,
        };
        ask->follower.position = block->end;
        got = 1;
        if (block->last) {
            pop_ask(port);
        }
        nar_readings_trim(&feed->readings);
        uv_cond_signal(&feed->work);
    } else if (ask != NULL && reading->error.code != FLEET_OK) {
        *ret_tag = ask->tag;
        *ret_begun = ask->follower.cursor > 0;
        *error = reading->error;
        got = reading->error.code;
        pop_ask(port);
        uv_cond_signal(&feed->work); /* what comes behind it may not have been begun */
    }
    uv_mutex_unlock(&feed->mutex);
    return got;
}
