/* The driver of one host's pipeline, and what the coordinator asks of it. The steps, their diagram
 * and their table are in core/host_steps.c, what they do in the core/host_*.c that are named there.
 *
 * A step is called again until it stops answering AGAIN. A lost connection is no failure of a step:
 * the driver opens another one and runs the step again from its start, so every step is written to
 * find out what is true before it acts. Only when the host can't be reached any more does the step
 * fail.
 *
 * Invariants: only what the table allows follows a step; the driver is not re-entrant and takes a
 * few steps a turn; a host is closed once, when its last handle has closed.
 */
#include "core/host_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"

#define HOST_RESTARTS    5  /* of one step before the activation, after lost connections */
#define HOST_STEP_BUDGET 32 /* steps in one turn, so that one host can't starve the others */

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
        const char *note = next == STEP_GUARD_START ? host_guard_note(host) : "";
        host_publish(host, state, verdict ? why->reason : "", verdict ? why->message : note);
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
    uv_timer_start(&host->timer, on_timer, host_steps[STEP_CONNECT].timeout_ms(host), 0);
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
