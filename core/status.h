/* What a host says of itself, judged: what it runs, what it should run, and how the two differ.
 *
 * Pure: reads the answer of target_inspect and the inventory, and nothing else. Used by `status`.
 */
#ifndef FLEET_CORE_STATUS_H
#define FLEET_CORE_STATUS_H

#include "core/target.h"
#include "inventory/inventory.h"

/* Each makes a host out of sync. The codes are those of `drift` in `status --json`. */
enum drift {
    DRIFT_NOT_COMMITTED,     /* runs something else than its profile */
    DRIFT_NOT_DESIRED,       /* profile is not the desired system */
    DRIFT_NOT_DEPLOYED,      /* profile is not what fleet deployed last */
    DRIFT_NEVER_DEPLOYED,    /* the desired system is unknown and fleet never deployed here */
    DRIFT_RECORD_UNREADABLE, /* the same, and what fleet deployed last can't be read there */
    DRIFT_SWITCH_BUSY,       /* somebody activates a system there, without fleet */
    DRIFT_GUARD_ACTIVE,      /* a guard is at work: an update is under way */
    DRIFT_COMMIT_UNFINISHED, /* a guard's record without a guard: a commit or a way back was cut off */
    DRIFT_COUNT
};
/* "not-committed" */
const char *drift_code(enum drift drift);
/* "runs something else than its profile: activated and not committed, or changed by hand" */
const char *drift_words(enum drift drift);

/* The record of the last deployment; NULL and false where there is none. */
struct status_deployment {
    char *path, *rev, *who, *when, *run;
    bool dirty;
    bool unreadable; /* there is one, half written or of a newer fleet */
};

struct status {
    /* Borrowed from the reply; "" where the host doesn't know. */
    const char *current, *booted, *profile, *boot_id, *nix;
    int64_t generation;  /* 0: the profile is no generation */
    int64_t free_bytes;  /* of /nix; -1 unknown */
    const char *desired; /* borrowed from the caller; NULL: not known */
    struct status_deployment deployed;
    bool drift[DRIFT_COUNT];
    bool in_sync;
    bool reboot_needed;
    bool has_nix;
    /* Who holds the host; id NULL: nobody. */
    const char *lock_id, *lock_run, *lock_who, *lock_since;
    int64_t lock_expires_s; /* negative: lapsed */
    /* The guard at work; GUARD_NONE: none. */
    enum guard_phase guard;
    struct guard_state guard_says; /* with its phase */
    int64_t guard_deadline_s;      /* till it goes back by itself; -1: none */
};

/* Judges a reply of target_inspect. `desired` may be NULL. Release with status_release; the reply
 * must live as long. */
void status_read(const struct target_reply *reply, const char *desired, struct status *ret);
void status_release(struct status *status);

/* Seconds till the guard that is active goes back by itself, by a reply of target_inspect; -1 where
 * there is none or it doesn't say. */
int64_t status_guard_left_s(const struct target_reply *reply);

/* The system that the host shall run, as far as it is known without evaluating anything; or NULL. */
const char *status_desired(const struct inv_host *host);

#endif
