/* The pipeline's beginning: connect, look at what the host is, and what it shall run. Nothing on the
 * host changes here, but for a commit that a power cut left half done, which is finished first.
 */
#include "core/host_internal.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/status.h"

enum step_result step_connect(struct host *host) {
    return host_go(host, STEP_INSPECT);
}

/* ---- inspect ---- */

static void keep_failed_units(struct host *host, const struct target_reply *reply) {
    for (size_t i = 0; i < host->failed_before_count; i++) {
        free(host->failed_before[i]);
    }
    host->failed_before_count = 0;
    const char *unit;
    for (size_t at = 0; (unit = target_reply_next(reply, "failed", &at)) != NULL;) {
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

/* The copy has a channel of its own beside the shell's. */
static bool may_copy(const struct host *host) {
    switch (host->plan.run->action) {
    case ACTION_SWITCH:
    case ACTION_BOOT:
    case ACTION_TEST:
    case ACTION_DRY_ACTIVATE:
    case ACTION_PUSH:
        return true;
    case ACTION_BUILD:
    case ACTION_ROLLBACK:
    case ACTION_REBOOT:
    case ACTION_COUNT:
        break;
    }
    return false;
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
    if (may_copy(host) && conn_is_narrow(host->link.conn)) {
        return host_failf(host, FLEET_ERR_REMOTE, "channel-refused",
                          "its sshd allows one session a connection, and a copy takes two: set "
                          "MaxSessions to 2 or more in its sshd_config (sshd's default is 10)");
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
    if (host_says(host->reply, "guard_alive", "yes") && host_wait_for_run(host)) {
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
    for (size_t at = 0; (line = target_reply_next(host->reply, "gen", &at)) != NULL;) {
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
