/* A small task on the selected hosts under each one's lock, so that no update is in the middle of
 * anything: lock, task, unlock, all over one shell. `gc` and `secrets push`.
 *
 * A host that another run holds is waited for as long as --lock-timeout says, then left out and said
 * so: exit code 7.
 */
#ifndef FLEET_CMD_LOCKED_TASK_H
#define FLEET_CMD_LOCKED_TASK_H

#include "cmd/host_task.h"

struct locked_host {
    struct fan_host *host;
    const char *lock_id; /* under which the host is held */
    void *task;          /* private */
    bool locked;         /* private */
    bool waits;          /* private: `again` is initialised */
    uv_timer_t again;    /* private */
    uint64_t until_ms;   /* private: so long it waits for the lock */
    struct error error;  /* private */
};

struct locked_task {
    /* The host is held: begin; call locked_done (now or later, once). */
    void (*begin)(struct locked_host *host, void *arg);
    /* As fan_result, for each host once, the locked ones included. */
    void (*result)(const struct fan_host *host, const struct error *error, void *arg);
    bool lock;           /* false: nothing is changed, so nobody is kept out */
    uint64_t timeout_ms; /* of a host's task; the lease is as long, as nobody renews it */
    void *arg;
};

void locked_done(struct locked_host *host, const struct error *error);
/* Runs it on the selection. Adds to `tally`, and returns the exit code of CONTRACT. `tally` may come
 * with counts of the caller's own, and `result` may add some. */
int locked_task_run(struct context *context, const struct locked_task *task,
                    struct host_tally *tally);

#endif
