#include "cmd/undo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/run_log.h"
#include "core/base/xalloc.h"
#include "transport/closure.h"

/* What the host ran before the run, if the run was allowed to change that; or NULL. */
static const char *before_of(const struct view *view, const char *name) {
    const struct view_host *host = view_host(view, name);
    bool touched = host != NULL && (host->granted[ACT_ACTIVATE] || host->granted[ACT_COMMIT]) &&
                   host->first_current != NULL && store_path_is_valid(host->first_current);
    return touched ? host->first_current : NULL;
}

static void take_systems(const struct context *context, const struct view *view,
                         struct undo *undo) {
    undo->systems = xcalloc(context->host_count + 1, sizeof(*undo->systems));
    undo->count = context->host_count;
    for (size_t i = 0; i < context->host_count; i++) {
        const char *path = before_of(view, context->hosts[i]->name);
        undo->systems[i].path = path != NULL ? xstrdup(path) : NULL;
        undo->systems[i].on_target = true;
    }
}

static void narrow_selection(struct context *context, const struct run_log *log) {
    size_t kept = 0;
    for (size_t i = 0; i < context->host_count; i++) {
        const struct inv_host *host = context->hosts[i];
        if (before_of(log->view, host->name) != NULL) {
            context->hosts[kept++] = host;
        } else if (!context->all_hosts) {
            fprintf(stderr, "fleet: %s was not changed by run %s, and is left alone\n", host->name,
                    log->id);
        }
    }
    context->host_count = kept;
}

/* Hosts that nobody can take back from here. */
static void warn_of_strangers(const struct context *context, const struct run_log *log) {
    for (size_t i = 0; i < log->view->host_count; i++) {
        const char *name = log->view->hosts[i].name;
        if (before_of(log->view, name) != NULL &&
            inventory_host(context->inventory, name) == NULL) {
            fprintf(stderr, "fleet: %s was changed by run %s and is not in %s: left alone\n", name,
                    log->id, context->inventory->path);
        }
    }
}

static int take(struct context *context, struct run_log *log, bool narrow, struct undo *ret) {
    if (log->live) {
        fprintf(
            stderr,
            "fleet: run %s is still going on: end it first (`fleet watch %s` shows it); nothing "
            "was touched\n",
            log->id, log->id);
        return EXIT_LOCKED;
    }
    if (narrow) {
        warn_of_strangers(context, log);
        narrow_selection(context, log);
    }
    if (context->host_count == 0) {
        fprintf(stderr, "fleet: run %s changed none of the selected hosts: nothing to do\n",
                log->id);
        return UNDO_NOTHING;
    }
    ret->run = xstrdup(log->id);
    take_systems(context, log->view, ret);
    return 0;
}

int undo_load(struct context *context, const char *run, bool narrow, struct undo *ret) {
    struct run_log log = {0};
    struct error error = ERROR_INIT;
    int err = run_log_open(context->state_dir, run, &log, &error);
    if (err == 0) {
        err = run_log_read(&log, &error);
    }
    int code = err != 0 ? context_fail(&error) : take(context, &log, narrow, ret);
    run_log_release(&log);
    return code;
}

void undo_release(struct undo *undo) {
    for (size_t i = 0; i < undo->count; i++) {
        auto_free(&undo->systems[i].path);
    }
    free(undo->systems);
    free(undo->run);
    *undo = (struct undo){0};
}
