/* A screen as cells: what the dashboard draws into, and what the terminal is made to show.
 *
 * Knows nothing of terminals, so that a frame can be drawn and read in a test. Text must have been
 * cleaned (text_clean); what it holds of control bytes all the same becomes a replacement
 * character. Rows and columns count from 0, and everything outside is cut off. One thread.
 */
#ifndef FLEET_TUI_SCREEN_H
#define FLEET_TUI_SCREEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/buf.h"
#include "tui/wording.h"

/* A style is a tone, or STYLE_ACCENT in its place, with flags added. */
#define STYLE_ACCENT    7u
#define STYLE_TONE_MASK 7u
#define STYLE_BOLD      8u
#define STYLE_REVERSE   16u
#define STYLE_UNDERLINE 32u

#define SCREEN_CELL_BYTES 13
#define SCREEN_MAX        1000 /* rows or columns; a terminal that claims more gets this */

struct screen_cell {
    char text[SCREEN_CELL_BYTES]; /* UTF-8, a character with its marks; not terminated */
    uint8_t len;                  /* 0: the right half of a wide character */
    uint8_t style;
};

struct screen {
    int rows, cols;
    bool ascii; /* our own signs are replaced by their ASCII pairs, other characters by '?' */
    struct screen_cell *cells;
};

/* Gives the screen a size and blanks it. Zero-initialised is a valid start. */
void screen_resize(struct screen *screen, int rows, int cols);
void screen_erase(struct screen *screen);
void screen_release(struct screen *screen);

/* Writes `text` from (row, col) on, at most up to the column before `end`, and returns the column
 * after it. What doesn't fit is cut, and the cut marked where there is room for it. */
int screen_put(struct screen *screen, int row, int col, int end, unsigned style, const char *text);
int screen_printf(struct screen *screen, int row, int col, int end, unsigned style,
                  const char *format, ...) __attribute__((format(printf, 6, 7)));
/* Repeats the sign from `col` up to before `end`. */
void screen_fill(struct screen *screen, int row, int col, int end, unsigned style,
                 const char *sign);
/* Adds `flags` to the style of the cells. */
void screen_mark(struct screen *screen, int row, int col, int end, unsigned flags);
/* Columns that `text` takes on this screen (signs may be two wide in ASCII). */
int screen_width(const struct screen *screen, const char *text);
/* Bytes of `text` that fill at most `width` columns, but at least one character. */
size_t screen_fit(const struct screen *screen, const char *text, int width);
/* The same, up to the last blank in its second half where the text doesn't fit. */
size_t screen_fit_words(const struct screen *screen, const char *text, int width);

/* One row as text without blanks at its end: for tests and pictures. */
void screen_row_text(const struct screen *screen, int row, struct buf *out);

#endif
