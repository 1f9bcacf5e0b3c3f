/* `fleet build`: builds the selected hosts' systems and touches no target.
 *
 * It drives core/build alone: no lane, no connection to a host (but to build hosts), so that
 * "touches no target" is plain to see. It is a run all the same: journaled, shown by the displays,
 * listed by `history`. A host whose system was built ends `unchanged`, one whose wasn't `failed`.
 */
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/displays.h"
#include "core/base/clock.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/build.h"
#include "core/journal.h"

#define SIGNAL_BASE 128
#define TICK_MS     1000

struct build_run {
    struct context *context;
    struct displays displays;
    char id[RUN_ID_SIZE];
    struct journal *journal;
    struct view *view;
    uint64_t seq;
    uv_loop_t loop;
    uv_timer_t tick;
    uv_signal_t signals[2];
    struct transport *transport;
    struct build *build;
    bool done;
    int signal;
    struct error failure; /* of the journal */
};

static const char *const state_names[] = {[BUILD_EVALUATING] = "evaluating",
                                          [BUILD_BUILDING] = "building",
                                          [BUILD_BUILT] = "built",
                                          [BUILD_FAILED] = "failed"};

static const struct inv_host *host_of(const struct build_run *run, size_t host) {
    return run->context->hosts[host];
}

static void publish(struct build_run *run, struct event *event, bool sync) {
    struct error error = ERROR_INIT;
    event->seq = ++run->seq;
    event->run = xstrdup(run->id);
    event->ts_ms = clock_wall_ms(&clock_system);
    if (journal_append(run->journal, event, sync, &error) != 0 && run->failure.code == 0) {
        run->failure = error;
    }
    view_apply(run->view, event);
    displays_event(event, run->view, &run->displays);
    event_free(event);
}

static struct event *host_event(const struct build_run *run, enum event_type type, size_t host) {
    struct event *event = event_new(type);
    event->host = xstrdup(host_of(run, host)->name);
    event->wave = 1;
    return event;
}

static void move_host(struct build_run *run, size_t host, enum host_state to, const char *path,
                      const struct error *error) {
    const struct view_host *before = view_host(run->view, host_of(run, host)->name);
    struct event *event = host_event(run, EVENT_HOST_STATE, host);
    if (before != NULL && before->seen) {
        event->has_from = true;
        event->from = before->state;
        event->duration_ms = (uint64_t)(clock_wall_ms(&clock_system) - before->since_ms);
    }
    event->to = to;
    event->desired = path != NULL ? xstrdup(path) : NULL;
    event->reason = error != NULL ? xstrdup(error->reason) : NULL;
    event->message = error != NULL ? xstrdup(error->message) : NULL;
    if (path != NULL) {
        event->message = xasprintf("built %s", path);
    }
    publish(run, event, false);
}

static void on_state(size_t host, enum build_state state, const char *path, const char *drv,
                     void *arg) {
    struct build_run *run = arg;
    const struct view_host *before = view_host(run->view, host_of(run, host)->name);
    if (before == NULL || !before->seen) {
        move_host(run, host, HOST_BUILDING, NULL, NULL);
    }
    struct event *event = host_event(run, EVENT_BUILD, host);
    event->state = xstrdup(state_names[state]);
    event->path = path != NULL ? xstrdup(path) : NULL;
    event->drv = drv != NULL ? xstrdup(drv) : NULL;
    publish(run, event, false);
}

static void on_step(size_t host, const struct build_step *step, void *arg) {
    struct build_run *run = arg;
    struct event *event = host_event(run, EVENT_DERIVATION, host);
    build_step_tell(step, event);
    publish(run, event, false);
}

static void on_log(size_t host, const char *line, size_t len, const char *drv, void *arg) {
    struct build_run *run = arg;
    struct event *event =
        host != SIZE_MAX ? host_event(run, EVENT_LOG, host) : event_new(EVENT_LOG);
    event->stream = xstrdup("build");
    event->line = text_cleaned(line, len);
    event->drv = drv != NULL ? xstrdup(drv) : NULL;
    publish(run, event, false);
}

static void on_person(const char *text, void *arg) {
    struct event *event = event_new(EVENT_LOG);
    event->stream = xstrdup("agent");
    event->line = text_cleaned(text, strlen(text));
    publish(arg, event, false);
}

static void on_built(size_t host, const struct build_result *result, void *arg) {
    struct build_run *run = arg;
    move_host(run, host, HOST_UNCHANGED, result->path, NULL);
    if (!run->context->json) {
        printf("%s %s\n", host_of(run, host)->name, result->path);
        fflush(stdout);
    }
}

static void on_failed(size_t host, const struct error *error, void *arg) {
    struct build_run *run = arg;
    bool stopped = error->code == FLEET_ERR_CANCELLED;
    move_host(run, host, stopped ? HOST_SKIPPED : HOST_FAILED, NULL, error);
}

static void on_done(void *arg) {
    struct build_run *run = arg;
    run->done = true;
    uv_stop(&run->loop);
}

static const struct conn_spec *find_spec(const struct inv_host *host, void *arg) {
    const struct build_run *run = arg;
    return spec_of(run->context->specs, host);
}

static int find_elevation(const struct inv_host *host, struct elevation *ret, struct error *error,
                          void *arg) {
    const struct build_run *run = arg;
    return spec_elevation(run->context->specs, host, ret, error);
}

static void on_signal(uv_signal_t *handle, int number) {
    struct build_run *run = handle->data;
    if (run->signal != 0) {
        _exit(SIGNAL_BASE + number);
    }
    run->signal = number;
    if (!run->done) {
        build_cancel(run->build);
    }
}

static void on_tick(uv_timer_t *timer) {
    struct build_run *run = timer->data;
    displays_tick(run->view, clock_wall_ms(&clock_system), "builds go on", &run->displays);
}

static void publish_start(struct build_run *run, const char *policy) {
    const struct context *context = run->context;
    struct event *event = event_new(EVENT_RUN_START);
    event->fleet = xstrdup(context->inventory->name);
    event->inventory = xstrdup(context->inventory->path);
    event->rev = xstrdup(context->git.rev);
    event->dirty = context->git.dirty;
    event->action = ACTION_BUILD;
    event->policy = xstrdup(policy);
    event->wave_count = 1;
    event->host_count = context->host_count;
    event->hosts = xcalloc(context->host_count + 1, sizeof(*event->hosts));
    for (size_t i = 0; i < context->host_count; i++) {
        const struct inv_host *host = context->hosts[i];
        event->hosts[i].name = xstrdup(host->name);
        event->hosts[i].wave = 1;
        event->hosts[i].address = xstrdup(host->address_count > 0 ? host->addresses[0].host : "");
    }
    publish(run, event, true);
}

static int exit_code(const struct build_run *run) {
    if (run->signal != 0) {
        return SIGNAL_BASE + run->signal;
    }
    if (run->failure.code != 0) {
        return EXIT_SYSTEM;
    }
    return view_count(run->view, HOST_FAILED) > 0 ? EXIT_BUILD_FAILED : EXIT_DONE;
}

static void publish_end(struct build_run *run) {
    struct event *event = event_new(EVENT_RUN_END);
    int code = exit_code(run);
    event->exit = code;
    event->result = xstrdup(run->signal != 0            ? "interrupted"
                            : code == EXIT_BUILD_FAILED ? "build-failed"
                            : code == EXIT_DONE         ? "done"
                                                        : "failed");
    for (enum host_state state = 0; state < HOST_STATE_COUNT; state++) {
        event->counts[state] = (uint32_t)view_count(run->view, state);
    }
    publish(run, event, true);
}

static void open_loop(struct build_run *run) {
    static const int numbers[] = {SIGINT, SIGTERM};
    uv_loop_init(&run->loop);
    uv_timer_init(&run->loop, &run->tick);
    run->tick.data = run;
    uv_timer_start(&run->tick, on_tick, TICK_MS, TICK_MS);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        uv_signal_init(&run->loop, &run->signals[i]);
        run->signals[i].data = run;
        uv_signal_start(&run->signals[i], on_signal, numbers[i]);
    }
    run->transport = transport_new(&run->loop, run->context->keyring);
}

static void close_loop(struct build_run *run) {
    uv_close((uv_handle_t *)&run->tick, NULL);
    for (size_t i = 0; i < ARRAY_LEN(run->signals); i++) {
        uv_close((uv_handle_t *)&run->signals[i], NULL);
    }
    build_free(run->build);
    uv_run(&run->loop, UV_RUN_DEFAULT);
    transport_free(run->transport);
    uv_run(&run->loop, UV_RUN_DEFAULT);
    uv_loop_close(&run->loop);
}

static void build_all(struct build_run *run, const char *out_link) {
    static const struct build_handlers handlers = {.on_state = on_state,
                                                   .on_log = on_log,
                                                   .on_step = on_step,
                                                   .on_person = on_person,
                                                   .on_built = on_built,
                                                   .on_failed = on_failed,
                                                   .on_done = on_done};
    const struct context *context = run->context;
    struct build_options options = {.run_dir = journal_dir(run->journal),
                                    .out_link = out_link,
                                    .transport = run->transport,
                                    .spec = find_spec,
                                    .elevation = find_elevation,
                                    .spec_arg = run};
    run->build = build_start(&run->loop, context->inventory, context->hosts, context->host_count,
                             &options, &handlers, run);
    uv_run(&run->loop, UV_RUN_DEFAULT);
}

static int run_build(struct context *context, const char *out_link) {
    struct build_run run = {.context = context};
    struct error error = ERROR_INIT;
    run_id_new(clock_wall_ms(&clock_system), run.id);
    if (journal_create(context->state_dir, run.id, &run.journal, &error) != 0) {
        return context_fail(&error);
    }
    AUTO_FREE char *policy = override_json(&context->overrides);
    run.view = view_new();
    displays_open(context, true, &run.displays);
    open_loop(&run);
    publish_start(&run, policy);
    build_all(&run, out_link);
    publish_end(&run);
    if (run.failure.code != 0) {
        fprintf(stderr, "fleet: %s\n", run.failure.message);
    }
    int code = exit_code(&run);
    close_loop(&run);
    displays_close(&run.displays);
    view_free(run.view);
    journal_close(run.journal);
    return code;
}

/* The links' folder is meant from where fleet was called; Nix runs elsewhere. */
static char *absolute(const char *path) {
    char here[PATH_MAX];
    if (path == NULL || path[0] == '/' || getcwd(here, sizeof(here)) == NULL) {
        return path != NULL ? xstrdup(path) : NULL;
    }
    return xasprintf("%s/%s", here, path);
}

int cmd_build(const struct args *args) {
    struct context context;
    context_init(&context, args);
    int code = context_load(&context);
    if (code == 0) {
        code = context_select(&context);
    }
    if (code == 0) {
        code = context_surroundings(&context);
    }
    if (code == 0) {
        code = context_connect(&context, false);
    }
    if (code == 0) {
        code = context_build_access(&context);
    }
    if (code == 0) {
        AUTO_FREE char *out_link = absolute(args_value(args, OPTION_OUT_LINK));
        code = run_build(&context, out_link);
    }
    context_release(&context);
    return code;
}
