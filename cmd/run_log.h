/* Past runs, read from their journals: what `history`, `show` and `watch` share.
 */
#ifndef FLEET_CMD_RUN_LOG_H
#define FLEET_CMD_RUN_LOG_H

#include "core/journal.h"
#include "core/view.h"

struct run_log {
    char *id;
    struct journal_reader *reader;
    struct view *view;
    bool live; /* the process that runs it lives, as of opening */
};

/* Opens a run (`name` NULL: the latest) without reading it. Release in any case. */
int run_log_open(const char *state_dir, const char *name, struct run_log *ret, struct error *error);
/* Folds the whole journal into the view. */
int run_log_read(struct run_log *log, struct error *error);
void run_log_release(struct run_log *log);

/* "running", "interrupted" (it died), or the result that it ended with. */
const char *run_log_result(const struct run_log *log);

#endif
