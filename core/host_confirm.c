/* The proof of a new system: confirmation over a fresh connection, probes while the guard is renewed,
 * commit, and the truth read from the host.
 */
#include "core/host_internal.h"

#define CONFIRM_RETRY_MS 1000u

/* ---- confirmation ---- */

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

/* The answer of a renewal that went over the new connection. */
static enum step_result confirm_answered(struct host *host) {
    host->op_started = false;
    if (host->op_err == 0) {
        host_take_guard(host);
        if (host_guard_gave_up(host)) {
            return host_guard_goes_back(host);
        }
        if (host->lock_lost) {
            return host_lock_was_lost(host);
        }
        if (host->guard.phase == GUARD_ACTIVE) {
            host->confirmed = true;
            link_take_fresh(host);
            host_guard_renewed(host);
            return host->guard.fault[0] != '\0' ? host_activation_failed(host)
                                                : host_go(host, after_confirm(host));
        }
        if (host_guard_is_gone(host)) {
            return host_guard_has_gone(host);
        }
    }
    link_close(&host->fresh);
    host_pause(host, CONFIRM_RETRY_MS);
    return STEP_AGAIN;
}

/* No new connection came up: another try, as long as the guard waits. */
static enum step_result confirm_unreached(struct host *host) {
    host->fresh.failed = false;
    if (host_now(host) >= host->guard_deadline_ms && host_guard_found_too_late(host)) {
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
    if (host->op_started) {
        return host->op_done ? confirm_answered(host) : STEP_AGAIN;
    }
    if (host->fresh.failed) {
        return confirm_unreached(host);
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
    if (!host_guard_poll(host, &host->link)) {
        return STEP_AGAIN;
    }
    if (host->op_err != 0) {
        return host_try_again(host) ? STEP_AGAIN : host_fail(host, &host->op_error);
    }
    if (host->guard.phase == GUARD_COMMITTED) {
        return host_go(host, STEP_VERIFY);
    }
    if (host->lock_lost) {
        return host_lock_was_lost(host);
    }
    bool over = host_guard_gave_up(host) || host_guard_has_left(host);
    if (over && host_says(host->reply, "request", "left")) {
        /* What went wrong is in its log, which only a poll's answer has. */
        host->state_line[0] = '\0';
        host_poke(host);
        return STEP_AGAIN;
    }
    if (over) {
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
        bool by_hand = host->plan.inv->local && host_says(reply, "reboot_needed", "yes") &&
                       host->plan.inv->policy.reboot != INV_REBOOT_NEVER;
        host_set_end(host, HOST_HEALTHY, "%s",
                     by_hand ? "a reboot is due, and left to you: fleet runs on this machine"
                             : ""); /* the state says it, the generation stands beside */
    }
    return host_go(host, STEP_END);
}
