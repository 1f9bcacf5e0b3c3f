/* The map of a rollout: a cell a host in the inventory's order, a band a wave. */
#include "core/base/xalloc.h"
#include "tui/cell_map.h"
#include "tui/dashboard_parts.h"

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

void dash_list_signs(struct pane *pane) {
    static const enum host_state told[] = {
        HOST_PENDING, HOST_BUILDING,    HOST_STAGING, HOST_STAGED,          HOST_ACTIVATING,
        HOST_PROBING, HOST_REBOOTING,   HOST_HEALTHY, HOST_UNCHANGED,       HOST_ROLLED_BACK,
        HOST_FAILED,  HOST_UNREACHABLE, HOST_SKIPPED, HOST_REBOOT_REQUIRED,
    };
    struct cell_map_sign signs[ARRAY_LEN(told)];
    for (size_t i = 0; i < ARRAY_LEN(told); i++) {
        signs[i] = (struct cell_map_sign){.sign = cells[told[i]].sign,
                                          .ascii = cells[told[i]].ascii,
                                          .word = state_words(told[i])->word};
    }
    cell_map_legend(pane, signs, ARRAY_LEN(signs));
}

static struct cell_map_cell cell_of(const void *owner, size_t number) {
    const struct dash *dash = owner;
    const struct view_host *host = &dash->view->hosts[number];
    unsigned style = state_words(host->state)->tone;
    if (dash_host_is_active(host) && host->state != HOST_ROLLING_BACK) {
        style = STYLE_ACCENT;
    }
    style |= cells[host->state].weight >= 8 ? STYLE_BOLD : 0;
    return (struct cell_map_cell){.sign = cells[host->state].sign,
                                  .ascii = cells[host->state].ascii,
                                  .style = style,
                                  .weight = cells[host->state].weight};
}

static uint32_t wave_of(const void *owner, size_t number) {
    const struct dash *dash = owner;
    return dash->view->hosts[number].wave;
}

static struct cell_map map_of(const struct dash *dash) {
    return (struct cell_map){.owner = dash,
                             .count = dash->view->host_count,
                             .selected = dash->state.selected,
                             .cell = cell_of,
                             .band = wave_of,
                             .current = dash->view->wave};
}

int dash_map_rows(const struct dash *dash, int most) {
    struct cell_map map = map_of(dash);
    return cell_map_rows(&map, &dash->screen, most);
}

void dash_draw_map(struct dash *dash, int row, int end_row) {
    struct cell_map map = map_of(dash);
    cell_map_draw(&map, &dash->screen, row, end_row);
}
