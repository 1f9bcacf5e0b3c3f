/* A map of many hosts: a cell a host, in their order, in bands of their own rows. Private to tui.
 *
 * A cell is a letter, so that it reads without colour. Where not all fit, a cell stands for several,
 * and shows the one among them that needs a person most. Drawing only; no state.
 */
#ifndef FLEET_TUI_CELL_MAP_H
#define FLEET_TUI_CELL_MAP_H

#include "tui/pane.h"
#include "tui/screen.h"

struct cell_map_cell {
    const char *sign, *ascii; /* one column each */
    unsigned style;
    int weight; /* the more, the more it needs to be seen */
};

#define CELL_MAP_BANDS 1000 /* at most; hosts of later ones share the last */

struct cell_map {
    const void *owner; /* for the functions */
    size_t count;      /* hosts */
    size_t selected;   /* its cell is shown reversed */
    struct cell_map_cell (*cell)(const void *owner, size_t host);
    /* From 1; NULL: all are in one band, which has no number. */
    uint32_t (*band)(const void *owner, size_t host);
    uint32_t current; /* this band's number stands out */
};

/* Rows that the map takes where `most` are to be had; 0: they are too few. */
int cell_map_rows(const struct cell_map *map, const struct screen *screen, int most);
void cell_map_draw(const struct cell_map *map, struct screen *screen, int row, int end_row);

/* What a sign means, for the help. */
struct cell_map_sign {
    const char *sign, *ascii, *word;
};
void cell_map_legend(struct pane *pane, const struct cell_map_sign *signs, size_t count);

#endif
