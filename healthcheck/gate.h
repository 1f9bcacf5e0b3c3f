/* The gate: many probes' results over time, one verdict (CONTRACT "policy", FIELD-NOTES "Health
 * gating").
 *
 * Pure: no I/O and no clock of its own; every call is told what time it is (milliseconds of one
 * monotonic clock), so that a test plays ten minutes in a microsecond.
 *
 * The rules, in the order in which they are asked:
 *   1. A conclusive failure after the grace time is the end at once.
 *   2. `failures` failures in a row are the end, counted after the probe's first pass (with
 *      fail_fast from the end of the grace time on).
 *   3. healthy_deadline after the start without a verdict is the end.
 *   4. Every probe passing for min_healthy_time without a break is healthy, counted from the moment
 *      when the last of them passed for the first time. Any failure starts that time anew, also one
 *      that doesn't count because of the grace time: what doesn't pass isn't passing. It must also
 *      be seen: each probe has to pass once more in a try that began after that time was over, or
 *      a service that dies between two tries would get through.
 * After "healthy" rules 1 and 2 still hold: healthy once is not healthy.
 * A probe that is excused (it failed before the change) is reported and has no say.
 */
#ifndef FLEET_HEALTHCHECK_GATE_H
#define FLEET_HEALTHCHECK_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gate;

enum gate_outcome {
    GATE_PASS,
    GATE_FAIL,
    GATE_FAIL_CONCLUSIVE /* more tries would not change it: a unit that has failed */
};

enum gate_verdict {
    GATE_WAITING,
    GATE_HEALTHY,
    GATE_UNHEALTHY
};

struct gate_policy {
    uint64_t startup_grace_ms;
    uint64_t min_healthy_ms;
    uint64_t deadline_ms; /* 0: none */
    bool fail_fast;
    /* One result of each probe and then the verdict; the times above are not looked at. */
    bool one_round;
};

struct gate_probe {
    uint32_t successes; /* passes in a row until it counts as passing; 0 is 1 */
    uint32_t failures;  /* failures in a row that are the end; 0 is 1 */
    bool excused;
};

/* `probes` is copied; results name a probe by its index there. */
struct gate *gate_new(const struct gate_policy *policy, const struct gate_probe *probes,
                      size_t count, uint64_t now_ms);
void gate_free(struct gate *gate);

/* True while failures aren't counted. */
bool gate_in_grace(const struct gate *gate, uint64_t now_ms);

/* Takes one result of a try that began at `asked_ms`. True if it counted: not excused, and not a
 * failure in the grace time. Calls after the gate said unhealthy change nothing. */
bool gate_result(struct gate *gate, size_t probe, enum gate_outcome outcome, uint64_t asked_ms,
                 uint64_t now_ms);

/* True when only a try of this probe that begins now is missing for "healthy". */
bool gate_wants_look(const struct gate *gate, size_t probe, uint64_t now_ms);

/* Looks at the times. Unhealthy is final; healthy may still become unhealthy. */
enum gate_verdict gate_verdict(struct gate *gate, uint64_t now_ms);

/* When the verdict or gate_wants_look may change without a new result: an absolute time after
 * `now_ms`, UINT64_MAX for never. */
uint64_t gate_wake_ms(const struct gate *gate, uint64_t now_ms);

/* Since when every probe has been passing, as milliseconds until `now_ms`; 0 while one isn't. */
uint64_t gate_passing_ms(const struct gate *gate, uint64_t now_ms);

/* How many counted failures in a row the probe has had, and how many are the end (0: the count has
 * not begun). */
uint32_t gate_failed_in_row(const struct gate *gate, size_t probe);
uint32_t gate_failures_allowed(const struct gate *gate, size_t probe);

/* Why it is unhealthy. */
struct gate_blame {
    size_t probe;    /* SIZE_MAX: none alone, they never passed all at once for long enough */
    bool deadline;   /* the deadline passed */
    bool conclusive; /* one failure was enough */
    uint32_t in_row;
};
struct gate_blame gate_blame(const struct gate *gate);

#endif
