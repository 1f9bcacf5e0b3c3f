/* Leaving a new system as it runs, neither committed nor taken back: `on_failure: leave`, `rollback: false`,
 * `--action test`.
 *
 * The guard does not disarm by itself: it is told to over a connection that was made after the activation,
 * and whoever can't tell it has the host taken back by the deadline. What a person needs next stands in
 * the end's message.
 */
#include "core/host_internal.h"

#include <stdio.h>
#include <string.h>

#define POLL_AGAIN_MS 300u

enum step_result host_stays_committed(struct host *host) {
    const char *runs = strstr(host->state_line, " current=");
    if (runs == NULL) {
        host_set_end(host, HOST_FAILED, "%.900s (left running: `rollback` is false for this host)",
                     host->verdict.message);
    } else {
        host_set_end(
            host, HOST_FAILED,
            "%.500s (left as it is, as `rollback` is false for this host: the new system is "
            "committed, but %.200s runs; `fleet update %s` tries it again)",
            host->verdict.message, runs + strlen(" current="), host->plan.inv->name);
    }
    return host_go(host, STEP_END);
}

bool host_guard_has_left(const struct host *host) {
    return host->guard.phase == GUARD_INERT && strcmp(host->guard.why, "leave") == 0;
}

void host_tell_not_left(struct host *host) {
    const char *why = host->guard.why;
    bool never_ran = strcmp(why, "activation") == 0 || strcmp(why, "activate-timeout") == 0;
    char message[ERROR_MESSAGE_MAX];
    if (!host->leave) {
        return;
    }
    snprintf(message, sizeof(message), "%.800s; not left: %s", host->verdict.message,
             never_ran ? "the new system was not running yet" : "its guard could not be told to");
    snprintf(host->verdict.message, sizeof(host->verdict.message), "%s", message);
}

/* The arguments of `fleet rollback` that lead to a generation, or to a path. */
static void write_target(char *to, size_t room, int64_t generation, const char *path) {
    if (generation > 0) {
        snprintf(to, room, "%lld", (long long)generation);
    } else {
        snprintf(to, room, "%.250s", path != NULL ? path : "PATH");
    }
}

void host_set_left(struct host *host) {
    bool rollback = host->plan.run->action == ACTION_ROLLBACK;
    const char *name = host->plan.inv->name;
    char there[300] = "";
    char back[300];
    write_target(back, sizeof(back), host->old_generation, host->old);
    if (rollback) {
        write_target(there, sizeof(there), host->to_generation, host->desired);
    }
    host_set_end(
        host, HOST_FAILED,
        "%.400s%sleft running, not committed: a reboot brings the old system back. When it is "
        "mended `fleet %s%s %s` proves and commits it; `fleet rollback --to %s %s` goes back",
        host->verdict.message, host->verdict.code != 0 ? "; " : "",
        rollback ? "rollback --to " : "update", there, name, back, name);
}

/* Disarms the guard: the new system runs on, uncommitted. */
static enum step_result has_left(struct host *host) {
    host->guard_deadline_ms = 0;
    host_set_string(&host->current, host->going_back ? host->old : host->desired);
    if (host->going_back) { /* --action test: the profile was never touched */
        host_set_end(host, HOST_ROLLED_BACK, "%s", host->back_why.message);
    } else if (host->verdict.code != 0) {
        host_set_left(host);
    } else {
        host_set_end(host, HOST_HEALTHY,
                     "running and proven, not committed: a reboot brings the old system back");
    }
    return host_go(host, STEP_END);
}

/* The guard could not be disarmed: it goes back, has done so, or went with a reboot. */
static enum step_result cannot_leave(struct host *host) {
    if (host->verdict.code != 0) {
        host_tell_not_left(host);
        return host_go(host, STEP_ABORT);
    }
    error_set(&host->verdict, host->lock_lost ? FLEET_ERR_LOCKED : FLEET_ERR_REMOTE,
              host->lock_lost ? "lock-lost" : "guard-gone",
              host->lock_lost ? "another run took the lock over while this one was away"
                              : "the guard went back, or the host was restarted, before the guard "
                                "could be disarmed");
    return host_go(host, STEP_AWAIT_ROLLBACK);
}

enum step_result step_leave(struct host *host) {
    host_health_stop(host);
    if (host_overdue(host)) {
        link_close(&host->link);
        host_poke(host);
        return STEP_AGAIN;
    }
    if (host->pausing && !host->op_started) {
        return STEP_AGAIN;
    }
    if (host_op_begin(host)) {
        host_await(host, host_patience_ms(host));
        struct target_lock lock = host_target_lock(host);
        target_guard_request(host->link.shell, TARGET_LEAVE, host->nonce, &lock, host_on_reply,
                             host);
        return STEP_AGAIN;
    }
    if (!host->op_done) {
        return STEP_AGAIN;
    }
    if (host->op_err != 0) {
        return host_try_again(host) ? STEP_AGAIN : host_fail(host, &host->op_error);
    }
    host_take_guard(host);
    if (host_guard_has_left(host)) {
        return has_left(host);
    }
    if (host->guard.phase == GUARD_ACTIVE && !host->lock_lost) {
        host->op_started = false; /* it has not seen the request yet */
        host_pause(host, POLL_AGAIN_MS);
        return STEP_AGAIN;
    }
    return cannot_leave(host);
}
