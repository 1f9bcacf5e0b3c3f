/* The journal of a run: a new one, or that of a run that is taken up again, which is folded into the
 * view and told to the rollout.
 */
#include "core/run_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"

/* Reads the whole journal, which is ours by now, into the view. */
static int fold_journal(struct run *run, struct error *error) {
    struct journal_reader *reader = NULL;
    char *id = NULL;
    struct event *event = NULL;
    int got = journal_open(run->options->state_dir, run->id, &reader, &id, error);
    while (got == 0 && (got = journal_next(reader, &event, error)) > 0) {
        view_apply(run->view, event);
        event_free(event);
        got = 0;
    }
    journal_reader_close(reader);
    free(id);
    run->seq = run->view->last_seq;
    return got;
}

int run_open_journal(struct run *run, struct error *error) {
    const struct run_options *options = run->options;
    run->view = view_new();
    if (options->resume_id == NULL) {
        run_id_new(clock_wall_ms(&clock_system), run->id);
        return journal_create(options->state_dir, run->id, &run->journal, error);
    }
    snprintf(run->id, sizeof(run->id), "%s", options->resume_id);
    int err = journal_reopen(options->state_dir, run->id, &run->journal, error);
    if (err == 0) {
        err = fold_journal(run, error);
    }
    if (err == 0 && run->view->host_count != options->host_count) {
        err = error_set(error, FLEET_ERR_USAGE, "usage",
                        "run %s has other hosts by now: was it resumed elsewhere? Try again",
                        run->id);
    }
    if (err == 0) {
        run->resume = resume_new(run->view, true);
    }
    return err;
}

void run_replay(struct run *run) {
    const struct resume *resume = run->resume;
    for (size_t i = 0; i < resume->count; i++) {
        const struct resume_host *host = &resume->hosts[i];
        if (host->touched) {
            rollout_moved(run->rollout, i, HOST_ACTIVATING, NULL, run_now_ms());
        }
        bool ended = host_state_is_end(host->state) && host->how == RESUME_KEEP;
        if (ended || (host->touched && host->state == HOST_ROLLING_BACK) ||
            (host->how == RESUME_KEEP && run_is_end(run, host->state))) {
            rollout_moved(run->rollout, i, host->state, host->reason, run_now_ms());
        }
    }
    bool waits = resume->waits && !run->options->promote;
    rollout_resume(run->rollout, resume->waves_done, waits);
}

void run_publish_resumed(struct run *run) {
    char *line = xasprintf("%s by %s", run->options->promote ? "promoted" : "resumed", run->who);
    run_publish_log(run, SIZE_MAX, "fleet", line, strlen(line));
    free(line);
    if (run->resume->waits && run->options->promote) {
        run_publish(run, event_new(EVENT_PROMOTE), true);
    }
}
