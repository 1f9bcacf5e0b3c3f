/* What build.c (evaluation and local builds), build_shared.c (what several hosts share) and
 * build_place.c (build hosts) have in common.
 *
 *   JOB_NEW ──► JOB_EVALUATING ──► JOB_EVALUATED ──► JOB_BUILDING ──► JOB_DONE
 *        `path` systems, and commands once they have printed one, begin as EVALUATED; every state
 *        may end in JOB_DONE with a failure.
 *
 * A job belongs to one host. on_built or on_failed is called once, when it becomes JOB_DONE, and
 * nothing of it runs any more then.
 */
#ifndef FLEET_CORE_BUILD_INTERNAL_H
#define FLEET_CORE_BUILD_INTERNAL_H

#include "core/build.h"
#include "core/build_command.h"
#include "core/build_log.h"
#include "core/build_tool.h"
#include "transport/copy.h"

enum job_state {
    JOB_NEW,
    JOB_EVALUATING,
    JOB_EVALUATED,
    JOB_BUILDING,
    JOB_DONE
};

/* Tools at once: an evaluation of NixOS takes most of a gigabyte, and each nix-store already builds
 * as many derivations at once as nix.conf allows. */
enum {
    BUILD_TOOLS_MAX = 4
};

enum build_presence {
    PRESENCE_UNKNOWN,
    PRESENCE_HERE, /* its output lies in this machine's store, as far as a look there can tell */
    PRESENCE_AWAY
};

struct build_job {
    struct build *build;
    size_t index;
    const struct inv_host *host;
    enum job_state state;
    bool alone;   /* its shared evaluation failed: it is evaluated by itself */
    char *wanted; /* a derivation, or a path that is only fetched */
    enum build_presence presence;
    bool separate; /* realised by itself, not with others */
    struct build_log log;
    struct build_progress *progress; /* of its realisation; NULL: none runs */
    struct build_tool *tool;         /* here */
    /* On a build host. */
    struct build_place *place; /* NULL: here */
    size_t places_lost;        /* entries of `build.on` that were tried in vain */
    struct build_remote *remote;
};

/* Several jobs in one process: an evaluation of one flake or file, or paths to be rooted. */
struct build_group {
    struct build *build;
    struct build_job **jobs;
    size_t count;
    /* Paths: each named once, however many jobs want it. */
    const char **paths;
    size_t *path_of; /* of each job */
    size_t path_count;
    struct build_log log;
    struct build_tool *tool;
    struct build_group *next;
    /* What came of rooting it, of which the first `told` jobs have heard. */
    char **rooted;      /* of each path; NULL: that failed */
    struct error error; /* the failure, where it is everybody's */
    size_t told;
};

struct build {
    uv_loop_t *loop;
    const struct inventory *inventory;
    struct build_handlers handlers;
    void *arg;
    struct build_options options;
    char *run_dir; /* copies of the options' */
    char *out_link;
    char *roots;     /* RUN_DIR/roots, or NULL */
    uv_timer_t turn; /* starts what can be started, in a callback of its own */
    struct build_job *jobs;
    size_t count;
    size_t running; /* tools */
    size_t done;
    bool old_log; /* Nix here doesn't know its log as JSON */
    bool cancelled;
    bool said_done;
    bool freed;
    size_t open;                                 /* handles and connections that aren't closed */
    struct build_group *groups;                  /* running */
    struct build_group *rooted;                  /* done, and not all of their jobs know */
    size_t group_count;                          /* ever started */
    struct build_job *builders[BUILD_TOOLS_MAX]; /* realised by themselves, here, now */
    struct build_place *places;
    /* The local store, for derivations that go to a build host. */
    struct conn *local;
    struct copier *copier;
};

/* --- build.c --- */

/* Another look at what can be started, soon. */
void build_turn(struct build *build);
/* The same, in another turn of the loop. */
void build_turn_later(struct build *build);
/* What its process of Nix says goes through here, from the first line on; forgotten at its end. */
void build_job_line(struct build_job *job, const char *line, size_t len);
void build_job_state(struct build_job *job, enum build_state state);
/* The end of a job. `path` is copied by the receiver. */
void build_job_built(struct build_job *job, const struct build_result *result);
void build_job_failed(struct build_job *job, const struct error *error);
/* A handle or connection has closed. */
void build_closed(struct build *build);

/* The job knows what to realise; takes `wanted`. */
void build_job_evaluated(struct build_job *job, char *wanted);
/* Starts a tool in the inventory's folder, counted in `running` until the caller takes it off. */
struct build_tool *build_start_tool(struct build *build, const struct build_argv *argv,
                                    uint64_t total_ms, const struct build_tool_handlers *handlers,
                                    void *arg);
/* The job's build host was lost: it is to be built by the next one of its list. False: none is left. */
bool build_job_elsewhere(struct build_job *job, const struct error *error);

/* --- build_shared.c --- */

/* One evaluation for jobs[first] and all that can share it; false: there is none to share it with. */
bool build_evaluate_shared(struct build *build, size_t first);
/* One nix-store for all evaluated jobs whose outputs are here already: it makes sure of them and
 * roots them. */
void build_root_present(struct build *build);
/* Tells jobs what came of it: a few of them each time, as a thousand would keep the loop away. */
void build_tell_rooted(struct build *build);

/* --- build_place.c --- */

/* The build host of an inventory host's entry, shared by all jobs that go there. */
struct build_place *build_place_get(struct build *build, const struct inv_host *host);
/* As the inventory calls it. */
const char *build_place_name(const struct build_place *place);
/* Room for one more job? */
bool build_place_has_room(const struct build_place *place);
/* Copies the derivation there, builds it and ends the job. */
void build_place_start(struct build_job *job);
/* Ends a running job's work there without a word. */
void build_place_cancel(struct build_job *job);
/* Closes all connections; build_closed follows for each. No job runs. */
void build_places_close(struct build *build);
void build_places_free(struct build *build);

#endif
