/* From inventory hosts to connections: what the inventory says, else what ~/.ssh/config says, else OpenSSH's
 * defaults (CONTRACT, Inventory). Made once before any lane runs; then immutable and shared.
 */
#ifndef FLEET_CORE_SPEC_H
#define FLEET_CORE_SPEC_H

#include "inventory/inventory.h"
#include "transport/elevate.h"
#include "transport/keyring.h"
#include "transport/transport.h"

struct spec_set;

/* Resolves the hosts, the jumps on their way and their build hosts. Synchronous; runs `ssh -G` where something is unsaid.
 * 0, FLEET_ERR_USAGE (a jump or build host that can't be read), FLEET_ERR_SYSTEM. */
int spec_set_new(const struct inventory *inventory, const struct inv_host *const *hosts,
                 size_t count, struct spec_set **ret, struct error *error);
void spec_set_free(struct spec_set *set);
/* Of an inventory host (also one that is only a jump or a build host); NULL if it wasn't resolved. */
const struct conn_spec *spec_of(const struct spec_set *set, const struct inv_host *host);
/* "[user@]host[:port]", as a person would give it to ssh; "" where there is no address. The caller
 * frees. */
char *spec_login(const struct conn_spec *spec);
/* All distinct key files, for keyring_prepare; owned by the set. */
const char *const *spec_key_files(const struct spec_set *set, size_t *ret_count);
/* IdentityAgent of ssh_config or $SSH_AUTH_SOCK; NULL for none. */
const char *spec_agent_socket(const struct spec_set *set);

/* How a host's root is reached; runs its password_command (once for each distinct one, 30 s at
 * most) where there is one. Passwords are wiped by spec_set_free. */
int spec_elevation(struct spec_set *set, const struct inv_host *host, struct elevation *ret,
                   struct error *error);
/* Asks for the passwords of all build hosts of the set, so that no build waits for one. */
int spec_build_elevations(struct spec_set *set, struct error *error);

/* Settles `host_key_check: ask` before anything else: at a terminal all unknown keys are shown in
 * one list with fingerprints and asked for at once; without one `ask` is `strict`. `ask` gets the
 * list as text and answers yes or no; NULL: no terminal. Looks at the keys of all end points of the set, with
 * `count` 0 of build hosts only (nothing is said to a target then). FLEET_ERR_CANCELLED: the answer was no. */
typedef bool (*spec_ask_keys)(const char *list, size_t count, void *arg);
int spec_settle_host_keys(struct spec_set *set, const struct inv_host *const *hosts, size_t count,
                          spec_ask_keys ask, void *arg, struct error *error);

#endif
