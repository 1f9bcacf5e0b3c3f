/* Displays: readers of the event stream. `cmd` opens one and feeds it; the coordinator knows only this table.
 *
 * Main thread only.
 */
#ifndef FLEET_TUI_OUTPUT_H
#define FLEET_TUI_OUTPUT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/event.h"
#include "core/view.h"

struct output;
struct output_ops {
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
void output_free(struct output *output);

#endif
