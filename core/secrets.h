/* Secrets: read on the operator's machine, put into their place on a target.
 *
 * A secret is held in memory only, for as short as possible, and wiped by its owner (secret_release).
 * It goes to the target on the root shell's stdin: never in an argument list, an event or a log.
 * What is there already is compared by SHA-256.
 */
#ifndef FLEET_CORE_SECRETS_H
#define FLEET_CORE_SECRETS_H

#include <stdatomic.h>

#include "core/target.h"
#include "inventory/inventory.h"

/* Larger ones are refused. */
#define SECRET_MAX_BYTES (1024u * 1024u)
#define SECRET_HASH_SIZE 65

struct secret {
    char *encoded;               /* base64 */
    char hash[SECRET_HASH_SIZE]; /* SHA-256 of the bytes, lower-case hex */
};

/* How a secret is read. */
struct secret_reading {
    const char *dir; /* commands run there */
    /* Nobody is there to be asked: commands get a session of their own, without a terminal. */
    bool unattended;
    const atomic_bool *stop; /* ends it early; NULL: never */
};

/* Reads it from its file, or runs its command or age: never through a shell, 60 s at most; what it
 * says on stderr becomes part of the error. Blocks; any thread. 0, or FLEET_ERR_SYSTEM. */
int secret_read(const struct inv_host *host, const struct inv_secret *what,
                const struct secret_reading *reading, struct secret *ret, struct error *error);
void secret_release(struct secret *secret);
/* What it is made of, with ${name} filled in: secrets of one key are the same. The caller frees. */
char *secret_key(const struct inv_host *host, const struct inv_secret *what);

enum secret_state {
    SECRET_CURRENT,
    SECRET_MISSING,
    SECRET_STALE, /* other content */
    SECRET_MODE   /* right content, another owner, group or mode */
};
/* "missing" */
const char *secret_state_name(enum secret_state state);

/* Looks at the places of all secrets of the host; the answer is secret_judge's. Key besides: restart
 * (yes: units are still to be restarted, secret_restart). */
void secret_look(struct shell *shell, const struct inv_host *host, target_done done, void *arg);
enum secret_state secret_judge(const struct target_reply *reply, const struct inv_secret *what,
                               const struct secret *secret);
/* Puts it there by rename, with owner, group and mode, under the lock of that id. Its units are noted
 * there, to be restarted by secret_restart. Key: secret ("written" | "lock-lost"). */
void secret_put(struct shell *shell, const struct inv_secret *what, const struct secret *secret,
                const char *lock_id, target_done done, void *arg);
/* Restarts the noted units that run or have failed and were not started anew since. Keys: restarted,
 * restart_failed (each repeated: a unit), restart_slow (yes: some were still starting after
 * `timeout_ms`), out (repeated: what systemctl said). */
void secret_restart(struct shell *shell, uint64_t timeout_ms, target_done done, void *arg);

#endif
