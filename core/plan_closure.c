/* Closures of systems (see plan_closure.h).
 *
 * A store is a connection and its copier. One timer is both the deadline and, set to nothing, the
 * end: on_done is never called out of a copier's own callback, so that it may free everything.
 */
#include "core/plan_closure.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "transport/copy.h"

#define DEADLINE_MS 120000u

struct store;

struct question {
    struct store *store;
    char *path;
    struct plan_closure *ret;
    struct question *next;
};

struct store {
    struct plan_closures *closures;
    const struct conn_spec *remote;
    char *command;
    struct conn *conn;
    struct copier *copier;
    struct question *questions;
    bool failed;
    struct store *next;
};

struct plan_closures {
    uv_loop_t *loop;
    struct transport *transport;
    struct store *stores;
    size_t open; /* questions without an answer */
    uv_timer_t timer;
    size_t handles; /* timer and connections that haven't closed */
    void (*on_done)(void *arg);
    void *arg;
};

static const struct conn_spec here = {.name = "this machine", .local = true};

struct plan_closures *plan_closures_new(uv_loop_t *loop, struct transport *transport) {
    struct plan_closures *closures = xcalloc(1, sizeof(*closures));
    closures->loop = loop;
    closures->transport = transport;
    closures->handles = 1;
    uv_timer_init(loop, &closures->timer);
    closures->timer.data = closures;
    return closures;
}

static struct store *store_of(struct plan_closures *closures, const struct conn_spec *remote,
                              const char *command) {
    for (struct store *store = closures->stores; store != NULL; store = store->next) {
        if (store->remote == remote) {
            return store;
        }
    }
    struct store *store = xcalloc(1, sizeof(*store));
    *store = (struct store){.closures = closures,
                            .remote = remote,
                            .command = xstrdup(remote != NULL ? command : "nix-store --serve"),
                            .next = closures->stores};
    closures->stores = store;
    return store;
}

void plan_closures_ask(struct plan_closures *closures, const struct conn_spec *remote,
                       const char *command, const char *path, struct plan_closure *ret) {
    struct store *store = store_of(closures, remote, command);
    struct question *question = xcalloc(1, sizeof(*question));
    *question = (struct question){
        .store = store, .path = xstrdup(path), .ret = ret, .next = store->questions};
    store->questions = question;
    closures->open++;
}

static void on_over(uv_timer_t *timer) {
    struct plan_closures *closures = timer->data;
    uv_timer_stop(timer);
    closures->open = 0;
    for (struct store *store = closures->stores; store != NULL; store = store->next) {
        store->failed = true; /* what still comes is not taken in any more */
    }
    closures->on_done(closures->arg);
}

static void end_soon(struct plan_closures *closures) {
    uv_timer_start(&closures->timer, on_over, 0, 0);
}

static void on_closure(int err, const struct closure *closure, const struct error *error,
                       void *arg) {
    struct question *question = arg;
    struct plan_closures *closures = question->store->closures;
    (void)error;
    if (question->store->failed) {
        return;
    }
    if (err == 0 && !question->ret->known) {
        question->ret->known = true;
        question->ret->bytes = closure->nar_size;
        for (size_t i = 0; i < closure->count; i++) {
            plan_list_add(&question->ret->paths, closure->paths[i]->path);
        }
        plan_list_settle(&question->ret->paths);
    }
    if (--closures->open == 0) {
        end_soon(closures);
    }
}

static void on_ready(const char *address, void *arg) {
    struct store *store = arg;
    (void)address;
    const char *name = store->remote != NULL ? store->remote->name : "the local store";
    store->copier = copier_new(store->closures->loop, store->conn, store->command, name);
    for (struct question *each = store->questions; each != NULL; each = each->next) {
        copier_closure(store->copier, each->path, on_closure, each);
    }
}

/* Before it was ready; afterwards the copier fails each question by itself. */
static void on_lost(const struct error *error, void *arg) {
    struct store *store = arg;
    (void)error;
    if (store->failed || store->copier != NULL) {
        return;
    }
    store->failed = true;
    for (const struct question *each = store->questions; each != NULL; each = each->next) {
        store->closures->open--;
    }
    if (store->closures->open == 0) {
        end_soon(store->closures);
    }
}

static void handle_closed(struct plan_closures *closures) {
    if (--closures->handles == 0) {
        free(closures);
    }
}

static void on_conn_closed(void *arg) {
    struct store *store = arg;
    struct plan_closures *closures = store->closures;
    while (store->questions != NULL) {
        struct question *question = store->questions;
        store->questions = question->next;
        free(question->path);
        free(question);
    }
    free(store->command);
    free(store);
    handle_closed(closures);
}

static void on_timer_closed(uv_handle_t *handle) {
    handle_closed(handle->data);
}

static const struct conn_handlers handlers = {
    .on_ready = on_ready, .on_lost = on_lost, .on_closed = on_conn_closed};

void plan_closures_run(struct plan_closures *closures, void (*on_done)(void *arg), void *arg) {
    closures->on_done = on_done;
    closures->arg = arg;
    for (struct store *store = closures->stores; store != NULL; store = store->next) {
        const struct conn_spec *spec = store->remote != NULL ? store->remote : &here;
        closures->handles++;
        store->conn = transport_open(closures->transport, spec, &handlers, store);
    }
    uv_timer_start(&closures->timer, on_over, closures->open > 0 ? DEADLINE_MS : 0, 0);
}

void plan_closures_free(struct plan_closures *closures) {
    struct store *store = closures->stores;
    closures->stores = NULL;
    while (store != NULL) {
        struct store *next = store->next;
        if (store->copier != NULL) {
            copier_free(store->copier);
        }
        conn_close(store->conn);
        store = next;
    }
    uv_close((uv_handle_t *)&closures->timer, on_timer_closed);
}
