/* Secrets: read on the operator's machine, put into their place on a target.
 *
 * A secret is held in memory only, for as short as possible, and wiped by its owner (secret_release).
 * It goes to the target on the root shell's stdin: never in an argument list, an event or a log.
 * What is there already is compared by SHA-256.
 */
#ifndef FLEET_CORE_SECRETS_H
#define FLEET_CORE_SECRETS_H

#include "core/target.h"
#include "inventory/inventory.h"

/* Larger ones are refused. */
#define SECRET_MAX_BYTES (1024u * 1024u)
#define SECRET_HASH_SIZE 65

struct secret {
    char *encoded;               /* base64 */
    char hash[SECRET_HASH_SIZE]; /* SHA-256 of the bytes, lower-case hex */
};

/* Reads it from its file, or runs its command or age (never through a shell, in `dir`, at most 60 s
 * each). Synchronous, before any loop runs. 0, or FLEET_ERR_SYSTEM. */
int secret_read(const struct inv_host *host, const struct inv_secret *what, const char *dir,
                struct secret *ret, struct error *error);
void secret_release(struct secret *secret);

enum secret_state {
    SECRET_CURRENT,
    SECRET_MISSING,
    SECRET_STALE, /* other content */
    SECRET_MODE   /* right content, another owner, group or mode */
};
/* "missing" */
const char *secret_state_name(enum secret_state state);

/* Looks at the places of all secrets of the host; the answer is secret_judge's. */
void secret_look(struct shell *shell, const struct inv_host *host, target_done done, void *arg);
enum secret_state secret_judge(const struct target_reply *reply, const struct inv_secret *what,
                               const struct secret *secret);
/* Puts it there by rename, with owner, group and mode. */
void secret_put(struct shell *shell, const struct inv_secret *what, const struct secret *secret,
                target_done done, void *arg);

#endif
