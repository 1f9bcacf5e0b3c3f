/* The guard as this side sees it: what it says, what its end means, and its renewal.
 *
 * The guard on the target is the authority: only its `state` line is believed (core/target.h).
 */
#include "core/host_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"

#define POLL_WAIT_MS     5000u
#define POLL_WAIT_MIN_MS 500u
/* A deadline that moves by less is the same one, measured again. */
#define TELL_RENEWED_MS 1000u

/* ---- its word ---- */

/* For the displays: a new phase, or a deadline that was put off. `left_ms` negative: none is known. */
static void tell_guard(struct host *host, int64_t left_ms) {
    uint64_t deadline = left_ms >= 0 ? host_now(host) + (uint64_t)left_ms : 0;
    bool renewed = deadline > host->told_deadline_ms + TELL_RENEWED_MS;
    if (host->guard.phase == GUARD_NONE || (host->guard.phase == host->told_phase && !renewed)) {
        return;
    }
    host->told_phase = host->guard.phase;
    host->told_deadline_ms = deadline;
    struct event *event = event_new(EVENT_GUARD);
    event->host = xstrdup(host->plan.inv->name);
    event->ts_ms = clock_wall_ms(host->env.clock);
    event->phase = xstrdup(guard_phase_name(host->guard.phase));
    event->deadline_ms = left_ms > 0 ? left_ms : 0;
    host->sink.event(event, host->sink.arg);
}

/* For the run's log: the way back takes longer than one try, and why. */
static void tell_tries(struct host *host, int tries_before) {
    const struct guard_state *guard = &host->guard;
    if (guard->phase != GUARD_REVERTING || guard->tries <= tries_before) {
        return;
    }
    struct buf line = BUF_INIT;
    guard_state_words(guard, &line);
    host_log(host, "fleet", buf_text(&line), line.len);
    buf_free(&line);
}

void host_take_guard(struct host *host) {
    const struct target_reply *reply = host->reply;
    const char *line = target_reply_get(reply, "state");
    if (line != NULL) {
        int tries = host->guard.phase == GUARD_REVERTING ? host->guard.tries : 1;
        snprintf(host->state_line, sizeof(host->state_line), "%s", line);
        guard_state_parse(line, &host->guard);
        tell_tries(host, tries);
    }
    if (host_says(reply, "request", "lock-lost")) {
        host->lock_lost = true;
    }
    const char *text;
    for (size_t at = 0; (text = target_reply_next(reply, "log", &at)) != NULL;) {
        host_log(host, "activation", text, strlen(text));
    }
    host->log_offset =
        (uint64_t)target_reply_number(reply, "log_offset", (int64_t)host->log_offset);
    int64_t left = target_reply_number(reply, "deadline_ms", -1);
    if (left >= 0) {
        host->guard_deadline_ms = host_now(host) + (uint64_t)left;
    }
    tell_guard(host, left);
}

/* How long the host holds an answer back when there is no news. A connection that carries nothing any
 * more is noticed only behind that, and then the window must have room for two others. */
static uint64_t poll_wait_ms(const struct host *host) {
    uint64_t wait_ms = host->plan.inv->policy.confirm_timeout_ms / 6;
    if (wait_ms < POLL_WAIT_MIN_MS) {
        return POLL_WAIT_MIN_MS;
    }
    return wait_ms < POLL_WAIT_MS ? wait_ms : POLL_WAIT_MS;
}

bool host_guard_poll(struct host *host, struct link *link) {
    if (host_overdue(host)) {
        link_close(link);
        host_poke(host);
        return false;
    }
    if (host_op_begin(host)) {
        uint64_t wait_ms = poll_wait_ms(host);
        host_await(host, wait_ms + host_patience_ms(host));
        target_guard_poll(link->shell, host->nonce, host->state_line, host->log_offset, wait_ms,
                          host_on_reply, host);
        return false;
    }
    if (!host->op_done) {
        return false;
    }
    host->op_started = false;
    if (host->op_err == 0) {
        host_take_guard(host);
    }
    return true;
}

/* ---- its end ---- */

static enum step_result commit_failed(struct host *host) {
    return host_failf(host, FLEET_ERR_REMOTE, "commit-failed",
                      "the profile or the boot default could not be written (is /boot full?); the "
                      "old ones are put back");
}

enum step_result host_activation_failed(struct host *host) {
    const struct guard_state *guard = &host->guard;
    const char *why = guard->fault[0] != '\0' ? guard->fault : guard->why;
    if (strcmp(why, "activate-timeout") == 0) {
        return host_failf(host, FLEET_ERR_TIMEOUT, "activate-timeout",
                          "the activation did not end within its time (activate_timeout) and was "
                          "ended");
    }
    if (strcmp(why, "killed") == 0) {
        return host_failf(host, FLEET_ERR_REMOTE, "guard-killed",
                          "the guard was killed on the host");
    }
    if (strcmp(why, "deadline") == 0) {
        return host_failf(host, FLEET_ERR_TIMEOUT, "confirm-timeout",
                          host->confirmed
                              ? "confirmed, and then not renewed within confirm_timeout: the "
                                "connection carried nothing, or this machine was asleep or stopped"
                              : "no new connection could confirm the host within confirm_timeout");
    }
    if (strcmp(why, "commit-failed") == 0) {
        return commit_failed(host);
    }
    if (strcmp(why, "power-cut") == 0 || strcmp(why, "reboot") == 0) {
        return host_failf(host, FLEET_ERR_REMOTE, "guard-gone",
                          "the host was restarted before the new system was committed");
    }
    if (guard->rc == 4 && guard->failed[0] != '\0') {
        return host_failf(host, FLEET_ERR_REMOTE, "units-failed",
                          "switch-to-configuration ended with 4: units failed: %s", guard->failed);
    }
    if (guard->rc == 0) {
        return host_failf(host, FLEET_ERR_REMOTE, "activation-failed",
                          "switch-to-configuration ended well, but another system than the new one "
                          "runs: its scripts must name the system that they lie in");
    }
    return host_failf(host, FLEET_ERR_REMOTE, "activation-failed",
                      "switch-to-configuration ended with %d%s%s", guard->rc,
                      guard->failed[0] != '\0' ? ": units failed: " : "", guard->failed);
}

bool host_guard_is_gone(struct host *host) {
    if (!host_says(host->reply, "alive", "no")) {
        host->gone_looks = 0;
        return false;
    }
    return ++host->gone_looks > 1;
}

enum step_result host_guard_has_gone(struct host *host) {
    return host_failf(host, FLEET_ERR_REMOTE, "guard-gone",
                      "the guard is gone: the host was restarted (power cut?), or somebody ended "
                      "fleet-guard.service");
}

bool host_guard_gave_up(const struct host *host) {
    return host->guard.phase == GUARD_REVERTING || host->guard.phase == GUARD_REVERTED ||
           host->guard.phase == GUARD_REVERT_FAILED;
}

bool host_guard_found_too_late(const struct host *host) {
    const struct host_resume *resume = &host->plan.resume;
    bool found = resume->ask && !host->adopted && !resume->back && !resume->taken_back;
    return found && !host->confirmed;
}

enum step_result host_guard_goes_back(struct host *host) {
    if (strcmp(host->guard.why, "deadline") == 0 && host_guard_found_too_late(host)) {
        link_close(&host->fresh);
        return host_go(host, STEP_ADOPT);
    }
    return host_activation_failed(host);
}

/* ---- renewal ---- */

void host_guard_renewed(struct host *host) {
    uint64_t confirm = host->plan.inv->policy.confirm_timeout_ms;
    host->renew_at_ms = host_now(host) + confirm / 3;
    uint64_t deadline = host_now(host) + confirm;
    if (deadline > host->guard_deadline_ms) {
        host->guard_deadline_ms = deadline;
    }
}

enum step_result host_lock_was_lost(struct host *host) {
    return host_failf(host, FLEET_ERR_LOCKED, "lock-lost",
                      "another run took the lock over while this one was away; the new system was "
                      "not committed");
}

enum step_result host_renew_guard(struct host *host) {
    if (host->op_started && host->op_done) {
        host->op_started = false;
        if (host->op_err != 0) {
            return host_try_again(host) ? STEP_AGAIN : host_fail(host, &host->op_error);
        }
        host_take_guard(host);
        if (host_guard_gave_up(host)) {
            return host_activation_failed(host);
        }
        if (host->lock_lost) {
            return host_lock_was_lost(host);
        }
        if (host->guard.phase != GUARD_ACTIVE) {
            return host_guard_has_gone(host);
        }
        host->retries = 0;
        host_guard_renewed(host);
    }
    uint64_t now = host_now(host);
    if (host->pausing && host->retries > 0) {
        return STEP_AGAIN;
    }
    if (host_overdue(host)) {
        link_close(&host->link); /* dead, or blocked: there is time for another one */
        host_poke(host);
        return STEP_AGAIN;
    }
    if (!host->op_started && now >= host->renew_at_ms && host_op_begin(host)) {
        struct target_lock lock = host_target_lock(host);
        host_await(host, host_patience_ms(host));
        target_guard_request(host->link.shell, TARGET_RENEW, host->nonce, &lock, host_on_reply,
                             host);
    } else if (!host->op_started && !host->pausing) {
        host_pause(host, host->renew_at_ms - now);
    }
    return STEP_AGAIN;
}
