/* What several hosts share: one evaluation of a flake or file, and one look at all systems that are
 * built already, which is most of what an unchanged fleet costs here (a process of Nix takes 15 to
 * 30 ms, whether it does anything or not).
 *
 * Sharing never changes an answer: whenever a shared process doesn't end well, or says something
 * that isn't plainly one answer a job, each of its jobs is done again by itself.
 */
#include <assert.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "core/build_internal.h"

/* Hosts in one evaluation: what they share is evaluated once, what they don't adds up in memory. */
#define EVALUATED_MAX 32
#define PRESENT_MAX   256
#define TELL_MAX      32 /* jobs in one turn of the loop */

static struct build_group *group_new(struct build *build, size_t max) {
    struct build_group *group = xcalloc(1, sizeof(*group));
    group->build = build;
    group->jobs = xcalloc(max, sizeof(struct build_job *));
    return group;
}

static void group_free(struct build_group *group) {
    build_log_free(&group->log);
    auto_free(&group->jobs);
    auto_free(&group->paths);
    auto_free(&group->path_of);
    auto_free(&group);
}

/* RUN_DIR/roots/+NAME-N, which is no host's name, or NULL. The caller frees. */
static char *group_root(const struct build *build, const char *name) {
    return build->roots == NULL ? NULL
                                : xasprintf("%s/+%s-%zu", build->roots, name, build->group_count);
}

static void on_line(const char *line, size_t len, void *arg) {
    struct build_group *group = arg;
    build_log_add(&group->log, line, len);
    if (group->build->handlers.on_log != NULL) {
        group->build->handlers.on_log(SIZE_MAX, line, len, NULL, group->build->arg);
    }
}

static void group_start(struct build_group *group, const struct build_argv *argv, uint64_t total_ms,
                        const struct build_tool_handlers *handlers) {
    struct build *build = group->build;
    group->next = build->groups;
    build->groups = group;
    build->group_count++;
    group->tool = build_start_tool(build, argv, total_ms, handlers, group);
}

/* It no longer runs. */
static void group_ended(struct build_group *group) {
    struct build_group **link = &group->build->groups;
    while (*link != group) {
        link = &(*link)->next;
    }
    *link = group->next;
    group->build->running--;
}

/* Not the jobs' own failure: it would be the same for each by itself. */
static bool is_everybodys(const struct build_tool_result *result) {
    return result->err == FLEET_ERR_CANCELLED || result->err == FLEET_ERR_SYSTEM;
}

/* --- Evaluation --- */

static bool read_drvs(const struct build_group *group, const struct build_tool_result *result,
                      char **ret_drvs) {
    if (result->err != 0 || result->status != 0) {
        return false;
    }
    return group->jobs[0]->host->system.kind == INV_SYSTEM_FLAKE
               ? build_read_flake(result->out, group->count, ret_drvs)
               : build_read_files(result->out, group->count, ret_drvs);
}

static void on_evaluated(const struct build_tool_result *result, void *arg) {
    struct build_group *group = arg;
    char **drvs = xcalloc(group->count, sizeof(char *));
    bool ok = read_drvs(group, result, drvs);
    group_ended(group);
    for (size_t i = 0; i < group->count; i++) {
        struct build_job *job = group->jobs[i];
        if (ok && drvs[i] != NULL) {
            build_job_evaluated(job, drvs[i]);
        } else if (is_everybodys(result)) {
            build_job_failed(job, &result->error);
        } else {
            /* This one is wrong, or any one where all have failed: by itself it will say why. */
            job->alone = true;
        }
    }
    build_turn(group->build);
    auto_free(&drvs);
    group_free(group);
}

bool build_evaluate_shared(struct build *build, size_t first) {
    static const struct build_tool_handlers handlers = {.on_line = on_line,
                                                        .on_done = on_evaluated};
    const struct inv_system *system = &build->jobs[first].host->system;
    const struct inv_system *systems[EVALUATED_MAX];
    struct build_group *group = group_new(build, EVALUATED_MAX);
    for (size_t i = first; i < build->count && group->count < EVALUATED_MAX; i++) {
        struct build_job *job = &build->jobs[i];
        if (job->state == JOB_NEW && build_shares_evaluation(&job->host->system, system)) {
            systems[group->count] = &job->host->system;
            group->jobs[group->count++] = job;
        }
    }
    if (group->count < 2) {
        group_free(group);
        return false;
    }
    build_log_init(&group->log, build->run_dir, "evaluation");
    struct build_argv argv = {0};
    if (system->kind == INV_SYSTEM_FLAKE) {
        build_flake_argv(systems, group->count, &argv);
    } else {
        char *root = group_root(build, "evaluation");
        build_files_argv(systems, group->count, root, &argv);
        auto_free(&root);
    }
    group_start(group, &argv, build->options.evaluate_ms, &handlers);
    build_argv_free(&argv);
    for (size_t i = 0; i < group->count; i++) {
        group->jobs[i]->state = JOB_EVALUATING;
        build_job_state(group->jobs[i], BUILD_EVALUATING);
    }
    return true;
}

/* --- What is built already --- */

/* A look at the file system, which may err: Nix is asked afterwards. */
static bool is_here(struct build_job *job) {
    if (job->presence == PRESENCE_UNKNOWN) {
        struct stat info;
        size_t len = strlen(job->wanted);
        bool is_drv = len > 4 && strcmp(job->wanted + len - 4, ".drv") == 0;
        char *path = is_drv ? build_output_of(job->wanted) : xstrdup(job->wanted);
        bool found = path != NULL && lstat(path, &info) == 0;
        job->presence = found ? PRESENCE_HERE : PRESENCE_AWAY;
        auto_free(&path);
    }
    return job->presence == PRESENCE_HERE;
}

static bool is_candidate(struct build_job *job) {
    return job->state == JOB_EVALUATED && job->place == NULL && !job->separate && is_here(job);
}

/* Where the run's folder says a host's system is; the group's own link is what Nix keeps it by. */
static void link_root(const struct build_job *job, const char *path) {
    const struct build *build = job->build;
    if (build->roots != NULL) {
        char *link = xasprintf("%s/%s", build->roots, job->host->name);
        if (symlink(path, link) != 0) {
            /* Nothing depends on it: it is there for a person to find. */
        }
        auto_free(&link);
    }
}

static void free_paths(char **paths, size_t count) {
    for (size_t i = 0; paths != NULL && i < count; i++) {
        auto_free(&paths[i]);
    }
    auto_free(&paths);
}

static void on_rooted(const struct build_tool_result *result, void *arg) {
    struct build_group *group = arg;
    char **paths = xcalloc(group->path_count, sizeof(char *));
    bool ok = result->err == 0 && result->status == 0 &&
              build_read_paths(result->out, group->path_count, paths);
    group_ended(group);
    if (ok) {
        group->rooted = paths;
    } else {
        free_paths(paths, group->path_count);
        if (is_everybodys(result)) {
            group->error = result->error;
        }
    }
    group->next = group->build->rooted;
    group->build->rooted = group;
    build_turn(group->build);
}

static void tell_rooted(const struct build_group *group, size_t at) {
    struct build_job *job = group->jobs[at];
    if (group->rooted != NULL) {
        const char *path = group->rooted[group->path_of[at]];
        link_root(job, path);
        build_job_built(
            job, &(struct build_result){.path = path,
                                        .drv = strcmp(path, job->wanted) != 0 ? job->wanted : "",
                                        .source = BUILD_SOURCE_LOCAL,
                                        .remote_command = ""});
    } else if (group->error.code != 0) {
        build_job_failed(job, &group->error);
    } else {
        job->separate = true;
        job->state = JOB_EVALUATED;
    }
}

void build_tell_rooted(struct build *build) {
    for (size_t left = TELL_MAX; build->rooted != NULL; left--) {
        struct build_group *group = build->rooted;
        if (left == 0) {
            build_turn_later(build);
            return;
        }
        tell_rooted(group, group->told++);
        if (group->told == group->count) {
            build->rooted = group->next;
            free_paths(group->rooted, group->path_count);
            group_free(group);
        }
    }
}

static void add_job(struct build_group *group, struct build_job *job) {
    size_t path = 0;
    while (path < group->path_count && strcmp(group->paths[path], job->wanted) != 0) {
        path++;
    }
    if (path == group->path_count) {
        group->paths[group->path_count++] = job->wanted;
    }
    group->path_of[group->count] = path;
    group->jobs[group->count++] = job;
}

static void root_with(struct build *build, size_t first) {
    static const struct build_tool_handlers handlers = {.on_line = on_line, .on_done = on_rooted};
    const struct inv_system *system = &build->jobs[first].host->system;
    struct build_group *group = group_new(build, PRESENT_MAX);
    group->paths = xcalloc(PRESENT_MAX, sizeof(char *));
    group->path_of = xcalloc(PRESENT_MAX, sizeof(size_t));
    for (size_t i = first; i < build->count && group->count < PRESENT_MAX; i++) {
        struct build_job *job = &build->jobs[i];
        if (is_candidate(job) && build_shares_realisation(&job->host->system, system)) {
            add_job(group, job);
        }
    }
    if (group->count < 2) {
        build->jobs[first].separate = true;
        group_free(group);
        return;
    }
    build_log_init(&group->log, build->run_dir, "present");
    char *root = group_root(build, "present");
    struct build_argv argv = {0};
    build_realise_all_argv(system, group->paths, group->path_count, root, &argv);
    group_start(group, &argv, build->options.build_ms, &handlers);
    build_argv_free(&argv);
    auto_free(&root);
    for (size_t i = 0; i < group->count; i++) {
        group->jobs[i]->state = JOB_BUILDING;
        build_job_state(group->jobs[i], BUILD_BUILDING);
    }
}

void build_root_present(struct build *build) {
    /* `build --out-link` wants a root of its own for each. */
    for (size_t i = 0; build->out_link == NULL && i < build->count; i++) {
        if (build->running < BUILD_TOOLS_MAX && is_candidate(&build->jobs[i])) {
            root_with(build, i);
        }
    }
}
