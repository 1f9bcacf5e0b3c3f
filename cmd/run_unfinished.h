/* A run of this machine that was cut off, or waits, said where a person looks at the fleet.
 */
#ifndef FLEET_CMD_RUN_UNFINISHED_H
#define FLEET_CMD_RUN_UNFINISHED_H

#include "cmd/context.h"

/* One line on stderr where the latest run of `inventory` (a path as the journal has it) can be resumed:
 * what it was, which hosts have no end, and the line to type. Runs that got to no host are passed over:
 * they are what a person tries while a dead run still holds the hosts. Needs the state folder
 * (context_surroundings); what can't be read is not spoken of. */
void run_unfinished_tell(const struct context *context, const char *inventory);

#endif
