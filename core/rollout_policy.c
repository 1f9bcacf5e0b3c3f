/* What follows from the state of a run: one decision after the other (CONTRACT, policy). */
#include <string.h>

#include "core/rollout_parts.h"

/* Unhealthy hosts first, then the order of the rollout; in the copies, wave after wave. */
uint64_t rollout_rank(const struct rollout *rollout, size_t host) {
    const struct member *member = &rollout->members[host];
    bool sick_first = rollout->policy->order == INV_ORDER_UNHEALTHY_FIRST && member->unhealthy;
    return (uint64_t)member->wave << 34 | (uint64_t)!sick_first << 33 | member->position;
}

static void decide(struct rollout *rollout, enum rollout_decision_kind kind, size_t host,
                   enum act act, const char *reason) {
    size_t wave = host != NO_HOST ? rollout->members[host].wave : rollout->wave;
    rollout_decide(rollout,
                   (struct rollout_decision){
                       .kind = kind, .host = host, .act = act, .wave = wave, .reason = reason});
}

void rollout_skip(struct rollout *rollout, size_t host, const char *reason) {
    struct member *member = &rollout->members[host];
    if (member->ended || member->in_flight || member->skip_told) {
        return;
    }
    member->skip_told = true;
    member->asked = false;
    member->wants_copy = false;
    slots_withdraw(rollout->activation, host);
    slots_release(rollout->activation, host);
    slots_withdraw(rollout->copy, host);
    decide(rollout, ROLLOUT_SKIP, host, ACT_COUNT, reason);
}

/* Tells the host to go back, now. */
static void tell_back(struct rollout *rollout, size_t host) {
    struct member *member = &rollout->members[host];
    rollout->backs_pending += member->back != BACK_QUEUED;
    member->back = BACK_TOLD;
    member->went_back = true;
    member->in_flight = true;
    decide(rollout, ROLLOUT_TAKE_BACK, host, ACT_ROLLBACK, rollout->stop_reason);
}

void rollout_doom(struct rollout *rollout, size_t host, bool counts) {
    struct member *member = &rollout->members[host];
    if (member->back != BACK_NONE) {
        member->back_counts |= counts;
        return;
    }
    bool can = rollout->action != ACTION_REBOOT; /* nothing undoes a reboot */
    if (member->went_back || !member->touched || !member->host->policy.rollback || !can) {
        return;
    }
    if (member->in_flight) {
        member->back = BACK_DOOMED;
        member->back_counts = counts;
    } else if (member->state == HOST_HEALTHY) {
        member->back = BACK_QUEUED;
        member->back_counts = counts;
        rollout->backs_pending++;
        slots_push(rollout->activation, host, rollout_rank(rollout, host), true);
    }
}

/* ---- stopping ---- */

void rollout_stop(struct rollout *rollout, const char *reason) {
    bool begun = rollout->phase != PHASE_NEW && rollout->phase != PHASE_ENDED;
    if (!rollout->stopped && begun) {
        rollout->stopped = true;
        rollout->stop_reason = reason;
        rollout->left_waiting = rollout->phase == PHASE_PROMOTE || rollout->paused;
    }
}

/* on_failure, when max_failed is passed. */
static void take_others_back(struct rollout *rollout) {
    enum inv_on_failure how = rollout->policy->on_failure;
    bool wave_only = how == INV_ON_FAILURE_ROLLBACK_WAVE;
    if (!wave_only && how != INV_ON_FAILURE_ROLLBACK_ALL) {
        return;
    }
    for (size_t i = 0; i < rollout->count; i++) {
        if (!wave_only || rollout->members[i].wave == rollout->wave) {
            rollout_doom(rollout, i, false);
        }
    }
}

static bool is_passed(size_t count, size_t allowed, size_t known) {
    return count > allowed && count > known;
}

void rollout_check_budget(struct rollout *rollout) {
    if (rollout->phase == PHASE_NEW || rollout->phase == PHASE_ENDED) {
        return;
    }
    if (is_passed(rollout->failures, rollout->failures_allowed, rollout->failures_known) &&
        !rollout->budget_acted) {
        rollout->budget_acted = true;
        rollout_stop(rollout, "max-failed");
        take_others_back(rollout);
    }
    if (is_passed(rollout->states[HOST_UNREACHABLE], rollout->unreachable_allowed,
                  rollout->unreachable_known)) {
        rollout_stop(rollout, "max-unreachable");
    }
}

static bool tell_stop(struct rollout *rollout) {
    if (!rollout->stopped || rollout->stop_told) {
        return false;
    }
    rollout->stop_told = true;
    decide(rollout, ROLLOUT_STOP, NO_HOST, ACT_COUNT, rollout->stop_reason);
    bool asked_for = strcmp(rollout->stop_reason, "stopped") == 0;
    for (size_t i = 0; i < rollout->count; i++) {
        rollout_skip(rollout, i, asked_for ? "stopped" : "budget");
    }
    return true;
}

/* ---- grants ---- */

/* True while hosts may begin their change. Who was not reached may pass the budget, so all are
 * asked before the first is touched. Between waves only hosts that are tried again ask. */
static bool is_gate_open(const struct rollout *rollout) {
    bool all_staged = rollout->policy->prestage != INV_PRESTAGE_ALL || rollout->unstaged == 0;
    return !rollout->stopped && !rollout->paused && rollout->unreached == 0 && all_staged;
}

static void grant_first(struct rollout *rollout, size_t host) {
    struct member *member = &rollout->members[host];
    member->asked = false;
    if (member->first_act != ACT_SECRET) {
        member->in_flight = true;
        rollout->waves[member->wave].touched += !member->touched;
        member->touched = true;
    }
    decide(rollout, ROLLOUT_GRANT, host, member->first_act, NULL);
}

static bool grant_activation(struct rollout *rollout) {
    size_t host = 0;
    while (slots_pop(rollout->activation, is_gate_open(rollout), &host)) {
        if (rollout->members[host].back == BACK_QUEUED) {
            tell_back(rollout, host);
            return true;
        }
        enum last_healthy last = rollout_last_healthy(rollout, host);
        if (last == LAST_HEALTHY_NO) {
            grant_first(rollout, host);
            return true;
        }
        slots_release(rollout->activation, host);
        if (last == LAST_HEALTHY_FOR_GOOD) {
            rollout_skip(rollout, host, "last-healthy");
            return true;
        }
    }
    return false;
}

static bool grant_copy(struct rollout *rollout) {
    size_t host = 0;
    if (rollout->stopped || !slots_pop(rollout->copy, true, &host)) {
        return false;
    }
    decide(rollout, ROLLOUT_GRANT, host, ACT_COPY, NULL);
    return true;
}

/* Copies of the waves up to the one that `prestage` allows may go from now on. */
static void widen_copies(struct rollout *rollout) {
    size_t horizon = rollout->wave;
    if (rollout->policy->prestage == INV_PRESTAGE_ALL) {
        horizon = rollout->wave_count;
    } else if (rollout->policy->prestage == INV_PRESTAGE_WAVE) {
        horizon = rollout->wave + 1;
    }
    while (rollout->copy_horizon < horizon && rollout->copy_horizon < rollout->wave_count) {
        const struct wave *wave = &rollout->waves[++rollout->copy_horizon];
        for (size_t i = wave->first; i < wave->first + wave->size; i++) {
            size_t host = rollout->by_wave[i];
            if (rollout->members[host].wants_copy) {
                rollout->members[host].wants_copy = false;
                slots_push(rollout->copy, host, rollout_rank(rollout, host), false);
            }
        }
    }
}

/* ---- waves ---- */

static void start_wave(struct rollout *rollout) {
    const struct wave *wave = &rollout->waves[++rollout->wave];
    rollout->phase = PHASE_WAVE;
    decide(rollout, ROLLOUT_WAVE_START, NO_HOST, ACT_COUNT, NULL);
    widen_copies(rollout);
    for (size_t i = wave->first; i < wave->first + wave->size; i++) {
        size_t host = rollout->by_wave[i];
        if (rollout->members[host].asked) {
            slots_push(rollout->activation, host, rollout_rank(rollout, host), false);
        }
    }
}

/* The wave has ended and was probed again: what comes after it? */
static void close_wave(struct rollout *rollout) {
    const struct wave *wave = &rollout->waves[rollout->wave];
    decide(rollout, ROLLOUT_WAVE_END, NO_HOST, ACT_COUNT, NULL);
    if (wave->weighing > 0 && wave->good == 0 && rollout->open > 0) {
        rollout_stop(rollout, "no-healthy-host");
    }
    if (rollout->stopped || rollout->wave == rollout->wave_count) {
        rollout->phase = PHASE_OVER;
    } else if (rollout->policy->promote_manual && wave->touched > 0 && rollout->open > 0) {
        rollout->phase = PHASE_PROMOTE;
        decide(rollout, ROLLOUT_PAUSE, NO_HOST, ACT_COUNT, "promote");
    } else {
        rollout->phase = PHASE_BETWEEN;
    }
}

/* This run made the host healthy, and has not probed it again. Without probes there is nothing to
 * ask, unless it is to be watched for a time. */
static bool is_to_be_probed_again(const struct rollout *rollout, const struct member *member) {
    bool asks = rollout->policy->bake_ms > 0 || member->host->health_count > 0;
    return asks && member->touched && member->state == HOST_HEALTHY && !member->baked;
}

bool rollout_awaits_wave(const struct rollout *rollout, size_t host) {
    const struct member *member = &rollout->members[host];
    bool open = rollout->phase == PHASE_WAVE || rollout->phase == PHASE_BAKE ||
                rollout->phase == PHASE_REPROBE;
    return member->reprobing ||
           (is_to_be_probed_again(rollout, member) && (open || member->wave > rollout->wave));
}

/* In by_wave, past the current wave. Those of earlier ones that were tried again meanwhile are
 * probed with it. */
static size_t end_of_wave(const struct rollout *rollout) {
    const struct wave *wave = &rollout->waves[rollout->wave];
    return wave->first + wave->size;
}

static bool has_hosts_to_probe_again(const struct rollout *rollout) {
    for (size_t i = 0; i < end_of_wave(rollout); i++) {
        if (is_to_be_probed_again(rollout, &rollout->members[rollout->by_wave[i]])) {
            return true;
        }
    }
    return false;
}

static void start_bake(struct rollout *rollout) {
    rollout->phase = PHASE_BAKE;
    rollout->bake_until_ms = rollout->now_ms + rollout->policy->bake_ms;
    rollout_decide(rollout, (struct rollout_decision){.kind = ROLLOUT_BAKE,
                                                      .host = NO_HOST,
                                                      .wave = rollout->wave,
                                                      .until_ms = rollout->bake_until_ms});
}

static void reprobe_wave(struct rollout *rollout) {
    rollout->phase = PHASE_REPROBE;
    for (size_t i = 0; i < end_of_wave(rollout); i++) {
        size_t host = rollout->by_wave[i];
        struct member *member = &rollout->members[host];
        if (is_to_be_probed_again(rollout, member) && member->back == BACK_NONE) {
            member->baked = true;
            member->reprobing = true;
            rollout->reprobes_pending++;
            decide(rollout, ROLLOUT_REPROBE, host, ACT_COUNT, NULL);
        }
    }
}

/* Goes one phase on where the current one is done; false: it isn't. */
static bool advance(struct rollout *rollout) {
    bool quiet = rollout->backs_pending == 0 && rollout->reprobes_pending == 0;
    bool wave_done = quiet && rollout->wave > 0 && rollout->waves[rollout->wave].open == 0;
    switch (rollout->phase) {
    case PHASE_WAVE:
        if (!wave_done) {
            return false;
        }
        if (!has_hosts_to_probe_again(rollout)) {
            close_wave(rollout);
        } else if (rollout->policy->bake_ms > 0 && !rollout->stopped) {
            start_bake(rollout);
        } else {
            reprobe_wave(rollout);
        }
        return true;
    case PHASE_BAKE:
        if (!rollout->stopped && (rollout->paused || rollout->now_ms < rollout->bake_until_ms)) {
            return false; /* what stops a run ends the waiting, never the look */
        }
        reprobe_wave(rollout);
        return true;
    case PHASE_REPROBE:
        if (wave_done) {
            close_wave(rollout);
        }
        return wave_done;
    case PHASE_PROMOTE:
        if (rollout->stopped) {
            rollout->phase = PHASE_OVER;
        }
        return rollout->stopped;
    case PHASE_BETWEEN:
        if (rollout->stopped || rollout->wave == rollout->wave_count) {
            rollout->phase = PHASE_OVER;
        } else if (rollout->paused) {
            return false;
        } else {
            start_wave(rollout);
        }
        return true;
    case PHASE_OVER:
        if (!quiet || rollout->open > 0) {
            return false;
        }
        rollout->phase = PHASE_ENDED;
        decide(rollout, ROLLOUT_END, NO_HOST, ACT_COUNT, NULL);
        return true;
    case PHASE_NEW:
    case PHASE_ENDED:
        break;
    }
    return false;
}

bool rollout_step(struct rollout *rollout) {
    if (rollout->phase == PHASE_NEW || rollout->phase == PHASE_ENDED) {
        return false;
    }
    return tell_stop(rollout) || grant_activation(rollout) || grant_copy(rollout) ||
           advance(rollout);
}
