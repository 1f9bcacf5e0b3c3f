/* What the target ran before, told along with the copy (see copy.h, on_before).
 *
 * Two questions on the job's own channel that cost no round trip. Whether the path is valid there
 * goes out ahead of the first question about the copy (asked for the closure of one that isn't,
 * nix-store ends). That answer comes ahead of the one about the copy, too, so the second question
 * goes out before anything else is written, and is answered before anything that is written later.
 * A list that is too long to be a system's closure is not told.
 */
#include <stdlib.h>
#include <string.h>

#include "transport/copy_internal.h"

void copy_before_reset(struct copy_job *job) {
    serve_list_free(&job->before.list);
    job->before.due = COPY_BEFORE_NOTHING;
}

void copy_before_free(struct copy_job *job) {
    copy_before_reset(job);
    free(job->before.path);
}

void copy_before_ask(struct copy_job *job, struct buf *out) {
    struct copy_before *before = &job->before;
    if (before->path != NULL && !before->told) {
        before->due = COPY_BEFORE_VALID;
        serve_put_query_valid(out, false, false, 1);
        serve_put_text(out, before->path);
    }
}

bool copy_before_is_next(const struct copy_job *job) {
    return job->before.due == COPY_BEFORE_VALID ||
           (job->before.due == COPY_BEFORE_CLOSURE && job->state != COPY_ASKING);
}

static void ask_closure(struct copy_job *job) {
    struct buf out = BUF_INIT;
    serve_put_query_closure(&out, job->before.path);
    stream_write(job->stream, out.data, out.len);
    buf_free(&out);
    job->before.due = COPY_BEFORE_CLOSURE;
}

static void tell(struct copy_job *job) {
    struct copy_before *before = &job->before;
    const struct serve_list *list = &before->list;
    before->due = COPY_BEFORE_NOTHING;
    before->told = true;
    if (serve_list_is_whole(list) && !job->closed && job->handlers.on_before != NULL) {
        job->handlers.on_before(list->paths, list->count, job->closure, job->arg);
    }
    serve_list_free(&before->list);
}

/* The list is complete. */
static void take_end(struct copy_job *job) {
    struct copy_before *before = &job->before;
    bool valid = before->list.count == 1 && strcmp(before->list.paths[0], before->path) == 0;
    if (before->due == COPY_BEFORE_CLOSURE) {
        tell(job);
        return;
    }
    serve_list_free(&before->list);
    before->due = COPY_BEFORE_NOTHING;
    if (valid) {
        ask_closure(job);
    }
}

int copy_before_take(struct copy_job *job, struct error *error) {
    uint64_t most = job->before.due == COPY_BEFORE_VALID ? 1 : SERVE_LIST_MAX;
    int got = serve_list_take(&job->before.list, &job->reader, most, error);
    if (got == 1) {
        take_end(job);
    }
    return got;
}
