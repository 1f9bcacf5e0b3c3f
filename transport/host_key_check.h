/* What is known of a host's key, and the verdict on the one that it offers.
 *
 * With conn_spec.host_keys only those count; otherwise the known_hosts files, looked up by
 * host_key_alias or by the address as known_hosts writes it. As in ssh, a key that is known for
 * the bare address is good for another port too.
 */
#ifndef FLEET_TRANSPORT_HOST_KEY_CHECK_H
#define FLEET_TRANSPORT_HOST_KEY_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/buf.h"
#include "transport/transport.h"

struct known_hosts_cache;

/* Appends the host key algorithms to offer, those of known keys first: a host is asked for the key
 * that we can check, not for the one that libssh2 likes best. */
void host_key_algorithms(struct known_hosts_cache *cache, const struct conn_spec *spec,
                         const struct conn_address *address, struct buf *out);

/* 0 if the offered key is good (or the check is off, or accept-new has written it down);
 * FLEET_ERR_UNREACHABLE with reason host-key-unknown, host-key-changed, host-key-revoked or
 * host-key-unsupported. */
int host_key_verify(struct known_hosts_cache *cache, const struct conn_spec *spec,
                    const struct conn_address *address, const uint8_t *blob, size_t blob_len,
                    struct error *error);

/* "name algorithm base64": the line for known_hosts. Caller frees. */
char *host_key_line(const struct conn_spec *spec, const struct conn_address *address,
                    const uint8_t *blob, size_t blob_len);

/* Appends whole lines to a known_hosts file, under flock; 0600 and its folder 0700 where they are
 * missing. 0 or FLEET_ERR_SYSTEM. */
int known_hosts_append(const char *path, const char *line, struct error *error);

#endif
