/* The screens of the fleet at rest: head, table, what has changed; a host in detail; the keys.
 *
 * The same places as in the rollout's dashboard: who and what, the one bar, a sentence that is
 * never empty, then who needs a person first. As it narrows columns go in this order: SINCE, LOOKS,
 * FREE, GENERATION.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "tui/dashboard_parts.h"
#include "tui/rest_parts.h"

#define NAME_MIN      6
#define NAME_MOST     24
#define WORD_COLS     13
#define SMALLEST_COLS 40
#define SMALLEST_ROWS 10
#define STORY_FROM    16
#define TABLE_LEAST   3
#define NUMBER_FROM   60 /* columns; the second line has the number, too */
/* "105 a1b2c3d*" */
#define GENERATION_COLS 14

void rest_view_init(struct rest_view *view, const struct rest_options *options) {
    *view = (struct rest_view){.options = *options, .every_ms = options->every_ms};
    rest_model_init(&view->model, options->hosts, options->logins, options->host_count);
    view->order = xcalloc(options->host_count + 1, sizeof(*view->order));
    view->screen.ascii = options->ascii;
    rest_sort(view);
}

void rest_view_release(struct rest_view *view) {
    rest_model_release(&view->model);
    screen_release(&view->screen);
    free(view->order);
    free(view->notice);
}

/* ---- head ---- */

static void draw_title(struct rest_view *view, int row) {
    struct screen *screen = &view->screen;
    struct buf text = BUF_INIT;
    buf_printf(&text, "every %llu s  ", (unsigned long long)(view->every_ms / 1000));
    dash_time(view->now_ms, &text);
    int right = screen->cols - 1 - screen_width(screen, buf_text(&text));
    screen_put(screen, row, right, screen->cols, TONE_PLAIN, buf_text(&text));
    buf_free(&text);
    int col = screen_put(screen, row, 1, right - 1, STYLE_BOLD, view->options.fleet);
    col = screen_put(screen, row, col, right - 1, TONE_PLAIN, " · at rest");
    if (screen->cols >= NUMBER_FROM) {
        screen_printf(screen, row, col, right - 1, TONE_PLAIN, " · %zu host%s",
                      view->model.host_count, view->model.host_count == 1 ? "" : "s");
    }
}

static void draw_counts(struct rest_view *view, int row) {
    static const enum rest_state order[] = {REST_UNREACHABLE, REST_FAILED, REST_UNHEALTHY,
                                            REST_DRIFTED,     REST_BUSY,   REST_OFFLINE,
                                            REST_ASKED};
    struct screen *screen = &view->screen;
    const struct rest_model *model = &view->model;
    size_t good = model->counts[REST_IN_SYNC];
    bool all = good == model->host_count && good > 0;
    char *first = xasprintf("%zu of %zu in sync", good, model->host_count);
    int width = screen_width(screen, first);
    int most = screen->cols - 18;
    size_t shown = 0;
    struct buf text = BUF_INIT;
    for (; shown < ARRAY_LEN(order); shown++) {
        size_t count = model->counts[order[shown]];
        buf_clear(&text);
        buf_printf(&text, " · %zu %s", count, rest_words(order[shown])->word);
        int more = count > 0 ? screen_width(screen, buf_text(&text)) : 0;
        if (width + more > most) {
            break;
        }
        width += more;
    }
    int col = screen->cols - 1 - width;
    dash_bar(screen, row, 1, col - 2, TONE_GOOD, good, model->host_count);
    col = screen_put(screen, row, col, screen->cols, all ? TONE_GOOD : TONE_PLAIN, first);
    for (size_t i = 0; i < shown; i++) {
        size_t count = model->counts[order[i]];
        const struct rest_words *words = rest_words(order[i]);
        if (count > 0) {
            col = screen_put(screen, row, col, screen->cols, TONE_DIM, " · ");
            col = screen_printf(screen, row, col, screen->cols, words->tone, "%zu %s", count,
                                words->word);
        }
    }
    buf_free(&text);
    free(first);
}

/* What needs a person, or that nothing does; never empty. */
static enum tone add_sentence(const struct rest_view *view, struct buf *out) {
    const struct rest_model *model = &view->model;
    const struct rest_host *first = NULL;
    size_t count = 0;
    /* Whatever the filter: what needs a person is said. */
    for (size_t i = 0; i < model->host_count; i++) {
        const struct rest_words *words = rest_words(model->hosts[i].state);
        if (words->attention) {
            bool worse = first == NULL ||
                         (words->tone == TONE_BAD && rest_words(first->state)->tone != TONE_BAD);
            first = worse ? &model->hosts[i] : first;
            count++;
        }
    }
    if (first != NULL) {
        if (count > 1) {
            buf_printf(out, "%zu hosts need a person; ", count);
        }
        buf_printf(out, "%s: %s", first->name, rest_words(first->state)->word);
        if (first->notes != NULL) {
            buf_add_text(out, ", ");
            rest_first_note(first, out);
        }
        return rest_words(first->state)->tone;
    }
    if (model->counts[REST_ASKED] > 0) {
        buf_printf(out, "%zu of %zu hosts have answered",
                   model->host_count - model->counts[REST_ASKED], model->host_count);
        return TONE_PLAIN;
    }
    if (model->counts[REST_BUSY] > 0) {
        buf_printf(out, "%zu host%s being updated; nothing needs a person",
                   model->counts[REST_BUSY], model->counts[REST_BUSY] == 1 ? " is" : "s are");
        return TONE_PLAIN;
    }
    buf_add_text(out, model->host_count == 0
                          ? "no hosts are selected"
                          : "every host runs what it shall; nothing needs a person");
    return TONE_GOOD;
}

/* ---- table ---- */

struct rest_columns {
    int name_end, generation, phase, phase_end, free, looks, looks_end, since; /* 0: left out */
};

static struct rest_columns lay_columns(const struct rest_view *view) {
    struct rest_columns at = {0};
    int name = NAME_MIN;
    int cols = view->screen.cols;
    for (size_t i = 0; i < view->model.host_count; i++) {
        int width = screen_width(&view->screen, view->model.hosts[i].name);
        name = width > name ? width : name;
    }
    name = name > NAME_MOST ? NAME_MOST : name;
    name = name > cols / 3 ? cols / 3 : name;
    int first = view->screen.ascii ? 4 : 3;
    at.name_end = first + name;
    int next = at.name_end + 2;
    int end = cols - 1;
    if (cols >= 70) {
        at.since = end - 8;
        end = at.since - 1;
    }
    if (cols >= 90) {
        int width = cols >= 110 ? 20 : 10;
        at.looks = end - width;
        at.looks_end = end - 1;
        end = at.looks - 2;
    }
    if (cols >= 60) {
        at.free = end - 7;
        end = at.free - 2;
    }
    if (cols >= 50) {
        at.generation = next;
        next += GENERATION_COLS;
    }
    at.phase = next;
    at.phase_end = end;
    return at;
}

static void draw_titles(struct rest_view *view, int row, const struct rest_columns *at) {
    struct screen *screen = &view->screen;
    screen_put(screen, row, screen->ascii ? 4 : 3, at->name_end, TONE_DIM, "HOST");
    screen_put(screen, row, at->phase, at->phase_end, TONE_DIM, "STATE");
    if (at->generation > 0) {
        screen_put(screen, row, at->generation, at->phase - 1, TONE_DIM, "GENERATION");
    }
    if (at->free > 0) {
        screen_put(screen, row, at->free + 3, screen->cols, TONE_DIM, "FREE");
    }
    if (at->looks > 0) {
        screen_put(screen, row, at->looks, screen->cols, TONE_DIM, "LOOKS");
    }
    if (at->since > 0) {
        screen_put(screen, row, screen->cols - 6, screen->cols, TONE_DIM, "SINCE");
    }
}

static void put_right(struct screen *screen, int row, int end, unsigned style, const char *text) {
    screen_put(screen, row, end - screen_width(screen, text), end, style, text);
}

static void draw_row(struct rest_view *view, int row, const struct rest_columns *at,
                     size_t number) {
    const struct rest_host *host = &view->model.hosts[number];
    const struct rest_words *words = rest_words(host->state);
    struct screen *screen = &view->screen;
    bool selected = number == view->selected;
    struct buf text = BUF_INIT;
    screen_put(screen, row, 0, 1, STYLE_BOLD | STYLE_ACCENT, selected ? "▸" : " ");
    screen_put(screen, row, 1, 3, words->tone, words->sign);
    screen_put(screen, row, screen->ascii ? 4 : 3, at->name_end, selected ? STYLE_BOLD : TONE_PLAIN,
               host->name);
    if (at->generation > 0 && host->generation > 0) {
        screen_printf(screen, row, at->generation, at->phase - 2, TONE_PLAIN, "%lld %.7s%s",
                      (long long)host->generation, host->rev != NULL ? host->rev : "",
                      host->dirty ? "*" : "");
    }
    int col = screen_put(screen, row, at->phase, at->phase_end,
                         words->tone | (words->attention ? STYLE_BOLD : 0), words->word);
    int next = at->phase + WORD_COLS > col + 1 ? at->phase + WORD_COLS : col + 1;
    rest_first_note(host, &text);
    screen_put(screen, row, next, at->phase_end, words->attention ? TONE_PLAIN : TONE_DIM,
               buf_text(&text));
    buf_clear(&text);
    if (at->free > 0 && host->free_bytes >= 0 && host->looked_ms > 0) {
        text_add_bytes(&text, (unsigned long long)host->free_bytes);
        put_right(screen, row, at->free + 7, TONE_DIM, buf_text(&text));
        buf_clear(&text);
    }
    if (at->looks > 0) {
        dash_draw_strip(screen, row, at->looks, at->looks_end - at->looks, &host->looks);
    }
    if (at->since > 0 && host->since_ms > 0) {
        wording_elapsed(view->now_ms - host->since_ms, &text);
        put_right(screen, row, screen->cols - 1, TONE_DIM, buf_text(&text));
    }
    buf_free(&text);
}

static void draw_table(struct rest_view *view, int row, int end_row) {
    struct rest_columns at = lay_columns(view);
    if (end_row - row >= 5) {
        draw_titles(view, row++, &at);
    }
    size_t page = end_row > row ? (size_t)(end_row - row) : 0;
    size_t index = 0;
    while (index < view->order_count && view->order[index] != view->selected) {
        index++;
    }
    index = index < view->order_count ? index : 0;
    size_t last = view->order_count > page ? view->order_count - page : 0;
    view->top = index < view->top ? index : view->top;
    view->top = page > 0 && index >= view->top + page ? index - page + 1 : view->top;
    view->top = view->top > last ? last : view->top;
    view->page = page;
    view->table_row = row;
    for (size_t i = 0; i < page && view->top + i < view->order_count; i++) {
        draw_row(view, row + (int)i, &at, view->order[view->top + i]);
    }
    if (view->order_count == 0 && page > 0) {
        screen_put(&view->screen, row, 3, view->screen.cols - 1, TONE_DIM,
                   view->filter[0] != '\0' ? "no host matches the filter; Esc takes it away"
                                           : "no hosts are selected");
    }
}

static void draw_story(struct rest_view *view, int row, int end_row) {
    const struct model_ring *story = &view->model.story;
    struct screen *screen = &view->screen;
    struct buf text = BUF_INIT;
    int name = 0;
    for (size_t i = 0; i < view->model.host_count; i++) {
        int width = screen_width(screen, view->model.hosts[i].name);
        name = width > name ? width : name;
    }
    name = name > screen->cols / 4 ? screen->cols / 4 : name;
    for (size_t i = 0; i < story->count && row < end_row; i++, row++) {
        const struct model_line *line = model_line(story, story->count - 1 - i);
        buf_clear(&text);
        dash_time(line->at_ms, &text);
        int col = screen_put(screen, row, 1, screen->cols, TONE_DIM, buf_text(&text)) + 1;
        screen_put(screen, row, col, col + name, TONE_PLAIN, view->model.hosts[line->host].name);
        screen_put(screen, row, col + name + 2, screen->cols - 1, line->style, line->text);
    }
    if (story->count == 0 && row < end_row) {
        buf_add_text(&text, "nothing has changed since ");
        dash_time(view->begun_ms, &text);
        screen_put(screen, row, 1, screen->cols - 1, TONE_DIM, buf_text(&text));
    }
    buf_free(&text);
}

/* Map and table between two rows. */
static void draw_hosts(struct rest_view *view, int row, int end_row) {
    int rows = end_row - row;
    bool many = view->model.host_count > (size_t)(rows > 1 ? rows - 1 : 1);
    if (many && !view->no_map && rows >= TABLE_LEAST + 2) {
        int map = rest_map_rows(view, rows - TABLE_LEAST - 1);
        rest_draw_map(view, row, row + map);
        row += map;
        if (map > 0) {
            dash_rule(&view->screen, row++, NULL);
        }
    }
    draw_table(view, row, end_row);
}

static void draw_fleet(struct rest_view *view, int row, int end_row) {
    int rows = end_row - row;
    int needed = (int)view->model.host_count + 2;
    int lower = view->screen.rows >= STORY_FROM ? rows - needed : 0;
    int least = view->screen.rows >= STORY_FROM ? rows / 3 : 0;
    lower = lower < least ? least : lower;
    draw_hosts(view, row, end_row - lower);
    if (lower >= 2) {
        dash_rule(&view->screen, end_row - lower, NULL);
        draw_story(view, end_row - lower + 1, end_row);
    }
}

/* ---- detail ---- */

static void add_pair(struct pane *pane, const char *label, const char *text) {
    if (text != NULL && text[0] != '\0') {
        pane_pair(pane, label, TONE_PLAIN, text);
    }
}

static void add_deployment(struct pane *pane, const struct rest_host *host) {
    struct buf text = BUF_INIT;
    if (host->rev != NULL || host->who != NULL) {
        buf_printf(&text, "%.12s%s", host->rev != NULL ? host->rev : "no revision",
                   host->dirty ? "*" : "");
        buf_printf(&text, "%s%s%s%s", host->who != NULL ? ", by " : "",
                   host->who != NULL ? host->who : "", host->when != NULL ? ", " : "",
                   host->when != NULL ? host->when : "");
        add_pair(pane, "deployed", buf_text(&text));
    }
    add_pair(pane, "in run", host->run);
    buf_free(&text);
}

static void add_guard(struct pane *pane, const struct rest_view *view,
                      const struct rest_host *host) {
    if (host->guard == GUARD_NONE) {
        return;
    }
    struct buf text = BUF_INIT;
    buf_add_text(&text, guard_phase_name(host->guard));
    int64_t left = host->guard_until_ms - view->now_ms;
    if (host->guard_until_ms > 0) {
        buf_printf(&text, ": goes back by itself in %lld s unless it is renewed",
                   (long long)(left > 0 ? (left + 999) / 1000 : 0));
    }
    pane_pair(pane, "guard", TONE_WARN, buf_text(&text));
    buf_free(&text);
}

static void add_probes(struct pane *pane, const struct rest_host *host) {
    if (host->probe_count > 0) {
        pane_title(pane, "PROBES");
    }
    for (size_t i = 0; i < host->probe_count; i++) {
        const struct rest_probe *probe = &host->probes[i];
        int row = pane_row(pane);
        screen_put(pane->screen, row, 1, 3, probe->ok ? TONE_GOOD : TONE_BAD,
                   probe->ok ? "✓" : "✗");
        screen_put(pane->screen, row, 4, PANE_LABEL_COLS + 3, TONE_PLAIN, probe->name);
        screen_put(pane->screen, row, PANE_LABEL_COLS + 5, pane->screen->cols - 1, TONE_PLAIN,
                   probe->detail);
    }
}

static void add_story(struct pane *pane, const struct rest_view *view, size_t number) {
    const struct model_ring *story = &view->model.story;
    pane_title(pane, "SEEN");
    size_t lines = pane->line;
    for (size_t i = story->count; i > 0; i--) {
        const struct model_line *line = model_line(story, i - 1);
        if (line->host == number) {
            struct buf time = BUF_INIT;
            dash_time(line->at_ms, &time);
            pane_pair(pane, buf_text(&time), line->style, line->text);
            buf_free(&time);
        }
    }
    if (pane->line == lines) {
        pane_pair(pane, "", TONE_DIM, "nothing has changed here");
    }
}

static void write_detail(struct pane *pane, size_t number) {
    const struct rest_view *view = pane->owner;
    const struct rest_host *host = &view->model.hosts[number];
    const struct rest_words *words = rest_words(host->state);
    struct buf text = BUF_INIT;
    buf_printf(&text, "%s %s", words->sign, words->word);
    pane_pair(pane, "state", words->tone | STYLE_BOLD, buf_text(&text));
    buf_clear(&text);
    pane_words(pane, "because", TONE_PLAIN, host->notes);
    add_guard(pane, view, host);
    wording_ssh_line(host->login, &text);
    pane_pair(pane, "look", STYLE_ACCENT, text.len > 0 ? buf_text(&text) : host->login);
    buf_clear(&text);
    if (host->generation > 0) {
        buf_printf(&text, "%lld", (long long)host->generation);
        add_pair(pane, "generation", buf_text(&text));
        buf_clear(&text);
    }
    add_pair(pane, "runs", host->current);
    add_pair(pane, "profile", host->profile);
    add_pair(pane, "booted", host->booted);
    add_pair(pane, "shall run", host->desired);
    add_deployment(pane, host);
    if (host->free_bytes >= 0 && host->looked_ms > 0) {
        text_add_bytes(&text, (unsigned long long)host->free_bytes);
        buf_add_text(&text, " free in /nix");
        add_pair(pane, "disk", buf_text(&text));
    }
    buf_free(&text);
    add_pair(pane, "nix", host->nix);
    add_probes(pane, host);
    add_story(pane, view, number);
}

static void write_key(const char *label, const char *help, void *arg) {
    struct pane *pane = arg;
    int row = pane_row(pane);
    screen_put(pane->screen, row, 2, 14, STYLE_BOLD | STYLE_ACCENT, label);
    screen_put(pane->screen, row, 15, pane->screen->cols - 1, TONE_PLAIN, help);
}

static void write_help(struct pane *pane, size_t number) {
    (void)number;
    rest_list_keys(write_key, pane);
    rest_list_signs(pane);
}

/* ---- the whole ---- */

static void draw_tiny(struct rest_view *view) {
    struct screen *screen = &view->screen;
    struct buf text = BUF_INIT;
    int row = 0;
    if (screen->rows >= 3) {
        screen_put(screen, row++, 0, screen->cols, STYLE_BOLD, view->options.fleet);
    }
    screen_printf(screen, row++, 0, screen->cols, TONE_PLAIN, "%zu of %zu in sync",
                  view->model.counts[REST_IN_SYNC], view->model.host_count);
    add_sentence(view, &text);
    screen_put(screen, row, 0, screen->cols, TONE_PLAIN, buf_text(&text));
    buf_free(&text);
}

void rest_draw(struct rest_view *view) {
    struct screen *screen = &view->screen;
    screen_erase(screen);
    rest_sort(view);
    if (screen->rows < SMALLEST_ROWS || screen->cols < SMALLEST_COLS) {
        draw_tiny(view);
        return;
    }
    draw_title(view, 0);
    draw_counts(view, 1);
    struct buf text = BUF_INIT;
    enum tone tone = add_sentence(view, &text);
    screen_put(screen, 2, 1, screen->cols - 1, tone, buf_text(&text));
    buf_free(&text);
    int row = 3;
    int end_row = screen->rows - 1;
    switch (view->mode) {
    case REST_FLEET:
        if (screen->rows >= 12) {
            dash_rule(screen, row++, NULL);
        }
        draw_fleet(view, row, end_row);
        break;
    case REST_DETAIL:
        dash_rule(screen, row++, view->model.hosts[view->selected].name);
        pane_draw(screen, view, &view->detail, row, end_row, write_detail, view->selected);
        break;
    case REST_HELP:
        dash_rule(screen, row++, "keys");
        pane_draw(screen, view, &view->help, row, end_row, write_help, 0);
        break;
    case REST_MODE_COUNT:
        break;
    }
    rest_draw_foot(view, end_row);
}
