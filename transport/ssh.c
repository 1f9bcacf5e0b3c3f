#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "transport/ssh_session.h"

/* Keepalives need at least this distance: libssh2 sends none sooner than 2 s after the last. */
enum {
    KEEPALIVE_DEFAULT_MS = 15000,
    KEEPALIVE_MIN_MS = 2000,
    SILENT_KEEPALIVES = 3
};

void ssh_library_init(void) {
    libssh2_init(0);
}

static uint64_t keepalive_ms(const struct ssh_session *session) {
    uint64_t wish = session->spec->keepalive_ms;
    if (wish == 0) {
        return KEEPALIVE_DEFAULT_MS;
    }
    return wish < KEEPALIVE_MIN_MS ? KEEPALIVE_MIN_MS : wish;
}

const char *ssh_session_words(struct ssh_session *session) {
    char *words = NULL;
    libssh2_session_last_error(session->ssh, &words, NULL, 0);
    return words != NULL && words[0] != '\0' ? words : "the connection broke";
}

void ssh_session_lost(struct ssh_session *session, const struct error *error) {
    if (session->state == SSH_FAILED || session->state == SSH_CLOSED) {
        return;
    }
    struct error copy = *error;
    session->state = SSH_FAILED;
    uv_timer_stop(&session->timer);
    if (session->link != NULL) {
        ssh_link_want(session->link, false);
    }
    ssh_channels_lost(session, &copy);
    if (session->state == SSH_FAILED && session->handlers.on_lost != NULL) {
        session->handlers.on_lost(&copy, session->arg);
    }
}

/* Of several addresses' errors, the one that tells most about what to do. */
static int weight(const struct error *error) {
    static const char *const order[] = {"no-route", "name-not-found", "connect-timeout",
                                        "connection-refused"};
    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        if (strcmp(error->reason, order[i]) == 0) {
            return (int)i;
        }
    }
    return (int)ARRAY_LEN(order);
}

static void note_failure(struct ssh_session *session, const struct error *error) {
    struct error *kept = &session->failure;
    if (session->failures++ == 0) {
        *kept = *error;
        return;
    }
    struct error both = weight(error) > weight(kept) ? *error : *kept;
    AUTO_FREE char *first = xstrdup(kept->message);
    snprintf(both.message, sizeof(both.message), "%.480s; %.480s", first, error->message);
    *kept = both;
}

void ssh_session_fail_address(struct ssh_session *session, const struct error *error) {
    note_failure(session, error);
    ssh_connect_release(session);
    if (session->address + 1 >= session->spec->address_count) {
        struct error all = session->failure;
        ssh_session_lost(session, &all);
        return;
    }
    if (session->handlers.on_notice != NULL) {
        AUTO_FREE char *text = xasprintf("%s; trying %s", error->message,
                                         session->spec->addresses[session->address + 1].host);
        session->handlers.on_notice(text, session->arg);
        if (session->state == SSH_CLOSED) {
            return;
        }
    }
    session->address++;
    session->retries = 0;
    ssh_connect_start(session);
}

/* A peer that has not been heard of is asked; three questions without a byte, and it is gone. The
 * questions are counted, so that a machine that slept doesn't take its own sleep for silence. */
static void on_keepalive_timer(uv_timer_t *timer) {
    struct ssh_session *session = container_of(timer, struct ssh_session, timer);
    uint64_t now = uv_now(session->engine->loop);
    uint64_t interval = keepalive_ms(session);
    if (now - session->last_heard_ms < interval) {
        session->keepalives = 0;
        uv_timer_start(timer, on_keepalive_timer, interval - (now - session->last_heard_ms), 0);
        return;
    }
    if (session->keepalives + 1 >= SILENT_KEEPALIVES &&
        now - session->last_heard_ms >= SILENT_KEEPALIVES * interval) {
        struct error error;
        error_set(&error, FLEET_ERR_LOST, "keepalive-timeout",
                  "%s has not been heard of for %llu s: is it up, and is the network?",
                  session->spec->name, (unsigned long long)((now - session->last_heard_ms) / 1000));
        ssh_session_lost(session, &error);
        return;
    }
    int next = 0;
    session->keepalives++;
    session->spare_refused = false; /* with nobody reading, opening one brings an answer */
    libssh2_keepalive_send(session->ssh, &next);
    uv_timer_start(timer, on_keepalive_timer, interval, 0);
    ssh_engine_kick(session->engine, session);
}

static void become_ready(struct ssh_session *session) {
    session->state = SSH_READY;
    libssh2_keepalive_config(session->ssh, 1, KEEPALIVE_MIN_MS / 1000);
    uv_timer_start(&session->timer, on_keepalive_timer, keepalive_ms(session), 0);
    if (session->handlers.on_ready != NULL) {
        session->handlers.on_ready(ssh_session_address(session)->host, session->arg);
    }
}

/* After each turn: ask for bytes, and for another turn where a budget ran out. */
static void settle(struct ssh_session *session) {
    struct ssh_link *link = session->link;
    if (link == NULL || session->state == SSH_FAILED || session->state == SSH_CLOSED ||
        session->state == SSH_CONNECTING) {
        return;
    }
    bool waits = ssh_auth_waits_for_agent(session);
    ssh_link_want(link, !waits);
    if (!waits && (session->more || ssh_link_over_budget(link))) {
        session->more = false;
        ssh_engine_kick(session->engine, session);
    }
}

static void on_timer_closed(uv_handle_t *handle) {
    struct ssh_session *session = handle->data;
    if (--session->handles > 0) {
        return;
    }
    void (*on_closed)(void *) = session->handlers.on_closed;
    void *arg = session->arg;
    ssh_engine_unref(session->engine);
    free(session->offer);
    free(session);
    if (on_closed != NULL) {
        on_closed(arg);
    }
}

static void tear_down(struct ssh_session *session) {
    if (uv_is_closing((uv_handle_t *)&session->timer)) {
        return;
    }
    ssh_engine_forget(session->engine, session);
    ssh_connect_release(session);
    ssh_channels_sweep(session, true);
    session->timer.data = session;
    session->nudge.data = session;
    uv_close((uv_handle_t *)&session->timer, on_timer_closed);
    uv_close((uv_handle_t *)&session->nudge, on_timer_closed);
}

void ssh_session_drive(struct ssh_session *session) {
    if (session->driving) {
        return;
    }
    if (session->state == SSH_CLOSED) {
        tear_down(session);
        return;
    }
    session->driving = true;
    if (session->link != NULL) {
        ssh_link_turn(session->link);
    }
    if (session->state == SSH_CONNECTING) {
        ssh_connect_step(session);
    }
    if (session->state == SSH_HANDSHAKE) {
        ssh_connect_handshake(session);
    }
    if (session->state == SSH_AUTHENTICATING) {
        ssh_auth_step(session);
        if (session->state == SSH_READY) {
            become_ready(session);
        }
    }
    if (session->state == SSH_READY) {
        ssh_channels_step(session);
    }
    ssh_channels_sweep(session, false);
    settle(session);
    session->driving = false;
}

static void session_close(struct conn *conn) {
    struct ssh_session *session = (struct ssh_session *)conn;
    if (session->state == SSH_CLOSED) {
        return;
    }
    if (session->state == SSH_READY) {
        libssh2_session_disconnect(session->ssh, "fleet is done");
    }
    session->state = SSH_CLOSED;
    uv_timer_stop(&session->timer);
    if (session->link != NULL) {
        ssh_link_want(session->link, false);
    }
    ssh_engine_kick(session->engine, session);
}

/* The spare channel is asked for as soon as there is a first one. */
static bool session_is_narrow(const struct conn *conn) {
    const struct ssh_session *session = (const struct ssh_session *)conn;
    return session->spare_refused && session->sessions < 2;
}

static const struct conn_ops session_ops = {
    .exec = ssh_channel_exec,
    .tunnel = ssh_channel_tunnel,
    .close = session_close,
    .is_narrow = session_is_narrow,
};

static struct ssh_session *session_new(struct ssh_engine *engine, const struct conn_spec *spec,
                                       const struct conn_handlers *handlers, void *arg) {
    struct ssh_session *session = xcalloc(1, sizeof(*session));
    session->conn.ops = &session_ops;
    session->engine = engine;
    session->spec = spec;
    session->handlers = *handlers;
    session->arg = arg;
    session->kexinit.done = true;
    ssh_engine_ref(engine);
    uv_timer_init(engine->loop, &session->timer);
    uv_timer_init(engine->loop, &session->nudge);
    session->handles = 2;
    return session;
}

struct conn *ssh_session_open(struct ssh_engine *engine, const struct conn_spec *spec,
                              const struct conn_handlers *handlers, void *arg) {
    struct ssh_session *session = session_new(engine, spec, handlers, arg);
    ssh_connect_start(session);
    return &session->conn;
}

struct ssh_session *ssh_session_scan(struct ssh_engine *engine, const struct conn_spec *spec,
                                     const struct conn_handlers *handlers, void *arg) {
    struct ssh_session *session = session_new(engine, spec, handlers, arg);
    session->scan = true;
    ssh_connect_start(session);
    return session;
}
