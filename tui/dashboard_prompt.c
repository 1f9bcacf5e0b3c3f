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
    static const char *const done[] = {
        [RUN_REQUEST_PAUSE] = "asked to pause: no more hosts are activated; c goes on",
        [RUN_REQUEST_PROMOTE] = "asked to go on",
        [RUN_REQUEST_DRAIN] = "asked to drain: hosts under way are finished",
        [RUN_REQUEST_ABORT] = "asked to leave at once",
        [RUN_REQUEST_TAKE_BACK] = "asked to take back",
        [RUN_REQUEST_SKIP] = "asked to skip",
    };
    if (dash->request == NULL || dash->view->ended) {
        dash_notice(dash, dash->view->ended ? "the run is over"
                                            : "read-only: the run belongs to another terminal");
        return;
    }
    dash->request(request, dash->request_arg);
    bool takes_back = request->kind == RUN_REQUEST_TAKE_BACK;
    const char *whom = request->host != NULL ? request->host : takes_back ? "all hosts" : "";
    dash_notice(dash, "%s%s%s", done[request->kind], whom[0] != '\0' ? " " : "", whom);
}

/* The word that confirms: the host's name, or what is about to happen to all. */
static const char *confirm_word(const struct run_request *request) {
    if (request->kind == RUN_REQUEST_TAKE_BACK) {
        return request->host != NULL ? request->host : "all";
    }
    return request->kind == RUN_REQUEST_ABORT ? "abort" : "drain";
}

/* What takes a version away from a host, or stops. */
static bool is_destructive(enum run_request_kind kind) {
    return kind == RUN_REQUEST_DRAIN || kind == RUN_REQUEST_ABORT || kind == RUN_REQUEST_TAKE_BACK;
}

void dash_ask_run(struct dash *dash, enum run_request_kind kind, bool of_selected) {
    struct dash_state *state = &dash->state;
    struct run_request request = {.kind = kind};
    if (of_selected && state->selected < dash->view->host_count) {
        request.host = dash->view->hosts[state->selected].name;
    }
    /* Whom it was asked for stays selected, so that one sees what becomes of it. */
    state->pinned = state->pinned || request.host != NULL;
    if (dash->request == NULL || dash->view->ended || !is_destructive(kind)) {
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

static void append_character(char *input, size_t size, int code) {
    size_t len = strlen(input);
    char one[5];
    size_t count = 0;
    if (code < 0x80) {
        one[count++] = (char)code;
    } else if (code < 0x800) {
        one[count++] = (char)(0xC0 | code >> 6);
    } else if (code < 0x10000) {
        one[count++] = (char)(0xE0 | code >> 12);
        one[count++] = (char)(0x80 | (code >> 6 & 0x3F));
    } else {
        one[count++] = (char)(0xF0 | code >> 18);
        one[count++] = (char)(0x80 | (code >> 12 & 0x3F));
        one[count++] = (char)(0x80 | (code >> 6 & 0x3F));
    }
    if (code >= 0x80) {
        one[count++] = (char)(0x80 | (code & 0x3F));
    }
    if (len + count < size) {
        memcpy(input + len, one, count);
        input[len + count] = '\0';
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
    } else if (key == KEY_BACKSPACE) {
        size_t len = strlen(state->input);
        while (len > 0 && ((unsigned char)state->input[--len] & 0xC0) == 0x80) {
        }
        state->input[len] = '\0';
        follow_input(dash);
    } else if (key >= ' ' && key < KEY_ARROW_UP && (key < 0x7F || key >= 0xA0)) {
        append_character(state->input, sizeof(state->input), key);
        follow_input(dash);
    }
}

/* ---- drawing ---- */

void dash_draw_prompt(struct dash *dash, int row) {
    const struct dash_state *state = &dash->state;
    struct screen *screen = &dash->screen;
    struct buf text = BUF_INIT;
    if (state->prompt == PROMPT_CONFIRM) {
        static const char *const what[RUN_REQUEST_COUNT] = {
            [RUN_REQUEST_DRAIN] = "start no more hosts",
            [RUN_REQUEST_ABORT] = "leave now, guards armed",
            [RUN_REQUEST_TAKE_BACK] = "roll back",
        };
        const char *word = confirm_word(&state->asked);
        buf_printf(&text, "%s%s%s? type '%s': ", what[state->asked.kind],
                   state->asked.kind == RUN_REQUEST_TAKE_BACK ? " " : "",
                   state->asked.kind == RUN_REQUEST_TAKE_BACK ? word : "", word);
    } else {
        buf_add_text(&text, state->prompt == PROMPT_SEARCH ? "search: " : "filter: ");
    }
    unsigned style = state->prompt == PROMPT_CONFIRM ? STYLE_BOLD | TONE_WARN : STYLE_BOLD;
    int col = screen_put(screen, row, 1, screen->cols - 2, style, buf_text(&text));
    col = screen_put(screen, row, col, screen->cols - 2, TONE_PLAIN, state->input);
    screen_mark(screen, row, col, col + 1, STYLE_REVERSE);
    buf_free(&text);
}
