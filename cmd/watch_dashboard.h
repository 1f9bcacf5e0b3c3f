/* `fleet watch` on a terminal: the dashboard on a journal, read-only.
 */
#ifndef FLEET_CMD_WATCH_DASHBOARD_H
#define FLEET_CMD_WATCH_DASHBOARD_H

#include "cmd/context.h"
#include "cmd/run_log.h"

/* Shows the run until the person leaves. `speed` 0: its present state, and what comes; otherwise
 * from its start, so many times as fast. 0 or an error of the journal; 1 where there is no
 * dashboard to be had, and nothing was done. */
int watch_dashboard(const struct context *context, struct run_log *log, uint32_t speed,
                    struct error *error);

#endif
