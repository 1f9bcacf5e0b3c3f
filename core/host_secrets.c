/* Secrets in a rollout: where each belongs, and how it gets there.
 *
 *   before the activation   all of the host's secrets are at hand before anything is touched; those
 *                           of `when: before` are uploaded (`boot` ends with these)
 *   after the activation    those of `when: after`, and the units of all that were written are
 *                           restarted, so that the probes judge them; the guard is renewed meanwhile
 *   after a reboot          all of them, as /run came up empty
 *   alone                   a host that runs its system already gets what has changed
 *
 * A step begins by looking at what is there, so it may be cut off anywhere and begun anew. Only what
 * is missing or differs is written, each under a grant of its own that names its path. Contents are
 * compared by SHA-256 and held by core/secret_store; nothing of them is logged. A secret that was
 * written stays, whatever becomes of the system (docs/decisions.md). Nothing is uploaded on a way
 * back, and by `fleet rollback` only after a reboot: it must not fail for want of a secret.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "core/host_internal.h"

#define RESTART_MS 90000u

void host_secrets_free(struct host *host) {
    free(host->secrets.is_due);
    host->secrets = (struct host_secrets){0};
}

static bool of_phase(const struct inv_secret *what, enum secrets_phase phase) {
    switch (phase) {
    case SECRETS_BEFORE:
        return !what->after;
    case SECRETS_AFTER:
        return what->after;
    case SECRETS_ALONE:
    case SECRETS_BOOT:
        break;
    }
    return true;
}

/* False: nothing is uploaded in that phase, and no unit restarted. */
static bool has_any(const struct host *host, enum secrets_phase phase) {
    const struct inv_host *inv = host->plan.inv;
    for (size_t i = 0; i < inv->secret_count; i++) {
        bool restarts = phase == SECRETS_AFTER && inv->secrets[i].restart.count > 0;
        if (restarts || of_phase(&inv->secrets[i], phase)) {
            return true;
        }
    }
    return false;
}

bool host_has_secrets(const struct host *host, enum secrets_phase phase) {
    const struct inv_host *inv = host->plan.inv;
    enum run_action action = host->plan.run->action;
    bool activates = (action == ACTION_SWITCH || action == ACTION_TEST) && !host->going_back;
    bool boots = action == ACTION_BOOT && phase == SECRETS_BEFORE;
    if (inv->secret_count == 0 || (phase != SECRETS_BOOT && !activates && !boots)) {
        return false;
    }
    return phase == SECRETS_BEFORE || has_any(host, phase);
}

bool host_is_alone(const struct host *host) {
    return host->secrets.entered && host->secrets.phase == SECRETS_ALONE;
}

bool host_secrets_refuse(struct host *host, const struct error *error) {
    if ((host->step != STEP_SECRETS_AFTER && host->step != STEP_SECRETS_BOOT) || !host->wanted) {
        return false;
    }
    host->secrets.refused = true;
    host->secrets.refusal = *error;
    host_drive(host);
    return true;
}

/* ---- at hand ---- */

int host_secrets_ready(struct host *host) {
    const struct inv_host *inv = host->plan.inv;
    bool all = true;
    for (size_t i = 0; i < inv->secret_count; i++) {
        struct error error = ERROR_INIT;
        if (host->env.secret(inv, &inv->secrets[i], &error, host->env.arg) != NULL) {
            continue;
        }
        all = false;
        if (error.code != 0) {
            host_fail(host, &error);
            return -1;
        }
    }
    return all ? 1 : 0;
}

/* ---- what is under way ---- */

static const struct inv_secret *current(const struct host *host) {
    return &host->plan.inv->secrets[host->secrets.next];
}

static void begin(struct host *host, enum secrets_act act) {
    host_op_begin(host);
    host->secrets.act = act;
    /* A guard waits: a connection that died without a word is found out in time. */
    if (host->secrets.guarded) {
        host_await(host, host_patience_ms(host));
    }
}

static void begin_look(struct host *host) {
    begin(host, SECRETS_LOOK);
    secret_look(host->link.shell, host->plan.inv, host_on_reply, host);
}

/* The host came up without our lock: /run is empty. */
static void begin_lock(struct host *host) {
    begin(host, SECRETS_LOCK);
    struct target_lock lock = host_target_lock(host);
    target_lock_take(host->link.shell, &lock, host_on_reply, host);
}

static enum step_result begin_put(struct host *host) {
    struct error error = ERROR_INIT;
    const struct secret *secret =
        host->env.secret(host->plan.inv, current(host), &error, host->env.arg);
    if (secret == NULL) {
        return error.code != 0 ? host_fail(host, &error) : STEP_AGAIN;
    }
    begin(host, SECRETS_PUT);
    secret_put(host->link.shell, current(host), secret, host->lock_id, host_on_reply, host);
    return STEP_AGAIN;
}

static void begin_restart(struct host *host) {
    begin(host, SECRETS_RESTART);
    uint64_t limit = host->secrets.guarded ? host_patience_ms(host) * 3 / 4 : RESTART_MS;
    secret_restart(host->link.shell, limit, host_on_reply, host);
}

/* ---- its answer ---- */

static enum step_result take_look(struct host *host) {
    struct host_secrets *secrets = &host->secrets;
    const struct inv_host *inv = host->plan.inv;
    if (secrets->is_due == NULL) {
        secrets->is_due = xcalloc(inv->secret_count, sizeof(*secrets->is_due));
    }
    for (size_t i = 0; i < inv->secret_count; i++) {
        struct error error = ERROR_INIT;
        const struct inv_secret *what = &inv->secrets[i];
        const struct secret *secret = host->env.secret(inv, what, &error, host->env.arg);
        secrets->is_due[i] = of_phase(what, secrets->phase) && secret != NULL &&
                             secret_judge(host->reply, what, secret) != SECRET_CURRENT;
    }
    secrets->restart = host_says(host->reply, "restart", "yes");
    secrets->looked = true;
    secrets->next = 0;
    host->wanted = false; /* what was granted before may be there by now */
    return STEP_AGAIN;
}

/* After a reboot the host has had its update, and is not skipped for it. */
static enum step_result lock_is_gone(struct host *host) {
    bool updated = host->secrets.phase == SECRETS_BOOT;
    return host_failf(host, updated ? FLEET_ERR_REMOTE : FLEET_ERR_LOCKED, "lock-lost",
                      "the lock is gone: the host was restarted, or another run took it over; its "
                      "secrets were not all written");
}

static enum step_result take_put(struct host *host) {
    const struct inv_secret *what = current(host);
    if (host_says(host->reply, "secret", "lock-lost")) {
        return lock_is_gone(host);
    }
    AUTO_FREE char *line = xasprintf("the secret \"%s\" was written to %s", what->name, what->path);
    host_log(host, "fleet", line, strlen(line));
    host->secrets.is_due[host->secrets.next++] = false;
    host->secrets.written++;
    host->secrets.restart |= what->restart.count > 0;
    host->wanted = false;
    return STEP_AGAIN;
}

static bool is_excused(const struct host *host, const char *unit) {
    bool tolerant = host->plan.inv->policy.tolerate_preexisting;
    for (size_t i = 0; tolerant && i < host->failed_before_count; i++) {
        if (strcmp(host->failed_before[i], unit) == 0) {
            return true;
        }
    }
    return false;
}

static enum step_result take_restart(struct host *host) {
    const struct target_reply *reply = host->reply;
    const char *unit;
    const char *said = target_reply_get(reply, "out");
    host->secrets.restart = false;
    for (size_t at = 0; (unit = target_reply_next(reply, "restarted", &at)) != NULL;) {
        AUTO_FREE char *line = xasprintf("restarted %s, which reads a secret", unit);
        host_log(host, "fleet", line, strlen(line));
    }
    for (size_t at = 0; (unit = target_reply_next(reply, "restart_failed", &at)) != NULL;) {
        if (!is_excused(host, unit)) {
            return host_failf(host, FLEET_ERR_REMOTE, "restart-failed",
                              "a secret is in its place, and %s failed as it was restarted to read "
                              "it: %.500s",
                              unit, said != NULL ? said : "look at its log");
        }
    }
    return STEP_AGAIN;
}

static enum step_result take_lock(struct host *host) {
    if (!host_says(host->reply, "lock", "ok")) {
        return lock_is_gone(host);
    }
    host->locked = true;
    host->lock_lost = false;
    host->secrets.locked = true;
    return STEP_AGAIN;
}

/* An answer is there: takes it in. */
static enum step_result take_answer(struct host *host) {
    enum secrets_act act = host->secrets.act;
    host->op_started = false;
    host->secrets.act = SECRETS_NOTHING;
    if (host->op_err != 0) {
        if (act == SECRETS_PUT) {
            error_wrap(&host->op_error, "the secret \"%s\"", current(host)->name);
        }
        return host_fail(host, &host->op_error);
    }
    host_poke(host);
    switch (act) {
    case SECRETS_LOOK:
        return take_look(host);
    case SECRETS_LOCK:
        return take_lock(host);
    case SECRETS_PUT:
        return take_put(host);
    case SECRETS_RESTART:
        return take_restart(host);
    case SECRETS_NOTHING:
        break;
    }
    return STEP_AGAIN;
}

/* ---- the steps ---- */

static void enter(struct host *host, enum secrets_phase phase) {
    struct host_secrets *secrets = &host->secrets;
    if (!secrets->entered || secrets->phase != phase) {
        secrets->entered = true;
        secrets->phase = phase;
        secrets->looked = false;
        secrets->locked = phase != SECRETS_BOOT;
        secrets->act = SECRETS_NOTHING;
        secrets->guarded = phase == SECRETS_AFTER && !host->unguarded;
    }
    if (secrets->act != SECRETS_NOTHING && !host->op_started) {
        secrets->act = SECRETS_NOTHING; /* the connection was lost: look again */
        secrets->looked = false;
    }
}

/* True while an answer is waited for; one that doesn't come in time ends the connection. */
static bool is_waiting(struct host *host) {
    if (!host->op_started || host->op_done) {
        return false;
    }
    if (host->secrets.guarded && host_overdue(host)) {
        link_close(&host->link);
        host_poke(host);
    }
    return true;
}

/* The next secret to write is host->secrets.next; false: there is none. */
static bool find_due(struct host *host) {
    struct host_secrets *secrets = &host->secrets;
    while (secrets->next < host->plan.inv->secret_count && !secrets->is_due[secrets->next]) {
        secrets->next++;
    }
    return secrets->next < host->plan.inv->secret_count;
}

static bool may_restart(const struct host *host) {
    return host->secrets.restart && host->secrets.phase != SECRETS_BEFORE;
}

/* Everything of a phase, one thing after the other; then goes to `next`. In flight grants are
 * answered at once, so the step waits for its own. */
static enum step_result upload(struct host *host, enum secrets_phase phase, enum step next) {
    enter(host, phase);
    struct host_secrets *secrets = &host->secrets;
    if (is_waiting(host)) {
        return STEP_AGAIN;
    }
    if (secrets->act != SECRETS_NOTHING) {
        return take_answer(host);
    }
    if (host->lock_lost && secrets->locked) {
        return lock_is_gone(host);
    }
    if (secrets->refused) {
        return host_fail(host, &secrets->refusal);
    }
    if (secrets->guarded && (host_renew_guard(host) == STEP_FAILED || host->op_started)) {
        return host->op_started ? STEP_AGAIN : STEP_FAILED;
    }
    int ready = secrets->looked ? 1 : host_secrets_ready(host);
    if (ready <= 0) {
        return ready < 0 ? STEP_FAILED : STEP_AGAIN;
    }
    if (!secrets->looked && has_any(host, phase)) {
        begin_look(host);
        return STEP_AGAIN;
    }
    if (secrets->looked && find_due(host)) {
        if (!secrets->locked) {
            begin_lock(host);
            return STEP_AGAIN;
        }
        return host_granted_path(host, ACT_SECRET, current(host)->path) ? begin_put(host)
                                                                        : STEP_AGAIN;
    }
    if (may_restart(host)) {
        begin_restart(host);
        return STEP_AGAIN;
    }
    secrets->entered = false;
    return host_go(host, next);
}

enum step_result step_secrets_before(struct host *host) {
    enum run_action action = host->plan.run->action;
    bool now = action == ACTION_BOOT || (!host->plan.inv->policy.rollback && action != ACTION_TEST);
    return upload(host, SECRETS_BEFORE, now ? STEP_COMMIT_NOW : STEP_GUARD_START);
}

enum step_result step_secrets_after(struct host *host) {
    return upload(host, SECRETS_AFTER, STEP_PROBE);
}

enum step_result step_secrets_boot(struct host *host) {
    return upload(host, SECRETS_BOOT, STEP_PROBE_BOOT);
}

/* A host that runs its system already: is there anything to do? */
enum step_result step_secrets(struct host *host) {
    enter(host, SECRETS_ALONE);
    if (is_waiting(host)) {
        return STEP_AGAIN;
    }
    if (host->secrets.act != SECRETS_NOTHING) {
        return take_answer(host);
    }
    if (!host->secrets.looked) {
        int ready = host_secrets_ready(host);
        if (ready > 0) {
            begin_look(host);
        }
        return ready < 0 ? STEP_FAILED : STEP_AGAIN;
    }
    if (!find_due(host) && !host->secrets.restart) {
        host_set_end(host, HOST_UNCHANGED, "runs %s already", host->desired);
        return host_go(host, STEP_END);
    }
    host_publish(host, HOST_STAGED, "", "runs its system already; its secrets have changed");
    return host_go(host, STEP_AWAIT_SECRET);
}

enum step_result step_await_secret(struct host *host) {
    const char *path = find_due(host) ? current(host)->path : "";
    if (!host_granted_path(host, ACT_SECRET, path)) {
        return STEP_AGAIN;
    }
    return host_go(host, host->locked ? STEP_UPLOAD : STEP_LOCK);
}

/* One secret for each grant, as the run may be paused or stopped between two; then the units. */
enum step_result step_upload(struct host *host) {
    struct host_secrets *secrets = &host->secrets;
    if (secrets->act != SECRETS_NOTHING && !host->op_started) {
        secrets->act = SECRETS_NOTHING; /* what was lost on its way is done again */
    }
    if (is_waiting(host)) {
        return STEP_AGAIN;
    }
    if (secrets->act != SECRETS_NOTHING) {
        bool put = secrets->act == SECRETS_PUT;
        enum step_result result = take_answer(host);
        return result == STEP_AGAIN && put && find_due(host) ? host_go(host, STEP_AWAIT_SECRET)
                                                             : result;
    }
    if (find_due(host)) {
        return begin_put(host);
    }
    if (may_restart(host)) {
        begin_restart(host);
        return STEP_AGAIN;
    }
    host_set_end(host, HOST_UNCHANGED, "runs %s already; %u secret%s written", host->desired,
                 secrets->written, secrets->written == 1 ? " was" : "s were");
    return host_go(host, STEP_END);
}
