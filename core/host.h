/* One host's way through a run: the pipeline. Embedded in a lane; knows no thread and no other host.
 *
 * It talks to the target through transport (real or fake), reports through struct host_sink, and
 * does nothing with an effect on the host before host_grant has said so. The state machine, its
 * diagram and its step table are in core/host_steps.c.
 *
 * Loop thread only. All strings in the plan outlive the host.
 */
#ifndef FLEET_CORE_HOST_H
#define FLEET_CORE_HOST_H

#include <uv.h>

#include "core/base/clock.h"
#include "core/event.h"
#include "core/secrets.h"
#include "core/state.h"
#include "inventory/inventory.h"
#include "transport/copy.h"
#include "transport/elevate.h"
#include "transport/transport.h"

struct host;

/* What all hosts of a run share. */
struct host_run {
    const char *run; /* run id */
    const char *who; /* "user@machine pid 123", cleaned */
    const char *rev; /* "" outside a repository */
    bool dirty;
    bool resumed; /* another process began it */
    bool leave;   /* on_failure: leave */
    enum run_action action;
    uint64_t lease_ms;        /* of the lock; renewed at a third */
    uint64_t lock_timeout_ms; /* --lock-timeout: how long to wait for another run's lock */
};

/* What the journal of a resumed run says of a host whose change had begun. */
struct host_resume {
    bool ask;          /* it had begun; else nothing here is set */
    bool back;         /* it was to go back: a way back that has begun on a verdict stays one */
    bool taken_back;   /* it was healthy, and goes back for the others' sake */
    bool was_healthy;  /* it was, and is to be probed again with its wave */
    const char *nonce; /* of its activation */
    const char *desired;
    const char *old; /* what it ran before, or NULL: not known */
    int64_t old_generation;
    const char *reason, *verdict; /* why it goes back, or NULL */
    const char *boot_id;          /* its reboot was granted: the boot before it; else NULL */
    const char
        *units_before; /* that had failed before the change: "a.service b.service", or NULL */
    const char *probes_before; /* the same: "web, units" */
};

struct host_plan {
    size_t index; /* in the run */
    const struct inv_host *inv;
    const struct conn_spec *spec;
    struct elevation elevation;
    uint32_t wave; /* from 1, for its events */
    const struct host_run *run;
    /* `fleet rollback`: which generation to go back to; 0: the one before the current. -1: not a rollback. */
    int64_t to_generation;
    struct host_resume resume;
    bool again; /* it has ended in this run before, and is tried again */
};

/* Where a desired path can be read from. */
enum host_source_kind {
    HOST_SOURCE_LOCAL,
    HOST_SOURCE_REMOTE,
    HOST_SOURCE_TARGET
};
struct host_source {
    enum host_source_kind kind;
    const struct conn_spec *remote; /* REMOTE */
    const char *remote_command;     /* REMOTE */
};

/* How a host speaks to the coordinator. Never called from within host_new. */
struct host_sink {
    /* The event's ownership passes; `run`, `seq` and `wave` are the receiver's to fill. */
    void (*event)(struct event *event, void *arg);
    /* The host stands still until host_grant (or host_leave for ACT_ROLLBACK). `nonce`: of the
     * activation, or of a reboot the id of the boot before it. */
    void (*wants)(size_t host, enum act act, const char *path, const char *nonce, void *arg);
    void (*unhealthy_before)(size_t host, void *arg);
    void (*reprobed)(size_t host, bool ok, void *arg);
    /* Everything is closed; the receiver calls host_free, from within or later. */
    void (*closed)(size_t host, void *arg);
    void *arg;
};

struct host_env {
    uv_loop_t *loop;
    struct transport *transport;
    const struct clock *clock;
    /* The copier for a source: NULL while its connection is being made (host_poke follows) or when
     * it can't be had (`error` set). */
    struct copier *(*copier)(const struct host_source *source, struct error *error, void *arg);
    /* True when a new connection may begin now; else host_poke follows. Answered by connect_done. */
    bool (*connect_begin)(struct host *host, void *arg);
    void (*connect_end)(struct host *host, void *arg);
    /* A secret of the host; NULL while it is being read (host_poke follows) or when it can't be had
     * (`error` set). */
    const struct secret *(*secret)(const struct inv_host *inv, const struct inv_secret *what,
                                   struct error *error, void *arg);
    /* 16 random bytes as hex. */
    void (*nonce)(char ret_nonce[33], void *arg);
    void *arg;
};

struct host *host_new(const struct host_plan *plan, const struct host_env *env,
                      const struct host_sink *sink);
/* Begins: connecting. */
void host_begin(struct host *host);
/* Something outside that it may be waiting for has changed. */
void host_poke(struct host *host);
/* What it shall run; copied. `generation` for a rollback, else 0. */
void host_desired(struct host *host, const char *path, const struct host_source *source);
/* Its build failed (or it ends for another reason before anything was touched): ends in `state`. One
 * that waits for its commit goes back instead. */
void host_end(struct host *host, enum host_state state, const struct error *error);
void host_grant(struct host *host, enum act act);
/* Before its copy is granted: it shall tell what its new system changes, by an EVENT_CHANGE. */
void host_compare(struct host *host);
void host_leave(struct host *host);
/* A healthy host goes back to what it ran before, under a guard. `why` is told, unless it is that
 * the host failed while its wave baked. */
void host_take_back(struct host *host, const struct error *why);
void host_reprobe(struct host *host);
/* Its end is final: lock and roots are let go, connections closed; `closed` follows. Also ends a
 * host that is not at an end, leaving its guard armed. */
void host_release(struct host *host);
void host_free(struct host *host);

#endif
