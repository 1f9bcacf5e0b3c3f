#include "core/lane.h"

#include <assert.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "core/loop_watch.h"

#define CONNECTS_MAX 32 /* handshakes at once in a lane, so that none starves into its time-out */

/* A source that is lost is connected to again: how often, for how long, and how long after that
 * whoever asks is told that it is gone; later on it is tried anew. */
#define SOURCE_AGAIN_MS    1000u
#define SOURCE_PATIENCE_MS (60u * 1000u)
#define SOURCE_GONE_MS     (10u * 1000u)

enum order_kind {
    ORDER_ADD,
    ORDER_DESIRED,
    ORDER_END,
    ORDER_GRANT,
    ORDER_COMPARE,
    ORDER_LEAVE,
    ORDER_TAKE_BACK,
    ORDER_REPROBE,
    ORDER_RELEASE,
    ORDER_POKE,
    ORDER_STOP
};

struct order {
    struct mail mail;
    enum order_kind kind;
    size_t host;
    struct host_plan plan;
    char *path;
    struct host_source source;
    enum host_state state;
    struct error error;
    enum act act;
};

enum source_state {
    SOURCE_OPENING,
    SOURCE_READY,
    SOURCE_LOST,
    SOURCE_REPLACED /* lost; copies may hang on it still, so it stays to the end */
};

/* A connection to a store that hosts of this lane copy from. */
struct lane_source {
    struct lane_source *next;
    struct lane *lane;
    struct host_source what;
    struct conn_spec local_spec;
    enum source_state state;
    struct conn *conn;
    struct copier *copier;
    struct error error; /* LOST: why */
    uint64_t again_ms;  /* LOST: not before (uv_now) */
    uint64_t until_ms;  /* LOST: when whoever asks is told; 0: nobody has asked yet */
};

struct lane_host {
    struct host *host; /* NULL once closed */
    size_t index;
    bool waits_to_connect;
};

struct lane {
    uv_thread_t thread;
    uv_loop_t loop;
    uv_sem_t ready;
    struct mailbox orders;
    struct lane_options options;
    struct transport *transport;
    struct lane_host *hosts;
    size_t host_count;
    size_t *slots; /* by the run's index: place in `hosts` + 1, 0 none */
    size_t slot_count;
    int connecting;
    struct loop_watch watch;
    uv_timer_t wake; /* pokes, off everybody's call stack */
    bool poke_all;
    uv_timer_t again; /* for those who wait for a lost source */
    struct lane_source *sources;
    int source_conns;
    bool stopping;
};

/* ---- reports ---- */

static struct lane_report *report_new(enum lane_report_kind kind, size_t host) {
    struct lane_report *report = xcalloc(1, sizeof(*report));
    report->kind = kind;
    report->host = host;
    return report;
}

void lane_report_free(struct lane_report *report) {
    if (report->event != NULL) {
        event_free(report->event);
    }
    free(report->path);
    free(report->nonce);
    free(report);
}

static void post(struct lane *lane, struct lane_report *report) {
    mailbox_post(lane->options.reports, &report->mail);
}

/* The sink's argument: which host of which lane. */
struct sink_arg {
    struct lane *lane;
    size_t host;
};

static void sink_event(struct event *event, void *arg) {
    struct sink_arg *sink = arg;
    struct lane_report *report = report_new(LANE_EVENT, sink->host);
    report->event = event;
    post(sink->lane, report);
}

static void sink_wants(size_t host, enum act act, const char *path, const char *nonce, void *arg) {
    struct sink_arg *sink = arg;
    struct lane_report *report = report_new(LANE_WANTS, host);
    report->act = act;
    report->path = xstrdup(path);
    report->nonce = xstrdup(nonce);
    post(sink->lane, report);
}

static void sink_unhealthy_before(size_t host, void *arg) {
    struct sink_arg *sink = arg;
    post(sink->lane, report_new(LANE_UNHEALTHY_BEFORE, host));
}

static void sink_reprobed(size_t host, bool ok, void *arg) {
    struct sink_arg *sink = arg;
    struct lane_report *report = report_new(LANE_REPROBED, host);
    report->ok = ok;
    post(sink->lane, report);
}

/* NULL if this lane doesn't have it. */
static struct lane_host *find_host(struct lane *lane, size_t index) {
    if (index >= lane->slot_count || lane->slots[index] == 0) {
        return NULL;
    }
    return &lane->hosts[lane->slots[index] - 1];
}

/* Remembers that host `index` of the run stands last in `hosts`. */
static void remember_slot(struct lane *lane, size_t index) {
    if (index >= lane->slot_count) {
        size_t count = (index + 1) * 2;
        lane->slots = xrealloc(lane->slots, count * sizeof(*lane->slots));
        memset(lane->slots + lane->slot_count, 0,
               (count - lane->slot_count) * sizeof(*lane->slots));
        lane->slot_count = count;
    }
    lane->slots[index] = lane->host_count;
}

/* ---- waking hosts, off the stack of whoever caused it ---- */

static void on_wake(uv_timer_t *timer) {
    struct lane *lane = timer->data;
    bool all = lane->poke_all;
    lane->poke_all = false;
    for (size_t i = 0; i < lane->host_count; i++) {
        struct lane_host *entry = &lane->hosts[i];
        bool connect = entry->waits_to_connect && lane->connecting < CONNECTS_MAX;
        if (entry->host != NULL && (all || connect)) {
            entry->waits_to_connect = false;
            host_poke(entry->host);
        }
    }
}

static void wake(struct lane *lane) {
    uv_timer_start(&lane->wake, on_wake, 0, 0);
}

static void poke_all(struct lane *lane) {
    lane->poke_all = true;
    wake(lane);
}

static void on_again(uv_timer_t *timer) {
    poke_all(timer->data);
}

/* ---- the hosts' environment ---- */

static bool connect_begin(struct host *host, void *arg) {
    struct sink_arg *sink = arg;
    struct lane *lane = sink->lane;
    (void)host;
    if (lane->connecting >= CONNECTS_MAX) {
        find_host(lane, sink->host)->waits_to_connect = true;
        return false;
    }
    lane->connecting++;
    return true;
}

static void connect_end(struct host *host, void *arg) {
    struct sink_arg *sink = arg;
    (void)host;
    sink->lane->connecting--;
    wake(sink->lane);
}

static void random_nonce(char ret_nonce[33], void *arg) {
    unsigned char bytes[16];
    (void)arg;
    if (RAND_bytes(bytes, sizeof(bytes)) != 1) {
        abort();
    }
    for (size_t i = 0; i < sizeof(bytes); i++) {
        snprintf(ret_nonce + 2 * i, 3, "%02x", bytes[i]);
    }
}

/* ---- sources ---- */

static void on_source_ready(const char *address, void *arg) {
    struct lane_source *source = arg;
    (void)address;
    bool local = source->what.kind == HOST_SOURCE_LOCAL;
    source->copier = copier_new(&source->lane->loop, source->conn,
                                local ? "nix-store --serve" : source->what.remote_command,
                                local ? "the local store" : source->what.remote->name);
    if (local) {
        copier_read_files(source->copier, "");
    }
    source->state = SOURCE_READY;
    source->until_ms = 0;
    poke_all(source->lane);
}

static void on_source_lost(const struct error *error, void *arg) {
    struct lane_source *source = arg;
    source->state = SOURCE_LOST;
    source->again_ms = uv_now(&source->lane->loop) + SOURCE_AGAIN_MS;
    source->error = *error;
    error_wrap(&source->error, "the store to copy from");
    poke_all(source->lane);
}

static void on_source_closed(void *arg) {
    struct lane_source *source = arg;
    source->lane->source_conns--;
}

static struct lane_source *source_open(struct lane *lane, const struct host_source *what) {
    static const struct conn_handlers handlers = {
        .on_ready = on_source_ready, .on_lost = on_source_lost, .on_closed = on_source_closed};
    struct lane_source *source = xcalloc(1, sizeof(*source));
    source->lane = lane;
    source->what = *what;
    source->local_spec = (struct conn_spec){.name = "the local store", .local = true};
    source->next = lane->sources;
    lane->sources = source;
    lane->source_conns++;
    bool local = what->kind == HOST_SOURCE_LOCAL;
    source->conn = transport_open(lane->transport, local ? &source->local_spec : what->remote,
                                  &handlers, source);
    return source;
}

/* Connects anew once it is time to. A build host may be a target, too, that was just rebooted. */
static void open_again(struct lane *lane, struct lane_source *source, struct error *error) {
    uint64_t now = uv_now(&lane->loop);
    if (source->until_ms == 0 || now >= source->until_ms + SOURCE_GONE_MS) {
        source->until_ms = now + SOURCE_PATIENCE_MS;
    }
    if (now >= source->until_ms) {
        *error = source->error;
    } else if (now < source->again_ms) {
        uv_timer_start(&lane->again, on_again, source->again_ms - now, 0);
    } else {
        source->state = SOURCE_REPLACED;
        source_open(lane, &source->what)->until_ms = source->until_ms;
    }
}

static struct copier *get_copier(const struct host_source *what, struct error *error, void *arg) {
    struct sink_arg *sink = arg;
    struct lane_source *source = sink->lane->sources;
    while (source != NULL && (source->state == SOURCE_REPLACED || source->what.kind != what->kind ||
                              source->what.remote != what->remote)) {
        source = source->next;
    }
    if (source == NULL) {
        source = source_open(sink->lane, what);
    } else if (source->state == SOURCE_LOST) {
        open_again(sink->lane, source, error);
    }
    return source->state == SOURCE_READY ? source->copier : NULL;
}

/* ---- secrets ---- */

static void give(struct lane *lane, enum order_kind kind, size_t host, const struct order *what);

/* From a thread of the store. */
static void on_secret(void *arg, size_t host) {
    give(arg, ORDER_POKE, host, &(struct order){.path = NULL});
}

static const struct secret *get_secret(const struct inv_host *inv, const struct inv_secret *what,
                                       struct error *error, void *arg) {
    struct sink_arg *sink = arg;
    return secret_store_get(sink->lane->options.secrets, inv, what, on_secret, sink->lane,
                            sink->host, error);
}

/* ---- hosts ---- */

static void on_closed_host(size_t host, void *arg) {
    struct sink_arg *sink = arg;
    struct lane *lane = sink->lane;
    struct lane_host *entry = find_host(lane, host);
    host_free(entry->host);
    entry->host = NULL;
    free(sink);
    post(lane, report_new(LANE_CLOSED, host));
}

static void add_host(struct lane *lane, const struct host_plan *plan) {
    struct sink_arg *arg = xmalloc(sizeof(*arg));
    *arg = (struct sink_arg){.lane = lane, .host = plan->index};
    struct host_env env = {.loop = &lane->loop,
                           .transport = lane->transport,
                           .clock = &clock_system,
                           .copier = get_copier,
                           .secret = get_secret,
                           .connect_begin = connect_begin,
                           .connect_end = connect_end,
                           .nonce = random_nonce,
                           .arg = arg};
    struct host_sink sink = {.event = sink_event,
                             .wants = sink_wants,
                             .unhealthy_before = sink_unhealthy_before,
                             .reprobed = sink_reprobed,
                             .closed = on_closed_host,
                             .arg = arg};
    lane->hosts = xrealloc(lane->hosts, (lane->host_count + 1) * sizeof(*lane->hosts));
    struct lane_host *entry = &lane->hosts[lane->host_count++];
    remember_slot(lane, plan->index);
    *entry = (struct lane_host){.index = plan->index, .host = host_new(plan, &env, &sink)};
    host_begin(entry->host);
}

/* ---- orders ---- */

static void stop(struct lane *lane) {
    lane->stopping = true;
    struct lane_source *source = lane->sources;
    while (source != NULL) {
        if (source->copier != NULL) {
            copier_free(source->copier);
        }
        conn_close(source->conn);
        source = source->next;
    }
    uv_close((uv_handle_t *)&lane->wake, NULL);
    uv_close((uv_handle_t *)&lane->again, NULL);
    loop_watch_stop(&lane->watch);
    mailbox_close(&lane->orders);
}

static void give_order(struct host *host, const struct order *order) {
    switch (order->kind) {
    case ORDER_DESIRED:
        host_desired(host, order->path, &order->source);
        break;
    case ORDER_END:
        host_end(host, order->state, &order->error);
        break;
    case ORDER_GRANT:
        host_grant(host, order->act);
        break;
    case ORDER_COMPARE:
        host_compare(host);
        break;
    case ORDER_LEAVE:
        host_leave(host);
        break;
    case ORDER_TAKE_BACK:
        host_take_back(host, &order->error);
        break;
    case ORDER_REPROBE:
        host_reprobe(host);
        break;
    case ORDER_RELEASE:
        host_release(host);
        break;
    case ORDER_POKE:
        host_poke(host);
        break;
    case ORDER_ADD:
    case ORDER_STOP:
        break;
    }
}

static void receive(struct mail *mail, void *arg) {
    struct order *order = container_of(mail, struct order, mail);
    struct lane *lane = arg;
    if (order->kind == ORDER_ADD) {
        add_host(lane, &order->plan);
    } else if (order->kind == ORDER_STOP) {
        stop(lane);
    } else {
        struct lane_host *entry = find_host(lane, order->host);
        if (entry != NULL && entry->host != NULL) {
            give_order(entry->host, order);
        }
    }
    free(order->path);
    free(order);
}

static void give(struct lane *lane, enum order_kind kind, size_t host, const struct order *what) {
    struct order *order = xcalloc(1, sizeof(*order));
    *order = *what;
    order->kind = kind;
    order->host = host;
    mailbox_post(&lane->orders, &order->mail);
}

void lane_add(struct lane *lane, const struct host_plan *plan) {
    struct order *order = xcalloc(1, sizeof(*order));
    struct order init = {.kind = ORDER_ADD, .host = plan->index, .plan = *plan};
    *order = init;
    mailbox_post(&lane->orders, &order->mail);
}

void lane_desired(struct lane *lane, size_t host, const char *path,
                  const struct host_source *source) {
    give(lane, ORDER_DESIRED, host, &(struct order){.path = xstrdup(path), .source = *source});
}

void lane_end(struct lane *lane, size_t host, enum host_state state, const struct error *error) {
    give(lane, ORDER_END, host, &(struct order){.state = state, .error = *error});
}

void lane_grant(struct lane *lane, size_t host, enum act act) {
    give(lane, ORDER_GRANT, host, &(struct order){.act = act});
}

void lane_compare(struct lane *lane, size_t host) {
    give(lane, ORDER_COMPARE, host, &(struct order){.path = NULL});
}

void lane_leave(struct lane *lane, size_t host) {
    give(lane, ORDER_LEAVE, host, &(struct order){.path = NULL});
}

void lane_take_back(struct lane *lane, size_t host, const struct error *why) {
    give(lane, ORDER_TAKE_BACK, host, &(struct order){.error = *why});
}

void lane_reprobe(struct lane *lane, size_t host) {
    give(lane, ORDER_REPROBE, host, &(struct order){.path = NULL});
}

void lane_release(struct lane *lane, size_t host) {
    give(lane, ORDER_RELEASE, host, &(struct order){.path = NULL});
}

/* ---- the thread ---- */

static void lane_main(void *arg) {
    struct lane *lane = arg;
    uv_sem_post(&lane->ready);
    uv_run(&lane->loop, UV_RUN_DEFAULT);
}

struct lane *lane_new(const struct lane_options *options) {
    struct lane *lane = xcalloc(1, sizeof(*lane));
    lane->options = *options;
    uv_loop_init(&lane->loop);
    loop_watch_start(&lane->watch, &lane->loop);
    uv_sem_init(&lane->ready, 0);
    uv_timer_init(&lane->loop, &lane->wake);
    uv_timer_init(&lane->loop, &lane->again);
    lane->wake.data = lane;
    lane->again.data = lane;
    mailbox_init(&lane->orders, &lane->loop, receive, lane);
    lane->transport = options->transport(&lane->loop, options->keyring);
    uv_thread_create(&lane->thread, lane_main, lane);
    uv_sem_wait(&lane->ready);
    return lane;
}

static void free_sources(struct lane *lane) {
    while (lane->sources != NULL) {
        struct lane_source *next = lane->sources->next;
        free(lane->sources);
        lane->sources = next;
    }
}

struct loop_turns lane_stop(struct lane *lane) {
    give(lane, ORDER_STOP, SIZE_MAX, &(struct order){.path = NULL});
    uv_thread_join(&lane->thread);
    transport_free(lane->transport);
    uv_run(&lane->loop, UV_RUN_DEFAULT); /* what the transport closed */
    int left = uv_loop_close(&lane->loop);
    assert(left == 0);
    (void)left;
    uv_sem_destroy(&lane->ready);
    struct loop_turns turns = loop_watch_turns(&lane->watch);
    free_sources(lane);
    free(lane->hosts);
    free(lane->slots);
    free(lane);
    return turns;
}
