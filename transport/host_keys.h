/* Host keys: known_hosts files (hashed names, [host]:port, @revoked, @cert-authority), inventory
 * keys, and the list of unknown ones that a person is asked about before anything else.
 *
 * Source: sshd(8) "SSH_KNOWN_HOSTS FILE FORMAT"; SHA256 fingerprints as OpenSSH prints them.
 */
#ifndef FLEET_TRANSPORT_HOST_KEYS_H
#define FLEET_TRANSPORT_HOST_KEYS_H

#include "core/base/buf.h"
#include "transport/transport.h"

/* A host key that a host offered and that nothing knows yet. */
struct host_key_offer {
    const struct conn_spec *spec;
    char *address;     /* as known_hosts writes it: "10.0.0.1" or "[10.0.0.1]:2222" */
    char *fingerprint; /* "SHA256:..." */
    char *type;        /* "ED25519" */
    char *line;        /* the known_hosts line to append, without newline */
};

/* Connects to each spec just far enough to see its key (at most 64 at a time, each within its
 * connect time-out), and returns the unknown ones, for `host_key_check: ask`. Hosts that can't be
 * reached or whose key is known are left out. Synchronous; runs a loop of its own. Caller releases
 * with host_key_offers_free. */
int host_keys_scan(const struct conn_spec *const *specs, size_t count, struct host_key_offer **ret,
                   size_t *ret_count, struct error *error);
void host_key_offers_free(struct host_key_offer *offers, size_t count);
/* Appends the offers' lines to the first known_hosts file of their spec (0600, made if missing,
 * whole lines, under flock). */
int host_keys_accept(const struct host_key_offer *offers, size_t count, struct error *error);

#endif
