/* The coordinator's inside, shared by core/run*.c only. Main thread.
 *
 *   run.c          its life: made, started, shown once a second, freed
 *   run_journal.c  the run's journal, new or taken up again
 *   run_publish.c  events: numbered, journaled, shown
 *   run_build.c    where each host's system comes from
 *   run_report.c   what the lanes report
 *   run_decide.c   the rollout's decisions: journaled, synced, and only then carried out
 *   run_request.c  what a person asks
 *   run_retry.c    a host that has ended is tried again
 *   run_signal.c   Ctrl-C and the like
 *   run_end.c      how it ends
 *
 * Invariant: a grant is on disk before its lane sees it (run_decide.c), and no lane hears of a host
 * that is not its own.
 */
#ifndef FLEET_CORE_RUN_INTERNAL_H
#define FLEET_CORE_RUN_INTERNAL_H

#include "core/build.h"
#include "core/change.h"
#include "core/journal.h"
#include "core/lane.h"
#include "core/loop_watch.h"
#include "core/resume.h"
#include "core/rollout.h"
#include "core/run.h"

#define RUN_LANES_MAX 4u

struct run_host {
    struct lane *lane; /* NULL: it had ended before the run was resumed */
    struct elevation elevation;
    char *path, *nonce; /* of what it wants */
    char *desired;      /* what it was told to run, and where that lies; NULL: nothing yet */
    struct host_source source;
    struct error *unbuilt; /* why its build failed, or NULL */
    bool open;             /* its lane has not closed it yet */
    bool again;            /* begins anew as soon as it is closed */
    bool released;
    uint32_t log_lines;
};

struct run {
    const struct run_options *options;
    uv_loop_t loop;
    struct loop_watch watch;
    struct host_run shared;
    char id[RUN_ID_SIZE];
    char *who;
    struct journal *journal;
    struct view *view;
    struct rollout *rollout;
    struct lane *lanes[RUN_LANES_MAX];
    uint32_t lane_count;
    struct run_host *hosts;
    size_t open_hosts;
    struct mailbox reports;
    struct secret_store *secrets;
    struct transport *transport; /* for build hosts */
    struct build *build;
    const struct inv_host **build_hosts; /* to be built, and the host of the run that each is */
    size_t *build_map;
    bool build_done;
    struct cache_fill *fills; /* core/run_cache.c */
    uv_timer_t gather;        /* what is to go into a cache becomes known together */
    struct changes *changes;  /* what the new systems change, for the displays */
    struct resume *resume;    /* NULL: a new run */
    uint64_t seq;
    uv_timer_t tick, display, leave;
    uv_signal_t signals[4];
    int signal; /* the first that came, or 0 */
    int signal_count;
    bool ended; /* ROLLOUT_END was seen, or the program leaves */
    bool closing;
    bool attended;        /* a person may ask for something (run_request) */
    bool draining;        /* rollout decisions are being drained */
    struct error failure; /* the program's own: the journal can't be written */
};

/* ---- run.c ---- */

uint64_t run_now_ms(void); /* monotonic */
const struct inv_host *run_inv(const struct run *run, size_t host);
/* Hands the host to its lane, which begins with it. */
void run_add_host(struct run *run, size_t index, const struct host_resume *resume);

/* ---- run_journal.c ---- */

/* Makes the run's id, journal and view, or takes up those of options->resume_id. */
int run_open_journal(struct run *run, struct error *error);
/* Tells the rollout where the hosts of a resumed run stand. */
void run_replay(struct run *run);
void run_publish_resumed(struct run *run);

/* ---- run_publish.c ---- */

/* Takes the event: numbers it, writes it (`sync`: to the disk), folds it in, shows it, frees it. */
void run_publish(struct run *run, struct event *event, bool sync);
/* The two halves of that: numbers and writes it; folds it in, shows it, frees it. */
void run_record(struct run *run, struct event *event, bool sync);
void run_show(struct run *run, struct event *event);
/* The same in its turn among the lanes' reports: for events of which a thousand may come at once. */
void run_publish_soon(struct run *run, size_t host, struct event *event);
/* A log line of `host`, or with SIZE_MAX of the run. */
void run_publish_log(struct run *run, size_t host, const char *stream, const char *line,
                     size_t len);
/* The same of a build, and whose builder said it (NULL: nobody's). */
void run_publish_build_log(struct run *run, size_t host, const char *line, size_t len,
                           const char *drv);
void run_publish_start(struct run *run);
void run_publish_end(struct run *run, int exit_code);
/* For whoever has asked for it with FLEET_TRACE_LOOP. */
void run_publish_turns(struct run *run, const char *loop, uint32_t number, struct loop_turns turns);
void run_publish_cost(struct run *run); /* of the journal */
/* A new event of the host, to be filled in. */
struct event *run_host_event(struct run *run, enum event_type type, size_t host);
/* Counts a log line of the host. The first one too many says that the rest is left out. */
bool run_log_has_room(struct run *run, size_t host);
/* The program's own failure: nothing more is granted. The first one is kept. */
void run_fail(struct run *run, const struct error *error);

/* ---- run_build.c ---- */

/* Begins to tell every host what it is to run. */
void run_start_systems(struct run *run);

/* What the host is to run; its lane hears of it, and once more each time that it begins anew. */
void run_desire(struct run *run, size_t host, const char *path, const struct host_source *source);
/* False: it is not known what the host is to run, and nothing is going to say so. */
bool run_can_desire(const struct run *run, size_t host);
/* The same for a host that has begun anew, as far as it is known by now. */
void run_desire_again(struct run *run, size_t host);

/* ---- run_cache.c ---- */

/* True where the host is told what to run later, when its cache has it (or can't have it). */
bool run_cache_holds(struct run *run, size_t host);
/* A cache is being filled. */
bool run_cache_is_busy(const struct run *run);
/* Ends that; it is not busy soon. */
void run_cache_cancel(struct run *run);
void run_cache_free(struct run *run);

/* ---- run_report.c ---- */

/* The receiver of run->reports. */
void run_receive(struct mail *mail, void *arg);

/* ---- run_retry.c ---- */

/* Has the host, which has ended, tried again, or says why not. */
void run_retry(struct run *run, size_t host);
/* ROLLOUT_RETRY: it is pending; it begins anew now, or when its lane has closed it. */
void run_begin_again(struct run *run, size_t host);
/* Its lane has closed it. */
void run_on_closed(struct run *run, size_t host);
/* It ends skipped while it waits to begin anew; false where it doesn't wait. */
bool run_skip_again(struct run *run, size_t host, const struct error *error);

/* ---- run_decide.c ---- */

/* After every input to the rollout: carries out what it decides, until there is nothing. */
void run_decide(struct run *run);
/* The same once for all reports that lie in the mailbox: their grants share one journal sync. */
void run_decide_soon(struct run *run);

/* ---- run_request.c ---- */

/* Acts on what a person asks; `arg` is the run. */
void run_on_request(const struct run_request *request, void *arg);
/* `fleet promote` in another terminal leaves a file. One that comes when nothing waits goes
 * unheard, so that it releases no later wave. */
void run_look_for_promotion(struct run *run);

/* ---- run_signal.c ---- */

/* From now on; the handles are the caller's to close. */
void run_watch_signals(struct run *run);
/* As if the signal had come once more. */
void run_interrupt(struct run *run, int number);

/* ---- run_end.c ---- */

/* `state` is an end of this run's action. */
bool run_is_end(const struct run *run, enum host_state state);
/* A host that has ended so is held all the same: it is to be probed again at its wave's end, or a
 * later failure or a person may take it back. */
bool run_may_move_yet(const struct run *run, size_t host, enum host_state state);
void run_release_host(struct run *run, size_t host);
/* Those of a wave that has ended for which nothing is to come. */
void run_release_wave(struct run *run, size_t wave);
/* No more decisions: every host is let go, guards stay as they are. Once is enough. */
void run_end(struct run *run);
/* Stops the loop once the run has ended and all is closed. */
void run_maybe_close(struct run *run);

#endif
