/* `status --eval`: what each selected host shall run, evaluated now; nothing is built.
 */
#ifndef FLEET_CMD_EVALUATE_H
#define FLEET_CMD_EVALUATE_H

#include "cmd/context.h"

/* Sets ret_paths[i] to a new string for each host of the selection whose evaluation went well, and
 * prints for the others what is wrong, on stderr. Returns 0, EXIT_BUILD_FAILED where one failed, or
 * 128 and the signal's number. */
int evaluate_hosts(const struct context *context, char **ret_paths);

#endif
