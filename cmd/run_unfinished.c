/* The line about a run that can be resumed (see run_unfinished.h). */
#include "cmd/run_unfinished.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/run_log.h"
#include "core/resume.h"

#define LOOKED_AT 10 /* runs; older ones are another inventory's affair, or forgotten */
#define NAMED     8  /* hosts */

static bool is_of(const char *inventory, const struct view *view) {
    return view->inventory != NULL && strcmp(view->inventory, inventory) == 0 &&
           view->action != ACTION_BUILD && view->action != ACTION_DRY_ACTIVATE;
}

/* "h1, h2 and 3 more", those that have no end yet. */
static size_t add_hosts(struct buf *out, const struct view *view) {
    struct resume *resume = resume_new(view, false);
    size_t count = 0;
    for (size_t i = 0; i < resume->count; i++) {
        if (resume->hosts[i].how != RESUME_KEEP && count++ < NAMED) {
            buf_printf(out, "%s%s", count > 1 ? ", " : "", view->hosts[i].name);
        }
    }
    if (count > NAMED) {
        buf_printf(out, " and %zu more", count - NAMED);
    }
    resume_free(resume);
    return count;
}

static void tell(const struct run_log *log) {
    const struct view *view = log->view;
    struct buf hosts = BUF_INIT;
    bool waits = view->paused != NULL && strcmp(view->paused, "promote") == 0;
    size_t count = add_hosts(&hosts, view);
    bool died = strcmp(run_log_result(log), "interrupted") == 0;
    fprintf(stderr, "fleet: run %s (%s) %s", log->id, run_action_name(view->action),
            waits  ? "waits for promotion"
            : died ? "was interrupted"
                   : "has left something in doubt");
    if (count > 0) {
        fprintf(stderr, "; %zu of %zu hosts are still to be done: %s", count, view->host_count,
                buf_text(&hosts));
    }
    fprintf(stderr, ". Go on with `fleet %s %s`\n", waits ? "promote" : "resume", log->id);
    buf_free(&hosts);
}

/* It ended, and each of its hosts was locked, away, or never had its turn. */
static bool got_nowhere(const struct view *view) {
    return view->ended &&
           view_count(view, HOST_SKIPPED) + view_count(view, HOST_UNREACHABLE) == view->host_count;
}

/* True when the search is over: a later run makes an earlier one a thing of the past. */
static bool look_at(const struct context *context, const char *inventory, const char *id) {
    struct run_log log;
    struct error error = ERROR_INIT;
    int err = run_log_open(context->state_dir, id, &log, &error);
    if (err == 0) {
        err = run_log_read(&log, &error);
    }
    bool found = err == 0 && is_of(inventory, log.view) && !got_nowhere(log.view);
    if (found && !log.live && resume_is_due(log.view)) {
        tell(&log);
    }
    run_log_release(&log);
    return found;
}

void run_unfinished_tell(const struct context *context, const char *inventory) {
    char **ids = NULL;
    size_t count = 0;
    struct error error = ERROR_INIT;
    if (context->json || context->verbosity < 0 ||
        journal_list(context->state_dir, &ids, &count, &error) != 0) {
        return;
    }
    bool over = false;
    for (size_t i = 0; i < count; i++) {
        over = over || i >= LOOKED_AT || look_at(context, inventory, ids[i]);
        free(ids[i]);
    }
    free(ids);
}
