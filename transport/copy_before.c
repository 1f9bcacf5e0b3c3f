/* What the target ran before, told along with the copy (see copy.h, on_before).
 *
 * Two questions on the job's own channel that cost no round trip. Whether the path is valid there
 * goes out ahead of the first question about the copy (asked for the closure of one that isn't,
 * nix-store ends). That answer comes ahead of the one about the copy, too, so the second question
 * goes out before anything else is written, and is answered before anything that is written later.
 * The target is hostile: what it names is checked, and a list that is too long is not kept.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "transport/copy_internal.h"

/* More are no system's closure, and comparing them takes too long. */
#define PATHS_MAX 20000u

static void forget(struct copy_before *before) {
    for (size_t i = 0; i < before->count; i++) {
        free(before->paths[i]);
    }
    free(before->paths);
    before->paths = NULL;
    before->count = 0;
    before->left = 0;
    before->list_begun = false;
}

void copy_before_reset(struct copy_job *job) {
    forget(&job->before);
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
    before->due = COPY_BEFORE_NOTHING;
    before->told = true;
    if (before->count < PATHS_MAX && !job->closed && job->handlers.on_before != NULL) {
        job->handlers.on_before(before->paths, before->count, job->closure, job->arg);
    }
    forget(before);
}

/* The list is complete. */
static void take_end(struct copy_job *job) {
    struct copy_before *before = &job->before;
    bool valid = before->count == 1 && strcmp(before->paths[0], before->path) == 0;
    if (before->due == COPY_BEFORE_CLOSURE) {
        tell(job);
        return;
    }
    forget(before);
    before->due = COPY_BEFORE_NOTHING;
    if (valid) {
        ask_closure(job);
    }
}

int copy_before_take(struct copy_job *job, struct error *error) {
    struct copy_before *before = &job->before;
    int got;
    if (!before->list_begun) {
        uint64_t most = before->due == COPY_BEFORE_VALID ? 1 : SERVE_LIST_MAX;
        got = serve_take_count(&job->reader, most, &before->left, error);
        if (got != 1) {
            return got;
        }
        before->list_begun = true;
    }
    while (before->left > 0) {
        char *path;
        got = serve_take_path(&job->reader, &path, error);
        if (got != 1) {
            return got;
        }
        before->left--;
        if (before->count < PATHS_MAX) {
            if ((before->count & (before->count + 1)) == 0) {
                before->paths =
                    xrealloc(before->paths, (2 * before->count + 2) * sizeof(*before->paths));
            }
            before->paths[before->count++] = path;
        } else {
            free(path);
        }
    }
    take_end(job);
    return 1;
}
