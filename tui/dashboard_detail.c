/* One host in detail: why, guard, versions, units, timeline, probes, packages, log; and the keys. */
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "tui/dashboard_parts.h"
#include "tui/pane.h"

#define LOG_LINES  20
#define STRIP_COLS 24
#define WAY_SHOWN  60

static const struct dash *dash_of(const struct pane *pane) {
    return pane->owner;
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

/* "generation 90", or what there is to say of where it goes back to. */
static void add_old(const struct view_host *host, struct buf *out) {
    if (host->first_generation > 0) {
        buf_printf(out, "generation %lld", (long long)host->first_generation);
    } else {
        buf_add_text(out, "what it ran before");
    }
}

static void add_armed(const struct dash *dash, const struct view_host *host,
                      const struct model_host *model, struct buf *out) {
    int64_t left = model->guard_until_ms - dash_clock_ms(dash);
    buf_add_text(out, "armed: goes back to ");
    add_old(host, out);
    if (model->guard_until_ms == 0) {
        buf_add_text(out, " by itself unless it is renewed");
    } else if (left > 0) {
        buf_printf(out, " in %lld s unless it is renewed", (long long)((left + 999) / 1000));
    } else {
        buf_add_text(out, ": its time is up");
    }
}

/* What the guard on the host is about to do: its own last word, or what the journal tells of it. */
static void add_guard(struct pane *pane, const struct view_host *host,
                      const struct model_host *model) {
    const char *phase = model->guard != NULL ? model->guard : "";
    struct buf words = BUF_INIT;
    if (!dash_host_is_active(host)) {
        return;
    }
    if (strcmp(phase, "reverting") == 0 || host->state == HOST_ROLLING_BACK) {
        buf_add_text(&words, "takes the host back to ");
        add_old(host, &words);
    } else if (strcmp(phase, "committing") == 0 ||
               (host->granted[ACT_COMMIT] && host->state == HOST_COMMITTING)) {
        buf_add_text(&words, "has been told to keep the new system");
    } else if (strcmp(phase, "activating") == 0) {
        buf_add_text(&words, "activates; goes back to ");
        add_old(host, &words);
        buf_add_text(&words, " if that fails");
    } else if (host->granted[ACT_ACTIVATE]) {
        add_armed(dash_of(pane), host, model, &words);
    }
    if (words.len > 0) {
        pane_pair(pane, "guard", TONE_WARN, buf_text(&words));
    }
    buf_free(&words);
}

/* "stopping the following units: a.service, b.service" as "stopped  a.service, b.service". */
static void add_units(struct pane *pane, const char *text) {
    static const char *const words[][2] = {
        {"stopping", "stopped"},   {"starting", "started"},    {"restarting", "restarted"},
        {"reloading", "reloaded"}, {"NOT restarting", "left"},
    };
    static const char after[] = " the following units: ";
    while (text != NULL && *text != '\0') {
        size_t len = strcspn(text, "\n");
        char *line = xstrndup(text, len);
        const char *label = "units";
        const char *units = line;
        for (size_t i = 0; i < ARRAY_LEN(words); i++) {
            size_t verb = strlen(words[i][0]);
            if (strncmp(line, words[i][0], verb) == 0 &&
                strncmp(line + verb, after, sizeof(after) - 1) == 0) {
                label = words[i][1];
                units = line + verb + sizeof(after) - 1;
            }
        }
        pane_pair(pane, label, TONE_PLAIN, units);
        free(line);
        text += len + (text[len] == '\n' ? 1 : 0);
    }
}

static void add_way(struct pane *pane, const struct model_way *way) {
    if (way == NULL) {
        return;
    }
    struct buf title = BUF_INIT;
    buf_printf(&title, "PACKAGES  %zu changed, %zu added, %zu removed", way->changed, way->added,
               way->removed);
    if (way->bytes_to > 0) {
        buf_add_text(&title, " · closure ");
        text_add_bytes(&title, way->bytes_from);
        buf_add_text(&title, " → ");
        text_add_bytes(&title, way->bytes_to);
    }
    pane_title(pane, buf_text(&title));
    buf_free(&title);
    const char *line = way->packages;
    for (size_t i = 0; i < WAY_SHOWN && *line != '\0'; i++) {
        size_t len = strcspn(line, "\n");
        unsigned style = line[0] == '+' && line[1] == ' '   ? TONE_GOOD
                         : line[0] == '-' && line[1] == ' ' ? TONE_DIM
                                                            : TONE_PLAIN;
        screen_printf(pane->screen, pane_row(pane), 1, pane->screen->cols - 1, style, "%.*s",
                      (int)len, line);
        line += len + (line[len] == '\n' ? 1 : 0);
    }
    size_t all = way->changed + way->added + way->removed + way->left_out;
    if (all > WAY_SHOWN) {
        screen_printf(pane->screen, pane_row(pane), 1, pane->screen->cols - 1, TONE_DIM,
                      "and %zu more: fleet plan", all - WAY_SHOWN);
    }
}

static void add_timeline(struct pane *pane, const struct view_host *host,
                         const struct model_host *model) {
    struct screen *screen = pane->screen;
    pane_title(pane, "TIMELINE");
    for (size_t i = 0; model_move(model, i) != NULL; i++) {
        const struct model_move *move = model_move(model, i);
        const struct model_move *next = model_move(model, i + 1);
        int64_t until = next != NULL                     ? next->at_ms
                        : host_state_is_end(host->state) ? move->at_ms
                                                         : dash_clock_ms(dash_of(pane));
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
    struct screen *screen = pane->screen;
    if (model->probe_count == 0) {
        return;
    }
    pane_title(pane, "PROBES");
    for (size_t i = 0; i < model->probe_count; i++) {
        const struct model_probe *probe = &model->probes[i];
        int row = pane_row(pane);
        screen_put(screen, row, 1, 3, probe->ok ? TONE_GOOD : TONE_BAD, probe->ok ? "✓" : "✗");
        screen_put(screen, row, 4, PANE_LABEL_COLS + 3, TONE_PLAIN, probe->name);
        int strip_col = PANE_LABEL_COLS + 5;
        dash_draw_strip(screen, row, strip_col, STRIP_COLS, &probe->strip);
        screen_put(screen, row, strip_col + STRIP_COLS + 2, screen->cols - 1, TONE_PLAIN,
                   probe->detail != NULL ? probe->detail : "");
    }
}

static void add_log(struct pane *pane, size_t number) {
    const struct model_ring *log = &dash_of(pane)->model.log;
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
    const struct view_host *host = &dash_of(pane)->view->hosts[number];
    const struct model_host *model = &dash_of(pane)->model.hosts[number];
    const struct state_words *words = state_words(host->state);
    char *state = xasprintf("%s %s", words->sign, words->word);
    pane_pair(pane, "state", words->tone | STYLE_BOLD, state);
    free(state);
    const char *why =
        host->verdict != NULL && host->verdict[0] != '\0' ? host->verdict : host->message;
    pane_words(pane, "because", TONE_PLAIN, why);
    add_guard(pane, host, model);
    add_versions(pane, host);
    add_units(pane, model->units);
    add_timeline(pane, host, model);
    add_probes(pane, model);
    add_way(pane, model_way_of(&dash_of(pane)->model, host));
    add_log(pane, number);
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
    pane_draw(&dash->screen, dash, &dash->state.detail, row, end_row, write_detail, number);
}

/* ---- help ---- */

static void write_key(const char *label, const char *help, bool acts, void *arg) {
    struct pane *pane = arg;
    struct screen *screen = pane->screen;
    int row = pane_row(pane);
    bool here = !acts || dash_of(pane)->request != NULL;
    screen_put(screen, row, 2, 14, STYLE_BOLD | STYLE_ACCENT, label);
    screen_put(screen, row, 14, 15, TONE_DIM, here ? " " : "×");
    screen_put(screen, row, here ? 15 : 16, screen->cols - 1, here ? TONE_PLAIN : TONE_DIM, help);
}

static void write_help(struct pane *pane, size_t number) {
    (void)number;
    dash_list_keys(write_key, pane);
    if (dash_of(pane)->request == NULL) {
        pane_row(pane);
        screen_put(pane->screen, pane_row(pane), 2, pane->screen->cols - 1, TONE_DIM,
                   "×  not here: read-only, the run belongs to another terminal");
    }
    dash_list_signs(pane);
}

void dash_draw_help(struct dash *dash, int row, int end_row) {
    dash_rule(&dash->screen, row++, "keys");
    pane_draw(&dash->screen, dash, &dash->state.help, row, end_row, write_help, 0);
}
