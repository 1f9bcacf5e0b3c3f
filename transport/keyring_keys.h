/* The inside of the keyring, for the SSH carrier: which keys to offer, and signing with them.
 *
 * After keyring_prepare the keys are immutable, so every lane reads them without a lock. Requests
 * to the agent go through a queue to the keyring's thread.
 */
#ifndef FLEET_TRANSPORT_KEYRING_KEYS_H
#define FLEET_TRANSPORT_KEYRING_KEYS_H

#include <openssl/evp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "transport/keyring.h"
#include "transport/transport.h"

struct identity {
    char *path;    /* the file, as conn_spec.identity_files names it; NULL: only in the agent */
    char *comment; /* the agent's */
    char *label;   /* "ED25519 SHA256:... (~/.ssh/id_ed25519)", for messages */
    uint8_t *blob;
    size_t blob_len;
    EVP_PKEY *key; /* NULL: the agent signs */
    bool in_agent;
};

/* The keys to offer for `spec`, best first: those of identity_files that the agent holds, then
 * identity_files themselves, then the agent's others unless identities_only. (sshd counts each
 * offer, MaxAuthTries 6, so a full agent must not use them up.) Caller frees the array. */
const struct identity **keyring_identities(const struct keyring *keyring,
                                           const struct conn_spec *spec, size_t *ret_count);
/* Adds what was left out of the agent and of the keys that `spec` names, each with "; " before it:
 * "; key file ~/.ssh/id_rsa: is encrypted and ...". */
void keyring_notes(const struct keyring *keyring, const struct conn_spec *spec, struct buf *out);

/* A signature that the agent makes. on_signed fires on the agent's thread and hands the request
 * back: it may only pass it on to the asker's thread (the engine's queue), which frees it. */
struct ssh_signature {
    struct ssh_signature *next;
    const struct identity *identity;
    uint8_t *algorithm;
    size_t algorithm_len;
    uint8_t *data;
    size_t data_len;
    uint64_t timeout_ms;
    void (*on_signed)(struct ssh_signature *signature);
    void *engine;          /* the asker's; not the keyring's business */
    void *session;         /* the asker's; NULL once it has lost interest */
    atomic_bool cancelled; /* set by the asker: the agent need not be bothered any more */
    uint8_t *result;       /* NULL: refused, `error` says why */
    size_t result_len;
    struct error error;
};

/* Queues the request; on_signed fires exactly once. */
void keyring_sign(struct keyring *keyring, struct ssh_signature *signature);
/* The asker has lost interest: the request comes back at once. */
void keyring_cancel(struct keyring *keyring, struct ssh_signature *signature);
void ssh_signature_free(struct ssh_signature *signature);

#endif
