/* What fleet asks a target to do: the scripts in core/target, their variables and their answers.
 *
 * Every script runs in the root shell of transport/shell.h and answers with lines `key value`
 * (value: the rest of the line; cleaned and bounded here). The scripts need /bin/sh and nothing
 * else at a fixed path; they set PATH themselves (DESIGN, step 5).
 *
 * On the target:
 *   /run/fleet/lock          who holds the host; every change under flock on /run/fleet/lock.flock
 *   /run/fleet/guard/        0700: state (written by the guard alone), renew, commit, abort, leave (written
 *                            by the operator, each holding the activation's nonce), activation.log
 *                            (capped), guard.sh
 *   /var/lib/fleet/guard     the guard's record, on disk before it acts; gone when it is done
 *   /var/lib/fleet/deployed.json  the last complete deployment
 *   /nix/var/nix/gcroots/fleet/   roots: stage-RUN (staged), guard-old, guard-new
 *
 * The guard's `state` file holds one line: `PHASE NONCE KEY=VALUE...`. Phases:
 *   activating   the activation runs
 *   active       it ended well enough (rc=, failed=); waits for renew/commit/abort/leave; deadline= (uptime,
 *                s). With fault=activation|activate-timeout it failed (leave_failed below), and is never committed
 *   committing   from here on requests are ignored; profile and boot default are being written
 *   committed    done; the guard is gone in a moment
 *   reverting    going back (why=activation|activate-timeout|deadline|abort|killed|reboot|power-cut|
 *                commit-failed; rc= and failed= of the activation; from the second try on try=, and
 *                stuck=room|lock|systemd where that is in the way); requests are ignored
 *   reverted     back on the recorded system, profile and boot default as recorded (why=, rc= and
 *                failed= as above, -1 where nobody knows; back_rc= of the way back's own activation;
 *                boot_rc= where rewriting the boot menu failed, and the menu isn't the one from before)
 *   revert-failed   the way back failed (the same, stuck= and current=)
 *   inert        nothing is undone (why=reboot rc=100: reboot required; why=exec rc=126: no program for
 *                this machine; why=leave: left running, not committed, fault= as above or commit-failed;
 *                why=killed or record: the guard ended before it had done anything)
 * With action "committed" the end is `committed` with rc= and, unless the activation went well, why=, and
 * current= where another system than the new one runs.
 */
#ifndef FLEET_CORE_TARGET_H
#define FLEET_CORE_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/buf.h"
#include "core/base/error.h"
#include "transport/shell.h"

/* The answer of a script, parsed. Owns its text. */
struct target_reply;
/* The value of `key`, or NULL. Owned by the reply. */
const char *target_reply_get(const struct target_reply *reply, const char *key);
/* As a number; `missing` where absent or not a number. */
int64_t target_reply_number(const struct target_reply *reply, const char *key, int64_t missing);
/* The i-th value of a key that stands several times, or NULL. Not in a loop over what a host may have
 * made long: that takes the square of it. */
const char *target_reply_nth(const struct target_reply *reply, const char *key, size_t i);
/* The next value of `key`, or NULL; *at is 0 at first. For keys that stand thousands of times. */
const char *target_reply_next(const struct target_reply *reply, const char *key, size_t *at);

/* err 0: the script ran to its end and exited 0. Otherwise `error` holds the reason; `reply` is
 * never NULL and holds what was said. The reply is freed after the call. */
typedef void (*target_done)(int err, const struct target_reply *reply, const struct error *error,
                            void *arg);

/* Where the target keeps things; the tests' lighter hosts may differ. NULL: the defaults above. */
struct target_env {
    const char *profile; /* "/nix/var/nix/profiles/system" */
};

/* One round trip of facts. Keys: current, booted, profile (each a store path or ""), profile_link (system-N-link),
 * generation, boot_id, machine_id, uptime_ms, uid, systemd (yes|no), system_state (systemctl
 * is-system-running), nix_store (absolute path of the program), nix_version, kernel, failed
 * (repeated: a failed unit), guard (the state line, or ""), guard_record (yes|no: a record is left),
 * guard_phase, guard_run, guard_before (of that record: its run, and the units that had failed before), guard_alive (yes|no), lock_* (id, run, who, since, expires_s, pid; absent when free), deployed (the JSON
 * record), deployed_complete (yes|no), roots (repeated), free_nix, free_run, free_boot (bytes),
 * reboot_needed (yes|no: kernel, initrd or kernel-modules of booted and profile differ), valid (yes|no: is DESIRED
 * valid there; only with `desired`), switch_lock (yes|no: NixOS's own switch lock or its unit is busy). */
void target_inspect(struct shell *shell, const struct target_env *env, const char *desired,
                    target_done done, void *arg);

struct target_lock {
    const char *id; /* this run's lock id, [a-z0-9-] */
    const char *run;
    const char *who; /* user@machine pid, cleaned */
    uint64_t lease_ms;
    bool first; /* nobody held it for this run before: a lock of this run is of this very machine,
                   under another name of the inventory, and held */
    bool renew; /* only where the id is still ours; else lock says "lost" */
};
/* Takes, or renews where the id is ours, and then ends the connection over which it was taken, if
 * that was another one. Keys: lock ("ok" | "held" | "lost"), and where held the holder's lock_* keys. A lapsed lease is taken over (lock_lapsed: the old holder); one with a live guard of another run never (lock_guard yes). Another
 * id of the same run is taken over at once. */
void target_lock_take(struct shell *shell, const struct target_lock *lock, target_done done,
                      void *arg);
/* Lets go, if the id is ours. */
void target_lock_release(struct shell *shell, const char *id, target_done done, void *arg);

/* Roots `path` as gcroots/fleet/stage-RUN (and removes other runs' stage roots when `clean`). Keys:
 * free_boot (bytes, absent without /boot), boot_need (bytes of kernel and initrd that are not there). */
void target_stage(struct shell *shell, const char *run, const char *path, bool clean,
                  target_done done, void *arg);
void target_unstage(struct shell *shell, const char *run, target_done done, void *arg);

struct target_activation {
    const char *nonce; /* [a-z0-9]{16,} of this activation */
    const char *run;
    const char *lock_id; /* checked under flock before anything else; "" none */
    const char *path;    /* NEW */
    const char *action;  /* "switch": test, then commit on request; "test": never commits;
                            "committed": NEW is already the profile (rollback: false), no way back */
    uint64_t activate_timeout_ms;
    uint64_t confirm_timeout_ms;
    const char *rev, *who; /* for deployed.json */
    bool dirty;
    /* Going back a committed host: NEW is the recorded old system and the commit is
     * --switch-generation to this instead of --set; 0: not so. */
    int64_t to_generation;
    /* A failed activation after which NEW runs gets a window, in which it can be left, never committed. */
    bool leave_failed;
};
/* Writes guard.sh and its record's input, starts the guard (systemd-run --unit=fleet-guard; setsid where
 * there is no systemd), and answers when it has activated, after half a second at the latest. Keys:
 * guard ("started" | "busy" | "lock-lost" | "no-switch" | "stopping" | "unfinished": a record is left,
 * target_repair first), detail (why it was refused), weak (yes: no systemd), old, generation; where it
 * was started those of target_guard_poll too. */
void target_guard_start(struct shell *shell, const struct target_env *env,
                        const struct target_activation *activation, target_done done, void *arg);

/* Long poll: answers when the state line differs from `seen`, new log text is there (at most every
 * 300 ms), or after `wait_ms` (at most 10 s). Keys: state (the line), log (repeated: a new line of the
 * activation's output), log_offset (to pass next time), alive (yes|no: the unit is there),
 * deadline_ms (till the guard goes back by itself, -1 none), record (yes|no), and when no record is left any more:
 * current, profile, last (the guard's last line in /var/lib/fleet/guard.last). */
void target_guard_poll(struct shell *shell, const char *nonce, const char *seen,
                       uint64_t log_offset, uint64_t wait_ms, target_done done, void *arg);

enum target_request {
    TARGET_RENEW,
    TARGET_COMMIT,
    TARGET_ABORT,
    TARGET_LEAVE
};
/* Leaves a request for the guard with this nonce, and answers as target_guard_poll does, without the
 * log, as soon as the guard has changed its state (has committed, where it was asked to), after half a
 * second at the latest. Key: request
 * ("left" | "refused": no guard of this nonce waits | "lock-lost").
 * Renew also renews the lock. */
void target_guard_request(struct shell *shell, enum target_request request, const char *nonce,
                          const struct target_lock *lock, target_done done, void *arg);

/* For `rollback: false` and `--action boot`: sets the profile and the boot default at once, under
 * the lock id. Keys: rc, generation. */
void target_commit_now(struct shell *shell, const struct target_env *env,
                       const struct target_activation *activation, target_done done, void *arg);

/* A guard's record without a guard (power cut, killed way back): finishes what the record says, by a
 * guard of its own, and waits for it. Forward only where a commit had begun without failing and
 * profile and running system are NEW already; else back. Keys: finished ("forward" | "back" |
 * "nothing" | "failed": the way back failed | "busy": a guard lives | "lock-lost"), current,
 * profile, last (the guard's last line). */
void target_repair(struct shell *shell, const struct target_env *env, const char *lock_id,
                   target_done done, void *arg);

/* dry-activate: NEW/bin/switch-to-configuration dry-activate; keys: rc, log (repeated). */
void target_dry_activate(struct shell *shell, const char *path, uint64_t timeout_ms,
                         target_done done, void *arg);

/* Starts a reboot after this call has answered (systemd: `systemctl --no-block reboot`). */
void target_reboot(struct shell *shell, target_done done, void *arg);

/* Units for the health rule: keys `unit` repeated, each "NAME LOAD ACTIVE SUB NRESTARTS EXECSTATUS
 * ACTIVE_ENTER_MS INVOCATION" for every unit that is failed or auto-restarting, or matches `globs` (quoted here);
 * `changed` repeated: units that the running activation stopped, started, restarted, reloaded. */
void target_units(struct shell *shell, const char *const *globs, size_t glob_count,
                  target_done done, void *arg);

/* Runs argv with a time-out; keys: rc, and the output as `out` lines. */
void target_run(struct shell *shell, const char *const *argv, size_t argc, uint64_t timeout_ms,
                target_done done, void *arg);

/* The profile's generations: `gen` repeated: "N DATE(RFC3339) PATH". */
void target_generations(struct shell *shell, const struct target_env *env, target_done done,
                        void *arg);

/* A guard's state line, parsed. */
enum guard_phase {
    GUARD_NONE,
    GUARD_ACTIVATING,
    GUARD_ACTIVE,
    GUARD_COMMITTING,
    GUARD_COMMITTED,
    GUARD_REVERTING,
    GUARD_REVERTED,
    GUARD_REVERT_FAILED,
    GUARD_INERT
};
struct guard_state {
    enum guard_phase phase;
    char nonce[40];
    int rc;           /* of the activation; -1 unknown */
    int back_rc;      /* of the way back's activation; -1 unknown */
    int tries;        /* of the way back, the one to come included */
    char why[64];     /* see the phases above */
    char fault[32];   /* why an activation failed that may be left; "" it did not, or may not */
    char failed[512]; /* units newly failed, comma separated */
    char stuck[16];   /* what is in the way of the way back */
};
/* A line that isn't one gives GUARD_NONE. */
void guard_state_parse(const char *line, struct guard_state *ret);
const char *guard_phase_name(enum guard_phase phase);
/* What is in the way of its way back, in words; NULL where nothing is known to be. */
const char *guard_stuck_words(const struct guard_state *state);
/* "active", or of a way back that takes longer than one try "reverting, try 4: systemd does not
 * answer there". */
void guard_state_words(const struct guard_state *state, struct buf *out);

#endif
