/* Health: all probes of one host over time, and the verdict (CONTRACT "policy" and "health").
 *
 * Probes run on their own intervals until health_stop. The gate (healthcheck/gate.h, pure) turns
 * their results into one verdict: healthy once every probe has passed for min_healthy_time without
 * a break, counted from the first pass; unhealthy when a probe fails `failures` times in a row after
 * its first pass (after startup_grace with fail_fast), on a conclusive failure, or at
 * healthy_deadline. No data, a time-out, a NaN: not healthy.
 *
 * Belongs to the host's lane; the loop's thread only.
 */
#ifndef FLEET_HEALTHCHECK_HEALTH_H
#define FLEET_HEALTHCHECK_HEALTH_H

#include <uv.h>

#include "inventory/inventory.h"
#include "transport/conn.h"

struct health;

/* One unit as the target reports it. */
struct health_unit {
    const char *name;
    const char *active; /* "active", "failed", "activating" ... */
    const char *sub;    /* "running", "auto-restart" ... */
    uint32_t restarts;  /* NRestarts */
    int exec_status;    /* ExecMainStatus */
    bool changed;       /* this update started, restarted or changed it */
    /* It hasn't been active since the host booted (systemd's ActiveEnterTimestamp is 0): a timer's
     * job or another oneshot. Where the update didn't change it, its failure isn't counted. */
    bool never_active;
};
struct health_units {
    const struct health_unit *items;
    size_t count;
    const struct error *error; /* not NULL: the target couldn't say; that's a failed probe */
};
typedef void (*health_units_done)(const struct health_units *units, void *arg);

struct health_command {
    int status;         /* exit status, -1 unknown */
    const char *output; /* its last words, cleaned */
    const struct error *error;
};
typedef void (*health_command_done)(const struct health_command *result, void *arg);

/* What the probes need of the host's pipeline. Callbacks fire later, at most once, and not after
 * health_stop has returned (the asker drops them by `op`). */
struct health_env {
    uv_loop_t *loop;
    /* The connection for probes from the target; may be replaced by health_set_conn. NULL while it is being
     * reopened: probes from the target then fail ("no connection"). */
    struct conn *conn;
    /* Asks the target for the units that are failed or restarting, or match the globs. */
    void (*units)(const char *const *globs, size_t count, health_units_done done, void *done_arg,
                  void *arg);
    /* Runs argv on the target. */
    void (*command)(const char *const *argv, size_t argc, uint64_t timeout_ms,
                    health_command_done done, void *done_arg, void *arg);
    void *arg;
};

struct health_plan {
    const struct inv_host *host;      /* its health entries and policy; borrowed */
    const char *address;              /* for ${address} and as the default host of tcp; copied */
    const char *const *failed_before; /* units that had failed before the change; copied */
    size_t failed_before_count;
    bool tolerate_preexisting;
    /* Names of probes that failed before the change (with tolerate_preexisting: reported, not counted); copied. */
    const char *const *probes_failed_before;
    size_t probes_failed_before_count;
    /* False: one round of every probe, then a verdict at once (status --probe, the look before an update,
     * after a rollback). */
    bool over_time;
    /* With over_time, for a host that was healthy (bake): one pass of each probe is enough, and
     * `failures` in a row are the end, without a grace time. */
    bool again;
};

struct health_result {
    const char *name;
    bool ok;
    bool counted;       /* false: in the grace time or failing before the change */
    const char *detail; /* "200 in 12 ms", "connection refused (2 of 3)"; cleaned */
    uint64_t duration_ms;
};

struct health_handlers {
    void (*on_probe)(const struct health_result *result, void *arg);
    /* Once. Over time, probing goes on afterwards until health_stop; a later break is on_unhealthy. */
    void (*on_healthy)(void *arg);
    /* Once and final; probing has stopped. FLEET_ERR_HEALTH (reason "probe-failed" or "healthy-deadline"), message
     * "http web: connection refused 3 times". */
    void (*on_unhealthy)(const struct error *error, void *arg);
};

struct health *health_start(const struct health_env *env, const struct health_plan *plan,
                            const struct health_handlers *handlers, void *arg);
void health_set_conn(struct health *health, struct conn *conn);
/* No callback follows; on the loop, memory goes when the last handle has closed. */
void health_stop(struct health *health);
/* Milliseconds that everything has been passing without a break, 0 before. */
uint64_t health_passing_ms(const struct health *health);

/* Checks what loading can't: regular expressions compile. 0 or FLEET_ERR_USAGE. */
int health_validate(const struct inv_health *entry, struct error *error);

#endif
