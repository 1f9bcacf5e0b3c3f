/* `update --plan FILE` (see planned.h). */
#include "cmd/planned.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cmd/host_task.h"
#include "core/base/xalloc.h"

#define ASK_TIMEOUT_MS 60000u

/* ---- the file ---- */

static int select_host(struct context *context, const struct plan_saved_host *saved,
                       struct planned *ret) {
    struct error error;
    const struct inv_host *host = inventory_host(context->inventory, saved->name);
    if (host == NULL) {
        error_set(&error, FLEET_ERR_STALE, "stale",
                  "the plan is stale: the inventory has no host '%s' any more", saved->name);
        return context_fail(&error);
    }
    if (!saved->on_target && access(saved->desired, F_OK) != 0) {
        error_set(&error, FLEET_ERR_STALE, "stale",
                  "the plan is stale: %s, which it has for %s, is in this machine's store no more; "
                  "make a new plan",
                  saved->desired, saved->name);
        return context_fail(&error);
    }
    size_t i = context->host_count++;
    context->hosts[i] = host;
    ret->hosts[i] = saved;
    ret->systems[i] = (struct run_system){.path = saved->desired, .on_target = saved->on_target};
    return 0;
}

static int select_hosts(struct context *context, struct planned *ret) {
    size_t count = ret->saved.host_count;
    context->hosts = xcalloc(count + 1, sizeof(*context->hosts));
    ret->hosts = xcalloc(count + 1, sizeof(*ret->hosts));
    ret->systems = xcalloc(count + 1, sizeof(*ret->systems));
    for (size_t i = 0; i < count; i++) {
        const struct plan_saved_host *saved = &ret->saved.hosts[i];
        if (!saved->planned) {
            fprintf(stderr, "%s: not in the plan, as it could not be planned for; left as it is\n",
                    saved->name);
            continue;
        }
        int code = select_host(context, saved, ret);
        if (code != 0) {
            return code;
        }
    }
    if (context->host_count == 0) {
        fputs("fleet: the plan has something to do for no host; nothing was touched\n", stderr);
        return EXIT_USAGE;
    }
    return 0;
}

static bool narrows(const struct args *args) {
    return args->word_count > 0 || args_count(args, OPTION_TAG) > 0 ||
           args_count(args, OPTION_ON) > 0 || args_count(args, OPTION_EXCLUDE) > 0;
}

int planned_load(struct context *context, const char *file, struct planned *ret) {
    *ret = (struct planned){0};
    const struct args *args = context->args;
    if (narrows(args)) {
        return context_usage(args, "--plan names the hosts itself; select them when you plan");
    }
    struct error error = ERROR_INIT;
    if (plan_load(file, &ret->saved, &error) != 0) {
        return context_fail(&error);
    }
    const char *action = args_value(args, OPTION_ACTION);
    if (action != NULL && run_action_parse(action) != ret->saved.action) {
        return context_usage(args, "%s was planned with --action %s", file,
                             run_action_name(ret->saved.action));
    }
    if (plan_check_inventory(&ret->saved, context->inventory, &error) != 0) {
        error_wrap(&error, "the plan is stale");
        return context_fail(&error);
    }
    context->all_hosts = true;
    return select_hosts(context, ret);
}

void planned_release(struct planned *planned) {
    plan_saved_free(&planned->saved);
    free(planned->hosts);
    free(planned->systems);
    *planned = (struct planned){0};
}

/* ---- the hosts ---- */

struct check_host {
    struct check *check;
    struct fan_host *host;
};

struct check {
    const struct planned *planned;
    struct check_host *hosts; /* one a host */
    size_t stale;
};

static void on_inspected(int err, const struct target_reply *reply, const struct error *error,
                         void *arg) {
    struct check_host *mine = arg;
    struct check *check = mine->check;
    struct fan_host *host = mine->host;
    if (err != 0) {
        fan_done(host, error);
        return;
    }
    struct status status;
    struct error stale = ERROR_INIT;
    status_read(reply, NULL, &status);
    if (plan_check_host(check->planned->hosts[host->index], &status, &stale) != 0) {
        check->stale++;
        fprintf(stderr, "%s: %s\n", host->inv->name, stale.message);
    }
    status_release(&status);
    fan_done(host, NULL);
}

static void check_host(struct fan_host *host, void *arg) {
    struct check *check = arg;
    struct check_host *mine = &check->hosts[host->index];
    *mine = (struct check_host){.check = check, .host = host};
    struct target_env env = {.profile = host->inv->profile};
    target_inspect(host->shell, &env, NULL, on_inspected, mine);
}

/* What is wrong with a host is the run's to tell. */
static void ignore_result(const struct fan_host *host, const struct error *error, void *arg) {
    (void)host;
    (void)error;
    (void)arg;
}

int planned_check(struct context *context, const struct planned *planned) {
    struct check check = {.planned = planned,
                          .hosts = xcalloc(context->host_count + 1, sizeof(*check.hosts))};
    int interrupted =
        host_task_run(context, true, ASK_TIMEOUT_MS, check_host, ignore_result, &check);
    free(check.hosts);
    if (interrupted != 0) {
        return interrupted;
    }
    if (check.stale > 0) {
        fprintf(stderr,
                "fleet: the plan of %s is stale: %zu host%s changed since; nothing was touched. "
                "Make a new one with `fleet plan --out`\n",
                planned->saved.created, check.stale, check.stale == 1 ? " has" : "s have");
        return EXIT_STALE;
    }
    return 0;
}
