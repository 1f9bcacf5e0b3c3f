/* What a person asks of a run: by a key of the dashboard, or by a file that `fleet promote` leaves.
 * Each is journaled before it is acted on.
 */
#include "core/run_internal.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "core/base/xalloc.h"

static void promote(struct run *run) {
    run_publish(run, event_new(EVENT_PROMOTE), true);
    rollout_control(run->rollout, ROLLOUT_CONTROL_PROMOTE, SIZE_MAX, run_now_ms());
    run_decide(run);
}

void run_look_for_promotion(struct run *run) {
    AUTO_FREE char *path = xasprintf("%s/%s", journal_dir(run->journal), RUN_PROMOTE_FILE);
    bool waits = run->view->paused != NULL && strcmp(run->view->paused, "promote") == 0;
    if (unlink(path) == 0 && waits && !run->ended) {
        promote(run);
    }
}

/* The host's number, or SIZE_MAX: all of them, or an unknown one. */
static size_t requested_host(const struct run *run, const char *name) {
    for (size_t i = 0; name != NULL && i < run->options->host_count; i++) {
        if (strcmp(run_inv(run, i)->name, name) == 0) {
            return i;
        }
    }
    return SIZE_MAX;
}

static void publish_request(struct run *run, const struct run_request *request) {
    static const char *const words[RUN_REQUEST_COUNT] = {
        [RUN_REQUEST_PAUSE] = "pauses the run", [RUN_REQUEST_PROMOTE] = "lets the run go on",
        [RUN_REQUEST_DRAIN] = "drains the run", [RUN_REQUEST_ABORT] = "ends the run at once",
        [RUN_REQUEST_TAKE_BACK] = "takes back", [RUN_REQUEST_SKIP] = "skips",
        [RUN_REQUEST_RETRY] = "tries again:",
    };
    bool of_host = request->kind == RUN_REQUEST_TAKE_BACK || request->kind == RUN_REQUEST_SKIP ||
                   request->kind == RUN_REQUEST_RETRY;
    const char *host = request->host != NULL ? request->host : "all hosts";
    AUTO_FREE char *line = xasprintf("%s %s%s%s", run->who, words[request->kind],
                                     of_host ? " " : "", of_host ? host : "");
    run_publish_log(run, SIZE_MAX, "fleet", line, strlen(line));
}

void run_on_request(const struct run_request *request, void *arg) {
    static const enum rollout_control controls[RUN_REQUEST_COUNT] = {
        [RUN_REQUEST_PAUSE] = ROLLOUT_CONTROL_PAUSE,
        [RUN_REQUEST_PROMOTE] = ROLLOUT_CONTROL_PROMOTE,
        [RUN_REQUEST_DRAIN] = ROLLOUT_CONTROL_DRAIN,
        [RUN_REQUEST_ABORT] = ROLLOUT_CONTROL_DRAIN,
        [RUN_REQUEST_TAKE_BACK] = ROLLOUT_CONTROL_TAKE_BACK,
        [RUN_REQUEST_SKIP] = ROLLOUT_CONTROL_SKIP,
    };
    struct run *run = arg;
    size_t host = requested_host(run, request->host);
    if (run->ended || (request->host != NULL && host == SIZE_MAX)) {
        return;
    }
    publish_request(run, request);
    if (request->kind == RUN_REQUEST_DRAIN || request->kind == RUN_REQUEST_ABORT) {
        /* The same as Ctrl-C, once or twice. */
        int wanted = request->kind == RUN_REQUEST_DRAIN ? 1 : 2;
        while (run->signal_count < wanted) {
            run_interrupt(run, SIGINT);
        }
        return;
    }
    if (request->kind == RUN_REQUEST_RETRY) {
        run_retry(run, host);
        run_decide(run);
        return;
    }
    if (request->kind == RUN_REQUEST_PROMOTE) {
        run_publish(run, event_new(EVENT_PROMOTE), true);
    }
    const char *refusal = rollout_refusal(run->rollout, controls[request->kind], host);
    if (refusal != NULL) {
        AUTO_FREE char *line =
            xasprintf("%s is not %s: %s", run_inv(run, host)->name,
                      request->kind == RUN_REQUEST_SKIP ? "skipped" : "taken back", refusal);
        run_publish_log(run, SIZE_MAX, "fleet", line, strlen(line));
        return;
    }
    rollout_control(run->rollout, controls[request->kind], host, run_now_ms());
    run_decide(run);
}
