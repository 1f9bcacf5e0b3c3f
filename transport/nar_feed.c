/* The feed's thread and its ports (see nar_feed.h).
 *
 *   ask ─► reading (one path's blocks so far) ◄─ ask      asks hang on their port, in its order,
 *            blocks: [dropped | kept ........ ] ─► grows    and on the reading that they follow
 *
 * The thread picks, port by port in turn, the first path whose blocks ahead of that port are fewer
 * than AHEAD, and makes one block of it. A block is kept while a follower has not taken it, and
 * beyond that as long as all that is kept fits into WINDOW, for followers still to come. When it
 * doesn't fit because one follower hangs back, that one gets a reading of its own.
 */
#include "transport/nar_feed.h"

#include <assert.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "transport/nar_dump.h"
#include "transport/serve.h"
#include "transport/zstd_frame.h"

#define BLOCK_BYTES  (512u * 1024u)
#define AHEAD_BYTES  (4u * 1024u * 1024u)
#define WINDOW_BYTES (96u * 1024u * 1024u)
#define REMEMBERED   1024u                /* readings, since looking for one is a walk */
#define END_NS       UINT64_C(2000000000) /* the thread may finish its block */

struct kept {
    struct chunk *raw, *packed; /* both NULL once dropped */
    uint64_t nar_bytes;
    uint64_t end; /* of this block, counted from the first byte of the header */
    bool last;
};

struct ask;

/* One path being read, or read. */
struct reading {
    struct reading *prev, *next; /* in the order of their beginning */
    char *file;                  /* root and path */
    char *path;
    char nar_hash[65];
    uint64_t nar_size;
    unsigned forms;
    struct ask *followers;
    struct kept *blocks;
    size_t count, room, first; /* blocks before `first` are dropped */
    uint64_t end;              /* of the last block */
    bool alone;                /* made for one that hung back: nobody joins */
    bool over;                 /* the last block is there, or `error` is */
    struct error error;
    /* The thread's own while it makes a block: */
    struct nar_dump *dump;
    EVP_MD_CTX *digest;
    struct buf header;
    uint64_t nar_read;
    bool busy;
};

/* A port's request for one path. */
struct ask {
    struct ask *next;     /* of the port */
    struct ask *follower; /* next of the same reading */
    struct nar_port *port;
    struct reading *reading;
    uint32_t tag;
    size_t cursor; /* the block to take next */
    uint64_t position;
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
    const struct reading *busy; /* of the block that the thread is making, or NULL */
    uint64_t busy_since;        /* by uv_hrtime */
    struct nar_port *ports;
    struct nar_port *turn; /* served last */
    struct reading *readings, *youngest;
    size_t reading_count;
    uint64_t kept_bytes;
    struct zstd_packer *packer; /* the thread's */
};

static uv_once_t once = UV_ONCE_INIT;
static uv_mutex_t feed_mutex; /* guards the two below; taken before the feed's own */
static struct feed *the_feed;
static unsigned feed_users;

static void init_once(void) {
    uv_mutex_init(&feed_mutex);
}

/* ---- readings ---- */

static void drop_block(struct feed *feed, struct kept *block) {
    feed->kept_bytes -= (block->raw != NULL ? block->raw->len : 0) +
                        (block->packed != NULL ? block->packed->len : 0);
    chunk_unref(block->raw);
    chunk_unref(block->packed);
    block->raw = NULL;
    block->packed = NULL;
}

static void reading_free(struct feed *feed, struct reading *reading) {
    *(reading->prev != NULL ? &reading->prev->next : &feed->readings) = reading->next;
    *(reading->next != NULL ? &reading->next->prev : &feed->youngest) = reading->prev;
    while (reading->first < reading->count) {
        drop_block(feed, &reading->blocks[reading->first++]);
    }
    feed->reading_count--;
    nar_dump_free(reading->dump);
    EVP_MD_CTX_free(reading->digest);
    buf_free(&reading->header);
    free(reading->blocks);
    free(reading->file);
    free(reading->path);
    free(reading);
}

static struct reading *reading_new(struct feed *feed, const char *root, const char *path) {
    struct reading *reading = xcalloc(1, sizeof(*reading));
    reading->file = xasprintf("%s%s", root, path);
    reading->path = xstrdup(path);
    reading->prev = feed->youngest;
    *(reading->prev != NULL ? &reading->prev->next : &feed->readings) = reading;
    feed->youngest = reading;
    feed->reading_count++;
    return reading;
}

static struct reading *find_reading(struct feed *feed, const char *root,
                                    const struct path_info *info, unsigned forms) {
    size_t skip = strlen(root);
    for (struct reading *at = feed->youngest; at != NULL; at = at->prev) {
        if (at->nar_size == info->nar_size && at->first == 0 && !at->alone &&
            at->error.code == FLEET_OK && (at->forms & forms) == forms &&
            strcmp(at->path, info->path) == 0 && strcmp(at->nar_hash, info->nar_hash) == 0 &&
            strncmp(at->file, root, skip) == 0 && strcmp(at->file + skip, at->path) == 0) {
            return at;
        }
    }
    return NULL;
}

static void follow(struct ask *ask, struct reading *reading) {
    ask->reading = reading;
    ask->follower = reading->followers;
    reading->followers = ask;
}

/* A reading that nobody follows is kept for its blocks if it is whole, else it is over. */
static void unfollow(struct feed *feed, struct ask *ask) {
    struct reading *reading = ask->reading;
    struct ask **slot = &reading->followers;
    while (*slot != ask) {
        slot = &(*slot)->follower;
    }
    *slot = ask->follower;
    bool whole = reading->over && reading->error.code == FLEET_OK && reading->first == 0;
    if (reading->followers == NULL && !reading->busy && !whole) {
        reading_free(feed, reading);
    }
}

/* Blocks before this one are needed by nobody who is there. */
static size_t slowest(const struct reading *reading) {
    size_t cursor = reading->count;
    for (const struct ask *at = reading->followers; at != NULL; at = at->follower) {
        cursor = at->cursor < cursor ? at->cursor : cursor;
    }
    return cursor;
}

static void drop_until(struct feed *feed, struct reading *reading, size_t cursor) {
    while (reading->first < cursor && feed->kept_bytes > WINDOW_BYTES) {
        drop_block(feed, &reading->blocks[reading->first++]);
    }
}

/* The follower that hangs back most in this reading, if another is further on. */
static struct ask *straggler(const struct reading *reading) {
    struct ask *last = NULL;
    uint64_t furthest = 0;
    for (struct ask *at = reading->followers; at != NULL; at = at->follower) {
        last = last == NULL || at->position < last->position ? at : last;
        furthest = at->position > furthest ? at->position : furthest;
    }
    return last != NULL && furthest - last->position > AHEAD_BYTES ? last : NULL;
}

/* It goes on alone: the path is read again from its beginning, for this follower only. */
static void detach(struct feed *feed, struct ask *ask) {
    struct reading *from = ask->reading;
    size_t root = strlen(from->file) - strlen(from->path);
    AUTO_FREE char *prefix = xstrndup(from->file, root);
    struct reading *own = reading_new(feed, prefix, from->path);
    snprintf(own->nar_hash, sizeof(own->nar_hash), "%s", from->nar_hash);
    own->nar_size = from->nar_size;
    own->forms = from->forms;
    own->alone = true;
    buf_add(&own->header, from->header.data, from->header.len);
    unfollow(feed, ask);
    follow(ask, own);
}

/* Keeps what is kept below WINDOW_BYTES, oldest first. */
static void trim(struct feed *feed) {
    struct reading *at = feed->readings;
    assert(at == NULL || at->prev == NULL);
    while (at != NULL && feed->reading_count > REMEMBERED) {
        struct reading *next = at->next;
        if (at->followers == NULL && !at->busy) {
            reading_free(feed, at);
        }
        at = next;
    }
    at = feed->readings;
    while (at != NULL && feed->kept_bytes > WINDOW_BYTES) {
        struct reading *next = at->next;
        drop_until(feed, at, slowest(at));
        struct ask *behind = feed->kept_bytes > WINDOW_BYTES ? straggler(at) : NULL;
        if (behind != NULL) {
            detach(feed, behind);
            drop_until(feed, at, slowest(at));
        }
        if (at->followers == NULL && !at->busy && at->first == at->count) {
            reading_free(feed, at);
        }
        at = next;
    }
}

/* ---- the thread ---- */

static int wrong(struct reading *reading, struct error *error, const char *what) {
    return error_set(error, FLEET_ERR_PROTOCOL, "source-corrupt",
                     "the local store: %s is damaged: %s differs from what was registered. Repair "
                     "it: nix-store --repair-path %s",
                     reading->path, what, reading->path);
}

/* All of the NAR has been read: is it over, and the right one? */
static int check_whole(struct reading *reading, struct error *error) {
    char extra;
    size_t more = 0;
    bool end = false;
    int err = nar_dump_read(reading->dump, &extra, 1, &more, &end, error);
    if (err != 0) {
        return err;
    }
    if (more > 0 || !end) {
        return wrong(reading, error, "its size");
    }
    unsigned char hash[32];
    char hex[65];
    EVP_DigestFinal_ex(reading->digest, hash, NULL);
    for (size_t i = 0; i < sizeof(hash); i++) {
        snprintf(hex + 2 * i, 3, "%02x", hash[i]);
    }
    return strcmp(hex, reading->nar_hash) == 0 ? 0 : wrong(reading, error, "its SHA-256");
}

static void begin_reading(struct reading *reading) {
    reading->dump = nar_dump_new(reading->file);
    reading->digest = EVP_MD_CTX_new();
    if (reading->digest == NULL || EVP_DigestInit_ex(reading->digest, EVP_sha256(), NULL) != 1) {
        abort(); /* out of memory is fatal, as in xalloc */
    }
}

/* The next block's bytes: the header goes in front of the first. `skip`: nobody wants them. */
static int make_block(struct feed *feed, struct reading *reading, bool skip, struct kept *ret_block,
                      struct error *error) {
    size_t head = reading->nar_read == 0 ? reading->header.len : 0;
    uint64_t left = reading->nar_size - reading->nar_read;
    size_t want = left < BLOCK_BYTES ? (size_t)left : BLOCK_BYTES;
    size_t got = 0;
    bool end = false;
    if (reading->dump == NULL) {
        begin_reading(reading);
    }
    struct chunk *chunk = chunk_new(head + want);
    memcpy(chunk->data, buf_text(&reading->header), head);
    int err = nar_dump_read(reading->dump, chunk->data + head, want, &got, &end, error);
    if (err == 0 && got < want) {
        err = wrong(reading, error, "its size");
    }
    if (err == 0) {
        EVP_DigestUpdate(reading->digest, chunk->data + head, got);
        reading->nar_read += got;
        err = reading->nar_read == reading->nar_size ? check_whole(reading, error) : 0;
    }
    if (err != 0) {
        chunk_unref(chunk);
        return err;
    }
    *ret_block = (struct kept){.nar_bytes = got, .last = reading->nar_read == reading->nar_size};
    if (!skip && (reading->forms & NAR_PACKED) != 0) {
        ret_block->packed = zstd_pack(feed->packer, chunk->data, chunk->len);
    }
    ret_block->end = reading->end + chunk->len;
    if (!skip && (reading->forms & NAR_RAW) != 0) {
        ret_block->raw = chunk;
    } else {
        chunk_unref(chunk);
    }
    return 0;
}

static void add_block(struct feed *feed, struct reading *reading, const struct kept *block) {
    if (reading->count == reading->room) {
        reading->room = reading->room > 0 ? 2 * reading->room : 4;
        reading->blocks = xrealloc(reading->blocks, reading->room * sizeof(*reading->blocks));
    }
    reading->blocks[reading->count++] = *block;
    reading->end = block->end;
    reading->over = block->last;
    feed->kept_bytes += (block->raw != NULL ? block->raw->len : 0) +
                        (block->packed != NULL ? block->packed->len : 0);
}

/* Makes one block, with the mutex released meanwhile. */
static void work_on(struct feed *feed, struct reading *reading) {
    struct kept block;
    struct error error = ERROR_INIT;
    bool skip =
        reading->alone && reading->followers != NULL && reading->followers->cursor > reading->count;
    reading->busy = true;
    feed->busy = reading;
    feed->busy_since = uv_hrtime();
    uv_mutex_unlock(&feed->mutex);
    int err = make_block(feed, reading, skip, &block, &error);
    uv_mutex_lock(&feed->mutex);
    feed->busy = NULL;
    reading->busy = false;
    if (err != 0) {
        reading->error = error;
        reading->over = true;
    } else {
        add_block(feed, reading, &block);
        if (skip) {
            reading->first = reading->count;
        }
    }
    if (reading->over) { /* no descriptor is held for what is only remembered */
        nar_dump_free(reading->dump);
        reading->dump = NULL;
    }
    for (const struct ask *at = reading->followers; at != NULL; at = at->follower) {
        uv_async_send(&at->port->async);
    }
    if (reading->followers == NULL && (!reading->over || reading->error.code != FLEET_OK)) {
        reading_free(feed, reading);
    }
    trim(feed);
}

/* The first path that this port will run short of. */
static struct reading *short_of(const struct nar_port *port) {
    uint64_t ahead = 0;
    for (const struct ask *at = port->first; at != NULL && ahead < AHEAD_BYTES; at = at->next) {
        if (!at->reading->over) {
            uint64_t end = at->reading->end;
            ahead += end > at->position ? end - at->position : 0;
            return ahead < AHEAD_BYTES ? at->reading : NULL;
        }
        ahead += at->reading->end - at->position;
    }
    return NULL;
}

/* What is to be done next: each port in turn. */
static struct reading *pick(struct feed *feed) {
    struct nar_port *from = feed->turn != NULL ? feed->turn->next : feed->ports;
    for (unsigned round = 0; round < 2; round++) {
        for (struct nar_port *port = from; port != NULL; port = port->next) {
            struct reading *reading = short_of(port);
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
    while (feed->readings != NULL) {
        reading_free(feed, feed->readings);
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
        struct reading *reading = pick(feed);
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
    unfollow(port->feed, ask);
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
    struct reading *reading = find_reading(feed, port->root, info, forms);
    if (reading == NULL) {
        reading = reading_new(feed, port->root, info->path);
        snprintf(reading->nar_hash, sizeof(reading->nar_hash), "%s", info->nar_hash);
        reading->nar_size = info->nar_size;
        reading->forms = forms;
        serve_put_add(&reading->header, info);
    }
    follow(ask, reading);
    *port->last = ask;
    port->last = &ask->next;
    if (reading->count > 0) {
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
    struct reading *reading = ask != NULL ? ask->reading : NULL;
    if (ask != NULL && ask->cursor < reading->count) {
        const struct kept *block = &reading->blocks[ask->cursor++];
        *ret_tag = ask->tag;
        *ret_block = (struct nar_block){
            .raw = block->raw != NULL ? chunk_ref(block->raw) : NULL,
            .packed = block->packed != NULL ? chunk_ref(block->packed) : NULL,
            .nar_bytes = block->nar_bytes,
            .last = block->last,
        };
        ask->position = block->end;
        got = 1;
        if (block->last) {
            pop_ask(port);
        }
        trim(feed);
        uv_cond_signal(&feed->work);
    } else if (ask != NULL && reading->error.code != FLEET_OK) {
        *ret_tag = ask->tag;
        *ret_begun = ask->cursor > 0;
        *error = reading->error;
        got = reading->error.code;
        pop_ask(port);
    }
    uv_mutex_unlock(&feed->mutex);
    return got;
}
