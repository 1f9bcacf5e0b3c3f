/* What the parts of the dashboard at rest share. Private to tui/rest*.c.
 *
 * Drawing is a function of the model, this state and `now_ms`; keys change the state only.
 */
#ifndef FLEET_TUI_REST_PARTS_H
#define FLEET_TUI_REST_PARTS_H

#include "tui/input_line.h"
#include "tui/key_input.h"
#include "tui/pane.h"
#include "tui/rest.h"
#include "tui/rest_model.h"

enum rest_mode {
    REST_FLEET,
    REST_DETAIL,
    REST_HELP,
    REST_MODE_COUNT
};

struct rest_view {
    struct rest_options options;
    struct rest_model model;
    struct screen screen;
    int64_t now_ms, begun_ms;
    uint64_t every_ms;
    enum rest_mode mode, before_help;
    size_t selected;
    bool pinned; /* the person chose it; else it is who needs a person most */
    size_t top, page;
    int table_row;
    bool mouse, typing; /* a filter */
    char filter[INPUT_LINE_SIZE];
    struct pane_scroll detail, help;
    char *notice; /* or NULL */
    int64_t notice_until_ms;
    bool leave, swap; /* asked for by a key */
    bool no_map;      /* the table even where the map fits better */
    size_t *order;
    size_t order_count;
};

void rest_view_init(struct rest_view *view, const struct rest_options *options);
void rest_view_release(struct rest_view *view);
/* Fills `order`: who needs a person first; obeys the filter. */
void rest_sort(struct rest_view *view);

/* ---- rest_draw.c ---- */
void rest_draw(struct rest_view *view);

/* ---- rest_map.c ---- */
/* As dash_map_rows and dash_draw_map, of the fleet at rest. */
int rest_map_rows(const struct rest_view *view, int most);
void rest_draw_map(struct rest_view *view, int row, int end_row);
/* What its signs mean. */
void rest_list_signs(struct pane *pane);

/* ---- rest_keys.c ---- */
void rest_press(struct rest_view *view, const struct key_press *press);
void rest_draw_foot(struct rest_view *view, int row);
void rest_list_keys(void (*line)(const char *label, const char *help, void *arg), void *arg);

#endif
