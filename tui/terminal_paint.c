/* Differences between screens as bytes for a terminal (see terminal_paint.h). */
#include "tui/terminal_paint.h"

#include <curses.h>
#include <stdlib.h>
#include <string.h>
#include <term.h>

#include "core/base/xalloc.h"

/* Unchanged cells up to here are written again: that is shorter than moving over them. */
#define GAP_MAX 6
/* Fewer blanks than that are written, more are erased. */
#define ERASE_MIN 4
#define COLORS_16 16

struct paint {
    bool color;
    int colors;
    bool known; /* `shown` is what the terminal shows */
    struct screen shown;
    int row, col; /* the cursor; -1: somewhere */
    int style;    /* -1: unknown */
};

static const char *capability(const char *name) {
    char copy[8];
    strncpy(copy, name, sizeof(copy) - 1);
    copy[sizeof(copy) - 1] = '\0';
    const char *text = tigetstr(copy);
    return text == NULL || text == (const char *)-1 ? "" : text; /* NOLINT: terminfo's "no" */
}

/* Without terminfo's delays, "$<5>": no terminal of today needs them. */
static void add_sequence(struct buf *out, const char *text) {
    while (*text != '\0') {
        const char *delay = strstr(text, "$<");
        const char *end = delay != NULL ? strchr(delay, '>') : NULL;
        if (end == NULL) {
            buf_add_text(out, text);
            return;
        }
        buf_add(out, text, (size_t)(delay - text));
        text = end + 1;
    }
}

static void add_capability(struct buf *out, const char *name) {
    add_sequence(out, capability(name));
}

bool paint_is_possible(int fd) {
    static bool asked, possible;
    int err;
    if (!asked) {
        asked = true;
        possible = setupterm(NULL, fd, &err) == OK && capability("cup")[0] != '\0' &&
                   capability("clear")[0] != '\0';
    }
    return possible;
}

struct paint *paint_new(int fd, bool color) {
    if (!paint_is_possible(fd)) {
        return NULL;
    }
    struct paint *paint = xcalloc(1, sizeof(*paint));
    char name[] = "colors";
    paint->colors = tigetnum(name);
    paint->color = color && paint->colors >= 8;
    return paint;
}

void paint_free(struct paint *paint) {
    screen_release(&paint->shown);
    free(paint);
}

void paint_forget(struct paint *paint) {
    paint->known = false;
}

void paint_add_enter(const struct paint *paint, struct buf *out) {
    (void)paint;
    add_capability(out, "smcup");
    add_capability(out, "civis");
}

void paint_add_leave(const struct paint *paint, struct buf *out) {
    (void)paint;
    add_capability(out, "sgr0");
    add_capability(out, "cnorm");
    if (capability("rmcup")[0] != '\0') {
        add_capability(out, "rmcup");
    } else {
        add_capability(out, "clear");
    }
}

static void add_color(const struct paint *paint, int number, struct buf *out) {
    const char *setaf = capability("setaf");
    if (paint->color && setaf[0] != '\0') {
        add_sequence(out, tparm(setaf, number, 0, 0, 0, 0, 0, 0, 0, 0));
    }
}

static void add_dim(const struct paint *paint, struct buf *out) {
    if (capability("dim")[0] != '\0') {
        add_capability(out, "dim");
    } else if (paint->colors >= COLORS_16) {
        add_color(paint, COLOR_BLACK + 8, out);
    }
}

static void set_style(struct paint *paint, unsigned style, struct buf *out) {
    static const int colors[] = {[TONE_GOOD] = COLOR_GREEN,
                                 [TONE_WARN] = COLOR_YELLOW,
                                 [TONE_BAD] = COLOR_RED,
                                 [STYLE_ACCENT] = COLOR_CYAN};
    if (paint->style == (int)style) {
        return;
    }
    paint->style = (int)style;
    add_capability(out, "sgr0");
    unsigned color = style & STYLE_TONE_MASK;
    if (color == TONE_DIM) {
        add_dim(paint, out);
    } else if (color < ARRAY_LEN(colors) && colors[color] != 0) {
        add_color(paint, colors[color], out);
    }
    if (style & STYLE_BOLD) {
        add_capability(out, "bold");
    }
    if (style & STYLE_UNDERLINE) {
        add_capability(out, "smul");
    }
    if (style & STYLE_REVERSE) {
        add_capability(out, "rev");
    }
}

static void move_to(struct paint *paint, int row, int col, struct buf *out) {
    if (paint->row == row && paint->col == col) {
        return;
    }
    add_sequence(out, tparm(capability("cup"), row, col, 0, 0, 0, 0, 0, 0, 0));
    paint->row = row;
    paint->col = col;
}

static bool same_cell(const struct screen_cell *a, const struct screen_cell *b) {
    return a->len == b->len && a->style == b->style && memcmp(a->text, b->text, a->len) == 0;
}

static bool is_blank(const struct screen_cell *cell) {
    return cell->len == 1 && cell->text[0] == ' ' && cell->style == TONE_PLAIN;
}

static void add_cell(struct paint *paint, const struct screen_cell *cell, bool wide,
                     struct buf *out) {
    set_style(paint, cell->style, out);
    buf_add(out, cell->text, cell->len);
    paint->col += wide ? 2 : 1;
    /* Terminals don't agree on the width of everything: after what is doubtful, move anew. */
    if (wide || cell->len > 4) {
        paint->row = -1;
    }
}

/* Where the row's last cell that isn't blank ends. */
static int text_end(const struct screen_cell *cells, int cols) {
    while (cols > 0 && is_blank(&cells[cols - 1])) {
        cols--;
    }
    return cols;
}

/* Up to where the cells from `col` on are to be written in one go. */
static int run_end(const struct screen_cell *now, const struct screen_cell *old, int col, int end) {
    int last = col;
    for (int at = col; at < end && at - last <= GAP_MAX; at++) {
        if (!same_cell(&now[at], &old[at])) {
            last = at + 1;
        }
    }
    while (last < end && now[last].len == 0) {
        last++;
    }
    return last;
}

static void paint_row(struct paint *paint, const struct screen *screen, int row, struct buf *out) {
    const struct screen_cell *now = screen->cells + row * screen->cols;
    struct screen_cell *old = paint->shown.cells + row * screen->cols;
    /* The very last cell would scroll terminals that wrap at once. */
    int cols = row == screen->rows - 1 ? screen->cols - 1 : screen->cols;
    int end = text_end(now, cols);
    bool erase = text_end(old, cols) - end >= ERASE_MIN && capability("el")[0] != '\0';
    int limit = erase ? end : cols;
    for (int col = 0; col < limit;) {
        if (same_cell(&now[col], &old[col])) {
            col++;
            continue;
        }
        col -= now[col].len == 0 && col > 0;
        int stop = run_end(now, old, col, limit);
        move_to(paint, row, col, out);
        while (col < stop) {
            bool wide = col + 1 < screen->cols && now[col + 1].len == 0;
            move_to(paint, row, col, out);
            add_cell(paint, &now[col], wide, out);
            col += wide ? 2 : 1;
        }
        /* At the right edge a terminal's cursor is neither here nor there. */
        paint->row = paint->col >= screen->cols ? -1 : paint->row;
    }
    if (erase) {
        move_to(paint, row, end, out);
        set_style(paint, TONE_PLAIN, out);
        add_capability(out, "el");
    }
    memcpy(old, now, (size_t)screen->cols * sizeof(*now));
}

void paint_difference(struct paint *paint, const struct screen *screen, struct buf *out) {
    bool same_size = paint->shown.rows == screen->rows && paint->shown.cols == screen->cols;
    if (!paint->known || !same_size) {
        screen_resize(&paint->shown, screen->rows, screen->cols);
        add_capability(out, "sgr0");
        add_capability(out, "clear");
        paint->style = TONE_PLAIN;
        paint->row = -1;
        paint->known = true;
    }
    for (int row = 0; row < screen->rows; row++) {
        const size_t size = (size_t)screen->cols * sizeof(struct screen_cell);
        if (memcmp(screen->cells + row * screen->cols, paint->shown.cells + row * screen->cols,
                   size) != 0) {
            paint_row(paint, screen, row, out);
        }
    }
}
