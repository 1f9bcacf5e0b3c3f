/* `update --plan FILE`: the hosts and systems of a saved plan, once they are found to be as planned.
 */
#ifndef FLEET_CMD_PLANNED_H
#define FLEET_CMD_PLANNED_H

#include "cmd/context.h"
#include "core/plan.h"
#include "core/run.h"

struct planned {
    struct plan_saved saved;
    const struct plan_saved_host **hosts; /* those of the selection, in its order */
    struct run_system *systems;           /* for run_options */
};

/* Reads the file; the hosts that it plans something for become the selection. `context` has its
 * inventory. As the steps of context.h: prints what is wrong and returns the exit code, 0 to go on.
 * Release in any case. */
int planned_load(struct context *context, const char *file, struct planned *ret);
/* Asks each host, after context_connect; EXIT_STALE where one is not as it was planned. A host that
 * can't be asked is left to the run. Nothing is written on any host. */
int planned_check(struct context *context, const struct planned *planned);
void planned_release(struct planned *planned);

#endif
