/* The dashboard's own state, which its parts share. Private to tui/dashboard*.c.
 *
 * Drawing is a function of this state, the view and `now_ms`, into `screen`; keys change the state
 * only; dashboard.c connects both with a terminal and a loop. So frames are drawn in tests without
 * either.
 */
#ifndef FLEET_TUI_DASHBOARD_PARTS_H
#define FLEET_TUI_DASHBOARD_PARTS_H

#include "tui/dashboard_model.h"
#include "tui/input_line.h"
#include "tui/key_input.h"
#include "tui/output.h"
#include "tui/pane.h"
#include "tui/screen.h"

enum dash_mode {
    DASH_FLEET, /* table, map, story */
    DASH_LOG,   /* the fleet above, the log below */
    DASH_DETAIL,
    DASH_BUILD,
    DASH_HELP,
    DASH_MODE_COUNT
};

enum dash_prompt {
    PROMPT_NONE,
    PROMPT_FILTER,
    PROMPT_SEARCH,
    PROMPT_CONFIRM /* of `asked` */
};

struct dash_state {
    enum dash_mode mode, before_help;
    size_t selected; /* the host's number in the view */
    bool pinned;     /* the person chose it; else it is who needs a person most */
    size_t top;      /* first row of the table */
    size_t page;     /* rows of the table in the last frame */
    int table_row;   /* where the table begins on the screen, for the mouse */
    bool no_map;     /* the table even where the map fits better */
    bool mouse;
    bool stay;    /* when the run is over */
    char *filter; /* or NULL */
    char *search; /* or NULL */
    bool all_logs, wrap, follow;
    struct pane_scroll log, detail, build, help;
    enum dash_prompt prompt;
    char input[INPUT_LINE_SIZE];
    struct run_request asked; /* waits for confirmation; `host` is `asked_host` */
    char *asked_host;
    char *answer_of; /* the host that something was asked for last, or NULL */
    char *notice;    /* or NULL */
    int64_t notice_until_ms;
    bool leave, swap; /* asked for by a key */
    bool abandon;     /* a second time: leave without the run */
};

struct dash {
    struct model model;
    const struct view *view; /* NULL before the first event */
    struct dash_state state;
    struct screen screen;
    int64_t now_ms; /* of this frame; wall clock, or the playback's */
    char *waiting;  /* the coordinator's own words, or NULL */
    bool live;      /* the run goes on somewhere */
    /* NULL: read-only. */
    void (*request)(const struct run_request *request, void *arg);
    void *request_arg;
    size_t *order; /* hosts as the table shows them */
    size_t order_count, order_cap;
};

/* ---- dashboard_draw.c ---- */

/* Draws everything into `screen`, which has its size. */
void dash_draw(struct dash *dash);
/* What the run's clock shows: frozen where the run has ended. */
int64_t dash_clock_ms(const struct dash *dash);
/* "━━━━╸────" for done of total between two columns. */
void dash_bar(struct screen *screen, int row, int col, int end, unsigned style, uint64_t done,
              uint64_t total);
/* A rule with a title. */
void dash_rule(struct screen *screen, int row, const char *title);
/* "17:04:31", local time. */
void dash_time(int64_t at_ms, struct buf *out);
bool dash_host_is_active(const struct view_host *host);
/* Paused, or before a promotion; a bake ends by itself. */
bool dash_waits_for_person(const struct view *view);

/* ---- dashboard_head.c: the lines that are always in view; return the row after ---- */

int dash_draw_head(struct dash *dash);
/* Why it is waiting right now; never empty. */
void dash_sentence(const struct dash *dash, struct buf *out);

/* ---- dashboard_table.c, dashboard_map.c ---- */

/* Fills `order`: who needs a person first; obeys the filter. */
void dash_sort(struct dash *dash);
/* As a frame would, without one: keys that follow a filter mean what it leaves, while what happens
 * to the run changes the selection only with a frame that shows it. */
void dash_settle(struct dash *dash);
void dash_draw_table(struct dash *dash, int row, int end_row);
/* What stands behind the state's word, "41 of 120 MB" or "http web: refused". */
void dash_phase_detail(const struct dash *dash, size_t number, struct buf *out);
/* The last results in at most `width` columns from `col` on. */
void dash_draw_strip(struct screen *screen, int row, int col, int width,
                     const struct model_strip *strip);
/* Rows that the map of all hosts takes, 0 where `most` are too few for it; and the map. */
int dash_map_rows(const struct dash *dash, int most);
void dash_draw_map(struct dash *dash, int row, int end_row);
/* What its signs mean. */
void dash_list_signs(struct pane *pane);

/* ---- panes ---- */

void dash_draw_story(struct dash *dash, int row, int end_row);
void dash_draw_log(struct dash *dash, int row, int end_row);
/* The next line of the log that `search` matches; false: none. */
bool dash_log_search(struct dash *dash, bool backward);
void dash_draw_detail(struct dash *dash, int row, int end_row);
void dash_draw_build(struct dash *dash, int row, int end_row);
void dash_draw_help(struct dash *dash, int row, int end_row);

/* ---- dashboard_keys.c ---- */

void dash_press(struct dash *dash, const struct key_press *press);
/* The last row: keys, or the prompt. */
void dash_draw_foot(struct dash *dash, int row);
/* Calls `line` with each key that the mode has, in the table's order. */
void dash_list_keys(void (*line)(const char *label, const char *help, bool acts, void *arg),
                    void *arg);

/* ---- dashboard_prompt.c ---- */

/* The filter, in the log the search. */
void dash_open_filter(struct dash *dash);
/* Asks the run, of the selected host or of all; what is destructive is confirmed first. */
void dash_ask_run(struct dash *dash, enum run_request_kind kind, bool of_selected);
/* An event of the run: where it is the answer to what was asked last, it is shown in the foot. */
void dash_hear(struct dash *dash, const struct event *event);
/* A key while a prompt is open. */
void dash_type(struct dash *dash, int key);
void dash_draw_prompt(struct dash *dash, int row);

/* ---- start and end ---- */

void dash_init(struct dash *dash);
void dash_release(struct dash *dash);
void dash_notice(struct dash *dash, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
