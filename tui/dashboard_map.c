/* The map: a cell a host in the inventory's order, a band a wave.
 *
 * A cell is a letter, so that it reads without colour. Where all hosts don't fit, a cell stands
 * for several, and shows the one among them that needs a person most.
 */
#include <string.h>

#include "core/base/xalloc.h"
#include "tui/dashboard_parts.h"

#define LABEL_COLS 4

/* DASHBOARD.md, "200 hosts and more"; the second is for ASCII. The later in `weight`, the more it
 * needs to be seen. */
static const struct {
    const char *sign, *ascii;
    int weight;
} cells[] = {
    [HOST_PENDING] = {"·", ".", 3},         [HOST_CONNECTING] = {"·", ".", 3},
    [HOST_BUILDING] = {"b", "b", 4},        [HOST_STAGING] = {"c", "c", 5},
    [HOST_STAGED] = {"s", "s", 4},          [HOST_ACTIVATING] = {"a", "a", 7},
    [HOST_CONFIRMING] = {"a", "a", 7},      [HOST_PROBING] = {"p", "p", 6},
    [HOST_COMMITTING] = {"p", "p", 6},      [HOST_REBOOTING] = {"r", "r", 7},
    [HOST_ROLLING_BACK] = {"↺", "<", 8},    [HOST_HEALTHY] = {"✓", "+", 1},
    [HOST_UNCHANGED] = {"=", "=", 0},       [HOST_FAILED] = {"✗", "x", 12},
    [HOST_ROLLED_BACK] = {"↺", "<", 9},     [HOST_ROLLBACK_FAILED] = {"✗", "X", 13},
    [HOST_UNREACHABLE] = {"?", "?", 10},    [HOST_SKIPPED] = {"-", "-", 2},
    [HOST_REBOOT_REQUIRED] = {"!", "!", 9}, [HOST_UNKNOWN] = {"?", "?", 11},
};
_Static_assert(ARRAY_LEN(cells) == HOST_STATE_COUNT, "a cell for every state");

static uint32_t last_wave(const struct view *view) {
    uint32_t last = view->wave_count > 0 ? view->wave_count : 1;
    for (size_t i = 0; i < view->host_count; i++) {
        last = view->hosts[i].wave > last ? view->hosts[i].wave : last;
    }
    return last > 1000 ? 1000 : last;
}

static uint32_t wave_of(const struct view_host *host) {
    return host->wave > 0 ? host->wave : 1;
}

static int map_width(const struct dash *dash) {
    int width = dash->screen.cols - LABEL_COLS - 1;
    return width > 1 ? width : 1;
}

/* Rows that the map takes with `each` hosts a cell. */
static int rows_needed(const struct dash *dash, int each) {
    const struct view *view = dash->view;
    int width = map_width(dash);
    int rows = 0;
    for (uint32_t wave = 1; wave <= last_wave(view); wave++) {
        int hosts = 0;
        for (size_t i = 0; i < view->host_count; i++) {
            hosts += wave_of(&view->hosts[i]) == wave;
        }
        int shown = (hosts + each - 1) / each;
        rows += (shown + width - 1) / width;
    }
    return rows;
}

static int hosts_per_cell(const struct dash *dash, int most) {
    int each = 1;
    while (rows_needed(dash, each) > most && each < (int)dash->view->host_count) {
        each *= 2;
    }
    return each;
}

int dash_map_rows(const struct dash *dash, int most) {
    int rows = rows_needed(dash, hosts_per_cell(dash, most));
    return rows > most ? 0 : rows;
}

/* The host of a cell that shows, of those from `first` on in its wave. */
static size_t worst(const struct view *view, size_t first, int each, size_t *ret_next) {
    uint32_t wave = wave_of(&view->hosts[first]);
    size_t shown = first;
    size_t i = first;
    for (int taken = 0; i < view->host_count && taken < each; i++) {
        if (wave_of(&view->hosts[i]) == wave) {
            taken++;
            shown = cells[view->hosts[i].state].weight > cells[view->hosts[shown].state].weight
                        ? i
                        : shown;
        }
    }
    *ret_next = i;
    return shown;
}

static size_t next_of_wave(const struct view *view, size_t from, uint32_t wave) {
    while (from < view->host_count && wave_of(&view->hosts[from]) != wave) {
        from++;
    }
    return from;
}

static void draw_cell(struct dash *dash, int row, int col, size_t host, bool holds_selected) {
    enum host_state state = dash->view->hosts[host].state;
    unsigned style = state_words(state)->tone;
    if (dash_host_is_active(&dash->view->hosts[host]) && state != HOST_ROLLING_BACK) {
        style = STYLE_ACCENT;
    }
    style |= cells[state].weight >= 8 ? STYLE_BOLD : 0;
    screen_put(&dash->screen, row, col, col + 1, style | (holds_selected ? STYLE_REVERSE : 0),
               dash->screen.ascii ? cells[state].ascii : cells[state].sign);
}

void dash_draw_map(struct dash *dash, int row, int end_row) {
    const struct view *view = dash->view;
    int each = hosts_per_cell(dash, end_row - row);
    int edge = LABEL_COLS + map_width(dash);
    for (uint32_t wave = 1; wave <= last_wave(view) && row < end_row; wave++) {
        size_t i = next_of_wave(view, 0, wave);
        if (i == view->host_count) {
            continue;
        }
        screen_printf(&dash->screen, row, 0, LABEL_COLS - 1,
                      wave == view->wave ? STYLE_BOLD : TONE_DIM, "%3u", wave);
        int col = LABEL_COLS;
        while (i < view->host_count) {
            if (col == edge) {
                col = LABEL_COLS;
                row++;
            }
            if (row >= end_row) {
                return;
            }
            size_t next;
            size_t shown = worst(view, i, each, &next);
            size_t selected = dash->state.selected;
            bool holds = selected >= i && selected < next && selected < view->host_count &&
                         wave_of(&view->hosts[selected]) == wave;
            draw_cell(dash, row, col++, shown, holds);
            i = next_of_wave(view, next, wave);
        }
        row++;
    }
}
