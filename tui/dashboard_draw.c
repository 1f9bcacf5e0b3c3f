/* Where things stand on the screen: head, body, lower pane, foot.
 *
 * From the size alone follows what is shown; below 40 columns or 10 rows only the counts and the
 * sentence. The map takes the table's place where there are more hosts than rows, and leaves it
 * some.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/xalloc.h"
#include "tui/dashboard_parts.h"
#include "tui/dashboard_story.h"

#define SMALLEST_COLS 40
#define SMALLEST_ROWS 10
/* Rows from which on there is a story below the table. */
#define STORY_FROM  16
#define STORY_MOST  14
#define TABLE_LEAST 3

void dash_time(int64_t at_ms, struct buf *out) {
    time_t at = (time_t)(at_ms / 1000);
    struct tm local;
    char text[16];
    localtime_r(&at, &local);
    strftime(text, sizeof(text), "%H:%M:%S", &local);
    buf_add_text(out, text);
}

void dash_bar(struct screen *screen, int row, int col, int end, unsigned style, uint64_t done,
              uint64_t total) {
    int width = end - col;
    if (width < 3) {
        return;
    }
    done = done > total ? total : done;
    /* In halves of a cell: a whole one is ━, half of one ╸. */
    uint64_t halves = total > 0 ? done * (uint64_t)width * 2 / total : 0;
    int full = (int)(halves / 2);
    screen_fill(screen, row, col, col + full, style, "━");
    int next = col + full;
    if (halves % 2 == 1 && next < end) {
        screen_put(screen, row, next, next + 1, style, "╸");
        next++;
    }
    screen_fill(screen, row, next, end, TONE_DIM, "─");
}

void dash_rule(struct screen *screen, int row, const char *title) {
    screen_fill(screen, row, 0, screen->cols, TONE_DIM, "─");
    if (title != NULL && title[0] != '\0') {
        int col = screen_put(screen, row, 2, screen->cols - 2, TONE_PLAIN, " ");
        col = screen_put(screen, row, col, screen->cols - 3, STYLE_BOLD, title);
        screen_put(screen, row, col, screen->cols - 1, TONE_PLAIN, " ");
    }
}

/* Over several rows where there are any; returns the row after. */
static int draw_wrapped(struct screen *screen, int row, int end_row, const char *text) {
    while (*text != '\0' && row < end_row) {
        bool last = row + 1 == end_row;
        size_t bytes = last ? strlen(text) : screen_fit_words(screen, text, screen->cols);
        bytes = bytes > 0 ? bytes : strlen(text); /* a character too wide for one column */
        screen_printf(screen, row++, 0, screen->cols, TONE_PLAIN, "%.*s", (int)bytes, text);
        text += bytes;
        text += *text == ' ';
    }
    return row;
}

static void draw_tiny(struct dash *dash) {
    struct buf counts = BUF_INIT;
    struct buf sentence = BUF_INIT;
    struct screen *screen = &dash->screen;
    wording_counts(dash->view, &counts);
    dash_sentence(dash, &sentence);
    int row = 0;
    if (screen->rows >= 3) {
        screen_printf(screen, row++, 0, screen->cols, STYLE_BOLD, "%s %s",
                      dash->view->fleet != NULL ? dash->view->fleet : "fleet",
                      wording_short_run(dash->view->run));
    }
    /* One row each at least, and the sentence has what is left. */
    int most = screen->rows / 2 > row ? screen->rows / 2 : row + 1;
    row = draw_wrapped(screen, row, most, buf_text(&counts));
    draw_wrapped(screen, row, screen->rows, buf_text(&sentence));
    buf_free(&counts);
    buf_free(&sentence);
}

static void draw_story_line(struct dash *dash, int row, const struct model_line *line,
                            int name_width) {
    struct screen *screen = &dash->screen;
    struct buf text = BUF_INIT;
    dash_time(line->at_ms, &text);
    int col = screen_put(screen, row, 1, screen->cols, TONE_DIM, buf_text(&text)) + 1;
    buf_clear(&text);
    story_subject(line, dash->view, &text);
    if (text.len > 0) {
        screen_put(screen, row, col, col + name_width, TONE_PLAIN, buf_text(&text));
        col += name_width + 2;
    }
    screen_put(screen, row, col, screen->cols - 1, line->style, line->text);
    buf_free(&text);
}

void dash_draw_story(struct dash *dash, int row, int end_row) {
    const struct model_ring *story = &dash->model.story;
    size_t shown = end_row > row ? (size_t)(end_row - row) : 0;
    shown = shown > story->count ? story->count : shown;
    int name_width = 0;
    struct buf name = BUF_INIT;
    for (size_t i = 0; i < shown; i++) {
        buf_clear(&name);
        story_subject(model_line(story, story->count - 1 - i), dash->view, &name);
        int width = screen_width(&dash->screen, buf_text(&name));
        name_width = width > name_width ? width : name_width;
    }
    buf_free(&name);
    int most = dash->screen.cols / 4;
    name_width = name_width > most ? most : name_width;
    for (size_t i = 0; i < shown; i++) {
        draw_story_line(dash, row + (int)i, model_line(story, story->count - 1 - i), name_width);
    }
}

/* Map and table between two rows. */
static void draw_hosts(struct dash *dash, int row, int end_row) {
    int rows = end_row - row;
    bool many = dash->view->host_count > (size_t)(rows > 1 ? rows - 1 : 1);
    if (many && dash->state.mode == DASH_FLEET && !dash->state.no_map && rows >= TABLE_LEAST + 2) {
        int map = dash_map_rows(dash, rows - TABLE_LEAST - 1);
        dash_draw_map(dash, row, row + map);
        row += map;
        if (map > 0) {
            dash_rule(&dash->screen, row++, NULL);
        }
    }
    dash_draw_table(dash, row, end_row);
}

/* How many rows the lower pane gets. */
static int lower_rows(const struct dash *dash, int rows) {
    if (dash->state.mode == DASH_LOG) {
        int hosts = (int)dash->view->host_count + 1;
        int above = rows / 3 < hosts ? rows / 3 : hosts;
        return rows >= STORY_FROM ? rows - above : rows;
    }
    if (dash->screen.rows < STORY_FROM) {
        return 0;
    }
    /* What the table doesn't need is the story's, and at least a third. */
    int spare = rows - ((int)dash->view->host_count + 2);
    int least = rows / 3;
    int most = rows / 2 > STORY_MOST ? rows / 2 : STORY_MOST;
    int wanted = spare > least ? spare : least;
    return wanted > most ? most : wanted;
}

static void draw_fleet(struct dash *dash, int row, int end_row) {
    int lower = lower_rows(dash, end_row - row);
    int split = end_row - lower;
    dash_sort(dash);
    if (split > row) {
        draw_hosts(dash, row, split);
    }
    if (lower < 2) {
        return;
    }
    if (dash->state.mode == DASH_LOG) {
        dash_draw_log(dash, split, end_row);
    } else {
        dash_rule(&dash->screen, split, NULL);
        dash_draw_story(dash, split + 1, end_row);
    }
}

void dash_draw(struct dash *dash) {
    struct screen *screen = &dash->screen;
    screen_erase(screen);
    if (dash->view == NULL || dash->view->run == NULL) {
        screen_put(screen, 0, 0, screen->cols, TONE_DIM, "waiting for the run to begin");
        return;
    }
    if (screen->rows < SMALLEST_ROWS || screen->cols < SMALLEST_COLS) {
        draw_tiny(dash);
        return;
    }
    int row = dash_draw_head(dash);
    int end_row = screen->rows - 1;
    switch (dash->state.mode) {
    case DASH_FLEET:
    case DASH_LOG:
        if (screen->rows >= 12) {
            dash_rule(screen, row++, NULL);
        }
        draw_fleet(dash, row, end_row);
        break;
    case DASH_DETAIL:
        dash_draw_detail(dash, row, end_row);
        break;
    case DASH_BUILD:
        dash_draw_build(dash, row, end_row);
        break;
    case DASH_HELP:
        dash_draw_help(dash, row, end_row);
        break;
    case DASH_MODE_COUNT:
        break;
    }
    dash_draw_foot(dash, end_row);
}
