/* The fleet at rest on a terminal, or as lines (see rest.h). */
#include "tui/rest.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "tui/dashboard_seat.h"
#include "tui/rest_parts.h"
#include "tui/terminal.h"

struct rest {
    struct rest_view view;
    struct terminal *terminal;
    struct seat *seat;
    struct seat_handlers handlers;
};

/* ---- on a terminal ---- */

static void on_frame(void *arg) {
    struct rest *rest = arg;
    struct rest_view *view = &rest->view;
    int rows;
    int cols;
    if (!terminal_is_entered(rest->terminal) && !terminal_enter(rest->terminal)) {
        return;
    }
    terminal_size(rest->terminal, &rows, &cols);
    if (rows != view->screen.rows || cols != view->screen.cols || view->screen.cells == NULL) {
        screen_resize(&view->screen, rows, cols);
    }
    view->now_ms = clock_wall_ms(&clock_system);
    rest_draw(view);
    if (!terminal_show(rest->terminal, &view->screen) || !terminal_flush(rest->terminal)) {
        seat_wait_for_room(rest->seat);
    }
}

static void on_key(const struct key_press *press, void *arg) {
    struct rest *rest = arg;
    bool mouse = rest->view.mouse;
    rest->view.now_ms = clock_wall_ms(&clock_system);
    rest_press(&rest->view, press);
    if (rest->view.mouse != mouse) {
        terminal_mouse(rest->terminal, rest->view.mouse);
    }
    if (rest->view.leave) {
        rest->view.options.on_leave(rest->view.options.arg);
    }
    seat_want_frame(rest->seat, true);
}

static void on_returned(void *arg) {
    struct rest *rest = arg;
    terminal_enter(rest->terminal);
}

struct rest *rest_new(uv_loop_t *loop, const struct rest_options *options) {
    struct terminal *terminal = terminal_open(options->color);
    if (terminal == NULL) {
        return NULL;
    }
    struct rest *rest = xcalloc(1, sizeof(*rest));
    rest->terminal = terminal;
    rest->handlers = (struct seat_handlers){
        .key = on_key, .frame = on_frame, .returned = on_returned, .arg = rest};
    rest_view_init(&rest->view, options);
    rest->view.screen.ascii = options->ascii || !terminal_speaks_utf8();
    rest->view.begun_ms = clock_wall_ms(&clock_system);
    rest->seat = seat_new(loop, terminal, &rest->handlers);
    if (rest->seat == NULL) {
        terminal_close(terminal);
        rest_view_release(&rest->view);
        free(rest);
        return NULL;
    }
    terminal_enter(terminal);
    seat_want_frame(rest->seat, true);
    return rest;
}

void rest_look(struct rest *rest, const struct survey_look *look) {
    rest_model_look(&rest->view.model, look, clock_wall_ms(&clock_system));
    seat_want_frame(rest->seat, false);
}

/* ---- as lines ---- */

/* "h3  drifted       runs something else than its profile" */
static void print_host(const struct rest_host *host, int width) {
    struct buf note = BUF_INIT;
    rest_first_note(host, &note);
    printf("%-*s  %s", width, host->name, rest_words(host->state)->word);
    if (host->generation > 0 && host->state != REST_UNREACHABLE && host->state != REST_OFFLINE) {
        printf("  generation %lld", (long long)host->generation);
    }
    printf("%s%s\n", note.len > 0 ? ": " : "", buf_text(&note));
    buf_free(&note);
}

static int names_width(const struct rest_model *model) {
    size_t width = 0;
    for (size_t i = 0; i < model->host_count; i++) {
        size_t own = text_width(model->hosts[i].name);
        width = own > width ? own : width;
    }
    return width < 24 ? (int)width : 24;
}

void rest_close(struct rest *rest) {
    struct rest_model *model = &rest->view.model;
    int width = names_width(model);
    seat_close(rest->seat);
    terminal_close(rest->terminal);
    printf("%s: %zu of %zu hosts in sync\n", rest->view.options.fleet, model->counts[REST_IN_SYNC],
           model->host_count);
    for (size_t i = 0; i < model->host_count; i++) {
        if (rest_words(model->hosts[i].state)->attention) {
            fputs("  ", stdout);
            print_host(&model->hosts[i], width);
        }
    }
    rest_view_release(&rest->view);
    free(rest);
}

struct rest_lines {
    struct rest_model model;
};

struct rest_lines *rest_lines_new(const struct rest_options *options) {
    struct rest_lines *lines = xcalloc(1, sizeof(*lines));
    rest_model_init(&lines->model, options->hosts, options->logins, options->host_count);
    return lines;
}

void rest_lines_look(struct rest_lines *lines, const struct survey_look *look) {
    struct rest_model *model = &lines->model;
    bool first = model->hosts[look->host].looked_ms == 0;
    int width = names_width(model);
    rest_model_look(model, look, clock_wall_ms(&clock_system));
    if (first) {
        print_host(&model->hosts[look->host], width);
    }
    for (size_t i = model->told; !first && i > 0; i--) {
        const struct model_line *line = model_line(&model->story, model->story.count - i);
        printf("%-*s  %s\n", width, model->hosts[line->host].name, line->text);
    }
    fflush(stdout);
}

void rest_lines_free(struct rest_lines *lines) {
    rest_model_release(&lines->model);
    free(lines);
}
