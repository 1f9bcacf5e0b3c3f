#include "healthcheck/gate.h"

#include <assert.h>

#include "core/base/xalloc.h"

struct gate_state {
    struct gate_probe rule;
    bool answered;     /* at least one result */
    bool passed;       /* `successes` in a row, at some time */
    bool passing;      /* ... and no failure since */
    uint64_t asked_ms; /* when the try began that passed last */
    uint32_t passes;   /* in a row */
    uint32_t failed;   /* counted failures in a row */
};

struct gate {
    struct gate_policy policy;
    uint64_t start_ms;
    uint64_t since_ms; /* everything passes since; UINT64_MAX: it doesn't */
    bool was_healthy;
    bool unhealthy;
    struct gate_blame blame;
    size_t count;
    struct gate_state probes[];
};

#define NEVER UINT64_MAX

static uint64_t later(uint64_t time_ms, uint64_t by_ms) {
    return by_ms >= NEVER - time_ms ? NEVER : time_ms + by_ms;
}

static bool all_pass(const struct gate *gate) {
    for (size_t i = 0; i < gate->count; i++) {
        if (!gate->probes[i].rule.excused && !gate->probes[i].passing) {
            return false;
        }
    }
    return true;
}

struct gate *gate_new(const struct gate_policy *policy, const struct gate_probe *probes,
                      size_t count, uint64_t now_ms) {
    struct gate *gate = xcalloc(1, sizeof(*gate) + count * sizeof(gate->probes[0]));
    gate->policy = *policy;
    gate->start_ms = now_ms;
    gate->since_ms = NEVER;
    gate->blame.probe = SIZE_MAX;
    gate->count = count;
    for (size_t i = 0; i < count; i++) {
        gate->probes[i].rule = probes[i];
        if (probes[i].successes == 0) {
            gate->probes[i].rule.successes = 1;
        }
        if (probes[i].failures == 0) {
            gate->probes[i].rule.failures = 1;
        }
    }
    if (all_pass(gate)) {
        gate->since_ms = now_ms;
    }
    return gate;
}

void gate_free(struct gate *gate) {
    auto_free(&gate);
}

bool gate_in_grace(const struct gate *gate, uint64_t now_ms) {
    return !gate->policy.one_round && now_ms < later(gate->start_ms, gate->policy.startup_grace_ms);
}

static void condemn(struct gate *gate, size_t probe, bool deadline, bool conclusive) {
    gate->unhealthy = true;
    gate->since_ms = NEVER;
    gate->blame = (struct gate_blame){
        .probe = probe,
        .deadline = deadline,
        .conclusive = conclusive,
        .in_row = probe == SIZE_MAX ? 0 : gate->probes[probe].failed,
    };
}

static bool take_pass(struct gate *gate, struct gate_state *state, uint64_t asked_ms,
                      uint64_t now_ms) {
    state->failed = 0;
    state->asked_ms = asked_ms;
    if (state->passes < UINT32_MAX) {
        state->passes++;
    }
    if (state->passes >= state->rule.successes || gate->policy.one_round) {
        state->passed = true;
        state->passing = true;
    }
    if (gate->since_ms == NEVER && all_pass(gate)) {
        gate->since_ms = now_ms;
    }
    return true;
}

/* Whether failures of this probe are being counted by now. */
static bool counts(const struct gate *gate, const struct gate_state *state, uint64_t now_ms) {
    return !gate_in_grace(gate, now_ms) && (state->passed || gate->policy.fail_fast);
}

static bool take_failure(struct gate *gate, size_t probe, bool conclusive, uint64_t now_ms) {
    struct gate_state *state = &gate->probes[probe];
    state->passes = 0;
    state->passing = false;
    gate->since_ms = NEVER;
    if (gate_in_grace(gate, now_ms)) {
        return false;
    }
    if (gate->policy.one_round) {
        state->failed++;
        return true;
    }
    if (counts(gate, state, now_ms)) {
        state->failed++;
    }
    if (conclusive || state->failed >= state->rule.failures) {
        condemn(gate, probe, false, conclusive);
    }
    return true;
}

bool gate_result(struct gate *gate, size_t probe, enum gate_outcome outcome, uint64_t asked_ms,
                 uint64_t now_ms) {
    assert(probe < gate->count);
    struct gate_state *state = &gate->probes[probe];
    state->answered = true;
    if (gate->unhealthy) {
        return false;
    }
    if (state->rule.excused) {
        return false;
    }
    if (outcome == GATE_PASS) {
        return take_pass(gate, state, asked_ms, now_ms);
    }
    return take_failure(gate, probe, outcome == GATE_FAIL_CONCLUSIVE, now_ms);
}

/* One round: the verdict as soon as each probe has answered; the first that failed is to blame. */
static enum gate_verdict verdict_of_round(struct gate *gate) {
    for (size_t i = 0; i < gate->count; i++) {
        if (!gate->probes[i].answered) {
            return GATE_WAITING;
        }
    }
    for (size_t i = 0; i < gate->count; i++) {
        if (!gate->probes[i].rule.excused && !gate->probes[i].passing) {
            condemn(gate, i, false, true);
            return GATE_UNHEALTHY;
        }
    }
    gate->was_healthy = true;
    return GATE_HEALTHY;
}

static size_t first_not_passing(const struct gate *gate) {
    for (size_t i = 0; i < gate->count; i++) {
        if (!gate->probes[i].rule.excused && !gate->probes[i].passing) {
            return i;
        }
    }
    return SIZE_MAX;
}

/* When min_healthy_time will be over; NEVER while something doesn't pass. */
static uint64_t healthy_at(const struct gate *gate) {
    return gate->since_ms == NEVER ? NEVER : later(gate->since_ms, gate->policy.min_healthy_ms);
}

static uint64_t deadline_at(const struct gate *gate) {
    return gate->policy.deadline_ms == 0 ? NEVER : later(gate->start_ms, gate->policy.deadline_ms);
}

/* The probe has been seen to pass after min_healthy_time. */
static bool confirmed(const struct gate *gate, const struct gate_state *state) {
    return state->rule.excused || gate->policy.min_healthy_ms == 0 ||
           state->asked_ms >= healthy_at(gate);
}

bool gate_wants_look(const struct gate *gate, size_t probe, uint64_t now_ms) {
    assert(probe < gate->count);
    return !gate->unhealthy && !gate->was_healthy && !gate->policy.one_round &&
           healthy_at(gate) <= now_ms && !confirmed(gate, &gate->probes[probe]);
}

enum gate_verdict gate_verdict(struct gate *gate, uint64_t now_ms) {
    if (gate->unhealthy) {
        return GATE_UNHEALTHY;
    }
    if (gate->was_healthy) {
        return GATE_HEALTHY;
    }
    if (gate->policy.one_round) {
        return verdict_of_round(gate);
    }
    uint64_t healthy = healthy_at(gate);
    uint64_t deadline = deadline_at(gate);
    /* Both may have passed since the last look; the earlier one decides. */
    if (healthy <= now_ms && healthy <= deadline) {
        for (size_t i = 0; i < gate->count; i++) {
            if (!confirmed(gate, &gate->probes[i])) {
                return GATE_WAITING;
            }
        }
        gate->was_healthy = true;
        return GATE_HEALTHY;
    }
    if (deadline <= now_ms) {
        condemn(gate, first_not_passing(gate), true, false);
        return GATE_UNHEALTHY;
    }
    return GATE_WAITING;
}

uint64_t gate_wake_ms(const struct gate *gate, uint64_t now_ms) {
    if (gate->unhealthy || gate->was_healthy || gate->policy.one_round) {
        return NEVER;
    }
    uint64_t healthy = healthy_at(gate);
    uint64_t deadline = deadline_at(gate);
    if (healthy <= deadline) {
        /* Once it has come, only results are missing. */
        return healthy > now_ms ? healthy : NEVER;
    }
    return deadline > now_ms ? deadline : now_ms;
}

uint64_t gate_passing_ms(const struct gate *gate, uint64_t now_ms) {
    return gate->since_ms == NEVER || now_ms < gate->since_ms ? 0 : now_ms - gate->since_ms;
}

uint32_t gate_failed_in_row(const struct gate *gate, size_t probe) {
    assert(probe < gate->count);
    return gate->probes[probe].failed;
}

uint32_t gate_failures_allowed(const struct gate *gate, size_t probe) {
    assert(probe < gate->count);
    const struct gate_state *state = &gate->probes[probe];
    return state->passed || gate->policy.fail_fast ? state->rule.failures : 0;
}

struct gate_blame gate_blame(const struct gate *gate) {
    return gate->blame;
}
