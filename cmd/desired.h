/* What each selected host shall run, as far as that is known without building: as the inventory says, as
 * it was evaluated of this tree, or with --eval as it evaluates now.
 */
#ifndef FLEET_CMD_DESIRED_H
#define FLEET_CMD_DESIRED_H

#include "cmd/context.h"

/* Sets ret_paths[i], NULL at first, to a new string for each host of the selection of which it is
 * known. Returns evaluate_hosts' code: 0, or EXIT_BUILD_FAILED where hosts are left out, after which
 * one goes on; any other is to leave with. */
int desired_find(const struct context *context, char **ret_paths);

#endif
