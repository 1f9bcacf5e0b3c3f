/* The ways out: going back, failing, ending, letting go. (Leaving is host_leave.c's.)
 *
 * Going back is the guard's work and immediate; this side asks for it, watches, reads the truth and
 * probes once more. A rollback is never rolled back: whatever goes wrong from here on ends in
 * rollback_failed or unknown, said so.
 */
#include "core/host_internal.h"

#include <stdio.h>
#include <string.h>

#include "core/base/xalloc.h"

#define POLL_WAIT_MS  5000u
#define POLL_AGAIN_MS 300u

enum step_result step_await_rollback(struct host *host) {
    host_health_stop(host);
    if (host->fresh.state != LINK_DOWN) {
        link_close(&host->fresh);
    }
    if (host->going_back) {
        return host_go(host, STEP_ABORT); /* never a rollback of a rollback: it stays as it is */
    }
    if (!host_granted(host, ACT_ROLLBACK)) {
        return STEP_AGAIN;
    }
    bool armed = host->guard_deadline_ms != 0 && !host->unguarded;
    if (!host->plan.inv->policy.rollback && !armed) {
        return host_stays_committed(host);
    }
    /* Only where somebody can still get in: an old connection proves nothing. */
    bool leave = host->confirmed && (host->leave || !host->plan.inv->policy.rollback);
    if (host_guard_has_left(host)) {
        leave = true;
    } else if (!leave) {
        host_tell_not_left(host);
    }
    return host_go(host, leave ? STEP_LEAVE : STEP_ABORT);
}

/* Nothing can be asked of a guard that is on its way back or has ended. One that was never heard
 * of may be at work all the same. */
static bool may_be_asked(const struct host *host) {
    switch (host->guard.phase) {
    case GUARD_NONE:
    case GUARD_ACTIVATING:
    case GUARD_ACTIVE:
    case GUARD_COMMITTING:
        return true;
    case GUARD_COMMITTED:
    case GUARD_REVERTING:
    case GUARD_REVERTED:
    case GUARD_REVERT_FAILED:
    case GUARD_INERT:
        break;
    }
    return false;
}

enum step_result step_abort(struct host *host) {
    if (!may_be_asked(host)) {
        return host_go(host, STEP_REVERT);
    }
    if (host_op_begin(host)) {
        struct target_lock lock = host_target_lock(host);
        target_guard_request(host->link.shell, TARGET_ABORT, host->nonce, &lock, host_on_reply,
                             host);
        return STEP_AGAIN;
    }
    if (!host->op_done) {
        return STEP_AGAIN;
    }
    return host_go(host, STEP_REVERT);
}

enum step_result step_revert(struct host *host) {
    if (host->pausing) {
        return STEP_AGAIN;
    }
    bool over = host->guard.phase == GUARD_REVERTED || host->guard.phase == GUARD_REVERT_FAILED;
    if (host_op_begin(host)) {
        /* After its last word there is no news to wait for, only its unit's end. */
        target_guard_poll(host->link.shell, host->nonce, host->state_line, host->log_offset,
                          over ? 0 : POLL_WAIT_MS, host_on_reply, host);
        return STEP_AGAIN;
    }
    if (!host->op_done) {
        return STEP_AGAIN;
    }
    if (host->op_err != 0) {
        return host_try_again(host) ? STEP_AGAIN : host_fail(host, &host->op_error);
    }
    host_take_guard(host);
    if (host_says(host->reply, "alive", "no")) {
        return host_go(host, STEP_VERIFY_BACK);
    }
    host->op_started = false;
    host_pause(host, over ? POLL_AGAIN_MS : 0);
    return STEP_AGAIN;
}

/* ---- the truth ---- */

enum step_result host_unfinished(struct host *host) {
    return host_failf(host, FLEET_ERR_REMOTE, "unfinished",
                      "an activation was left half done there and could not be finished: look at "
                      "/var/lib/fleet/guard and fleet-guard.service on the host");
}

static void begin_settling(struct host *host) {
    struct target_env env = host_target_env(host);
    struct target_lock lock = host_target_lock(host);
    switch (host->settle) {
    case SETTLE_LOOK:
        target_inspect(host->link.shell, &env, host->desired, host_on_reply, host);
        break;
    case SETTLE_LOCK:
        target_lock_take(host->link.shell, &lock, host_on_reply, host);
        break;
    case SETTLE_REPAIR:
        target_repair(host->link.shell, &env, host->lock_id, host_on_reply, host);
        break;
    }
}

/* What follows the answer that came; LOOK again after POLL_AGAIN_MS where it is too early. */
static enum step_result settle_on(struct host *host) {
    enum settle was = host->settle;
    host->op_started = false;
    host->settle = SETTLE_LOOK;
    if (was == SETTLE_LOOK) {
        if (host_says(host->reply, "guard_alive", "no")) {
            if (++host->repair_tries > HOST_REPAIRS) {
                return host_unfinished(host);
            }
            host->settle = SETTLE_LOCK; /* it went with the reboot */
            host_poke(host);
            return STEP_AGAIN;
        }
    } else if (was == SETTLE_LOCK && host_says(host->reply, "lock", "ok")) {
        host->settle = SETTLE_REPAIR;
        host_poke(host);
        return STEP_AGAIN;
    }
    host_pause(host, POLL_AGAIN_MS); /* another run that has the lock by now finishes it, too */
    return STEP_AGAIN;
}

enum step_result host_settled(struct host *host) {
    if (host->pausing) {
        return STEP_AGAIN;
    }
    if (host_op_begin(host)) {
        begin_settling(host);
        return STEP_AGAIN;
    }
    if (!host->op_done) {
        return STEP_AGAIN;
    }
    if (host->op_err != 0) {
        return host_try_again(host) ? STEP_AGAIN : host_fail(host, &host->op_error);
    }
    if (host->settle == SETTLE_LOOK && host_says(host->reply, "system_state", "stopping")) {
        host->op_started = false; /* what it is will be true after the reboot */
        host_pause(host, POLL_AGAIN_MS);
        return STEP_AGAIN;
    }
    if (host->settle == SETTLE_LOOK && host_says(host->reply, "guard_alive", "no") &&
        host_says(host->reply, "guard_record", "no")) {
        return STEP_DONE;
    }
    return settle_on(host);
}

static enum step_result boot_default_stuck(struct host *host) {
    host_set_end(host, HOST_ROLLBACK_FAILED,
                 "%.500s; it runs the old system again, but its boot default could not be put back "
                 "(is /boot full?): before a reboot run bin/switch-to-configuration boot of %s",
                 host->verdict.message, host->profile != NULL ? host->profile : "its profile");
    return host_go(host, STEP_END);
}

/* What the host is now: the old system, the new one after all, or neither for sure. */
static enum step_result judge_back(struct host *host) {
    const struct target_reply *reply = host->reply;
    const char *current = target_reply_get(reply, "current");
    const char *profile = target_reply_get(reply, "profile");
    host->guard_deadline_ms = 0;
    host_set_string(&host->current, current);
    host_set_string(&host->profile, profile);
    host->generation = target_reply_number(reply, "generation", host->generation);
    if (host->going_back) {
        host_set_end(host, HOST_ROLLBACK_FAILED, "%.500s; the host stays on %s",
                     host->verdict.message, current != NULL ? current : "?");
        return host_go(host, STEP_END);
    }
    const char *old = host->old != NULL && host->old[0] != '\0' ? host->old : profile;
    bool as_found = host_same(host->profile_before, host->desired);
    bool said_failed = host->guard.phase == GUARD_REVERT_FAILED;
    if (host_same(current, old) && (as_found || !host_same(profile, host->desired)) &&
        !said_failed) {
        if (strstr(host->state_line, " boot_rc=") != NULL) {
            return boot_default_stuck(host);
        }
        host_set_end(
            host, HOST_ROLLED_BACK, "%.700s%s", host->verdict.message,
            as_found ? "; its profile is the new system, as it was before: a reboot runs it" : "");
        return host_go(host, STEP_PROBE_BACK);
    }
    if (host_same(current, host->desired) && host_same(profile, host->desired)) {
        host_set_end(
            host, HOST_UNKNOWN,
            "%.400s; yet the host reports the new system as running and committed: check it, "
            "then `fleet status %s`",
            host->verdict.message, host->plan.inv->name);
        return host_go(host, STEP_END);
    }
    const char *stuck = guard_stuck_words(&host->guard);
    host_set_end(host, HOST_ROLLBACK_FAILED,
                 "%.400s; going back failed too%s%s: it runs %s, its profile is %s. Look at "
                 "fleet-guard.service there",
                 host->verdict.message, stuck != NULL ? ", as " : "", stuck != NULL ? stuck : "",
                 current != NULL ? current : "?", profile != NULL ? profile : "?");
    return host_go(host, STEP_END);
}

enum step_result step_verify_back(struct host *host) {
    enum step_result settled = host_settled(host);
    return settled == STEP_DONE ? judge_back(host) : settled;
}

void host_tell_old_probes(struct host *host) {
    if (host->health_bad) {
        size_t length = strlen(host->end_message);
        snprintf(host->end_message + length, sizeof(host->end_message) - length,
                 "; the old system fails its probes too: %.200s", host->health_error.message);
    }
}

enum step_result step_probe_back(struct host *host) {
    if (!host_health_look(host, LOOK_ONCE)) {
        return STEP_AGAIN;
    }
    host_tell_old_probes(host);
    return host_go(host, STEP_END);
}

/* ---- ends ---- */

static bool guard_may_be_armed(const struct host *host) {
    return host->guard_deadline_ms != 0;
}

enum step_result step_fail(struct host *host) {
    const char *name = host->plan.inv->name;
    enum host_state end = HOST_FAILED;
    host_copy_drop(host);
    bool was_healthy = host->plan.resume.was_healthy && host->connects == 0;
    bool out_of_reach = host->connects == 0 && host->verdict.code == FLEET_ERR_UNREACHABLE;
    if (host->ended && !out_of_reach) {
        end = host->end;
    } else if (guard_may_be_armed(host) || host->in_doubt || was_healthy) {
        const char *what = was_healthy ? "It was healthy before the run was interrupted"
                           : host->plan.resume.boot_id != NULL
                               ? "It was to be rebooted, which may have happened"
                           : host->in_doubt || host->commit_sent
                               ? "The commit had been asked for, so it may have become final"
                               : "Its guard goes back by itself when nobody renews it";
        host_set_end(host, HOST_UNKNOWN, "%.600s. %s: look again with `fleet status %s`",
                     host->error.message, what, name);
        return host_go(host, STEP_END);
    } else if (host->going_back) {
        host_set_end(host, HOST_ROLLBACK_FAILED, "%.600s; the host stays on %s",
                     host->error.message, host->current != NULL ? host->current : "?");
        return host_go(host, STEP_END);
    } else if (host->connects == 0) {
        end = host->plan.inv->optional ? HOST_SKIPPED : HOST_UNREACHABLE;
        if (host->plan.inv->optional) {
            snprintf(host->verdict.reason, sizeof(host->verdict.reason), "offline");
        }
    } else if (host->verdict.code == FLEET_ERR_LOCKED) {
        end = HOST_SKIPPED;
    } else if (host->step == STEP_FAIL && host->state == HOST_ROLLING_BACK) {
        end = HOST_UNKNOWN;
    }
    bool rebooting = host->state == HOST_REBOOTING || host->booted_anew;
    bool stays = end == HOST_FAILED && rebooting && host->plan.run->action != ACTION_REBOOT &&
                 strcmp(host->verdict.reason, "booted-another") != 0;
    host_set_end(host, end, "%.900s%s", host->verdict.message,
                 stays ? "; the new system stays: it was proven and committed before" : "");
    return host_go(host, STEP_END);
}

enum step_result step_end(struct host *host) {
    host_health_stop(host);
    bool as_told = host->going_back && host->end == HOST_ROLLED_BACK;
    const char *reason = as_told ? host->back_why.reason : host->verdict.reason;
    host_publish(host, host->end, reason, host->end_message);
    return host_go(host, STEP_HOLD);
}

enum step_result step_hold(struct host *host) {
    if (host->released) {
        return host_go(host, STEP_UNLOCK);
    }
    if (host->going_back && host->state == HOST_HEALTHY) {
        host->env.nonce(host->nonce, host->env.arg);
        host->unguarded = false;
        /* The lock went with the reboot. */
        return host_go(host, host->booted_anew ? STEP_LOCK : STEP_GUARD_START);
    }
    if (host->leave && host->state == HOST_HEALTHY) {
        host->leave = false;
        char message[ERROR_MESSAGE_MAX];
        snprintf(message, sizeof(message), "%.900s; left running", host->back_why.message);
        host_publish(host, HOST_FAILED, "bake", message);
        return STEP_AGAIN;
    }
    if (host->reprobe_running) { /* it could not be reached: no data is not healthy */
        host->reprobe_running = false;
        error_set(&host->back_why, FLEET_ERR_HEALTH, "bake", "%.900s, as its wave was probed again",
                  host->error.message);
        host->verdict = (struct error)ERROR_INIT; /* that is no end of its own */
        host_health_stop(host);
        host->sink.reprobed(host->plan.index, false, host->sink.arg);
    }
    if (host->reprobe_wanted) {
        host->reprobe_wanted = false;
        host->reprobe_running = true;
        return host_go(host, STEP_REPROBE);
    }
    return STEP_AGAIN;
}

enum step_result step_reprobe(struct host *host) {
    if (host->released) {
        return host_go(host, STEP_HOLD); /* the program leaves, without waiting for the probes */
    }
    if (!host_health_look(host, LOOK_AGAIN)) {
        return STEP_AGAIN;
    }
    bool ok = host->health_ok;
    if (!ok) {
        error_set(&host->back_why, FLEET_ERR_HEALTH, "bake", "%.900s, as its wave was probed again",
                  host->health_error.message);
    }
    host->reprobe_running = false;
    host_health_stop(host);
    host->sink.reprobed(host->plan.index, ok, host->sink.arg);
    return host_go(host, STEP_HOLD);
}

/* True when the link is up; a lost one is opened once more. */
static bool unlock_has_link(struct host *host) {
    bool again = host->link.state == LINK_WAITING;
    if (again || (host->link.state == LINK_DOWN && !host->unlock_tried)) {
        host->unlock_tried = true;
        host->unlocking = false;
        host->op_started = false;
        link_open(&host->link);
    }
    return host->link.state == LINK_UP;
}

/* Lets go of the lock; one that can't be reached any more lapses by itself. */
enum step_result step_unlock(struct host *host) {
    /* An armed guard keeps other runs away by itself, and does so until it has decided. */
    bool keep_root = host->plan.run->action == ACTION_PUSH || host->guard_deadline_ms != 0;
    if (!host->locked) {
        return host_go(host, STEP_CLOSE);
    }
    if (!unlock_has_link(host)) {
        bool coming = host->link.state == LINK_OPENING || host->link.state == LINK_WAITING;
        return coming ? STEP_AGAIN : host_go(host, STEP_CLOSE);
    }
    if (host_op_begin(host)) {
        if (host->asks.first != NULL || shell_has_ended(host->link.shell)) {
            host_reopen_shell(host); /* a probe's question that hangs is in the way */
        }
        if (!keep_root) {
            target_unstage(host->link.shell, host->plan.run->run, host_on_reply, host);
            host->unlocking = true; /* the lock's release is still to come */
        } else {
            target_lock_release(host->link.shell, host->lock_id, host_on_reply, host);
        }
        return STEP_AGAIN;
    }
    if (!host->op_done) {
        return STEP_AGAIN;
    }
    if (host->unlocking) {
        host->unlocking = false;
        host->op_done = false;
        target_lock_release(host->link.shell, host->lock_id, host_on_reply, host);
        return STEP_AGAIN;
    }
    return host_go(host, STEP_CLOSE);
}

static void on_timer_closed(uv_handle_t *handle) {
    struct host *host = handle->data;
    host->open_handles--;
    host_drive(host);
}

enum step_result step_close(struct host *host) {
    if (host_op_begin(host)) {
        host_health_stop(host);
        link_close(&host->fresh);
        link_close(&host->link);
        host->op_started = true;
        uv_close((uv_handle_t *)&host->pause, on_timer_closed);
        uv_close((uv_handle_t *)&host->lease, on_timer_closed);
        return STEP_AGAIN;
    }
    return host->open_handles > 1 ? STEP_AGAIN : host_go(host, STEP_CLOSED);
}

static void on_last_closed(uv_handle_t *handle) {
    struct host *host = handle->data;
    host->open_handles--;
    host->sink.closed(host->plan.index, host->sink.arg);
}

enum step_result step_closed(struct host *host) {
    if (uv_is_closing((const uv_handle_t *)&host->timer)) {
        return STEP_AGAIN;
    }
    uv_close((uv_handle_t *)&host->timer, on_last_closed);
    return STEP_AGAIN;
}
