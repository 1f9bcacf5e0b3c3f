/* One SSH session: connecting, authenticating, carrying streams, noticing that the peer is gone.
 *
 *   connecting ──► handshake ──► authenticating ──► ready
 *       ▲              │               │              │
 *       └── next address, as long as there is one ◄───┤ (not once ready)
 *                      └───────────────┴──────► failed┘ ──► closed
 *
 * One driver, ssh_session_drive, does whatever can be done without waiting: it is called when
 * bytes come, when the owner has asked for something (through the engine's kick), and by the
 * timer. libssh2 wants a call that said EAGAIN repeated, and one operation of a kind at a time on
 * a session; the driver's order sees to both. Sends are never partial (ssh_link.h), so libssh2's
 * other rules about EAGAIN don't arise.
 *
 * Two questions of the login are not waited for, which saves two round trips: the first key is
 * offered right behind the request for the login service, and a channel is asked for right behind
 * the signature, once the server has said that it takes the key. A server answers in the order of
 * what it reads, so nothing else changes. Where it ends such a login otherwise (a second key is
 * asked for as well, or it is stricter than the standard), the address is tried again patiently,
 * one question after the other.
 *
 * Owner's callbacks fire from the driver only, between calls into libssh2. Any of them may close
 * streams or the session: streams are only marked and swept at the end of the driver, the session
 * is torn down in the engine's next turn.
 */
#ifndef FLEET_TRANSPORT_SSH_SESSION_H
#define FLEET_TRANSPORT_SSH_SESSION_H

#include <libssh2.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "core/base/buf.h"
#include "transport/conn.h"
#include "transport/keyring_keys.h"
#include "transport/ssh_engine.h"
#include "transport/ssh_kexinit.h"
#include "transport/ssh_link.h"
#include "transport/transport.h"

/* What has left of our own packets: a key may be offered behind the request for the service, and
 * libssh2 does not say when that is. */
enum ssh_sent {
    SSH_SENT_NOTHING,
    SSH_SENT_NEWKEYS, /* the host key is the peer's own; the next packet is encrypted */
    SSH_SENT_SERVICE_REQUEST
};

enum ssh_state {
    SSH_CONNECTING,     /* a socket or a tunnel to the current address */
    SSH_HANDSHAKE,      /* banner, key exchange, host key */
    SSH_AUTHENTICATING, /* offering keys, one after the other */
    SSH_READY,
    SSH_FAILED, /* the owner has been told; it still has to close */
    SSH_CLOSED  /* waits for its handles */
};

struct ssh_stream;

struct ssh_auth {
    const struct identity **identities; /* best first; NULL until authentication begins */
    size_t count;
    size_t current;
    struct buf tried;                /* labels, for the message */
    struct ssh_signature *signature; /* being made by the agent, or done and not yet fetched */
    bool signature_done;
    bool
        signature_sent; /* the server takes the current key, and has its signature or is about to */
};

struct ssh_session {
    struct conn conn; /* first: the session is the owner's struct conn */
    struct ssh_engine *engine;
    const struct conn_spec *spec;
    struct conn_handlers handlers;
    void *arg;
    enum ssh_state state;
    bool scan;      /* only wants to see the host key */
    uint8_t *offer; /* a scan's finding: the key that nothing knows */
    size_t offer_len;
    bool driving;
    bool kicked;
    struct ssh_session *next_kicked;

    size_t address; /* index of the current one */
    struct error failure;
    unsigned failures;
    struct ssh_link *link; /* NULL between addresses */
    struct ssh_jump *jump; /* joined, or NULL */
    struct ssh_session *next_joined;
    bool tunnel_open; /* bytes have come through it */
    unsigned retries; /* of the current address, see ssh_connect.c */
    LIBSSH2_SESSION *ssh;
    struct ssh_kexinit kexinit;
    enum ssh_sent sent;
    bool service_due; /* the login service is asked for and not promised yet */
    bool patient;     /* no question before the answer to the one before it */
    bool hung_up;     /* the peer's end of the connection is gone */
    char *farewell;   /* what the peer said when it disconnected, cleaned; or NULL */
    char *host_key_order;
    struct ssh_auth auth;

    uv_timer_t timer;
    uv_timer_t nudge;       /* drives an open that nobody waits for to its end */
    unsigned handles;       /* of the two that are still open */
    uint64_t deadline_ms;   /* of the current address */
    uint64_t last_heard_ms; /* bytes came in */
    unsigned keepalives;    /* sent since bytes came in */

    struct ssh_stream *streams; /* in the order of their opening */
    struct ssh_stream *last_stream;
    struct ssh_stream *opening; /* libssh2 opens one channel at a time */
    unsigned sessions;          /* channels that count against sshd's MaxSessions */
    LIBSSH2_CHANNEL *spare;     /* open and unused, see ssh_channel.c */
    bool opening_spare;
    bool spare_refused;
    bool has_exec; /* this session runs commands, it isn't only a jump host */
    bool more;     /* a budget ran out: another turn is needed */
};

/* ssh.c */
struct conn *ssh_session_open(struct ssh_engine *engine, const struct conn_spec *spec,
                              const struct conn_handlers *handlers, void *arg);
/* The same, but only as far as the host key: always ends in on_lost, with the reason
 * "host-key-unknown" where nothing knows the key that is then in session->offer. */
struct ssh_session *ssh_session_scan(struct ssh_engine *engine, const struct conn_spec *spec,
                                     const struct conn_handlers *handlers, void *arg);
/* Called by the engine for a kicked session. */
void ssh_session_drive(struct ssh_session *session);
/* The connection broke: tells the streams and the owner, once. */
void ssh_session_lost(struct ssh_session *session, const struct error *error);
/* The current address is no good: goes to the next, or tells the owner. */
void ssh_session_fail_address(struct ssh_session *session, const struct error *error);
static inline const struct conn_address *ssh_session_address(const struct ssh_session *session) {
    return &session->spec->addresses[session->address];
}

/* ssh_connect.c: from an address to a session whose host key is good. */
void ssh_connect_start(struct ssh_session *session);
/* In SSH_CONNECTING: goes on once the jump host can be used. */
void ssh_connect_step(struct ssh_session *session);
void ssh_connect_handshake(struct ssh_session *session);
/* True where the connection ended without a word, as where sshd is restarted, and the same address is
 * tried again a few times. */
bool ssh_connect_again(struct ssh_session *session);
/* Something was asked ahead that the server has not answered: true where the same address is tried
 * again without that. */
bool ssh_connect_patiently(struct ssh_session *session);
/* In SSH_AUTHENTICATING: 1 where the login service is promised, 0 while it is not; -1: the session
 * is at another address, or has failed. */
int ssh_connect_service(struct ssh_session *session);
/* (Re)starts the timer that ends the current attempt. */
void ssh_connect_arm(struct ssh_session *session, uint64_t timeout_ms);
/* Frees what belongs to the current address: libssh2's session, the link. */
void ssh_connect_release(struct ssh_session *session);
/* "libssh2's words", for messages about a session that has finally failed. */
const char *ssh_session_words(struct ssh_session *session);

/* ssh_auth.c */
void ssh_auth_step(struct ssh_session *session);
void ssh_auth_release(struct ssh_session *session);
/* True while the agent is being waited for: nothing is read meanwhile. */
bool ssh_auth_waits_for_agent(const struct ssh_session *session);
/* From the engine: an answer of the agent's. Takes the signature over. */
void ssh_auth_signed(struct ssh_signature *signature);

/* ssh_channel.c */
struct stream *ssh_channel_exec(struct conn *conn, const char *command,
                                const struct stream_handlers *handlers, void *arg);
struct stream *ssh_channel_tunnel(struct conn *conn, const char *host, uint16_t port,
                                  const struct stream_handlers *handlers, void *arg);
/* Asks for the spare channel before the login is answered. */
void ssh_channel_open_ahead(struct ssh_session *session);
/* Does for every stream what can be done now. */
void ssh_channels_step(struct ssh_session *session);
/* on_end(lost) for every stream that the owner still has. */
void ssh_channels_lost(struct ssh_session *session, const struct error *error);
/* Frees the streams that have ended; with `all`, every one (libssh2's session is gone). */
void ssh_channels_sweep(struct ssh_session *session, bool all);

/* ssh_jump.c: sessions to jump hosts, shared by all that go through them. */
/* Joins (or begins) the session to `spec`; the joiner is kicked when its turn may have come. */
struct ssh_jump *ssh_jump_join(struct ssh_session *session, const struct conn_spec *spec);
/* A connection through which the joiner may open its tunnel now, or NULL: not yet, or
 * *ret_error says why never. */
struct conn *ssh_jump_take(struct ssh_jump *jump, struct ssh_session *session,
                           const struct error **ret_error);
/* The joiner's tunnel is open: the next one's turn. */
void ssh_jump_opened(struct ssh_jump *jump, const struct ssh_session *session);
/* The last one to leave closes it. */
void ssh_jump_leave(struct ssh_jump *jump, struct ssh_session *session);

#endif
