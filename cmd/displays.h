/* The displays of a run: who reads its events while it goes on.
 *
 * With --json the stream on stdout and the lines for people on stderr; `build` keeps stdout for its
 * `host path` lines.
 */
#ifndef FLEET_CMD_DISPLAYS_H
#define FLEET_CMD_DISPLAYS_H

#include "cmd/context.h"
#include "core/evaluated.h"
#include "core/run.h"
#include "tui/output.h"

#define DISPLAYS_MAX 2

struct displays {
    struct output *items[DISPLAYS_MAX];
    size_t count;
    const struct args *args;
    /* What is built is remembered for `status`. */
    const struct inventory *inventory;
    struct evaluated *evaluated; /* or NULL */
};

/* True where a person watches and can take the dashboard: --tui, or a terminal on both sides and
 * no CI; never with --plain, --json or TERM=dumb. */
bool displays_want_dashboard(const struct context *context);

/* `aside`: stdout is for something else. Close when the run is over. */
void displays_open(const struct context *context, bool aside, struct displays *ret);
/* As run_observer has them; `arg` is the displays. The run's end prints the summary. */
void displays_event(const struct event *event, const struct view *view, void *arg);
bool displays_attach(uv_loop_t *loop, void (*request)(const struct run_request *request, void *arg),
                     void *request_arg, void *arg);
void displays_tick(const struct view *view, int64_t wall_ms, const char *waiting, void *arg);
void displays_close(struct displays *displays);

#endif
