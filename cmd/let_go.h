/* What an operator that died has left on hosts that had ended by then: its lock, and its roots.
 */
#ifndef FLEET_CMD_LET_GO_H
#define FLEET_CMD_LET_GO_H

#include "cmd/context.h"
#include "cmd/run_log.h"

/* After the run was resumed: asks each host that had ended before, and lets go there of what is the
 * run's. `log` is the journal as it was read before that. A host that can't be asked is left out: its
 * lock lapses by itself, its roots go with the next update. */
void let_go_of_ended(const struct context *context, const struct run_log *log);

#endif
