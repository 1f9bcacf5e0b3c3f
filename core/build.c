/* Evaluation and builds on this machine; what goes to a build host is build_place.c's.
 *
 * One timer ("turn") is the driver: every callback that changes something asks for a turn, and the
 * turn starts what can be started: first the evaluations that many hosts share, then single ones,
 * then what is built already, then builds. A build is never shared: each has its own log, and a host
 * needn't wait for another's; hosts that want the same derivation wait for the first one's build. So a callback never starts or frees anything itself, and no handler of the caller is
 * called inside build_start.
 */
#include "core/build.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/build_internal.h"

#define SILENCE_MS      (30u * 60u * 1000u)
#define EVALUATE_MS     (60u * 60u * 1000u)
#define BUILD_MS        (24u * 60u * 60u * 1000u)
#define EXCERPT_MAX     820
#define LOGGED_NAME_MAX 200

static void turn(struct build *build);

/* --- Bookkeeping --- */

static void on_turn(uv_timer_t *timer) {
    turn(container_of(timer, struct build, turn));
}

void build_turn(struct build *build) {
    if (!build->freed) {
        uv_timer_start(&build->turn, on_turn, 0, 0);
    }
}

/* A timer of 0 ms that is started in a timer's callback runs in the same turn of the loop
 * (libuv 1.44). */
void build_turn_later(struct build *build) {
    if (!build->freed) {
        uv_timer_start(&build->turn, on_turn, 1, 0);
    }
}

static void log_line(struct build_job *job, const char *line, size_t len, const char *drv) {
    build_log_add(&job->log, line, len);
    if (job->build->handlers.on_log != NULL) {
        job->build->handlers.on_log(job->index, line, len, drv, job->build->arg);
    }
}

static void on_progress_line(const char *line, size_t len, const char *drv, void *arg) {
    log_line(arg, line, len, drv);
}

static void on_progress_step(const struct build_step *step, void *arg) {
    struct build_job *job = arg;
    struct build_step placed = *step;
    if (job->build->handlers.on_step == NULL) {
        return;
    }
    if (placed.machine == NULL && job->place != NULL) {
        placed.machine = build_place_name(job->place);
    }
    job->build->handlers.on_step(job->index, &placed, job->build->arg);
}

void build_job_line(struct build_job *job, const char *line, size_t len) {
    static const struct build_progress_handlers handlers = {.on_line = on_progress_line,
                                                            .on_step = on_progress_step};
    if (job->progress == NULL) {
        job->progress = build_progress_new(&handlers, job);
    }
    build_progress_line(job->progress, line, len);
}

void build_job_state(struct build_job *job, enum build_state state) {
    const struct build *build = job->build;
    if (build->handlers.on_state != NULL) {
        const char *wanted = job->wanted != NULL ? job->wanted : "";
        size_t len = strlen(wanted);
        bool is_drv = len > 4 && strcmp(wanted + len - 4, ".drv") == 0;
        build->handlers.on_state(job->index, state, is_drv ? "" : wanted, is_drv ? wanted : "",
                                 build->arg);
    }
}

static void finish(struct build_job *job) {
    assert(job->state != JOB_DONE && job->tool == NULL && job->remote == NULL);
    job->state = JOB_DONE;
    build_progress_free(job->progress);
    job->progress = NULL;
    job->build->done++;
    build_turn(job->build);
}

void build_job_built(struct build_job *job, const struct build_result *result) {
    struct build *build = job->build;
    finish(job);
    if (build->handlers.on_state != NULL) {
        build->handlers.on_state(job->index, BUILD_BUILT, result->path, result->drv, build->arg);
    }
    build->handlers.on_built(job->index, result, build->arg);
}

void build_job_failed(struct build_job *job, const struct error *error) {
    struct build *build = job->build;
    finish(job);
    build_job_state(job, BUILD_FAILED);
    build->handlers.on_failed(job->index, error, build->arg);
}

/* "the evaluation failed: " and the tool's own words; where it didn't end by itself, why. */
static void describe_failure(const struct build_log *log, const struct build_tool_result *result,
                             const char *what, const char *reason, struct error *error) {
    if (result->err == FLEET_ERR_CANCELLED || result->err == FLEET_ERR_SYSTEM) {
        *error = result->error;
        return;
    }
    struct buf words = BUF_INIT;
    if (result->err != 0) {
        buf_add_text(&words, result->error.message);
        if (log->next > 0) {
            buf_add_text(&words, "; its last words:\n");
        }
    }
    build_log_excerpt(log, EXCERPT_MAX, &words);
    if (words.len == 0) {
        buf_printf(&words, "exit status %d and not a word", result->status);
    }
    if (log->file != NULL) {
        size_t len = strlen(log->path);
        if (len <= LOGGED_NAME_MAX) {
            buf_printf(&words, "\nthe whole log: %s", log->path);
        }
    }
    error_set(error, FLEET_ERR_BUILD, reason, "the %s failed: %s", what, buf_text(&words));
    buf_free(&words);
}

static void fail_tool(struct build_job *job, const struct build_tool_result *result,
                      const char *what, const char *reason) {
    struct error error = ERROR_INIT;
    describe_failure(&job->log, result, what, reason, &error);
    build_job_failed(job, &error);
}

static void fail_words(struct build_job *job, const char *reason, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void fail_words(struct build_job *job, const char *reason, const char *format, ...) {
    struct error error = ERROR_INIT;
    va_list args;
    va_start(args, format);
    error_setv(&error, FLEET_ERR_BUILD, reason, format, args);
    va_end(args);
    build_job_failed(job, &error);
}

static void on_job_line(const char *line, size_t len, void *arg) {
    log_line(arg, line, len, NULL);
}

static void on_realise_line(const char *line, size_t len, void *arg) {
    build_job_line(arg, line, len);
}

struct build_tool *build_start_tool(struct build *build, const struct build_argv *argv,
                                    uint64_t total_ms, const struct build_tool_handlers *handlers,
                                    void *arg) {
    struct build_limit limit = {.silence_ms = build->options.silence_ms, .total_ms = total_ms};
    build->running++;
    return build_tool_start(build->loop, (const char *const *)argv->items, build->inventory->dir,
                            &limit, handlers, arg);
}

/* --- Evaluation --- */

void build_job_evaluated(struct build_job *job, char *wanted) {
    job->wanted = wanted;
    job->state = JOB_EVALUATED;
    build_turn(job->build);
}

static bool has_more_lines(const char *out) {
    out += strcspn(out, "\r\n");
    return out[strspn(out, " \t\r\n")] != '\0';
}

static void on_evaluated(const struct build_tool_result *result, void *arg) {
    struct build_job *job = arg;
    job->tool = NULL;
    job->build->running--;
    bool is_command = job->host->system.kind == INV_SYSTEM_COMMAND;
    if (result->err != 0 || result->status != 0) {
        fail_tool(job, result, is_command ? "build command" : "evaluation",
                  is_command ? "build-failed" : "eval-failed");
        return;
    }
    char *path = build_read_path(result->out);
    if (path != NULL && has_more_lines(result->out)) {
        auto_free(&path);
        fail_words(job, "eval-failed",
                   is_command ? "%s printed several lines, where one store path is expected"
                              : "%s gives several derivations, where one is expected; name it with "
                                "\"attr\"",
                   is_command ? job->host->system.command.items[0] : "the evaluation");
        return;
    }
    if (path == NULL) {
        size_t first_line = strcspn(result->out, "\r\n");
        char *words =
            text_cleaned(result->out, strnlen(result->out, first_line < 80 ? first_line : 80));
        fail_words(job, "eval-failed", "%s printed no store path but \"%s\"",
                   is_command ? job->host->system.command.items[0] : "the evaluation", words);
        auto_free(&words);
        return;
    }
    build_job_evaluated(job, path);
}

/* Where a flake's evaluation is not a derivation, `.drvPath` says so in Nix's own words. */
static void evaluate(struct build_job *job) {
    static const struct build_tool_handlers handlers = {.on_line = on_job_line,
                                                        .on_done = on_evaluated};
    const struct inv_system *system = &job->host->system;
    struct build_argv argv = {0};
    if (system->kind == INV_SYSTEM_COMMAND) {
        for (size_t i = 0; i < system->command.count; i++) {
            build_argv_add(&argv, "%s", system->command.items[i]);
        }
    } else {
        char *root = job->build->roots == NULL
                         ? NULL
                         : xasprintf("%s/%s.drv", job->build->roots, job->host->name);
        build_evaluate_argv(system, root, &argv);
        auto_free(&root);
    }
    if (job->state == JOB_NEW) {
        job->state = JOB_EVALUATING;
        build_job_state(job, BUILD_EVALUATING);
    }
    job->alone = false;
    uint64_t total_ms = system->kind == INV_SYSTEM_COMMAND ? job->build->options.build_ms
                                                           : job->build->options.evaluate_ms;
    job->tool = build_start_tool(job->build, &argv, total_ms, &handlers, job);
    build_argv_free(&argv);
}

/* --- Builds on this machine --- */

/* Where `build --out-link` wants its link, else the run's own root; a new string, or NULL. */
static char *root_of(const struct build_job *job, const char *folder) {
    return folder == NULL ? NULL : xasprintf("%s/%s", folder, job->host->name);
}

/* Waits for another host's build of the same path? */
static bool waits_for(const struct build_job *job, const struct build_job *builder) {
    return job != builder && job->state == JOB_EVALUATED && job->place == NULL &&
           strcmp(job->wanted, builder->wanted) == 0 &&
           build_shares_realisation(&job->host->system, &builder->host->system);
}

static bool is_being_built(const struct build_job *job) {
    for (size_t i = 0; i < BUILD_TOOLS_MAX; i++) {
        const struct build_job *builder = job->build->builders[i];
        if (builder != NULL && waits_for(job, builder)) {
            return true;
        }
    }
    return false;
}

/* `builder` may stand among the builders (from NULL), or no longer (to NULL). */
static void swap_builder(struct build *build, const struct build_job *from, struct build_job *to) {
    size_t i = 0;
    while (build->builders[i] != from) {
        i++;
        assert(i < BUILD_TOOLS_MAX);
    }
    build->builders[i] = to;
}

/* The failure is that of all who waited for it: building it again would fail again. */
static void fail_builders(struct build_job *job, const struct error *error) {
    const struct build *build = job->build;
    for (size_t i = 0; error->code == FLEET_ERR_BUILD && i < build->count; i++) {
        if (waits_for(&build->jobs[i], job)) {
            build_job_failed(&build->jobs[i], error);
        }
    }
    build_job_failed(job, error);
}

static void fail_realised(struct build_job *job, const struct build_tool_result *result) {
    struct error error = ERROR_INIT;
    bool missing = job->host->system.kind == INV_SYSTEM_PATH && access(job->wanted, F_OK) != 0;
    if (result->err == 0 && missing) {
        error_set(&error, FLEET_ERR_BUILD, "build-failed",
                  "%s is not in this machine's store, and no substituter has it; build or "
                  "copy it, or, if the host has it already, set \"build\": {\"on\": \"target\"}",
                  job->wanted);
    } else {
        describe_failure(&job->log, result, "build", "build-failed", &error);
    }
    fail_builders(job, &error);
}

static void on_realised(const struct build_tool_result *result, void *arg) {
    struct build_job *job = arg;
    struct build *build = job->build;
    job->tool = NULL;
    build->running--;
    swap_builder(build, job, NULL);
    if (result->err == 0 && job->progress != NULL && build_progress_is_refused(job->progress)) {
        /* Once for all: the next ones aren't asked for it. */
        build->old_log = true;
        build_progress_free(job->progress);
        job->progress = NULL;
        job->state = JOB_EVALUATED;
        build_turn(build);
        return;
    }
    if (result->err != 0 || result->status != 0) {
        fail_realised(job, result);
        return;
    }
    char *path = build_read_path(result->out);
    if (path == NULL) {
        fail_words(job, "build-failed", "nix-store built %s and named no output", job->wanted);
        return;
    }
    for (size_t i = 0; i < build->count; i++) {
        if (waits_for(&build->jobs[i], job)) {
            build->jobs[i].presence = PRESENCE_UNKNOWN;
            build->jobs[i].separate = false;
        }
    }
    bool is_drv = strcmp(path, job->wanted) != 0;
    build_job_built(job, &(struct build_result){.path = path,
                                                .drv = is_drv ? job->wanted : "",
                                                .source = BUILD_SOURCE_LOCAL,
                                                .remote_command = ""});
    auto_free(&path);
}

static void realise_here(struct build_job *job) {
    static const struct build_tool_handlers handlers = {.on_line = on_realise_line,
                                                        .on_done = on_realised};
    struct build *build = job->build;
    swap_builder(build, NULL, job);
    char *root = root_of(job, build->out_link != NULL ? build->out_link : build->roots);
    struct build_argv argv = {0};
    build_realise_argv(&job->host->system, job->wanted, root, &argv);
    if (!build->old_log) {
        build_argv_add(&argv, "--log-format");
        build_argv_add(&argv, "internal-json");
    }
    job->tool = build_start_tool(build, &argv, build->options.build_ms, &handlers, job);
    build_argv_free(&argv);
    auto_free(&root);
}

/* --- The driver --- */

static bool is_evaluable(const struct build_job *job) {
    return job->alone || (job->state == JOB_NEW && job->host->system.kind != INV_SYSTEM_PATH);
}

static void start_evaluations(struct build *build) {
    for (size_t i = 0; i < build->count && build->running < BUILD_TOOLS_MAX; i++) {
        struct build_job *job = &build->jobs[i];
        if (job->state == JOB_NEW && job->host->system.kind == INV_SYSTEM_PATH) {
            build_job_evaluated(job, xstrdup(job->host->system.path));
        } else if (build->options.evaluate_only && job->state == JOB_NEW &&
                   job->host->system.kind == INV_SYSTEM_COMMAND) {
            fail_words(job, "eval-failed", "a command builds; it can't be evaluated alone");
        } else if (is_evaluable(job) && (job->alone || !build_evaluate_shared(build, i))) {
            evaluate(job);
        }
    }
}

/* What a build would give. */
static void tell_output(struct build_job *job) {
    char *path = job->host->system.kind == INV_SYSTEM_PATH ? xstrdup(job->wanted)
                                                           : build_output_of(job->wanted);
    if (path == NULL) {
        fail_words(job, "eval-failed", "what %s gives is only known once it is built", job->wanted);
        return;
    }
    build_job_built(job, &(struct build_result){.path = path,
                                                .drv = job->wanted,
                                                .source = BUILD_SOURCE_LOCAL,
                                                .remote_command = ""});
    auto_free(&path);
}

static void tell_outputs(struct build *build) {
    for (size_t i = 0; i < build->count; i++) {
        if (build->jobs[i].state == JOB_EVALUATED) {
            tell_output(&build->jobs[i]);
        }
    }
}

static void start_builds(struct build *build) {
    build_root_present(build);
    for (size_t i = 0; i < build->count; i++) {
        struct build_job *job = &build->jobs[i];
        if (job->state != JOB_EVALUATED) {
            continue;
        }
        bool room = job->place == NULL ? build->running < BUILD_TOOLS_MAX && !is_being_built(job)
                                       : build_place_has_room(job->place);
        if (room) {
            job->state = JOB_BUILDING;
            build_job_state(job, BUILD_BUILDING);
            if (job->place == NULL) {
                realise_here(job);
            } else {
                build_place_start(job);
            }
        }
    }
}

static void cancel_rest(struct build *build) {
    struct error error = ERROR_INIT;
    error_set(&error, FLEET_ERR_CANCELLED, "cancelled", "cancelled");
    for (size_t i = 0; i < build->count; i++) {
        struct build_job *job = &build->jobs[i];
        if (job->state == JOB_NEW || job->state == JOB_EVALUATED || job->alone) {
            job->alone = false;
            build_job_failed(job, &error);
        }
    }
}

static void turn(struct build *build) {
    build_tell_rooted(build);
    if (build->cancelled) {
        cancel_rest(build);
    } else {
        start_evaluations(build);
        if (build->options.evaluate_only) {
            tell_outputs(build);
        } else {
            start_builds(build);
        }
    }
    if (build->done == build->count && !build->said_done) {
        build->said_done = true;
        build_places_close(build);
        if (build->handlers.on_done != NULL) {
            build->handlers.on_done(build->arg);
        }
    }
}

/* --- From outside --- */

/* The job's build host, or NULL for this machine. A list is dealt out in the hosts' order, and gone on
 * with from there where one is lost. */
static struct build_place *choose_place(struct build *build, const struct build_job *job) {
    const struct inv_host *host = job->host;
    if (host->build_on_count == 0 || build->options.evaluate_only ||
        host->system.kind == INV_SYSTEM_COMMAND) {
        return NULL; /* a command has built wherever it likes, and its path is here */
    }
    const struct inv_build_on *on =
        &host->build_on[(job->index + job->places_lost) % host->build_on_count];
    const struct inv_host *where = NULL;
    switch (on->kind) {
    case INV_BUILD_LOCAL:
        return NULL;
    case INV_BUILD_TARGET:
        where = host;
        break;
    case INV_BUILD_HOST:
        where = inventory_host(build->inventory, on->host);
        break;
    case INV_BUILD_ADDRESS:
        where = on->spec;
        break;
    }
    /* The inventory's loader has made sure that it exists. */
    return where == NULL || where->local ? NULL : build_place_get(build, where);
}

bool build_job_elsewhere(struct build_job *job, const struct error *error) {
    if (job->places_lost + 1 >= job->host->build_on_count || job->build->cancelled) {
        return false;
    }
    job->places_lost++;
    build_place_cancel(job);
    job->place = choose_place(job->build, job);
    job->state = JOB_EVALUATED;
    AUTO_FREE char *words = xasprintf("%s; the next of \"build.on\" takes it", error->message);
    log_line(job, words, strlen(words), NULL);
    build_turn(job->build);
    return true;
}

static void make_folder(const char *path) {
    if (path != NULL && mkdir(path, 0755) != 0 && errno != EEXIST) {
        /* Nix says what is wrong when it can't write its root there. */
        return;
    }
}

static void set_limits(struct build_options *options) {
    options->silence_ms = options->silence_ms != 0 ? options->silence_ms : SILENCE_MS;
    options->evaluate_ms = options->evaluate_ms != 0 ? options->evaluate_ms : EVALUATE_MS;
    options->build_ms = options->build_ms != 0 ? options->build_ms : BUILD_MS;
}

struct build *build_start(uv_loop_t *loop, const struct inventory *inventory,
                          const struct inv_host *const *hosts, size_t count,
                          const struct build_options *options,
                          const struct build_handlers *handlers, void *arg) {
    struct build *build = xcalloc(1, sizeof(*build));
    build->loop = loop;
    build->inventory = inventory;
    build->options = *options;
    build->handlers = *handlers;
    build->arg = arg;
    set_limits(&build->options);
    build->run_dir = options->run_dir != NULL ? xstrdup(options->run_dir) : NULL;
    build->roots = options->run_dir != NULL ? xasprintf("%s/roots", options->run_dir) : NULL;
    build->out_link = options->out_link != NULL ? xstrdup(options->out_link) : NULL;
    make_folder(build->roots);
    make_folder(build->out_link);
    build->jobs = xcalloc(count, sizeof(build->jobs[0]));
    build->count = count;
    for (size_t i = 0; i < count; i++) {
        struct build_job *job = &build->jobs[i];
        job->build = build;
        job->index = i;
        job->host = hosts[i];
        job->place = choose_place(build, job);
        build_log_init(&job->log, options->run_dir, hosts[i]->name);
    }
    uv_timer_init(loop, &build->turn);
    build->open = 1;
    build_turn(build);
    return build;
}

void build_cancel(struct build *build) {
    build->cancelled = true;
    for (struct build_group *group = build->groups; group != NULL; group = group->next) {
        build_tool_cancel(group->tool);
    }
    for (size_t i = 0; i < build->count; i++) {
        struct build_job *job = &build->jobs[i];
        if (job->tool != NULL) {
            build_tool_cancel(job->tool);
        } else if (job->remote != NULL) {
            build_place_cancel(job);
            job->state = JOB_EVALUATED; /* the turn ends it */
        }
    }
    build_turn(build);
}

static void destroy(struct build *build) {
    for (size_t i = 0; i < build->count; i++) {
        build_log_free(&build->jobs[i].log);
        auto_free(&build->jobs[i].wanted);
    }
    build_places_free(build);
    auto_free(&build->jobs);
    auto_free(&build->roots);
    auto_free(&build->run_dir);
    auto_free(&build->out_link);
    auto_free(&build);
}

void build_closed(struct build *build) {
    assert(build->open > 0);
    if (--build->open == 0) {
        destroy(build);
    }
}

static void on_turn_closed(uv_handle_t *handle) {
    build_closed(container_of(handle, struct build, turn));
}

void build_free(struct build *build) {
    assert(build->said_done && !build->freed);
    build->freed = true;
    uv_close((uv_handle_t *)&build->turn, on_turn_closed);
}
