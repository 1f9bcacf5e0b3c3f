/* What is typed into the last row: filter, search, and the word that confirms a request.
 *
 * What takes a version away from a host, or stops, is typed out first: the host's name, or what is
 * about to happen. Filter and search follow each key.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "tui/dashboard_parts.h"

/* ---- opening ---- */

static void open_prompt(struct dash *dash, enum dash_prompt prompt, const char *text) {
    dash->state.prompt = prompt;
    snprintf(dash->state.input, sizeof(dash->state.input), "%s", text != NULL ? text : "");
}

void dash_open_filter(struct dash *dash) {
    if (dash->state.mode == DASH_LOG) {
        open_prompt(dash, PROMPT_SEARCH, dash->state.search);
    } else {
        open_prompt(dash, PROMPT_FILTER, dash->state.filter);
    }
}

static void send_request(struct dash *dash, const struct run_request *request) {
    static const char *const done[][2] = {
        [RUN_REQUEST_PAUSE] = {"asked to pause: no more hosts are activated; c goes on", ""},
        [RUN_REQUEST_PROMOTE] = {"asked to go on", ""},
        [RUN_REQUEST_DRAIN] = {"asked to drain: hosts under way are finished", ""},
        [RUN_REQUEST_ABORT] = {"asked to leave at once", ""},
        [RUN_REQUEST_TAKE_BACK] = {"asked to take back ", ""},
        [RUN_REQUEST_SKIP] = {"asked to skip ", ""},
        [RUN_REQUEST_RETRY] = {"asked to try ", " again"},
    };
    _Static_assert(ARRAY_LEN(done) == RUN_REQUEST_COUNT, "words for every request");
    if (dash->request == NULL || dash->view->ended) {
        dash_notice(dash, dash->view->ended ? "the run is over"
                                            : "read-only: the run belongs to another terminal");
        return;
    }
    bool takes_back = request->kind == RUN_REQUEST_TAKE_BACK;
    const char *whom = request->host != NULL ? request->host : takes_back ? "all hosts" : "";
    dash_notice(dash, "%s%s%s", done[request->kind][0], whom, done[request->kind][1]);
    /* The last: what the run answers at once takes the notice's place. */
    free(dash->state.answer_of);
    dash->state.answer_of = request->host != NULL ? xstrdup(request->host) : NULL;
    dash->request(request, dash->request_arg);
}

/* The word that confirms: the host's name, or what is about to happen to all. */
static const char *confirm_word(const struct run_request *request) {
    if (request->kind == RUN_REQUEST_TAKE_BACK || request->kind == RUN_REQUEST_RETRY) {
        return request->host != NULL ? request->host : "all";
    }
    return request->kind == RUN_REQUEST_ABORT ? "abort" : "drain";
}

void dash_hear(struct dash *dash, const struct event *event) {
    const char *whom = dash->state.answer_of;
    bool own = event->type == EVENT_LOG && event->host == NULL && event->line != NULL &&
               event->stream != NULL && strcmp(event->stream, "fleet") == 0;
    if (own && whom != NULL && strncmp(event->line, whom, strlen(whom)) == 0) {
        dash_notice(dash, "%s", event->line);
    }
}

/* What takes a version away from a host, or stops; and a second try where the first one has
 * changed the host, and may well end the same way. */
static bool is_destructive(const struct dash *dash, const struct run_request *request) {
    const struct view_host *host =
        request->host != NULL ? view_host(dash->view, request->host) : NULL;
    bool again =
        request->kind == RUN_REQUEST_RETRY && (host == NULL || host->granted[ACT_ACTIVATE]);
    return again || request->kind == RUN_REQUEST_DRAIN || request->kind == RUN_REQUEST_ABORT ||
           request->kind == RUN_REQUEST_TAKE_BACK;
}

void dash_ask_run(struct dash *dash, enum run_request_kind kind, bool of_selected) {
    struct dash_state *state = &dash->state;
    struct run_request request = {.kind = kind};
    if (of_selected && state->selected < dash->view->host_count) {
        request.host = dash->view->hosts[state->selected].name;
    }
    /* Whom it was asked for stays selected, so that one sees what becomes of it. */
    state->pinned = state->pinned || request.host != NULL;
    if (dash->request == NULL || dash->view->ended || !is_destructive(dash, &request)) {
        send_request(dash, &request);
        return;
    }
    free(state->asked_host);
    state->asked_host = request.host != NULL ? xstrdup(request.host) : NULL;
    state->asked = (struct run_request){.kind = kind, .host = state->asked_host};
    open_prompt(dash, PROMPT_CONFIRM, NULL);
}

/* ---- typing into a prompt ---- */

static void take_input(struct dash *dash) {
    struct dash_state *state = &dash->state;
    enum dash_prompt prompt = state->prompt;
    state->prompt = PROMPT_NONE;
    if (prompt == PROMPT_CONFIRM) {
        if (strcmp(state->input, confirm_word(&state->asked)) == 0) {
            send_request(dash, &state->asked);
        } else {
            dash_notice(dash, "not confirmed; nothing was done");
        }
    } else if (prompt == PROMPT_SEARCH && state->search != NULL) {
        dash->state.log.top = dash->state.follow ? 0 : dash->state.log.top;
        if (!dash_log_search(dash, false) && !dash_log_search(dash, true)) {
            dash_notice(dash, "no line holds '%s'", state->search);
        }
    }
}

/* Filter and search follow what is typed. */
static void follow_input(struct dash *dash) {
    struct dash_state *state = &dash->state;
    char **slot = state->prompt == PROMPT_FILTER   ? &state->filter
                  : state->prompt == PROMPT_SEARCH ? &state->search
                                                   : NULL;
    if (slot != NULL) {
        free(*slot);
        *slot = state->input[0] != '\0' ? xstrdup(state->input) : NULL;
    }
}

void dash_type(struct dash *dash, int key) {
    struct dash_state *state = &dash->state;
    if (key == KEY_ENTER) {
        take_input(dash);
    } else if (key == KEY_ESCAPE) {
        state->input[0] = '\0';
        follow_input(dash);
        state->prompt = PROMPT_NONE;
    } else if (input_line_type(state->input, key)) {
        follow_input(dash);
    }
}

/* ---- drawing ---- */

void dash_draw_prompt(struct dash *dash, int row) {
    const struct dash_state *state = &dash->state;
    struct screen *screen = &dash->screen;
    struct buf text = BUF_INIT;
    if (state->prompt == PROMPT_CONFIRM) {
        const char *word = confirm_word(&state->asked);
        switch (state->asked.kind) {
        case RUN_REQUEST_DRAIN:
            buf_add_text(&text, "start no more hosts");
            break;
        case RUN_REQUEST_ABORT:
            buf_add_text(&text, "leave now, guards armed");
            break;
        case RUN_REQUEST_TAKE_BACK:
            buf_printf(&text, "roll back %s", word);
            break;
        case RUN_REQUEST_RETRY:
            buf_printf(&text, "try %s again", word);
            break;
        case RUN_REQUEST_PAUSE:
        case RUN_REQUEST_PROMOTE:
        case RUN_REQUEST_SKIP:
        case RUN_REQUEST_COUNT:
            break;
        }
        buf_printf(&text, "? type '%s': ", word);
    } else {
        buf_add_text(&text, state->prompt == PROMPT_SEARCH ? "search: " : "filter: ");
    }
    unsigned style = state->prompt == PROMPT_CONFIRM ? STYLE_BOLD | TONE_WARN : STYLE_BOLD;
    int col = screen_put(screen, row, 1, screen->cols - 2, style, buf_text(&text));
    col = screen_put(screen, row, col, screen->cols - 2, TONE_PLAIN, state->input);
    screen_mark(screen, row, col, col + 1, STYLE_REVERSE);
    buf_free(&text);
}
