/* One target's channel: a serve process there, what it lacks, and its acknowledgements.
 *
 *   CLOSURE → ASKING ─┬─ nothing lacks ───────────────────────→ DONE
 *                     ├→ SUBSTITUTING ─┐
 *                     └────────────────┴┬→ WAITING → SENDING ─┬→ VERIFYING → DONE
 *                                       └→ OPENING ┘          └→ LANDING ┘   (copy_pipe.c)
 *   SENDING → WAITING (slow lane, at a path's end) or → ASKING (new channel, in mid-path)
 *   any → FAILED
 *
 * "What it lacks" is a set of bits over the registry's indices. A query sets the bit of each path
 * asked for, the answer clears those that are valid; a path that is answered twice or was never
 * asked for breaks the protocol.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "transport/copy_internal.h"

#define START_TIMEOUT_MS     30000u
#define STALL_DEFAULT_MS     60000u
#define SUBSTITUTE_PATIENCE  10u /* times the stall time-out: a download may say nothing for long */
#define PROGRESS_INTERVAL_MS 500u
#define ALLOWANCE_MS         100u /* how much unused rate is saved up */

bool copy_job_lacks(const struct copy_job *job, uint32_t index) {
    return index < job->index_room && (job->missing[index / 8] & (1u << (index % 8))) != 0;
}

void copy_job_set_state(struct copy_job *job, enum copy_state state) {
    job->state = state;
    job->since_ms = uv_now(job->copier->loop);
    job->active_ms = job->since_ms;
    job->last_backlog = 0;
    copier_wake(job->copier);
}

static void end_channel(struct copy_job *job) {
    if (job->stream != NULL) {
        stream_close(job->stream);
        job->stream = NULL;
    }
    copy_pipe_close(job);
    serve_reader_free(&job->reader);
    copy_before_reset(job);
    copy_words_clear(&job->words);
    for (size_t i = 0; i < job->held.count; i++) {
        chunk_unref(job->held.chunks[job->held.first + i]);
    }
    job->held.first = 0;
    job->held.count = 0;
    job->held.bytes = 0;
    job->greeted = false;
    job->list_begun = false;
    job->pushed_count = 0;
    job->acked = 0;
    job->current = PATH_UNKNOWN;
    job->current_bytes = 0;
}

void copy_job_fail(struct copy_job *job, const struct error *error) {
    if (job->state == COPY_FAILED || job->closed) {
        return;
    }
    if (job->state == COPY_SENDING) {
        copy_pass_leave(&job->copier->passes[job->lane], job);
    }
    job->error = *error;
    end_channel(job);
    copy_job_set_state(job, COPY_FAILED);
}

void copy_job_free(struct copy_job *job) {
    end_channel(job);
    copy_before_free(job);
    copy_words_free(&job->words);
    free(job->held.chunks);
    free(job->missing);
    free(job->pushed);
    free(job->top);
    free(job->command);
    free(job);
}

static void bit_set(struct copy_job *job, uint32_t index) {
    job->missing[index / 8] |= (uint8_t)(1u << (index % 8));
    job->missing_count++;
    job->missing_bytes += path_registry_info(job->copier->registry, index)->nar_size;
}

static void bit_clear(struct copy_job *job, uint32_t index) {
    job->missing[index / 8] &= (uint8_t) ~(1u << (index % 8));
    job->missing_count--;
    job->missing_bytes -= path_registry_info(job->copier->registry, index)->nar_size;
}

/* A query for all of the closure, or only for what is missing, into `out`. */
static void put_query(struct copy_job *job, struct buf *out, bool lock, bool only_missing) {
    const struct closure *closure = job->closure;
    const uint32_t *indices = path_registry_indices(closure);
    size_t count = only_missing ? job->missing_count : closure->count;
    serve_put_query_valid(out, lock, only_missing, count);
    for (size_t i = 0; i < closure->count; i++) {
        if (!only_missing || copy_job_lacks(job, indices[i])) {
            serve_put_text(out, closure->paths[i]->path);
        }
        if (!copy_job_lacks(job, indices[i]) && !only_missing) {
            bit_set(job, indices[i]);
        }
    }
    job->list_begun = false;
}

size_t copy_job_backlog(const struct copy_job *job) {
    return job->held.bytes + (job->stream != NULL ? stream_queued(job->stream) : 0) +
           (job->pipe != NULL ? stream_queued(job->pipe) : 0);
}

/* Where paths go. */
static struct stream *paths_stream(const struct copy_job *job) {
    return job->packed ? job->pipe : job->stream;
}

static void held_add(struct copy_held *held, struct chunk *chunk) {
    if (held->first + held->count == held->cap) {
        if (held->first > 0) {
            memmove(held->chunks, held->chunks + held->first, held->count * sizeof(struct chunk *));
            held->first = 0;
        } else {
            held->cap = held->cap > 0 ? held->cap * 2 : 64;
            held->chunks = xrealloc(held->chunks, held->cap * sizeof(struct chunk *));
        }
    }
    held->chunks[held->first + held->count++] = chunk_ref(chunk);
    held->bytes += chunk->len;
}

static void held_flush(struct copy_job *job, uint64_t elapsed_ms) {
    struct copy_held *held = &job->held;
    int64_t rate = (int64_t)job->options.max_rate;
    int64_t most = rate * (int64_t)ALLOWANCE_MS / 1000 + 1;
    held->allowance += rate * (int64_t)elapsed_ms / 1000;
    if (held->allowance > most) {
        held->allowance = most;
    }
    while (held->count > 0 && held->allowance > 0) {
        struct chunk *chunk = held->chunks[held->first++];
        held->count--;
        held->bytes -= chunk->len;
        held->allowance -= chunk->len;
        stream_write_chunk(paths_stream(job), chunk);
        chunk_unref(chunk);
    }
    if (held->count == 0) {
        copy_pipe_drained(job);
    }
}

void copy_job_push(struct copy_job *job, struct chunk *chunk) {
    if (job->options.max_rate > 0) {
        held_add(&job->held, chunk);
    } else {
        stream_write_chunk(paths_stream(job), chunk);
    }
    job->progress_due = true;
}

/* Small writes of our own, behind what the rate limit holds back. */
static void job_write(struct copy_job *job, const struct buf *out) {
    if (job->held.count == 0) {
        stream_write(job->stream, out->data, out->len);
        return;
    }
    struct chunk *chunk = chunk_new(out->len);
    memcpy(chunk->data, out->data, out->len);
    held_add(&job->held, chunk);
    chunk_unref(chunk);
}

static void on_data(int fd, const char *data, size_t len, void *arg);
static void on_end(const struct stream_end *end, void *arg);

void copy_job_on_drain(void *arg) {
    struct copy_job *job = arg;
    if (job->state == COPY_SENDING) {
        copy_pass_drained(&job->copier->passes[job->lane]);
    }
}

static const struct stream_handlers job_handlers = {
    .on_data = on_data, .on_drain = copy_job_on_drain, .on_end = on_end};

/* The handshake and the first query go out in one write. */
static void put_questions(struct copy_job *job) {
    struct buf out = BUF_INIT;
    serve_put_hello(&out);
    copy_before_ask(job, &out);
    put_query(job, &out, true, false);
    stream_write(job->stream, out.data, out.len);
    buf_free(&out);
}

/* Opens the channel. */
static void ask(struct copy_job *job) {
    struct copier *copier = job->copier;
    job->index_room = path_registry_count(copier->registry);
    job->missing = xrealloc(job->missing, job->index_room / 8 + 1);
    memset(job->missing, 0, job->index_room / 8 + 1);
    job->missing_count = 0;
    job->missing_bytes = 0;
    job->stream = elevate_exec(copier->loop, job->target, &job->options.elevation, job->command,
                               START_TIMEOUT_MS, &job_handlers, job);
    if (!job->options.ahead) {
        put_questions(job);
    }
    copy_job_set_state(job, COPY_ASKING);
}

void copy_ask(struct copy_job *job) {
    bool waits = job->options.ahead && job->state == COPY_ASKING && job->stream != NULL;
    job->options.ahead = false;
    if (waits) {
        put_questions(job);
    }
}

void copy_job_begin(struct copy_job *job, const struct closure *closure) {
    job->closure = closure;
    ask(job);
}

/* Reads a list of valid paths and clears their bits; 1 at its end. */
static int take_valid(struct copy_job *job, struct error *error) {
    int got;
    if (!job->list_begun) {
        got = serve_take_count(&job->reader, job->missing_count, &job->list_left, error);
        if (got != 1) {
            return got;
        }
        job->list_begun = true;
    }
    while (job->list_left > 0) {
        char *path;
        got = serve_take_path(&job->reader, &path, error);
        if (got != 1) {
            return got;
        }
        uint32_t index = path_registry_find(job->copier->registry, path);
        bool asked = index != PATH_UNKNOWN && copy_job_lacks(job, index);
        if (!asked) {
            error_set(error, FLEET_ERR_PROTOCOL, "copy-failed",
                      "the target's nix-store answered with %s, which was not asked for", path);
            free(path);
            return FLEET_ERR_PROTOCOL;
        }
        free(path);
        bit_clear(job, index);
        job->list_left--;
    }
    return 1;
}

/* What is missing is known: nothing, or something to fetch or to send. */
static void know_missing(struct copy_job *job) {
    if (job->missing_count > 0 && job->options.substitute && !job->substituted) {
        job->substituted = true;
        struct buf out = BUF_INIT;
        put_query(job, &out, true, true);
        stream_write(job->stream, out.data, out.len);
        buf_free(&out);
        copy_job_set_state(job, COPY_SUBSTITUTING);
        return;
    }
    if (!job->totals_known) {
        job->totals_known = true;
        job->progress.bytes_total = job->missing_bytes;
        job->progress.paths_total = job->missing_count;
    }
    job->progress_due = true;
    job->progress_ms = 0;
    copy_job_update_progress(job);
    if (job->missing_count > 0 && copy_pipe_begin(job)) {
        return;
    }
    if (job->missing_count == 0 && job->before.due != COPY_BEFORE_NOTHING) {
        copy_job_verify(job); /* it is answered behind what is still to be told */
        return;
    }
    copy_job_set_state(job, job->missing_count > 0 ? COPY_WAITING : COPY_DONE);
}

static int verified(struct copy_job *job, struct error *error) {
    if (job->missing_count == 0) {
        copy_job_set_state(job, COPY_DONE);
        return 1;
    }
    for (size_t i = 0; i < job->closure->count; i++) {
        if (copy_job_lacks(job, path_registry_indices(job->closure)[i])) {
            return error_set(error, FLEET_ERR_REMOTE, "copy-failed",
                             "the target took all paths and says now that %u of them are not "
                             "valid, the first is %s. Run \"nix-store --verify\" there",
                             job->missing_count, job->closure->paths[i]->path);
        }
    }
    return 1;
}

int copy_job_take_ack(struct copy_job *job, struct serve_reader *reader, struct error *error) {
    uint64_t ack;
    if (serve_take_int(reader, &ack) == 0) {
        return 0;
    }
    if (job->acked == job->pushed_count) {
        return error_set(error, FLEET_ERR_PROTOCOL, "copy-failed",
                         "the target's nix-store acknowledged more paths than were sent");
    }
    if (ack != 1) {
        return error_set(error, FLEET_ERR_PROTOCOL, "copy-failed",
                         "the target's nix-store acknowledged a path with %llu instead of 1",
                         (unsigned long long)ack);
    }
    job->acked++;
    job->progress_due = true;
    return 1;
}

static int take_hello(struct copy_job *job, struct error *error) {
    uint32_t version;
    int got = serve_take_hello(&job->reader, &version, error);
    job->greeted = got == 1;
    return got;
}

static int take_missing(struct copy_job *job, struct error *error) {
    int got = take_valid(job, error);
    if (got == 1) {
        know_missing(job);
    }
    return got;
}

static int take_verdict(struct copy_job *job, struct error *error) {
    int got = take_valid(job, error);
    return got == 1 ? verified(job, error) : got;
}

static int refuse_rest(struct copy_job *job, struct error *error) {
    size_t rest;
    serve_reader_rest(&job->reader, &rest);
    if (rest == 0) {
        return 0;
    }
    return error_set(error, FLEET_ERR_PROTOCOL, "copy-failed",
                     "the target's nix-store sent %zu bytes that nobody asked for", rest);
}

/* Takes one item of the answer that is due; 1 if there may be more. */
static int take_answer(struct copy_job *job, struct error *error) {
    if (job->greeted && copy_before_is_next(job)) {
        return copy_before_take(job, error);
    }
    if (!job->packed && job->acked < job->pushed_count) {
        return copy_job_take_ack(job, &job->reader, error);
    }
    switch (job->state) {
    case COPY_ASKING:
        return job->greeted ? take_missing(job, error) : take_hello(job, error);
    case COPY_SUBSTITUTING:
        return take_missing(job, error);
    case COPY_VERIFYING:
        return take_verdict(job, error);
    case COPY_OPENING:
    case COPY_SENDING:
    case COPY_LANDING:
    case COPY_WAITING:
    case COPY_CLOSURE:
    case COPY_DONE:
    case COPY_FAILED:
        break;
    }
    return refuse_rest(job, error);
}

static void on_line(const char *line, size_t len, void *arg) {
    struct copy_job *job = arg;
    if (!job->closed && job->handlers.on_log != NULL) {
        job->handlers.on_log(line, len, job->arg);
    }
}

void copy_job_take(struct copy_job *job, struct serve_reader *reader, copy_job_taker take, int fd,
                   const char *data, size_t len) {
    job->active_ms = uv_now(job->copier->loop);
    if (fd == 2) {
        copy_words_feed(&job->words, data, len, on_line, job);
        return;
    }
    struct error error = ERROR_INIT;
    job->words.waits_for_gc = false;
    serve_reader_feed(reader, data, len);
    int got;
    do {
        got = take(job, &error);
    } while (got == 1);
    if (got < 0) {
        copy_job_fail(job, &error);
    }
}

static void on_data(int fd, const char *data, size_t len, void *arg) {
    struct copy_job *job = arg;
    copy_job_take(job, &job->reader, take_answer, fd, data, len);
    size_t rest;
    serve_reader_rest(&job->reader, &rest);
    if (rest == 0) {
        serve_reader_free(&job->reader); /* a thousand channels stay open and have nothing to say */
    }
}

/* The path that the target was busy with: the first without an acknowledgement. */
static const char *busy_with(const struct copy_job *job) {
    uint32_t index = job->acked < job->pushed_count ? job->pushed[job->acked] : job->current;
    return index != PATH_UNKNOWN ? path_registry_info(job->copier->registry, index)->path : NULL;
}

static void on_end(const struct stream_end *end, void *arg) {
    struct copy_job *job = arg;
    job->stream = NULL;
    if (job->state != COPY_DONE) { /* then the owner was told, or will be: what is valid stays so */
        copy_job_ended(job, end);
    }
}

void copy_job_ended(struct copy_job *job, const struct stream_end *end) {
    struct error error = end->error;
    if (end->lost && error.code == FLEET_OK) {
        error_set(&error, FLEET_ERR_LOST, "connection-lost",
                  "the connection broke during the copy");
    } else if (!end->lost && error.code == FLEET_OK) {
        copy_words_explain(&job->words, job->command, job->greeted, end->status, busy_with(job),
                           &error);
    }
    copy_job_fail(job, &error);
}

void copy_job_path_begin(struct copy_job *job, uint32_t index) {
    job->current = index;
    job->current_bytes = 0;
}

void copy_job_path_end(struct copy_job *job) {
    if ((job->pushed_count & (job->pushed_count + 1)) == 0) {
        job->pushed = xrealloc(job->pushed, (2 * job->pushed_count + 2) * sizeof(job->pushed[0]));
    }
    job->pushed[job->pushed_count++] = job->current;
    bit_clear(job, job->current);
    job->current = PATH_UNKNOWN;
    job->current_bytes = 0;
}

void copy_job_pass_over(struct copy_job *job) {
    if (job->missing_count > 0) {
        copy_job_set_state(job, COPY_WAITING);
        return;
    }
    if (job->packed) {
        copy_pipe_finish(job);
    } else {
        copy_job_verify(job);
    }
}

void copy_job_verify(struct copy_job *job) {
    struct buf out = BUF_INIT;
    copy_job_update_progress(job);
    put_query(job, &out, false, false);
    job_write(job, &out);
    buf_free(&out);
    copy_job_set_state(job, COPY_VERIFYING);
}

void copy_job_fall_behind(struct copy_job *job) {
    copy_pass_leave(&job->copier->passes[job->lane], job);
    job->lane = COPY_LANE_SLOW;
    job->slow_ms = 0;
    if (job->current == PATH_UNKNOWN) {
        copy_job_set_state(job, COPY_WAITING);
        return;
    }
    end_channel(job);
    ask(job);
}

/* Bytes count as done when the carrier has them, paths when they are acknowledged. */
void copy_job_update_progress(struct copy_job *job) {
    if (!job->totals_known || job->state == COPY_ASKING) {
        return; /* the bits say what was asked for, not what is missing */
    }
    bool all_pushed = job->state == COPY_VERIFYING || job->state == COPY_LANDING;
    uint64_t bytes_left = all_pushed ? 0 : job->missing_bytes - job->current_bytes;
    uint64_t paths_left = all_pushed ? 0 : job->missing_count;
    bytes_left += copy_job_backlog(job);
    paths_left += job->pushed_count - job->acked;

    struct copy_progress *progress = &job->progress;
    uint64_t bytes = progress->bytes_total > bytes_left ? progress->bytes_total - bytes_left : 0;
    uint64_t paths = progress->paths_total > paths_left ? progress->paths_total - paths_left : 0;
    job->progress_due |= bytes > progress->bytes_done || paths > progress->paths_done;
    progress->bytes_done = bytes > progress->bytes_done ? bytes : progress->bytes_done;
    progress->paths_done = paths > progress->paths_done ? paths : progress->paths_done;
}

static bool owes_answer(const struct copy_job *job) {
    switch (job->state) {
    case COPY_ASKING:
    case COPY_SUBSTITUTING:
    case COPY_OPENING:
    case COPY_LANDING:
    case COPY_VERIFYING:
        return true;
    case COPY_SENDING:
    case COPY_WAITING:
        /* zstd holds answers back until more comes */
        return (!job->packed && job->acked < job->pushed_count) || copy_job_backlog(job) > 0;
    case COPY_CLOSURE:
    case COPY_DONE:
    case COPY_FAILED:
        break;
    }
    return false;
}

uint64_t copy_job_stall_ms(const struct copy_job *job) {
    return job->options.stall_timeout_ms > 0 ? job->options.stall_timeout_ms : STALL_DEFAULT_MS;
}

static void check_stall(struct copy_job *job, uint64_t now_ms) {
    size_t backlog = copy_job_backlog(job);
    if (!owes_answer(job) || backlog != job->last_backlog || job->words.waits_for_gc) {
        job->last_backlog = backlog;
        job->active_ms = now_ms;
        return;
    }
    uint64_t limit = copy_job_stall_ms(job);
    if (job->state == COPY_SUBSTITUTING) {
        limit *= SUBSTITUTE_PATIENCE;
    }
    if (now_ms - job->active_ms < limit) {
        return;
    }
    const char *path = busy_with(job);
    struct buf spent = BUF_INIT;
    text_add_duration(&spent, limit);
    struct error error = ERROR_INIT;
    error_set(&error, FLEET_ERR_TIMEOUT, "copy-stalled",
              "the target took no byte and gave no answer for %s while %s. Look at its disk and "
              "at other Nix processes there; what has arrived stays",
              buf_text(&spent),
              path != NULL                      ? path
              : job->state == COPY_SUBSTITUTING ? "it fetched from its substituters"
                                                : "it was asked what it lacks");
    buf_free(&spent);
    copy_job_fail(job, &error);
}

void copy_job_tick(struct copy_job *job, uint64_t now_ms, uint64_t elapsed_ms) {
    if (job->stream != NULL && job->options.max_rate > 0) {
        held_flush(job, elapsed_ms);
    }
    check_stall(job, now_ms);
    copy_job_update_progress(job);
    if (job->progress_due && job->totals_known && job->state != COPY_FAILED &&
        job->state != COPY_DONE && now_ms - job->progress_ms >= PROGRESS_INTERVAL_MS) {
        job->progress_due = false;
        job->progress_ms = now_ms;
        struct copy_progress progress = job->progress;
        job->handlers.on_progress(&progress, job->arg);
    }
}
