/* The pipeline's first half: connect, look, lock, copy, root. Nothing on the host changes before
 * the lock, and what the lock allows (a copy into the store, a root) is harmless alone.
 */
#include "core/host_internal.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/status.h"

#define BOOT_ENTRY_BYTES 16384 /* a menu entry and the default, with blocks to spare */
#define LOCK_RETRY_MS    2000u
/* `substitute: auto`: one that doesn't answer costs five seconds, once, and no copy. */
#define SUBSTITUTE_QUICKLY                                                                         \
    " --option connect-timeout 5 --option download-attempts 1 --option fallback true"

enum step_result step_connect(struct host *host) {
    return host_go(host, STEP_INSPECT);
}

/* `--lock-timeout`: asks again in a while, unless the time is over. */
static bool wait_for_other_run(struct host *host) {
    uint64_t now = host_now(host);
    if (host->plan.run->lock_timeout_ms == 0) {
        return false;
    }
    if (host->lock_wait_until_ms == 0) {
        host->lock_wait_until_ms = now + host->plan.run->lock_timeout_ms;
    }
    if (now >= host->lock_wait_until_ms) {
        return false;
    }
    host->op_started = false;
    host_pause(host, LOCK_RETRY_MS);
    return true;
}

/* ---- inspect ---- */

static void keep_failed_units(struct host *host, const struct target_reply *reply) {
    for (size_t i = 0; i < host->failed_before_count; i++) {
        free(host->failed_before[i]);
    }
    host->failed_before_count = 0;
    const char *unit;
    while ((unit = target_reply_nth(reply, "failed", host->failed_before_count)) != NULL) {
        host->failed_before = xrealloc(host->failed_before, (host->failed_before_count + 1) *
                                                                sizeof(*host->failed_before));
        host->failed_before[host->failed_before_count++] = xstrdup(unit);
    }
}

/* Into the journal: after a reboot nobody else knows. */
static void tell_failed_units(struct host *host) {
    struct buf line = BUF_INIT;
    for (size_t i = 0; i < host->failed_before_count; i++) {
        buf_printf(&line, "%s%s", i > 0 ? " " : "", host->failed_before[i]);
    }
    host_log(host, STREAM_UNITS_BEFORE, line.data, line.len);
    buf_free(&line);
}

static void keep_facts(struct host *host, const struct target_reply *reply) {
    host_set_string(&host->current, target_reply_get(reply, "current"));
    host_set_string(&host->booted, target_reply_get(reply, "booted"));
    host_set_string(&host->profile, target_reply_get(reply, "profile"));
    host_set_string(&host->profile_before, host->profile);
    host_set_string(&host->nix_store, target_reply_get(reply, "nix_store"));
    host_set_string(&host->boot_id, target_reply_get(reply, "boot_id"));
    host->generation = target_reply_number(reply, "generation", 0);
    host->systemd = host_says(reply, "systemd", "yes");
    host->valid_there = host_says(reply, "valid", "yes");
    host->reboot_needed = host_says(reply, "reboot_needed", "yes");
    keep_failed_units(host, reply);
}

/* What another run's guard is about to do, in words. */
static void describe_guard(struct buf *out, const struct target_reply *reply) {
    struct guard_state state;
    guard_state_parse(target_reply_get(reply, "guard"), &state);
    switch (state.phase) {
    case GUARD_NONE:
    case GUARD_ACTIVATING:
        buf_add_text(out, "activates its version");
        return;
    case GUARD_ACTIVE: {
        int64_t left = status_guard_left_s(reply);
        buf_add_text(out, "proves its version and waits to be confirmed");
        if (left >= 0) {
            buf_printf(out, ", or goes back by itself in %lld s", (long long)left);
        }
        return;
    }
    case GUARD_COMMITTING:
    case GUARD_COMMITTED:
        buf_add_text(out, "keeps its version, which takes a moment");
        return;
    case GUARD_REVERTING:
    case GUARD_REVERTED:
    case GUARD_REVERT_FAILED:
        buf_add_text(out, "goes back to the version before");
        return;
    case GUARD_INERT:
        buf_add_text(out, "has done nothing and ends");
        return;
    }
}

static enum step_result refuse_guard(struct host *host, const struct target_reply *reply) {
    struct buf doing = BUF_INIT;
    const char *run = target_reply_get(reply, "guard_run");
    const char *holder = target_reply_get(reply, "lock_run");
    const char *who = run != NULL && holder != NULL && strcmp(run, holder) == 0
                          ? target_reply_get(reply, "lock_who")
                          : NULL;
    const char *since = target_reply_get(reply, "lock_since");
    const char *id = target_reply_get(reply, "lock_id");
    describe_guard(&doing, reply);
    if (who != NULL && since != NULL && id != NULL) {
        buf_printf(&doing,
                   ". Held by %s since %s; if that run is dead and its guard has ended: fleet "
                   "unlock %s --id %s",
                   who, since, host->plan.inv->name, id);
    }
    bool named = run != NULL && run[0] != '\0';
    enum step_result result =
        host_failf(host, FLEET_ERR_LOCKED, "locked",
                   "run %s is at work here: wait for it, use --lock-timeout, or take it up with "
                   "`fleet resume%s%s`. "
                   "Its guard %s",
                   named ? run : "(unknown)", named ? " " : "", named ? run : "", buf_text(&doing));
    buf_free(&doing);
    return result;
}

/* The reasons to touch nothing at all, each with its remedy. */
static enum step_result refuse(struct host *host, const struct target_reply *reply) {
    const char *name = host->plan.inv->name;
    if (target_reply_number(reply, "uid", 0) != 0) {
        return host_failf(
            host, FLEET_ERR_REMOTE, "not-root",
            "the account is not root there: set `sudo: true` for %s, or `user` to one "
            "that may",
            name);
    }
    if (host->nix_store == NULL || host->nix_store[0] == '\0') {
        return host_failf(host, FLEET_ERR_REMOTE, "no-nix",
                          "no nix-store program was found there (looked in "
                          "/run/current-system/sw/bin, the Nix profiles and PATH): install Nix");
    }
    return host_says(reply, "guard_alive", "yes") ? refuse_guard(host, reply) : STEP_DONE;
}

enum step_result step_inspect(struct host *host) {
    if (host->pausing) {
        return STEP_AGAIN;
    }
    if (host_op_begin(host)) {
        struct target_env env = host_target_env(host);
        target_inspect(host->link.shell, &env, host->desired, host_on_reply, host);
        return STEP_AGAIN;
    }
    if (!host->op_done) {
        return STEP_AGAIN;
    }
    if (host->op_err != 0) {
        return host_fail(host, &host->op_error);
    }
    keep_facts(host, host->reply);
    if (host->adopted) {
        host_resume_failed_before(host);
    }
    /* A guard without a record has done its work and is on its way out: a moment later it is gone. */
    if (host_says(host->reply, "guard_alive", "yes") &&
        host_says(host->reply, "guard_record", "no") && host_try_again(host)) {
        return STEP_AGAIN;
    }
    if (host_resume_is_due(host)) {
        return host_go(host, STEP_ADOPT);
    }
    if (host_says(host->reply, "guard_alive", "yes") && wait_for_other_run(host)) {
        return STEP_AGAIN;
    }
    if (refuse(host, host->reply) == STEP_FAILED) {
        return STEP_FAILED;
    }
    if (host_says(host->reply, "guard_record", "yes")) {
        return host_go(host, STEP_REPAIR);
    }
    if (host->failed_before_count > 0) {
        host->sink.unhealthy_before(host->plan.index, host->sink.arg);
        if (!host->adopted) {
            tell_failed_units(host);
        }
    }
    if (host->plan.run->action == ACTION_REBOOT) {
        return host_begin_reboot(host);
    }
    bool choose = host->plan.run->action == ACTION_ROLLBACK && host->desired == NULL;
    return host_go(host, choose ? STEP_CHOOSE : STEP_AWAIT_BUILD);
}

/* A power cut in an earlier run left a guard's record: finish what it says first. */
enum step_result step_repair(struct host *host) {
    if (host_op_begin(host)) {
        if (++host->repair_tries > HOST_REPAIRS) {
            return host_unfinished(host);
        }
        struct target_env env = host_target_env(host);
        target_repair(host->link.shell, &env, "", host_on_reply, host);
        return STEP_AGAIN;
    }
    if (!host->op_done) {
        return STEP_AGAIN;
    }
    if (host->op_err != 0) {
        return host_fail(host, &host->op_error);
    }
    const char *finished = target_reply_get(host->reply, "finished");
    char *line = xasprintf("an earlier activation was left half done (power cut?); finished: %s",
                           finished != NULL ? finished : "nothing");
    host_log(host, "fleet", line, strlen(line));
    free(line);
    return host_go(host, STEP_INSPECT);
}

/* ---- what to run ---- */

/* The path of generation `wanted` (0: the highest below the current one); NULL if there is none. */
static const char *find_generation(struct host *host, int64_t *wanted) {
    const char *line;
    const char *found = NULL;
    int64_t best = 0;
    for (size_t i = 0; (line = target_reply_nth(host->reply, "gen", i)) != NULL; i++) {
        char *end = NULL;
        int64_t number = strtoll(line, &end, 10);
        const char *path = strrchr(line, ' ');
        bool fits = *wanted > 0 ? number == *wanted : number < host->generation && number > best;
        if (path != NULL && fits) {
            best = number;
            found = path + 1;
        }
    }
    *wanted = best;
    return found;
}

/* `fleet rollback` without a path: the host's own list of generations decides. */
enum step_result step_choose(struct host *host) {
    if (host_op_begin(host)) {
        struct target_env env = host_target_env(host);
        target_generations(host->link.shell, &env, host_on_reply, host);
        return STEP_AGAIN;
    }
    if (!host->op_done) {
        return STEP_AGAIN;
    }
    if (host->op_err != 0) {
        return host_fail(host, &host->op_error);
    }
    const char *path = find_generation(host, &host->to_generation);
    if (path == NULL || !store_path_is_valid(path)) {
        return host_failf(
            host, FLEET_ERR_REMOTE, "no-generation",
            "there is no such generation to go back to (the current one is %lld): see "
            "`fleet generations %s`",
            (long long)host->generation, host->plan.inv->name);
    }
    host_set_string(&host->desired, path);
    host->source = (struct host_source){.kind = HOST_SOURCE_TARGET};
    return host_go(host, STEP_AWAIT_BUILD);
}

enum step_result step_await_build(struct host *host) {
    if (host->desired == NULL) {
        return STEP_AGAIN;
    }
    bool committed = host_same(host->profile, host->desired);
    if (host_same(host->current, host->desired) && committed) {
        if (host_has_secrets(host, SECRETS_ALONE)) {
            return host_go(host, STEP_SECRETS);
        }
        host_set_end(host, HOST_UNCHANGED, "runs %s already", host->desired);
        return host_go(host, STEP_END);
    }
    bool look = host->plan.run->action != ACTION_PUSH &&
                host->plan.run->action != ACTION_DRY_ACTIVATE &&
                host->plan.inv->policy.tolerate_preexisting && host->plan.inv->health_count > 0;
    return host_go(host, look ? STEP_LOOK : STEP_AWAIT_COPY);
}

/* One round of every probe before anything changes: what fails now is not the update's fault. */
enum step_result step_look(struct host *host) {
    if (!host_health_look(host, LOOK_ONCE)) {
        return STEP_AGAIN;
    }
    if (host->health_bad) {
        host->sink.unhealthy_before(host->plan.index, host->sink.arg);
    }
    host_health_stop(host);
    return host_go(host, STEP_AWAIT_COPY);
}

enum step_result step_await_copy(struct host *host) {
    host_health_stop(host);
    if (host->plan.run->action == ACTION_REBOOT) {
        return host_go(host, STEP_AWAIT_REBOOT);
    }
    return host_granted(host, ACT_COPY) ? host_go(host, STEP_LOCK) : STEP_AGAIN;
}

/* ---- lock ---- */

enum step_result host_lock_is_held(struct host *host) {
    const struct target_reply *reply = host->reply;
    const char *id = target_reply_get(reply, "lock_id");
    const char *run = target_reply_get(reply, "lock_run");
    const char *who = target_reply_get(reply, "lock_who");
    const char *since = target_reply_get(reply, "lock_since");
    if (wait_for_other_run(host)) {
        return STEP_AGAIN;
    }
    if (host_same(run, host->plan.run->run)) {
        return host_failf(host, FLEET_ERR_LOCKED, "locked",
                          "this run is at work on the same machine under another name: take one of "
                          "the two names out of the inventory, or use --lock-timeout. Nothing was "
                          "done as %s",
                          host->plan.inv->name);
    }
    return host_failf(host, FLEET_ERR_LOCKED, "locked",
                      "held by %s since %s (run %s): wait for it, use --lock-timeout, or if it is "
                      "dead: fleet unlock %s --id %s",
                      who != NULL ? who : "somebody", since != NULL ? since : "?",
                      run != NULL ? run : "?", host->plan.inv->name, id != NULL ? id : "?");
}

enum step_result step_lock(struct host *host) {
    if (host->pausing) {
        return STEP_AGAIN;
    }
    if (host_op_begin(host)) {
        struct target_lock lock = host_target_lock(host);
        target_lock_take(host->link.shell, &lock, host_on_reply, host);
        return STEP_AGAIN;
    }
    if (!host->op_done) {
        return STEP_AGAIN;
    }
    if (host->op_err != 0) {
        return host_fail(host, &host->op_error);
    }
    if (!host_says(host->reply, "lock", "ok")) {
        return host_lock_is_held(host);
    }
    const char *lapsed = target_reply_get(host->reply, "lock_lapsed");
    if (lapsed != NULL && lapsed[0] != '\0') {
        char *line = xasprintf("took over a lock whose lease had lapsed: %s", lapsed);
        host_log(host, "fleet", line, strlen(line));
        free(line);
    }
    host->locked = true;
    host->lock_lost = false;
    if (host->going_back) {
        return host_go(host, STEP_GUARD_START);
    }
    if (host_is_alone(host)) {
        return host_go(host, STEP_UPLOAD);
    }
    return host_go(host, host->plan.run->action == ACTION_REBOOT ? STEP_REBOOT : STEP_COPY);
}

/* ---- copy ---- */

static void on_copy_progress(const struct copy_progress *progress, void *arg) {
    struct host *host = arg;
    struct event *event = event_new(EVENT_COPY);
    event->host = xstrdup(host->plan.inv->name);
    event->ts_ms = clock_wall_ms(host->env.clock);
    event->bytes_done = progress->bytes_done;
    event->bytes_total = progress->bytes_total;
    event->paths_done = progress->paths_done;
    event->paths_total = progress->paths_total;
    if (progress->paths_done > 0) {
        host->restarts =
            0; /* it gets on: a line that breaks now and then is no reason to give up */
    }
    host->sink.event(event, host->sink.arg);
}

static void on_copy_done(const struct copy_progress *progress, void *arg) {
    struct host *host = arg;
    if (progress->paths_total > 0) {
        on_copy_progress(progress, host);
    }
    host->op_done = true;
    host->op_err = 0;
    host_drive(host);
}

static void on_copy_failed(const struct error *error, void *arg) {
    struct host *host = arg;
    copy_close(host->copy);
    host->copy = NULL;
    host->op_done = true;
    host->op_error = *error;
    host->op_err = error->code;
    host_drive(host);
}

static void on_copy_log(const char *line, size_t len, void *arg) {
    host_log(arg, "nix", line, len);
}

static const struct copy_handlers copy_handlers = {.on_progress = on_copy_progress,
                                                   .on_done = on_copy_done,
                                                   .on_failed = on_copy_failed,
                                                   .on_log = on_copy_log};

/* With a cache of its own the target fetches from there, first or only; that it was asked for a path
 * an hour ago doesn't count, since the cache has just been filled. */
static char *serve_command(const struct host *host) {
    const struct inv_copy *copy = &host->plan.inv->copy;
    struct buf command = BUF_INIT;
    buf_printf(&command, "%s --serve --write", host->nix_store);
    if (copy->substitute == INV_SUBSTITUTE_AUTO || copy->cache_push != NULL) {
        buf_add_text(&command, SUBSTITUTE_QUICKLY);
    }
    if (copy->cache_push != NULL) {
        buf_printf(&command,
                   " --option %s %s --option extra-trusted-public-keys %s"
                   " --option narinfo-cache-negative-ttl 0",
                   copy->substitute == INV_SUBSTITUTE_NO ? "substituters" : "extra-substituters",
                   copy->cache_substituter, copy->cache_public_key);
    }
    return buf_take(&command);
}

static enum step_result begin_copy(struct host *host, struct copier *copier) {
    static const enum copy_compress compress[] = {
        [INV_COMPRESS_NONE] = COPY_COMPRESS_NONE,
        [INV_COMPRESS_AUTO] = COPY_COMPRESS_AUTO,
        [INV_COMPRESS_ZSTD] = COPY_COMPRESS_ZSTD,
    };
    host->op_started = true;
    host->op_done = false;
    enum inv_substitute substitute = host->plan.inv->copy.substitute;
    char *command = serve_command(host);
    struct copy_options options = {.command = command,
                                   .elevation = host->plan.elevation,
                                   .substitute = substitute != INV_SUBSTITUTE_NO ||
                                                 host->plan.inv->copy.cache_push != NULL,
                                   .compress = compress[host->plan.inv->copy.compress],
                                   .max_rate = host->plan.inv->copy.max_rate};
    if (host->connects > 1) {
        host_renew_lock(host); /* this ends the lost connection there, whose import holds locks */
    }
    host->copy = copy_start(copier, host->link.conn, host->desired, &options, &copy_handlers, host);
    free(command);
    return STEP_AGAIN;
}

/* Only what is already there: a rollback, or what was built on the host itself. */
static bool nothing_to_copy(const struct host *host) {
    return host->source.kind == HOST_SOURCE_TARGET;
}

enum step_result step_copy(struct host *host) {
    if (host->lock_lost) {
        return host_failf(host, FLEET_ERR_LOCKED, "lock-lost",
                          "another run took the lock over while this one was away; nothing was "
                          "activated. Start the update again when that run has ended");
    }
    if (nothing_to_copy(host)) {
        return host_go(host, STEP_ROOT);
    }
    if (!host->op_started) {
        struct error error = ERROR_INIT;
        struct copier *copier = host->env.copier(&host->source, &error, host->env.arg);
        if (copier == NULL) {
            return error.code != 0 ? host_fail(host, &error) : STEP_AGAIN;
        }
        return begin_copy(host, copier);
    }
    if (!host->op_done) {
        return STEP_AGAIN;
    }
    if (host->op_err == 0) {
        host->copied = true;
        return host_go(host, STEP_ROOT);
    }
    return host_fail(host, &host->op_error);
}

/* ---- root ---- */

/* What can't be committed is not activated: a full /boot is the classic. False when it is full;
 * the failure is recorded. */
static bool boot_has_room(struct host *host) {
    enum run_action action = host->plan.run->action;
    int64_t free_bytes = target_reply_number(host->reply, "free_boot", -1);
    int64_t need = target_reply_number(host->reply, "boot_need", 0) + BOOT_ENTRY_BYTES;
    bool commits = action == ACTION_SWITCH || action == ACTION_BOOT || action == ACTION_ROLLBACK;
    if (!commits || free_bytes < 0 || free_bytes >= need) {
        return true;
    }
    host_failf(host, FLEET_ERR_SPACE, "boot-full",
               "/boot has %lld bytes free and the new system needs %lld there: nothing was "
               "activated. Remove old generations or other files there, then run again",
               (long long)free_bytes, (long long)need);
    return false;
}

/* The copy's channel holds the paths (lock=1) until a named root does. */
enum step_result step_root(struct host *host) {
    if (host_op_begin(host)) {
        target_stage(host->link.shell, host->plan.run->run, host->desired, true, host_on_reply,
                     host);
        return STEP_AGAIN;
    }
    if (!host->op_done) {
        return STEP_AGAIN;
    }
    if (host->op_err != 0) {
        return host_fail(host, &host->op_error);
    }
    if (host->copy != NULL) {
        copy_close(host->copy);
        host->copy = NULL;
    }
    if (!boot_has_room(host)) {
        return STEP_FAILED;
    }
    switch (host->plan.run->action) {
    case ACTION_PUSH:
        host_set_end(host, HOST_STAGED, "copied and kept from garbage collection: %s",
                     host->desired);
        return host_go(host, STEP_END);
    case ACTION_DRY_ACTIVATE:
        return host_go(host, STEP_DRY_RUN);
    case ACTION_SWITCH:
    case ACTION_BOOT:
    case ACTION_TEST:
    case ACTION_BUILD:
    case ACTION_ROLLBACK:
    case ACTION_REBOOT:
    case ACTION_COUNT:
        break;
    }
    return host_go(host, STEP_AWAIT_ACTIVATE);
}

enum step_result step_dry_run(struct host *host) {
    if (host_op_begin(host)) {
        target_dry_activate(host->link.shell, host->desired,
                            host->plan.inv->policy.activate_timeout_ms, host_on_reply, host);
        return STEP_AGAIN;
    }
    if (!host->op_done) {
        return STEP_AGAIN;
    }
    if (host->op_err != 0) {
        return host_fail(host, &host->op_error);
    }
    const char *line;
    for (size_t i = 0; (line = target_reply_nth(host->reply, "log", i)) != NULL; i++) {
        host_log(host, "dry-activate", line, strlen(line));
    }
    int64_t rc = target_reply_number(host->reply, "rc", -1);
    if (rc != 0) {
        return host_failf(host, FLEET_ERR_REMOTE, "dry-activate-failed",
                          "switch-to-configuration dry-activate ended with %lld", (long long)rc);
    }
    host_set_end(host, HOST_STAGED, "dry-activate: nothing was changed");
    return host_go(host, STEP_END);
}

enum step_result step_await_activate(struct host *host) {
    if (host->lock_lost) {
        return host_failf(host, FLEET_ERR_LOCKED, "lock-lost",
                          "another run took the lock over; nothing was activated");
    }
    if (!host->wanted) {
        host->env.nonce(host->nonce, host->env.arg);
    }
    if (!host_granted(host, ACT_ACTIVATE)) {
        return STEP_AGAIN;
    }
    if (host_has_secrets(host, SECRETS_BEFORE)) {
        return host_go(host, STEP_SECRETS_BEFORE);
    }
    enum run_action action = host->plan.run->action;
    bool now = action == ACTION_BOOT || (!host->plan.inv->policy.rollback && action != ACTION_TEST);
    return host_go(host, now ? STEP_COMMIT_NOW : STEP_GUARD_START);
}
