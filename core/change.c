/* Comparing systems beside a run (see change.h).
 *
 * One batch of pairs at a time is with a thread of the pool, which has a loop of its own and one
 * `nix-store --serve` for the batch. It shares nothing with this thread but the batch, which is the
 * thread's from uv_queue_work until `on_compared`, and `stop`, which may be sent at any time.
 */
#include "core/change.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "core/name_index.h"
#include "core/plan.h"
#include "core/plan_closure.h"

#define PAIRS_MAX 24
/* Of each list of packages. */
#define NAMES_MAX 200
/* Hosts of a pair that are asked. */
#define ASKED_MAX 3u

struct pair {
    char *key; /* "CURRENT DESIRED" */
    char *current, *desired;
    bool here; /* both lie in this machine's store */
    unsigned asked;
    bool heard;
    struct plan_closure from, to;
    struct event *event; /* that tells it; NULL: not known, or told */
};

struct changes {
    uv_loop_t *loop;
    void (*on_change)(struct event *event, void *arg);
    void *arg;
    bool closed, working;
    struct name_index *known;
    struct pair pairs[PAIRS_MAX];
    size_t count;
    size_t first, end; /* the batch */
    uv_work_t work;
    /* Of the batch's thread. */
    uv_loop_t inner;
    uv_async_t stop;
    struct plan_closures *closures;
};

/* ---- the batch's thread ---- */

static void end_batch(struct changes *changes) {
    if (changes->closures != NULL) {
        plan_closures_free(changes->closures);
        changes->closures = NULL;
        uv_unref((uv_handle_t *)&changes->stop);
    }
}

static void on_answered(void *arg) {
    end_batch(arg);
}

static void on_stop(uv_async_t *stop) {
    end_batch(stop->data);
}

struct event *change_event_new(const char *current, const char *desired,
                               const struct plan_list *from, const struct plan_list *to) {
    struct event *event = event_new(EVENT_CHANGE);
    struct plan_packages packages;
    plan_packages_compare(from, to, &packages);
    event->current = xstrdup(current);
    event->desired = xstrdup(desired);
    event->packages = plan_packages_json(&packages, NAMES_MAX);
    plan_packages_free(&packages);
    return event;
}

static void compare_pair(struct pair *pair) {
    if (pair->from.known && pair->to.known) {
        pair->event =
            change_event_new(pair->current, pair->desired, &pair->from.paths, &pair->to.paths);
        pair->event->closure_bytes =
            xasprintf("{\"from\":%llu,\"to\":%llu}", (unsigned long long)pair->from.bytes,
                      (unsigned long long)pair->to.bytes);
    }
    plan_list_free(&pair->from.paths);
    plan_list_free(&pair->to.paths);
}

static void compare_batch(uv_work_t *work) {
    struct changes *changes = work->data;
    struct transport *transport = transport_new(&changes->inner, NULL);
    changes->closures = plan_closures_new(&changes->inner, transport);
    for (size_t i = changes->first; i < changes->end; i++) {
        struct pair *pair = &changes->pairs[i];
        if (pair->here) {
            plan_closures_ask(changes->closures, NULL, NULL, pair->current, &pair->from);
            plan_closures_ask(changes->closures, NULL, NULL, pair->desired, &pair->to);
        }
    }
    plan_closures_run(changes->closures, on_answered, changes);
    uv_run(&changes->inner, UV_RUN_DEFAULT);
    transport_free(transport);
    uv_run(&changes->inner, UV_RUN_DEFAULT);
    for (size_t i = changes->first; i < changes->end; i++) {
        compare_pair(&changes->pairs[i]);
    }
    /* libuv ends its threads after OpenSSL has cleaned up, so what this one has of it would be lost. */
    OPENSSL_thread_stop();
}

/* ---- the run's thread ---- */

static void free_all(struct changes *changes) {
    for (size_t i = 0; i < changes->count; i++) {
        struct pair *pair = &changes->pairs[i];
        free(pair->key);
        free(pair->current);
        free(pair->desired);
        event_free(pair->event);
    }
    name_index_free(changes->known);
    free(changes);
}

static void tell(struct changes *changes, struct pair *pair) {
    struct event *event = pair->event;
    pair->event = NULL;
    changes->on_change(event, changes->arg);
}

static void start_batch(struct changes *changes);

static void on_compared(uv_work_t *work, int status) {
    struct changes *changes = work->data;
    (void)status;
    uv_close((uv_handle_t *)&changes->stop, NULL);
    uv_run(&changes->inner, UV_RUN_DEFAULT);
    uv_loop_close(&changes->inner);
    changes->working = false;
    for (size_t i = changes->first; i < changes->end && !changes->closed; i++) {
        if (changes->pairs[i].event != NULL) {
            tell(changes, &changes->pairs[i]);
        }
    }
    changes->first = changes->end;
    if (changes->closed) {
        free_all(changes);
    } else if (changes->count > changes->end) {
        start_batch(changes);
    }
}

static void start_batch(struct changes *changes) {
    changes->end = changes->count;
    changes->working = true;
    changes->work.data = changes;
    uv_loop_init(&changes->inner);
    uv_async_init(&changes->inner, &changes->stop, on_stop);
    changes->stop.data = changes;
    uv_queue_work(changes->loop, &changes->work, compare_batch, on_compared);
}

struct changes *changes_new(uv_loop_t *loop, void (*on_change)(struct event *event, void *arg),
                            void *arg) {
    struct changes *changes = xcalloc(1, sizeof(*changes));
    changes->loop = loop;
    changes->on_change = on_change;
    changes->arg = arg;
    changes->known = name_index_new();
    return changes;
}

static bool are_here(const char *current, const char *desired) {
    return access(current, F_OK) == 0 && access(desired, F_OK) == 0;
}

/* The pair; NULL where it is none, or one too many. One that is new is begun, where it lies here. */
static struct pair *find_pair(struct changes *changes, const char *current, const char *desired,
                              bool add) {
    if (current[0] == '\0' || desired[0] == '\0' || strcmp(current, desired) == 0) {
        return NULL;
    }
    AUTO_FREE char *key = xasprintf("%s %s", current, desired);
    size_t known = name_index_find(changes->known, key);
    if (known != NAME_INDEX_NONE) {
        return &changes->pairs[known];
    }
    if (!add || changes->count == PAIRS_MAX) {
        return NULL;
    }
    bool here = are_here(current, desired);
    struct pair *pair = &changes->pairs[changes->count];
    *pair = (struct pair){.key = xstrdup(key),
                          .current = xstrdup(current),
                          .desired = xstrdup(desired),
                          .here = here};
    name_index_add(changes->known, pair->key, changes->count++);
    if (here && !changes->working) {
        start_batch(changes);
    }
    return pair;
}

void changes_note(struct changes *changes, const char *current, const char *desired) {
    find_pair(changes, current, desired, are_here(current, desired));
}

bool changes_ask_host(struct changes *changes, const char *current, const char *desired) {
    struct pair *pair = find_pair(changes, current, desired, true);
    return pair != NULL && !pair->here && !pair->heard && pair->asked++ < ASKED_MAX;
}

bool changes_hear(struct changes *changes, const struct event *event) {
    struct pair *pair = find_pair(changes, event->current, event->desired, false);
    bool first = pair != NULL && !pair->heard;
    if (first) {
        pair->heard = true;
    }
    return first;
}

void changes_close(struct changes *changes) {
    if (changes == NULL) {
        return;
    }
    changes->closed = true;
    if (changes->working) {
        uv_async_send(&changes->stop);
    } else {
        free_all(changes);
    }
}
