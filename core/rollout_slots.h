/* Who may go next: a queue by rank, under an overall limit and the limits of groups.
 *
 * Each host may be in several groups. A host that a full group holds up is parked there and costs
 * nothing until the group has room again, so that 10,000 hosts in one narrow group stay cheap:
 * every operation is O(log n) for each group of the host. Pure; private to core/rollout*.c.
 */
#ifndef FLEET_CORE_ROLLOUT_SLOTS_H
#define FLEET_CORE_ROLLOUT_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct slots;

struct slots *slots_new(size_t host_count, size_t limit);
void slots_free(struct slots *slots);

/* A new group; its number, counted from 0. */
size_t slots_add_group(struct slots *slots, size_t limit);
void slots_join(struct slots *slots, size_t host, size_t group);
const size_t *slots_groups(const struct slots *slots, size_t host, size_t *ret_count);

/* `host` waits from now on; the lowest rank goes first. An urgent one goes before all others and
 * isn't bound by the overall limit, only by its groups'. Pushed again: the new rank counts. */
void slots_push(struct slots *slots, size_t host, uint64_t rank, bool urgent);
/* `host` waits no longer. */
void slots_withdraw(struct slots *slots, size_t host);
/* Takes the next host that may go, and its slots; of urgent ones only unless `all`. */
bool slots_pop(struct slots *slots, bool all, size_t *ret_host);
/* Takes the slots of a host that is under way already, whatever the limits say. */
void slots_take(struct slots *slots, size_t host);
/* Gives the host's slots back; nothing where it holds none. */
void slots_release(struct slots *slots, size_t host);

bool slots_holds(const struct slots *slots, size_t host);
/* Overall slots in use, and the limit. */
size_t slots_used(const struct slots *slots);
size_t slots_limit(const struct slots *slots);
/* Hosts that wait, parked ones included. */
size_t slots_waiting(const struct slots *slots);

#endif
