/* The scripts that ask and change a target, all but the guard's (core/target_guard.c).
 *
 * Each operation is a struct target_call: which parts of core/target/ it needs, its arguments, its
 * deadline. What the answers mean stands in target.h and at the head of each script.
 */
#include "core/target.h"

#include "core/base/buf.h"
#include "core/base/text.h"
#include "core/target_call.h"
#include "target_script.h"

/* What a script may take that does nothing long: a slow disk, a first systemctl, a queue for the
 * lock. */
#define SHORT_TIMEOUT_MS 60000u

static const char *profile_of(const struct target_env *env) {
    return env != NULL && env->profile != NULL ? env->profile : TARGET_PROFILE_DEFAULT;
}

void target_inspect(struct shell *shell, const struct target_env *env, const char *desired,
                    target_done done, void *arg) {
    struct target_call call = {.what = "the look at the host",
                               .parts = {target_script_lock, target_script_inspect},
                               .timeout_ms = SHORT_TIMEOUT_MS,
                               .done = done,
                               .arg = arg};
    target_call_set(&call, "PROFILE", profile_of(env));
    target_call_set(&call, "DESIRED", desired);
    target_call_send(&call, shell);
}

void target_lock_take(struct shell *shell, const struct target_lock *lock, target_done done,
                      void *arg) {
    struct target_call call = {.what = "taking the host's lock",
                               .parts = {target_script_lock, target_script_lock_take},
                               .timeout_ms = SHORT_TIMEOUT_MS,
                               .done = done,
                               .arg = arg};
    target_call_plain(&call, "LOCK_ID", lock->id);
    target_call_plain(&call, "LOCK_RUN", lock->run);
    target_call_plain(&call, "LOCK_WHO", lock->who);
    target_call_number(&call, "LEASE_MS", (int64_t)lock->lease_ms);
    target_call_plain(&call, "RENEW", lock->renew ? "yes" : "no");
    target_call_plain(&call, "FIRST", lock->first ? "yes" : "no");
    target_call_send(&call, shell);
}

void target_lock_release(struct shell *shell, const char *id, target_done done, void *arg) {
    struct target_call call = {.what = "releasing the host's lock",
                               .parts = {target_script_lock, target_script_lock_release},
                               .timeout_ms = SHORT_TIMEOUT_MS,
                               .done = done,
                               .arg = arg};
    target_call_plain(&call, "LOCK_ID", id);
    target_call_send(&call, shell);
}

void target_stage(struct shell *shell, const char *run, const char *path, bool clean,
                  target_done done, void *arg) {
    struct target_call call = {.what = "keeping the staged system",
                               .parts = {target_script_stage},
                               .timeout_ms = SHORT_TIMEOUT_MS,
                               .done = done,
                               .arg = arg};
    target_call_plain(&call, "STAGE_RUN", run);
    target_call_set(&call, "STAGE_PATH", path);
    target_call_set(&call, "CLEAN", clean ? "yes" : "no");
    target_call_send(&call, shell);
}

void target_unstage(struct shell *shell, const char *run, target_done done, void *arg) {
    struct target_call call = {.what = "giving up the staged system",
                               .parts = {target_script_unstage},
                               .timeout_ms = SHORT_TIMEOUT_MS,
                               .done = done,
                               .arg = arg};
    target_call_plain(&call, "STAGE_RUN", run);
    target_call_send(&call, shell);
}

void target_dry_activate(struct shell *shell, const char *path, uint64_t timeout_ms,
                         target_done done, void *arg) {
    struct target_call call = {.what = "the dry activation",
                               .parts = {target_script_dry_activate},
                               .timeout_ms = timeout_ms + SHORT_TIMEOUT_MS,
                               .done = done,
                               .arg = arg};
    target_call_set(&call, "NEW", path);
    target_call_seconds(&call, "SECONDS_MAX", timeout_ms);
    target_call_send(&call, shell);
}

void target_reboot(struct shell *shell, target_done done, void *arg) {
    struct target_call call = {.what = "the reboot",
                               .parts = {target_script_reboot},
                               .timeout_ms = SHORT_TIMEOUT_MS,
                               .done = done,
                               .arg = arg};
    target_call_send(&call, shell);
}

void target_units(struct shell *shell, const char *const *globs, size_t glob_count,
                  target_done done, void *arg) {
    struct target_call call = {.what = "the look at the units",
                               .parts = {target_script_units},
                               .timeout_ms = SHORT_TIMEOUT_MS,
                               .done = done,
                               .arg = arg};
    struct buf lines = BUF_INIT;
    for (size_t i = 0; i < glob_count; i++) {
        buf_printf(&lines, "%s\n", globs[i]);
    }
    target_call_set(&call, "GLOBS", buf_text(&lines));
    target_call_send(&call, shell);
    buf_free(&lines);
}

void target_run(struct shell *shell, const char *const *argv, size_t argc, uint64_t timeout_ms,
                target_done done, void *arg) {
    struct target_call call = {.what = "the command",
                               .parts = {target_script_run},
                               .timeout_ms = timeout_ms + 10000u,
                               .done = done,
                               .arg = arg};
    struct buf words = BUF_INIT;
    for (size_t i = 0; i < argc; i++) {
        text_shell_quote(&words, argv[i]);
        buf_add_char(&words, ' ');
    }
    target_call_set(&call, "COMMAND", buf_text(&words));
    target_call_seconds(&call, "SECONDS_MAX", timeout_ms);
    target_call_send(&call, shell);
    buf_free(&words);
}

void target_generations(struct shell *shell, const struct target_env *env, target_done done,
                        void *arg) {
    struct target_call call = {.what = "the list of generations",
                               .parts = {target_script_generations},
                               .timeout_ms = SHORT_TIMEOUT_MS,
                               .done = done,
                               .arg = arg};
    target_call_set(&call, "PROFILE", profile_of(env));
    target_call_send(&call, shell);
}
