/* Lets go of hosts for an operator that died (see let_go.h). */
#include "cmd/let_go.h"

#include <stdlib.h>
#include <string.h>

#include "cmd/host_task.h"
#include "core/base/xalloc.h"
#include "core/resume.h"
#include "core/target.h"

#define ASK_TIMEOUT_MS 20000
#define LEASE_MS       (60u * 1000u)

struct letting_go {
    const char *run;
    char *lock_id;
};

/* One host's. */
struct parting {
    const struct letting_go *all;
    struct fan_host *host;
};

static void on_released(int err, const struct target_reply *reply, const struct error *error,
                        void *arg) {
    struct parting *parting = arg;
    (void)reply;
    fan_done(parting->host, err == 0 ? NULL : error);
}

static void on_unstaged(int err, const struct target_reply *reply, const struct error *error,
                        void *arg) {
    struct parting *parting = arg;
    (void)err;
    (void)reply;
    (void)error;
    target_lock_release(parting->host->shell, parting->all->lock_id, on_released, parting);
}

/* The run takes its own lock back at once; one of another run is none of ours. */
static void on_taken(int err, const struct target_reply *reply, const struct error *error,
                     void *arg) {
    struct parting *parting = arg;
    const char *answer = target_reply_get(reply, "lock");
    if (err != 0 || answer == NULL || strcmp(answer, "ok") != 0) {
        fan_done(parting->host, err != 0 ? error : NULL);
        return;
    }
    target_unstage(parting->host->shell, parting->all->run, on_unstaged, parting);
}

static void ask(struct fan_host *host, void *arg) {
    struct parting *partings = arg;
    struct parting *parting = &partings[host->index];
    struct target_lock lock = {.id = parting->all->lock_id,
                               .run = parting->all->run,
                               .who = "fleet resume",
                               .lease_ms = LEASE_MS};
    parting->host = host;
    target_lock_take(host->shell, &lock, on_taken, parting);
}

static void on_result(const struct fan_host *host, const struct error *error, void *arg) {
    (void)host;
    (void)error;
    (void)arg;
}

/* Fills the selection with the hosts that had ended and may still be held. */
static void select_ended(struct context *ret, const struct context *context,
                         const struct view *view) {
    struct resume *resume = resume_new(view, true);
    ret->hosts = xcalloc(view->host_count + 1, sizeof(*ret->hosts));
    ret->host_count = 0;
    for (size_t i = 0; i < view->host_count; i++) {
        const struct view_host *host = &view->hosts[i];
        bool held = host->granted[ACT_COPY] || host->granted[ACT_REBOOT];
        if (resume->hosts[i].how == RESUME_KEEP && held) {
            ret->hosts[ret->host_count++] = context->hosts[i];
        }
    }
    resume_free(resume);
}

void let_go_of_ended(const struct context *context, const struct run_log *log) {
    if (log->view->ended || log->view->action == ACTION_PUSH) {
        return; /* it has let go itself; what was pushed is kept */
    }
    struct context ended = *context;
    select_ended(&ended, context, log->view);
    if (ended.host_count > 0) {
        struct letting_go all = {.run = log->id, .lock_id = xasprintf("let-go-%s", log->id)};
        struct parting *partings = xcalloc(ended.host_count, sizeof(*partings));
        for (size_t i = 0; i < ended.host_count; i++) {
            partings[i].all = &all;
        }
        host_task_run(&ended, true, ASK_TIMEOUT_MS, ask, on_result, partings);
        free(partings);
        free(all.lock_id);
    }
    free(ended.hosts);
}
