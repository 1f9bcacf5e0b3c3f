/* A small task on the selected hosts (core/fan.h), as status, generations, unlock and exec begin it.
 */
#ifndef FLEET_CMD_HOST_TASK_H
#define FLEET_CMD_HOST_TASK_H

#include "cmd/context.h"
#include "core/fan.h"

/* How it went, for the exit code. */
struct host_tally {
    size_t failed;      /* reached, and then something went wrong */
    size_t unreachable; /* optional hosts left out */
    size_t offline;     /* optional hosts that are down: counted nowhere, but named */
};

/* Counts a host's result; `error` as fan_result has it. */
void host_tally_add(struct host_tally *tally, const struct fan_host *host,
                    const struct error *error);
/* 3 before 5, as CONTRACT orders them; `interrupted` (130, 143) before both. */
int host_tally_exit(const struct host_tally *tally, int interrupted);

/* Loads, selects and connects, as most of these commands begin. */
int host_task_prepare(struct context *context);
/* fan_options' `person`: says it on stderr. */
void host_task_person(const struct inv_host *inv, const char *text);
/* Runs the task on the selection; the return of fan_run. */
int host_task_run(struct context *context, bool shell, uint64_t timeout_ms, fan_task task,
                  fan_result result, void *arg);

#endif
