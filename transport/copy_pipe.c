/* A job's second channel, for compressed bytes: `zstd -dc | nix-store --serve --write`.
 *
 *   know_missing → OPENING ─ "z" ───────→ WAITING → SENDING → LANDING ─ all acknowledged → VERIFYING
 *                     └─ status 127: no zstd there → WAITING, as it is (auto) or FAILED (zstd)
 *
 * It only takes: its nix-store says hello and acknowledges paths, late, since zstd reads its input
 * in big pieces; the last come after the end of file. Questions go over the job's first channel,
 * whose lock=1 query has rooted the whole closure and holds it while this one ends.
 */
#include "transport/copy_internal.h"

#define FILTER           "zstd -dcq"
#define READY_BYTE       ELEVATE_PIPE_READY
#define START_TIMEOUT_MS 30000u
/* Less than this is not worth a channel and its round trip. */
#define WORTH_BYTES (4u * 1024u * 1024u)

/* The greeting goes out as soon as zstd is known to be there. */
static void say_hello(struct copy_job *job) {
    struct buf out = BUF_INIT;
    serve_put_hello(&out);
    struct zstd_packer *packer = zstd_packer_new();
    struct chunk *frame = zstd_pack(packer, out.data, out.len);
    stream_write_chunk(job->pipe, frame);
    chunk_unref(frame);
    zstd_packer_free(packer);
    buf_free(&out);
}

static int take_ready(struct copy_job *job, struct error *error) {
    size_t len;
    const char *rest = serve_reader_rest(&job->pipe_reader, &len);
    if (len == 0) {
        return 0;
    }
    if (rest[0] != READY_BYTE) {
        return error_set(error, FLEET_ERR_PROTOCOL, "copy-failed",
                         "the target's shell answered with byte %u where zstd was looked for",
                         (unsigned)(unsigned char)rest[0]);
    }
    serve_reader_skip(&job->pipe_reader, 1);
    job->pipe_open = true;
    job->packed = true;
    say_hello(job);
    copy_job_set_state(job, COPY_WAITING);
    return 1;
}

static int take_answer(struct copy_job *job, struct error *error) {
    if (!job->pipe_open) {
        return take_ready(job, error);
    }
    if (!job->pipe_greeted) {
        uint32_t version;
        int got = serve_take_hello(&job->pipe_reader, &version, error);
        job->pipe_greeted = got == 1;
        return got;
    }
    return copy_job_take_ack(job, &job->pipe_reader, error);
}

static void on_data(int fd, const char *data, size_t len, void *arg) {
    struct copy_job *job = arg;
    copy_job_take(job, &job->pipe_reader, take_answer, fd, data, len);
}

static void no_zstd(struct copy_job *job) {
    if (job->options.compress == COPY_COMPRESS_AUTO) {
        job->pipe_refused = true;
        copy_job_set_state(job, COPY_WAITING);
        return;
    }
    struct error error = ERROR_INIT;
    error_set(&error, FLEET_ERR_REMOTE, "no-zstd",
              "the target has no zstd, and copy.compress is \"zstd\". Install it there, or set "
              "copy.compress to \"auto\" or \"none\"");
    copy_job_fail(job, &error);
}

static void on_end(const struct stream_end *end, void *arg) {
    struct copy_job *job = arg;
    job->pipe = NULL;
    if (job->state == COPY_OPENING && !end->lost && end->error.code == FLEET_OK &&
        end->status == 127) {
        no_zstd(job);
    } else if (job->state == COPY_LANDING && !end->lost && end->status == 0 &&
               job->acked == job->pushed_count) {
        copy_job_verify(job);
    } else {
        copy_job_ended(job, end);
    }
}

static const struct stream_handlers pipe_handlers = {
    .on_data = on_data, .on_drain = copy_job_on_drain, .on_end = on_end};

bool copy_pipe_begin(struct copy_job *job) {
    enum copy_compress how = job->options.compress;
    if (how == COPY_COMPRESS_NONE || job->pipe_refused ||
        (how == COPY_COMPRESS_AUTO && job->missing_bytes < WORTH_BYTES)) {
        return false;
    }
    job->pipe = elevate_pipe(job->copier->loop, job->target, &job->options.elevation, FILTER,
                             job->command, START_TIMEOUT_MS, &pipe_handlers, job);
    copy_job_set_state(job, COPY_OPENING);
    return true;
}

void copy_pipe_finish(struct copy_job *job) {
    copy_job_set_state(job, COPY_LANDING);
    job->pipe_eof = true;
    if (job->held.count == 0) {
        copy_pipe_drained(job);
    }
}

void copy_pipe_drained(struct copy_job *job) {
    if (job->pipe_eof && job->pipe != NULL) {
        job->pipe_eof = false;
        stream_eof(job->pipe);
    }
}

void copy_pipe_close(struct copy_job *job) {
    if (job->pipe != NULL) {
        stream_close(job->pipe);
        job->pipe = NULL;
    }
    serve_reader_free(&job->pipe_reader);
    job->pipe_open = false;
    job->pipe_greeted = false;
    job->pipe_eof = false;
    job->packed = false;
}
