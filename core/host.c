/* The pipeline of one host: an enum of steps, one const table and one driver.
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
 *        └─► leave ─► end (on_failure: leave; a guard that goes back already: abort)
 *
 *   anything ─► fail ─► end ─► hold ─► unlock ─► close ─► closed
 *                               │ └─► reprobe ─► hold     (bake)
 *                               ├─► guard_start           (rollback-wave, rollback-all)
 *                               └─► lock ─► guard_start   (the same, where it was rebooted)
 *
 * A step is called again until it stops answering AGAIN. `on_fail` is the policy in one column:
 * before the activation, say so and let go; from the activation on, go back first. A lost
 * connection is no failure of a step: the driver opens another one and runs the step again from
 * its start, so every step is written to find out what is true before it acts. Only when the host
 * can't be reached any more does the step fail.
 *
 * Invariants: host_publish is the only way to a public state; nothing with an effect on the host
 * happens before its grant; every step has a deadline of its own or stands still for the
 * coordinator, which has one; a host is closed once, when its last handle has closed.
 */
#include "core/host_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"

#define HOST_RESTARTS    5 /* of one step before the activation, after lost connections */
#define HOST_RETRIES     5 /* of one step, after scripts that failed */
#define RETRY_MS         1000u
#define HOST_STEP_BUDGET 32 /* steps in one turn, so that one host can't starve the others */

/* ---- deadlines of the steps ---- */

static uint64_t after_minute(const struct host *host) {
    (void)host;
    return 60u * 1000u;
}

/* Long enough for the patience of link_ensure, so that not a short step but the guard's deadline
 * decides how long an unreachable host is waited for. */
static uint64_t after_guarded(const struct host *host) {
    const struct inv_host_policy *policy = &host->plan.inv->policy;
    return policy->activate_timeout_ms * 2 + policy->confirm_timeout_ms + 120u * 1000u;
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

static uint64_t after_commit(const struct host *host) {
    return host->plan.inv->policy.activate_timeout_ms + 120u * 1000u;
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

/* ---- small things that the steps use ---- */

uint64_t host_now(const struct host *host) {
    return clock_now_ms(host->env.clock);
}

void host_set_string(char **slot, const char *value) {
    free(*slot);
    *slot = value != NULL ? xstrdup(value) : NULL;
}

enum step_result host_go(struct host *host, enum step next) {
    host->next = next;
    return STEP_DONE;
}

enum step_result host_fail(struct host *host, const struct error *error) {
    host->error = *error;
    return STEP_FAILED;
}

enum step_result host_failf(struct host *host, enum fleet_err code, const char *reason,
                            const char *format, ...) {
    va_list args;
    va_start(args, format);
    error_setv(&host->error, code, reason, format, args);
    va_end(args);
    return STEP_FAILED;
}

bool host_op_begin(struct host *host) {
    if (host->op_started) {
        return false;
    }
    host->op_started = true;
    host->op_done = false;
    return true;
}

void host_on_reply(int err, const struct target_reply *reply, const struct error *error,
                   void *arg) {
    struct host *host = arg;
    host->op_done = true;
    host->op_err = err;
    host->op_error = *error;
    uv_timer_stop(&host->pause); /* it has waited for this, if it has paused at all */
    host->pausing = false;
    host->reply = reply;
    host_drive(host);
    host->reply = NULL;
}

struct target_env host_target_env(const struct host *host) {
    return (struct target_env){.profile = host->plan.inv->profile};
}

struct target_lock host_target_lock(const struct host *host) {
    return (struct target_lock){.id = host->lock_id,
                                .run = host->plan.run->run,
                                .who = host->plan.run->who,
                                .lease_ms = host->plan.run->lease_ms,
                                .first = !host->plan.run->resumed && !host->plan.again};
}

void host_log(struct host *host, const char *stream, const char *line, size_t len) {
    struct event *event = event_new(EVENT_LOG);
    event->host = xstrdup(host->plan.inv->name);
    event->stream = xstrdup(stream);
    event->line = text_cleaned(line, len);
    event->ts_ms = clock_wall_ms(host->env.clock);
    host->sink.event(event, host->sink.arg);
}

bool host_granted_path(struct host *host, enum act act, const char *path) {
    if (host->wanted) {
        return host->granted[act];
    }
    host->wanted = true;
    host->granted[act] = false;
    const char *mark = act != ACT_REBOOT ? host->nonce : host->boot_id != NULL ? host->boot_id : "";
    host->sink.wants(host->plan.index, act, path, mark, host->sink.arg);
    return host->granted[act];
}

bool host_granted(struct host *host, enum act act) {
    return host_granted_path(host, act, host->desired != NULL ? host->desired : "");
}

bool host_same(const char *a, const char *b) {
    return a != NULL && b != NULL && strcmp(a, b) == 0;
}

bool host_says(const struct target_reply *reply, const char *key, const char *value) {
    return host_same(target_reply_get(reply, key), value);
}

void host_set_end(struct host *host, enum host_state end, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(host->end_message, sizeof(host->end_message), format, args);
    va_end(args);
    host->end = end;
}

void host_publish(struct host *host, enum host_state to, const char *reason, const char *message) {
    struct event *event = event_new(EVENT_HOST_STATE);
    uint64_t now = host_now(host);
    event->host = xstrdup(host->plan.inv->name);
    event->ts_ms = clock_wall_ms(host->env.clock);
    event->has_from = host->began;
    event->from = host->state;
    event->to = to;
    event->reason = xstrdup(reason != NULL ? reason : "");
    event->message = xstrdup(message != NULL ? message : "");
    event->duration_ms = host->began ? now - host->moved_ms : 0;
    event->current = host->current != NULL ? xstrdup(host->current) : NULL;
    event->desired = host->desired != NULL ? xstrdup(host->desired) : NULL;
    event->generation = host->generation;
    host->state = to;
    host->moved_ms = now;
    host->began = true;
    host->sink.event(event, host->sink.arg);
}

bool host_try_again(struct host *host) {
    if (host->retries >= HOST_RETRIES) {
        return false;
    }
    host->retries++;
    host->op_started = false;
    host_pause(host, RETRY_MS);
    return true;
}

void host_await(struct host *host, uint64_t ms) {
    host->answer_until_ms = host_now(host) + ms;
    host_pause(host, ms);
}

bool host_overdue(const struct host *host) {
    return host->op_started && !host->op_done && host_now(host) >= host->answer_until_ms;
}

uint64_t host_patience_ms(const struct host *host) {
    return host->plan.inv->policy.confirm_timeout_ms / 3;
}

/* ---- timers ---- */

static void on_timer(uv_timer_t *timer) {
    struct host *host = timer->data;
    host->timed_out = true;
    host_drive(host);
}

static void on_pause(uv_timer_t *timer) {
    struct host *host = timer->data;
    host->pausing = false;
    host_drive(host);
}

void host_pause(struct host *host, uint64_t ms) {
    host->pausing = true;
    uv_timer_start(&host->pause, on_pause, ms, 0);
}

static void on_lease_reply(int err, const struct target_reply *reply, const struct error *error,
                           void *arg) {
    struct host *host = arg;
    (void)error;
    host->renewing = false;
    const char *answer = target_reply_get(reply, "lock");
    if (err == 0 && answer != NULL && strcmp(answer, "ok") != 0) {
        host->lock_lost = true;
        host_drive(host);
    }
}

void host_renew_lock(struct host *host) {
    if (!host->locked || host->renewing || host->link.state != LINK_UP ||
        host->link.shell == NULL) {
        return;
    }
    host->renewing = true;
    struct target_lock lock = host_target_lock(host);
    lock.renew = true;
    target_lock_take(host->link.shell, &lock, on_lease_reply, host);
}

/* Waits for the coordinator, for as long as that takes, and not for anything on the host. */
static bool stands_still(const struct host *host) {
    return host_steps[host->step].timeout_ms == NULL && host->step < STEP_CLOSE;
}

void host_on_link(struct host *host) {
    if (stands_still(host)) {
        host_renew_lock(host);
    }
}

/* A step that talks to the host sees to its connection itself. */
static void on_lease(uv_timer_t *timer) {
    struct host *host = timer->data;
    bool down = host->link.state == LINK_DOWN || host->link.state == LINK_WAITING;
    if (host->locked && down && stands_still(host)) {
        link_open(&host->link);
    } else {
        host_renew_lock(host);
    }
}

/* ---- moving ---- */

/* A going-back host is rolling_back to the outside until it has ended. */
static enum host_state public_state(const struct host *host, enum step step) {
    enum host_state state = host_steps[step].state;
    bool reboots = host->plan.run->action == ACTION_REBOOT;
    if (step == STEP_LOCK && (reboots || host_is_alone(host))) {
        return HOST_STATE_COUNT; /* no system is staged */
    }
    if (state != HOST_STATE_COUNT && host->going_back) {
        return HOST_ROLLING_BACK;
    }
    return state;
}

void host_reopen_shell(struct host *host) {
    shell_close(host->link.shell);
    host_asks_drop(host);
    host->renewing = false;
    host->link.shell = shell_open(host->env.loop, host->link.conn, &host->plan.elevation);
}

/* Leaves whatever the old step had under way. An answer that is still to come would be taken for
 * the next operation's, so the shell goes; the next operation opens another on the same
 * connection. */
static void drop_operation(struct host *host) {
    if (host_steps[host->step].needs_link && host->op_started && !host->op_done &&
        host->link.shell != NULL) {
        host_reopen_shell(host);
    }
    host->op_started = false;
    host->op_done = false;
}

/* The host may have taken the lock already: its answer is waited for, so that it is let go. */
static bool lock_is_asked_for(const struct host *host) {
    return host->step == STEP_LOCK && host->op_started;
}

static void move(struct host *host, enum step next) {
    if ((host_steps[host->step].next & (UINT64_C(1) << next)) == 0 && next != STEP_UNLOCK) {
        fprintf(stderr, "fleet: bug: %s may not follow %s\n", host_steps[next].name,
                host_steps[host->step].name);
        abort();
    }
    drop_operation(host);
    uv_timer_stop(&host->timer);
    uv_timer_stop(&host->pause);
    host->pausing = false;
    host->timed_out = false;
    host->wanted = false;
    host->restarts = 0;
    host->retries = 0;
    host->gone_looks = 0;
    host->step = next;
    const struct step_def *step = &host_steps[next];
    if (step->timeout_ms != NULL) {
        uv_timer_start(&host->timer, on_timer, step->timeout_ms(host), 0);
    }
    enum host_state state = public_state(host, next);
    if (state != HOST_STATE_COUNT && state != host->state) {
        bool verdict = next == STEP_ABORT || state == HOST_ROLLING_BACK;
        const struct error *why = host->going_back ? &host->back_why : &host->verdict;
        host_publish(host, state, verdict ? why->reason : "", verdict ? why->message : "");
    }
}

static void fail(struct host *host) {
    enum step next = host_steps[host->step].on_fail;
    if (host->verdict.code == 0 && next != STEP_AWAIT_COPY) {
        host->verdict = host->error;
    }
    move(host, next);
}

/* A script whose connection broke, or that gave no answer in time, says nothing about the host:
 * the connection goes and the step runs again over another. True if that was the case. */
static bool restart_after_loss(struct host *host) {
    if (!host_steps[host->step].needs_link || !host->op_done) {
        return false;
    }
    if (host->op_err == 0) {
        host->shell_until_ms = 0;
        return false;
    }
    if (host->op_err != FLEET_ERR_LOST && host->op_err != FLEET_ERR_TIMEOUT) {
        return link_shell_again(host);
    }
    if (++host->restarts > HOST_RESTARTS && host->guard_deadline_ms == 0) {
        return false;
    }
    host->op_started = false;
    host->op_done = false;
    host->link.error = host->op_error;
    link_tell_loss(host, &host->op_error);
    link_close(&host->link);
    return true;
}

static enum step_result run_step(struct host *host) {
    const struct step_def *step = &host_steps[host->step];
    if (host->timed_out && step->needs_link && host->link.state != LINK_UP &&
        host->link.error.code != 0 && host->connects > 0) {
        return host_failf(host, FLEET_ERR_LOST, "connection-lost",
                          "the connection was lost and the host could not be reached again: %.700s",
                          host->link.error.message);
    }
    if (host->timed_out) {
        return host_failf(host, FLEET_ERR_TIMEOUT, "timeout",
                          "no end of \"%s\" within its time; see `fleet show %s %s`", step->name,
                          host->plan.run->run, host->plan.inv->name);
    }
    if (host->ended && host->step < STEP_COMMIT_NOW && !lock_is_asked_for(host)) {
        return host_fail(host, &host->ended_error);
    }
    if (restart_after_loss(host)) {
        host->reply = NULL;
    }
    if (step->needs_link) {
        int up = link_ensure(host);
        if (up <= 0) {
            return up < 0 ? STEP_FAILED : STEP_AGAIN;
        }
    }
    return step->run(host);
}

void host_drive(struct host *host) {
    if (host->driving) {
        host->again = true;
        return;
    }
    host->driving = true;
    int budget = HOST_STEP_BUDGET;
    do {
        host->again = false;
        enum step_result result = run_step(host);
        if (result == STEP_DONE) {
            move(host, host->next);
            host->again = true;
        } else if (result == STEP_FAILED) {
            fail(host);
            host->again = true;
        }
        host->reply = NULL; /* an answer is read by the step that asked, once */
    } while (host->again && --budget > 0);
    host->driving = false;
    if (host->again && host->step < STEP_CLOSE) {
        host_pause(host, 1); /* 0 may be in the same turn of the loop (libuv 1.44) */
    }
}

/* ---- the outside ---- */

static void init_timer(struct host *host, uv_timer_t *timer) {
    uv_timer_init(host->env.loop, timer);
    timer->data = host;
    host->open_handles++;
}

struct host *host_new(const struct host_plan *plan, const struct host_env *env,
                      const struct host_sink *sink) {
    struct host *host = xcalloc(1, sizeof(*host));
    struct host init = {.plan = *plan, .env = *env, .sink = *sink};
    memcpy(host, &init, sizeof(init));
    host->step = STEP_CONNECT;
    host->end = HOST_STATE_COUNT;
    host->guard.phase = GUARD_NONE;
    host->to_generation = plan->to_generation;
    env->nonce(host->lock_id, env->arg);
    init_timer(host, &host->timer);
    init_timer(host, &host->pause);
    init_timer(host, &host->lease);
    link_init(&host->link, host);
    link_init(&host->fresh, host);
    host_resume_init(host);
    return host;
}

void host_begin(struct host *host) {
    host->began = host->plan.again; /* the coordinator has said that it is pending again */
    host->moved_ms = host_now(host);
    host_publish(host, HOST_CONNECTING, "", "");
    uv_timer_start(&host->timer, on_timer, after_connect(host), 0);
    uint64_t third = host->plan.run->lease_ms / 3;
    uv_timer_start(&host->lease, on_lease, third, third);
    host_drive(host);
}

void host_poke(struct host *host) {
    host_drive(host);
}

void host_desired(struct host *host, const char *path, const struct host_source *source) {
    host_set_string(&host->desired, path);
    host->source = *source;
    host_drive(host);
}

void host_end(struct host *host, enum host_state state, const struct error *error) {
    if (host->step == STEP_AWAIT_COMMIT) {
        host->health_bad = true; /* no commit: it goes back, as after a failed probe */
        host->health_error = *error;
        host_drive(host);
        return;
    }
    bool resumed = host->plan.resume.ask && !host->adopted;
    if (host_secrets_refuse(host, error) || host->step >= STEP_COMMIT_NOW ||
        (resumed && host->step <= STEP_ADOPT)) {
        return; /* it is under way, or has an end of its own */
    }
    host->ended = true;
    host->ended_error = *error;
    host->end = state;
    if (host->step == STEP_AWAIT_REBOOT && host->plan.run->action != ACTION_REBOOT) {
        host->end = HOST_FAILED;
        error_set(&host->ended_error, error->code, error->reason,
                  "%s; the new system runs and is committed, the host was not rebooted",
                  error->message);
    }
    host_drive(host);
}

void host_grant(struct host *host, enum act act) {
    host->granted[act] = true;
    host_drive(host);
}

void host_leave(struct host *host) {
    host->leave = true;
    host->granted[ACT_ROLLBACK] = true;
    host_drive(host);
}

void host_take_back(struct host *host, const struct error *why) {
    if (host->state != HOST_HEALTHY) {
        return;
    }
    host->going_back = true;
    if (host->back_why.code == 0) { /* else it failed while its wave baked */
        host->back_why = *why;
    }
    host_drive(host);
}

void host_reprobe(struct host *host) {
    host->reprobe_wanted = true;
    host_drive(host);
}

void host_release(struct host *host) {
    host->released = true;
    if (host->step < STEP_END) {
        /* The program leaves: what the guard will do is said by the caller. */
        host_health_stop(host);
        host->locked = host->locked || lock_is_asked_for(host); /* let go by id: harmless if not */
        drop_operation(host);
        move(host, STEP_UNLOCK);
    }
    host_drive(host);
}

enum host_state host_state_now(const struct host *host) {
    return host->state;
}

static void free_strings(char **items, size_t count) {
    for (size_t i = 0; i < count; i++) {
        free(items[i]);
    }
    free(items);
}

void host_free(struct host *host) {
    host_secrets_free(host);
    free_strings(host->failed_before, host->failed_before_count);
    free_strings(host->probes_failed_before, host->probes_failed_before_count);
    free(host->desired);
    free(host->current);
    free(host->booted);
    free(host->profile);
    free(host->profile_before);
    free(host->nix_store);
    free(host->boot_id);
    free(host->old);
    free(host);
}
