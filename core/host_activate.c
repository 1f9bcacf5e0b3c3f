/* The pipeline's second half: activation under the guard, confirmation over a fresh connection,
 * probing while renewing, commit, and the truth read from the host.
 *
 * The guard on the target is the authority: only its `state` line is believed (core/target.h).
 */
#include "core/host_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"

#define POLL_WAIT_MS     5000u
#define POLL_WAIT_MIN_MS 500u
#define CONFIRM_RETRY_MS 1000u
/* A deadline that moves by less is the same one, measured again. */
#define TELL_RENEWED_MS 1000u

static struct target_activation activation(const struct host *host) {
    const struct host_run *run = host->plan.run;
    const struct inv_host_policy *policy = &host->plan.inv->policy;
    const char *action = "switch";
    if (run->action == ACTION_TEST) {
        action = "test";
    } else if (!policy->rollback && !host->going_back) {
        action = "committed";
    }
    return (struct target_activation){
        .nonce = host->nonce,
        .run = run->run,
        .lock_id = host->lock_id,
        .path = host->desired,
        .action = action,
        .activate_timeout_ms = policy->activate_timeout_ms,
        .confirm_timeout_ms = policy->confirm_timeout_ms,
        .rev = run->rev,
        .who = run->who,
        .dirty = run->dirty,
        .to_generation = host->to_generation > 0 ? host->to_generation : 0,
    };
}

/* ---- commit at once: --action boot, rollback: false ---- */

/* The host's lock is not ours any more. */
static enum step_result lock_is_gone(struct host *host) {
    return host_failf(host, FLEET_ERR_LOCKED, "lock-lost",
                      "the lock is gone: the host was restarted, or another run took it over while "
                      "this one was away; nothing was activated");
}

static enum step_result host_is_busy(struct host *host) {
    return host_failf(host, FLEET_ERR_LOCKED, "locked",
                      "another activation runs there (a guard, nixos-rebuild, or "
                      "switch-to-configuration itself); nothing was activated. Try again when "
                      "it has ended");
}

static enum step_result not_committed_now(struct host *host, int64_t rc) {
    if (host_says(host->reply, "guard", "lock-lost")) {
        return lock_is_gone(host);
    }
    if (host_says(host->reply, "guard", "busy")) {
        return host_is_busy(host);
    }
    const char *line;
    const char *last = "";
    for (size_t i = 0; (line = target_reply_nth(host->reply, "log", i)) != NULL; i++) {
        host_log(host, "commit", line, strlen(line));
        last = line[0] != '\0' ? line : last;
    }
    return host_failf(host, FLEET_ERR_REMOTE, "commit-failed",
                      "writing the profile or the boot default ended with %lld; the old ones were "
                      "put back%s%.500s",
                      (long long)rc, last[0] != '\0' ? ": " : "", last);
}

enum step_result step_commit_now(struct host *host) {
    if (host_op_begin(host)) {
        struct target_env env = host_target_env(host);
        struct target_activation what = activation(host);
        target_commit_now(host->link.shell, &env, &what, host_on_reply, host);
        host->in_doubt = true;
        return STEP_AGAIN;
    }
    if (!host->op_done) {
        return STEP_AGAIN;
    }
    host->in_doubt = false;
    if (host->op_err != 0) {
        return host_fail(host, &host->op_error);
    }
    int64_t rc = target_reply_number(host->reply, "rc", -1);
    if (rc != 0) {
        return not_committed_now(host, rc);
    }
    host->generation = target_reply_number(host->reply, "generation", host->generation);
    if (host->plan.run->action == ACTION_BOOT) {
        host_set_end(host, HOST_REBOOT_REQUIRED,
                     "generation %lld is the boot default: reboot to run it",
                     (long long)host->generation);
        return host_go(host, STEP_END);
    }
    return host_go(host, STEP_GUARD_START);
}

/* ---- activation ---- */

/* What the guard's start answered, when it didn't start. */
static enum step_result not_started(struct host *host) {
    const struct target_reply *reply = host->reply;
    if (host_says(reply, "guard", "lock-lost")) {
        return lock_is_gone(host);
    }
    if (host_says(reply, "guard", "busy")) {
        return host_is_busy(host);
    }
    if (host_says(reply, "guard", "unfinished")) {
        return host_unfinished(host);
    }
    if (host_says(reply, "guard", "stopping")) {
        return host_failf(host, FLEET_ERR_REMOTE, "shutting-down",
                          "the host is shutting down; nothing was activated");
    }
    if (host_says(reply, "guard", "no-switch")) {
        const char *detail = target_reply_get(reply, "detail");
        return host_failf(host, FLEET_ERR_REMOTE, "no-switch-script",
                          "%.600s: is that a NixOS system? Nothing was activated",
                          detail != NULL ? detail : "there is no bin/switch-to-configuration");
    }
    return host_failf(host, FLEET_ERR_PROTOCOL, "guard-failed",
                      "the guard could not be started: %.300s", host->op_error.message);
}

/* Sends the start. What its answer would say is filled in as far as it is known, in case that the
 * answer is lost. */
static void send_start(struct host *host) {
    const struct inv_host_policy *policy = &host->plan.inv->policy;
    struct target_env env = host_target_env(host);
    struct target_activation what = activation(host);
    if (host->going_back) {
        what.path = host->old;
        what.to_generation = host->old_generation;
    } else {
        bool runs_it = host_same(host->current, host->desired);
        host_set_string(&host->old, runs_it ? host->profile : host->current);
        host->old_generation = host->generation;
    }
    host->state_line[0] = '\0';
    host->log_offset = 0;
    host->repair_tries = 0;
    host->guard = (struct guard_state){.phase = GUARD_NONE, .rc = -1};
    host->told_phase = GUARD_NONE;
    host->told_deadline_ms = 0;
    host->guard_deadline_ms =
        host_now(host) + policy->activate_timeout_ms + policy->confirm_timeout_ms;
    host->guard_sent = true;
    target_guard_start(host->link.shell, &env, &what, host_on_reply, host);
}

/* Nothing runs there that was started here. */
static enum step_result start_refused(struct host *host) {
    host->guard_sent = false;
    host->guard_look = false;
    host->guard_deadline_ms = 0;
    return STEP_FAILED;
}

/* A start whose answer was lost, or that failed half-way, may have gone through: its guard is found
 * by the nonce. A record is ours too, as there was none and the lock is held: then the host was
 * restarted meanwhile. */
static enum step_result look_for_guard(struct host *host) {
    if (host_op_begin(host)) {
        target_guard_poll(host->link.shell, host->nonce, "", 0, 0, host_on_reply, host);
        return STEP_AGAIN;
    }
    if (!host->op_done) {
        return STEP_AGAIN;
    }
    if (host->op_err != 0) {
        return host_try_again(host) ? STEP_AGAIN : host_fail(host, &host->op_error);
    }
    const char *state = target_reply_get(host->reply, "state");
    bool found = (state != NULL && state[0] != '\0') || host_says(host->reply, "record", "yes") ||
                 host_says(host->reply, "alive", "yes");
    host->guard_look = false;
    if (found) {
        host->guard_sent = false;
        return host_go(host, STEP_ACTIVATE);
    }
    if (host->start_failed) {
        return start_refused(host);
    }
    host->guard_sent = false;
    host->op_started = false;
    host_poke(host);
    return STEP_AGAIN;
}

/* Takes in the answer of a start that was not "started". */
static enum step_result start_failed(struct host *host) {
    const char *word = target_reply_get(host->reply, "guard");
    bool raced = host_same(word, "busy") && host->restarts > 0;
    not_started(host);
    if (word != NULL && !raced) {
        return start_refused(host);
    }
    host->start_failed = true;
    host->guard_look = true;
    host->op_started = false;
    host_poke(host);
    return STEP_AGAIN;
}

enum step_result step_guard_start(struct host *host) {
    if (host->pausing) {
        return STEP_AGAIN;
    }
    if (!host->op_started && host->guard_sent) {
        host->guard_look = true;
    }
    if (host->guard_look) {
        return look_for_guard(host);
    }
    if (host_op_begin(host)) {
        host->start_failed = false;
        send_start(host);
        return STEP_AGAIN;
    }
    if (!host->op_done) {
        return STEP_AGAIN;
    }
    if (!host_says(host->reply, "guard", "started")) {
        return start_failed(host);
    }
    host->guard_sent = false;
    if (!host->going_back) {
        host_set_string(&host->old, target_reply_get(host->reply, "old"));
        host->old_generation = target_reply_number(host->reply, "generation", 0);
    }
    host->weak_guard = host_says(host->reply, "weak", "yes");
    if (host->weak_guard) {
        static const char note[] =
            "no systemd here: the guard is weaker, it does not survive kill -9";
        host_log(host, "fleet", note, sizeof(note) - 1);
    }
    return host_go(host, STEP_ACTIVATE);
}

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

void host_take_guard(struct host *host) {
    const struct target_reply *reply = host->reply;
    const char *line = target_reply_get(reply, "state");
    if (line != NULL) {
        snprintf(host->state_line, sizeof(host->state_line), "%s", line);
        guard_state_parse(line, &host->guard);
    }
    if (host_says(reply, "request", "lock-lost")) {
        host->lock_lost = true;
    }
    const char *text;
    for (size_t i = 0; (text = target_reply_nth(reply, "log", i)) != NULL; i++) {
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

/* One long poll after the other until the state changes; true when an answer was taken in. */
static bool poll_guard(struct host *host, struct link *link) {
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

static enum step_result commit_failed(struct host *host) {
    return host_failf(host, FLEET_ERR_REMOTE, "commit-failed",
                      "the profile or the boot default could not be written (is /boot full?); the "
                      "old ones are put back");
}

enum step_result host_activation_failed(struct host *host) {
    const struct guard_state *guard = &host->guard;
    if (strcmp(guard->why, "activate-timeout") == 0) {
        return host_failf(host, FLEET_ERR_TIMEOUT, "activate-timeout",
                          "the activation did not end within its time (activate_timeout) and was "
                          "ended");
    }
    if (strcmp(guard->why, "killed") == 0) {
        return host_failf(host, FLEET_ERR_REMOTE, "guard-killed",
                          "the guard was killed on the host");
    }
    if (strcmp(guard->why, "deadline") == 0) {
        return host_failf(host, FLEET_ERR_TIMEOUT, "confirm-timeout",
                          "no new connection could confirm the host within confirm_timeout");
    }
    if (strcmp(guard->why, "commit-failed") == 0) {
        return commit_failed(host);
    }
    if (strcmp(guard->why, "power-cut") == 0 || strcmp(guard->why, "reboot") == 0) {
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

/* Nothing was activated and nothing needs undoing. */
enum step_result host_activation_inert(struct host *host) {
    host->guard_deadline_ms = 0;
    if (host->going_back) {
        host_failf(host, FLEET_ERR_REMOTE, "activation-failed",
                   "the old system could not be activated (switch-to-configuration ended with %d)",
                   host->guard.rc);
        host->verdict = host->error;
        return host_go(host, STEP_FAIL);
    }
    if (host->guard.rc == 100) {
        host_set_end(
            host, HOST_REBOOT_REQUIRED,
            "nothing could be activated without a reboot (switch-to-configuration ended with "
            "100): use --action boot, then reboot");
        return host_go(host, STEP_END);
    }
    if (strcmp(host->guard.why, "killed") == 0 || strcmp(host->guard.why, "record") == 0) {
        host_failf(host, FLEET_ERR_REMOTE, "guard-killed",
                   "the guard ended on the host before it had done anything (%s); nothing was "
                   "activated",
                   strcmp(host->guard.why, "killed") == 0 ? "it was killed"
                                                          : "its record can't be written");
        host->verdict = host->error;
        return host_go(host, STEP_FAIL);
    }
    bool foreign = strcmp(host->guard.why, "exec") == 0;
    host_failf(
        host, FLEET_ERR_REMOTE, "activation-failed",
        "switch-to-configuration could not run (%d)%s; nothing was activated", host->guard.rc,
        foreign ? ": exec format error, is the system built for another kind of machine?" : "");
    host->verdict = host->error;
    return host_go(host, STEP_FAIL);
}

/* True when the guard has gone without a last word. Its state was read a moment before its unit
 * was asked for, so only the second look in a row counts. */
static bool guard_is_gone(struct host *host) {
    if (!host_says(host->reply, "alive", "no")) {
        host->gone_looks = 0;
        return false;
    }
    return ++host->gone_looks > 1;
}

static enum step_result guard_has_gone(struct host *host) {
    return host_failf(host, FLEET_ERR_REMOTE, "guard-gone",
                      "the guard is gone: the host was restarted (power cut?), or somebody ended "
                      "fleet-guard.service");
}

/* The guard that a resumed run has found goes back, as nobody was there for most of its time: that
 * judges nothing. What becomes of the host is looked at again. */
static bool was_found_too_late(const struct host *host) {
    const struct host_resume *resume = &host->plan.resume;
    bool found = resume->ask && !host->adopted && !resume->back && !resume->taken_back;
    return found && !host->confirmed;
}

static enum step_result guard_goes_back(struct host *host) {
    if (strcmp(host->guard.why, "deadline") == 0 && was_found_too_late(host)) {
        link_close(&host->fresh);
        return host_go(host, STEP_ADOPT);
    }
    return host_activation_failed(host);
}

enum step_result step_activate(struct host *host) {
    if ((host->pausing && !host->op_started) || !poll_guard(host, &host->link)) {
        return STEP_AGAIN;
    }
    if (host->op_err != 0) {
        return host_try_again(host) ? STEP_AGAIN : host_fail(host, &host->op_error);
    }
    switch (host->guard.phase) {
    case GUARD_ACTIVE:
        if (host->guard.rc == 4) {
            static const char note[] =
                "switch-to-configuration ended with 4, but no unit failed that had not before";
            host_log(host, "fleet", note, sizeof(note) - 1);
        }
        return host_go(host, STEP_CONFIRM);
    case GUARD_REVERTING:
    case GUARD_REVERTED:
    case GUARD_REVERT_FAILED:
        return guard_goes_back(host);
    case GUARD_INERT:
        return host_activation_inert(host);
    case GUARD_COMMITTED:
        host->unguarded = true;
        host->guard_deadline_ms = 0;
        return host->guard.why[0] != '\0' ? host_activation_failed(host)
                                          : host_go(host, STEP_CONFIRM);
    case GUARD_NONE:
    case GUARD_ACTIVATING:
    case GUARD_COMMITTING:
        break;
    }
    if (guard_is_gone(host)) {
        return guard_has_gone(host);
    }
    host_poke(host);
    return STEP_AGAIN;
}

/* ---- confirmation ---- */

static bool guard_gave_up(const struct host *host) {
    return host->guard.phase == GUARD_REVERTING || host->guard.phase == GUARD_REVERTED ||
           host->guard.phase == GUARD_REVERT_FAILED;
}

static void schedule_renewal(struct host *host) {
    uint64_t confirm = host->plan.inv->policy.confirm_timeout_ms;
    host->renew_at_ms = host_now(host) + confirm / 3;
    uint64_t deadline = host_now(host) + confirm;
    if (deadline > host->guard_deadline_ms) {
        host->guard_deadline_ms = deadline;
    }
}

/* Nothing is committed under somebody else's lock; an abort may always be sent. */
static enum step_result lock_was_lost(struct host *host) {
    return host_failf(host, FLEET_ERR_LOCKED, "lock-lost",
                      "another run took the lock over while this one was away; the new system was "
                      "not committed");
}

/* Opens the confirmation's connection. One whose bytes stop must leave time in the window for
 * another: it gets half of it, and what the addresses before the last one may take. */
static void open_fresh(struct host *host) {
    const struct inv_host *inv = host->plan.inv;
    size_t others = inv->address_count > 1 ? inv->address_count - 1 : 0;
    link_open(&host->fresh);
    if (host->fresh.state == LINK_OPENING) {
        host_await(host, inv->policy.confirm_timeout_ms / 2 + others * inv->connect_timeout_ms);
    }
}

static void give_up_fresh(struct host *host) {
    link_close(&host->fresh);
    host->fresh.failed = true;
    error_set(&host->fresh.error, FLEET_ERR_TIMEOUT, "connect-timeout",
              "a connection was opened and did not come up in time for another try");
}

static bool fresh_is_stuck(const struct host *host) {
    return host->fresh.state == LINK_OPENING && host_now(host) >= host->answer_until_ms;
}

static enum step after_confirm(const struct host *host) {
    return host_has_secrets(host, SECRETS_AFTER) ? STEP_SECRETS_AFTER : STEP_PROBE;
}

/* New TCP, new key exchange, new authentication: an old connection proves nothing. */
enum step_result step_confirm(struct host *host) {
    if (host_overdue(host)) {
        link_close(&host->fresh);
        host->op_started = false;
    } else if (fresh_is_stuck(host)) {
        give_up_fresh(host);
    } else if (host->pausing && host->fresh.state != LINK_UP && !host->fresh.failed) {
        return STEP_AGAIN;
    }
    if (host->fresh.failed) {
        host->op_started = false; /* its answer went with the connection */
    }
    if (host->op_started && host->op_done) {
        host->op_started = false;
        if (host->op_err == 0) {
            host_take_guard(host);
            if (guard_gave_up(host)) {
                return guard_goes_back(host);
            }
            if (host->lock_lost) {
                return lock_was_lost(host);
            }
            if (host->guard.phase == GUARD_ACTIVE) {
                host->confirmed = true;
                link_take_fresh(host);
                schedule_renewal(host);
                return host_go(host, after_confirm(host));
            }
            if (guard_is_gone(host)) {
                return guard_has_gone(host);
            }
        }
        link_close(&host->fresh);
        host_pause(host, CONFIRM_RETRY_MS);
        return STEP_AGAIN;
    }
    if (host->op_started) {
        return STEP_AGAIN;
    }
    if (host->fresh.failed) {
        host->fresh.failed = false;
        if (host_now(host) >= host->guard_deadline_ms && was_found_too_late(host)) {
            return host_go(host, STEP_ADOPT);
        }
        if (host_now(host) >= host->guard_deadline_ms && !host->unguarded) {
            return host_failf(host, FLEET_ERR_TIMEOUT, "confirm-timeout",
                              "no new connection within confirm_timeout: %.600s",
                              host->fresh.error.message);
        }
        host_pause(host, CONFIRM_RETRY_MS);
        return STEP_AGAIN;
    }
    if (host->fresh.state == LINK_DOWN || host->fresh.state == LINK_WAITING) {
        open_fresh(host);
        return STEP_AGAIN;
    }
    if (host->fresh.state == LINK_UP && host->unguarded) {
        link_take_fresh(host);
        return host_go(host, after_confirm(host));
    }
    if (host->fresh.state == LINK_UP && host_op_begin(host)) {
        host_await(host, host_patience_ms(host));
        struct target_lock lock = host_target_lock(host);
        target_guard_request(host->fresh.shell, TARGET_RENEW, host->nonce, &lock, host_on_reply,
                             host);
    }
    return STEP_AGAIN;
}

/* ---- probing ---- */

enum step_result host_renew_guard(struct host *host) {
    if (host->op_started && host->op_done) {
        host->op_started = false;
        if (host->op_err != 0) {
            return host_try_again(host) ? STEP_AGAIN : host_fail(host, &host->op_error);
        }
        host_take_guard(host);
        if (guard_gave_up(host)) {
            return host_activation_failed(host);
        }
        if (host->lock_lost) {
            return lock_was_lost(host);
        }
        if (host->guard.phase != GUARD_ACTIVE) {
            return guard_has_gone(host);
        }
        host->retries = 0;
        schedule_renewal(host);
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

enum step_result step_probe(struct host *host) {
    bool judged = !host->going_back; /* the way back is immediate: one look, for the report */
    if (host->health == NULL && !host->health_ok && !host->health_bad) {
        host_health_start(host, judged ? LOOK_OVER_TIME : LOOK_ONCE);
    }
    if (host->health_bad && judged) {
        return host_fail(host, &host->health_error);
    }
    if (!host->unguarded && host_renew_guard(host) == STEP_FAILED) {
        return STEP_FAILED;
    }
    if (host->unguarded && host->health_ok) {
        return host_go(host, host->booted_anew ? STEP_VERIFY_BOOT : STEP_VERIFY);
    }
    bool over = host->health_ok || host->health_bad;
    if (!over || (host->op_started && !host->op_done)) {
        return STEP_AGAIN; /* a renewal under way is waited for: its answer may be that it is over */
    }
    return host_go(host, host->plan.run->action == ACTION_TEST ? STEP_LEAVE : STEP_AWAIT_COMMIT);
}

/* ---- commit ---- */

enum step_result step_await_commit(struct host *host) {
    /* A host on its way back was granted the whole of it. */
    bool granted = host->going_back || host_granted(host, ACT_COMMIT);
    if (host->health_bad && !host->going_back) {
        return host_fail(host, &host->health_error);
    }
    if (granted && !host->op_started) {
        return host_go(host, STEP_COMMIT);
    }
    return host_renew_guard(host);
}

enum step_result step_commit(struct host *host) {
    if (host->pausing && !host->op_started) {
        return STEP_AGAIN;
    }
    if (host->guard.phase == GUARD_ACTIVE && host_op_begin(host)) {
        host_await(host, host_patience_ms(host));
        struct target_lock lock = host_target_lock(host);
        host->commit_sent = true;
        target_guard_request(host->link.shell, TARGET_COMMIT, host->nonce, &lock, host_on_reply,
                             host);
        host->state_line[0] = '\0';
        return STEP_AGAIN;
    }
    if (!poll_guard(host, &host->link)) {
        return STEP_AGAIN;
    }
    if (host->op_err != 0) {
        return host_try_again(host) ? STEP_AGAIN : host_fail(host, &host->op_error);
    }
    if (host->guard.phase == GUARD_COMMITTED) {
        return host_go(host, STEP_VERIFY);
    }
    if (host->lock_lost) {
        return lock_was_lost(host);
    }
    if (guard_gave_up(host)) {
        return host_activation_failed(host);
    }
    if (host_says(host->reply, "alive", "no")) {
        return host_go(host, STEP_VERIFY); /* the host itself says below what became of it */
    }
    if (host->guard.phase == GUARD_ACTIVE) {
        host->guard.phase = GUARD_COMMITTING; /* asked already; the guard has not seen it yet */
    }
    host_poke(host);
    return STEP_AGAIN;
}

/* The host's own word, after the window has closed. */
enum step_result step_verify(struct host *host) {
    enum step_result settled = host_settled(host);
    if (settled != STEP_DONE) {
        return settled;
    }
    const struct target_reply *reply = host->reply;
    const char *want = host->going_back ? host->old : host->desired;
    const char *current = target_reply_get(reply, "current");
    const char *profile = target_reply_get(reply, "profile");
    host->guard_deadline_ms = 0;
    if (!host_same(current, want) || !host_same(profile, want)) {
        /* How it came to that, and what it is by now, is the way back's to find out. */
        error_set(&host->verdict, FLEET_ERR_REMOTE, "not-committed",
                  "after the commit the host runs %s and its profile is %s, where both should be "
                  "%s: it was restarted, or the guard went back",
                  current != NULL ? current : "?", profile != NULL ? profile : "?", want);
        return host_go(host, STEP_AWAIT_ROLLBACK);
    }
    host_set_string(&host->current, want);
    host_set_string(&host->profile, want);
    host->generation = target_reply_number(reply, "generation", host->generation);
    if (host_reboot_is_due(host, reply)) {
        return host_go(host, STEP_AWAIT_REBOOT);
    }
    if (host->going_back) {
        host_set_end(host, HOST_ROLLED_BACK, "%s", host->back_why.message);
        host_tell_old_probes(host);
    } else {
        host_set_end(host, HOST_HEALTHY, "%s",
                     ""); /* the state says it, the generation stands beside */
    }
    return host_go(host, STEP_END);
}
