/* The same small task on many hosts at once, without a rollout: status, exec, generations, unlock, gc, check --reach.
 *
 * Runs on a loop of its own on the calling thread until all are done. Each host: connect (at most `parallel` at
 * once), open the root shell, do the task, close. No journal, no lock.
 */
#ifndef FLEET_CORE_FAN_H
#define FLEET_CORE_FAN_H

#include <uv.h>

#include "core/spec.h"
#include "core/target.h"

struct fan_host {
    size_t index;
    const struct inv_host *inv;
    uv_loop_t *loop;
    struct conn *conn;
    struct shell *shell; /* NULL when fan_options.shell is false */
    struct elevation elevation;
    const char *address; /* that answered; "" where there is none */
    bool connected; /* a session was authenticated: what fails now is no longer "unreachable" */
    void *fan;      /* private */
};

struct fan_options {
    const struct inventory *inventory;
    const struct inv_host *const *hosts;
    size_t host_count;
    struct spec_set *specs;
    struct keyring *keyring;
    uint32_t parallel; /* 0: 64 */
    bool shell;        /* open a root shell first */
    /* What a person has to do meanwhile (struct conn_handlers' on_person), or NULL. */
    void (*person)(const struct inv_host *inv, const char *text);
    uint64_t timeout_ms; /* for each host's task, after connecting; 0: none of fan's own */
};

/* The connection is up: begin the task; call fan_done (now or later, once). */
typedef void (*fan_task)(struct fan_host *host, void *arg);
/* Once for each host, in the order of completion. `error` is NULL when the task ended by
 * fan_done(host, NULL), else what fan_done was given, or why there was no connection
 * (FLEET_ERR_UNREACHABLE), why it broke (_LOST), _TIMEOUT, or _CANCELLED after a signal. No
 * callback of the task's own operations on `conn` and `shell` follows; what the task has opened
 * beside them over `conn` is closed here. */
typedef void (*fan_result)(const struct fan_host *host, const struct error *error, void *arg);

void fan_done(struct fan_host *host, const struct error *error);
/* 0, or 130/143 when interrupted by a signal (all connections are closed then). */
int fan_run(const struct fan_options *options, fan_task task, fan_result result, void *arg);

#endif
