/* The steps of one host's pipeline: the diagram, their deadlines, and one const table.
 *
 *   connect ─► inspect ─► await_build ─► look ─► await_copy ─► lock ─► copy ─► root
 *                │ │          └─► secrets ─► await_secret ─► lock ─► upload ─► end   │
 *                │ ├─► repair (a commit left half done: finish it, inspect again)
 *                │ ├─► choose (rollback: which generation) ─► await_build
 *                │ ├─► adopt (a resumed run: go on where the host's guard is, or inspect again)
 *                │     ▲ (activate, confirm: its guard went back before this run could confirm it)
 *                └─► end (unchanged)                                          │
 *     ┌───────────────────────────────────────────────────────────────────────┤
 *     ├─► end (push)   ├─► dry_run ─► end                                     │
 *     ▼                                                                       │
 *   await_activate ◄──────────────────────────────────────────────────────────┘
 *     ├─► secrets_before ─► commit_now or guard_start, as without secrets
 *     ├─► commit_now ─► end (boot)          (rollback: false goes on to guard_start)
 *     ▼
 *   guard_start ─► activate ─► confirm ─► probe ─► await_commit ─► commit ─► verify ─► end
 *                     │           │         │ └─► leave ─► end (test)  │        │
 *                     └───────────┴─────────┴──────────┬───────────────┴────────┘
 *                                                      ▼
 *   confirm ─► secrets_after ─► probe     boot ─► secrets_boot ─► probe_boot
 *
 *   verify ─► await_reboot ─► reboot ─► boot ─► probe_boot ─► verify_boot ─► end
 *                   └─► lock ─► reboot                    (`fleet reboot`, from await_copy on)
 *
 *   await_rollback ─► abort ─► revert ─► verify_back ─► probe_back ─► end
 *        └─► leave ─► end (on_failure: leave, once a new connection has confirmed the host, its activation
 *                          failed or not; a guard that goes back already: abort)
 *
 *   anything ─► fail ─► end ─► hold ─► unlock ─► close ─► closed
 *                               │ └─► reprobe ─► hold     (bake)
 *                               ├─► guard_start           (rollback-wave, rollback-all)
 *                               └─► lock ─► guard_start   (the same, where it was rebooted)
 *
 * A step is called again until it stops answering AGAIN. `on_fail` is the policy in one column:
 * before the activation, say so and let go; from the activation on, go back first.
 *
 * Invariants: nothing with an effect on the host happens before its grant; every step has a deadline
 * of its own or stands still for the coordinator, which has one.
 */
#include "core/host_internal.h"

#define BACK_MIN_MS (120u * 1000u) /* BACK_MIN_S of target/guard_back.sh */

/* ---- deadlines ---- */

static uint64_t after_minute(const struct host *host) {
    (void)host;
    return 60u * 1000u;
}

/* How long a guard tries to go back (target/guard_back.sh). */
static uint64_t back_patience_ms(const struct host *host) {
    uint64_t activate_ms = host->plan.inv->policy.activate_timeout_ms;
    return activate_ms > BACK_MIN_MS ? activate_ms : BACK_MIN_MS;
}

/* Long enough for the patience of link_ensure and for that of the guard's way back, so that not a
 * short step but the guard decides how long a host is waited for. */
static uint64_t after_guarded(const struct host *host) {
    const struct inv_host_policy *policy = &host->plan.inv->policy;
    return policy->activate_timeout_ms * 2 + policy->confirm_timeout_ms + back_patience_ms(host) +
           120u * 1000u;
}

static uint64_t after_connect(const struct host *host) {
    if (host->plan.resume.ask) {
        return after_guarded(host); /* patient: its guard may be at work */
    }
    size_t addresses = host->plan.inv->address_count > 0 ? host->plan.inv->address_count : 1;
    /* Jumps and retries included; the transport's own deadline for each address comes first. */
    return (host->plan.inv->connect_timeout_ms + 1000) * addresses * 4 + 60u * 1000u;
}

static uint64_t after_inspect(const struct host *host) {
    return host->plan.run->lock_timeout_ms + after_minute(host);
}

static uint64_t after_lock(const struct host *host) {
    return host->plan.run->lock_timeout_ms + 120u * 1000u;
}

static uint64_t after_activation(const struct host *host) {
    const struct inv_host_policy *policy = &host->plan.inv->policy;
    return policy->activate_timeout_ms + policy->confirm_timeout_ms + 60u * 1000u;
}

static uint64_t after_confirm(const struct host *host) {
    return host->plan.inv->policy.confirm_timeout_ms + 10u * 1000u;
}

static uint64_t after_probing(const struct host *host) {
    const struct inv_host_policy *policy = &host->plan.inv->policy;
    return policy->healthy_deadline_ms + policy->min_healthy_time_ms + policy->startup_grace_ms +
           policy->confirm_timeout_ms + 60u * 1000u;
}

/* step_boot counts the time itself, and tells it better. */
static uint64_t after_boot(const struct host *host) {
    return host->plan.inv->policy.activate_timeout_ms + 120u * 1000u;
}

/* Where a commit that fails is left, it is undone within this step, too. */
static uint64_t after_commit(const struct host *host) {
    uint64_t activate_ms = host->plan.inv->policy.activate_timeout_ms;
    return (host->plan.run->leave ? 2 : 1) * activate_ms + 120u * 1000u;
}

static uint64_t after_copy(const struct host *host) {
    (void)host;
    return 24u * 3600u * 1000u; /* the copy has its own deadline for standing still */
}

/* Commands that make secrets have a minute, units that are restarted a minute and a half. */
static uint64_t after_secrets(const struct host *host) {
    (void)host;
    return 10u * 60u * 1000u;
}

static uint64_t after_unlock(const struct host *host) {
    (void)host;
    return 6u * 1000u; /* less than what a run that leaves has left */
}

/* ---- the table ---- */

#define TO(step) (UINT64_C(1) << (STEP_##step))

const struct step_def host_steps[STEP_COUNT] = {
    [STEP_CONNECT] = {"connect", HOST_CONNECTING, step_connect, after_connect, STEP_FAIL, true,
                      TO(INSPECT) | TO(FAIL)},
    [STEP_INSPECT] = {"inspect", HOST_CONNECTING, step_inspect, after_inspect, STEP_FAIL, true,
                      TO(REPAIR) | TO(ADOPT) | TO(CHOOSE) | TO(AWAIT_BUILD) | TO(LOOK) |
                          TO(AWAIT_COPY) | TO(FAIL)},
    [STEP_REPAIR] = {"repair", HOST_CONNECTING, step_repair, after_commit, STEP_FAIL, true,
                     TO(INSPECT) | TO(FAIL)},
    [STEP_ADOPT] = {"adopt", HOST_STATE_COUNT, step_adopt, after_guarded, STEP_FAIL, true,
                    TO(INSPECT) | TO(GUARD_START) | TO(ACTIVATE) | TO(COMMIT) | TO(VERIFY) |
                        TO(AWAIT_REBOOT) | TO(SECRETS_BOOT) | TO(PROBE_BOOT) | TO(ABORT) |
                        TO(VERIFY_BACK) | TO(END) | TO(FAIL)},
    [STEP_CHOOSE] = {"choose", HOST_STATE_COUNT, step_choose, after_minute, STEP_FAIL, true,
                     TO(AWAIT_BUILD) | TO(FAIL)},
    [STEP_AWAIT_BUILD] = {"await_build", HOST_BUILDING, step_await_build, NULL, STEP_FAIL, false,
                          TO(LOOK) | TO(AWAIT_COPY) | TO(SECRETS) | TO(END) | TO(FAIL)},
    [STEP_SECRETS] = {"secrets", HOST_STATE_COUNT, step_secrets, after_secrets, STEP_FAIL, true,
                      TO(AWAIT_SECRET) | TO(END) | TO(FAIL)},
    [STEP_AWAIT_SECRET] = {"await_secret", HOST_STATE_COUNT, step_await_secret, NULL, STEP_FAIL,
                           false, TO(LOCK) | TO(UPLOAD) | TO(FAIL)},
    [STEP_LOOK] = {"look", HOST_STATE_COUNT, step_look, after_minute, STEP_AWAIT_COPY, true,
                   TO(AWAIT_COPY)},
    [STEP_AWAIT_COPY] = {"await_copy", HOST_STATE_COUNT, step_await_copy, NULL, STEP_FAIL, false,
                         TO(LOCK) | TO(AWAIT_REBOOT) | TO(FAIL)},
    [STEP_LOCK] = {"lock", HOST_STAGING, step_lock, after_lock, STEP_FAIL, true,
                   TO(COPY) | TO(UPLOAD) | TO(REBOOT) | TO(GUARD_START) | TO(FAIL)},
    [STEP_UPLOAD] = {"upload", HOST_STATE_COUNT, step_upload, after_secrets, STEP_FAIL, true,
                     TO(AWAIT_SECRET) | TO(END) | TO(FAIL)},
    [STEP_COPY] = {"copy", HOST_STAGING, step_copy, after_copy, STEP_FAIL, true,
                   TO(ROOT) | TO(FAIL)},
    [STEP_ROOT] = {"root", HOST_STAGING, step_root, after_minute, STEP_FAIL, true,
                   TO(AWAIT_ACTIVATE) | TO(DRY_RUN) | TO(END) | TO(FAIL)},
    [STEP_DRY_RUN] = {"dry_run", HOST_STAGED, step_dry_run, after_activation, STEP_FAIL, true,
                      TO(END) | TO(FAIL)},
    [STEP_AWAIT_ACTIVATE] = {"await_activate", HOST_STAGED, step_await_activate, NULL, STEP_FAIL,
                             false,
                             TO(SECRETS_BEFORE) | TO(GUARD_START) | TO(COMMIT_NOW) | TO(FAIL)},
    [STEP_SECRETS_BEFORE] = {"secrets_before", HOST_STATE_COUNT, step_secrets_before, after_secrets,
                             STEP_FAIL, true, TO(GUARD_START) | TO(COMMIT_NOW) | TO(FAIL)},
    [STEP_AWAIT_REBOOT] = {"await_reboot", HOST_STATE_COUNT, step_await_reboot, NULL, STEP_FAIL,
                           false, TO(LOCK) | TO(REBOOT) | TO(FAIL)},
    [STEP_COMMIT_NOW] = {"commit_now", HOST_COMMITTING, step_commit_now, after_commit, STEP_FAIL,
                         true, TO(GUARD_START) | TO(END) | TO(FAIL)},
    [STEP_GUARD_START] = {"guard_start", HOST_ACTIVATING, step_guard_start, after_guarded,
                          STEP_FAIL, true, TO(ACTIVATE) | TO(FAIL)},
    [STEP_ACTIVATE] = {"activate", HOST_ACTIVATING, step_activate, after_activation,
                       STEP_AWAIT_ROLLBACK, true,
                       TO(CONFIRM) | TO(ADOPT) | TO(END) | TO(FAIL) | TO(AWAIT_ROLLBACK)},
    [STEP_CONFIRM] = {"confirm", HOST_CONFIRMING, step_confirm, after_confirm, STEP_AWAIT_ROLLBACK,
                      false, TO(SECRETS_AFTER) | TO(PROBE) | TO(ADOPT) | TO(AWAIT_ROLLBACK)},
    [STEP_SECRETS_AFTER] = {"secrets_after", HOST_STATE_COUNT, step_secrets_after, after_secrets,
                            STEP_AWAIT_ROLLBACK, true, TO(PROBE) | TO(AWAIT_ROLLBACK)},
    [STEP_PROBE] = {"probe", HOST_PROBING, step_probe, after_probing, STEP_AWAIT_ROLLBACK, true,
                    TO(AWAIT_COMMIT) | TO(VERIFY) | TO(LEAVE) | TO(AWAIT_ROLLBACK)},
    [STEP_AWAIT_COMMIT] = {"await_commit", HOST_STATE_COUNT, step_await_commit, after_probing,
                           STEP_AWAIT_ROLLBACK, true, TO(COMMIT) | TO(AWAIT_ROLLBACK)},
    [STEP_COMMIT] = {"commit", HOST_COMMITTING, step_commit, after_commit, STEP_AWAIT_ROLLBACK,
                     true, TO(VERIFY) | TO(AWAIT_ROLLBACK)},
    [STEP_VERIFY] = {"verify", HOST_COMMITTING, step_verify, after_guarded, STEP_FAIL, true,
                     TO(END) | TO(AWAIT_REBOOT) | TO(FAIL) | TO(AWAIT_ROLLBACK)},
    [STEP_REBOOT] = {"reboot", HOST_REBOOTING, step_reboot, after_minute, STEP_FAIL, false,
                     TO(BOOT) | TO(FAIL)},
    [STEP_BOOT] = {"boot", HOST_REBOOTING, step_boot, after_boot, STEP_FAIL, false,
                   TO(REBOOT) | TO(SECRETS_BOOT) | TO(PROBE_BOOT) | TO(END) | TO(FAIL)},
    [STEP_SECRETS_BOOT] = {"secrets_boot", HOST_STATE_COUNT, step_secrets_boot, after_secrets,
                           STEP_FAIL, true, TO(PROBE_BOOT) | TO(FAIL)},
    [STEP_PROBE_BOOT] = {"probe_boot", HOST_PROBING, step_probe_boot, after_probing, STEP_FAIL,
                         true, TO(VERIFY_BOOT) | TO(FAIL)},
    [STEP_VERIFY_BOOT] = {"verify_boot", HOST_STATE_COUNT, step_verify_boot, after_minute,
                          STEP_FAIL, true, TO(END) | TO(FAIL)},
    [STEP_AWAIT_ROLLBACK] = {"await_rollback", HOST_STATE_COUNT, step_await_rollback, NULL,
                             STEP_FAIL, false, TO(ABORT) | TO(LEAVE) | TO(END) | TO(FAIL)},
    [STEP_ABORT] = {"abort", HOST_ROLLING_BACK, step_abort, after_guarded, STEP_FAIL, true,
                    TO(REVERT) | TO(FAIL)},
    [STEP_REVERT] = {"revert", HOST_ROLLING_BACK, step_revert, after_guarded, STEP_FAIL, true,
                     TO(VERIFY_BACK) | TO(FAIL)},
    [STEP_VERIFY_BACK] = {"verify_back", HOST_ROLLING_BACK, step_verify_back, after_guarded,
                          STEP_FAIL, true, TO(PROBE_BACK) | TO(END) | TO(FAIL)},
    [STEP_PROBE_BACK] = {"probe_back", HOST_ROLLING_BACK, step_probe_back, after_minute, STEP_END,
                         true, TO(END)},
    [STEP_LEAVE] = {"leave", HOST_STATE_COUNT, step_leave, after_guarded, STEP_FAIL, true,
                    TO(END) | TO(AWAIT_ROLLBACK) | TO(ABORT) | TO(FAIL)},
    [STEP_FAIL] = {"fail", HOST_STATE_COUNT, step_fail, after_minute, STEP_END, false, TO(END)},
    [STEP_END] = {"end", HOST_STATE_COUNT, step_end, after_minute, STEP_HOLD, false, TO(HOLD)},
    [STEP_HOLD] = {"hold", HOST_STATE_COUNT, step_hold, NULL, STEP_UNLOCK, false,
                   TO(UNLOCK) | TO(REPROBE) | TO(GUARD_START) | TO(LOCK)},
    [STEP_REPROBE] = {"reprobe", HOST_STATE_COUNT, step_reprobe, after_probing, STEP_HOLD, true,
                      TO(HOLD)},
    [STEP_UNLOCK] = {"unlock", HOST_STATE_COUNT, step_unlock, after_unlock, STEP_CLOSE, false,
                     TO(CLOSE)},
    [STEP_CLOSE] = {"close", HOST_STATE_COUNT, step_close, after_minute, STEP_CLOSED, false,
                    TO(CLOSED)},
    [STEP_CLOSED] = {"closed", HOST_STATE_COUNT, step_closed, NULL, STEP_CLOSED, false, 0},
};
_Static_assert(STEP_COUNT <= 64, "the masks of legal targets are 64 bits wide");
