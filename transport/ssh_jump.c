#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "transport/ssh_session.h"

struct ssh_jump {
    struct ssh_jump *next;
    struct ssh_engine *engine;
    const struct conn_spec *spec;
    struct conn *conn;
    enum ssh_jump_state state;
    struct error error;
    struct ssh_session *joined; /* linked by next_joined */
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
        !same_text(a->host_key_alias, b->host_key_alias)) {
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

static void kick_joined(struct ssh_jump *jump) {
    for (struct ssh_session *at = jump->joined; at != NULL; at = at->next_joined) {
        ssh_engine_kick(jump->engine, at);
    }
}

static void on_jump_ready(const char *address, void *arg) {
    struct ssh_jump *jump = arg;
    (void)address;
    jump->state = SSH_JUMP_READY;
    kick_joined(jump);
}

static void on_jump_lost(const struct error *error, void *arg) {
    struct ssh_jump *jump = arg;
    jump->state = SSH_JUMP_FAILED;
    jump->error = *error;
    kick_joined(jump);
}

static void on_jump_notice(const char *text, void *arg) {
    struct ssh_jump *jump = arg;
    struct ssh_session *first = jump->joined;
    if (first != NULL && first->handlers.on_notice != NULL) {
        first->handlers.on_notice(text, first->arg);
    }
}

static const struct conn_handlers jump_handlers = {
    .on_ready = on_jump_ready,
    .on_lost = on_jump_lost,
    .on_notice = on_jump_notice,
};

struct ssh_jump *ssh_jump_join(struct ssh_session *session, const struct conn_spec *spec) {
    struct ssh_engine *engine = session->engine;
    struct ssh_jump *jump = engine->jumps;
    while (jump != NULL && (jump->state == SSH_JUMP_FAILED || !same_spec(jump->spec, spec))) {
        jump = jump->next;
    }
    if (jump == NULL) {
        jump = xcalloc(1, sizeof(*jump));
        jump->engine = engine;
        jump->spec = spec;
        jump->next = engine->jumps;
        engine->jumps = jump;
        jump->conn = ssh_session_open(engine, spec, &jump_handlers, jump);
    }
    session->next_joined = jump->joined;
    jump->joined = session;
    return jump;
}

enum ssh_jump_state ssh_jump_state(const struct ssh_jump *jump) {
    return jump->state;
}

const struct error *ssh_jump_error(const struct ssh_jump *jump) {
    return &jump->error;
}

struct conn *ssh_jump_conn(struct ssh_jump *jump) {
    return jump->conn;
}

void ssh_jump_leave(struct ssh_jump *jump, struct ssh_session *session) {
    for (struct ssh_session **at = &jump->joined; *at != NULL; at = &(*at)->next_joined) {
        if (*at == session) {
            *at = session->next_joined;
            break;
        }
    }
    if (jump->joined != NULL) {
        return;
    }
    for (struct ssh_jump **at = &jump->engine->jumps; *at != NULL; at = &(*at)->next) {
        if (*at == jump) {
            *at = jump->next;
            break;
        }
    }
    conn_close(jump->conn);
    free(jump);
}
