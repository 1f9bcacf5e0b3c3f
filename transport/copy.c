/* The copier's public face and its driver (see copy.h and copy_internal.h).
 *
 * The driver is one timer: woken at once after anything happened, else every TICK_MS while jobs
 * are on their way. It is the only place from which the owner's callbacks are called (on_log and
 * on_before apart) and where jobs are freed. A callback may close any job, start others and free the copier.
 */
#include "transport/copy.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "transport/copy_internal.h"

#define TICK_MS      100u
#define TICK_RATE_MS 20u
#define TICK_IDLE_MS 1000u

static void drive(uv_timer_t *timer);

void copier_wake(struct copier *copier) {
    if (!copier->closing) {
        uv_timer_start(&copier->timer, drive, 0, 0);
    }
}

struct copier *copier_new(uv_loop_t *loop, struct conn *source, const char *command,
                          const char *name) {
    struct copier *copier = xcalloc(1, sizeof(*copier));
    copier->loop = loop;
    copier->registry = path_registry_new();
    copier->driven_ms = uv_now(loop);
    uv_timer_init(loop, &copier->timer);
    for (unsigned lane = 0; lane < COPY_LANES; lane++) {
        copy_pass_init(&copier->passes[lane], copier, (enum copy_lane)lane, source, command, name);
    }
    return copier;
}

static void wait_free(struct closure_wait *wait) {
    free(wait->top);
    free(wait);
}

static void unlink_job(struct copier *copier, struct copy_job *job) {
    *(job->prev != NULL ? &job->prev->next : &copier->first_job) = job->next;
    *(job->next != NULL ? &job->next->prev : &copier->last_job) = job->prev;
}

static void on_timer_closed(uv_handle_t *handle) {
    struct copier *copier = container_of((uv_timer_t *)(void *)handle, struct copier, timer);
    while (copier->first_job != NULL) {
        struct copy_job *job = copier->first_job;
        unlink_job(copier, job);
        copy_job_free(job);
    }
    while (copier->waits != NULL) {
        struct closure_wait *wait = copier->waits;
        copier->waits = wait->next;
        wait_free(wait);
    }
    path_registry_free(copier->registry);
    free(copier->root);
    free(copier);
}

void copier_free(struct copier *copier) {
    if (copier == NULL || copier->closing) {
        return;
    }
    copier->closing = true;
    for (unsigned lane = 0; lane < COPY_LANES; lane++) {
        copy_pass_release(&copier->passes[lane]);
    }
    uv_close((uv_handle_t *)&copier->timer, on_timer_closed);
}

/* Asks the source unless that was done and not answered yet. */
static void ask_closure(struct copier *copier, const char *top) {
    if (path_registry_closure(copier->registry, top) == NULL) {
        bool asked = false;
        for (const struct closure_wait *wait = copier->waits; wait != NULL; wait = wait->next) {
            asked = asked || (!wait->failed && strcmp(wait->top, top) == 0);
        }
        for (const struct copy_job *job = copier->first_job; job != NULL; job = job->next) {
            asked = asked || (job->state == COPY_CLOSURE && strcmp(job->top, top) == 0);
        }
        if (!asked) {
            copy_source_ask_closure(copier->passes[COPY_LANE_MAIN].source, top);
        }
    }
    copier_wake(copier);
}

void copier_read_files(struct copier *copier, const char *root) {
    free(copier->root);
    copier->root = xstrdup(root);
}

void copier_closure(struct copier *copier, const char *top, copier_closure_done done, void *arg) {
    ask_closure(copier, top);
    struct closure_wait *wait = xcalloc(1, sizeof(*wait));
    wait->top = xstrdup(top);
    wait->done = done;
    wait->arg = arg;
    wait->next = copier->waits;
    copier->waits = wait;
}

struct copy_job *copy_start(struct copier *copier, struct conn *target, const char *top,
                            const struct copy_options *options,
                            const struct copy_handlers *handlers, void *arg) {
    struct copy_job *job = xcalloc(1, sizeof(*job));
    job->copier = copier;
    job->target = target;
    job->top = xstrdup(top);
    job->command = xstrdup(options->command);
    bool told = options->before != NULL && store_path_is_valid(options->before);
    job->before.path = told ? xstrdup(options->before) : NULL;
    job->options = *options;
    job->handlers = *handlers;
    job->arg = arg;
    job->current = PATH_UNKNOWN;
    job->state = COPY_CLOSURE;
    job->since_ms = uv_now(copier->loop);
    ask_closure(copier, top);
    job->prev = copier->last_job;
    *(job->prev != NULL ? &job->prev->next : &copier->first_job) = job;
    copier->last_job = job;
    return job;
}

void copy_close(struct copy_job *job) {
    if (job->closed) {
        return;
    }
    if (job->state == COPY_SENDING) {
        copy_pass_leave(&job->copier->passes[job->lane], job);
    }
    job->closed = true;
    copy_pipe_close(job);
    if (job->stream != NULL) {
        stream_close(job->stream);
        job->stream = NULL;
    }
    copier_wake(job->copier);
}

static void answer_waits(struct copier *copier) {
    struct closure_wait **slot = &copier->waits;
    struct closure_wait *ready = NULL;
    while (*slot != NULL) {
        struct closure_wait *wait = *slot;
        if (wait->failed || path_registry_closure(copier->registry, wait->top) != NULL) {
            *slot = wait->next;
            wait->next = ready;
            ready = wait;
        } else {
            slot = &wait->next;
        }
    }
    while (ready != NULL) {
        struct closure_wait *wait = ready;
        ready = wait->next;
        if (!copier->closing) {
            wait->done(wait->failed ? wait->error.code : 0,
                       wait->failed ? NULL : path_registry_closure(copier->registry, wait->top),
                       &wait->error, wait->arg);
        }
        wait_free(wait);
    }
}

static void report(struct copy_job *job) {
    job->reported = true;
    if (job->state == COPY_FAILED) {
        struct error error = job->error;
        job->handlers.on_failed(&error, job->arg);
        return;
    }
    job->progress.bytes_done = job->progress.bytes_total;
    job->progress.paths_done = job->progress.paths_total;
    struct copy_progress progress = job->progress;
    job->handlers.on_done(&progress, job->arg);
}

static void drive_job(struct copy_job *job, uint64_t now_ms, uint64_t elapsed_ms) {
    struct copier *copier = job->copier;
    if (job->closed || job->reported) {
        return;
    }
    if (job->state == COPY_CLOSURE) {
        const struct closure *closure = path_registry_closure(copier->registry, job->top);
        if (closure == NULL) {
            return;
        }
        copy_job_begin(job, closure);
    }
    copy_job_tick(job, now_ms, elapsed_ms);
    if (!job->closed && (job->state == COPY_DONE || job->state == COPY_FAILED)) {
        report(job);
    }
}

static void free_closed(struct copier *copier) {
    for (struct copy_job *job = copier->first_job, *next; job != NULL; job = next) {
        next = job->next;
        if (job->closed) {
            unlink_job(copier, job);
            copy_job_free(job);
        }
    }
}

/* The next turn: soon while something moves or a limit wants keeping, else only for idle sources. */
static void arm(struct copier *copier) {
    bool busy = copier->waits != NULL;
    bool limited = false;
    for (const struct copy_job *job = copier->first_job; job != NULL; job = job->next) {
        busy = busy || !job->reported;
        limited = limited || (!job->reported && job->held.count > 0);
    }
    bool open = false;
    for (unsigned lane = 0; lane < COPY_LANES; lane++) {
        open = open || copy_source_is_running(copier->passes[lane].source) ||
               copier->passes[lane].port != NULL;
    }
    if (uv_is_active((uv_handle_t *)&copier->timer)) {
        return; /* woken meanwhile */
    }
    if (busy || open) {
        uint64_t wait_ms = limited ? TICK_RATE_MS : busy ? TICK_MS : TICK_IDLE_MS;
        uv_timer_start(&copier->timer, drive, wait_ms, 0);
    }
}

static void drive(uv_timer_t *timer) {
    struct copier *copier = container_of(timer, struct copier, timer);
    uint64_t now_ms = uv_now(copier->loop);
    uint64_t elapsed_ms = now_ms - copier->driven_ms;
    copier->driven_ms = now_ms;
    answer_waits(copier);
    for (struct copy_job *job = copier->first_job; job != NULL && !copier->closing;
         job = job->next) {
        drive_job(job, now_ms, elapsed_ms);
    }
    if (copier->closing) {
        return;
    }
    for (unsigned lane = 0; lane < COPY_LANES; lane++) {
        copy_pass_tick(&copier->passes[lane], now_ms, elapsed_ms);
        copy_pass_start(&copier->passes[lane], now_ms);
    }
    free_closed(copier);
    arm(copier);
}
