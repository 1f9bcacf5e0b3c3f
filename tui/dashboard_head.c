/* The head of every screen: who and what, how far, and why it is waiting right now. */
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "tui/dashboard_parts.h"
#include "tui/summary.h"

#define NARROW 60
/* What counts leave on the second line for wave and bar. */
#define BAR_COLS        16
#define BAR_COLS_NARROW 10
/* Estimates are rounded, so that they stand still. */
#define ROUND_MS INT64_C(5000)

bool dash_host_is_active(const struct view_host *host) {
    return host->state >= HOST_ACTIVATING && host->state <= HOST_ROLLING_BACK;
}

bool dash_waits_for_person(const struct view *view) {
    return view->paused != NULL && strcmp(view->paused, "bake") != 0;
}

int64_t dash_clock_ms(const struct dash *dash) {
    const struct view *view = dash->view;
    if (view != NULL && view->ended_ms > 0) {
        return view->ended_ms;
    }
    return dash->live && dash->now_ms > dash->model.last_ms ? dash->now_ms : dash->model.last_ms;
}

static size_t good_hosts(const struct view *view) {
    size_t good = 0;
    for (int state = 0; state < HOST_STATE_COUNT; state++) {
        if (wording_is_success(view, (enum host_state)state)) {
            good += view_count(view, (enum host_state)state);
        }
    }
    return good;
}

/* As the budget counts them (CONTRACT, max_failed); those that weren't reached are counted apart. */
static size_t failed_hosts(const struct view *view) {
    static const enum host_state failed[] = {HOST_FAILED, HOST_ROLLED_BACK, HOST_ROLLBACK_FAILED,
                                             HOST_UNKNOWN};
    size_t count = 0;
    for (size_t i = 0; i < ARRAY_LEN(failed); i++) {
        count += view_count(view, failed[i]);
    }
    return count;
}

/* ---- first line ---- */

static void add_clock(const struct dash *dash, struct buf *out) {
    const struct view *view = dash->view;
    int64_t now = dash_clock_ms(dash);
    int64_t elapsed = now - view->started_ms;
    wording_elapsed(elapsed, out);
    /* What waits for a person has no estimate. */
    bool goes_on = !view->ended && dash->live && !dash_waits_for_person(view);
    int64_t left = goes_on ? model_remaining_ms(view, now) : -1;
    if (left > 0) {
        buf_add_text(out, " ~");
        wording_elapsed((elapsed + left + ROUND_MS / 2) / ROUND_MS * ROUND_MS, out);
    }
}

static void draw_title(struct dash *dash, int row) {
    const struct view *view = dash->view;
    struct screen *screen = &dash->screen;
    struct buf clock = BUF_INIT;
    struct buf rest = BUF_INIT;
    add_clock(dash, &clock);
    int edge = screen->cols - 1;
    int clock_col = edge - screen_width(screen, buf_text(&clock));
    bool narrow = screen->cols < NARROW;
    /* On a narrow screen there is room for one of the two: what isn't as always. */
    if (!narrow || view->action != ACTION_SWITCH) {
        buf_printf(&rest, " · %s", run_action_name(view->action));
    }
    if (!narrow || view->action == ACTION_SWITCH) {
        buf_add_text(&rest, " · ");
        wording_revision(view, &rest);
    }
    const char *run = view->run != NULL ? view->run : "?";
    buf_printf(&rest, " · run %s", narrow ? wording_short_run(run) : run);
    int end = clock_col - 1;
    int col =
        screen_put(screen, row, 1, end, STYLE_BOLD, view->fleet != NULL ? view->fleet : "fleet");
    screen_put(screen, row, col, end, TONE_PLAIN, buf_text(&rest));
    screen_put(screen, row, clock_col, screen->cols, TONE_PLAIN, buf_text(&clock));
    buf_free(&clock);
    buf_free(&rest);
}

/* ---- second line ---- */

/* A part of a line, with a tone of its own. */
struct part {
    char *text;
    unsigned style;
};

static int parts_width(const struct screen *screen, const struct part *parts, size_t count) {
    int width = 0;
    for (size_t i = 0; i < count; i++) {
        width += screen_width(screen, parts[i].text) + (i > 0 ? 3 : 0);
    }
    return width;
}

/* "38 of 301 healthy", "1 failed, 3 allowed", "2 unreachable"; on a narrow screen "38/301 healthy",
 * and the rest only where there is something to tell. */
static size_t count_parts(const struct dash *dash, bool narrow, struct part parts[4]) {
    const struct view *view = dash->view;
    size_t good = good_hosts(view);
    size_t failed = failed_hosts(view);
    size_t skipped = view_count(view, HOST_SKIPPED);
    size_t unreachable = view_count(view, HOST_UNREACHABLE);
    size_t count = 0;
    bool all = good == view->host_count && good > 0;
    parts[count++] =
        (struct part){xasprintf(narrow ? "%zu/%zu %s" : "%zu of %zu %s", good, view->host_count,
                                view->action == ACTION_PUSH ? "staged" : "healthy"),
                      all ? TONE_GOOD : TONE_PLAIN};
    if (narrow ? failed > 0 : view->host_count > 0) {
        unsigned long long allowed = (unsigned long long)view->max_failed;
        char *text = narrow ? xasprintf("%zu failed", failed)
                            : xasprintf("%zu failed, %llu allowed", failed, allowed);
        parts[count++] = (struct part){text, failed > allowed ? STYLE_BOLD | TONE_BAD
                                             : failed > 0     ? TONE_BAD
                                                              : TONE_DIM};
    }
    if (unreachable > 0) {
        parts[count++] = (struct part){xasprintf("%zu unreachable", unreachable), TONE_BAD};
    }
    if (skipped > 0) {
        parts[count++] = (struct part){xasprintf("%zu skipped", skipped), TONE_PLAIN};
    }
    return count;
}

/* Hosts that are through, a failed one too, and those under way by half. */
static uint64_t progress(const struct view *view) {
    uint64_t halves = 0;
    for (size_t i = 0; i < view->host_count; i++) {
        const struct view_host *host = &view->hosts[i];
        bool through = host_state_is_end(host->state) || wording_is_success(view, host->state);
        halves += through ? 2 : dash_host_is_active(host);
    }
    return halves;
}

static void draw_progress(struct dash *dash, int row) {
    const struct view *view = dash->view;
    struct screen *screen = &dash->screen;
    struct part parts[4];
    int edge = screen->cols - 1;
    bool narrow = screen->cols < NARROW;
    size_t count = count_parts(dash, narrow, parts);
    int width = parts_width(screen, parts, count);
    while (count > 1 && width > edge - (narrow ? BAR_COLS_NARROW : BAR_COLS)) {
        free(parts[--count].text);
        width = parts_width(screen, parts, count);
    }
    int col = 1;
    if (view->wave_count > 1) {
        col = screen_printf(screen, row, col, edge, TONE_PLAIN, narrow ? "%u/%u" : "wave %u of %u",
                            view->wave > 0 ? view->wave : 1, view->wave_count);
        col++;
    }
    int text_col = edge - width;
    unsigned style = failed_hosts(view) > view->max_failed ? TONE_BAD : TONE_GOOD;
    dash_bar(screen, row, col, text_col - 2, style, progress(view), 2 * view->host_count);
    col = text_col;
    for (size_t i = 0; i < count; i++) {
        if (i > 0) {
            col = screen_put(screen, row, col, screen->cols, TONE_DIM, " · ");
        }
        col = screen_put(screen, row, col, screen->cols, parts[i].style, parts[i].text);
        free(parts[i].text);
    }
}

/* ---- third line ---- */

/* "db1 and 3 more are being probed". */
static void say_active(const struct dash *dash, struct buf *out) {
    const struct view *view = dash->view;
    const struct view_host *first = NULL;
    size_t number = 0;
    size_t others = 0;
    for (size_t i = 0; i < view->host_count; i++) {
        const struct view_host *host = &view->hosts[i];
        bool counts = !host_state_is_end(host->state) && host->state != HOST_PENDING &&
                      host->state != HOST_STAGED;
        if (!counts) {
            continue;
        }
        /* The one that is furthest is the one that the others wait for. */
        if (first == NULL || host->state > first->state) {
            first = host;
            number = i;
        }
        others++;
    }
    if (first == NULL) {
        buf_add_text(out, dash->live ? "the run goes on" : "nothing is under way");
        return;
    }
    struct buf detail = BUF_INIT;
    dash_phase_detail(dash, number, &detail);
    buf_printf(out, "%s: %s", first->name, state_words(first->state)->word);
    if (detail.len > 0) {
        buf_printf(out, ", %s", buf_text(&detail));
    }
    if (others > 1) {
        buf_printf(out, "; %zu more under way", others - 1);
    }
    buf_free(&detail);
}

/* What to type next, or where there is nothing to do how many hosts ended how. */
static void say_end(const struct dash *dash, struct buf *out) {
    const struct view *view = dash->view;
    bool named = view->result != NULL && view->result[0] != '\0';
    if (dash->screen.cols < NARROW) {
        buf_printf(out, "over, exit %d; ", view->exit);
    } else {
        buf_printf(out, "over: %s (exit %d); ", named ? view->result : "done", view->exit);
    }
    size_t used = text_width(buf_text(out)) + 2;
    size_t cols = (size_t)dash->screen.cols;
    if (!summary_next(view, cols > used ? cols - used : 0, out)) {
        wording_counts(view, out);
    }
}

static void say_pause(const struct view *view, struct buf *out) {
    if (strcmp(view->paused, "bake") == 0) {
        buf_printf(out, "wave %u bakes, then it is probed again", view->wave);
    } else if (strcmp(view->paused, "promote") == 0) {
        buf_printf(out, "wave %u is done; the next waits for: fleet promote %s", view->wave,
                   wording_short_run(view->run));
    } else {
        buf_add_text(out, "it is paused by a person");
    }
}

void dash_sentence(const struct dash *dash, struct buf *out) {
    const struct view *view = dash->view;
    if (view->ended) {
        say_end(dash, out);
    } else if (!dash->live) {
        buf_printf(out, "%sits process is gone; go on with: fleet resume %s",
                   view->paused != NULL ? "paused, and " : "", wording_short_run(view->run));
    } else if (dash->waiting != NULL && dash->waiting[0] != '\0') {
        text_clean(out, dash->waiting, strlen(dash->waiting), false);
    } else if (view->paused != NULL) {
        say_pause(view, out);
    } else {
        say_active(dash, out);
    }
}

static void draw_sentence(struct dash *dash, int row) {
    const struct view *view = dash->view;
    struct buf text = BUF_INIT;
    dash_sentence(dash, &text);
    bool stopped = view->paused != NULL && !view->ended;
    unsigned style = stopped                          ? STYLE_BOLD | TONE_WARN
                     : view->ended && view->exit == 0 ? TONE_GOOD
                     : view->ended || !dash->live     ? TONE_BAD
                                                      : TONE_PLAIN;
    screen_put(&dash->screen, row, 1, dash->screen.cols - 1, style, buf_text(&text));
    buf_free(&text);
}

int dash_draw_head(struct dash *dash) {
    draw_title(dash, 0);
    draw_progress(dash, 1);
    draw_sentence(dash, 2);
    return 3;
}
