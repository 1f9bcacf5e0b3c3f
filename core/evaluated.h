/* Evaluations remembered: which system each host shall run, as of the tree that it was evaluated from,
 * so that `status` knows without evaluating anything.
 *
 * STATE/evaluated/ID holds a line `HOST PATH` a host. The ID stands for the inventory's place and text
 * and for everything in the Git working tree around it (inventory/git.h), so that nothing is believed
 * of a tree that has changed. Remembered is only what that tree decides: hosts whose file or flake
 * lies inside it. Main thread.
 */
#ifndef FLEET_CORE_EVALUATED_H
#define FLEET_CORE_EVALUATED_H

#include "inventory/inventory.h"

struct evaluated;

/* What is remembered of the tree as it is now; NULL where there is none to go by (no repository). */
struct evaluated *evaluated_open(const char *state_dir, const struct inventory *inventory);
/* The host's system, or NULL. The string lives until the next note or the close. */
const char *evaluated_path(const struct evaluated *evaluated, const struct inv_host *host);
/* The tree's evaluation of the host was this. NULL as `evaluated` is allowed. */
void evaluated_note(struct evaluated *evaluated, const struct inv_host *host, const char *path);
/* Writes what was noted, if the tree is still the same, and frees. What can't be written is only
 * forgotten. NULL is allowed. */
void evaluated_close(struct evaluated *evaluated);

#endif
