/* What the dashboard remembers of a run beyond its view: probe results, copy rates, who did what
 * when, the story and the log.
 *
 * Folded from the same events, in the same order, so playing back a journal gives the same. All of
 * it is bounded, however long the run. Text is cleaned on the way in. Main thread.
 */
#ifndef FLEET_TUI_DASHBOARD_MODEL_H
#define FLEET_TUI_DASHBOARD_MODEL_H

#include "core/view.h"

#define MODEL_STRIP  64 /* probe results that are kept */
#define MODEL_PROBES 8  /* of a host that are told apart; more share the last */
#define MODEL_MOVES  32 /* of a host, the last ones */
#define MODEL_STORY  500
#define MODEL_LOG    5000
#define MODEL_STEPS  2000 /* derivations that are told apart */
#define MODEL_WAYS   32   /* pairs of systems whose packages are known */
#define MODEL_NONE   SIZE_MAX

/* The last results, one bit each, the newest lowest; set: passed. */
struct model_strip {
    uint64_t passed;
    unsigned count; /* at most MODEL_STRIP */
};

struct model_probe {
    char *name, *detail;
    bool ok;
    unsigned failures; /* in a row */
    int64_t at_ms;
    struct model_strip strip;
};

struct model_move {
    enum host_state state;
    int64_t at_ms;
    char *message; /* or NULL */
};

struct model_host {
    struct model_strip strip; /* of all probes: a round of them is one result */
    unsigned round;           /* the probes that the newest result holds, one bit each */
    struct model_probe probes[MODEL_PROBES];
    size_t probe_count;
    int64_t passing_since_ms; /* every probe since; 0: none yet, or one fails */
    struct model_move moves[MODEL_MOVES];
    size_t move_count; /* all; the last MODEL_MOVES are kept, by count % MODEL_MOVES */
    uint64_t rate;     /* of the copy, bytes a second */
    uint64_t rated_bytes;
    int64_t rated_ms;
    char *last_line; /* of its log since its last move, or NULL */
    char *units;     /* what the activation said of units, a line each, or NULL */
    char *build_state, *drv;
    char *guard;            /* its phase, as it said last, or NULL */
    int64_t guard_until_ms; /* when it goes back by itself; 0: not known, or it doesn't */
};

enum model_step_state {
    STEP_IS_WAITING,
    STEP_IS_BUILDING,
    STEP_IS_FETCHING,
    STEP_IS_FAILED,
    STEP_IS_BUILT,
    STEP_IS_FETCHED,
    STEP_STATE_COUNT
};

/* A derivation of a build's tree, or a path that is fetched. */
struct model_step {
    char *drv;
    char *phase, *machine, *last_line; /* or NULL */
    size_t parent;                     /* a step before this one, or MODEL_NONE */
    size_t same;                       /* the same one at another place, or MODEL_NONE */
    size_t host;                       /* whose build named it first, or MODEL_NONE */
    enum model_step_state state;
    int64_t began_ms, ended_ms; /* 0: not yet */
};

/* What the way from one system to another changes. */
struct model_way {
    char *current, *desired;
    char *packages; /* a line each: "openssl 3.0.13 → 3.0.14", "+ jq-1.7", "- tree-2.1" */
    size_t changed, added, removed, left_out;
    uint64_t bytes_from, bytes_to;
};

struct model_line {
    int64_t at_ms;
    size_t host;           /* its number in the view, or MODEL_NONE */
    enum host_state state; /* story: what the line tells; HOST_STATE_COUNT: something else */
    size_t merged;         /* story: hosts besides this one */
    uint8_t style;
    char *stream; /* log only */
    char *text;
};

/* The last `cap` lines; line i of the `count` kept is model_line(ring, i), the oldest first. */
struct model_ring {
    struct model_line *lines;
    size_t cap, count, first;
    uint64_t total; /* ever added */
};

struct model {
    struct model_host *hosts; /* by the host's number in the view */
    size_t host_count;
    struct model_ring story, log;
    struct model_step *steps;
    size_t step_count;
    struct name_index *step_index; /* or NULL */
    struct model_way ways[MODEL_WAYS];
    size_t way_count;
    int64_t last_ms; /* stamp of the last event */
};

void model_init(struct model *model);
/* `view` is the state after the event. */
void model_apply(struct model *model, const struct event *event, const struct view *view);
void model_release(struct model *model);

const struct model_line *model_line(const struct model_ring *ring, size_t index);
/* The host's move number `index` of those kept, the oldest first; NULL behind the last. */
const struct model_move *model_move(const struct model_host *host, size_t index);
/* What the host's update changes, or NULL where that isn't known. */
const struct model_way *model_way_of(const struct model *model, const struct view_host *host);
/* What is left to do until every host has ended, as the hosts that are done took it; -1 while
 * nothing is known. */
int64_t model_remaining_ms(const struct view *view, int64_t now_ms);

#endif
