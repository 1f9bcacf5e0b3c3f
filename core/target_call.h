/* One script on its way to a target: put together, sent, its answer parsed (core/target*.c only). */
#ifndef FLEET_CORE_TARGET_CALL_H
#define FLEET_CORE_TARGET_CALL_H

#include "core/base/buf.h"
#include "core/target.h"

#define TARGET_PROFILE_DEFAULT "/nix/var/nix/profiles/system"

#define TARGET_PARTS_MAX 4
#define TARGET_VARS_MAX  20

/* Filled by the caller with designated initialisers and counted adds; values are borrowed until
 * target_call_send has returned. */
struct target_call {
    const char *what; /* "the guard's start": for messages */
    const char *parts[TARGET_PARTS_MAX];
    uint64_t timeout_ms;
    struct shell_var vars[TARGET_VARS_MAX];
    size_t var_count;
    struct buf texts[TARGET_VARS_MAX]; /* values that were made here */
    size_t text_count;
    target_done done;
    void *arg;
};

/* An argument of the script; NULL counts as "". */
void target_call_set(struct target_call *call, const char *name, const char *value);
void target_call_number(struct target_call *call, const char *name, int64_t value);
/* Milliseconds as timeout(1) reads seconds: "3.500". */
void target_call_seconds(struct target_call *call, const char *name, uint64_t ms);
/* For one line of a record and for JSON: everything but letters, digits and "@._:+/=?,~- " becomes
 * '_', and it is cut to 200 bytes. */
void target_call_plain(struct target_call *call, const char *name, const char *value);
/* The text of guard.sh, as GUARD_SH. */
void target_call_guard(struct target_call *call);
/* Sends it and frees what the call has made. */
void target_call_send(struct target_call *call, struct shell *shell);

#endif
