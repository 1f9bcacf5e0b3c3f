/* A pane of lines that is scrolled as a whole: host detail, builds, keys. Private to
 * tui/dashboard*.c and tui/rest*.c.
 *
 * The writer writes all its lines, each time; those that aren't shown cost a count.
 */
#ifndef FLEET_TUI_PANE_H
#define FLEET_TUI_PANE_H

#include <stddef.h>

#include "tui/screen.h"

#define PANE_LABEL_COLS 13

struct pane {
    struct screen *screen;
    const void *owner; /* the writer's own */
    int row, end_row;
    size_t line, skip;
};

/* What is scrolled of a pane. */
struct pane_scroll {
    size_t top;    /* first line shown */
    size_t height; /* of the last frame */
    size_t lines;  /* of the last frame */
};
/* Keeps `scroll` within `lines`, `height` of which are shown. */
void pane_scroll_fit(struct pane_scroll *scroll, size_t lines, size_t height);

/* The row for the next line, or -1 where it isn't shown (screen_put ignores that). */
int pane_row(struct pane *pane);
/* A blank line and a heading. */
void pane_title(struct pane *pane, const char *title);
/* A label and what it is about, in a few rows where one is too narrow. */
void pane_pair(struct pane *pane, const char *label, unsigned style, const char *text);
/* The same for several lines, of which the first has the label. */
void pane_words(struct pane *pane, const char *label, unsigned style, const char *text);
/* Draws what `write` writes, from where it is scrolled to, between two rows; says above it how much
 * is left. */
void pane_draw(struct screen *screen, const void *owner, struct pane_scroll *scroll, int row,
               int end_row, void (*write)(struct pane *pane, size_t number), size_t number);

#endif
