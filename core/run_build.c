/* Where each host's system comes from: a build, a saved plan, or what the host or the journal of a
 * resumed run already names.
 */
#include "core/run_internal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "core/build.h"

void run_desire(struct run *run, size_t host, const char *path, const struct host_source *source) {
    struct run_host *known = &run->hosts[host];
    if (known->desired != path) {
        free(known->desired);
        known->desired = xstrdup(path);
        known->source = *source;
    }
    if (!run_cache_holds(run, host)) {
        lane_desired(known->lane, host, path, source);
    }
}

static const char *const build_names[] = {[BUILD_EVALUATING] = "evaluating",
                                          [BUILD_BUILDING] = "building",
                                          [BUILD_BUILT] = "built",
                                          [BUILD_FAILED] = "failed"};

static void on_build_state(size_t index, enum build_state state, const char *path, const char *drv,
                           void *arg) {
    struct run *run = arg;
    struct event *event = run_host_event(run, EVENT_BUILD, run->build_map[index]);
    event->state = xstrdup(build_names[state]);
    event->path = path != NULL ? xstrdup(path) : NULL;
    event->drv = drv != NULL ? xstrdup(drv) : NULL;
    run_publish_soon(run, run->build_map[index], event);
}

static void on_build_log(size_t index, const char *line, size_t len, const char *drv, void *arg) {
    struct run *run = arg;
    size_t host = index != SIZE_MAX ? run->build_map[index] : SIZE_MAX;
    run_publish_build_log(run, host, line, len, drv);
}

static void on_build_step(size_t index, const struct build_step *step, void *arg) {
    struct run *run = arg;
    struct event *event = run_host_event(run, EVENT_DERIVATION, run->build_map[index]);
    build_step_tell(step, event);
    run_publish(run, event, false);
}

static void on_build_person(const char *text, void *arg) {
    run_publish_log(arg, SIZE_MAX, "agent", text, strlen(text));
}

static void on_built(size_t index, const struct build_result *result, void *arg) {
    static const enum host_source_kind kinds[] = {[BUILD_SOURCE_LOCAL] = HOST_SOURCE_LOCAL,
                                                  [BUILD_SOURCE_REMOTE] = HOST_SOURCE_REMOTE,
                                                  [BUILD_SOURCE_TARGET] = HOST_SOURCE_TARGET};
    struct run *run = arg;
    struct host_source source = {.kind = kinds[result->source],
                                 .remote = result->remote,
                                 .remote_command = result->remote_command};
    run_desire(run, run->build_map[index], result->path, &source);
}

static void on_build_failed(size_t index, const struct error *error, void *arg) {
    struct run *run = arg;
    size_t host = run->build_map[index];
    if (error->code != FLEET_ERR_CANCELLED) {
        free(run->hosts[host].unbuilt);
        run->hosts[host].unbuilt = xmemdup(error, sizeof(*error));
        lane_end(run->hosts[host].lane, host, HOST_FAILED, error);
    }
}

static void on_build_done(void *arg) {
    struct run *run = arg;
    run->build_done = true;
    run_maybe_close(run);
}

static const struct conn_spec *build_spec(const struct inv_host *host, void *arg) {
    const struct run *run = arg;
    return spec_of(run->options->specs, host);
}

static int build_elevation(const struct inv_host *host, struct elevation *ret, struct error *error,
                           void *arg) {
    const struct run *run = arg;
    return spec_elevation(run->options->specs, host, ret, error);
}

/* What a resumed host is to run is known from the journal where its change was granted, or where
 * its build still lies here; else NULL. */
static const char *recorded_path(const struct run *run, size_t host, struct host_source *source) {
    const struct resume_host *recorded = run->resume != NULL ? &run->resume->hosts[host] : NULL;
    if (recorded == NULL || recorded->path == NULL) {
        return NULL;
    }
    *source = (struct host_source){.kind = HOST_SOURCE_LOCAL};
    if (access(recorded->path, F_OK) != 0 || run->options->action == ACTION_ROLLBACK) {
        if (!recorded->touched && run->options->action != ACTION_ROLLBACK) {
            return NULL;
        }
        source->kind = HOST_SOURCE_TARGET; /* it was copied there before its change was granted */
    }
    return recorded->path;
}

static bool give_recorded(struct run *run, size_t host) {
    struct host_source source;
    const char *path = recorded_path(run, host, &source);
    if (path != NULL) {
        run_desire(run, host, path, &source);
    }
    return path != NULL;
}

/* It is among those that are built, and the build has not said yet what came of it. */
static bool is_awaited(const struct run *run, size_t host) {
    bool builds = run->build != NULL && !run->build_done;
    for (size_t i = 0; builds && run->build_hosts[i] != NULL; i++) {
        if (run->build_map[i] == host) {
            return true;
        }
    }
    return false;
}

bool run_can_desire(const struct run *run, size_t host) {
    const struct run_host *known = &run->hosts[host];
    enum run_action action = run->options->action;
    struct host_source source;
    return known->desired != NULL || known->unbuilt != NULL || action == ACTION_REBOOT ||
           (action == ACTION_ROLLBACK && run->resume == NULL) || is_awaited(run, host) ||
           recorded_path(run, host, &source) != NULL;
}

void run_desire_again(struct run *run, size_t host) {
    const struct run_host *known = &run->hosts[host];
    if (known->unbuilt != NULL) {
        lane_end(known->lane, host, HOST_FAILED, known->unbuilt);
    } else if (known->desired != NULL) {
        run_desire(run, host, known->desired, &known->source);
    } else {
        give_recorded(run, host);
    }
}

/* Fills build_hosts and build_map; how many there are to build. */
static size_t choose_builds(struct run *run) {
    size_t count = 0;
    run->build_hosts = xcalloc(run->options->host_count + 1, sizeof(*run->build_hosts));
    run->build_map = xcalloc(run->options->host_count + 1, sizeof(*run->build_map));
    for (size_t i = 0; i < run->options->host_count; i++) {
        if (run->hosts[i].lane != NULL && !give_recorded(run, i)) {
            run->build_hosts[count] = run_inv(run, i);
            run->build_map[count++] = i;
        }
    }
    return count;
}

static void start_build(struct run *run) {
    static const struct build_handlers handlers = {.on_state = on_build_state,
                                                   .on_log = on_build_log,
                                                   .on_step = on_build_step,
                                                   .on_person = on_build_person,
                                                   .on_built = on_built,
                                                   .on_failed = on_build_failed,
                                                   .on_done = on_build_done};
    const struct run_options *options = run->options;
    struct build_options build = {.run_dir = journal_dir(run->journal),
                                  .out_link = options->out_link,
                                  .transport = run->transport,
                                  .spec = build_spec,
                                  .elevation = build_elevation,
                                  .spec_arg = run};
    size_t count = choose_builds(run);
    if (count > 0) {
        run->build = build_start(&run->loop, options->inventory, run->build_hosts, count, &build,
                                 &handlers, run);
    }
}

/* A rollback needs no build: the hosts have it. Without a path they choose themselves. */
static void start_rollback(struct run *run) {
    struct host_source source = {.kind = HOST_SOURCE_TARGET};
    for (size_t i = 0; i < run->options->host_count; i++) {
        if (run->hosts[i].lane == NULL || give_recorded(run, i)) {
            continue;
        }
        const struct run_system *systems = run->options->systems;
        const char *path = systems != NULL ? systems[i].path : run->options->to_path;
        if (path != NULL) {
            run_desire(run, i, path, &source);
        }
    }
}

/* `update --plan`: exactly what was planned. */
static void start_planned(struct run *run) {
    for (size_t i = 0; i < run->options->host_count; i++) {
        const struct run_system *system = &run->options->systems[i];
        struct host_source source = {.kind = system->on_target ? HOST_SOURCE_TARGET
                                                               : HOST_SOURCE_LOCAL};
        run_desire(run, i, system->path, &source);
    }
}

static void on_change(struct event *event, void *arg) {
    run_publish(arg, event, false);
}

void run_start_systems(struct run *run) {
    run->changes = changes_new(&run->loop, on_change, run);
    if (run->options->action == ACTION_ROLLBACK) {
        start_rollback(run);
    } else if (run->options->systems != NULL) {
        start_planned(run);
    } else if (run->options->action != ACTION_REBOOT) {
        start_build(run);
    }
}
