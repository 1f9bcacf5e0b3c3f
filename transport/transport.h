/* How a lane opens connections: a table that the real program fills with SSH and local processes,
 * and the pipeline tests with a fake.
 */
#ifndef FLEET_TRANSPORT_TRANSPORT_H
#define FLEET_TRANSPORT_TRANSPORT_H

#include <uv.h>

#include "transport/conn.h"

enum host_key_check {
    HOST_KEY_STRICT, /* `ask` has been settled before any lane runs (transport/host_keys.h) */
    HOST_KEY_ACCEPT_NEW,
    HOST_KEY_OFF
};

struct conn_address {
    const char *host; /* name, IPv4, or IPv6 without brackets */
    uint16_t port;
};

/* Everything about one end point. Plain data, immutable and shared between threads; the strings
 * outlive every connection made from it. */
struct conn_spec {
    const char *name; /* the host's name in messages */
    bool local;       /* processes of this machine instead of SSH; the rest is then unused */
    const struct conn_address *addresses; /* tried in order */
    size_t address_count;
    const char *user;
    const char *const *identity_files;
    size_t identity_count;
    bool identities_only;           /* offer only agent keys that identity_files name */
    const char *const *known_hosts; /* files; the first is the one accept-new writes to */
    size_t known_hosts_count;
    const char *const *host_keys; /* "ssh-ed25519 AAAA..."; if any, known_hosts isn't read */
    size_t host_key_count;
    const char *host_key_alias; /* or NULL */
    enum host_key_check host_key_check;
    const char *unsupported;      /* why fleet can't connect there, in words; or NULL */
    const struct conn_spec *jump; /* or NULL; any depth */
    uint64_t connect_timeout_ms;  /* for each address: TCP, key exchange and authentication */
    uint64_t keepalive_ms;        /* a peer silent for three times this long is lost; 0: 15 s */
};

struct transport;

struct transport_ops {
    struct conn *(*open)(struct transport *transport, const struct conn_spec *spec,
                         const struct conn_handlers *handlers, void *arg);
    void (*free)(struct transport *transport);
};
struct transport {
    const struct transport_ops *ops;
};

struct keyring; /* transport/keyring.h: decrypted keys and the agent, shared by all lanes */

/* The real one, for one loop: SSH, or local processes where spec->local. Jump hosts' sessions are
 * shared by all connections of this transport and closed when the last one goes. `keyring` is
 * borrowed. */
struct transport *transport_new(uv_loop_t *loop, struct keyring *keyring);

/* Begins to connect; never NULL. Each call is a new TCP connection, key exchange and
 * authentication (over a shared jump session where there is one). */
struct conn *transport_open(struct transport *transport, const struct conn_spec *spec,
                            const struct conn_handlers *handlers, void *arg);
/* When all connections are closed. */
void transport_free(struct transport *transport);

#endif
