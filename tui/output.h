/* Displays: readers of the event stream. `cmd` opens one and feeds it; the coordinator knows only this table.
 *
 * Main thread only.
 */
#ifndef FLEET_TUI_OUTPUT_H
#define FLEET_TUI_OUTPUT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <uv.h>

#include "core/event.h"
#include "core/run_request.h"
#include "core/view.h"

struct output;

/* A display's place in a loop: where it may wait for keys, and whom it may ask. */
struct output_seat {
    uv_loop_t *loop;
    /* NULL: read-only. `request` is read before it returns. */
    void (*request)(const struct run_request *request, void *arg);
    void *arg;
};

struct output_ops {
    /* The run's loop is there: optional, for displays that read keys. Detached by `finish`, when
     * the loop no longer runs; it is run once more before it is closed. */
    void (*attach)(struct output *output, const struct output_seat *seat);
    /* `view` is the state after the event. */
    void (*event)(struct output *output, const struct event *event, const struct view *view);
    /* Called at least once a second: the heartbeat. `waiting` is why the run waits right now. */
    void (*tick)(struct output *output, const struct view *view, int64_t wall_ms,
                 const char *waiting);
    /* Gives the terminal back and prints the summary. */
    void (*finish)(struct output *output, const struct view *view);
    void (*free)(struct output *output);
};
struct output {
    const struct output_ops *ops;
};

struct output_options {
    bool color;
    int verbosity; /* -1 quiet, 0, 1 -v, 2 -vv */
    bool github;   /* print ::error annotations, aggregated (10 a step) */
};

/* Plain lines on `file`: host first, one line a change, a heartbeat every 30 s, a summary with failures first. */
struct output *output_plain_new(FILE *file, const struct output_options *options);
/* JSON Lines on `file`. */
struct output *output_json_new(FILE *file);

struct dashboard_options {
    struct output_options output;
    bool ascii;
    bool live; /* a process runs it, as far as is known */
    /* What the clock shows, ms since 1970; NULL: the machine's. For playing back. */
    int64_t (*now_ms)(void *arg);
    void *now_arg;
    /* A person leaves. NULL: what goes on is shown as plain lines. */
    void (*on_leave)(void *arg);
    void *leave_arg;
};
/* True where stdin and stdout are a terminal that the dashboard can work on. */
bool output_dashboard_is_possible(void);
/* The dashboard on the process's terminal; at most one at a time. NULL where it isn't possible. It
 * takes the screen when it is attached, and gives it back in `finish`, which prints the summary;
 * `finish` waits for a person who is reading. */
struct output *output_dashboard_new(const struct dashboard_options *options);
/* Whether a process runs it; at first as the options say. */
void output_dashboard_set_live(struct output *output, bool live);
void output_free(struct output *output);

#endif
