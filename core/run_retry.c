/* A host that has ended is tried again: as a new one for its lane, with a new lock and a new nonce,
 * once the old one has let go of the host. Whether it may be is rollout_retry's to say.
 */
#include "core/run_internal.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"

/* Where an all-hosts request finds nobody, one answer is enough. */
static bool try_one(struct run *run, size_t host, struct buf *why) {
    if (!run_can_desire(run, host)) {
        buf_add_text(why,
                     "what it is to run was built before this run was resumed, and is not here "
                     "any more. Begin a new run");
        return false;
    }
    return rollout_retry(run->rollout, host, run_now_ms(), why);
}

void run_retry(struct run *run, size_t host) {
    struct buf why = BUF_INIT;
    size_t tried = 0;
    for (size_t i = 0; i < run->options->host_count; i++) {
        if (host == SIZE_MAX || i == host) {
            buf_clear(&why);
            tried += try_one(run, i, &why);
        }
    }
    if (tried == 0) {
        AUTO_FREE char *line =
            host == SIZE_MAX
                ? xstrdup("no host can be tried again")
                : xasprintf("%s is not tried again: %s", run_inv(run, host)->name, buf_text(&why));
        run_publish_log(run, SIZE_MAX, "fleet", line, strlen(line));
    }
    buf_free(&why);
}

static void begin(struct run *run, size_t index) {
    struct run_host *host = &run->hosts[index];
    static const struct host_resume anew = {.ask = false};
    free(host->path);
    free(host->nonce);
    host->path = NULL;
    host->nonce = NULL;
    host->released = false;
    run_add_host(run, index, &anew);
    run_desire_again(run, index);
}

void run_begin_again(struct run *run, size_t host) {
    run->hosts[host].again = true;
    if (!run->hosts[host].open) {
        begin(run, host);
    } else {
        run_release_host(run, host);
    }
}

void run_on_closed(struct run *run, size_t host) {
    run->hosts[host].open = false;
    if (run->hosts[host].again && !run->ended) {
        begin(run, host);
    }
}

bool run_skip_again(struct run *run, size_t host, const struct error *error) {
    if (!run->hosts[host].again) {
        return false;
    }
    run->hosts[host].again = false;
    struct event *event = run_host_event(run, EVENT_HOST_STATE, host);
    event->has_from = true;
    event->from = HOST_PENDING;
    event->to = HOST_SKIPPED;
    event->reason = xstrdup(error->reason);
    event->message = xstrdup(error->message);
    run_publish(run, event, false);
    rollout_moved(run->rollout, host, HOST_SKIPPED, error->reason, run_now_ms());
    return true;
}
