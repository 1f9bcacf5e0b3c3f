/* The rollout policy: which host may do what, when. Pure: no I/O and no clock; inputs in, decisions out.
 *
 * The coordinator feeds it what happens (hosts move, hosts ask for an act) and drains decisions
 * until there is none. Same inputs, same seed: same decisions. So 10,000 hosts are simulated in a
 * unit test (CONTRACT "policy", FIELD-NOTES "Health gating").
 *
 * Invariants: activation slots and group limits are never exceeded; two hosts of one exclusive
 * group are never in flight together (in flight: from the grant of ACT_ACTIVATE to an end); once a
 * budget is passed no ACT_ACTIVATE is granted; every host ends in exactly one end state; a host is
 * taken back at most once.
 *
 * What the contract leaves open, and how it is here:
 *  - No host is granted its first act before every selected host has answered or ended (has left
 *    HOST_PENDING and HOST_CONNECTING once): who is down may pass the budget.
 *  - The act with which a host's change begins (ACT_ACTIVATE; ACT_COMMIT for `boot`; ACT_REBOOT for
 *    `reboot`) waits for wave and slot; what it asks in flight is answered at once.
 *  - Taking back is bound by exclusive groups and the limits of tags, not by max_parallel and not
 *    by waves: the way back has no canaries, but a group is not taken down whole.
 *  - A wave whose hosts all failed to build, were offline or were taken out by a person says
 *    nothing about the new version, and does not stop the run.
 *  - The last healthy member of an exclusive group or of a tag with max_parallel waits while
 *    another member may come up, and is else skipped, "last-healthy".
 *  - `push`, `build` and `dry-activate` have one wave; `dry-activate` ends with a second
 *    HOST_STAGED, after the try.
 *  - A host in flight that is to go back for the others' sake commits first, then goes back.
 *  - At its end each wave is probed again, once `bake` is over (by default there is none), and
 *    before it waits for promotion. What stops a run cuts that time short, not the look. A host
 *    without probes is left out, but where the wave bakes.
 *  - A run that is drained while it waits for a person stays "paused", exit 6.
 *  - A host may be tried again once it has failed, gone back, not been reached or been skipped, and
 *    has its slot and its wave like any other; where its wave is over it needs no second turn. In a
 *    run that a budget has stopped this takes the run up again: the person knows of the failures
 *    so far, and only one more stops it again. Who was told to be skipped stays so unless it is
 *    tried again, too. A host that is on neither system for sure is not tried again: `resume` asks
 *    it first. Nor is one whose build failed, nor any while the run is drained.
 */
#ifndef FLEET_CORE_ROLLOUT_H
#define FLEET_CORE_ROLLOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/buf.h"
#include "core/base/error.h"
#include "core/state.h"
#include "inventory/inventory.h"

struct rollout;

struct rollout_plan {
    const struct inv_host *const *hosts; /* the selected ones, in the inventory's order; borrowed */
    size_t host_count;
    const struct inv_run_policy *policy; /* borrowed */
    enum run_action action;
    uint64_t seed; /* for order "shuffle" */
    /* To resume a run: each host's wave, from 1, as recorded, without a wave left out; else NULL.
     * Borrowed. */
    const uint32_t *waves;
};

enum rollout_decision_kind {
    /* `host` may do `act`: it asked. */
    ROLLOUT_GRANT,
    /* In answer to a wanted ACT_ROLLBACK, where on_failure is "leave" or the host may not go back
     * (again): disarm and leave, the host ends failed. With `reason` "bake" it did not ask: it was
     * healthy and failed its second probing; it ends failed, too. */
    ROLLOUT_LEAVE,
    /* `host`, healthy and committed, goes back (rollback-wave, rollback-all, R key, a failed second
     * probing). */
    ROLLOUT_TAKE_BACK,
    /* `host` ends skipped, `reason` says why (budget, stopped, last-healthy). It may be connecting,
     * building or copying, and is then cut short. */
    ROLLOUT_SKIP,
    ROLLOUT_WAVE_START, /* `wave` */
    ROLLOUT_BAKE,       /* `wave` bakes until `until_ms` */
    ROLLOUT_REPROBE,    /* `host` is probed again, as its wave ends */
    ROLLOUT_RETRY,      /* `host`, which had ended, begins anew: it is pending again */
    ROLLOUT_WAVE_END,   /* `wave` */
    /* After `wave`, waits for promotion ("promote"), or a person paused ("paused"). */
    ROLLOUT_PAUSE,
    /* No further host begins: "max-failed", "max-unreachable", "no-healthy-host" or "stopped"; the
     * sentence by rollout_waiting. */
    ROLLOUT_STOP,
    ROLLOUT_END /* every host has ended; nothing follows */
};

struct rollout_decision {
    enum rollout_decision_kind kind;
    size_t host; /* index into plan->hosts; 0 where the kind is of no host */
    enum act act;
    size_t wave; /* from 1 */
    uint64_t until_ms;
    const char *reason; /* static, or NULL */
};

/* `plan` is read now and its hosts and policy are borrowed until rollout_free. */
struct rollout *rollout_new(const struct rollout_plan *plan);
void rollout_free(struct rollout *rollout);

/* ---- inputs; `now_ms` is monotonic and never goes back ---- */

/* Begins: the first wave starts. */
void rollout_start(struct rollout *rollout, uint64_t now_ms);
/* Before rollout_start or while the host is connecting: it was unhealthy before the change (goes first). */
void rollout_unhealthy_before(struct rollout *rollout, size_t host);
/* Its login waits for a person, who may take long (a touch on a security key): the others no longer
 * wait until it is known whether it can be reached. */
void rollout_waits_for_person(struct rollout *rollout, size_t host);
/* The host is in a new state; for ends `reason` is the event's reason code ("offline", "locked",
 * "connection-refused", "build-failed", ...). FAILED out of HOST_BUILDING, or with a reason of a
 * build ("build-...", "evaluation-...", "eval-...", "no-tool"), is a failed build: not counted
 * against max_failed. To resume a run, replay each host's journaled states in order before rollout_start:
 * HOST_ACTIVATING for one whose change had begun, then the state that it was left in. One whose
 * change had begun is in flight again, until it ends or, having gone back alone, begins anew with
 * HOST_BUILDING. */
void rollout_moved(struct rollout *rollout, size_t host, enum host_state state, const char *reason,
                   uint64_t now_ms);
/* The host stands still until `act` is granted: ACT_COPY when its desired path is known and differs
 * (prestage and copy_parallel decide), ACT_ACTIVATE when staged, ACT_COMMIT when probed healthy,
 * ACT_ROLLBACK on a verdict, ACT_REBOOT, ACT_SECRET. */
void rollout_wants(struct rollout *rollout, size_t host, enum act act, uint64_t now_ms);
/* The answer to ROLLOUT_REPROBE. */
void rollout_reprobed(struct rollout *rollout, size_t host, bool ok, uint64_t now_ms);

/* Before rollout_start, of a run that is resumed: its first `waves_done` waves are over, baked and
 * all, and nothing is decided about them again. `waits`: the run waits for promotion after them. */
void rollout_resume(struct rollout *rollout, size_t waves_done, bool waits);

enum rollout_control {
    ROLLOUT_CONTROL_PAUSE,   /* no new grants of ACT_ACTIVATE */
    ROLLOUT_CONTROL_PROMOTE, /* go on after PAUSE, whatever caused it */
    ROLLOUT_CONTROL_DRAIN, /* start no more hosts, finish those in flight; the rest end skipped, "stopped" */
    ROLLOUT_CONTROL_TAKE_BACK, /* `host` (or all, SIZE_MAX) */
    ROLLOUT_CONTROL_SKIP       /* `host`, if not started */
};
void rollout_control(struct rollout *rollout, enum rollout_control control, size_t host,
                     uint64_t now_ms);
/* Why that would change nothing for `host` as things stand: a sentence without its name; NULL: it
 * would do something, or SIZE_MAX was given. */
const char *rollout_refusal(const struct rollout *rollout, enum rollout_control control,
                            size_t host);
/* A person has `host`, which has ended, tried again: ROLLOUT_RETRY follows, and it is as if it had
 * not begun. What it came to before is out of the books; its last outcome counts. False, with a
 * sentence in `why`, where it can't be (`why` has no name of the host in it). */
bool rollout_retry(struct rollout *rollout, size_t host, uint64_t now_ms, struct buf *why);
/* Time has passed. */
void rollout_tick(struct rollout *rollout, uint64_t now_ms);

/* ---- outputs ---- */

/* Takes the next decision; false when there is none now. */
bool rollout_next(struct rollout *rollout, struct rollout_decision *ret);
/* When rollout_tick is needed next (now_ms scale), or UINT64_MAX. */
uint64_t rollout_next_tick_ms(const struct rollout *rollout);
size_t rollout_wave_of(const struct rollout *rollout, size_t host); /* from 1 */
size_t rollout_wave_count(const struct rollout *rollout);
size_t rollout_wave_size(const struct rollout *rollout, size_t wave);
size_t rollout_current_wave(const struct rollout *rollout);
enum host_state rollout_state(const struct rollout *rollout, size_t host);
size_t rollout_count(const struct rollout *rollout, enum host_state state);
/* True while `host`, which is healthy, is still to be probed again, at its wave's end: it is not let
 * go before. */
bool rollout_awaits_wave(const struct rollout *rollout, size_t host);
/* failed, rolled_back, ... counted against max_failed; and the budget itself. */
size_t rollout_failures(const struct rollout *rollout);
size_t rollout_failures_allowed(const struct rollout *rollout);
/* Why it is waiting right now, one sentence, never empty ("wave 2 waits for promotion"). */
void rollout_waiting(const struct rollout *rollout, uint64_t now_ms, struct buf *out);
/* The exit code of CONTRACT for the states as they are. `signal` 0, 2 or 15. */
int rollout_exit_code(const struct rollout *rollout, int signal);
/* The same in a word: "done", "failed", "unknown-hosts", "build-failed", "locked", "unreachable",
 * "skipped", "paused", "interrupted". */
const char *rollout_result(const struct rollout *rollout, int signal);

#endif
