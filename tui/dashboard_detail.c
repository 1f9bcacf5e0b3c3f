/* One host: its line in full, versions, timeline, probes, units, log; and every build. */
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "tui/dashboard_parts.h"

#define LOG_LINES  20
#define STRIP_COLS 24
#define LABEL_COLS 13

/* Writes lines into a pane that is scrolled: those above `skip` are left out. */
struct pane {
    struct dash *dash;
    int row, end_row;
    size_t line, skip;
};

/* The row for the next line, or -1 where it isn't shown. */
static int pane_row(struct pane *pane) {
    size_t line = pane->line++;
    if (line < pane->skip || pane->row >= pane->end_row) {
        return -1;
    }
    return pane->row++;
}

static void pane_title(struct pane *pane, const char *title) {
    pane_row(pane);
    int row = pane_row(pane);
    screen_put(&pane->dash->screen, row, 1, pane->dash->screen.cols, STYLE_BOLD, title);
}

static void pane_pair(struct pane *pane, const char *label, unsigned style, const char *text) {
    int row = pane_row(pane);
    struct screen *screen = &pane->dash->screen;
    screen_put(screen, row, 1, LABEL_COLS, TONE_DIM, label);
    screen_put(screen, row, LABEL_COLS, screen->cols - 1, style, text);
}

static void add_versions(struct pane *pane, const struct view_host *host) {
    struct buf text = BUF_INIT;
    if (host->address != NULL && host->address[0] != '\0') {
        wording_ssh(host, &text);
        pane_pair(pane, "look", STYLE_ACCENT, text.len > 0 ? buf_text(&text) : host->address);
    }
    if (host->first_generation > 0) {
        buf_clear(&text);
        buf_printf(&text, "%lld", (long long)host->first_generation);
        if (host->generation != host->first_generation) {
            buf_printf(&text, " → %lld", (long long)host->generation);
        }
        pane_pair(pane, "generation", TONE_PLAIN, buf_text(&text));
    }
    if (host->current != NULL && host->current[0] != '\0') {
        pane_pair(pane, "runs", TONE_PLAIN, host->current);
    }
    if (host->desired != NULL && host->desired[0] != '\0') {
        pane_pair(pane, "shall run", TONE_PLAIN, host->desired);
    }
    buf_free(&text);
}

/* What a guard on the host would do now, as far as the journal knows. */
static void add_guard(struct pane *pane, const struct view_host *host) {
    const char *words = NULL;
    if (host->granted[ACT_COMMIT] && host->state == HOST_COMMITTING) {
        words = "has been told to keep the new system";
    } else if (host->state == HOST_ROLLING_BACK) {
        words = "takes the host back";
    } else if (dash_host_is_active(host) && host->granted[ACT_ACTIVATE]) {
        words = "armed: goes back by itself unless it is renewed";
    }
    if (words != NULL) {
        pane_pair(pane, "guard", TONE_WARN, words);
    }
}

static void add_words(struct pane *pane, const char *label, const char *text) {
    while (text != NULL && *text != '\0') {
        size_t len = strcspn(text, "\n");
        char *line = xstrndup(text, len);
        pane_pair(pane, label, TONE_PLAIN, line);
        free(line);
        text += len;
        text += *text == '\n';
        label = "";
    }
}

static void add_timeline(struct pane *pane, const struct view_host *host,
                         const struct model_host *model) {
    struct screen *screen = &pane->dash->screen;
    pane_title(pane, "TIMELINE");
    for (size_t i = 0; model_move(model, i) != NULL; i++) {
        const struct model_move *move = model_move(model, i);
        const struct model_move *next = model_move(model, i + 1);
        int64_t until = next != NULL                     ? next->at_ms
                        : host_state_is_end(host->state) ? move->at_ms
                                                         : dash_clock_ms(pane->dash);
        int row = pane_row(pane);
        struct buf text = BUF_INIT;
        dash_time(move->at_ms, &text);
        screen_put(screen, row, 1, screen->cols, TONE_DIM, buf_text(&text));
        const struct state_words *words = state_words(move->state);
        screen_put(screen, row, 11, 14, words->tone, words->sign);
        screen_put(screen, row, 14, 30, words->tone, words->word);
        buf_clear(&text);
        if (until > move->at_ms) {
            text_add_duration(&text, (unsigned long long)(until - move->at_ms));
        }
        screen_put(screen, row, 31, 39, TONE_DIM, buf_text(&text));
        buf_clear(&text);
        screen_put(screen, row, 40, screen->cols - 1, TONE_PLAIN,
                   move->message != NULL ? move->message : "");
        buf_free(&text);
    }
}

static void add_probes(struct pane *pane, const struct model_host *model) {
    struct screen *screen = &pane->dash->screen;
    if (model->probe_count == 0) {
        return;
    }
    pane_title(pane, "PROBES");
    for (size_t i = 0; i < model->probe_count; i++) {
        const struct model_probe *probe = &model->probes[i];
        int row = pane_row(pane);
        screen_put(screen, row, 1, 3, probe->ok ? TONE_GOOD : TONE_BAD, probe->ok ? "✓" : "✗");
        screen_put(screen, row, 4, LABEL_COLS + 3, TONE_PLAIN, probe->name);
        int strip_col = LABEL_COLS + 5;
        dash_draw_strip(screen, row, strip_col, STRIP_COLS, &probe->strip);
        screen_put(screen, row, strip_col + STRIP_COLS + 2, screen->cols - 1, TONE_PLAIN,
                   probe->detail != NULL ? probe->detail : "");
    }
}

static void add_log(struct pane *pane, size_t number) {
    const struct model_ring *log = &pane->dash->model.log;
    size_t first = log->count;
    for (size_t found = 0; first > 0 && found < LOG_LINES; first--) {
        found += model_line(log, first - 1)->host == number;
    }
    pane_title(pane, "LOG");
    for (size_t i = first; i < log->count; i++) {
        const struct model_line *line = model_line(log, i);
        if (line->host == number) {
            struct buf time = BUF_INIT;
            dash_time(line->at_ms, &time);
            pane_pair(pane, buf_text(&time), TONE_PLAIN, line->text);
            buf_free(&time);
        }
    }
}

static void write_detail(struct pane *pane, size_t number) {
    const struct view_host *host = &pane->dash->view->hosts[number];
    const struct model_host *model = &pane->dash->model.hosts[number];
    const struct state_words *words = state_words(host->state);
    char *state = xasprintf("%s %s", words->sign, words->word);
    pane_pair(pane, "state", words->tone | STYLE_BOLD, state);
    free(state);
    const char *why =
        host->verdict != NULL && host->verdict[0] != '\0' ? host->verdict : host->message;
    add_words(pane, "because", why);
    add_guard(pane, host);
    add_versions(pane, host);
    add_words(pane, "units", model->units);
    add_timeline(pane, host, model);
    add_probes(pane, model);
    add_log(pane, number);
}

static void draw_pane(struct dash *dash, struct dash_scroll *scroll, int row, int end_row,
                      void (*write)(struct pane *pane, size_t number), size_t number) {
    struct pane pane = {.dash = dash, .row = row, .end_row = end_row, .skip = scroll->top};
    write(&pane, number);
    size_t top = scroll->top;
    dash_scroll_fit(scroll, pane.line, end_row > row ? (size_t)(end_row - row) : 0);
    if (scroll->top != top) {
        /* It was scrolled beyond its end: once more from where it ends. */
        for (int at = row; at < end_row; at++) {
            screen_fill(&dash->screen, at, 0, dash->screen.cols, TONE_PLAIN, " ");
        }
        pane = (struct pane){.dash = dash, .row = row, .end_row = end_row, .skip = scroll->top};
        write(&pane, number);
    }
    if (scroll->lines > scroll->top + scroll->height && end_row > row) {
        screen_printf(&dash->screen, row - 1, dash->screen.cols - 14, dash->screen.cols - 1,
                      TONE_DIM, " ↓ %zu more ", scroll->lines - scroll->top - scroll->height);
    }
}

void dash_draw_detail(struct dash *dash, int row, int end_row) {
    size_t number = dash->state.selected;
    if (number >= dash->view->host_count) {
        dash->state.mode = DASH_FLEET;
        return;
    }
    const struct view_host *host = &dash->view->hosts[number];
    char *title = dash->view->wave_count > 1 ? xasprintf("%s · wave %u", host->name, host->wave)
                                             : xstrdup(host->name);
    dash_rule(&dash->screen, row++, title);
    free(title);
    draw_pane(dash, &dash->state.detail, row, end_row, write_detail, number);
}

/* ---- builds ---- */

static void write_builds(struct pane *pane, size_t number) {
    static const char *const order[] = {"failed", "building", "evaluating", "built"};
    static const unsigned styles[] = {TONE_BAD, STYLE_ACCENT, TONE_PLAIN, TONE_GOOD};
    const struct dash *dash = pane->dash;
    struct screen *screen = &pane->dash->screen;
    (void)number;
    for (size_t state = 0; state < ARRAY_LEN(order); state++) {
        for (size_t i = 0; i < dash->view->host_count; i++) {
            const struct model_host *model = &dash->model.hosts[i];
            if (model->build_state == NULL || strcmp(model->build_state, order[state]) != 0) {
                continue;
            }
            int row = pane_row(pane);
            screen_put(screen, row, 1, 17, TONE_PLAIN, dash->view->hosts[i].name);
            screen_put(screen, row, 18, 29, styles[state], order[state]);
            screen_put(screen, row, 30, screen->cols - 1, TONE_DIM,
                       model->drv != NULL ? model->drv : "");
            bool under_way = state == 1 && model->last_line != NULL;
            if (under_way) {
                screen_put(screen, pane_row(pane), 18, screen->cols - 1, TONE_PLAIN,
                           model->last_line);
            }
        }
    }
    if (pane->line == 0) {
        screen_put(screen, pane_row(pane), 1, screen->cols - 1, TONE_DIM,
                   "nothing has been built in this run");
    }
}

void dash_draw_build(struct dash *dash, int row, int end_row) {
    size_t built = 0;
    size_t all = 0;
    for (size_t i = 0; i < dash->model.host_count; i++) {
        const char *state = dash->model.hosts[i].build_state;
        all += state != NULL;
        built += state != NULL && strcmp(state, "built") == 0;
    }
    char *title = xasprintf("builds · %zu of %zu built", built, all);
    dash_rule(&dash->screen, row++, title);
    free(title);
    draw_pane(dash, &dash->state.build, row, end_row, write_builds, 0);
}

/* ---- help ---- */

static void write_key(const char *label, const char *help, bool acts, void *arg) {
    struct pane *pane = arg;
    struct screen *screen = &pane->dash->screen;
    int row = pane_row(pane);
    screen_put(screen, row, 2, 14, STYLE_BOLD | STYLE_ACCENT, label);
    int col = screen_put(screen, row, 15, screen->cols - 1, TONE_PLAIN, help);
    if (acts && pane->dash->request == NULL) {
        screen_put(screen, row, col, screen->cols - 1, TONE_DIM, " (not here: read-only)");
    }
}

static void write_help(struct pane *pane, size_t number) {
    (void)number;
    dash_list_keys(write_key, pane);
    pane_row(pane);
    screen_put(&pane->dash->screen, pane_row(pane), 2, pane->dash->screen.cols - 1, TONE_DIM,
               "In the map: · waiting  b building  c copying  s staged  a activating  p probing");
    screen_put(&pane->dash->screen, pane_row(pane), 2, pane->dash->screen.cols - 1, TONE_DIM,
               "✓ healthy  = unchanged  ↺ rolled back  ✗ failed  ? unreachable  - skipped");
}

void dash_draw_help(struct dash *dash, int row, int end_row) {
    dash_rule(&dash->screen, row++, "keys");
    draw_pane(dash, &dash->state.help, row, end_row, write_help, 0);
}
