/* The keys: one table that binds them, that the foot and the help are made of.
 *
 * A key changes the dashboard's state or asks something of the run; what takes a version away from
 * a host, or stops, is typed out first.
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "tui/dashboard_parts.h"

#define NOTICE_MS    5000
#define IN(mode)     (1u << (mode))
#define FLEET_OR_LOG (IN(DASH_FLEET) | IN(DASH_LOG))
#define EVERYWHERE   (IN(DASH_MODE_COUNT) - 1u)
#define PANES        (IN(DASH_DETAIL) | IN(DASH_BUILD) | IN(DASH_HELP))

struct key_binding {
    int keys[2]; /* 0: no second one */
    const char *label;
    const char *foot; /* a word for the last row; NULL: not shown there */
    const char *help;
    unsigned modes;
    void (*run)(struct dash *dash, int argument);
    int argument;
    bool acts; /* asks something of the run */
};

/* ---- notices ---- */

void dash_notice(struct dash *dash, const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *text = xvasprintf(format, args);
    va_end(args);
    free(dash->state.notice);
    dash->state.notice = text_cleaned(text, strlen(text));
    dash->state.notice_until_ms = dash->now_ms + NOTICE_MS;
    free(text);
}

/* ---- moving about ---- */

static size_t selected_index(const struct dash *dash) {
    for (size_t i = 0; i < dash->order_count; i++) {
        if (dash->order[i] == dash->state.selected) {
            return i;
        }
    }
    return 0;
}

static size_t moved(size_t from, long by, size_t last) {
    if (by < 0) {
        return from > (size_t)-by ? from - (size_t)-by : 0;
    }
    return last - from < (size_t)by ? last : from + (size_t)by;
}

static void scroll_by(struct pane_scroll *scroll, long by) {
    size_t last = scroll->lines > scroll->height ? scroll->lines - scroll->height : 0;
    scroll->top = scroll->top > last ? last : scroll->top;
    scroll->top = moved(scroll->top, by, last);
}

static struct pane_scroll *pane_scroll(struct dash *dash) {
    switch (dash->state.mode) {
    case DASH_DETAIL:
        return &dash->state.detail;
    case DASH_BUILD:
        return &dash->state.build;
    case DASH_HELP:
        return &dash->state.help;
    case DASH_LOG:
        return &dash->state.log;
    case DASH_FLEET:
    case DASH_MODE_COUNT:
        break;
    }
    return NULL;
}

static void move_by(struct dash *dash, long by) {
    struct pane_scroll *scroll = pane_scroll(dash);
    if (scroll != NULL) {
        scroll_by(scroll, by);
        dash->state.follow =
            dash->state.mode == DASH_LOG && scroll->top + scroll->height >= scroll->lines && by > 0;
    } else if (dash->order_count > 0) {
        size_t to = moved(selected_index(dash), by, dash->order_count - 1);
        dash->state.selected = dash->order[to];
        dash->state.pinned = true;
    }
}

static void press_line(struct dash *dash, int by) {
    move_by(dash, by);
}

static void press_page(struct dash *dash, int by) {
    struct pane_scroll *scroll = pane_scroll(dash);
    size_t page = scroll != NULL ? scroll->height : dash->state.page;
    move_by(dash, (long)by * (long)(page > 1 ? page - 1 : 1));
}

static void press_end(struct dash *dash, int by) {
    move_by(dash, (long)by * 1000000L);
}

static void open_mode(struct dash *dash, int mode) {
    struct dash_state *state = &dash->state;
    if (mode == DASH_DETAIL && (dash->view == NULL || dash->view->host_count == 0)) {
        return;
    }
    bool same = state->mode == (enum dash_mode)mode;
    if (mode == DASH_HELP && !same) {
        state->before_help = state->mode;
    }
    if (mode == DASH_LOG) {
        /* From a host's detail its own lines are meant. */
        state->all_logs = state->mode != DASH_DETAIL;
    }
    state->mode = same ? DASH_FLEET : (enum dash_mode)mode;
    if (!same && mode == DASH_DETAIL) {
        state->detail.top = 0;
        state->pinned = true;
    }
    if (!same && mode == DASH_LOG) {
        state->follow = true;
    }
}

static void go_back(struct dash *dash, int argument) {
    struct dash_state *state = &dash->state;
    (void)argument;
    if (state->mode == DASH_HELP) {
        state->mode = state->before_help;
    } else if (state->mode == DASH_LOG && state->search != NULL) {
        free(state->search);
        state->search = NULL;
    } else if (state->mode != DASH_FLEET) {
        state->mode = DASH_FLEET;
    } else if (state->filter != NULL) {
        free(state->filter);
        state->filter = NULL;
    } else {
        state->pinned = false;
    }
}

static void next_failure(struct dash *dash, int argument) {
    (void)argument;
    if (dash->state.mode == DASH_LOG && dash->state.search != NULL) {
        if (!dash_log_search(dash, false)) {
            dash_notice(dash, "no further line holds '%s'", dash->state.search);
        }
        return;
    }
    size_t from = selected_index(dash);
    for (size_t i = 1; i <= dash->order_count; i++) {
        size_t host = dash->order[(from + i) % dash->order_count];
        enum host_state state = dash->view->hosts[host].state;
        if ((state_words(state)->attention && !wording_is_success(dash->view, state)) ||
            state == HOST_ROLLING_BACK) {
            dash->state.selected = host;
            dash->state.pinned = true;
            return;
        }
    }
    dash_notice(dash, "no host has failed");
}

static void previous_find(struct dash *dash, int argument) {
    (void)argument;
    if (dash->state.search == NULL || !dash_log_search(dash, true)) {
        dash_notice(dash, "no line above holds '%s'",
                    dash->state.search != NULL ? dash->state.search : "");
    }
}

/* ---- settings ---- */

static void toggle_follow(struct dash *dash, int argument) {
    (void)argument;
    dash->state.follow = !dash->state.follow;
}

static void toggle_wrap(struct dash *dash, int argument) {
    (void)argument;
    dash->state.wrap = !dash->state.wrap;
}

static void toggle_all(struct dash *dash, int argument) {
    (void)argument;
    dash->state.all_logs = !dash->state.all_logs;
}

static void toggle_map(struct dash *dash, int argument) {
    (void)argument;
    dash->state.no_map = !dash->state.no_map;
}

static void toggle_mouse(struct dash *dash, int argument) {
    (void)argument;
    dash->state.mouse = !dash->state.mouse;
    dash_notice(dash, dash->state.mouse ? "mouse: click selects, the wheel scrolls; m ends it"
                                        : "mouse: the terminal's again");
}

static void toggle_stay(struct dash *dash, int argument) {
    (void)argument;
    dash->state.stay = !dash->state.stay;
    dash_notice(dash, dash->state.stay ? "stays open when the run is over"
                                       : "closes when the run is over");
}

static void swap_to_plain(struct dash *dash, int argument) {
    (void)argument;
    dash->state.swap = true;
}

static void leave(struct dash *dash, int argument) {
    (void)argument;
    dash->state.leave = true;
}

/* ---- asking ---- */

static void ask_filter(struct dash *dash, int argument) {
    (void)argument;
    dash_open_filter(dash);
}

static void ask_run(struct dash *dash, int kind) {
    bool of_host =
        kind == RUN_REQUEST_SKIP || kind == RUN_REQUEST_TAKE_BACK || kind == RUN_REQUEST_RETRY;
    dash_ask_run(dash, (enum run_request_kind)kind, of_host);
}

static void ask_all_back(struct dash *dash, int argument) {
    (void)argument;
    dash_ask_run(dash, RUN_REQUEST_TAKE_BACK, false);
}

static const struct key_binding bindings[] = {
    {{KEY_ENTER},
     "Enter",
     "detail",
     "the selected host in detail",
     FLEET_OR_LOG,
     open_mode,
     DASH_DETAIL,
     false},
    {{'n'},
     "n",
     "next failure",
     "the next host that failed; in the log: the next find",
     FLEET_OR_LOG,
     next_failure,
     0,
     false},
    {{'N'}, "N", NULL, "in the log: the find before", IN(DASH_LOG), previous_find, 0, false},
    {{'l'},
     "l",
     "log",
     "the log, and back",
     IN(DASH_FLEET) | IN(DASH_LOG) | IN(DASH_DETAIL),
     open_mode,
     DASH_LOG,
     false},
    {{'p'},
     "p",
     "pause",
     "pause: activate no more hosts",
     EVERYWHERE,
     ask_run,
     RUN_REQUEST_PAUSE,
     true},
    {{'c'},
     "c",
     "go on",
     "go on: after a pause, or where a wave waits for promotion",
     EVERYWHERE,
     ask_run,
     RUN_REQUEST_PROMOTE,
     true},
    {{'R'},
     "R",
     "roll back",
     "roll the selected host back (asks)",
     EVERYWHERE,
     ask_run,
     RUN_REQUEST_TAKE_BACK,
     true},
    {{'r'},
     "r",
     "try again",
     "try the selected host again, where it has failed, gone back or been skipped (asks)",
     EVERYWHERE,
     ask_run,
     RUN_REQUEST_RETRY,
     true},
    {{'B'},
     "B",
     NULL,
     "roll all hosts back that this run changed (asks)",
     EVERYWHERE,
     ask_all_back,
     0,
     true},
    {{'x'},
     "x",
     NULL,
     "skip the selected host, if it hasn't been started",
     EVERYWHERE,
     ask_run,
     RUN_REQUEST_SKIP,
     true},
    {{'D'},
     "D",
     NULL,
     "drain: start no more hosts, finish those under way (asks)",
     EVERYWHERE,
     ask_run,
     RUN_REQUEST_DRAIN,
     true},
    {{'A'},
     "A",
     NULL,
     "abort: leave at once, the hosts' guards take them back (asks)",
     EVERYWHERE,
     ask_run,
     RUN_REQUEST_ABORT,
     true},
    {{'/'},
     "/",
     "filter",
     "filter hosts by name, state, wave or message; in the log: search",
     FLEET_OR_LOG,
     ask_filter,
     0,
     false},
    {{'f'}, "f", NULL, "in the log: follow, or stand still", IN(DASH_LOG), toggle_follow, 0, false},
    {{'w'}, "w", NULL, "in the log: wrap long lines", IN(DASH_LOG), toggle_wrap, 0, false},
    {{'a'},
     "a",
     NULL,
     "in the log: the selected host's lines, or all",
     IN(DASH_LOG),
     toggle_all,
     0,
     false},
    {{'b'}, "b", NULL, "the builds", EVERYWHERE, open_mode, DASH_BUILD, false},
    {{'v'}, "v", NULL, "map and table, or the table alone", FLEET_OR_LOG, toggle_map, 0, false},
    {{'s'}, "s", NULL, "plain lines, and back", EVERYWHERE, swap_to_plain, 0, false},
    {{'k', KEY_ARROW_UP}, "k, up", NULL, "up", EVERYWHERE, press_line, -1, false},
    {{'j', KEY_ARROW_DOWN}, "j, down", NULL, "down", EVERYWHERE, press_line, 1, false},
    {{KEY_PAGE_UP}, "PgUp", NULL, "a page up", EVERYWHERE, press_page, -1, false},
    {{KEY_PAGE_DOWN, ' '}, "PgDn, space", NULL, "a page down", EVERYWHERE, press_page, 1, false},
    {{'g', KEY_START}, "g, Home", NULL, "to the top", EVERYWHERE, press_end, -1, false},
    {{'G', KEY_FINISH}, "G, End", NULL, "to the end", EVERYWHERE, press_end, 1, false},
    {{'m'},
     "m",
     NULL,
     "the mouse: click selects, the wheel scrolls",
     EVERYWHERE,
     toggle_mouse,
     0,
     false},
    {{'o'}, "o", NULL, "stay open when the run is over", EVERYWHERE, toggle_stay, 0, false},
    {{'?'}, "?", "keys", "these keys", EVERYWHERE, open_mode, DASH_HELP, false},
    {{KEY_ESCAPE},
     "Esc",
     "back",
     "back; takes filter, search and selection away",
     EVERYWHERE,
     go_back,
     0,
     false},
    {{KEY_ENTER}, "Enter", NULL, NULL, PANES, go_back, 0, false},
    {{'q'},
     "q",
     "leave",
     "leave the dashboard; the run goes on as plain lines",
     EVERYWHERE,
     leave,
     0,
     false},
};

void dash_list_keys(void (*line)(const char *label, const char *help, bool acts, void *arg),
                    void *arg) {
    for (size_t i = 0; i < ARRAY_LEN(bindings); i++) {
        if (bindings[i].help != NULL) {
            line(bindings[i].label, bindings[i].help, bindings[i].acts, arg);
        }
    }
}

static void press_mouse(struct dash *dash, const struct key_press *press) {
    if (press->key == KEY_WHEEL_UP || press->key == KEY_WHEEL_DOWN) {
        move_by(dash, press->key == KEY_WHEEL_UP ? -3 : 3);
        return;
    }
    struct dash_state *state = &dash->state;
    int row = press->row - state->table_row;
    bool in_table = state->mode == DASH_FLEET && row >= 0 && (size_t)row < state->page;
    if (in_table && state->top + (size_t)row < dash->order_count) {
        state->selected = dash->order[state->top + (size_t)row];
        state->pinned = true;
    }
}

static void press_bound(struct dash *dash, const struct key_press *press) {
    struct dash_state *state = &dash->state;
    if (state->prompt != PROMPT_NONE) {
        dash_type(dash, press->key);
        return;
    }
    if (press->key >= KEY_MOUSE_PRESS) {
        press_mouse(dash, press);
        return;
    }
    free(state->notice);
    state->notice = NULL;
    for (size_t i = 0; i < ARRAY_LEN(bindings) && press->key != KEY_NONE; i++) {
        const struct key_binding *binding = &bindings[i];
        bool bound = binding->keys[0] == press->key || binding->keys[1] == press->key;
        if (bound && (binding->modes & IN(state->mode)) &&
            (dash->view != NULL || binding->run == leave)) {
            binding->run(dash, binding->argument);
            return;
        }
    }
}

void dash_press(struct dash *dash, const struct key_press *press) {
    press_bound(dash, press);
    if (dash->view != NULL) {
        dash_settle(dash);
    }
}

/* ---- the last row ---- */

static int foot_key(struct screen *screen, int row, int col, const char *label, const char *word) {
    col = screen_put(screen, row, col, screen->cols - 1, STYLE_BOLD, label);
    return screen_put(screen, row, col + 1, screen->cols - 1, TONE_DIM, word) + 2;
}

/* What is asked of a run that waits, or of a host that ended badly, differs from the rest. */
static bool is_of_use(const struct dash *dash, int key) {
    const struct view *view = dash->view;
    bool waits = dash_waits_for_person(view);
    const struct view_host *selected =
        dash->state.selected < view->host_count ? &view->hosts[dash->state.selected] : NULL;
    bool ended_badly = selected != NULL && host_state_is_end(selected->state) &&
                       !wording_is_success(view, selected->state);
    switch (key) {
    case 'p':
        return !waits;
    case 'c':
        return waits;
    case 'R':
        return !ended_badly;
    case 'r':
        return ended_badly;
    default:
        return true;
    }
}

static bool is_offered(const struct dash *dash, const struct key_binding *binding) {
    bool fleet = dash->state.mode == DASH_FLEET;
    if (binding->foot == NULL || (binding->modes & IN(dash->state.mode)) == 0) {
        return false;
    }
    if (binding->acts) {
        return dash->request != NULL && !dash->view->ended && is_of_use(dash, binding->keys[0]);
    }
    /* Two have a place of their own. */
    bool pinned = binding->keys[0] == '?' || binding->keys[0] == 'q';
    return !pinned && (binding->keys[0] != KEY_ESCAPE || !fleet);
}

/* The keys on offer, for as long as there is room before `right`; returns the column after. */
static int draw_offers(struct dash *dash, int row, int col, int right, bool first) {
    struct screen *screen = &dash->screen;
    for (size_t i = 0; i < ARRAY_LEN(bindings); i++) {
        const struct key_binding *binding = &bindings[i];
        /* What the run waits for stands first, so that there is room for it on every screen. */
        if (!is_offered(dash, binding) || (binding->keys[0] == 'c') != first) {
            continue;
        }
        bool searches = dash->state.mode == DASH_LOG && binding->keys[0] == '/';
        const char *word = searches ? "search" : binding->foot;
        int width = screen_width(screen, binding->label) + 1 + screen_width(screen, word);
        if (col + width + 2 <= right) {
            col = foot_key(screen, row, col, binding->label, word);
        }
    }
    return col;
}

static void draw_keys(struct dash *dash, int row) {
    struct screen *screen = &dash->screen;
    /* The two that nobody may miss stand at the right, whatever the width. */
    int right = screen->cols - 1 - screen_width(screen, "? keys  q leave");
    int col = draw_offers(dash, row, 1, right, true);
    draw_offers(dash, row, col, right, false);
    int at = foot_key(screen, row, right, "?", "keys");
    foot_key(screen, row, at, "q", "leave");
}

void dash_draw_foot(struct dash *dash, int row) {
    struct dash_state *state = &dash->state;
    struct screen *screen = &dash->screen;
    if (state->prompt != PROMPT_NONE) {
        dash_draw_prompt(dash, row);
        return;
    }
    if (state->notice != NULL && dash->now_ms < state->notice_until_ms) {
        screen_put(screen, row, 1, screen->cols - 1, STYLE_BOLD, state->notice);
        return;
    }
    if (state->filter != NULL && state->mode == DASH_FLEET) {
        screen_printf(screen, row, 1, screen->cols - 1, STYLE_BOLD,
                      "filter: %s  (%zu of %zu hosts; Esc takes it away)", state->filter,
                      dash->order_count, dash->view->host_count);
        return;
    }
    draw_keys(dash, row);
}

/* ---- start and end ---- */

void dash_init(struct dash *dash) {
    *dash = (struct dash){.live = true};
    model_init(&dash->model);
    dash->state.all_logs = true;
    dash->state.follow = true;
}

void dash_release(struct dash *dash) {
    struct dash_state *state = &dash->state;
    free(state->filter);
    free(state->search);
    free(state->asked_host);
    free(state->answer_of);
    free(state->notice);
    free(dash->waiting);
    free(dash->order);
    model_release(&dash->model);
    screen_release(&dash->screen);
}
