/* The fleet at rest on a terminal, or as lines (see rest.h).
 *
 * Beside the dashboard the lines are written all along: `s` shows them, and brings it back.
 */
#include "tui/rest.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "tui/dashboard_seat.h"
#include "tui/rest_parts.h"
#include "tui/side_lines.h"
#include "tui/terminal.h"

struct rest {
    struct rest_view view;
    struct terminal *terminal;
    struct seat *seat;
    struct seat_handlers handlers;
    struct side_lines lines;
};

/* ---- as lines ---- */

/* "h3  drifted       runs something else than its profile" */
static void print_host(FILE *file, const struct rest_host *host, int width) {
    struct buf note = BUF_INIT;
    rest_first_note(host, &note);
    fprintf(file, "%-*s  %s", width, host->name, rest_words(host->state)->word);
    if (host->generation > 0 && host->state != REST_UNREACHABLE && host->state != REST_OFFLINE) {
        fprintf(file, "  generation %lld", (long long)host->generation);
    }
    fprintf(file, "%s%s\n", note.len > 0 ? ": " : "", buf_text(&note));
    buf_free(&note);
}

/* Folds the look into the model, and tells what it changed; the first one of a host is a line. */
static void take_look(FILE *file, struct rest_model *model, const struct survey_look *look,
                      int64_t now_ms) {
    bool first = model->hosts[look->host].looked_ms == 0;
    int width = model->name_width;
    rest_model_look(model, look, now_ms);
    if (first) {
        print_host(file, &model->hosts[look->host], width);
    }
    for (size_t i = model->told; !first && i > 0; i--) {
        const struct model_line *line = model_line(&model->story, model->story.count - i);
        fprintf(file, "%-*s  %s\n", width, model->hosts[line->host].name, line->text);
    }
}

/* ---- on a terminal ---- */

static int64_t wall_ms(const struct rest *rest) {
    const struct rest_options *options = &rest->view.options;
    return options->now_ms != NULL ? options->now_ms(options->arg) : clock_wall_ms(&clock_system);
}

static void on_frame(void *arg) {
    struct rest *rest = arg;
    struct rest_view *view = &rest->view;
    int rows;
    int cols;
    bool shown = terminal_is_entered(rest->terminal);
    if (rest->lines.shown || (!shown && !terminal_enter(rest->terminal))) {
        return;
    }
    terminal_size(rest->terminal, &rows, &cols);
    if (rows != view->screen.rows || cols != view->screen.cols || view->screen.cells == NULL) {
        screen_resize(&view->screen, rows, cols);
    }
    view->now_ms = wall_ms(rest);
    rest_draw(view);
    if (!terminal_show(rest->terminal, &view->screen) || !terminal_flush(rest->terminal)) {
        seat_wait_for_room(rest->seat);
    }
}

static void on_key(const struct key_press *press, void *arg) {
    struct rest *rest = arg;
    bool mouse = rest->view.mouse;
    rest->view.now_ms = wall_ms(rest);
    if (rest->lines.shown) {
        if (press->key == 's') {
            side_lines_hide(&rest->lines, rest->terminal);
            seat_want_frame(rest->seat, true);
        }
        return;
    }
    rest_press(&rest->view, press);
    if (rest->view.swap) {
        rest->view.swap = false;
        side_lines_show(&rest->lines, rest->terminal,
                        "(plain lines: s brings the dashboard back, Ctrl-C leaves)\n");
        return;
    }
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
    if (rest->lines.shown) {
        terminal_listen(rest->terminal);
    } else {
        terminal_enter(rest->terminal);
    }
}

/* Nobody looks any more. */
static void on_gone(void *arg) {
    struct rest *rest = arg;
    rest->view.options.on_leave(rest->view.options.arg);
}

struct rest *rest_new(uv_loop_t *loop, const struct rest_options *options) {
    struct terminal *terminal = terminal_open(options->color);
    if (terminal == NULL) {
        return NULL;
    }
    struct rest *rest = xcalloc(1, sizeof(*rest));
    rest->terminal = terminal;
    rest->handlers = (struct seat_handlers){
        .key = on_key, .frame = on_frame, .returned = on_returned, .gone = on_gone, .arg = rest};
    rest_view_init(&rest->view, options);
    rest->view.screen.ascii = options->ascii || !terminal_speaks_utf8();
    rest->view.begun_ms = wall_ms(rest);
    side_lines_init(&rest->lines);
    rest->seat = seat_new(loop, terminal, &rest->handlers);
    if (rest->seat == NULL) {
        terminal_close(terminal);
        side_lines_release(&rest->lines);
        rest_view_release(&rest->view);
        free(rest);
        return NULL;
    }
    terminal_enter(terminal);
    seat_want_frame(rest->seat, true);
    return rest;
}

void rest_look(struct rest *rest, const struct survey_look *look) {
    take_look(rest->lines.file, &rest->view.model, look, wall_ms(rest));
    side_lines_flush(&rest->lines);
    seat_want_frame(rest->seat, false);
}

void rest_close(struct rest *rest) {
    struct rest_model *model = &rest->view.model;
    int width = model->name_width;
    seat_close(rest->seat);
    terminal_close(rest->terminal);
    printf("%s: %zu of %zu hosts in sync\n", rest->view.options.fleet, model->counts[REST_IN_SYNC],
           model->host_count);
    for (size_t i = 0; i < model->host_count; i++) {
        if (rest_words(model->hosts[i].state)->attention) {
            fputs("  ", stdout);
            print_host(stdout, &model->hosts[i], width);
        }
    }
    side_lines_release(&rest->lines);
    rest_view_release(&rest->view);
    free(rest);
}

/* ---- without a terminal ---- */

struct rest_lines {
    struct rest_model model;
};

struct rest_lines *rest_lines_new(const struct rest_options *options) {
    struct rest_lines *lines = xcalloc(1, sizeof(*lines));
    rest_model_init(&lines->model, options->hosts, options->logins, options->host_count);
    return lines;
}

void rest_lines_look(struct rest_lines *lines, const struct survey_look *look) {
    take_look(stdout, &lines->model, look, clock_wall_ms(&clock_system));
    fflush(stdout);
}

void rest_lines_free(struct rest_lines *lines) {
    rest_model_release(&lines->model);
    free(lines);
}
