/* Cells, clipping and the ASCII pairs (see screen.h). */
#include "tui/screen.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"

/* The longest character of UTF-8. */
#define CHAR_BYTES 4

/* DASHBOARD.md, "Narrow, low, dumb". */
static const char *const ascii_pairs[][2] = {
    {"━", "="},    {"╸", ">"},     {"─", "-"}, {"✓", "ok"}, {"↺", "<-"}, {"✗", "x"},
    {"●", "*"},    {"◌", "o"},     {"▸", ">"}, {"·", "."},  {"→", "->"}, {"←", "<-"},
    {"…", "~"},    {"⏎", "Enter"}, {"↑", "^"}, {"↓", "v"},  {"│", "|"},  {"×", "x"},
    {"⏸", "||"}, {"└", "\\"},    {"├", "|"}, {"≠", "/="},
};

static void blank(struct screen_cell *cell) {
    *cell = (struct screen_cell){.text = " ", .len = 1, .style = TONE_PLAIN};
}

void screen_erase(struct screen *screen) {
    for (int i = 0; i < screen->rows * screen->cols; i++) {
        blank(&screen->cells[i]);
    }
}

void screen_resize(struct screen *screen, int rows, int cols) {
    screen->rows = rows < 1 ? 1 : rows > SCREEN_MAX ? SCREEN_MAX : rows;
    screen->cols = cols < 1 ? 1 : cols > SCREEN_MAX ? SCREEN_MAX : cols;
    screen->cells = xrealloc(screen->cells,
                             (size_t)screen->rows * (size_t)screen->cols * sizeof(*screen->cells));
    screen_erase(screen);
}

void screen_release(struct screen *screen) {
    free(screen->cells);
    *screen = (struct screen){0};
}

static struct screen_cell *cell_at(const struct screen *screen, int row, int col) {
    return &screen->cells[row * screen->cols + col];
}

/* What stands for the character on a screen of ASCII. */
static const char *ascii_of(const char *text, size_t len) {
    for (size_t i = 0; i < ARRAY_LEN(ascii_pairs); i++) {
        if (strlen(ascii_pairs[i][0]) == len && memcmp(ascii_pairs[i][0], text, len) == 0) {
            return ascii_pairs[i][1];
        }
    }
    return "?";
}

/* Takes one character off `*text`. Returns its columns; 0 for a mark that joins the one before. */
static int next_char(const char **text, char ret_char[CHAR_BYTES + 1], size_t *ret_len) {
    const char *at = *text;
    size_t len = text_utf8_length(at, strnlen(at, CHAR_BYTES));
    bool bad = len == 0 || (len == 1 && ((unsigned char)at[0] < 0x20 || at[0] == 0x7F));
    *text = at + (len > 0 ? len : 1);
    if (bad) {
        at = "\xEF\xBF\xBD";
        len = 3;
    }
    memcpy(ret_char, at, len);
    ret_char[len] = '\0';
    *ret_len = len;
    return len == 1 ? 1 : (int)text_width(ret_char);
}

/* A wide character of which one half is written over leaves a blank. */
static void break_wide(struct screen *screen, int row, int col) {
    if (cell_at(screen, row, col)->len == 0 && col > 0) {
        blank(cell_at(screen, row, col - 1));
    }
    if (col + 1 < screen->cols && cell_at(screen, row, col + 1)->len == 0) {
        blank(cell_at(screen, row, col + 1));
    }
}

static void set_cell(struct screen *screen, int row, int col, unsigned style, const char *text,
                     size_t len, int width) {
    break_wide(screen, row, col);
    struct screen_cell *cell = cell_at(screen, row, col);
    *cell = (struct screen_cell){.len = (uint8_t)len, .style = (uint8_t)style};
    memcpy(cell->text, text, len);
    if (width == 2) {
        break_wide(screen, row, col + 1);
        *cell_at(screen, row, col + 1) = (struct screen_cell){.style = (uint8_t)style};
    }
}

static void join_mark(struct screen *screen, int row, int col, const char *text, size_t len) {
    while (col > 0 && cell_at(screen, row, col)->len == 0) {
        col--;
    }
    struct screen_cell *cell = cell_at(screen, row, col);
    if (cell->len + len <= SCREEN_CELL_BYTES) {
        memcpy(cell->text + cell->len, text, len);
        cell->len = (uint8_t)(cell->len + len);
    }
}

int screen_width(const struct screen *screen, const char *text) {
    if (!screen->ascii) {
        return (int)text_width(text);
    }
    int width = 0;
    while (*text != '\0') {
        char one[CHAR_BYTES + 1];
        size_t len;
        int columns = next_char(&text, one, &len);
        width += len == 1 ? 1 : columns == 0 ? 0 : (int)strlen(ascii_of(one, len));
    }
    return width;
}

size_t screen_fit(const struct screen *screen, const char *text, int width) {
    size_t len = strlen(text);
    if (len <= (size_t)width) {
        return len;
    }
    size_t taken = 0;
    char one[CHAR_BYTES + 1];
    for (int columns = 0; taken < len;) {
        size_t size = text_utf8_length(text + taken, len - taken);
        size = size > 0 ? size : 1;
        memcpy(one, text + taken, size);
        one[size] = '\0';
        columns += screen_width(screen, one);
        if (columns > width && taken > 0) {
            break;
        }
        taken += size;
    }
    return taken;
}

size_t screen_fit_words(const struct screen *screen, const char *text, int width) {
    size_t fits = screen_fit(screen, text, width);
    if (strlen(text) == fits) {
        return fits;
    }
    size_t cut = fits;
    while (cut > fits / 2 && text[cut] != ' ') {
        cut--;
    }
    return cut > fits / 2 ? cut : fits;
}

/* As screen_put, with nothing marked. */
static int put_cut(struct screen *screen, int row, int col, int end, unsigned style,
                   const char *text) {
    int start = col;
    while (*text != '\0') {
        char one[CHAR_BYTES + 1];
        size_t len;
        int width = next_char(&text, one, &len);
        const char *shown = one;
        if (screen->ascii && len > 1) {
            shown = width == 0 ? "" : ascii_of(one, len);
            width = (int)strlen(shown);
        }
        if (width == 0) {
            if (shown[0] != '\0' && col > start) {
                join_mark(screen, row, col - 1, shown, len);
            }
            continue;
        }
        if (col + width > end) {
            break;
        }
        if (screen->ascii) {
            for (; *shown != '\0'; shown++) {
                set_cell(screen, row, col++, style, shown, 1, 1);
            }
        } else {
            set_cell(screen, row, col, style, shown, len, width);
            col += width;
        }
    }
    return col;
}

int screen_put(struct screen *screen, int row, int col, int end, unsigned style, const char *text) {
    end = end > screen->cols ? screen->cols : end;
    if (row < 0 || row >= screen->rows || col < 0 || col >= end) {
        return col;
    }
    /* A column that is too narrow for a word and a mark shows as much of the word as it can. */
    bool cut = strlen(text) > (size_t)(end - col) && screen_width(screen, text) > end - col;
    if (!cut || end - col < 4) {
        return put_cut(screen, row, col, end, style, text);
    }
    int after = put_cut(screen, row, col, end - 1, style, text);
    return put_cut(screen, row, after, end, style, "…");
}

int screen_printf(struct screen *screen, int row, int col, int end, unsigned style,
                  const char *format, ...) {
    va_list args;
    va_start(args, format);
    struct buf text = BUF_INIT;
    buf_vprintf(&text, format, args);
    va_end(args);
    int after = screen_put(screen, row, col, end, style, buf_text(&text));
    buf_free(&text);
    return after;
}

void screen_fill(struct screen *screen, int row, int col, int end, unsigned style,
                 const char *sign) {
    end = end > screen->cols ? screen->cols : end;
    while (row >= 0 && row < screen->rows && col >= 0 && col < end) {
        int after = put_cut(screen, row, col, end, style, sign);
        if (after == col) {
            return;
        }
        col = after;
    }
}

void screen_mark(struct screen *screen, int row, int col, int end, unsigned flags) {
    end = end > screen->cols ? screen->cols : end;
    for (; row >= 0 && row < screen->rows && col >= 0 && col < end; col++) {
        struct screen_cell *cell = cell_at(screen, row, col);
        cell->style = (uint8_t)(cell->style | flags);
    }
}

void screen_row_text(const struct screen *screen, int row, struct buf *out) {
    size_t last = out->len;
    for (int col = 0; col < screen->cols; col++) {
        const struct screen_cell *cell = cell_at(screen, row, col);
        buf_add(out, cell->text, cell->len);
        if (cell->len != 1 || cell->text[0] != ' ') {
            last = out->len;
        }
    }
    if (out->data != NULL) {
        out->len = last;
        out->data[last] = '\0';
    }
}
