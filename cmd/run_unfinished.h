/* A run of this machine that was cut off, or waits, said where a person looks at the fleet.
 */
#ifndef FLEET_CMD_RUN_UNFINISHED_H
#define FLEET_CMD_RUN_UNFINISHED_H

#include "cmd/context.h"

/* One line on stderr where the latest run of this inventory can be resumed: what it was, which hosts
 * have no end, and the line to type. Needs the state folder (context_surroundings); what can't be read
 * is not spoken of. */
void run_unfinished_tell(const struct context *context);

#endif
