/* Staging: lock, copy, root. Nothing on the host changes before the lock, and what the lock allows (a
 * copy into the store, a root) is harmless alone. The copy's channel is opened while the lock is asked
 * for, which saves a round trip; nothing is said on it before the lock is ours.
 */
#include "core/host_internal.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/change.h"

#define BOOT_ENTRY_BYTES  16384 /* a menu entry and the default, with blocks to spare */
#define LOCK_RETRY_MS     2000u
#define COPY_KILLED_AGAIN 2u
/* `substitute: auto`: one that doesn't answer costs five seconds, once, and no copy. */
#define SUBSTITUTE_QUICKLY                                                                         \
    " --option connect-timeout 5 --option download-attempts 1 --option fallback true"

enum step_result step_await_copy(struct host *host) {
    host_health_stop(host);
    if (host->plan.run->action == ACTION_REBOOT) {
        return host_go(host, STEP_AWAIT_REBOOT);
    }
    return host_granted(host, ACT_COPY) ? host_go(host, STEP_LOCK) : STEP_AGAIN;
}

/* ---- lock ---- */

bool host_wait_for_run(struct host *host) {
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

enum step_result host_lock_is_held(struct host *host) {
    const struct target_reply *reply = host->reply;
    const char *id = target_reply_get(reply, "lock_id");
    const char *run = target_reply_get(reply, "lock_run");
    const char *who = target_reply_get(reply, "lock_who");
    const char *since = target_reply_get(reply, "lock_since");
    if (host_wait_for_run(host)) {
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

void host_copy_drop(struct host *host) {
    if (host->copy != NULL) {
        copy_close(host->copy);
        host->copy = NULL;
    }
}

static bool copies_next(const struct host *host) {
    return !host->going_back && !host_is_alone(host) && host->plan.run->action != ACTION_REBOOT;
}

static void open_copy_ahead(struct host *host);

enum step_result step_lock(struct host *host) {
    if (host->pausing) {
        return STEP_AGAIN;
    }
    if (host_op_begin(host)) {
        struct target_lock lock = host_target_lock(host);
        target_lock_take(host->link.shell, &lock, host_on_reply, host);
        open_copy_ahead(host);
        return STEP_AGAIN;
    }
    if (!host->op_done) {
        open_copy_ahead(host); /* its source may have come up meanwhile */
        return STEP_AGAIN;
    }
    if (host->op_err != 0) {
        return host_fail(host, &host->op_error);
    }
    if (!host_says(host->reply, "lock", "ok")) {
        host_copy_drop(host);
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
        /* It gets on: a line that breaks now and then is no reason to give up. */
        host->restarts = 0;
        host->retries = 0;
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
    host_copy_drop(host);
    if (host->step == STEP_LOCK) {
        return; /* opened ahead: begun anew once the lock is ours, and what is wrong is said then */
    }
    host->op_done = true;
    host->op_error = *error;
    host->op_err = error->code;
    host_drive(host);
}

static void on_copy_log(const char *line, size_t len, void *arg) {
    host_log(arg, "nix", line, len);
}

/* What the host runs, and what it shall run: compared here, off the coordinator's turn. */
static void tell_change(struct host *host, struct plan_list *from, struct plan_list *to) {
    plan_list_settle(from);
    plan_list_settle(to);
    struct event *event = change_event_new(host->current, host->desired, from, to);
    event->ts_ms = clock_wall_ms(host->env.clock);
    plan_list_free(from);
    plan_list_free(to);
    host->compare = false;
    host->sink.event(event, host->sink.arg);
}

static void on_copy_before(char *const *paths, size_t count, const struct closure *copied,
                           void *arg) {
    struct plan_list from = {0};
    struct plan_list to = {0};
    for (size_t i = 0; i < count; i++) {
        plan_list_add(&from, paths[i]);
    }
    for (size_t i = 0; i < copied->count; i++) {
        plan_list_add(&to, copied->paths[i]->path);
    }
    tell_change(arg, &from, &to);
}

static void on_pair(const struct closure_pair_paths *runs, const struct closure_pair_paths *shall,
                    void *arg) {
    struct plan_list from = {0};
    struct plan_list to = {0};
    for (size_t i = 0; i < runs->count; i++) {
        plan_list_add(&from, runs->paths[i]);
    }
    for (size_t i = 0; i < shall->count; i++) {
        plan_list_add(&to, shall->paths[i]);
    }
    tell_change(arg, &from, &to);
}

/* Where no copy asks along. Nothing waits for the answer, and host_link.c closes the question. */
static void ask_pair(struct host *host) {
    if (host->compare && host->pair == NULL && store_path_is_valid(host->current) &&
        store_path_is_valid(host->desired)) {
        char *command = xasprintf("%s --serve", host->nix_store);
        host->pair = closure_pair_ask(host->env.loop, host->link.conn, &host->plan.elevation,
                                      command, host->current, host->desired, on_pair, host);
        free(command);
    }
}

void host_compare(struct host *host) {
    host->compare = true;
}

static const struct copy_handlers copy_handlers = {.on_progress = on_copy_progress,
                                                   .on_done = on_copy_done,
                                                   .on_failed = on_copy_failed,
                                                   .on_before = on_copy_before,
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

static void start_copy(struct host *host, struct copier *copier, bool ahead) {
    static const enum copy_compress compress[] = {
        [INV_COMPRESS_NONE] = COPY_COMPRESS_NONE,
        [INV_COMPRESS_AUTO] = COPY_COMPRESS_AUTO,
        [INV_COMPRESS_ZSTD] = COPY_COMPRESS_ZSTD,
    };
    enum inv_substitute substitute = host->plan.inv->copy.substitute;
    char *command = serve_command(host);
    struct copy_options options = {.command = command,
                                   .elevation = host->plan.elevation,
                                   .substitute = substitute != INV_SUBSTITUTE_NO ||
                                                 host->plan.inv->copy.cache_push != NULL,
                                   .compress = compress[host->plan.inv->copy.compress],
                                   .before = host->compare ? host->current : NULL,
                                   .ahead = ahead,
                                   .max_rate = host->plan.inv->copy.max_rate};
    host->copy = copy_start(copier, host->link.conn, host->desired, &options, &copy_handlers, host);
    free(command);
}

/* Only what is already there: a rollback, or what was built on the host itself. */
static bool nothing_to_copy(const struct host *host) {
    return host->source.kind == HOST_SOURCE_TARGET;
}

/* Once, on the first connection: where the lock is held, or a connection was lost, it takes longer
 * anyway. What goes wrong here is met again by step_copy, and said there. */
static void open_copy_ahead(struct host *host) {
    if (!copies_next(host) || nothing_to_copy(host) || host->copy != NULL || host->connects > 1 ||
        host->lock_wait_until_ms != 0) {
        return;
    }
    struct error ignored = ERROR_INIT;
    struct copier *copier = host->env.copier(&host->source, &ignored, host->env.arg);
    if (copier != NULL) {
        start_copy(host, copier, true);
    }
}

static enum step_result begin_copy(struct host *host) {
    if (host->copy != NULL) {
        copy_ask(host->copy);
    } else {
        struct error error = ERROR_INIT;
        struct copier *copier = host->env.copier(&host->source, &error, host->env.arg);
        if (copier == NULL) {
            return error.code != 0 ? host_fail(host, &error) : STEP_AGAIN;
        }
        if (host->connects > 1) {
            host_renew_lock(
                host); /* this ends the lost connection there, whose import holds locks */
        }
        start_copy(host, copier, false);
    }
    host->op_started = true;
    host->op_done = false;
    return STEP_AGAIN;
}

/* By a person, or for want of memory: that may have passed, and what has arrived stays. */
static bool killed_copy_again(struct host *host) {
    if (strcmp(host->op_error.reason, "copy-killed") != 0 || host->retries >= COPY_KILLED_AGAIN ||
        !host_try_again(host)) {
        return false;
    }
    static const char note[] = "nix-store was killed on the host in mid-copy: trying again";
    host_log(host, "fleet", note, sizeof(note) - 1);
    return true;
}

enum step_result step_copy(struct host *host) {
    if (host->lock_lost) {
        return host_failf(host, FLEET_ERR_LOCKED, "lock-lost",
                          "another run took the lock over while this one was away; nothing was "
                          "activated. Start the update again when that run has ended");
    }
    if (nothing_to_copy(host)) {
        ask_pair(host);
        return host_go(host, STEP_ROOT);
    }
    if (host->pausing && !host->op_started) {
        return STEP_AGAIN;
    }
    if (!host->op_started) {
        return begin_copy(host);
    }
    if (!host->op_done) {
        return STEP_AGAIN;
    }
    if (host->op_err == 0) {
        host->copied = true;
        return host_go(host, STEP_ROOT);
    }
    /* Whose store it is is connected to again (core/lane.c), and what has arrived is here. */
    if (host_same(host->op_error.reason, "source-lost") && host_try_again(host)) {
        return STEP_AGAIN;
    }
    return killed_copy_again(host) ? STEP_AGAIN : host_fail(host, &host->op_error);
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
    host_copy_drop(host);
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
    for (size_t at = 0; (line = target_reply_next(host->reply, "log", &at)) != NULL;) {
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
