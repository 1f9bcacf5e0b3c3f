/* The keys of the dashboard at rest: as the rollout's, where they mean the same. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/base/xalloc.h"
#include "tui/rest_parts.h"

#define NOTICE_MS    5000
#define EVERY_MIN_MS 1000u
#define EVERY_MAX_MS 300000u

struct rest_key {
    int keys[2]; /* 0: no second one */
    const char *label;
    const char *foot; /* a word for the last row; NULL: not shown there */
    const char *help; /* NULL: told by another one */
    unsigned modes;   /* a bit each */
    void (*run)(struct rest_view *view, int argument);
    int argument;
};

#define IN(mode)   (1u << (mode))
#define EVERYWHERE (IN(REST_MODE_COUNT) - 1u)

static void notice(struct rest_view *view, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void notice(struct rest_view *view, const char *format, ...) {
    va_list args;
    va_start(args, format);
    free(view->notice);
    view->notice = xvasprintf(format, args);
    va_end(args);
    view->notice_until_ms = view->now_ms + NOTICE_MS;
}

/* ---- order ---- */

#define RANKS 6

/* Lower is further up. */
static int rank(const struct rest_host *host) {
    const struct rest_words *words = rest_words(host->state);
    return words->attention && words->tone == TONE_BAD ? 0
           : words->attention                          ? 1
           : host->state == REST_BUSY                  ? 2
           : host->notes != NULL                       ? 3
           : host->state == REST_ASKED                 ? 4
                                                       : 5;
}

static bool matches(const struct rest_host *host, const char *filter) {
    return filter[0] == '\0' || strcasestr(host->name, filter) != NULL ||
           strcasestr(rest_words(host->state)->word, filter) != NULL ||
           (host->notes != NULL && strcasestr(host->notes, filter) != NULL);
}

void rest_sort(struct rest_view *view) {
    view->order_count = 0;
    for (int wanted = 0; wanted < RANKS; wanted++) {
        for (size_t i = 0; i < view->model.host_count; i++) {
            const struct rest_host *host = &view->model.hosts[i];
            if (rank(host) == wanted && matches(host, view->filter)) {
                view->order[view->order_count++] = i;
            }
        }
    }
    bool there = false;
    for (size_t i = 0; view->pinned && i < view->order_count; i++) {
        there = there || view->order[i] == view->selected;
    }
    if (!there && view->order_count > 0) {
        view->selected = view->order[0];
    }
}

/* ---- what keys do ---- */

static size_t selected_index(const struct rest_view *view) {
    size_t at = 0;
    while (at < view->order_count && view->order[at] != view->selected) {
        at++;
    }
    return at < view->order_count ? at : 0;
}

static size_t moved(size_t from, long by, size_t last) {
    if (by < 0) {
        return from > (size_t)-by ? from - (size_t)-by : 0;
    }
    return last - from < (size_t)by ? last : from + (size_t)by;
}

static void move_by(struct rest_view *view, long by) {
    struct pane_scroll *scroll = view->mode == REST_DETAIL ? &view->detail
                                 : view->mode == REST_HELP ? &view->help
                                                           : NULL;
    if (scroll != NULL) {
        size_t last = scroll->lines > scroll->height ? scroll->lines - scroll->height : 0;
        scroll->top = moved(scroll->top > last ? last : scroll->top, by, last);
    } else if (view->order_count > 0) {
        view->selected = view->order[moved(selected_index(view), by, view->order_count - 1)];
        view->pinned = true;
    }
}

static void press_page(struct rest_view *view, int by) {
    size_t page = view->mode == REST_FLEET ? view->page : view->detail.height;
    move_by(view, (long)by * (long)(page > 1 ? page - 1 : 1));
}

static void press_line(struct rest_view *view, int by) {
    move_by(view, by);
}

static void press_end(struct rest_view *view, int by) {
    move_by(view, (long)by * 1000000L);
}

static void open_mode(struct rest_view *view, int mode) {
    bool same = view->mode == (enum rest_mode)mode;
    if (mode == REST_HELP && !same) {
        view->before_help = view->mode;
    }
    if (mode == REST_DETAIL && view->model.host_count == 0) {
        return;
    }
    view->mode = same ? REST_FLEET : (enum rest_mode)mode;
    view->detail.top = 0;
    view->pinned = view->pinned || mode == REST_DETAIL;
}

static void go_back(struct rest_view *view, int argument) {
    (void)argument;
    if (view->mode == REST_HELP) {
        view->mode = view->before_help;
    } else if (view->mode != REST_FLEET) {
        view->mode = REST_FLEET;
    } else if (view->filter[0] != '\0') {
        view->filter[0] = '\0';
    } else {
        view->pinned = false;
    }
}

static void next_problem(struct rest_view *view, int argument) {
    size_t from = selected_index(view);
    (void)argument;
    for (size_t i = 1; i <= view->order_count; i++) {
        size_t host = view->order[(from + i) % view->order_count];
        if (rest_words(view->model.hosts[host].state)->attention) {
            view->selected = host;
            view->pinned = true;
            return;
        }
    }
    notice(view, "no host needs a person");
}

static void ask_filter(struct rest_view *view, int argument) {
    (void)argument;
    view->typing = true;
}

static void ask_again(struct rest_view *view, int all) {
    bool one = !all && view->selected < view->model.host_count;
    notice(view, "asking %s again", one ? view->model.hosts[view->selected].name : "all hosts");
    view->options.on_ask(one ? view->selected : SIZE_MAX, view->options.arg);
}

static void change_pace(struct rest_view *view, int slower) {
    uint64_t every = slower ? view->every_ms * 2 : view->every_ms / 2;
    view->every_ms = every < EVERY_MIN_MS   ? EVERY_MIN_MS
                     : every > EVERY_MAX_MS ? EVERY_MAX_MS
                                            : every;
    notice(view, "each host is asked every %llu s", (unsigned long long)(view->every_ms / 1000));
    view->options.on_every(view->every_ms, view->options.arg);
}

static void toggle_mouse(struct rest_view *view, int argument) {
    (void)argument;
    view->mouse = !view->mouse;
    notice(view, view->mouse ? "mouse: click selects, the wheel scrolls; m ends it"
                             : "mouse: the terminal's again");
}

static void toggle_map(struct rest_view *view, int argument) {
    (void)argument;
    view->no_map = !view->no_map;
}

static void swap_to_plain(struct rest_view *view, int argument) {
    (void)argument;
    view->swap = true;
}

static void leave(struct rest_view *view, int argument) {
    (void)argument;
    view->leave = true;
}

static const struct rest_key bindings[] = {
    {{KEY_ENTER},
     "Enter",
     "detail",
     "the selected host in detail",
     IN(REST_FLEET),
     open_mode,
     REST_DETAIL},
    {{'n'},
     "n",
     "next problem",
     "the next host that needs a person",
     IN(REST_FLEET),
     next_problem,
     0},
    {{'r'}, "r", "ask again", "ask the selected host again, now", EVERYWHERE, ask_again, 0},
    {{'a'}, "a", NULL, "ask all hosts again, now", EVERYWHERE, ask_again, 1},
    {{'+', '='}, "+", NULL, "ask twice as often", EVERYWHERE, change_pace, 0},
    {{'-'}, "-", NULL, "ask half as often", EVERYWHERE, change_pace, 1},
    {{'/'},
     "/",
     "filter",
     "filter hosts by name, state or what is said of them",
     IN(REST_FLEET),
     ask_filter,
     0},
    {{'v'}, "v", NULL, "map and table, or the table alone", IN(REST_FLEET), toggle_map, 0},
    {{'s'}, "s", NULL, "plain lines, and back", EVERYWHERE, swap_to_plain, 0},
    {{'k', KEY_ARROW_UP}, "k, up", NULL, "up", EVERYWHERE, press_line, -1},
    {{'j', KEY_ARROW_DOWN}, "j, down", NULL, "down", EVERYWHERE, press_line, 1},
    {{KEY_PAGE_UP}, "PgUp", NULL, "a page up", EVERYWHERE, press_page, -1},
    {{KEY_PAGE_DOWN, ' '}, "PgDn, space", NULL, "a page down", EVERYWHERE, press_page, 1},
    {{'g', KEY_START}, "g, Home", NULL, "to the top", EVERYWHERE, press_end, -1},
    {{'G', KEY_FINISH}, "G, End", NULL, "to the end", EVERYWHERE, press_end, 1},
    {{'m'}, "m", NULL, "the mouse: click selects, the wheel scrolls", EVERYWHERE, toggle_mouse, 0},
    {{'?'}, "?", "keys", "these keys", EVERYWHERE, open_mode, REST_HELP},
    {{KEY_ESCAPE}, "Esc", "back", "back; takes filter and selection away", EVERYWHERE, go_back, 0},
    {{KEY_ENTER}, "Enter", NULL, NULL, IN(REST_DETAIL) | IN(REST_HELP), go_back, 0},
    {{'q'}, "q", "leave", "leave; nothing on the hosts has been touched", EVERYWHERE, leave, 0},
};

void rest_list_keys(void (*line)(const char *label, const char *help, void *arg), void *arg) {
    for (size_t i = 0; i < ARRAY_LEN(bindings); i++) {
        if (bindings[i].help != NULL) {
            line(bindings[i].label, bindings[i].help, arg);
        }
    }
}

static void type_filter(struct rest_view *view, int key) {
    if (key == KEY_ENTER) {
        view->typing = false;
    } else if (key == KEY_ESCAPE) {
        view->typing = false;
        view->filter[0] = '\0';
    } else {
        input_line_type(view->filter, key);
    }
}

static void press_mouse(struct rest_view *view, const struct key_press *press) {
    if (press->key != KEY_MOUSE_PRESS) {
        move_by(view, press->key == KEY_WHEEL_UP ? -3 : 3);
        return;
    }
    int row = press->row - view->table_row;
    if (view->mode == REST_FLEET && row >= 0 && (size_t)row < view->page &&
        view->top + (size_t)row < view->order_count) {
        view->selected = view->order[view->top + (size_t)row];
        view->pinned = true;
    }
}

void rest_press(struct rest_view *view, const struct key_press *press) {
    if (press->key >= KEY_MOUSE_PRESS) {
        press_mouse(view, press);
    } else if (view->typing) {
        type_filter(view, press->key);
    } else {
        free(view->notice);
        view->notice = NULL;
        for (size_t i = 0; i < ARRAY_LEN(bindings) && press->key != KEY_NONE; i++) {
            const struct rest_key *key = &bindings[i];
            if ((key->keys[0] == press->key || key->keys[1] == press->key) &&
                (key->modes & IN(view->mode)) != 0) {
                key->run(view, key->argument);
                break;
            }
        }
    }
    rest_sort(view);
}

/* ---- the last row ---- */

static int foot_key(struct screen *screen, int row, int col, const char *label, const char *word) {
    col = screen_put(screen, row, col, screen->cols - 1, STYLE_BOLD, label);
    return screen_put(screen, row, col + 1, screen->cols - 1, TONE_DIM, word) + 2;
}

static void draw_keys(struct rest_view *view, int row) {
    struct screen *screen = &view->screen;
    int right = screen->cols - 1 - screen_width(screen, "? keys  q leave");
    int col = 1;
    for (size_t i = 0; i < ARRAY_LEN(bindings); i++) {
        const struct rest_key *key = &bindings[i];
        bool pinned = key->keys[0] == '?' || key->keys[0] == 'q';
        bool back = key->keys[0] == KEY_ESCAPE && view->mode == REST_FLEET;
        if (key->foot == NULL || pinned || back || (key->modes & IN(view->mode)) == 0) {
            continue;
        }
        int width = screen_width(screen, key->label) + 1 + screen_width(screen, key->foot);
        if (col + width + 2 <= right) {
            col = foot_key(screen, row, col, key->label, key->foot);
        }
    }
    int at = foot_key(screen, row, right, "?", "keys");
    foot_key(screen, row, at, "q", "leave");
}

void rest_draw_foot(struct rest_view *view, int row) {
    struct screen *screen = &view->screen;
    if (view->typing) {
        int col = screen_put(screen, row, 1, screen->cols - 2, STYLE_BOLD, "filter: ");
        col = screen_put(screen, row, col, screen->cols - 2, TONE_PLAIN, view->filter);
        screen_mark(screen, row, col, col + 1, STYLE_REVERSE);
    } else if (view->notice != NULL && view->now_ms < view->notice_until_ms) {
        screen_put(screen, row, 1, screen->cols - 1, STYLE_BOLD, view->notice);
    } else if (view->filter[0] != '\0' && view->mode == REST_FLEET) {
        screen_printf(screen, row, 1, screen->cols - 1, STYLE_BOLD,
                      "filter: %s  (%zu of %zu hosts; Esc takes it away)", view->filter,
                      view->order_count, view->model.host_count);
    } else {
        draw_keys(view, row);
    }
}
