/* What a run leaves for a CI system when it ends: JUnit (--junit), Prometheus metrics (--metrics) and
 * GitHub's step summary ($GITHUB_STEP_SUMMARY).
 */
#ifndef FLEET_CMD_REPORTS_H
#define FLEET_CMD_REPORTS_H

#include "cmd/option.h"
#include "core/view.h"

/* Refuses before anything is touched what could not be written at the end, a plan (--out) as well. 0 or
 * EXIT_USAGE, said. */
int reports_check(const struct args *args);
/* Writes them all; says on stderr which one it can't, and goes on. */
void reports_write(const struct args *args, const struct view *view);

#endif
