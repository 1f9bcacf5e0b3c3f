/* The coordinator: one run from selection to run_end, on the main thread's loop.
 *
 * It loads nothing and prints nothing itself: `cmd` hands it an inventory, a selection and outputs
 * (through run_observer). It builds, feeds core/rollout, journals grants before lanes see them, and owns the
 * lanes.
 */
#ifndef FLEET_CORE_RUN_H
#define FLEET_CORE_RUN_H

#include <uv.h>

#include "core/event.h"
#include "core/run_request.h"
#include "core/spec.h"
#include "core/state.h"
#include "core/view.h"
#include "inventory/inventory.h"

struct run_observer {
    void (*event)(const struct event *event, const struct view *view, void *arg);
    void (*tick)(const struct view *view, int64_t wall_ms, const char *waiting, void *arg);
    /* Optional: the run's loop is there, for a display that reads keys; until the last event.
     * `request` takes what a person asks, with `request_arg`, on the loop's thread. True where
     * somebody may ask: healthy hosts are then held until the end, so that they can be taken back. */
    bool (*attach)(uv_loop_t *loop, void (*request)(const struct run_request *request, void *arg),
                   void *request_arg, void *arg);
    void *arg;
};

/* A system that needs no building: of a saved plan. */
struct run_system {
    const char *path;
    bool on_target; /* in the host's own store; else in this machine's */
};

struct run_options {
    const struct inventory *inventory;
    const struct inv_host *const *hosts; /* selected, in order */
    size_t host_count;
    enum run_action action;
    const char *state_dir;
    const char *rev;
    bool dirty;
    uint64_t lock_timeout_ms;
    const char *policy_json; /* overrides as recorded in run_start, "{}" */
    const char *out_link;    /* `build --out-link` */
    /* One a host: `update --plan`, `rollback --run`; NULL: they are built, or the hosts' previous
     * ones. */
    const struct run_system *systems;
    /* `fleet rollback`: */
    int64_t to_generation; /* 0: the previous one */
    const char *to_path;   /* or NULL */
    const char *to_run;    /* the run that `systems` undo, or NULL */
    struct spec_set *specs;
    struct keyring *keyring;
    uint32_t lanes; /* 0: the cores, at most 4 */
    struct run_observer observer;
    /* `fleet resume`, `promote`: the id of a run whose journal goes on; or NULL. The hosts are then
     * those of its run_start, in that order. */
    const char *resume_id;
    bool promote;     /* releases a resumed run that waits after a wave */
    bool interactive; /* a person is there: a paused run waits instead of exiting with 6 */
};

/* In the run's folder: made by `fleet promote`, removed by the run that it releases. */
#define RUN_PROMOTE_FILE "promote"

/* Runs to the end. Returns the exit code of CONTRACT; `error` is filled when it is 1 or 2 before any event.
 * SIGINT/SIGTERM: the first drains, the second leaves within ten seconds with the guards armed, the
 * third leaves at once. SIGHUP drains, too. A run that waits for promotion looks once a second for RUN_PROMOTE_FILE.
 * *ret_run_id (RUN_ID_SIZE bytes, may be NULL) gets the run's id. */
int run_execute(const struct run_options *options, char *ret_run_id, struct error *error);

#endif
