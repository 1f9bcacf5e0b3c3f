/* The copier's inside, shared by copy.c (public face and driver), copy_job.c (a target's channel)
 * and copy_pass.c (fan-out).
 *
 * Who calls whom: stream callbacks only record, parse and move bytes; they end in copier_wake.
 * The driver (copy.c, a timer) then does everything that tells the owner something or frees
 * memory. So no object dies under a callback's feet, and the owner may close anything from
 * anywhere. The exceptions are on_log and on_before, whose bytes don't outlive the callback; a job
 * closed in them is freed later by the driver.
 */
#ifndef FLEET_TRANSPORT_COPY_INTERNAL_H
#define FLEET_TRANSPORT_COPY_INTERNAL_H

#include "transport/copy.h"
#include "transport/copy_source.h"
#include "transport/copy_words.h"
#include "transport/nar_feed.h"
#include "transport/serve.h"
#include "transport/serve_list.h"
#include "transport/zstd_frame.h"

/* A host's queue: reading stops when the slowest has HIGH, and goes on when all are below LOW. */
#define COPY_QUEUE_HIGH (4u * 1024u * 1024u)
#define COPY_QUEUE_LOW  (1024u * 1024u)
/* What is gathered before it becomes one shared chunk. */
#define COPY_CHUNK_BYTES (128u * 1024u)
/* A host that has held up others for so long leaves the pass. */
#define COPY_SLOW_MS 2000u

/* Passes that run side by side. Who comes while one runs takes the next, as far as blocks are
 * shared with the others anyway (nar_feed.h); with a serve process to read from there is only the
 * first. Those that fell behind are read to on their own, so that they hold up nobody. */
enum copy_lane {
    COPY_LANE_MAIN,
    COPY_LANE_SLOW = 7,
    COPY_LANES
};

enum copy_state {
    COPY_CLOSURE,      /* the closure isn't known yet */
    COPY_ASKING,       /* handshake and first query under way */
    COPY_SUBSTITUTING, /* the target fetches by itself */
    COPY_OPENING,      /* the channel for compressed bytes is being opened */
    COPY_WAITING,      /* knows what it lacks, waits for a pass */
    COPY_SENDING,      /* member of a pass */
    COPY_LANDING,      /* all sent compressed, acknowledgements under way */
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

/* The closure of what the target runs, asked for beside the copy (copy_before.c). */
enum copy_before_due {
    COPY_BEFORE_NOTHING,
    COPY_BEFORE_VALID,
    COPY_BEFORE_CLOSURE
};
struct copy_before {
    char *path;               /* NULL: nobody wants to know */
    enum copy_before_due due; /* what the target owes an answer to */
    bool told;
    struct serve_list list;
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
    struct copy_before before;

    /* The second channel, `zstd -dc | nix-store --serve --write`: where `packed`, paths go there and
     * are acknowledged there; `stream` keeps the locks and answers the questions. */
    struct stream *pipe;
    struct serve_reader pipe_reader;
    bool pipe_refused; /* no zstd there: not asked again */
    bool pipe_open;    /* zstd is there */
    bool pipe_greeted; /* its nix-store has said hello */
    bool pipe_eof;     /* all was sent: end of file follows what is held */
    bool packed;

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

/* What is gathered of small pieces, in one form, before it becomes a shared chunk. */
struct copy_gather {
    struct chunk *chunk; /* being filled, or NULL */
    size_t len;
};

/* Archives come from `port` where the source is this machine's own store, else from `source`. */
struct copy_pass {
    struct copier *copier;
    struct copy_source *source;
    struct nar_port *port;      /* NULL while none was needed */
    uint64_t port_ms;           /* last asked or answered */
    struct zstd_packer *packer; /* for what comes from `source`; NULL while none was needed */
    enum copy_lane lane;
    bool active;
    bool direct; /* this pass reads through the port */
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
    struct copy_gather raw, packed;
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
    char *root; /* before the paths of a source on this machine; NULL: archives come by serve */
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
void copy_job_set_state(struct copy_job *job, enum copy_state state);
/* The last query, whose answer ends the job. */
void copy_job_verify(struct copy_job *job);
/* Takes acknowledgements of pushed paths from `reader`: 1 when it may have more, as serve_take_*. */
int copy_job_take_ack(struct copy_job *job, struct serve_reader *reader, struct error *error);
/* Bytes of either channel: its stderr is noted, and `take` takes answers out of `reader` as long as
 * it returns 1; a negative answer fails the job. */
typedef int (*copy_job_taker)(struct copy_job *job, struct error *error);
void copy_job_take(struct copy_job *job, struct serve_reader *reader, copy_job_taker take, int fd,
                   const char *data, size_t len);
void copy_job_on_drain(void *arg);
/* The channel ended by itself: the job fails, with the words of the far side. */
void copy_job_ended(struct copy_job *job, const struct stream_end *end);
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
/* So long may it wait for a byte or an answer. */
uint64_t copy_job_stall_ms(const struct copy_job *job);
void copy_job_tick(struct copy_job *job, uint64_t now_ms, uint64_t elapsed_ms);
void copy_job_update_progress(struct copy_job *job);
void copy_job_free(struct copy_job *job);

/* copy_before.c: what the target runs, where that was asked for. */
/* Appends the question; it goes ahead of that about the copy. */
void copy_before_ask(struct copy_job *job, struct buf *out);
/* What comes next on the job's channel is an answer of these. */
bool copy_before_is_next(const struct copy_job *job);
/* 1 when it took a whole answer, as serve_take_*. */
int copy_before_take(struct copy_job *job, struct error *error);
/* The channel is gone; and the job is. */
void copy_before_reset(struct copy_job *job);
void copy_before_free(struct copy_job *job);

/* copy_pipe.c: the channel for compressed bytes. */
/* True where one should be opened first; it then is being opened. */
bool copy_pipe_begin(struct copy_job *job);
/* All is pushed. */
void copy_pipe_finish(struct copy_job *job);
/* What is held back has gone out: the end of file may follow. */
void copy_pipe_drained(struct copy_job *job);
void copy_pipe_close(struct copy_job *job);

/* copy_gather.c: everything here ends in copy_job_push for the receivers of the path at hand. */
/* Raw bytes of a serve process. */
void copy_pass_gather(struct copy_pass *pass, const void *data, size_t len);
/* A block of the feed; its references are taken over. */
void copy_pass_take_block(struct copy_pass *pass, const struct nar_block *block);
/* Sends what is gathered. */
void copy_pass_flush(struct copy_pass *pass);
void copy_pass_drop_gathered(struct copy_pass *pass);

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
