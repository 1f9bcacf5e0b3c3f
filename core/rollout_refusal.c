/* Why what a person asks of a host would change nothing; rollout_retry.c has its own reasons. */
#include "core/rollout_parts.h"

static const char *refusal_to_skip(const struct member *member) {
    return member->ended       ? "it has ended"
           : member->in_flight ? "its change is under way: roll it back instead"
           : member->skip_told ? "it is being skipped already"
                               : NULL;
}

static const char *refusal_to_take_back(const struct member *member) {
    if (!member->ended && !member->in_flight) {
        return member->skip_told ? "it is being skipped" : NULL;
    }
    if (member->back != BACK_NONE || (member->went_back && !member->ended)) {
        return "it is on its way back, or was";
    }
    if (!member->touched || (member->ended && member->state != HOST_HEALTHY)) {
        return "it does not run anything that this run has brought it";
    }
    return member->went_back                ? "it went back once, which is all that a host may"
           : !member->host->policy.rollback ? "its policy says \"rollback\": false"
                                            : NULL;
}

const char *rollout_refusal(const struct rollout *rollout, enum rollout_control control,
                            size_t host) {
    if (host == SIZE_MAX) {
        return NULL;
    }
    switch (control) {
    case ROLLOUT_CONTROL_SKIP:
        return refusal_to_skip(&rollout->members[host]);
    case ROLLOUT_CONTROL_TAKE_BACK:
        return refusal_to_take_back(&rollout->members[host]);
    case ROLLOUT_CONTROL_PAUSE:
    case ROLLOUT_CONTROL_PROMOTE:
    case ROLLOUT_CONTROL_DRAIN:
        break;
    }
    return NULL;
}
