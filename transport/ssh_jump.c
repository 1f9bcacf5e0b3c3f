/* A jump host. Its tunnels share one session as long as they open at once. libssh2 opens one
 * channel at a time, and sshd takes its own time over a target that doesn't answer, so one dead
 * host would hold up all others behind it: a session with an open under way is `busy`, and when
 * every session has been busy for a while another one is made, up to JUMP_SESSIONS. A joiner's
 * own deadline begins when its turn has come.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "transport/ssh_session.h"

enum {
    JUMP_SESSIONS = 4,
    BUSY_MS = 1000
};

/* One session to the jump host. */
struct carrier {
    struct ssh_jump *jump;
    struct conn *conn; /* NULL: not made, or lost */
    bool ready;
    struct ssh_session *busy; /* whose tunnel is being opened, or NULL */
};

struct ssh_jump {
    struct ssh_jump *next;
    struct ssh_engine *engine;
    const struct conn_spec *spec;
    struct carrier carriers[JUMP_SESSIONS];
    bool failed; /* the first session could not be made: nobody joins any more */
    struct error error;
    struct ssh_session *joined; /* linked by next_joined */
    uv_timer_t *timer;          /* while somebody waits for a busy session */
};

static bool same_text(const char *a, const char *b) {
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* Two hosts may describe the same jump host each with a spec of its own. */
static bool same_spec(const struct conn_spec *a, const struct conn_spec *b) {
    if (a == b) {
        return true;
    }
    if (a == NULL || b == NULL || a->address_count != b->address_count ||
        a->host_key_check != b->host_key_check || a->identity_count != b->identity_count ||
        a->identities_only != b->identities_only || a->host_key_count != b->host_key_count ||
        a->known_hosts_count != b->known_hosts_count || !same_text(a->user, b->user) ||
        !same_text(a->host_key_alias, b->host_key_alias) ||
        !same_text(a->unsupported, b->unsupported)) {
        return false;
    }
    bool same = true;
    for (size_t i = 0; i < a->address_count; i++) {
        same = same && a->addresses[i].port == b->addresses[i].port &&
               same_text(a->addresses[i].host, b->addresses[i].host);
    }
    for (size_t i = 0; i < a->identity_count; i++) {
        same = same && same_text(a->identity_files[i], b->identity_files[i]);
    }
    for (size_t i = 0; i < a->host_key_count; i++) {
        same = same && same_text(a->host_keys[i], b->host_keys[i]);
    }
    for (size_t i = 0; i < a->known_hosts_count; i++) {
        same = same && same_text(a->known_hosts[i], b->known_hosts[i]);
    }
    return same && same_spec(a->jump, b->jump);
}

/* Those who have no tunnel yet look whether it is their turn. */
static void kick_joined(struct ssh_jump *jump) {
    for (struct ssh_session *at = jump->joined; at != NULL; at = at->next_joined) {
        if (at->link == NULL) {
            ssh_engine_kick(jump->engine, at);
        }
    }
}

static void on_jump_ready(const char *address, void *arg) {
    struct carrier *carrier = arg;
    (void)address;
    carrier->ready = true;
    kick_joined(carrier->jump);
}

/* Its tunnels have been told already. Another session may live on; with none left, those who wait
 * have to be told too. */
static void on_jump_lost(const struct error *error, void *arg) {
    struct carrier *carrier = arg;
    struct ssh_jump *jump = carrier->jump;
    conn_close(carrier->conn);
    carrier->conn = NULL;
    carrier->ready = false;
    carrier->busy = NULL;
    bool any = false;
    for (size_t i = 0; i < JUMP_SESSIONS; i++) {
        any = any || jump->carriers[i].conn != NULL;
    }
    if (!any) {
        jump->failed = true;
        jump->error = *error;
    }
    kick_joined(jump);
}

static void on_jump_notice(const char *text, void *arg) {
    const struct carrier *carrier = arg;
    struct ssh_session *first = carrier->jump->joined;
    if (first != NULL && first->handlers.on_notice != NULL) {
        first->handlers.on_notice(text, first->arg);
    }
}

static void on_jump_person(const char *text, void *arg) {
    const struct carrier *carrier = arg;
    struct ssh_session *first = carrier->jump->joined;
    if (first != NULL && first->handlers.on_person != NULL) {
        first->handlers.on_person(text, first->arg);
    }
}

static const struct conn_handlers jump_handlers = {
    .on_ready = on_jump_ready,
    .on_lost = on_jump_lost,
    .on_notice = on_jump_notice,
    .on_person = on_jump_person,
};

static void add_carrier(struct ssh_jump *jump) {
    for (size_t i = 0; i < JUMP_SESSIONS; i++) {
        struct carrier *carrier = &jump->carriers[i];
        if (carrier->conn == NULL) {
            carrier->jump = jump;
            carrier->conn = ssh_session_open(jump->engine, jump->spec, &jump_handlers, carrier);
            return;
        }
    }
}

struct ssh_jump *ssh_jump_join(struct ssh_session *session, const struct conn_spec *spec) {
    struct ssh_engine *engine = session->engine;
    struct ssh_jump *jump = engine->jumps;
    while (jump != NULL && (jump->failed || !same_spec(jump->spec, spec))) {
        jump = jump->next;
    }
    if (jump == NULL) {
        jump = xcalloc(1, sizeof(*jump));
        jump->engine = engine;
        jump->spec = spec;
        jump->next = engine->jumps;
        engine->jumps = jump;
        add_carrier(jump);
    }
    session->next_joined = jump->joined;
    jump->joined = session;
    return jump;
}

/* Somebody has waited for a second while every session was busy with an open. */
static void on_busy_timer(uv_timer_t *timer) {
    struct ssh_jump *jump = timer->data;
    bool connecting = false;
    for (size_t i = 0; i < JUMP_SESSIONS; i++) {
        connecting = connecting || (jump->carriers[i].conn != NULL && !jump->carriers[i].ready);
    }
    if (!connecting) {
        add_carrier(jump);
    }
}

static void wait_for_turn(struct ssh_jump *jump) {
    if (jump->timer == NULL) {
        jump->timer = xcalloc(1, sizeof(*jump->timer));
        jump->timer->data = jump;
        uv_timer_init(jump->engine->loop, jump->timer);
    }
    if (!uv_is_active((uv_handle_t *)jump->timer)) {
        uv_timer_start(jump->timer, on_busy_timer, BUSY_MS, 0);
    }
}

struct conn *ssh_jump_take(struct ssh_jump *jump, struct ssh_session *session,
                           const struct error **ret_error) {
    *ret_error = jump->failed ? &jump->error : NULL;
    bool any_ready = false;
    for (size_t i = 0; i < JUMP_SESSIONS && !jump->failed; i++) {
        struct carrier *carrier = &jump->carriers[i];
        any_ready = any_ready || carrier->ready;
        if (carrier->ready && carrier->busy == NULL) {
            carrier->busy = session;
            return carrier->conn;
        }
    }
    if (any_ready) {
        wait_for_turn(jump);
    }
    return NULL;
}

void ssh_jump_opened(struct ssh_jump *jump, const struct ssh_session *session) {
    for (size_t i = 0; i < JUMP_SESSIONS; i++) {
        if (jump->carriers[i].busy == session) {
            jump->carriers[i].busy = NULL;
            if (jump->timer != NULL) {
                uv_timer_stop(jump->timer);
            }
            kick_joined(jump);
        }
    }
}

static void on_timer_closed(uv_handle_t *handle) {
    free(handle);
}

static void free_jump(struct ssh_jump *jump) {
    for (struct ssh_jump **at = &jump->engine->jumps; *at != NULL; at = &(*at)->next) {
        if (*at == jump) {
            *at = jump->next;
            break;
        }
    }
    for (size_t i = 0; i < JUMP_SESSIONS; i++) {
        if (jump->carriers[i].conn != NULL) {
            conn_close(jump->carriers[i].conn);
        }
    }
    if (jump->timer != NULL) {
        uv_close((uv_handle_t *)jump->timer, on_timer_closed);
    }
    free(jump);
}

void ssh_jump_leave(struct ssh_jump *jump, struct ssh_session *session) {
    for (struct ssh_session **at = &jump->joined; *at != NULL; at = &(*at)->next_joined) {
        if (*at == session) {
            *at = session->next_joined;
            break;
        }
    }
    ssh_jump_opened(jump, session);
    if (jump->joined == NULL) {
        free_jump(jump);
    }
}
