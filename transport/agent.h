/* The SSH agent's protocol, on the agent thread or before any lane runs: it blocks.
 *
 * Source: draft-miller-ssh-agent (messages 11, 12, 13, 14 and the RSA flags).
 */
#ifndef FLEET_TRANSPORT_AGENT_H
#define FLEET_TRANSPORT_AGENT_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/buf.h"
#include "core/base/error.h"

struct agent_key {
    uint8_t *blob;
    size_t blob_len;
    char *comment; /* cleaned for printing */
};

/* Parses the answer to "request identities" (without its length). 0, or FLEET_ERR_PROTOCOL. */
int agent_parse_keys(const uint8_t *answer, size_t len, struct agent_key **ret, size_t *ret_count);
void agent_keys_free(struct agent_key *keys, size_t count);
/* Appends a whole sign request. `algorithm` chooses the RSA hash. */
void agent_add_sign_request(struct buf *out, const uint8_t *blob, size_t blob_len,
                            const uint8_t *data, size_t len, const uint8_t *algorithm,
                            size_t algorithm_len);
/* Takes the inner signature out of the answer to a sign request. Caller frees. 0, or
 * FLEET_ERR_PROTOCOL (refused, malformed, another algorithm than asked for). */
int agent_parse_signature(const uint8_t *answer, size_t len, const uint8_t *algorithm,
                          size_t algorithm_len, uint8_t **ret, size_t *ret_len);

/* How another thread ends a wait: it sets the flag and writes to the eventfd. */
struct agent_cancel {
    int wake_fd;
    const atomic_bool *cancelled;
};

/* Sends `request` (with its length) and reads one answer (without) into `answer`. Gives up after
 * `timeout_ms` or when it is cancelled (`cancel` may be NULL). 0, FLEET_ERR_SYSTEM,
 * FLEET_ERR_TIMEOUT or FLEET_ERR_CANCELLED. */
int agent_ask(const char *socket_path, const struct buf *request, const struct agent_cancel *cancel,
              uint64_t timeout_ms, struct buf *answer, struct error *error);
/* The keys that the agent holds. */
int agent_list(const char *socket_path, uint64_t timeout_ms, struct agent_key **ret,
               size_t *ret_count, struct error *error);

#endif
