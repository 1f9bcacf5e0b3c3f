/* `fleet plan`, and `update --dry-run`: what an update would do, host by host.
 *
 * Builds here (or on build hosts), reads the new closures, asks each host two questions, compares.
 * Nothing is copied and nothing is written on any host: no lock, no root, no journal.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/host_task.h"
#include "cmd/plan_text.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/build.h"
#include "core/plan_ask.h"
#include "core/plan_closure.h"

#define ASK_TIMEOUT_MS 240000u
#define SIGNAL_BASE    128
#define PERCENT        100u

struct planning {
    struct context *context;
    struct plan_host *hosts; /* one a host */
    uv_loop_t loop;
    uv_signal_t signals[2];
    struct transport *transport;
    struct build *build;
    struct plan_closures *closures;
    bool building;
    int signal;
    /* Where what was built on a build host can be read, by host. */
    const struct conn_spec **remotes;
    char **commands;
};

/* ---- build ---- */

static void on_built(size_t host, const struct build_result *result, void *arg) {
    struct planning *planning = arg;
    planning->hosts[host].desired = xstrdup(result->path);
    planning->hosts[host].source = result->source;
    planning->remotes[host] = result->remote;
    planning->commands[host] =
        xstrdup(result->remote_command != NULL ? result->remote_command : "");
}

static void on_build_failed(size_t host, const struct error *error, void *arg) {
    struct planning *planning = arg;
    planning->hosts[host].build_error = *error;
}

static void on_build_log(size_t host, const char *line, size_t len, const char *drv, void *arg) {
    const struct planning *planning = arg;
    (void)drv;
    if (planning->context->verbosity < 1) {
        return;
    }
    AUTO_FREE char *clean = text_cleaned(line, len);
    const char *name = host != SIZE_MAX ? planning->hosts[host].inv->name : "build";
    fprintf(stderr, "%s: %s\n", name, clean);
}

static void on_step_done(void *arg) {
    struct planning *planning = arg;
    planning->building = false;
    uv_stop(&planning->loop);
}

static const struct conn_spec *find_spec(const struct inv_host *host, void *arg) {
    const struct planning *planning = arg;
    return spec_of(planning->context->specs, host);
}

static int find_elevation(const struct inv_host *host, struct elevation *ret, struct error *error,
                          void *arg) {
    const struct planning *planning = arg;
    return spec_elevation(planning->context->specs, host, ret, error);
}

static void on_signal(uv_signal_t *handle, int number) {
    struct planning *planning = handle->data;
    if (planning->signal != 0) {
        _exit(SIGNAL_BASE + number);
    }
    planning->signal = number;
    if (planning->building) {
        build_cancel(planning->build);
    }
}

static void watch_signals(struct planning *planning) {
    static const int numbers[] = {SIGINT, SIGTERM};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        uv_signal_init(&planning->loop, &planning->signals[i]);
        planning->signals[i].data = planning;
        uv_signal_start(&planning->signals[i], on_signal, numbers[i]);
    }
}

/* STATE/plan keeps the build's logs and, until the next plan, what was built. NULL where it can't
 * be made: a plan needs neither. */
static char *plan_folder(const char *state_dir) {
    char *folder = xasprintf("%s/plan", state_dir);
    for (char *slash = strchr(folder + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(folder, 0700);
        *slash = '/';
    }
    if (mkdir(folder, 0700) != 0 && errno != EEXIST) {
        free(folder);
        return NULL;
    }
    return folder;
}

static void build_all(struct planning *planning) {
    static const struct build_handlers handlers = {.on_log = on_build_log,
                                                   .on_built = on_built,
                                                   .on_failed = on_build_failed,
                                                   .on_done = on_step_done};
    const struct context *context = planning->context;
    AUTO_FREE char *folder = plan_folder(context->state_dir);
    struct build_options options = {.run_dir = folder,
                                    .transport = planning->transport,
                                    .spec = find_spec,
                                    .elevation = find_elevation,
                                    .spec_arg = planning};
    planning->building = true;
    planning->build = build_start(&planning->loop, context->inventory, context->hosts,
                                  context->host_count, &options, &handlers, planning);
    uv_run(&planning->loop, UV_RUN_DEFAULT);
}

/* ---- closures ---- */

static void read_closures(struct planning *planning,
                          void (*ask)(struct planning *planning, size_t host)) {
    planning->closures = plan_closures_new(&planning->loop, planning->transport);
    for (size_t i = 0; i < planning->context->host_count; i++) {
        ask(planning, i);
    }
    plan_closures_run(planning->closures, on_step_done, planning);
    uv_run(&planning->loop, UV_RUN_DEFAULT);
    plan_closures_free(planning->closures);
}

static void ask_desired(struct planning *planning, size_t i) {
    struct plan_host *host = &planning->hosts[i];
    if (host->desired != NULL && host->source != BUILD_SOURCE_TARGET) {
        plan_closures_ask(planning->closures, planning->remotes[i], planning->commands[i],
                          host->desired, &host->closure_to);
    }
    if (host->desired != NULL && host->source == BUILD_SOURCE_LOCAL) {
        plan_system_read(host->desired, &host->to);
    }
}

/* What a host runs is mostly in this machine's store, too: it came from here. */
static void ask_current(struct planning *planning, size_t i) {
    struct plan_host *host = &planning->hosts[i];
    if (host->current != NULL && host->current[0] != '\0' && !host->closure_from.known) {
        plan_closures_ask(planning->closures, NULL, NULL, host->current, &host->closure_from);
    }
}

/* ---- hosts ---- */

static void on_answered(const struct error *error, void *arg) {
    struct fan_host *host = arg;
    fan_done(host, error->code != 0 ? error : NULL);
}

static void ask_host(struct fan_host *host, void *arg) {
    struct planning *planning = arg;
    plan_ask(host->shell, &planning->hosts[host->index], on_answered, host);
}

static void take_result(const struct fan_host *host, const struct error *error, void *arg) {
    struct planning *planning = arg;
    planning->hosts[host->index].reached = host->connected;
    if (error != NULL) {
        planning->hosts[host->index].error = *error;
    }
}

/* ---- results ---- */

static size_t allowed_unreachable(const struct planning *planning) {
    const struct inv_amount *amount = &planning->context->inventory->policy.max_unreachable;
    return amount->percent ? planning->context->host_count * amount->value / PERCENT
                           : amount->value;
}

static int exit_code(const struct planning *planning) {
    size_t failed = 0;
    size_t unbuilt = 0;
    size_t unreachable = 0;
    if (planning->signal != 0) {
        return SIGNAL_BASE + planning->signal;
    }
    for (size_t i = 0; i < planning->context->host_count; i++) {
        const struct plan_host *host = &planning->hosts[i];
        unbuilt += host->build_error.code != 0 ? 1 : 0;
        failed += host->reached && host->error.code != 0 ? 1 : 0;
        unreachable += !host->reached && !host->inv->optional ? 1 : 0;
    }
    if (failed > 0) {
        return EXIT_HOSTS_FAILED;
    }
    if (unbuilt > 0) {
        return EXIT_BUILD_FAILED;
    }
    return unreachable > allowed_unreachable(planning) ? EXIT_UNREACHABLE : EXIT_DONE;
}

static void print_plan(const struct planning *planning) {
    const struct context *context = planning->context;
    struct buf text = BUF_INIT;
    for (size_t i = 0; context->json && i < context->host_count; i++) {
        AUTO_FREE char *line = plan_host_json(&planning->hosts[i]);
        puts(line);
    }
    plan_text(planning->hosts, context->host_count, context->json ? -1 : context->verbosity, &text);
    fputs(buf_text(&text), context->json ? stderr : stdout);
    buf_free(&text);
}

static int save_plan(const struct planning *planning, const char *file) {
    const struct context *context = planning->context;
    const char *action = args_value(context->args, OPTION_ACTION);
    struct plan_about about = {.inventory = context->inventory,
                               .rev = context->git.rev,
                               .dirty = context->git.dirty,
                               .action = action != NULL ? run_action_parse(action) : ACTION_SWITCH};
    struct error error = ERROR_INIT;
    if (plan_save(file, &about, planning->hosts, context->host_count, &error) != 0) {
        return context_fail(&error);
    }
    if (context->verbosity >= 0) {
        fprintf(stderr, "saved; to do exactly this: fleet update --plan %s\n", file);
    }
    return EXIT_DONE;
}

/* ---- the command ---- */

static void open_planning(struct planning *planning) {
    const struct context *context = planning->context;
    planning->hosts = xcalloc(context->host_count + 1, sizeof(*planning->hosts));
    planning->remotes = xcalloc(context->host_count + 1, sizeof(*planning->remotes));
    planning->commands = xcalloc(context->host_count + 1, sizeof(*planning->commands));
    for (size_t i = 0; i < context->host_count; i++) {
        planning->hosts[i].inv = context->hosts[i];
        planning->hosts[i].free_boot = -1;
    }
    uv_loop_init(&planning->loop);
    watch_signals(planning);
    planning->transport = transport_new(&planning->loop, context->keyring);
}

static void close_planning(struct planning *planning) {
    for (size_t i = 0; i < ARRAY_LEN(planning->signals); i++) {
        uv_close((uv_handle_t *)&planning->signals[i], NULL);
    }
    build_free(planning->build);
    uv_run(&planning->loop, UV_RUN_DEFAULT);
    transport_free(planning->transport);
    uv_run(&planning->loop, UV_RUN_DEFAULT);
    uv_loop_close(&planning->loop);
    for (size_t i = 0; i < planning->context->host_count; i++) {
        plan_host_free(&planning->hosts[i]);
        free(planning->commands[i]);
    }
    free(planning->hosts);
    free(planning->remotes);
    free(planning->commands);
}

static int make_plan(struct context *context, const char *out) {
    struct planning planning = {.context = context};
    open_planning(&planning);
    build_all(&planning);
    if (planning.signal == 0) {
        read_closures(&planning, ask_desired);
    }
    if (planning.signal == 0) {
        int interrupted =
            host_task_run(context, true, ASK_TIMEOUT_MS, ask_host, take_result, &planning);
        planning.signal = interrupted > SIGNAL_BASE ? interrupted - SIGNAL_BASE : 0;
    }
    if (planning.signal == 0) {
        read_closures(&planning, ask_current);
        for (size_t i = 0; i < context->host_count; i++) {
            plan_host_judge(&planning.hosts[i]);
        }
        print_plan(&planning);
    }
    int code = exit_code(&planning);
    if (out != NULL && planning.signal == 0) {
        int saved = save_plan(&planning, out);
        code = saved != EXIT_DONE ? saved : code;
    }
    close_planning(&planning);
    return code;
}

int cmd_plan(const struct args *args) {
    struct context context;
    const char *action = args_value(args, OPTION_ACTION);
    if (action != NULL && strcmp(action, "dry-activate") == 0) {
        return context_usage(args,
                             "--action dry-activate changes nothing by itself; leave --dry-run "
                             "out to see what an activation would do");
    }
    context_init(&context, args);
    int code = context_load(&context);
    if (code == 0) {
        code = context_select(&context);
    }
    if (code == 0) {
        code = context_surroundings(&context);
    }
    if (code == 0) {
        code = context_connect(&context, true);
    }
    if (code == 0) {
        code = context_build_access(&context);
    }
    if (code == 0) {
        code = make_plan(&context, args_value(args, OPTION_OUT));
    }
    context_release(&context);
    return code;
}
