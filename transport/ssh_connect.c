#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "transport/host_key_check.h"
#include "transport/ssh_session.h"
#include "transport/ssh_wire.h"

enum {
    RETRIES = 5,
    RETRY_MS = 150,
    PACKET_TYPE_AT = 5, /* of a packet in clear (RFC 4253, section 6) */
    MSG_NEWKEYS = 21
};

/* Ciphers by the CPU that they cost here (tests/bench/ssh_ciphers): libssh2 as released hands
 * OpenSSL 16 bytes at a time, which makes its portable chacha20 the cheapest; with our patch
 * (scripts/libssh2) AES-GCM takes a quarter of that. */
#ifdef LIBSSH2_CRYPTS_WHOLE_PACKETS
#define CIPHERS                                                                                    \
    "aes128-gcm@openssh.com,aes256-gcm@openssh.com,aes128-ctr,aes256-ctr,aes192-ctr,"              \
    "chacha20-poly1305@openssh.com"
#else
#define CIPHERS                                                                                    \
    "chacha20-poly1305@openssh.com,aes128-ctr,aes128-gcm@openssh.com,aes256-ctr,"                  \
    "aes256-gcm@openssh.com,aes192-ctr"
#endif
#define MACS                                                                                       \
    "hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,hmac-sha2-256,hmac-sha2-512"

/* What we offer, best first. curve25519 takes the least CPU (10 ms a login with OpenSSH's client,
 * where its default, sntrup761, takes 75; libssh2 has no sntrup761). No SHA-1 anywhere. */
static const struct preference {
    int method;
    enum ssh_kex_list list;
    const char *what;
    const char *names;
} preferences[] = {
    {LIBSSH2_METHOD_KEX, SSH_KEX_METHODS, "key exchange",
     "curve25519-sha256,curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,"
     "ecdh-sha2-nistp521,diffie-hellman-group16-sha512,diffie-hellman-group18-sha512,"
     "diffie-hellman-group14-sha256,diffie-hellman-group-exchange-sha256"},
    {LIBSSH2_METHOD_CRYPT_CS, SSH_KEX_CIPHERS, "cipher", CIPHERS},
    {LIBSSH2_METHOD_CRYPT_SC, SSH_KEX_CIPHERS_BACK, "cipher", CIPHERS},
    {LIBSSH2_METHOD_MAC_CS, SSH_KEX_MACS, "MAC", MACS},
    {LIBSSH2_METHOD_MAC_SC, SSH_KEX_MACS_BACK, "MAC", MACS},
};

static void on_link_connected(void *arg);
static void on_link_failed(const struct error *error, void *arg);
static void on_link_io(void *arg);

static const struct ssh_link_handlers link_handlers = {
    .on_connected = on_link_connected,
    .on_failed = on_link_failed,
    .on_io = on_link_io,
};

static void on_attempt_timeout(uv_timer_t *timer) {
    struct ssh_session *session = container_of(timer, struct ssh_session, timer);
    const struct conn_address *address = ssh_session_address(session);
    static const char *const phases[] = {
        [SSH_CONNECTING] = "the TCP connection was not made",
        [SSH_HANDSHAKE] = "it accepted the connection and then did not finish the handshake",
        [SSH_AUTHENTICATING] = "the login was not finished",
        [SSH_READY] = "",
        [SSH_FAILED] = "",
        [SSH_CLOSED] = "",
    };
    struct error error;
    error_set(&error, FLEET_ERR_TIMEOUT, "connect-timeout",
              "%s port %d did not answer within %llu s (%s): is it overloaded, or is something "
              "other than sshd there?",
              address->host, address->port,
              (unsigned long long)(session->spec->connect_timeout_ms / 1000),
              session->jump != NULL && !session->tunnel_open ? "the jump host did not get through"
                                                             : phases[session->state]);
    ssh_session_fail_address(session, &error);
}

void ssh_connect_arm(struct ssh_session *session, uint64_t timeout_ms) {
    session->deadline_ms = uv_now(session->engine->loop) + timeout_ms;
    uv_timer_start(&session->timer, on_attempt_timeout, timeout_ms, 0);
}

static void on_unsupported(uv_timer_t *timer) {
    struct ssh_session *session = container_of(timer, struct ssh_session, timer);
    struct error error;
    error_set(&error, FLEET_ERR_UNREACHABLE, "unsupported", "%s", session->spec->unsupported);
    ssh_session_lost(session, &error);
}

void ssh_connect_start(struct ssh_session *session) {
    session->state = SSH_CONNECTING;
    if (session->spec->unsupported != NULL) {
        uv_timer_start(&session->timer, on_unsupported, 0, 0);
        return;
    }
    if (session->spec->jump != NULL) {
        session->jump = ssh_jump_join(session, session->spec->jump);
        ssh_engine_kick(session->engine, session);
        return;
    }
    uint64_t timeout_ms = session->spec->connect_timeout_ms;
    session->link = ssh_link_tcp(session->engine->loop, ssh_session_address(session), timeout_ms,
                                 &link_handlers, session);
    /* The link watches its own time while it connects; a little more, so that it may speak. */
    ssh_connect_arm(session, timeout_ms + 50);
}

void ssh_connect_step(struct ssh_session *session) {
    if (session->jump == NULL || session->link != NULL) {
        return;
    }
    const struct error *failure;
    struct conn *conn = ssh_jump_take(session->jump, session, &failure);
    if (failure != NULL) {
        struct error error = *failure;
        error_wrap(&error, "jump host %s", session->spec->jump->name);
        error.code = error.code == FLEET_ERR_LOST ? FLEET_ERR_UNREACHABLE : error.code;
        ssh_session_fail_address(session, &error);
    } else if (conn != NULL) {
        session->tunnel_open = false;
        session->link = ssh_link_tunnel(session->engine->loop, conn, ssh_session_address(session),
                                        &link_handlers, session);
        ssh_connect_arm(session, session->spec->connect_timeout_ms);
    }
}

static ssize_t on_recv(libssh2_socket_t socket, void *buffer, size_t length, int flags,
                       void **abstract) {
    struct ssh_session *session = *abstract;
    (void)socket;
    (void)flags;
    if (session->link == NULL) {
        return -EPIPE;
    }
    ssize_t got = ssh_link_recv(session->link, buffer, length);
    if (got > 0) {
        session->last_heard_ms = uv_now(session->engine->loop);
        session->keepalives = 0;
        if (session->jump != NULL && !session->tunnel_open) {
            session->tunnel_open = true;
            ssh_jump_opened(session->jump, session);
        }
        ssh_kexinit_feed(&session->kexinit, buffer, (size_t)got);
    } else if (got != -EAGAIN) {
        session->hung_up = true;
    }
    return got;
}

/* libssh2 sends whole packets, in clear up to our NEWKEYS; the one behind that asks for the login
 * service. */
static void note_sent(struct ssh_session *session, const uint8_t *packet, size_t len) {
    if (session->sent == SSH_SENT_NEWKEYS) {
        session->sent = SSH_SENT_SERVICE_REQUEST;
    } else if (session->sent == SSH_SENT_NOTHING && len > PACKET_TYPE_AT &&
               packet[PACKET_TYPE_AT] == MSG_NEWKEYS) {
        session->sent = SSH_SENT_NEWKEYS;
    }
}

static ssize_t on_send(libssh2_socket_t socket, const void *buffer, size_t length, int flags,
                       void **abstract) {
    struct ssh_session *session = *abstract;
    (void)socket;
    (void)flags;
    ssize_t sent = session->link != NULL ? ssh_link_send(session->link, buffer, length) : -EPIPE;
    if (sent < 0 && sent != -EAGAIN) {
        session->hung_up = true;
    }
    note_sent(session, buffer, length);
    return sent;
}

static void on_disconnect(LIBSSH2_SESSION *ssh, int reason, const char *message, int message_len,
                          const char *language, int language_len, void **abstract) {
    struct ssh_session *session = *abstract;
    (void)ssh;
    (void)reason;
    (void)language;
    (void)language_len;
    if (session->farewell == NULL && message_len > 0) {
        session->farewell = text_cleaned(message, (size_t)message_len);
    }
}

static void set_preferences(struct ssh_session *session) {
    for (size_t i = 0; i < ARRAY_LEN(preferences); i++) {
        libssh2_session_method_pref(session->ssh, preferences[i].method, preferences[i].names);
    }
    struct buf order = BUF_INIT;
    host_key_algorithms(session->engine->known_hosts, session->spec, ssh_session_address(session),
                        &order);
    session->host_key_order = buf_take(&order);
    libssh2_session_method_pref(session->ssh, LIBSSH2_METHOD_HOSTKEY, session->host_key_order);
}

static void on_link_connected(void *arg) {
    struct ssh_session *session = arg;
    session->ssh = libssh2_session_init_ex(NULL, NULL, NULL, session);
    if (session->ssh == NULL) {
        abort(); /* out of memory, fatal as everywhere */
    }
    libssh2_session_set_blocking(session->ssh, 0);
    libssh2_session_callback_set2(session->ssh, LIBSSH2_CALLBACK_RECV,
                                  (libssh2_cb_generic *)(void (*)(void))on_recv);
    libssh2_session_callback_set2(session->ssh, LIBSSH2_CALLBACK_SEND,
                                  (libssh2_cb_generic *)(void (*)(void))on_send);
    libssh2_session_callback_set2(session->ssh, LIBSSH2_CALLBACK_DISCONNECT,
                                  (libssh2_cb_generic *)(void (*)(void))on_disconnect);
    set_preferences(session);
    session->kexinit = (struct ssh_kexinit){0};
    session->state = SSH_HANDSHAKE;
    ssh_session_drive(session);
}

static void on_link_failed(const struct error *error, void *arg) {
    ssh_session_fail_address(arg, error);
}

static void on_link_io(void *arg) {
    struct ssh_session *session = arg;
    /* A tunnel's bytes come from inside the jump session's own turn. */
    if (session->jump != NULL) {
        ssh_engine_kick(session->engine, session);
    } else {
        ssh_session_drive(session);
    }
}

static void set_disagreement(const struct ssh_session *session, const char *what,
                             enum ssh_kex_list list, const char *ours, struct error *error) {
    const struct conn_address *address = ssh_session_address(session);
    error_set(error, FLEET_ERR_UNREACHABLE, "no-common-algorithm",
              "%s port %d and fleet have no %s algorithm in common: it offers %s; fleet has %s",
              address->host, address->port, what, session->kexinit.lists[list], ours);
}

/* Is there a kind of algorithm of which the two sides have none in common? In the order in which
 * they are agreed upon; MACs come last since AES-GCM and chacha20 need none. */
static bool find_disagreement(const struct ssh_session *session, struct error *error) {
    const struct ssh_kexinit *kexinit = &session->kexinit;
    if (!kexinit->parsed) {
        return false;
    }
    if (ssh_kexinit_agrees(kexinit, SSH_KEX_METHODS, preferences[0].names) &&
        !ssh_kexinit_agrees(kexinit, SSH_KEX_HOST_KEYS, session->host_key_order)) {
        set_disagreement(session, "host key", SSH_KEX_HOST_KEYS, session->host_key_order, error);
        return true;
    }
    for (size_t i = 0; i < ARRAY_LEN(preferences); i++) {
        const struct preference *wish = &preferences[i];
        if (!ssh_kexinit_agrees(kexinit, wish->list, wish->names)) {
            set_disagreement(session, wish->what, wish->list, wish->names, error);
            return true;
        }
    }
    return false;
}

static bool is_broken(int rc) {
    return rc == LIBSSH2_ERROR_SOCKET_DISCONNECT || rc == LIBSSH2_ERROR_SOCKET_RECV ||
           rc == LIBSSH2_ERROR_SOCKET_SEND;
}

/* True if the connection ended and nobody said why. libssh2 has many words for that, among them
 * "Unable to exchange encryption keys". */
static bool has_ended(const struct ssh_session *session, int rc) {
    return (is_broken(rc) || session->hung_up) && ssh_link_error(session->link) == NULL &&
           session->farewell == NULL;
}

/* sshd drops connections at random while too many others are not logged in yet (MaxStartups):
 * before its banner, silently or with one of these lines. One that is restarted drops them at
 * any time. */
static bool was_dropped(const struct ssh_session *session, int rc) {
    const struct ssh_kexinit *kexinit = &session->kexinit;
    const char *seen = buf_text(&kexinit->seen);
    struct error ignored = ERROR_INIT;
    if (!has_ended(session, rc) || find_disagreement(session, &ignored)) {
        return false;
    }
    return ssh_kexinit_is_ssh(kexinit) ||
           (!kexinit->done &&
            (kexinit->seen.len == 0 || strstr(seen, "Exceeded MaxStartups") != NULL ||
             strstr(seen, "Not allowed at this time") != NULL));
}

static void set_handshake_error(struct ssh_session *session, int rc, struct error *error) {
    const struct conn_address *address = ssh_session_address(session);
    const struct ssh_kexinit *kexinit = &session->kexinit;
    const struct error *from_link = ssh_link_error(session->link);
    if (from_link != NULL) {
        *error = *from_link;
        error->code = FLEET_ERR_UNREACHABLE;
    } else if (find_disagreement(session, error)) {
        return;
    } else if (was_dropped(session, rc)) {
        error_set(error, FLEET_ERR_UNREACHABLE, "connection-closed",
                  "%s port %d accepts connections and closes them before the handshake ends: sshd "
                  "may be at its MaxStartups, or refuse this address; its log says why",
                  address->host, address->port);
    } else if (rc == LIBSSH2_ERROR_BANNER_RECV || kexinit->seen.len > 0) {
        AUTO_FREE char *seen = text_cleaned(buf_text(&kexinit->seen), kexinit->seen.len);
        error_set(error, FLEET_ERR_UNREACHABLE, "not-ssh",
                  "%s port %d does not speak SSH (it said \"%.80s\"): is the port right?",
                  address->host, address->port, seen);
    } else if (is_broken(rc)) {
        error_set(error, FLEET_ERR_UNREACHABLE, "connection-closed",
                  "%s port %d closed the connection during the handshake (%s): its log says why",
                  address->host, address->port,
                  session->farewell != NULL ? session->farewell : "without a word");
    } else {
        error_set(error, FLEET_ERR_UNREACHABLE, "handshake-failed",
                  "the SSH handshake with %s port %d failed: %s (%d)", address->host, address->port,
                  ssh_session_words(session), rc);
    }
}

static void on_retry_timer(uv_timer_t *timer) {
    ssh_connect_start(container_of(timer, struct ssh_session, timer));
}

/* Tries the same address again a little later, each time twice as late and by a random part more,
 * so that those who were dropped together don't come back together. */
static bool try_again(struct ssh_session *session) {
    if (session->retries >= RETRIES) {
        return false;
    }
    uint64_t wait_ms = (uint64_t)RETRY_MS << session->retries++;
    uint16_t dice = 0;
    uv_random(NULL, NULL, &dice, sizeof(dice), 0, NULL);
    ssh_connect_release(session);
    session->state = SSH_CONNECTING;
    uv_timer_start(&session->timer, on_retry_timer, wait_ms + dice % wait_ms, 0);
    return true;
}

bool ssh_connect_again(struct ssh_session *session) {
    return session->hung_up && has_ended(session, 0) && try_again(session);
}

bool ssh_connect_patiently(struct ssh_session *session) {
    if (!session->service_due && !session->opening_spare) {
        return false;
    }
    session->patient = true;
    ssh_connect_release(session);
    ssh_connect_start(session);
    return true;
}

/* 1 when all of it is done, 0 when it goes on, -1 when it has failed and that was seen to. */
static int drive_handshake(struct ssh_session *session) {
    int fd = ssh_link_fd(session->link);
    struct error error = ERROR_INIT;
    int rc =
        libssh2_session_handshake(session->ssh, fd >= 0 ? fd : session->engine->nonblocking_fd);
    if (rc == LIBSSH2_ERROR_EAGAIN) {
        return 0;
    }
    if (rc == 0) {
        ssh_kexinit_release(&session->kexinit);
        return 1;
    }
    if (ssh_connect_patiently(session) || (was_dropped(session, rc) && try_again(session))) {
        return -1;
    }
    set_handshake_error(session, rc, &error);
    ssh_session_fail_address(session, &error);
    return -1;
}

int ssh_connect_service(struct ssh_session *session) {
    int done = session->service_due ? drive_handshake(session) : 1;
    session->service_due = session->service_due && done <= 0;
    return done;
}

void ssh_connect_handshake(struct ssh_session *session) {
    int done = drive_handshake(session);
    bool keys_agreed = session->sent == SSH_SENT_SERVICE_REQUEST && !session->patient;
    if (done < 0 || (done == 0 && !keys_agreed)) {
        return;
    }
    session->service_due = done == 0;
    struct error error = ERROR_INIT;
    size_t len = 0;
    int type = 0;
    const char *blob = libssh2_session_hostkey(session->ssh, &len, &type);
    int rc = host_key_verify(session->engine->known_hosts, session->spec,
                             ssh_session_address(session), (const uint8_t *)blob, len, &error);
    if (session->scan) {
        session->offer = xmemdup(blob, len);
        session->offer_len = len;
        if (rc == 0) {
            error_set(&error, FLEET_ERR_CANCELLED, "scanned", "the host key is known");
        }
        ssh_session_lost(session, &error);
        return;
    }
    if (rc != 0) {
        ssh_session_fail_address(session, &error);
        return;
    }
    session->state = SSH_AUTHENTICATING;
}

/* With the link gone first, libssh2's sends and receives fail at once, so that freeing its session
 * and channels never waits. */
void ssh_connect_release(struct ssh_session *session) {
    ssh_auth_release(session);
    if (session->link != NULL) {
        ssh_link_close(session->link);
        session->link = NULL;
    }
    if (session->ssh != NULL) {
        libssh2_session_free(session->ssh);
        session->ssh = NULL;
        session->spare = NULL;
        session->opening_spare = false;
        session->sessions = 0;
    }
    session->sent = SSH_SENT_NOTHING;
    session->service_due = false;
    if (session->jump != NULL) {
        ssh_jump_leave(session->jump, session);
        session->jump = NULL;
    }
    ssh_kexinit_release(&session->kexinit);
    free(session->host_key_order);
    session->host_key_order = NULL;
    session->hung_up = false;
    free(session->farewell);
    session->farewell = NULL;
    uv_timer_stop(&session->timer);
}
