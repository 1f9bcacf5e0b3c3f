/* What one process of Nix says it is doing: its internal-json log as plain lines and as the tree of
 * derivations.
 *
 * With `--log-format internal-json` each line is "@nix " and an object: activities that start and
 * stop, their results (a builder's line, its phase), and messages (src/libutil/logging.cc of Nix;
 * the numbers are those of logging.hh, and have stood since Nix 2.4). What Nix would have printed
 * without it is handed on as lines, so that logs and error messages stay as they were. Which
 * derivation needs which is read from the .drv files of this machine's store, as
 * nix-output-monitor does: the activities' own parents don't say.
 *
 * One thread. Bytes of builders are hostile: nothing here is cleaned, and all of it is bounded.
 */
#ifndef FLEET_CORE_BUILD_PROGRESS_H
#define FLEET_CORE_BUILD_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/event.h"

enum build_step_state {
    BUILD_STEP_WAITING,
    BUILD_STEP_BUILDING,
    BUILD_STEP_BUILT,
    BUILD_STEP_FAILED,
    BUILD_STEP_FETCHING,
    BUILD_STEP_FETCHED
};
struct build_step {
    enum build_step_state state;
    const char *drv; /* or the path that is fetched */
    const char
        *parent; /* the derivation that needs it; NULL: the one that was asked for, or unknown */
    const char *phase;   /* "configurePhase", or NULL */
    const char *machine; /* one of Nix's own build machines, or NULL: here */
};

/* Fills in an EVENT_DERIVATION. */
void build_step_tell(const struct build_step *step, struct event *ret_event);

struct build_progress_handlers {
    /* A line as Nix prints it; `drv` says whose builder it is, or is NULL. */
    void (*on_line)(const char *line, size_t len, const char *drv, void *arg);
    void (*on_step)(const struct build_step *step, void *arg);
};

struct build_progress;

struct build_progress *build_progress_new(const struct build_progress_handlers *handlers,
                                          void *arg);
/* A line of the process's stderr, whichever format it has. Handlers fire before it returns. */
void build_progress_line(struct build_progress *progress, const char *line, size_t len);
/* This Nix doesn't know the log format. */
bool build_progress_is_refused(const struct build_progress *progress);
void build_progress_free(struct build_progress *progress);

#endif
