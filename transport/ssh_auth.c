#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "transport/private_key.h"
#include "transport/ssh_session.h"
#include "transport/ssh_wire.h"

/* A touch or a PIN takes a person; sshd's LoginGraceTime is 120 s. */
enum {
    AGENT_TIMEOUT_MS = 100000,
    AGENT_SLOW_MS = 1500, /* then a person hears of it */
    MSG_USERAUTH_REQUEST = 50
};

bool ssh_auth_waits_for_agent(const struct ssh_session *session) {
    return session->auth.signature != NULL && !session->auth.signature_done;
}

void ssh_auth_release(struct ssh_session *session) {
    struct ssh_auth *auth = &session->auth;
    if (auth->signature != NULL) {
        if (auth->signature_done) {
            ssh_signature_free(auth->signature);
        } else {
            auth->signature->session = NULL;
            keyring_cancel(session->engine->keyring, auth->signature);
        }
    }
    free(auth->identities);
    buf_free(&auth->tried);
    *auth = (struct ssh_auth){0};
}

/* On the agent's thread: hands the answer to the engine's. */
static void on_signed(struct ssh_signature *signature) {
    struct ssh_engine *engine = signature->engine;
    uv_mutex_lock(&engine->signed_mutex);
    signature->next = engine->signed_list;
    engine->signed_list = signature;
    uv_async_send(&engine->signed_async);
    uv_mutex_unlock(&engine->signed_mutex);
}

void ssh_auth_signed(struct ssh_signature *signature) {
    struct ssh_session *session = signature->session;
    if (session == NULL) {
        ssh_signature_free(signature);
        return;
    }
    session->auth.signature_done = true;
    ssh_connect_arm(session, session->spec->connect_timeout_ms);
    ssh_engine_kick(session->engine, session);
}

/* The algorithm inside the bytes that are to be signed (RFC 4252, section 7). */
static struct ssh_bytes find_algorithm(const uint8_t *data, size_t len) {
    struct ssh_reader reader = {data, len, false};
    ssh_read_string(&reader); /* session identifier */
    uint8_t type = ssh_read_u8(&reader);
    ssh_read_string(&reader); /* user */
    ssh_read_string(&reader); /* service */
    ssh_read_string(&reader); /* "publickey" */
    ssh_read_u8(&reader);
    struct ssh_bytes algorithm = ssh_read_string(&reader);
    if (reader.bad || type != MSG_USERAUTH_REQUEST) {
        return (struct ssh_bytes){(const uint8_t *)"", 0};
    }
    return algorithm;
}

/* An agent that takes its time waits for a person. That time is the person's, not the host's. */
static void on_agent_slow(uv_timer_t *timer) {
    struct ssh_session *session = container_of(timer, struct ssh_session, timer);
    ssh_connect_arm(session, AGENT_TIMEOUT_MS + session->spec->connect_timeout_ms);
    if (session->handlers.on_person != NULL) {
        AUTO_FREE char *text =
            xasprintf("waiting for the SSH agent to sign with %s: it may want a touch or a PIN",
                      session->auth.signature->identity->label);
        session->handlers.on_person(text, session->arg);
    }
}

static void ask_agent(struct ssh_session *session, const struct identity *identity,
                      struct ssh_bytes algorithm, const uint8_t *data, size_t len) {
    struct ssh_signature *signature = xcalloc(1, sizeof(*signature));
    signature->identity = identity;
    signature->algorithm = xmemdup(algorithm.data, algorithm.len);
    signature->algorithm_len = algorithm.len;
    signature->data = xmemdup(data, len);
    signature->data_len = len;
    signature->timeout_ms = AGENT_TIMEOUT_MS;
    signature->on_signed = on_signed;
    signature->engine = session->engine;
    signature->session = session;
    session->auth.signature = signature;
    session->auth.signature_done = false;
    ssh_engine_await_signature(session->engine);
    uv_timer_start(&session->timer, on_agent_slow, AGENT_SLOW_MS, 0);
    keyring_sign(session->engine->keyring, signature);
}

static int fetch_signature(struct ssh_session *session, unsigned char **sig, size_t *sig_len) {
    struct ssh_signature *signature = session->auth.signature;
    if (!session->auth.signature_done) {
        return LIBSSH2_ERROR_EAGAIN;
    }
    session->auth.signature = NULL;
    int rc = -1;
    if (signature->result != NULL) {
        *sig = signature->result;
        *sig_len = signature->result_len;
        signature->result = NULL;
        session->auth.signature_sent = true;
        rc = 0;
    } else if (session->handlers.on_person != NULL) {
        session->handlers.on_person(signature->error.message, session->arg);
    }
    ssh_signature_free(signature);
    return rc;
}

/* libssh2 asks for a signature, again and again until it is there. */
static int on_sign(LIBSSH2_SESSION *ssh, unsigned char **sig, size_t *sig_len,
                   const unsigned char *data, size_t data_len, void **abstract) {
    struct ssh_session *session = *abstract;
    (void)ssh;
    const struct identity *identity = session->auth.identities[session->auth.current];
    if (session->auth.signature != NULL) {
        return fetch_signature(session, sig, sig_len);
    }
    struct ssh_bytes algorithm = find_algorithm(data, data_len);
    if (identity->key != NULL) {
        int rc = private_key_sign(identity->key, algorithm.data, algorithm.len, data, data_len, sig,
                                  sig_len);
        session->auth.signature_sent = rc == 0;
        return rc;
    }
    ask_agent(session, identity, algorithm, data, data_len);
    return LIBSSH2_ERROR_EAGAIN;
}

static void set_auth_error(struct ssh_session *session, const char *methods, struct error *error) {
    struct ssh_auth *auth = &session->auth;
    struct buf text = BUF_INIT;
    if (auth->tried.len > 0) {
        buf_printf(&text, "tried %s", buf_text(&auth->tried));
    } else {
        buf_add_text(&text, "there was no key to try: name one with identity_file, or add one to "
                            "the agent");
    }
    if (methods != NULL) {
        AUTO_FREE char *cleaned = text_cleaned(methods, strlen(methods));
        buf_printf(&text, "; the server would take %s", cleaned);
    }
    if (session->farewell != NULL) {
        buf_printf(&text, "; then the server hung up: %s", session->farewell);
    }
    keyring_notes(session->engine->keyring, session->spec, &text);
    error_set(error, FLEET_ERR_UNREACHABLE, "auth-failed", "%s accepts no key for %s@%s: %s",
              session->spec->name, session->spec->user, ssh_session_address(session)->host,
              buf_text(&text));
    buf_free(&text);
}

static void fail_auth(struct ssh_session *session, const char *methods) {
    struct error error;
    set_auth_error(session, methods, &error);
    ssh_session_fail_address(session, &error);
}

/* All keys were refused: what would the server take? */
static void ask_methods(struct ssh_session *session) {
    const char *user = session->spec->user;
    const char *methods = libssh2_userauth_list(session->ssh, user, (unsigned)strlen(user));
    if (methods == NULL) {
        if (libssh2_userauth_authenticated(session->ssh)) {
            session->state = SSH_READY;
            return;
        }
        if (libssh2_session_last_errno(session->ssh) == LIBSSH2_ERROR_EAGAIN) {
            return;
        }
    }
    fail_auth(session, methods);
}

/* Did the server hang up instead of answering? libssh2 has one code for that and for a refusal. */
static bool hung_up(struct ssh_session *session, int rc) {
    return rc != LIBSSH2_ERROR_AUTHENTICATION_FAILED &&
           (session->farewell != NULL || rc == LIBSSH2_ERROR_SOCKET_SEND ||
            strncmp(ssh_session_words(session), "Waiting for", 11) == 0);
}

static void add_tried(struct ssh_auth *auth) {
    buf_printf(&auth->tried, "%s%s", auth->tried.len > 0 ? ", " : "",
               auth->identities[auth->current]->label);
}

/* Offers the current key. True when the next one is to be offered. */
static bool offer_key(struct ssh_session *session) {
    struct ssh_auth *auth = &session->auth;
    const struct identity *identity = auth->identities[auth->current];
    int rc = libssh2_userauth_publickey(session->ssh, session->spec->user, identity->blob,
                                        identity->blob_len, on_sign, &(void *){session});
    if (session->state != SSH_AUTHENTICATING) {
        return false;
    }
    if (rc == LIBSSH2_ERROR_EAGAIN) {
        if (auth->signature_sent && !session->patient && !session->opening_spare) {
            ssh_channel_open_ahead(session);
        }
        return false;
    }
    auth->signature_sent = false;
    if (rc == 0) {
        ssh_auth_release(session);
        session->state = SSH_READY;
        return false;
    }
    /* The promise of the service may have come just before the answer. */
    if ((session->service_due && ssh_connect_service(session) < 0) ||
        ssh_connect_patiently(session)) {
        return false;
    }
    add_tried(auth);
    if (hung_up(session, rc)) {
        if (!ssh_connect_again(session)) {
            fail_auth(session, NULL);
        }
        return false;
    }
    auth->current++;
    return true;
}

/* Only the first key; and not one of RSA: which hash it may sign with the server says no later than
 * with its promise of the service (RFC 8308), and libssh2 would take SHA-1. */
static bool may_offer_ahead(const struct ssh_auth *auth) {
    if (auth->current > 0 || auth->count == 0) {
        return false;
    }
    const struct identity *identity = auth->identities[0];
    struct ssh_reader reader = {identity->blob, identity->blob_len, false};
    struct ssh_bytes type = ssh_read_string(&reader);
    return !reader.bad && (type.len < 7 || memcmp(type.data, "ssh-rsa", 7) != 0);
}

void ssh_auth_step(struct ssh_session *session) {
    struct ssh_auth *auth = &session->auth;
    if (auth->identities == NULL) {
        auth->identities =
            keyring_identities(session->engine->keyring, session->spec, &auth->count);
    }
    int service = ssh_connect_service(session);
    if (service < 0 || (service == 0 && !may_offer_ahead(auth))) {
        return;
    }
    while (session->state == SSH_AUTHENTICATING && auth->identities != NULL &&
           auth->current < auth->count) {
        if (!offer_key(session)) {
            return;
        }
    }
    if (session->state == SSH_AUTHENTICATING && auth->identities != NULL) {
        ask_methods(session);
    }
}
