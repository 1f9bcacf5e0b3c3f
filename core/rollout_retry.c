/* A host that has ended is tried again because a person asked for it (rollout.h says when and why).
 */
#include "core/rollout_parts.h"

#include <string.h>

/* Why the host can't be tried again as things stand with it, or NULL. */
static const char *refusal_of_host(const struct rollout *rollout, const struct member *member) {
    if (!member->ended) {
        return "it is under way";
    }
    if (rollout_is_good(rollout, member->state) && !member->failed_late) {
        return "it has ended well";
    }
    if (member->state == HOST_UNKNOWN || member->state == HOST_ROLLBACK_FAILED) {
        return "nobody knows for sure what it runs. Once this run is over, `fleet resume` asks it";
    }
    if (member->state == HOST_FAILED && member->fate == FATE_BUILD) {
        return "its system could not be built. Mend that, then begin a new run";
    }
    return NULL;
}

/* Why no host can be tried again, or NULL. */
static const char *refusal_of_run(const struct rollout *rollout) {
    if (rollout->phase == PHASE_NEW || rollout->phase == PHASE_ENDED) {
        return "the run is over. Begin a new one";
    }
    if (rollout->stopped && strcmp(rollout->stop_reason, "stopped") == 0) {
        return "the run is being drained. Begin a new one";
    }
    if (rollout->backs_pending > 0) {
        return "hosts are on their way back. Try again when they have arrived";
    }
    return NULL;
}

/* A run that a budget has stopped goes on: what has failed so far is known. */
static void lift_stop(struct rollout *rollout) {
    if (rollout->stopped) {
        rollout->stopped = false;
        rollout->stop_reason = NULL;
        rollout->stop_told = false;
        rollout->budget_acted = false;
        rollout->left_waiting = false;
        rollout->failures_known = rollout->failures;
        rollout->unreachable_known = rollout->states[HOST_UNREACHABLE];
    }
}

/* The wave of the host comes again where no other is open. */
static void turn_to_wave(struct rollout *rollout, size_t wave) {
    bool between = rollout->phase == PHASE_BETWEEN || rollout->phase == PHASE_OVER;
    bool bakes = rollout->phase == PHASE_BAKE || rollout->phase == PHASE_REPROBE;
    if (between && (wave <= rollout->wave || rollout->phase == PHASE_OVER)) {
        rollout->wave = wave - 1;
        rollout->phase = PHASE_BETWEEN;
    } else if (bakes && wave == rollout->wave) {
        rollout->phase = PHASE_WAVE; /* what is healthy and not baked yet is baked after it */
    }
}

bool rollout_retry(struct rollout *rollout, size_t host, uint64_t now_ms, struct buf *why) {
    struct member *member = &rollout->members[host];
    const char *refusal = refusal_of_host(rollout, member);
    refusal = refusal != NULL ? refusal : refusal_of_run(rollout);
    if (refusal != NULL) {
        buf_add_text(why, refusal);
        return false;
    }
    member->unhealthy |= !member->up;
    rollout->waves[member->wave].touched -= member->touched;
    member->touched = false;
    member->skip_told = false;
    member->back = BACK_NONE;
    member->back_counts = false;
    member->went_back = false;
    member->failed_late = false;
    member->baked = false;
    rollout_moved(rollout, host, HOST_PENDING, NULL, now_ms);
    lift_stop(rollout);
    turn_to_wave(rollout, member->wave);
    rollout_decide(rollout, (struct rollout_decision){
                                .kind = ROLLOUT_RETRY, .host = host, .wave = member->wave});
    return true;
}
