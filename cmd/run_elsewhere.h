/* Runs of which this machine has no journal: what their hosts say of them.
 */
#ifndef FLEET_CMD_RUN_ELSEWHERE_H
#define FLEET_CMD_RUN_ELSEWHERE_H

#include "cmd/context.h"

/* After `not_here` (no journal of that run here): asks every host of the inventory for a guard and a
 * lock of `run` (a part of an id, or NULL: of any), and prints on stderr who is held by what, for how
 * long, and what to do. Returns the exit code: EXIT_LOCKED where one is, else that of `not_here`. */
int run_elsewhere(struct context *context, const char *run, const struct error *not_here);

#endif
