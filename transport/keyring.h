/* The operator's keys: files decrypted once a run, and the agent, which may wait for a touch.
 *
 * Shared by all lanes. Key files that are encrypted are asked for before any lane (and the
 * dashboard) starts, by keyring_prepare. The agent is spoken to by a thread of the keyring's own, one
 * request at a time, so an agent that waits for a touch stops nothing. Secrets are wiped.
 */
#ifndef FLEET_TRANSPORT_KEYRING_H
#define FLEET_TRANSPORT_KEYRING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "core/base/error.h"

struct keyring;

/* `agent_socket`: path of the agent's socket or NULL for none ($SSH_AUTH_SOCK is the caller's to
 * read). */
struct keyring *keyring_new(const char *agent_socket);
/* When no connection uses it any more; ends the agent's thread within a second. */
void keyring_free(struct keyring *keyring);

/* Asks for a passphrase; returns a new string that the keyring wipes and frees, or NULL to give
 * up this key. `file` is the key's path, `attempt` counts from 1. */
typedef char *(*keyring_ask)(const char *file, int attempt, void *arg);

/* Reads the key files, asking (at most three times each) for the encrypted ones; with `ask` NULL
 * an encrypted file is skipped with a note. Missing files are skipped with a note too. Before any
 * lane runs. A key whose public half the agent holds isn't asked for. 0 or FLEET_ERR_SYSTEM. */
int keyring_prepare(struct keyring *keyring, const char *const *files, size_t count,
                    keyring_ask ask, void *arg, struct error *error);

#endif
