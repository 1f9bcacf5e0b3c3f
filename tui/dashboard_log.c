/* The log: what the hosts' tools said. Follows, wraps, searches; one host's lines or all. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "tui/dashboard_parts.h"

#define NAME_COLS 16
#define WRAP_MAX  12 /* rows of one line */
#define TIME_COLS 10

static bool is_shown(const struct dash *dash, const struct model_line *line) {
    return dash->state.all_logs || line->host == dash->state.selected || line->host == MODEL_NONE;
}

/* The numbers of the lines shown, in the ring's order; the caller frees. */
static size_t *shown_lines(const struct dash *dash, size_t *ret_count) {
    const struct model_ring *log = &dash->model.log;
    size_t *lines = xcalloc(log->count + 1, sizeof(*lines));
    size_t count = 0;
    for (size_t i = 0; i < log->count; i++) {
        if (is_shown(dash, model_line(log, i))) {
            lines[count++] = i;
        }
    }
    *ret_count = count;
    return lines;
}

static bool is_found(const struct dash *dash, const struct model_line *line) {
    const char *search = dash->state.search;
    return search != NULL && search[0] != '\0' && strcasestr(line->text, search) != NULL;
}

bool dash_log_search(struct dash *dash, bool backward) {
    size_t count;
    size_t *lines = shown_lines(dash, &count);
    struct pane_scroll *scroll = &dash->state.log;
    size_t found = count;
    for (size_t i = 0; i < count; i++) {
        bool ahead = backward ? i < scroll->top : i > scroll->top;
        if (ahead && is_found(dash, model_line(&dash->model.log, lines[i]))) {
            found = i;
            if (!backward) {
                break;
            }
        }
    }
    free(lines);
    if (found == count) {
        return false;
    }
    scroll->top = found;
    dash->state.follow = false;
    return true;
}

static int name_width(const struct dash *dash) {
    int width = 0;
    for (size_t i = 0; i < dash->view->host_count; i++) {
        int own = screen_width(&dash->screen, dash->view->hosts[i].name);
        width = own > width ? own : width;
    }
    return width > NAME_COLS ? NAME_COLS : width;
}

/* Rows that the text takes between two columns. */
static int text_rows(const struct dash *dash, const char *text, int width) {
    int rows = 1;
    if (!dash->state.wrap || width < 4) {
        return rows;
    }
    for (text += screen_fit(&dash->screen, text, width); *text != '\0' && rows < WRAP_MAX; rows++) {
        text += screen_fit(&dash->screen, text, width);
    }
    return rows;
}

static int draw_line(struct dash *dash, int row, int end_row, const struct model_line *line,
                     int names) {
    struct screen *screen = &dash->screen;
    struct buf text = BUF_INIT;
    dash_time(line->at_ms, &text);
    screen_put(screen, row, 1, screen->cols, TONE_DIM, buf_text(&text));
    buf_free(&text);
    int col = TIME_COLS;
    if (names > 0 && line->host < dash->view->host_count) {
        screen_put(screen, row, col, col + names, TONE_PLAIN, dash->view->hosts[line->host].name);
    }
    col += names > 0 ? names + 2 : 0;
    bool err = strcmp(line->stream, "stderr") == 0;
    unsigned style = is_found(dash, line) ? STYLE_REVERSE : err ? TONE_WARN : TONE_PLAIN;
    int width = screen->cols - 1 - col;
    int rows = text_rows(dash, line->text, width);
    const char *rest = line->text;
    for (int i = 0; i < rows && row < end_row; i++, row++) {
        size_t len = rows > 1 ? screen_fit(screen, rest, width) : strlen(rest);
        screen_printf(screen, row, col, screen->cols - 1, style, "%.*s", (int)len, rest);
        rest += len;
    }
    return row;
}

/* The first line to show so that the last one stands at the bottom. */
static size_t follow_top(const struct dash *dash, const size_t *lines, size_t count, int rows,
                         int width) {
    size_t top = count;
    while (top > 0) {
        rows -= text_rows(dash, model_line(&dash->model.log, lines[top - 1])->text, width);
        if (rows < 0) {
            break;
        }
        top--;
    }
    return top;
}

static void draw_title(struct dash *dash, int row, size_t count) {
    struct buf title = BUF_INIT;
    const struct dash_state *state = &dash->state;
    bool one = !state->all_logs && state->selected < dash->view->host_count;
    buf_printf(&title, "log of %s", one ? dash->view->hosts[state->selected].name : "all hosts");
    buf_printf(&title, " · %zu lines%s%s", count, state->follow ? " · follows" : "",
               state->wrap ? " · wraps" : "");
    if (state->search != NULL && state->search[0] != '\0') {
        buf_printf(&title, " · /%s", state->search);
    }
    dash_rule(&dash->screen, row, buf_text(&title));
    buf_free(&title);
}

void dash_draw_log(struct dash *dash, int row, int end_row) {
    size_t count;
    size_t *lines = shown_lines(dash, &count);
    draw_title(dash, row++, count);
    int names = dash->state.all_logs ? name_width(dash) : 0;
    int width = dash->screen.cols - 1 - TIME_COLS - (names > 0 ? names + 2 : 0);
    size_t height = end_row > row ? (size_t)(end_row - row) : 0;
    size_t bottom = follow_top(dash, lines, count, (int)height, width);
    struct pane_scroll *scroll = &dash->state.log;
    scroll->lines = count;
    scroll->height = height;
    scroll->top = dash->state.follow || scroll->top > bottom ? bottom : scroll->top;
    if (count == 0 && height > 0) {
        screen_put(&dash->screen, row, 1, dash->screen.cols - 1, TONE_DIM,
                   "nothing has been said yet");
    }
    for (size_t i = scroll->top; i < count && row < end_row; i++) {
        row = draw_line(dash, row, end_row, model_line(&dash->model.log, lines[i]), names);
    }
    free(lines);
}
