/* The activation: committed at once where it is not to be guarded, else under a guard that is
 * started here and watched until it has activated, or has not.
 *
 * The guard on the target is the authority: only its `state` line is believed (core/target.h).
 */
#include "core/host_internal.h"

#include <string.h>

#define START_MIN_MS 5000u

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
        .leave_failed = !host->going_back && (run->leave || !policy->rollback),
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
    for (size_t at = 0; (line = target_reply_next(host->reply, "log", &at)) != NULL;) {
        host_log(host, "commit", line, strlen(line));
        last = line[0] != '\0' ? line : last;
    }
    return host_failf(host, FLEET_ERR_REMOTE, "commit-failed",
                      "writing the profile or the boot default ended with %lld; the old ones were "
                      "put back%s%.500s",
                      (long long)rc, last[0] != '\0' ? ": " : "", last);
}

/* After a lost connection the script of before may be at it still, and keep the lock's file: then this one
 * fails, which says nothing of what became of the commit. */
static bool commit_is_in_doubt(const struct host *host) {
    return host->op_err != 0 && host->restarts > 0;
}

enum step_result step_commit_now(struct host *host) {
    if (host->pausing && !host->op_started) {
        return STEP_AGAIN;
    }
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
    host->in_doubt = commit_is_in_doubt(host);
    if (host->in_doubt && host_try_again(host)) {
        return STEP_AGAIN;
    }
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

/* ---- the guard's start ---- */

const char *host_guard_note(const struct host *host) {
    return host->systemd ? "" : "no systemd here: the guard is weaker, it does not survive kill -9";
}

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
    host->confirmed = false;
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

/* How long its answer is waited for: as long as a poll's, and longer than the start takes on a host that is
 * busy. */
static uint64_t start_patience_ms(const struct host *host) {
    uint64_t half = host->plan.inv->policy.confirm_timeout_ms / 2;
    return half > START_MIN_MS ? half : START_MIN_MS;
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
    if (host_overdue(host)) {
        link_close(&host->link); /* its window may be open by now: there is time for another one */
        host->restarts++;
        host_poke(host);
        return STEP_AGAIN;
    }
    if (host_op_begin(host)) {
        host->start_failed = false;
        host_await(host, start_patience_ms(host));
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
    host_take_guard(host);
    host->guard_told = true;
    return host_go(host, STEP_ACTIVATE);
}

/* ---- its activation ---- */

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

/* The guard would have it left, if the host can still be reached anew. */
static enum step_result failed_but_runs(struct host *host) {
    host_activation_failed(host);
    host->verdict = host->error;
    static const char note[] =
        "the activation failed, and the new system runs: it is left as it is "
        "if a new connection comes up";
    host_log(host, "fleet", note, sizeof(note) - 1);
    return host_go(host, STEP_CONFIRM);
}

enum step_result step_activate(struct host *host) {
    bool told = host->guard_told;
    host->guard_told = false;
    if (!told && ((host->pausing && !host->op_started) || !host_guard_poll(host, &host->link))) {
        return STEP_AGAIN;
    }
    if (!told && host->op_err != 0) {
        return host_try_again(host) ? STEP_AGAIN : host_fail(host, &host->op_error);
    }
    switch (host->guard.phase) {
    case GUARD_ACTIVE:
        if (host->guard.fault[0] != '\0') {
            return failed_but_runs(host);
        }
        if (host->guard.rc == 4) {
            static const char note[] =
                "switch-to-configuration ended with 4, but no unit failed that had not before";
            host_log(host, "fleet", note, sizeof(note) - 1);
        }
        return host_go(host, STEP_CONFIRM);
    case GUARD_REVERTING:
    case GUARD_REVERTED:
    case GUARD_REVERT_FAILED:
        return host_guard_goes_back(host);
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
    if (!told && host_guard_is_gone(host)) {
        return host_guard_has_gone(host);
    }
    host_poke(host);
    return STEP_AGAIN;
}
