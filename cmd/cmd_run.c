/* `fleet update`, `push`, `rollback`: a run of core/run.h with displays attached. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/displays.h"
#include "cmd/planned.h"
#include "cmd/question.h"
#include "cmd/undo.h"
#include "core/base/xalloc.h"
#include "core/run.h"

/* The run's surroundings outlive it: where a second signal ended it, its lanes may still be at
 * work and read them until the process is gone. */
static struct context run_context;
static struct planned run_planned;
static struct undo run_undo;

/* CONTRACT, --yes: an update or rollback without any selector that touches more than one host. */
static bool is_confirmed(const struct context *context, enum run_action action) {
    bool touches = action == ACTION_SWITCH || action == ACTION_BOOT || action == ACTION_TEST ||
                   action == ACTION_ROLLBACK;
    if (action == ACTION_REBOOT && context->asks) {
        AUTO_FREE char *text =
            xasprintf("This reboots %zu host%s of %s.", context->host_count,
                      context->host_count == 1 ? "" : "s", context->inventory->name);
        return question_confirm(text);
    }
    if (!touches || !context->asks || !context->all_hosts || context->host_count < 2) {
        return true;
    }
    AUTO_FREE char *text = xasprintf(
        "This %s all %zu hosts of %s (%s).", action == ACTION_ROLLBACK ? "takes back" : "updates",
        context->host_count, context->inventory->name, run_action_name(action));
    return question_confirm(text);
}

/* FILE of `update --plan FILE`, or NULL. */
static const char *planned_file(const struct args *args) {
    return args_value(args, OPTION_PLAN);
}

/* Our own machine: fleet would go down with it, and the run with fleet. */
static int refuse_own_reboot(const struct context *context, enum run_action action) {
    bool may_end_so = action == ACTION_SWITCH || action == ACTION_ROLLBACK;
    for (size_t i = 0; i < context->host_count; i++) {
        const struct inv_host *host = context->hosts[i];
        bool reboots =
            action == ACTION_REBOOT || (may_end_so && host->policy.reboot == INV_REBOOT_ALWAYS);
        if (host->local && reboots) {
            fprintf(stderr,
                    "fleet: %s is the machine that fleet runs on (its address is \"local\"), and a "
                    "reboot would end this run: leave it out with --exclude %s, %sand reboot it "
                    "by hand; nothing was touched\n",
                    host->name, host->name,
                    action == ACTION_REBOOT ? "" : "or give it the policy \"reboot\": \"never\", ");
            return EXIT_USAGE;
        }
    }
    return 0;
}

static int prepare(struct context *context, enum run_action action) {
    const char *plan = planned_file(context->args);
    const char *undone = args_value(context->args, OPTION_RUN);
    int code = context_load(context);
    if (code == 0) {
        code = plan != NULL ? planned_load(context, plan, &run_planned) : context_select(context);
    }
    if (code == 0) {
        code = refuse_own_reboot(context, action);
    }
    if (code == 0) {
        code = context_surroundings(context);
    }
    if (code == 0 && undone != NULL) {
        code = undo_load(context, undone, true, &run_undo);
    }
    if (code == 0 && !is_confirmed(context, action)) {
        fputs("fleet: not confirmed; nothing was touched\n", stderr);
        return EXIT_USAGE;
    }
    if (code == 0) {
        code = context_connect(context, true);
    }
    return code == 0 && plan != NULL ? planned_check(context, &run_planned) : code;
}

/* What was planned is deployed as of the plan's own revision. */
static void take_plan(struct run_options *options) {
    options->action = run_planned.saved.action;
    options->systems = run_planned.systems;
    options->rev = run_planned.saved.rev;
    options->dirty = run_planned.saved.dirty;
}

static int execute(struct context *context, struct run_options *options) {
    AUTO_FREE char *policy = override_json(&context->overrides);
    struct displays displays;
    displays_open(context, false, &displays);
    options->inventory = context->inventory;
    options->hosts = context->hosts;
    options->host_count = context->host_count;
    options->state_dir = context->state_dir;
    options->rev = context->git.rev;
    options->dirty = context->git.dirty;
    options->lock_timeout_ms = args_duration_ms(context->args, OPTION_LOCK_TIMEOUT, 0);
    options->policy_json = policy;
    if (run_planned.systems != NULL) {
        take_plan(options);
    }
    if (run_undo.systems != NULL) {
        options->systems = run_undo.systems;
        options->to_run = run_undo.run;
    }
    options->specs = context->specs;
    options->keyring = context->keyring;
    options->observer = (struct run_observer){.event = displays_event,
                                              .tick = displays_tick,
                                              .attach = displays_attach,
                                              .arg = &displays};
    options->interactive = question_possible();
    if (context->host_count == 0) {
        fprintf(stderr, "fleet: %s has no hosts: nothing to do\n", context->inventory->path);
    }
    struct error error = ERROR_INIT;
    int code = run_execute(options, NULL, &error);
    if (error.code != 0) {
        fprintf(stderr, "fleet: %s\n", error.message);
    }
    fflush(stdout);
    displays_close(&displays);
    return code;
}

static int run_command(const struct args *args, struct run_options *options) {
    struct context *context = &run_context;
    context_init(context, args);
    int code = prepare(context, options->action);
    if (code == 0) {
        code = execute(context, options);
    }
    if (code == EXIT_DONE || code == UNDO_NOTHING) {
        code = EXIT_DONE;
        planned_release(&run_planned);
        undo_release(&run_undo);
        context_release(context);
    }
    return code;
}

int cmd_update(const struct args *args) {
    if (args_count(args, OPTION_DRY_RUN) > 0 && planned_file(args) != NULL) {
        return context_usage(args, "--plan carries a plan out, --dry-run only makes one: take one "
                                   "of the two");
    }
    if (args_count(args, OPTION_DRY_RUN) > 0) {
        return cmd_plan(args);
    }
    const char *action = args_value(args, OPTION_ACTION);
    struct run_options options = {.action =
                                      action != NULL ? run_action_parse(action) : ACTION_SWITCH};
    return run_command(args, &options);
}

int cmd_push(const struct args *args) {
    struct run_options options = {.action = ACTION_PUSH};
    return run_command(args, &options);
}

/* A number is a generation, a store path a system. */
static int read_target(const struct args *args, struct run_options *options) {
    const char *to = args_value(args, OPTION_TO);
    if (to == NULL) {
        return 0;
    }
    if (args_count(args, OPTION_RUN) > 0) {
        return context_usage(args, "--to names a system, --run a run to be undone: take one of the "
                                   "two");
    }
    if (strncmp(to, "/nix/store/", strlen("/nix/store/")) == 0) {
        options->to_path = to;
        return 0;
    }
    char *end;
    long number = strtol(to, &end, 10);
    if (to[0] < '0' || to[0] > '9' || *end != '\0' || number < 1 || number == LONG_MAX) {
        return context_usage(args, "--to takes a generation's number or a path in /nix/store; "
                                   "`fleet generations` lists them");
    }
    options->to_generation = number;
    return 0;
}

int cmd_rollback(const struct args *args) {
    struct run_options options = {.action = ACTION_ROLLBACK};
    int code = read_target(args, &options);
    return code == 0 ? run_command(args, &options) : code;
}

int cmd_reboot(const struct args *args) {
    struct run_options options = {.action = ACTION_REBOOT};
    return run_command(args, &options);
}
