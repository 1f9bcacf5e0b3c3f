/* `rollback --run RUN`: what each host ran before that run, by the run's own journal.
 */
#ifndef FLEET_CMD_UNDO_H
#define FLEET_CMD_UNDO_H

#include "cmd/context.h"
#include "core/run.h"

struct undo {
    char *run;                  /* its whole id */
    struct run_system *systems; /* for run_options, one a host; path NULL: not changed by the run */
    size_t count;
};

/* Nothing is to be undone, which has been said. */
#define UNDO_NOTHING (-1)

/* Reads the run's journal for the hosts of the selection. `narrow`: those that it did not change leave
 * the selection. As the steps of context.h: prints what is wrong and returns the exit code, 0 to go
 * on; or UNDO_NOTHING. Needs the state folder. Release in any case. */
int undo_load(struct context *context, const char *run, bool narrow, struct undo *ret);
void undo_release(struct undo *undo);

#endif
