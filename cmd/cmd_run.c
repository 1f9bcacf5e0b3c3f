/* `fleet update`, `build`, `push`, `rollback`: a run of core/run.h with displays attached.
 *
 * The run's events go to every display that the command line asks for: with --json the stream on
 * stdout and the lines for people on stderr; `build` keeps stdout for its `host path` lines.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/context.h"
#include "cmd/question.h"
#include "core/base/xalloc.h"
#include "core/run.h"
#include "tui/output.h"

#define DISPLAYS_MAX 2

struct displays {
    struct output *items[DISPLAYS_MAX];
    size_t count;
    bool print_paths; /* `build`: "host path" on stdout */
    const struct view *view;
};

/* The run's surroundings outlive it: where a second signal ended it, its lanes may still be at
 * work and read them until the process is gone. */
static struct context run_context;

static void on_event(const struct event *event, const struct view *view, void *arg) {
    struct displays *displays = arg;
    displays->view = view;
    for (size_t i = 0; i < displays->count; i++) {
        displays->items[i]->ops->event(displays->items[i], event, view);
    }
    if (displays->print_paths && event->type == EVENT_BUILD && event->host != NULL &&
        event->state != NULL && strcmp(event->state, "built") == 0 && event->path != NULL) {
        printf("%s %s\n", event->host, event->path);
    }
    if (event->type == EVENT_RUN_END) {
        for (size_t i = 0; i < displays->count; i++) {
            displays->items[i]->ops->finish(displays->items[i], view);
        }
    }
}

static void on_tick(const struct view *view, int64_t wall_ms, const char *waiting, void *arg) {
    struct displays *displays = arg;
    for (size_t i = 0; i < displays->count; i++) {
        displays->items[i]->ops->tick(displays->items[i], view, wall_ms, waiting);
    }
}

static void open_displays(const struct context *context, bool build, struct displays *ret) {
    bool aside = context->json || build;
    struct output_options options = {.color = aside ? context->color_err : context->color_out,
                                     .verbosity = context->verbosity,
                                     .github = getenv("GITHUB_ACTIONS") != NULL};
    *ret = (struct displays){.print_paths = build && !context->json};
    if (context->json) {
        ret->items[ret->count++] = output_json_new(stdout);
    }
    ret->items[ret->count++] = output_plain_new(aside ? stderr : stdout, &options);
}

/* CONTRACT, --yes: an update or rollback without any selector that touches more than one host. */
static bool is_confirmed(const struct context *context, enum run_action action) {
    bool touches = action == ACTION_SWITCH || action == ACTION_BOOT || action == ACTION_TEST ||
                   action == ACTION_ROLLBACK;
    if (!touches || !context->asks || !context->all_hosts || context->host_count < 2) {
        return true;
    }
    AUTO_FREE char *text = xasprintf(
        "This %s all %zu hosts of %s (%s).", action == ACTION_ROLLBACK ? "takes back" : "updates",
        context->host_count, context->inventory->name, run_action_name(action));
    return question_confirm(text);
}

static int prepare(struct context *context, enum run_action action) {
    int code = context_load(context);
    if (code == 0) {
        code = context_select(context);
    }
    if (code == 0) {
        code = context_surroundings(context);
    }
    if (code == 0 && !is_confirmed(context, action)) {
        fputs("fleet: not confirmed; nothing was touched\n", stderr);
        return EXIT_USAGE;
    }
    return code == 0 ? context_connect(context) : code;
}

static int execute(struct context *context, struct run_options *options) {
    AUTO_FREE char *policy = override_json(&context->overrides);
    struct displays displays;
    open_displays(context, options->action == ACTION_BUILD, &displays);
    options->inventory = context->inventory;
    options->hosts = context->hosts;
    options->host_count = context->host_count;
    options->state_dir = context->state_dir;
    options->rev = context->git.rev;
    options->dirty = context->git.dirty;
    options->lock_timeout_ms = args_duration_ms(context->args, OPTION_LOCK_TIMEOUT, 0);
    options->policy_json = policy;
    options->specs = context->specs;
    options->keyring = context->keyring;
    options->observer = (struct run_observer){on_event, on_tick, &displays};
    options->interactive = context->asks;
    struct error error = ERROR_INIT;
    int code = run_execute(options, NULL, &error);
    if (error.code != 0) {
        fprintf(stderr, "fleet: %s\n", error.message);
    }
    fflush(stdout);
    for (size_t i = 0; i < displays.count; i++) {
        output_free(displays.items[i]);
    }
    return code;
}

static int run_command(const struct args *args, struct run_options *options) {
    struct context *context = &run_context;
    context_init(context, args);
    if (args_count(args, OPTION_TUI) > 0) {
        fputs("fleet: the dashboard is not in this version yet; plain lines follow\n", stderr);
    }
    int code = prepare(context, options->action);
    if (code == 0) {
        code = execute(context, options);
    }
    if (code == EXIT_DONE) {
        context_release(context);
    }
    return code;
}

int cmd_update(const struct args *args) {
    const char *action = args_value(args, OPTION_ACTION);
    struct run_options options = {.action =
                                      action != NULL ? run_action_parse(action) : ACTION_SWITCH};
    return run_command(args, &options);
}

int cmd_build(const struct args *args) {
    struct run_options options = {.action = ACTION_BUILD};
    char link[PATH_MAX];
    const char *given = args_value(args, OPTION_OUT_LINK);
    if (given != NULL && given[0] != '/' && getcwd(link, sizeof(link)) != NULL) {
        options.out_link = xasprintf("%s/%s", link, given);
    } else if (given != NULL) {
        options.out_link = xstrdup(given);
    }
    int code = run_command(args, &options);
    free((void *)(uintptr_t)options.out_link);
    return code;
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
