/* Past runs, read from their journals (see run_log.h). */
#include "cmd/run_log.h"

#include <stdlib.h>

int run_log_open(const char *state_dir, const char *name, struct run_log *ret,
                 struct error *error) {
    *ret = (struct run_log){.view = view_new()};
    int err = journal_open(state_dir, name, &ret->reader, &ret->id, error);
    if (err == 0) {
        ret->live = journal_is_live(ret->reader);
    }
    return err;
}

int run_log_read(struct run_log *log, struct error *error) {
    struct event *event = NULL;
    int got;
    while ((got = journal_next(log->reader, &event, error)) > 0) {
        view_apply(log->view, event);
        event_free(event);
    }
    return got;
}

void run_log_release(struct run_log *log) {
    if (log->reader != NULL) {
        journal_reader_close(log->reader);
    }
    if (log->view != NULL) {
        view_free(log->view);
    }
    free(log->id);
    *log = (struct run_log){0};
}

const char *run_log_result(const struct run_log *log) {
    if (log->view->ended) {
        return log->view->result != NULL ? log->view->result : "done";
    }
    return log->live ? "running" : "interrupted";
}
