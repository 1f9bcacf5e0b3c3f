/* The map of a fleet at rest: a cell a host in the inventory's order. */
#include "core/base/xalloc.h"
#include "tui/cell_map.h"
#include "tui/rest_parts.h"

/* The signs of the rollout's map, where they mean the same. The later in `weight`, the more it needs
 * to be seen. */
static const struct {
    const char *sign, *ascii;
    int weight;
} cells[] = {
    [REST_ASKED] = {"·", ".", 1},       [REST_IN_SYNC] = {"✓", "+", 0},
    [REST_BUSY] = {"a", "a", 3},        [REST_DRIFTED] = {"≠", "#", 4},
    [REST_UNHEALTHY] = {"!", "!", 5},   [REST_FAILED] = {"✗", "x", 7},
    [REST_UNREACHABLE] = {"?", "?", 6}, [REST_OFFLINE] = {"-", "-", 2},
};
_Static_assert(ARRAY_LEN(cells) == REST_STATE_COUNT, "a cell for every state");

void rest_list_signs(struct pane *pane) {
    struct cell_map_sign signs[REST_STATE_COUNT];
    for (size_t i = 0; i < REST_STATE_COUNT; i++) {
        signs[i] = (struct cell_map_sign){.sign = cells[i].sign,
                                          .ascii = cells[i].ascii,
                                          .word = rest_words((enum rest_state)i)->word};
    }
    cell_map_legend(pane, signs, ARRAY_LEN(signs));
}

static struct cell_map_cell cell_of(const void *owner, size_t number) {
    const struct rest_view *view = owner;
    enum rest_state state = view->model.hosts[number].state;
    const struct rest_words *words = rest_words(state);
    return (struct cell_map_cell){.sign = cells[state].sign,
                                  .ascii = cells[state].ascii,
                                  .style = words->tone | (words->attention ? STYLE_BOLD : 0),
                                  .weight = cells[state].weight};
}

static struct cell_map map_of(const struct rest_view *view) {
    return (struct cell_map){.owner = view,
                             .count = view->model.host_count,
                             .selected = view->selected,
                             .cell = cell_of};
}

int rest_map_rows(const struct rest_view *view, int most) {
    struct cell_map map = map_of(view);
    return cell_map_rows(&map, &view->screen, most);
}

void rest_draw_map(struct rest_view *view, int row, int end_row) {
    struct cell_map map = map_of(view);
    cell_map_draw(&map, &view->screen, row, end_row);
}
