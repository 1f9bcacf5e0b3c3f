/* The guard as the operator's side sees it: start, follow, ask, commit at once, repair.
 *
 * The operator believes only what the guard writes into `state` (DESIGN, step 5). A request is a
 * file with the activation's nonce; after one was sent and the connection lost, poll again.
 */
#include "core/target.h"

#include "core/base/buf.h"
#include "core/base/xalloc.h"
#include "core/target_call.h"
#include "target_script.h"

#define SHORT_TIMEOUT_MS  60000u
#define POLL_WAIT_MAX_MS  10000u
#define QUICK_MS          500
#define REPAIR_TIMEOUT_MS (15u * 60u * 1000u)

static const char *const request_names[] = {
    [TARGET_RENEW] = "renew",
    [TARGET_COMMIT] = "commit",
    [TARGET_ABORT] = "abort",
    [TARGET_LEAVE] = "leave",
};
_Static_assert(ARRAY_LEN(request_names) == TARGET_LEAVE + 1, "one name a request");

static const char *profile_of(const struct target_env *env) {
    return env != NULL && env->profile != NULL ? env->profile : TARGET_PROFILE_DEFAULT;
}

/* What guard_start.sh and commit_now.sh both read. */
static void set_activation(struct target_call *call, const struct target_env *env,
                           const struct target_activation *activation) {
    target_call_set(call, "PROFILE", profile_of(env));
    target_call_plain(call, "LOCK_ID", activation->lock_id);
    target_call_plain(call, "ACT_RUN", activation->run);
    target_call_plain(call, "NEW", activation->path);
    target_call_number(call, "ACTIVATE_MS", (int64_t)activation->activate_timeout_ms);
    target_call_plain(call, "REV", activation->rev);
    target_call_plain(call, "WHO", activation->who);
    target_call_set(call, "DIRTY", activation->dirty ? "true" : "false");
    target_call_number(call, "TO", activation->to_generation);
}

void target_guard_start(struct shell *shell, const struct target_env *env,
                        const struct target_activation *activation, target_done done, void *arg) {
    struct target_call call = {.what = "the guard's start",
                               .parts = {target_script_lock, target_script_record,
                                         target_script_guard_start, target_script_guard_poll},
                               .timeout_ms = SHORT_TIMEOUT_MS,
                               .done = done,
                               .arg = arg};
    set_activation(&call, env, activation);
    target_call_plain(&call, "NONCE", activation->nonce);
    target_call_plain(&call, "ACTION", activation->action);
    target_call_number(&call, "CONFIRM_MS", (int64_t)activation->confirm_timeout_ms);
    target_call_set(&call, "LEAVE", activation->leave_failed ? "yes" : "no");
    target_call_guard(&call);
    target_call_set(&call, "SEEN", "");
    target_call_set(&call, "OFFSET", "0");
    target_call_number(&call, "WAIT_MS", QUICK_MS);
    target_call_send(&call, shell);
}

void target_guard_poll(struct shell *shell, const char *nonce, const char *seen,
                       uint64_t log_offset, uint64_t wait_ms, target_done done, void *arg) {
    if (wait_ms > POLL_WAIT_MAX_MS) {
        wait_ms = POLL_WAIT_MAX_MS;
    }
    struct target_call call = {.what = "the look at the guard",
                               .parts = {target_script_guard_poll},
                               .timeout_ms = SHORT_TIMEOUT_MS + wait_ms,
                               .done = done,
                               .arg = arg};
    target_call_plain(&call, "NONCE", nonce);
    target_call_set(&call, "SEEN", seen);
    target_call_number(&call, "OFFSET", (int64_t)log_offset);
    target_call_number(&call, "WAIT_MS", (int64_t)wait_ms);
    target_call_send(&call, shell);
}

void target_guard_request(struct shell *shell, enum target_request request, const char *nonce,
                          const struct target_lock *lock, target_done done, void *arg) {
    struct target_call call = {
        .what = "the request to the guard",
        .parts = {target_script_lock, target_script_guard_request, target_script_guard_poll},
        .timeout_ms = SHORT_TIMEOUT_MS,
        .done = done,
        .arg = arg};
    target_call_set(&call, "REQUEST", request_names[request]);
    target_call_plain(&call, "NONCE", nonce);
    target_call_plain(&call, "LOCK_ID", lock != NULL ? lock->id : "");
    target_call_number(&call, "LEASE_MS", lock != NULL ? (int64_t)lock->lease_ms : 0);
    target_call_set(&call, "SEEN", "");
    /* Its log is for the polls, which know how far they have read. */
    target_call_set(&call, "OFFSET", "");
    target_call_set(&call, "WAIT_MS", "0");
    target_call_send(&call, shell);
}

void target_commit_now(struct shell *shell, const struct target_env *env,
                       const struct target_activation *activation, target_done done, void *arg) {
    struct target_call call = {
        .what = "the commit",
        .parts = {target_script_lock, target_script_record, target_script_commit_now},
        .timeout_ms = 2 * activation->activate_timeout_ms + 10 * SHORT_TIMEOUT_MS,
        .done = done,
        .arg = arg};
    set_activation(&call, env, activation);
    target_call_send(&call, shell);
}

void target_repair(struct shell *shell, const struct target_env *env, const char *lock_id,
                   target_done done, void *arg) {
    struct target_call call = {
        .what = "the repair",
        .parts = {target_script_lock, target_script_record, target_script_repair},
        .timeout_ms = REPAIR_TIMEOUT_MS + SHORT_TIMEOUT_MS,
        .done = done,
        .arg = arg};
    target_call_set(&call, "PROFILE", profile_of(env));
    target_call_plain(&call, "LOCK_ID", lock_id);
    target_call_number(&call, "WAIT_MS", (int64_t)REPAIR_TIMEOUT_MS);
    target_call_guard(&call);
    target_call_send(&call, shell);
}
