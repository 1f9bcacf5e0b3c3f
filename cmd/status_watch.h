/* `fleet status --watch`: the selection looked at again and again, until somebody leaves.
 */
#ifndef FLEET_CMD_STATUS_WATCH_H
#define FLEET_CMD_STATUS_WATCH_H

#include "cmd/context.h"

/* After host_task_prepare. Returns the exit code: 0 when a person left, 130 or 143 after a signal. */
int status_watch(const struct context *context);

#endif
