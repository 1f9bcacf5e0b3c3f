/* Life, inputs and outputs of a rollout.
 *
 * Inputs only note what is so now; what follows is decided when a decision is asked for
 * (rollout_next), one at a time, so that no decision is ever older than the last input. The
 * exceptions are answers that nothing can take back: a host in flight that asks gets its answer at
 * once.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "core/rollout_parts.h"

/* Under `dry-activate` a host is staged twice: before its try, and at the end. */
static bool is_end(const struct rollout *rollout, const struct member *member,
                   enum host_state state) {
    bool again = member->state == HOST_STAGED;
    return host_state_is_end(state) ||
           (state == HOST_STAGED &&
            (rollout->action == ACTION_PUSH || (rollout->action == ACTION_DRY_ACTIVATE && again)));
}

bool rollout_is_good(const struct rollout *rollout, enum host_state state) {
    return state == HOST_HEALTHY || state == HOST_UNCHANGED ||
           (state == HOST_REBOOT_REQUIRED && rollout->action == ACTION_BOOT) ||
           (state == HOST_STAGED &&
            (rollout->action == ACTION_PUSH || rollout->action == ACTION_DRY_ACTIVATE));
}

struct rollout *rollout_new(const struct rollout_plan *plan) {
    struct rollout *rollout = xcalloc(1, sizeof(*rollout));
    size_t count = plan->host_count;
    rollout->policy = plan->policy;
    rollout->action = plan->action;
    rollout->seed = plan->seed;
    rollout->recorded = plan->waves;
    rollout->count = count;
    rollout->members = xcalloc(count + 1, sizeof(*rollout->members));
    rollout->by_wave = xcalloc(count + 1, sizeof(*rollout->by_wave));
    for (size_t i = 0; i < count; i++) {
        rollout->members[i] =
            (struct member){.host = plan->hosts[i], .state = HOST_PENDING, .up = true};
    }
    rollout->states[HOST_PENDING] = count;
    rollout->open = count;
    rollout->unreached = count;
    rollout->unstaged = count;
    rollout->failures_allowed = rollout_amount(plan->policy->max_failed, count, false);
    rollout->unreachable_allowed = rollout_amount(plan->policy->max_unreachable, count, false);
    rollout_assign_waves(rollout);
    rollout_make_groups(rollout);
    return rollout;
}

void rollout_free(struct rollout *rollout) {
    if (rollout == NULL) {
        return;
    }
    for (size_t i = 0; i < rollout->group_count; i++) {
        free(rollout->groups[i].members);
    }
    slots_free(rollout->activation);
    slots_free(rollout->copy);
    free(rollout->groups);
    free(rollout->members);
    free(rollout->by_wave);
    free(rollout->waves);
    free(rollout->queue);
    free(rollout);
}

void rollout_decide(struct rollout *rollout, struct rollout_decision decision) {
    decision.host = decision.host == NO_HOST ? 0 : decision.host;
    if (rollout->queue_count == rollout->queue_cap) {
        size_t cap = rollout->queue_cap > 0 ? rollout->queue_cap * 2 : 16;
        struct rollout_decision *queue = xcalloc(cap, sizeof(*queue));
        for (size_t i = 0; i < rollout->queue_count; i++) {
            queue[i] = rollout->queue[(rollout->queue_first + i) % rollout->queue_cap];
        }
        free(rollout->queue);
        rollout->queue = queue;
        rollout->queue_first = 0;
        rollout->queue_cap = cap;
    }
    size_t at = (rollout->queue_first + rollout->queue_count++) % rollout->queue_cap;
    rollout->queue[at] = decision;
}

bool rollout_next(struct rollout *rollout, struct rollout_decision *ret) {
    while (rollout->queue_count == 0) {
        if (!rollout_step(rollout)) {
            return false;
        }
    }
    *ret = rollout->queue[rollout->queue_first];
    rollout->queue_first = (rollout->queue_first + 1) % rollout->queue_cap;
    rollout->queue_count--;
    return true;
}

/* ---- inputs ---- */

static bool weighs(const struct member *member) {
    return member->fate == FATE_OTHER || member->fate == FATE_LOCKED;
}

static void adjust(size_t *count, bool applies, bool add) {
    if (applies) {
        *count = add ? *count + 1 : *count - 1;
    }
}

/* Enters the host as it is now in its wave's books, or takes it out. Before the start there are
 * none, as waves may still change. */
static void book(struct rollout *rollout, const struct member *member, bool add) {
    if (rollout->phase == PHASE_NEW) {
        return;
    }
    struct wave *wave = &rollout->waves[member->wave];
    adjust(&wave->open, !member->ended, add);
    adjust(&wave->weighing, member->ended && weighs(member), add);
    adjust(&wave->good,
           member->ended && !member->failed_late && rollout_is_good(rollout, member->state), add);
}

void rollout_start(struct rollout *rollout, uint64_t now_ms) {
    rollout->now_ms = now_ms;
    if (rollout->phase != PHASE_NEW) {
        return;
    }
    /* Who is known to be unhealthy by now goes first. */
    rollout_assign_waves(rollout);
    rollout->wave =
        rollout->waves_done < rollout->wave_count ? rollout->waves_done : rollout->wave_count;
    rollout->phase = PHASE_BETWEEN;
    for (size_t i = 0; i < rollout->count; i++) {
        struct member *member = &rollout->members[i];
        book(rollout, member, true);
        rollout->waves[member->wave].touched += member->touched;
        member->baked = member->ended && member->wave <= rollout->wave;
    }
    rollout_check_budget(rollout);
    if (rollout->waits && !rollout->stopped && rollout->open > 0) {
        rollout->phase = PHASE_PROMOTE;
        rollout_decide(rollout, (struct rollout_decision){.kind = ROLLOUT_PAUSE,
                                                          .wave = rollout->wave,
                                                          .host = NO_HOST,
                                                          .reason = "promote"});
    }
}

void rollout_resume(struct rollout *rollout, size_t waves_done, bool waits) {
    rollout->waves_done = waves_done;
    rollout->waits = waits;
}

void rollout_unhealthy_before(struct rollout *rollout, size_t host) {
    rollout->members[host].unhealthy = true;
    rollout_update_up(rollout, host);
}

void rollout_waits_for_person(struct rollout *rollout, size_t host) {
    struct member *member = &rollout->members[host];
    rollout->unreached -= !member->reached;
    member->reached = true;
}

static bool is_reason_of_build(const char *reason) {
    static const char *const begins[] = {"build-", "evaluation-", "eval-", "no-tool"};
    for (size_t i = 0; reason != NULL && i < ARRAY_LEN(begins); i++) {
        if (strncmp(reason, begins[i], strlen(begins[i])) == 0) {
            return true;
        }
    }
    return false;
}

static enum fate fate_of(const struct member *member, enum host_state state, const char *reason) {
    if (state == HOST_FAILED) {
        bool build = is_reason_of_build(reason) || member->state == HOST_BUILDING;
        return build && !member->touched ? FATE_BUILD : FATE_OTHER;
    }
    if (state == HOST_SKIPPED && reason != NULL) {
        bool stopped = strcmp(reason, "budget") == 0 || strcmp(reason, "stopped") == 0;
        return strcmp(reason, "offline") == 0  ? FATE_OFFLINE
               : strcmp(reason, "locked") == 0 ? FATE_LOCKED
               : stopped                       ? FATE_STOPPED
                                               : FATE_OTHER;
    }
    return FATE_OTHER;
}

/* Counted against max_failed (CONTRACT): one that went back for the others' sake has not failed. */
static bool is_failure(const struct member *member) {
    if (member->failed_late) {
        return true;
    }
    if (member->state == HOST_FAILED) {
        return member->fate != FATE_BUILD;
    }
    if (member->state == HOST_ROLLED_BACK) {
        return member->back == BACK_NONE || member->back_counts;
    }
    return member->state == HOST_ROLLBACK_FAILED || member->state == HOST_UNKNOWN;
}

static void book_failure(struct rollout *rollout, struct member *member) {
    bool counted = is_failure(member);
    rollout->failures += counted && !member->counted;
    rollout->failures -= !counted && member->counted;
    member->counted = counted;
}

static void note_progress(struct rollout *rollout, struct member *member) {
    bool reached = member->ended || member->state > HOST_CONNECTING;
    bool staged = member->ended || member->state >= HOST_STAGED;
    rollout->unreached -= reached && !member->reached;
    rollout->unstaged -= staged && !member->staged;
    member->reached |= reached;
    member->staged |= staged;
}

static bool is_under_way(enum host_state state) {
    return state >= HOST_ACTIVATING && state <= HOST_ROLLING_BACK;
}

/* A host whose change is under way, though no grant of this rollout began it: a resumed one. */
static void note_under_way(struct rollout *rollout, size_t host) {
    struct member *member = &rollout->members[host];
    if (!member->in_flight) {
        member->in_flight = true;
        if (!member->touched) {
            member->touched = true;
            rollout->waves[member->wave].touched += rollout->phase != PHASE_NEW;
        }
        slots_take(rollout->activation, host);
    }
    member->asked = false;
    member->went_back |= member->state == HOST_ROLLING_BACK;
}

/* Of a resumed run: its guard took the host back alone, so that it begins anew. */
static void note_anew(struct rollout *rollout, size_t host) {
    struct member *member = &rollout->members[host];
    rollout->waves[member->wave].touched -= member->touched && rollout->phase != PHASE_NEW;
    member->in_flight = false;
    member->touched = false;
    member->went_back = false;
    slots_release(rollout->activation, host);
}

/* The host's going back, now that it has ended. */
static void settle_back(struct rollout *rollout, size_t host) {
    struct member *member = &rollout->members[host];
    if (member->back == BACK_TOLD) {
        member->back = BACK_DONE;
        rollout->backs_pending--;
    } else if (member->back == BACK_QUEUED) {
        member->back = BACK_NONE;
        rollout->backs_pending--;
    } else if (member->back == BACK_DOOMED) {
        /* Where it ended well, it was past asking when that was decided. */
        member->back = BACK_NONE;
        rollout_doom(rollout, host, member->back_counts);
    }
}

static void note_end(struct rollout *rollout, size_t host) {
    struct member *member = &rollout->members[host];
    member->in_flight = false;
    member->asked = false;
    member->wants_copy = false;
    slots_withdraw(rollout->activation, host);
    slots_release(rollout->activation, host);
    settle_back(rollout, host);
    if (member->reprobing) {
        member->reprobing = false;
        rollout->reprobes_pending--;
    }
}

void rollout_moved(struct rollout *rollout, size_t host, enum host_state state, const char *reason,
                   uint64_t now_ms) {
    struct member *member = &rollout->members[host];
    rollout->now_ms = now_ms;
    bool ended = is_end(rollout, member, state);
    if (state == member->state && ended == member->ended && member->back != BACK_TOLD) {
        return;
    }
    book(rollout, member, false);
    rollout->states[member->state]--;
    rollout->states[state]++;
    adjust(&rollout->open, !member->ended, false);
    member->fate = fate_of(member, state, reason);
    member->state = state;
    member->ended = ended;
    adjust(&rollout->open, !member->ended, true);
    book(rollout, member, true);
    note_progress(rollout, member);
    if (state > HOST_STAGING) {
        slots_withdraw(rollout->copy, host);
        slots_release(rollout->copy, host);
    }
    if (is_under_way(state)) {
        note_under_way(rollout, host);
    } else if (!member->ended &&
               (rollout->phase == PHASE_NEW || (member->in_flight && state == HOST_BUILDING))) {
        note_anew(rollout, host);
    }
    if (member->ended) {
        note_end(rollout, host);
    }
    book_failure(rollout, member);
    rollout_update_up(rollout, host);
    rollout_check_budget(rollout);
}

/* The answer to a host whose change is under way, given at once as it stands still. One that is to
 * go back for the others' sake commits first: from then on there is one way back, not two. */
static void answer_in_flight(struct rollout *rollout, size_t host, enum act act) {
    struct member *member = &rollout->members[host];
    enum rollout_decision_kind kind = ROLLOUT_GRANT;
    if (act == ACT_ROLLBACK) {
        /* Never the way back of a way back, nor of what can't go back. */
        if (rollout->policy->on_failure == INV_ON_FAILURE_LEAVE || member->went_back ||
            !member->host->policy.rollback) {
            kind = ROLLOUT_LEAVE;
        }
        member->went_back = true;
        member->back = member->back == BACK_DOOMED ? BACK_NONE : member->back;
    }
    rollout_decide(rollout, (struct rollout_decision){
                                .kind = kind, .host = host, .act = act, .wave = member->wave});
}

static void want_copy(struct rollout *rollout, size_t host) {
    struct member *member = &rollout->members[host];
    if (slots_holds(rollout->copy, host)) {
        /* It lost its connection and begins anew. */
        rollout_decide(rollout, (struct rollout_decision){.kind = ROLLOUT_GRANT,
                                                          .host = host,
                                                          .act = ACT_COPY,
                                                          .wave = member->wave});
    } else if (rollout->copy_horizon >= member->wave) {
        slots_push(rollout->copy, host, rollout_rank(rollout, host), false);
    } else {
        member->wants_copy = true;
    }
}

void rollout_wants(struct rollout *rollout, size_t host, enum act act, uint64_t now_ms) {
    struct member *member = &rollout->members[host];
    rollout->now_ms = now_ms;
    if (member->in_flight || act == ACT_ROLLBACK) {
        answer_in_flight(rollout, host, act);
    } else if (member->skip_told || member->ended) {
        return;
    } else if (rollout->stopped) {
        rollout_skip(rollout, host,
                     strcmp(rollout->stop_reason, "stopped") == 0 ? "stopped" : "budget");
    } else if (act == ACT_COPY) {
        want_copy(rollout, host);
    } else if (rollout->action != ACTION_PUSH || act == ACT_SECRET) {
        /* After ACT_SECRET it holds its slot already, and gives it back to ask anew: the run may
         * have been paused meanwhile. */
        slots_release(rollout->activation, host);
        member->asked = true;
        member->first_act = act;
        if (member->wave <= rollout->wave) { /* less: it is tried again */
            slots_push(rollout->activation, host, rollout_rank(rollout, host), false);
        }
    }
}

void rollout_reprobed(struct rollout *rollout, size_t host, bool ok, uint64_t now_ms) {
    struct member *member = &rollout->members[host];
    rollout->now_ms = now_ms;
    if (!member->reprobing) {
        return;
    }
    member->reprobing = false;
    rollout->reprobes_pending--;
    if (ok || member->state != HOST_HEALTHY) {
        return;
    }
    if (rollout->policy->on_failure == INV_ON_FAILURE_LEAVE || !member->host->policy.rollback ||
        member->went_back || rollout->action == ACTION_REBOOT) {
        book(rollout, member, false);
        member->failed_late = true;
        book(rollout, member, true);
        book_failure(rollout, member);
        rollout_decide(rollout, (struct rollout_decision){.kind = ROLLOUT_LEAVE,
                                                          .host = host,
                                                          .act = ACT_ROLLBACK,
                                                          .wave = member->wave,
                                                          .reason = "bake"});
        rollout_check_budget(rollout);
    } else {
        rollout_doom(rollout, host, true);
    }
}

static void take_back(struct rollout *rollout, size_t host) {
    const struct member *member = &rollout->members[host];
    if (!member->ended && !member->in_flight) {
        rollout_skip(rollout, host, "stopped");
    } else {
        rollout_doom(rollout, host, false);
    }
}

static void promote(struct rollout *rollout) {
    if (rollout->paused) {
        rollout->paused = false;
        if (rollout->phase == PHASE_BAKE) {
            /* No deadline ticked meanwhile. */
            rollout->bake_until_ms += rollout->now_ms - rollout->paused_at_ms;
        }
    }
    if (rollout->phase == PHASE_PROMOTE) {
        rollout->phase = PHASE_BETWEEN;
    }
}

static void pause_run(struct rollout *rollout) {
    if (!rollout->paused && rollout->phase != PHASE_OVER && rollout->phase != PHASE_ENDED) {
        rollout->paused = true;
        rollout->paused_at_ms = rollout->now_ms;
        rollout_decide(rollout, (struct rollout_decision){.kind = ROLLOUT_PAUSE,
                                                          .wave = rollout->wave,
                                                          .host = NO_HOST,
                                                          .reason = "paused"});
    }
}

void rollout_control(struct rollout *rollout, enum rollout_control control, size_t host,
                     uint64_t now_ms) {
    rollout->now_ms = now_ms;
    switch (control) {
    case ROLLOUT_CONTROL_PAUSE:
        pause_run(rollout);
        break;
    case ROLLOUT_CONTROL_PROMOTE:
        promote(rollout);
        break;
    case ROLLOUT_CONTROL_DRAIN:
        rollout_stop(rollout, "stopped");
        break;
    case ROLLOUT_CONTROL_TAKE_BACK:
        if (host == SIZE_MAX) {
            rollout_stop(rollout, "stopped");
            for (size_t i = 0; i < rollout->count; i++) {
                rollout_doom(rollout, i, false);
            }
        } else {
            take_back(rollout, host);
        }
        break;
    case ROLLOUT_CONTROL_SKIP:
        rollout_skip(rollout, host, "stopped");
        break;
    }
}

void rollout_tick(struct rollout *rollout, uint64_t now_ms) {
    rollout->now_ms = now_ms;
}

/* ---- what stands ---- */

uint64_t rollout_next_tick_ms(const struct rollout *rollout) {
    return rollout->phase == PHASE_BAKE && !rollout->paused ? rollout->bake_until_ms : UINT64_MAX;
}

size_t rollout_wave_of(const struct rollout *rollout, size_t host) {
    return rollout->members[host].wave;
}

size_t rollout_wave_count(const struct rollout *rollout) {
    return rollout->wave_count;
}

size_t rollout_wave_size(const struct rollout *rollout, size_t wave) {
    return wave > 0 && wave <= rollout->wave_count ? rollout->waves[wave].size : 0;
}

size_t rollout_current_wave(const struct rollout *rollout) {
    return rollout->wave;
}

enum host_state rollout_state(const struct rollout *rollout, size_t host) {
    return rollout->members[host].state;
}

size_t rollout_count(const struct rollout *rollout, enum host_state state) {
    return rollout->states[state];
}

size_t rollout_failures(const struct rollout *rollout) {
    return rollout->failures;
}

size_t rollout_failures_allowed(const struct rollout *rollout) {
    return rollout->failures_allowed;
}
