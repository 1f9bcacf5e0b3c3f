/* Panes of lines (see pane.h). */
#include "tui/pane.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"

#define PAIR_ROWS 4 /* at most; the rest is cut off */

int pane_row(struct pane *pane) {
    size_t line = pane->line++;
    if (line < pane->skip || pane->row >= pane->end_row) {
        return -1;
    }
    return pane->row++;
}

void pane_title(struct pane *pane, const char *title) {
    pane_row(pane);
    int row = pane_row(pane);
    screen_put(pane->screen, row, 1, pane->screen->cols, STYLE_BOLD, title);
}

void pane_pair(struct pane *pane, const char *label, unsigned style, const char *text) {
    struct screen *screen = pane->screen;
    int width = screen->cols - 1 - PANE_LABEL_COLS;
    for (int i = 0; i == 0 || *text != '\0'; i++) {
        int row = pane_row(pane);
        size_t bytes = i + 1 < PAIR_ROWS ? screen_fit_words(screen, text, width) : strlen(text);
        screen_put(screen, row, 1, PANE_LABEL_COLS, TONE_DIM, i == 0 ? label : "");
        screen_printf(screen, row, PANE_LABEL_COLS, screen->cols - 1, style, "%.*s", (int)bytes,
                      text);
        text += bytes;
        text += *text == ' ';
    }
}

void pane_words(struct pane *pane, const char *label, unsigned style, const char *text) {
    while (text != NULL && *text != '\0') {
        size_t len = strcspn(text, "\n");
        char *line = xstrndup(text, len);
        pane_pair(pane, label, style, line);
        free(line);
        text += len;
        text += *text == '\n';
        label = "";
    }
}

void pane_scroll_fit(struct pane_scroll *scroll, size_t lines, size_t height) {
    scroll->lines = lines;
    scroll->height = height;
    size_t last = lines > height ? lines - height : 0;
    scroll->top = scroll->top > last ? last : scroll->top;
}

void pane_draw(struct screen *screen, const void *owner, struct pane_scroll *scroll, int row,
               int end_row, void (*write)(struct pane *pane, size_t number), size_t number) {
    const struct pane begin = {
        .screen = screen, .owner = owner, .row = row, .end_row = end_row, .skip = scroll->top};
    struct pane pane = begin;
    write(&pane, number);
    size_t top = scroll->top;
    pane_scroll_fit(scroll, pane.line, end_row > row ? (size_t)(end_row - row) : 0);
    if (scroll->top != top) {
        /* It was scrolled beyond its end: once more from where it ends. */
        for (int at = row; at < end_row; at++) {
            screen_fill(screen, at, 0, screen->cols, TONE_PLAIN, " ");
        }
        pane = begin;
        pane.skip = scroll->top;
        write(&pane, number);
    }
    if (scroll->lines > scroll->top + scroll->height && end_row > row) {
        screen_printf(screen, row - 1, screen->cols - 14, screen->cols - 1, TONE_DIM,
                      " ↓ %zu more ", scroll->lines - scroll->top - scroll->height);
    }
}
