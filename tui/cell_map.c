/* The map of many hosts (see cell_map.h). */
#include "tui/cell_map.h"

#include <stdlib.h>

#include "core/base/xalloc.h"

#define LABEL_COLS 4
#define MARGIN     1
/* Of the legend: each sign with its word. */
#define LEGEND_COL  2
#define LEGEND_COLS 18

static uint32_t band_of(const struct cell_map *map, size_t host) {
    uint32_t band = map->band != NULL ? map->band(map->owner, host) : 1;
    return band < 1 ? 1 : band > CELL_MAP_BANDS ? CELL_MAP_BANDS : band;
}

static int first_col(const struct cell_map *map) {
    return map->band != NULL ? LABEL_COLS : MARGIN;
}

static int map_width(const struct cell_map *map, const struct screen *screen) {
    int width = screen->cols - first_col(map) - MARGIN;
    return width > 1 ? width : 1;
}

/* Hosts in each band, by its number. The caller frees. */
static size_t *count_bands(const struct cell_map *map) {
    size_t *counts = xcalloc(CELL_MAP_BANDS + 1, sizeof(*counts));
    for (size_t i = 0; i < map->count; i++) {
        counts[band_of(map, i)]++;
    }
    return counts;
}

/* Rows that the bands take with `each` hosts a cell. */
static size_t rows_needed(const size_t *counts, size_t width, size_t each) {
    size_t rows = 0;
    for (size_t band = 1; band <= CELL_MAP_BANDS; band++) {
        size_t cells = (counts[band] + each - 1) / each;
        rows += (cells + width - 1) / width;
    }
    return rows;
}

/* The fewest hosts a cell with which the map has at most so many rows; and those rows. */
static size_t hosts_per_cell(const struct cell_map *map, const struct screen *screen, int most,
                             size_t *ret_rows) {
    size_t *counts = count_bands(map);
    size_t width = (size_t)map_width(map, screen);
    size_t each = 1;
    while ((*ret_rows = rows_needed(counts, width, each)) > (size_t)most && each < map->count) {
        each *= 2;
    }
    free(counts);
    return each;
}

int cell_map_rows(const struct cell_map *map, const struct screen *screen, int most) {
    size_t rows = 0;
    if (most > 0) {
        hosts_per_cell(map, screen, most, &rows);
    }
    return most > 0 && rows <= (size_t)most ? (int)rows : 0;
}

static size_t next_of_band(const struct cell_map *map, size_t from, uint32_t band) {
    while (from < map->count && band_of(map, from) != band) {
        from++;
    }
    return from;
}

/* The next cell of a band, from host `*at` on, which is moved behind it. */
static struct cell_map_cell take_cell(const struct cell_map *map, size_t *at, size_t each,
                                      uint32_t band) {
    struct cell_map_cell shown = {.weight = -1};
    bool selected = false;
    for (size_t taken = 0; *at < map->count && taken < each; taken++) {
        struct cell_map_cell cell = map->cell(map->owner, *at);
        shown = cell.weight > shown.weight ? cell : shown;
        selected = selected || *at == map->selected;
        *at = next_of_band(map, *at + 1, band);
    }
    shown.style |= selected ? STYLE_REVERSE : 0;
    return shown;
}

void cell_map_draw(const struct cell_map *map, struct screen *screen, int row, int end_row) {
    size_t rows;
    size_t each = hosts_per_cell(map, screen, end_row - row, &rows);
    int first = first_col(map);
    int edge = first + map_width(map, screen);
    for (uint32_t band = 1; band <= CELL_MAP_BANDS && row < end_row; band++) {
        size_t at = next_of_band(map, 0, band);
        if (at == map->count) {
            continue;
        }
        if (map->band != NULL) {
            screen_printf(screen, row, 0, LABEL_COLS - 1,
                          band == map->current ? STYLE_BOLD : TONE_DIM, "%3u", band);
        }
        for (int col = first; at < map->count && row < end_row; col++) {
            if (col == edge) {
                col = first;
                row++;
            }
            struct cell_map_cell cell = take_cell(map, &at, each, band);
            if (row < end_row) {
                screen_put(screen, row, col, col + 1, cell.style,
                           screen->ascii ? cell.ascii : cell.sign);
            }
        }
        row++;
    }
}

void cell_map_legend(struct pane *pane, const struct cell_map_sign *signs, size_t count) {
    struct screen *screen = pane->screen;
    int edge = screen->cols - 1;
    int row = -1;
    int col = edge;
    pane_row(pane);
    screen_put(screen, pane_row(pane), LEGEND_COL, edge, TONE_DIM, "In the map:");
    for (size_t i = 0; i < count; i++, col += LEGEND_COLS) {
        if (col + LEGEND_COLS > edge) {
            row = pane_row(pane);
            col = LEGEND_COL;
        }
        screen_put(screen, row, col, edge, STYLE_BOLD,
                   screen->ascii ? signs[i].ascii : signs[i].sign);
        screen_put(screen, row, col + 2, edge, TONE_DIM, signs[i].word);
    }
}
