/* What a host has to say for its plan: two questions at most, and nothing is written there.
 *
 * First target_inspect, then, where the host does not run what it shall, target/plan.sh, with keys
 * (PREFIX: current, desired, booted): PREFIX_link (repeated: "kernel PATH", "initrd PATH",
 * "kernel-modules PATH", "init-interface-version TEXT"), PREFIX_units (yes: they could be read),
 * PREFIX_unit (repeated: "SHA256 NAME"), PREFIX_flag (repeated: "NAME KEY=VALUE"), PREFIX_want
 * (repeated: "TARGET.wants/NAME"), PREFIX_path (repeated) and PREFIX_bytes of the closure, active
 * (repeated: an active unit).
 */
#ifndef FLEET_CORE_PLAN_ASK_H
#define FLEET_CORE_PLAN_ASK_H

#include "core/plan.h"
#include "core/target.h"

/* `host` and `error` (code 0: all was answered) are valid during the call. */
typedef void (*plan_ask_done)(const struct error *error, void *arg);

/* Fills current, booted, profile, generation, drift and, as far as it is told, from, running_kernel,
 * active, closure_from; where the desired system lies on the host alone also to and closure_to. The
 * current closure is asked for only where this machine's store lacks it: a host's own Nix opens its
 * database for that. `done` fires later, once, unless the shell is closed before. */
void plan_ask(struct shell *shell, struct plan_host *host, plan_ask_done done, void *arg);

#endif
