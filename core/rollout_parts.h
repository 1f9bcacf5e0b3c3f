/* The rollout's inside, shared by core/rollout*.c only.
 *
 *   rollout.c         life, inputs, decisions handed out
 *   rollout_waves.c   who is in which wave and group
 *   rollout_policy.c  what follows from the state: one decision after the other
 *   rollout_retry.c   a host that has ended, tried again
 *   rollout_refusal.c why a person's wish changes nothing
 *   rollout_words.c   what is told: counts, exit code, why it waits
 */
#ifndef FLEET_CORE_ROLLOUT_PARTS_H
#define FLEET_CORE_ROLLOUT_PARTS_H

#include "core/rollout.h"
#include "core/rollout_slots.h"

#define NO_HOST SIZE_MAX

/* Why a host ended, as far as budgets and exit codes tell ends of one state apart. */
enum fate {
    FATE_OTHER,
    FATE_BUILD,   /* failed: its system could not be evaluated or built */
    FATE_LOCKED,  /* skipped */
    FATE_OFFLINE, /* skipped: optional and not reached */
    FATE_STOPPED  /* skipped: the run stopped before its turn, or a person took it out */
};

/* Being taken back, by a decision of the rollout. */
enum back {
    BACK_NONE,
    BACK_DOOMED, /* in flight; is told when it has ended well */
    BACK_QUEUED, /* ended well; waits until its group has room */
    BACK_TOLD,
    BACK_DONE
};

struct member {
    const struct inv_host *host;
    enum host_state state;
    enum fate fate;
    uint32_t wave;     /* from 1 */
    uint64_t position; /* in the order of the rollout */
    bool unhealthy;    /* was so before the change */
    bool up;           /* serves its group, as far as is known */
    bool reached;      /* has answered once */
    bool staged;
    bool ended;
    bool asked; /* waits for `first_act`, the act with which its change begins */
    enum act first_act;
    bool wants_copy; /* asked for ACT_COPY before its wave's turn */
    bool in_flight;  /* from the grant of its first act to its end */
    bool touched;    /* was ever in flight in this run */
    bool skip_told;
    enum back back;
    bool back_counts; /* goes back on a verdict of its own, not for the others' sake */
    bool went_back;   /* once is all a host may, whatever caused it */
    bool failed_late; /* was healthy, failed its second probing, and may not go back */
    bool counted;     /* in `failures` */
    bool reprobing;
    bool baked; /* was probed again at its wave's end */
};

struct wave {
    size_t first; /* in by_wave */
    size_t size;
    size_t open;     /* not ended */
    size_t weighing; /* ended, and says something about the new version */
    size_t good;     /* of these */
    size_t touched;
};

/* An exclusive group, or the hosts of a tag with a limit; its number is that of the group in
 * `activation`. */
struct rollout_group {
    size_t *members;
    size_t member_count;
    size_t up;   /* members that serve */
    size_t held; /* the last healthy one, which waits for another to come up, or NO_HOST */
};

enum phase {
    PHASE_NEW,
    PHASE_WAVE,
    PHASE_BAKE,
    PHASE_REPROBE,
    PHASE_PROMOTE, /* waits after a wave */
    PHASE_BETWEEN, /* the next wave is due */
    PHASE_OVER,    /* no further wave; the last hosts end */
    PHASE_ENDED
};

struct rollout {
    const struct inv_run_policy *policy;
    enum run_action action;
    uint64_t seed;
    const uint32_t *recorded; /* the plan's waves */
    size_t waves_done;        /* of a resumed run */
    bool waits;               /* for promotion after those */
    uint64_t now_ms;
    struct member *members;
    size_t count;
    size_t *by_wave;    /* host numbers, wave after wave */
    struct wave *waves; /* [1..wave_count] */
    size_t wave_count;
    size_t wave; /* the current one; 0 before the first */
    enum phase phase;
    struct slots *activation;
    struct slots *copy;
    struct rollout_group *groups;
    size_t group_count;
    size_t copy_horizon; /* waves up to this one may copy */
    size_t states[HOST_STATE_COUNT];
    size_t unreached; /* neither reached nor ended */
    size_t unstaged;  /* neither staged nor ended */
    size_t open;      /* not ended */
    size_t failures;
    size_t failures_allowed;
    size_t unreachable_allowed;
    size_t failures_known; /* to a person who tried a host again: no reason to stop once more */
    size_t unreachable_known;
    size_t backs_pending; /* members that are BACK_QUEUED or BACK_TOLD */
    size_t reprobes_pending;
    uint64_t bake_until_ms;
    bool paused; /* by a person */
    uint64_t paused_at_ms;
    bool stopped;
    const char *stop_reason; /* "max-failed", "max-unreachable", "no-healthy-host", "stopped" */
    bool stop_told;
    bool left_waiting;              /* was stopped while it waited for a person: exit 6 */
    bool budget_acted;              /* rollback-wave or -all was begun */
    struct rollout_decision *queue; /* a ring */
    size_t queue_first, queue_count, queue_cap;
};

/* rollout.c */
void rollout_decide(struct rollout *rollout, struct rollout_decision decision);
/* An end that the action was to reach. */
bool rollout_is_good(const struct rollout *rollout, enum host_state state);

/* rollout_waves.c */
void rollout_assign_waves(struct rollout *rollout);
void rollout_make_groups(struct rollout *rollout);
/* Corrects `up` of a host and its groups after any change; wakes who was held for want of it. */
void rollout_update_up(struct rollout *rollout, size_t host);
/* What is to be done with a host that would be the last healthy one of a group to go. */
enum last_healthy {
    LAST_HEALTHY_NO,
    LAST_HEALTHY_HELD,
    LAST_HEALTHY_FOR_GOOD
};
enum last_healthy rollout_last_healthy(struct rollout *rollout, size_t host);
size_t rollout_amount(struct inv_amount amount, size_t count, bool round_up);

/* rollout_policy.c */
/* Makes the next decision that is due, if any; false: none. */
bool rollout_step(struct rollout *rollout);
void rollout_stop(struct rollout *rollout, const char *reason);
void rollout_check_budget(struct rollout *rollout);
void rollout_skip(struct rollout *rollout, size_t host, const char *reason);
/* The host goes back as soon as may be; nothing where it already did, or may not. */
void rollout_doom(struct rollout *rollout, size_t host, bool counts);
uint64_t rollout_rank(const struct rollout *rollout, size_t host);

#endif
