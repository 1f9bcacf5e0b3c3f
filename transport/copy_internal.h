/* The copier's inside, shared by copy.c (public face and driver), copy_job.c (a target's channel)
 * and copy_pass.c (fan-out).
 *
 * Who calls whom: stream callbacks only record, parse and move bytes; they end in copier_wake.
 * The driver (copy.c, a timer) then does everything that tells the owner something or frees
 * memory. So no object dies under a callback's feet, and the owner may close anything from
 * anywhere. The one exception is on_log, whose bytes don't outlive the callback; a job closed in
 * it is freed later by the driver.
 */
#ifndef FLEET_TRANSPORT_COPY_INTERNAL_H
#define FLEET_TRANSPORT_COPY_INTERNAL_H

#include "transport/copy.h"
#include "transport/copy_source.h"
#include "transport/copy_words.h"
#include "transport/serve.h"

/* A host's queue: reading stops when the slowest has HIGH, and goes on when all are below LOW. */
#define COPY_QUEUE_HIGH (4u * 1024u * 1024u)
#define COPY_QUEUE_LOW  (1024u * 1024u)
/* What is gathered before it becomes one shared chunk. */
#define COPY_CHUNK_BYTES (128u * 1024u)
/* A host that has held up others for so long leaves the pass. */
#define COPY_SLOW_MS 2000u

/* Those that fell behind are read to by a process of their own, so that they hold up nobody. */
enum copy_lane {
    COPY_LANE_MAIN,
    COPY_LANE_SLOW,
    COPY_LANES
};

enum copy_state {
    COPY_CLOSURE,      /* the closure isn't known yet */
    COPY_ASKING,       /* handshake and first query under way */
    COPY_SUBSTITUTING, /* the target fetches by itself */
    COPY_WAITING,      /* knows what it lacks, waits for a pass */
    COPY_SENDING,      /* member of a pass */
    COPY_VERIFYING,    /* all sent, last query under way */
    COPY_DONE,         /* channel open, locks held */
    COPY_FAILED,
};

/* Chunks that wait for the rate limit. */
struct copy_held {
    struct chunk **chunks;
    size_t first, count, cap;
    size_t bytes;
    int64_t allowance; /* bytes that may go now; negative after a chunk larger than it */
};

struct copy_job {
    struct copy_job *prev, *next;
    struct copier *copier;
    struct conn *target;
    char *top;
    char *command;
    struct copy_options options;
    struct copy_handlers handlers;
    void *arg;

    enum copy_state state;
    enum copy_lane lane;
    bool closed;
    bool reported; /* on_done or on_failed was called */
    struct error error;

    struct stream *stream;
    struct serve_reader reader;
    struct copy_words words;
    bool greeted;
    bool list_begun;
    uint64_t list_left;
    bool substituted;

    const struct closure *closure;
    uint8_t *missing;    /* bits by registry index: not valid there and not wholly pushed */
    uint32_t index_room; /* indices that `missing` has room for */
    uint32_t missing_count;
    uint64_t missing_bytes;
    uint32_t *pushed; /* indices in the order sent on this channel */
    size_t pushed_count, acked;
    uint32_t current;       /* the path whose bytes are being pushed, or PATH_UNKNOWN */
    uint64_t current_bytes; /* of its NAR, pushed so far */
    struct copy_held held;

    struct copy_progress progress;
    bool totals_known;
    bool progress_due;
    uint64_t progress_ms;
    uint64_t since_ms;  /* entered the state */
    uint64_t active_ms; /* the target last moved */
    size_t last_backlog;
    uint64_t slow_ms; /* how long it has held up others */
};

struct copy_pass {
    struct copier *copier;
    struct copy_source *source;
    enum copy_lane lane;
    bool active;
    struct copy_job **members;
    size_t member_count;
    uint32_t *order; /* indices to read, ascending: references first */
    size_t order_count, next_ask;
    size_t in_flight;
    uint64_t in_flight_bytes;
    uint32_t current; /* the path being read */
    struct copy_job **receivers;
    struct copy_job **next_receivers;
    size_t receiver_count;
    struct chunk *open; /* being filled */
    size_t open_len;
    bool paused;
};

struct closure_wait {
    struct closure_wait *next;
    char *top;
    bool failed;
    struct error error;
    copier_closure_done done;
    void *arg;
};

struct copier {
    uv_loop_t *loop;
    uv_timer_t timer;
    struct path_registry *registry;
    struct copy_pass passes[COPY_LANES];
    struct copy_job *first_job, *last_job;
    struct closure_wait *waits;
    bool closing;
    bool driving;
    uint64_t driven_ms; /* the last turn */
};

/* copy.c: the driver runs soon. */
void copier_wake(struct copier *copier);

/* copy_job.c */
bool copy_job_lacks(const struct copy_job *job, uint32_t index);
void copy_job_begin(struct copy_job *job, const struct closure *closure);
void copy_job_fail(struct copy_job *job, const struct error *error);
/* The pass: a path's header is next, bytes of it, its end; and the pass is over. */
void copy_job_path_begin(struct copy_job *job, uint32_t index);
void copy_job_push(struct copy_job *job, struct chunk *chunk);
void copy_job_path_end(struct copy_job *job);
void copy_job_pass_over(struct copy_job *job);
/* It is too slow for the others: it goes to the slow lane, over a new channel if it is in the
 * middle of a path. */
void copy_job_fall_behind(struct copy_job *job);
/* Bytes that are on their way to the target and not yet with the carrier's far side. */
size_t copy_job_backlog(const struct copy_job *job);
void copy_job_tick(struct copy_job *job, uint64_t now_ms, uint64_t elapsed_ms);
void copy_job_update_progress(struct copy_job *job);
void copy_job_free(struct copy_job *job);

/* copy_pass.c */
void copy_pass_init(struct copy_pass *pass, struct copier *copier, enum copy_lane lane,
                    struct conn *source, const char *command, const char *name);
void copy_pass_release(struct copy_pass *pass);
/* Starts with all jobs of its lane that wait, if it's time to. */
void copy_pass_start(struct copy_pass *pass, uint64_t now_ms);
/* Takes a job out; its queue has been emptied or doesn't matter any more. */
void copy_pass_leave(struct copy_pass *pass, struct copy_job *job);
void copy_pass_drained(struct copy_pass *pass);
void copy_pass_tick(struct copy_pass *pass, uint64_t now_ms, uint64_t elapsed_ms);

#endif
