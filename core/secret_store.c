/* The secrets of one run (see secret_store.h): sources under one mutex, and threads that take
 * the next one that nobody reads yet. */
#include "core/secret_store.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "core/base/clock.h"
#include "core/base/xalloc.h"
#include "core/name_index.h"

#define THREADS_MAX 4u
/* A failure answers for so long; whoever asks later has it tried again. */
#define FAILURE_MS 5000u

enum source_state {
    SOURCE_WANTED,
    SOURCE_READING,
    SOURCE_READY,
    SOURCE_FAILED
};

struct waiter {
    struct waiter *next;
    secret_wake wake;
    void *arg;
    size_t tag;
};

struct source {
    struct source *next_wanted;
    char *key; /* secret_key's */
    const struct inv_host *host;
    const struct inv_secret *what;
    enum source_state state;
    struct secret secret; /* READY; never changes then */
    struct error error;   /* FAILED */
    uint64_t failed_ms;
    struct waiter *waiters;
};

struct secret_store {
    const char *dir;
    uv_mutex_t mutex; /* holds for all below */
    uv_cond_t wanted;
    struct source **sources; /* each by itself: a ready secret's address never changes */
    size_t count;
    struct name_index *keys; /* to their numbers */
    struct source *first_wanted, **last_wanted;
    unsigned wanted_count;
    uv_thread_t threads[THREADS_MAX];
    unsigned thread_count;
    unsigned idle; /* threads that wait */
    atomic_bool stop;
    bool stopped;
};

struct secret_store *secret_store_new(const char *dir) {
    struct secret_store *store = xcalloc(1, sizeof(*store));
    store->dir = dir;
    store->keys = name_index_new();
    store->last_wanted = &store->first_wanted;
    uv_mutex_init(&store->mutex);
    uv_cond_init(&store->wanted);
    return store;
}

/* ---- the threads ---- */

static struct source *take_wanted(struct secret_store *store) {
    struct source *source = store->first_wanted;
    if (source != NULL) {
        store->first_wanted = source->next_wanted;
        store->last_wanted =
            store->first_wanted != NULL ? store->last_wanted : &store->first_wanted;
        store->wanted_count--;
    }
    return source;
}

/* Everybody who waits for it, once. Under the mutex, so that nobody is woken after the stop. */
static void wake_all(struct source *source) {
    while (source->waiters != NULL) {
        struct waiter *waiter = source->waiters;
        source->waiters = waiter->next;
        waiter->wake(waiter->arg, waiter->tag);
        free(waiter);
    }
}

static void read_one(struct secret_store *store, struct source *source) {
    struct secret_reading reading = {.dir = store->dir, .unattended = true, .stop = &store->stop};
    struct secret secret = {0};
    struct error error = ERROR_INIT;
    source->state = SOURCE_READING;
    uv_mutex_unlock(&store->mutex);
    int err = secret_read(source->host, source->what, &reading, &secret, &error);
    uv_mutex_lock(&store->mutex);
    source->state = err == 0 ? SOURCE_READY : SOURCE_FAILED;
    source->secret = secret;
    source->error = error;
    source->failed_ms = clock_now_ms(&clock_system);
    if (!store->stop) {
        wake_all(source);
    }
}

static void thread_main(void *arg) {
    struct secret_store *store = arg;
    uv_mutex_lock(&store->mutex);
    while (!store->stop) {
        struct source *source = take_wanted(store);
        if (source != NULL) {
            read_one(store, source);
        } else {
            store->idle++;
            uv_cond_wait(&store->wanted, &store->mutex);
            store->idle--;
        }
    }
    uv_mutex_unlock(&store->mutex);
}

static void want(struct secret_store *store, struct source *source) {
    source->state = SOURCE_WANTED;
    source->next_wanted = NULL;
    *store->last_wanted = source;
    store->last_wanted = &source->next_wanted;
    store->wanted_count++;
    if (!store->stop && store->idle < store->wanted_count && store->thread_count < THREADS_MAX &&
        uv_thread_create(&store->threads[store->thread_count], thread_main, store) == 0) {
        store->thread_count++;
    }
    uv_cond_signal(&store->wanted);
}

/* ---- asking ---- */

static struct source *source_of(struct secret_store *store, const struct inv_host *host,
                                const struct inv_secret *what) {
    char *key = secret_key(host, what);
    size_t known = name_index_find(store->keys, key);
    if (known != NAME_INDEX_NONE) {
        free(key);
        return store->sources[known];
    }
    struct source *source = xcalloc(1, sizeof(*source));
    source->key = key;
    source->host = host;
    source->what = what;
    store->sources = xrealloc(store->sources, (store->count + 1) * sizeof(struct source *));
    store->sources[store->count] = source;
    name_index_add(store->keys, key, store->count++);
    want(store, source);
    return source;
}

/* Who asks again is woken again, which does no harm. */
static void wait_for(struct source *source, secret_wake wake, void *arg, size_t tag) {
    struct waiter *waiter = xcalloc(1, sizeof(*waiter));
    *waiter = (struct waiter){.next = source->waiters, .wake = wake, .arg = arg, .tag = tag};
    source->waiters = waiter;
}

const struct secret *secret_store_get(struct secret_store *store, const struct inv_host *host,
                                      const struct inv_secret *what, secret_wake wake, void *arg,
                                      size_t tag, struct error *error) {
    const struct secret *secret = NULL;
    uv_mutex_lock(&store->mutex);
    struct source *source = source_of(store, host, what);
    if (source->state == SOURCE_FAILED &&
        clock_now_ms(&clock_system) - source->failed_ms > FAILURE_MS) {
        want(store, source);
    }
    if (source->state == SOURCE_READY) {
        secret = &source->secret;
    } else if (source->state == SOURCE_FAILED) {
        *error = source->error;
    } else {
        wait_for(source, wake, arg, tag);
    }
    uv_mutex_unlock(&store->mutex);
    return secret;
}

/* ---- the end ---- */

void secret_store_stop(struct secret_store *store) {
    uv_mutex_lock(&store->mutex);
    store->stop = true;
    uv_cond_broadcast(&store->wanted);
    uv_mutex_unlock(&store->mutex);
    for (unsigned i = 0; !store->stopped && i < store->thread_count; i++) {
        uv_thread_join(&store->threads[i]);
    }
    store->stopped = true;
}

static void free_source(struct source *source) {
    secret_release(&source->secret);
    while (source->waiters != NULL) {
        struct waiter *waiter = source->waiters;
        source->waiters = waiter->next;
        free(waiter);
    }
    free(source->key);
    free(source);
}

void secret_store_free(struct secret_store *store) {
    if (store == NULL) {
        return;
    }
    secret_store_stop(store);
    for (size_t i = 0; i < store->count; i++) {
        free_source(store->sources[i]);
    }
    free(store->sources);
    name_index_free(store->keys);
    uv_mutex_destroy(&store->mutex);
    uv_cond_destroy(&store->wanted);
    free(store);
}
