/* A host of a resumed run whose change had begun: its guard is found by the run that its record names
 * and by the activation's nonce, and the pipeline goes on where the guard is.
 *
 * Before the guard's word is believed the lock is taken over (it is the same run's), so that nobody
 * else begins meanwhile. What was granted in the journal is not asked for again; a way back that had
 * begun on a verdict stays one.
 */
#include "core/host_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "core/resume.h"

#define LOOK_AGAIN_MS 300u

void host_resume_init(struct host *host) {
    const struct host_resume *resume = &host->plan.resume;
    if (!resume->ask) {
        return;
    }
    const struct inv_host_policy *policy = &host->plan.inv->policy;
    host_set_string(&host->desired, resume->desired);
    snprintf(host->nonce, sizeof(host->nonce), "%s", resume->nonce != NULL ? resume->nonce : "");
    /* Till it has answered its guard may be at work, or its reboot. Of one that was healthy neither
     * is, and the others are not kept waiting for it. */
    if (!resume->was_healthy) {
        host->guard_deadline_ms =
            host_now(host) + policy->activate_timeout_ms + policy->confirm_timeout_ms;
    }
    char *names = xstrdup(resume->probes_before != NULL ? resume->probes_before : "");
    char *save = NULL;
    for (char *name = strtok_r(names, ", ", &save); name != NULL;
         name = strtok_r(NULL, ", ", &save)) {
        host_failed_before(host, name);
    }
    free(names);
}

void host_resume_failed_before(struct host *host) {
    const char *recorded = target_reply_get(host->reply, "guard_before");
    if (recorded == NULL) {
        recorded = host->plan.resume.units_before;
    }
    for (size_t i = 0; i < host->failed_before_count; i++) {
        free(host->failed_before[i]);
    }
    host->failed_before_count = 0;
    char *list = xstrdup(recorded != NULL ? recorded : "");
    char *save = NULL;
    for (char *unit = strtok_r(list, " ", &save); unit != NULL; unit = strtok_r(NULL, " ", &save)) {
        host->failed_before = xrealloc(host->failed_before, (host->failed_before_count + 1) *
                                                                sizeof(*host->failed_before));
        host->failed_before[host->failed_before_count++] = xstrdup(unit);
    }
    free(list);
}

bool host_resume_is_due(struct host *host) {
    const struct host_resume *resume = &host->plan.resume;
    if (!resume->ask || host->adopted) {
        return false;
    }
    bool alive = host_says(host->reply, "guard_alive", "yes");
    if (alive && !host_says(host->reply, "guard_run", host->plan.run->run)) {
        return false;
    }
    if (!alive && host_says(host->reply, "guard_record", "yes")) {
        return false; /* finished first, then looked at */
    }
    host_resume_failed_before(host);
    if (alive && resume->taken_back) {
        struct guard_state state;
        const char *line = target_reply_get(host->reply, "guard");
        guard_state_parse(line != NULL ? line : "", &state);
        memcpy(host->nonce, state.nonce, sizeof(host->nonce) - 1);
    }
    /* Where it ran the new system before it was the profile's, the profile is the way back. */
    if (!host_same(resume->old, host->desired)) {
        host_set_string(&host->old, resume->old);
    }
    host->old_generation = resume->old_generation;
    host->adopt_locked = false;
    return true;
}

/* ---- what follows ---- */

static void set_verdict(struct host *host) {
    const struct host_resume *resume = &host->plan.resume;
    if (resume->back && resume->verdict != NULL) {
        error_set(&host->verdict, FLEET_ERR_REMOTE,
                  resume->reason != NULL ? resume->reason : "resumed", "%.900s", resume->verdict);
        return;
    }
    host_activation_failed(host);
    host->verdict = host->error;
}

static enum step_result begin_anew(struct host *host) {
    static const char note[] =
        "the host runs what it ran before: nothing judged the new system, so it begins anew";
    host_log(host, "fleet", note, sizeof(note) - 1);
    host->adopted = true;
    host->verdict = (struct error)ERROR_INIT;
    host->guard_deadline_ms = 0;
    return host_go(host, STEP_INSPECT);
}

/* Whoever deployed there since the host was healthy knows more than a run that had stopped. */
static enum step_result was_changed_since(struct host *host) {
    host->guard_deadline_ms = 0;
    return host_failf(host, FLEET_ERR_REMOTE, "changed-since",
                      "it was healthy, and somebody has changed its system since: nothing was done "
                      "to it (`fleet status %s` tells what it runs)",
                      host->plan.inv->name);
}

static bool is_as_it_was(const struct host *host) {
    const char *profile = target_reply_get(host->reply, "profile");
    return host_same(host->current, host->desired) &&
           (host->plan.run->action == ACTION_TEST || host_same(profile, host->desired));
}

static enum step_result is_left(struct host *host) {
    host->guard_deadline_ms = 0;
    bool runs = host_same(host->current, host->desired);
    /* Where failures are left, too, only the journal knows one that was proven. */
    bool failures_go_back = !host->plan.run->leave && host->plan.inv->policy.rollback;
    bool proven = failures_go_back || host->plan.resume.was_healthy;
    if (host->guard.fault[0] != '\0') {
        host_activation_failed(host);
        host->verdict = host->error;
    }
    if (!runs) {
        host_set_end(host, HOST_FAILED, "its guard was told to leave it, and it was changed since");
    } else if (host->plan.run->action == ACTION_TEST && proven) {
        host_set_end(host, HOST_HEALTHY,
                     "running and proven, not committed: a reboot brings the old system back");
    } else {
        host_set_left(host);
    }
    return host_go(host, STEP_END);
}

static enum step_result follow(struct host *host, enum step next) {
    static const char note[] = "its guard is at work: the run goes on from there";
    host_log(host, "fleet", note, sizeof(note) - 1);
    host->state_line[0] = '\0';
    host->log_offset = 0;
    host->unguarded = !host->plan.inv->policy.rollback && host->guard.phase == GUARD_COMMITTED;
    host->commit_sent = next == STEP_COMMIT;
    return host_go(host, next);
}

/* A host that goes back for the others' sake: under a guard of its own, whose nonce nobody wrote
 * down. */
static enum step_result go_on_back(struct host *host, bool alive) {
    host->going_back = true;
    error_set(&host->back_why, FLEET_ERR_CANCELLED, "taken-back",
              "taken back, as was decided before the run was interrupted");
    if (alive) {
        return follow(host, host->guard.phase == GUARD_COMMITTING ? STEP_COMMIT : STEP_ACTIVATE);
    }
    if (host_same(host->current, host->old)) {
        return host_go(host, STEP_VERIFY);
    }
    if (host->old == NULL) {
        error_set(&host->verdict, FLEET_ERR_REMOTE, "no-generation",
                  "it is not known what the host ran before this run");
        return host_go(host, STEP_FAIL);
    }
    host->env.nonce(host->nonce, host->env.arg);
    return host_go(host, STEP_GUARD_START);
}

/* Its change was committed, or its action is the reboot alone: the boot id tells whether that has
 * happened. Where it has, what is left is to prove it. */
static enum step_result go_on_rebooting(struct host *host) {
    host->guard_deadline_ms = 0;
    if (host_same(host->boot_id, host->plan.resume.boot_id)) {
        static const char note[] = "it has not been rebooted yet: the run goes on from there";
        host_log(host, "fleet", note, sizeof(note) - 1);
        return host_go(host, STEP_AWAIT_REBOOT);
    }
    static const char note[] = "it has been rebooted meanwhile: the run goes on with its probes";
    host_log(host, "fleet", note, sizeof(note) - 1);
    host->booted_anew = true;
    host->unguarded = true;
    return host_go(host,
                   host_has_secrets(host, SECRETS_BOOT) ? STEP_SECRETS_BOOT : STEP_PROBE_BOOT);
}

static enum step_result adopt(struct host *host, enum adopt what) {
    switch (what) {
    case ADOPT_WAIT:
        host->op_started = false;
        host_pause(host, LOOK_AGAIN_MS);
        return STEP_AGAIN;
    case ADOPT_FOLLOW:
        return follow(host, STEP_ACTIVATE);
    case ADOPT_COMMIT:
        return follow(host, STEP_COMMIT);
    case ADOPT_VERIFY:
        return host_go(host, STEP_VERIFY);
    case ADOPT_ABORT:
        set_verdict(host);
        return host_go(host, STEP_ABORT);
    case ADOPT_BACK:
        set_verdict(host);
        return host_go(host, STEP_VERIFY_BACK);
    case ADOPT_LEFT:
        return is_left(host);
    case ADOPT_INERT:
        return host_activation_inert(host);
    case ADOPT_ANEW:
        break;
    }
    return begin_anew(host);
}

/* Takes the guard's last word, which outlives a reboot, or where it has not said it yet its state: that
 * was read a moment before, so a guard that has just ended is not judged by it. */
static void take_word(struct host *host) {
    const char *state = target_reply_get(host->reply, "state");
    const char *last = target_reply_get(host->reply, "last");
    const char *words[] = {last, state};
    host->guard = (struct guard_state){.phase = GUARD_NONE, .rc = -1};
    host->state_line[0] = '\0';
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        struct guard_state said;
        guard_state_parse(words[i] != NULL ? words[i] : "", &said);
        if (said.phase != GUARD_NONE && strcmp(said.nonce, host->nonce) == 0) {
            host->guard = said;
            snprintf(host->state_line, sizeof(host->state_line), "%s", words[i]);
            return;
        }
    }
}

static enum step_result take_lock(struct host *host) {
    if (host_op_begin(host)) {
        struct target_lock lock = host_target_lock(host);
        target_lock_take(host->link.shell, &lock, host_on_reply, host);
        return STEP_AGAIN;
    }
    if (!host->op_done) {
        return STEP_AGAIN;
    }
    if (host->op_err != 0) {
        return host_try_again(host) ? STEP_AGAIN : host_fail(host, &host->op_error);
    }
    if (!host_says(host->reply, "lock", "ok")) {
        host->guard_deadline_ms = 0; /* no guard of ours can live beside another run's lock */
        return host_lock_is_held(host);
    }
    host->locked = true;
    host->adopt_locked = true;
    host->op_started = false;
    host_poke(host);
    return STEP_AGAIN;
}

enum step_result step_adopt(struct host *host) {
    if (host->pausing) {
        return STEP_AGAIN;
    }
    if (!host->adopt_locked) {
        return take_lock(host);
    }
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
    bool alive = host_says(host->reply, "alive", "yes");
    if (!alive && host_says(host->reply, "record", "yes")) {
        return host_go(host, STEP_INSPECT); /* it was cut off: finished first */
    }
    take_word(host);
    if (!alive) {
        const char *current = target_reply_get(host->reply, "current");
        host_set_string(&host->current, current != NULL ? current : host->current);
    }
    if (host->plan.resume.taken_back) {
        return go_on_back(host, alive);
    }
    if (host->plan.resume.was_healthy && !alive && !is_as_it_was(host)) {
        return was_changed_since(host);
    }
    if (host->plan.resume.boot_id != NULL && !alive) {
        return go_on_rebooting(host);
    }
    return adopt(host, resume_judge(&host->guard, alive, host->plan.resume.back,
                                    host->plan.inv->policy.rollback));
}
