/* The dashboard of the fleet at rest: what each host runs, looked at again and again, and what has
 * changed meanwhile. `fleet status --watch` feeds it from core/survey.h.
 *
 * It asks nothing of the hosts by itself and changes nothing; main thread.
 */
#ifndef FLEET_TUI_REST_H
#define FLEET_TUI_REST_H

#include <uv.h>

#include "core/survey.h"

struct rest;

struct rest_options {
    const char *fleet; /* the inventory's name */
    const struct inv_host *const *hosts;
    const char *const *logins; /* one a host: "[user@]host[:port]", or "" */
    size_t host_count;
    uint64_t every_ms;
    bool color, ascii;
    /* What the clock shows, ms since 1970; NULL: the machine's. */
    int64_t (*now_ms)(void *arg);
    /* What a person asks for; `host` SIZE_MAX: all. */
    void (*on_ask)(size_t host, void *arg);
    void (*on_every)(uint64_t every_ms, void *arg);
    void (*on_leave)(void *arg);
    void *arg;
};

/* Takes the process's terminal; at most one dashboard at a time. NULL where that isn't possible
 * (output_dashboard_is_possible). The arrays are borrowed. */
struct rest *rest_new(uv_loop_t *loop, const struct rest_options *options);
void rest_look(struct rest *rest, const struct survey_look *look);
/* Gives the terminal back and lets go of the loop, which is run once more afterwards. Prints what
 * needs a person, as one would paste it. */
void rest_close(struct rest *rest);

/* ---- without a terminal ---- */

struct rest_lines;
/* A line a change on stdout, host first; the first look at each host is one. */
struct rest_lines *rest_lines_new(const struct rest_options *options);
void rest_lines_look(struct rest_lines *lines, const struct survey_look *look);
void rest_lines_free(struct rest_lines *lines);

#endif
