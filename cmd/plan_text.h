/* A plan as text for people.
 */
#ifndef FLEET_CMD_PLAN_TEXT_H
#define FLEET_CMD_PLAN_TEXT_H

#include "core/plan.h"

/* Appends what is planned for each host, then one line that sums it up. With `verbosity` below 0
 * only the last line and what is wrong; at 0 long lists are cut, above they are whole. */
void plan_text(const struct plan_host *hosts, size_t count, int verbosity, struct buf *out);

#endif
