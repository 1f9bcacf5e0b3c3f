#include "cmd/locked_task.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/xalloc.h"
#include "core/journal.h"
#include "core/who.h"

#define AGAIN_MS 500u

struct work {
    const struct locked_task *task;
    uint64_t wait_ms; /* for a lock that another run holds */
    bool quiet;
    struct locked_host *hosts; /* one a host */
    struct host_tally *tally;
    char id[RUN_ID_SIZE];
    char *who;
    size_t held; /* hosts that another run holds */
};

static void on_released(int err, const struct target_reply *reply, const struct error *error,
                        void *arg) {
    struct locked_host *host = arg;
    (void)reply;
    if (err != 0 && host->error.code == 0) {
        host->error = *error;
    }
    fan_done(host->host, host->error.code != 0 ? &host->error : NULL);
}

void locked_done(struct locked_host *host, const struct error *error) {
    if (error != NULL) {
        host->error = *error;
    }
    if (!host->locked) {
        fan_done(host->host, error);
        return;
    }
    host->locked = false;
    target_lock_release(host->host->shell, host->lock_id, on_released, host);
}

static const char *said(const struct target_reply *reply, const char *key) {
    const char *value = target_reply_get(reply, key);
    return value != NULL ? value : "?";
}

static void take_lock(struct locked_host *host);

static void on_again(uv_timer_t *timer) {
    take_lock(container_of(timer, struct locked_host, again));
}

/* True if there is time left: the lock is asked for again. */
static bool wait_for_lock(struct locked_host *host, const struct target_reply *reply) {
    struct work *work = host->task;
    uv_loop_t *loop = host->host->loop;
    if (uv_now(loop) >= host->until_ms) {
        return false;
    }
    if (!host->waits) {
        host->waits = true;
        uv_timer_init(loop, &host->again);
        if (!work->quiet) {
            fprintf(stderr, "%s: held by %s since %s (run %s): waiting\n", host->host->inv->name,
                    said(reply, "lock_who"), said(reply, "lock_since"), said(reply, "lock_run"));
        }
    }
    uv_timer_start(&host->again, on_again, AGAIN_MS, 0);
    return true;
}

static void on_locked(int err, const struct target_reply *reply, const struct error *error,
                      void *arg) {
    struct locked_host *host = arg;
    struct work *work = host->task;
    if (err != 0) {
        locked_done(host, error);
        return;
    }
    if (strcmp(said(reply, "lock"), "ok") == 0) {
        host->locked = true;
        work->task->begin(host, work->task->arg);
        return;
    }
    if (wait_for_lock(host, reply)) {
        return;
    }
    struct error held;
    error_set(&held, FLEET_ERR_LOCKED, "locked",
              "held by %s since %s (run %s): wait for it, or if it is dead: fleet unlock %s --id "
              "%s",
              said(reply, "lock_who"), said(reply, "lock_since"), said(reply, "lock_run"),
              host->host->inv->name, said(reply, "lock_id"));
    work->held++;
    locked_done(host, &held);
}

static void take_lock(struct locked_host *host) {
    const struct work *work = host->task;
    struct target_lock lock = {
        .id = work->id, .run = work->id, .who = work->who, .lease_ms = work->task->timeout_ms};
    target_lock_take(host->host->shell, &lock, on_locked, host);
}

static void begin(struct fan_host *fan_host, void *arg) {
    struct work *work = arg;
    struct locked_host *host = &work->hosts[fan_host->index];
    *host = (struct locked_host){.host = fan_host,
                                 .lock_id = work->id,
                                 .task = work,
                                 .until_ms = uv_now(fan_host->loop) + work->wait_ms};
    if (work->task->lock) {
        take_lock(host);
    } else {
        work->task->begin(host, work->task->arg);
    }
}

static void result(const struct fan_host *fan_host, const struct error *error, void *arg) {
    struct work *work = arg;
    struct locked_host *host = &work->hosts[fan_host->index];
    if (host->waits) {
        uv_close((uv_handle_t *)&host->again, NULL);
    }
    work->task->result(fan_host, error, work->task->arg);
    if (error != NULL) {
        fprintf(stderr, "%s: %s\n", fan_host->inv->name, error->message);
    }
    if (error != NULL && error->code != FLEET_ERR_LOCKED) {
        host_tally_add(work->tally, fan_host, error);
    }
}

int locked_task_run(struct context *context, const struct locked_task *task,
                    struct host_tally *tally) {
    struct work work = {.task = task,
                        .wait_ms = args_duration_ms(context->args, OPTION_LOCK_TIMEOUT, 0),
                        .quiet = context->verbosity < 0,
                        .tally = tally,
                        .who = who_am_i()};
    work.hosts = xcalloc(context->host_count + 1, sizeof(*work.hosts));
    run_id_new(clock_wall_ms(&clock_system), work.id);
    int interrupted =
        host_task_run(context, true, task->timeout_ms + work.wait_ms, begin, result, &work);
    int code = host_tally_exit(tally, interrupted);
    if (work.held > 0 && (code == EXIT_DONE || code == EXIT_UNREACHABLE)) {
        code = EXIT_LOCKED;
    }
    free(work.hosts);
    free(work.who);
    return code;
}
