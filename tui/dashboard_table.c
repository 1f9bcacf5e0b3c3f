/* The table: a host a row, the same thing in the same place at every size.
 *
 * As it narrows columns go in this order: WAVE, SINCE, PROBES, GENERATION; HOST and PHASE stay. Rows are
 * sorted by who needs a person, and within that as the inventory has them, so that they move only
 * when that changes; the selection stays on its host.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "tui/dashboard_parts.h"

#define NAME_MIN  6
#define NAME_COLS 24
#define WORD_COLS 13
#define WAVE_FROM 100 /* columns; the head names the wave, too */
#define WAVE_COLS 6
/* A bar's width; fewer columns than the least say nothing. */
#define BAR_LEAST 6
#define BAR_MOST  16
/* What the words beside a bar need at most: they grow, and the bar must not jump. */
#define COPY_COLS  25
#define PROBE_COLS 11

struct columns {
    int sign, name, generation, wave, phase, probes, since; /* where each begins; 0: left out */
    int name_end, generation_end, phase_end, probes_end;
};

/* ---- order ---- */

/* Who needs a person: lower is further up. */
static int rank(const struct view *view, const struct view_host *host) {
    const struct state_words *words = state_words(host->state);
    if (wording_is_success(view, host->state)) {
        return 3;
    }
    if (host_state_is_end(host->state)) {
        return words->attention ? 0 : 3;
    }
    return dash_host_is_active(host) || host->state == HOST_STAGING ||
                   host->state == HOST_BUILDING || host->state == HOST_CONNECTING
               ? 1
               : 2;
}

static bool matches(const struct view *view, const struct view_host *host, const char *filter) {
    if (filter == NULL || filter[0] == '\0') {
        return true;
    }
    char wave[16];
    snprintf(wave, sizeof(wave), "wave %u", host->wave);
    (void)view;
    return strcasestr(host->name, filter) != NULL ||
           strcasestr(state_words(host->state)->word, filter) != NULL ||
           strcasestr(wave, filter) == wave ||
           (host->message != NULL && strcasestr(host->message, filter) != NULL);
}

void dash_sort(struct dash *dash) {
    const struct view *view = dash->view;
    if (dash->order == NULL || dash->order_cap < view->host_count) {
        dash->order_cap = view->host_count + 16;
        dash->order = xrealloc(dash->order, dash->order_cap * sizeof(*dash->order));
    }
    dash->order_count = 0;
    for (int wanted = 0; wanted <= 3; wanted++) {
        for (size_t i = 0; i < view->host_count; i++) {
            if (rank(view, &view->hosts[i]) == wanted &&
                matches(view, &view->hosts[i], dash->state.filter)) {
                dash->order[dash->order_count++] = i;
            }
        }
    }
}

/* The row of the selected host; one that nobody chose, or that the filter took away, is the first. */
static size_t selected_row(struct dash *dash) {
    for (size_t i = 0; dash->state.pinned && i < dash->order_count; i++) {
        if (dash->order[i] == dash->state.selected) {
            return i;
        }
    }
    if (dash->order_count > 0) {
        dash->state.selected = dash->order[0];
    }
    return 0;
}

void dash_settle(struct dash *dash) {
    dash_sort(dash);
    selected_row(dash);
}

/* ---- cells ---- */

static void add_copy(const struct model_host *model, const struct view_host *host,
                     struct buf *out) {
    if (host->bytes_total == 0) {
        return;
    }
    text_add_bytes(out, host->bytes_done);
    buf_add_text(out, " of ");
    text_add_bytes(out, host->bytes_total);
    if (model->rate > 0 && host->bytes_done < host->bytes_total) {
        buf_add_text(out, "  ");
        text_add_bytes(out, model->rate);
        buf_add_text(out, "/s");
    }
}

static void add_probing(const struct dash *dash, const struct model_host *model,
                        const struct view_host *host, struct buf *out) {
    if (model->passing_since_ms > 0) {
        int64_t healthy = (dash_clock_ms(dash) - model->passing_since_ms) / 1000;
        healthy = healthy > 0 ? healthy : 0;
        int64_t wanted = dash->view->healthy_ms / 1000;
        if (wanted > 0) {
            buf_printf(out, "%lld of %lld s", (long long)(healthy < wanted ? healthy : wanted),
                       (long long)wanted);
        } else {
            buf_printf(out, "%lld s healthy", (long long)healthy);
        }
    } else if (host->probe_failed && host->last_probe != NULL) {
        buf_add(out, host->last_probe, strcspn(host->last_probe, "\n"));
    } else {
        buf_add_text(out, "no answer yet");
    }
}

static const char *first_words(const struct view_host *host) {
    if (host->verdict != NULL && host->verdict[0] != '\0' && host->state != HOST_HEALTHY) {
        return host->verdict;
    }
    return host->message != NULL && host->message[0] != '\0' ? host->message
           : host->reason != NULL                            ? host->reason
                                                             : "";
}

void dash_phase_detail(const struct dash *dash, size_t number, struct buf *out) {
    const struct view_host *host = &dash->view->hosts[number];
    const struct model_host *model = &dash->model.hosts[number];
    const char *words = "";
    switch (host->state) {
    case HOST_PENDING:
    case HOST_STAGED:
        if (host->wave > dash->view->wave && dash->view->wave_count > 1) {
            buf_printf(out, "waits for wave %u", host->wave);
        } else if (host->state == HOST_STAGED && dash->view->action != ACTION_PUSH) {
            words = "waits for a slot";
        }
        break;
    case HOST_CONNECTING:
        words = host->address != NULL ? host->address : "";
        break;
    case HOST_BUILDING:
        if (model->drv != NULL) {
            wording_store_name(model->drv, out);
        } else {
            words = model->build_state != NULL ? model->build_state : "";
        }
        break;
    case HOST_STAGING:
        add_copy(model, host, out);
        break;
    case HOST_ACTIVATING:
    case HOST_COMMITTING:
    case HOST_REBOOTING:
        words = model->last_line != NULL ? model->last_line : "";
        break;
    case HOST_CONFIRMING:
        words = "over a new connection";
        break;
    case HOST_PROBING:
        add_probing(dash, model, host, out);
        break;
    case HOST_HEALTHY:
    case HOST_UNCHANGED:
        break;
    case HOST_ROLLING_BACK:
    case HOST_FAILED:
    case HOST_ROLLED_BACK:
    case HOST_ROLLBACK_FAILED:
    case HOST_UNREACHABLE:
    case HOST_SKIPPED:
    case HOST_REBOOT_REQUIRED:
    case HOST_UNKNOWN:
    case HOST_STATE_COUNT:
        words = first_words(host);
        break;
    }
    text_clean(out, words, strcspn(words, "\n"), false);
}

static void draw_generation(struct dash *dash, int row, const struct columns *at,
                            const struct view_host *host) {
    struct buf text = BUF_INIT;
    long long first = (long long)host->first_generation;
    if (first > 0 && host->generation > 0 && host->generation != host->first_generation) {
        buf_printf(&text, "%lld → %lld", first, (long long)host->generation);
    } else if (first > 0 && dash_host_is_active(host) && host->state != HOST_ROLLING_BACK) {
        buf_printf(&text, "%lld → …", first);
    } else if (first > 0 && (host->state == HOST_ROLLED_BACK || host->state == HOST_ROLLING_BACK)) {
        buf_printf(&text, "%lld ←", first);
    } else if (first > 0) {
        buf_printf(&text, "%lld", first);
    }
    screen_put(&dash->screen, row, at->generation, at->generation_end, TONE_PLAIN, buf_text(&text));
    buf_free(&text);
}

void dash_draw_strip(struct screen *screen, int row, int col, int width,
                     const struct model_strip *strip) {
    int shown = (int)strip->count < width ? (int)strip->count : width;
    for (int i = 0; i < shown; i++) {
        bool ok = strip->passed >> (shown - 1 - i) & 1;
        screen_put(screen, row, col + i, col + width, ok ? TONE_GOOD : TONE_BAD, ok ? "━" : "✗");
    }
}

/* How much of a phase is done that has a measure; false where none has. */
static bool measure(const struct dash *dash, size_t number, uint64_t *ret_done,
                    uint64_t *ret_total) {
    const struct view_host *host = &dash->view->hosts[number];
    const struct model_host *model = &dash->model.hosts[number];
    *ret_done = 0;
    *ret_total = 0;
    if (host->state == HOST_STAGING) {
        *ret_done = host->bytes_done;
        *ret_total = host->bytes_total;
    } else if (host->state == HOST_PROBING) {
        int64_t healthy =
            model->passing_since_ms > 0 ? dash_clock_ms(dash) - model->passing_since_ms : 0;
        *ret_done = healthy > 0 ? (uint64_t)healthy : 0;
        *ret_total = (uint64_t)dash->view->healthy_ms;
    }
    return *ret_total > 0;
}

/* The state's word, what there is to say of it, and the last probes. */
static void draw_phase(struct dash *dash, int row, const struct columns *at, size_t number) {
    const struct view_host *host = &dash->view->hosts[number];
    const struct state_words *words = state_words(host->state);
    struct screen *screen = &dash->screen;
    unsigned style = words->tone | (words->attention ? STYLE_BOLD : 0);
    int col = screen_put(screen, row, at->phase, at->phase_end, style, words->word);
    int next = at->phase + WORD_COLS;
    next = col + 1 > next ? col + 1 : next;
    uint64_t done;
    uint64_t total;
    int room = at->phase_end - next - (host->state == HOST_STAGING ? COPY_COLS : PROBE_COLS);
    int bar = room > BAR_MOST ? BAR_MOST : room;
    if (bar >= BAR_LEAST && measure(dash, number, &done, &total)) {
        dash_bar(screen, row, next, next + bar, STYLE_ACCENT, done, total);
        next += bar + 1;
    }
    struct buf detail = BUF_INIT;
    dash_phase_detail(dash, number, &detail);
    /* Where there is no strip the words have its room; and where they say what went wrong. */
    const struct model_strip *strip = &dash->model.hosts[number].strip;
    bool cut = next + screen_width(screen, buf_text(&detail)) > at->phase_end;
    bool alone = at->probes > 0 && cut && (strip->count == 0 || words->attention);
    int end = alone ? at->probes_end : at->phase_end;
    screen_put(screen, row, next, end, words->attention ? TONE_PLAIN : TONE_DIM, buf_text(&detail));
    buf_free(&detail);
    if (at->probes > 0 && !alone) {
        dash_draw_strip(screen, row, at->probes, at->probes_end - at->probes, strip);
    }
}

static void draw_row(struct dash *dash, int row, const struct columns *at, size_t number) {
    const struct view_host *host = &dash->view->hosts[number];
    const struct state_words *words = state_words(host->state);
    struct screen *screen = &dash->screen;
    bool selected = number == dash->state.selected;
    if (selected) {
        screen_put(screen, row, 0, 1, STYLE_BOLD | STYLE_ACCENT, "▸");
    }
    screen_put(screen, row, at->sign, at->name, words->tone, words->sign);
    screen_put(screen, row, at->name, at->name_end, selected ? STYLE_BOLD : TONE_PLAIN, host->name);
    if (at->generation > 0) {
        draw_generation(dash, row, at, host);
    }
    if (at->wave > 0 && host->wave > 0) {
        screen_printf(screen, row, at->wave, at->phase, TONE_DIM, "%4u", host->wave);
    }
    draw_phase(dash, row, at, number);
    if (at->since > 0 && host->seen) {
        struct buf since = BUF_INIT;
        wording_elapsed(dash_clock_ms(dash) - host->since_ms, &since);
        int width = screen_width(screen, buf_text(&since));
        screen_put(screen, row, screen->cols - 1 - width, screen->cols, TONE_DIM, buf_text(&since));
        buf_free(&since);
    }
}

/* ---- columns ---- */

static struct columns lay_columns(const struct dash *dash) {
    const struct screen *screen = &dash->screen;
    struct columns at = {.sign = 1};
    int name = NAME_MIN;
    bool generations = false;
    for (size_t i = 0; i < dash->view->host_count; i++) {
        int width = screen_width(screen, dash->view->hosts[i].name);
        name = width > name ? width : name;
        generations = generations || dash->view->hosts[i].first_generation > 0;
    }
    name = name > NAME_COLS ? NAME_COLS : name;
    name = name > screen->cols / 3 ? screen->cols / 3 : name;
    int cols = screen->cols;
    at.name = screen->ascii ? 4 : 3;
    at.name_end = at.name + name;
    int next = at.name_end + 2;
    int end = cols - 1;
    if (cols >= 70) {
        at.since = end - 6;
        end = at.since - 1;
    }
    if (cols >= 64) {
        int width = cols >= 160 ? 40 : cols >= 100 ? 20 : 13;
        at.probes = end - width;
        at.probes_end = end;
        end = at.probes - 2;
    }
    if (cols >= 56 && generations) {
        at.generation = next;
        at.generation_end = next + (screen->ascii ? 13 : 11);
        next = at.generation_end + 1;
    }
    if (cols >= WAVE_FROM && dash->view->wave_count > 1) {
        at.wave = next;
        next += WAVE_COLS;
    }
    at.phase = next;
    at.phase_end = end;
    return at;
}

static void draw_titles(struct dash *dash, int row, const struct columns *at) {
    struct screen *screen = &dash->screen;
    screen_put(screen, row, at->name, at->name_end, TONE_DIM, "HOST");
    if (at->generation > 0) {
        screen_put(screen, row, at->generation, at->generation_end, TONE_DIM, "GENERATION");
    }
    if (at->wave > 0) {
        screen_put(screen, row, at->wave, at->phase, TONE_DIM, "WAVE");
    }
    screen_put(screen, row, at->phase, at->phase_end, TONE_DIM, "PHASE");
    if (at->probes > 0) {
        screen_put(screen, row, at->probes, at->probes_end, TONE_DIM, "PROBES");
    }
    if (at->since > 0) {
        screen_put(screen, row, screen->cols - 6, screen->cols, TONE_DIM, "SINCE");
    }
}

/* Scrolls only as far as the selection needs. */
static void fit_selection(struct dash *dash, size_t page) {
    struct dash_state *state = &dash->state;
    size_t row = selected_row(dash);
    size_t last = dash->order_count > page ? dash->order_count - page : 0;
    if (row < state->top) {
        state->top = row;
    } else if (page > 0 && row >= state->top + page) {
        state->top = row - page + 1;
    }
    state->top = state->top > last ? last : state->top;
    state->page = page;
}

void dash_draw_table(struct dash *dash, int row, int end_row) {
    struct screen *screen = &dash->screen;
    struct columns at = lay_columns(dash);
    if (end_row - row >= 5) {
        draw_titles(dash, row++, &at);
    }
    size_t page = end_row > row ? (size_t)(end_row - row) : 0;
    fit_selection(dash, page);
    dash->state.table_row = row;
    for (size_t i = 0; i < page && dash->state.top + i < dash->order_count; i++) {
        draw_row(dash, row + (int)i, &at, dash->order[dash->state.top + i]);
    }
    if (dash->order_count == 0 && page > 0) {
        bool filtered = dash->state.filter != NULL && dash->state.filter[0] != '\0';
        screen_put(screen, row, 3, screen->cols - 1, TONE_DIM,
                   filtered ? "no host matches the filter; Esc takes it away"
                            : "no hosts in this run");
    }
}
