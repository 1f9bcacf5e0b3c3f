/* The dashboard as an output: events and keys in, frames out, the screen given back at the end.
 *
 * Beside it the plain lines are written all along, into memory while the dashboard is shown: `s`
 * shows them, from where they were left, on the ordinary screen, and the run goes on there as if
 * there had never been a dashboard.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/xalloc.h"
#include "tui/dashboard_parts.h"
#include "tui/dashboard_seat.h"
#include "tui/output.h"
#include "tui/side_lines.h"
#include "tui/summary.h"
#include "tui/terminal.h"

struct dashboard {
    struct output base;
    struct dash dash;
    struct dashboard_options options;
    struct terminal *terminal; /* NULL once it has been given back */
    struct seat *seat;         /* NULL: not attached */
    struct seat_handlers handlers;
    struct output *plain; /* on `lines` */
    struct side_lines lines;
    bool over;      /* the run has ended */
    uv_loop_t *own; /* the loop after the run's, or NULL */
    uv_signal_t interrupts[2];
};

/* ---- plain lines ---- */

static void show_plain(struct dashboard *board) {
    bool own = board->options.on_leave == NULL;
    side_lines_show(&board->lines, board->terminal,
                    own ? "(plain lines: s brings the dashboard back, Ctrl-C drains)\n"
                        : "(plain lines: s brings the dashboard back, Ctrl-C leaves)\n");
}

/* ---- frames and keys ---- */

static int64_t wall_ms(const struct dashboard *board) {
    return board->options.now_ms != NULL ? board->options.now_ms(board->options.now_arg)
                                         : clock_wall_ms(&clock_system);
}

static void on_frame(void *arg) {
    struct dashboard *board = arg;
    struct dash *dash = &board->dash;
    int rows;
    int cols;
    bool shown = terminal_is_entered(board->terminal);
    if (board->lines.shown || (!shown && !terminal_enter(board->terminal))) {
        return;
    }
    terminal_size(board->terminal, &rows, &cols);
    if (rows != dash->screen.rows || cols != dash->screen.cols || dash->screen.cells == NULL) {
        screen_resize(&dash->screen, rows, cols);
    }
    dash->now_ms = wall_ms(board);
    dash_draw(dash);
    if (!terminal_show(board->terminal, &dash->screen) || !terminal_flush(board->terminal)) {
        seat_wait_for_room(board->seat);
    }
}

static void leave(struct dashboard *board) {
    if (board->own != NULL) {
        uv_stop(board->own);
    } else if (board->options.on_leave != NULL) {
        board->options.on_leave(board->options.leave_arg);
    } else {
        show_plain(board);
    }
}

static void on_key(const struct key_press *press, void *arg) {
    struct dashboard *board = arg;
    struct dash_state *state = &board->dash.state;
    board->dash.now_ms = wall_ms(board);
    if (board->lines.shown) {
        if (press->key == 's' && !board->over) {
            side_lines_hide(&board->lines, board->terminal);
            seat_want_frame(board->seat, true);
        }
        return;
    }
    bool mouse = state->mouse;
    dash_press(&board->dash, press);
    if (state->mouse != mouse) {
        terminal_mouse(board->terminal, state->mouse);
    }
    if (state->swap) {
        state->swap = false;
        show_plain(board);
    } else if (state->leave) {
        state->leave = false;
        leave(board);
    }
    seat_want_frame(board->seat, true);
}

/* Whoever had the terminal meanwhile may have changed it. */
static void on_returned(void *arg) {
    struct dashboard *board = arg;
    if (board->lines.shown) {
        terminal_listen(board->terminal);
    } else {
        terminal_enter(board->terminal);
    }
}

/* A reader of another run leaves; one's own run goes on. */
static void on_gone(void *arg) {
    struct dashboard *board = arg;
    if (board->own != NULL || board->options.on_leave != NULL) {
        leave(board);
    }
}

/* ---- as an output ---- */

static void board_attach(struct output *output, const struct output_seat *seat) {
    struct dashboard *board = container_of(output, struct dashboard, base);
    board->dash.request = seat->request;
    board->dash.request_arg = seat->arg;
    board->seat = seat_new(seat->loop, board->terminal, &board->handlers);
    if (board->seat == NULL) {
        board->lines.shown = true;
        return;
    }
    /* At once and not by the first frame: lines printed meanwhile would stand in the way. */
    terminal_enter(board->terminal);
    seat_want_frame(board->seat, true);
}

static void board_event(struct output *output, const struct event *event, const struct view *view) {
    struct dashboard *board = container_of(output, struct dashboard, base);
    board->dash.view = view;
    model_apply(&board->dash.model, event, view);
    dash_hear(&board->dash, event);
    board->plain->ops->event(board->plain, event, view);
    side_lines_flush(&board->lines);
    if (!board->lines.shown && board->seat != NULL) {
        seat_want_frame(board->seat, false);
    }
}

static void board_tick(struct output *output, const struct view *view, int64_t now,
                       const char *waiting) {
    struct dashboard *board = container_of(output, struct dashboard, base);
    board->dash.view = view;
    free(board->dash.waiting);
    board->dash.waiting = waiting != NULL ? xstrdup(waiting) : NULL;
    if (board->lines.shown) {
        board->plain->ops->tick(board->plain, view, now, waiting);
        side_lines_flush(&board->lines);
    }
}

static void on_interrupt(uv_signal_t *signal, int number) {
    (void)number;
    uv_stop(signal->loop);
}

/* Shows the end until the person who is reading leaves. */
static void stay(struct dashboard *board) {
    static const int numbers[] = {SIGINT, SIGTERM};
    uv_loop_t loop;
    uv_loop_init(&loop);
    board->own = &loop;
    board->dash.request = NULL;
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        uv_signal_init(&loop, &board->interrupts[i]);
        uv_signal_start(&board->interrupts[i], on_interrupt, numbers[i]);
    }
    board->seat = seat_new(&loop, board->terminal, &board->handlers);
    if (board->seat != NULL) {
        dash_notice(&board->dash, "the run is over; q leaves");
        seat_want_frame(board->seat, true);
        uv_run(&loop, UV_RUN_DEFAULT);
        seat_close(board->seat);
        board->seat = NULL;
    }
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        uv_close((uv_handle_t *)&board->interrupts[i], NULL);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    board->own = NULL;
}

/* Nothing is taken away from under somebody's eyes. */
static bool is_read(const struct dashboard *board) {
    const struct dash_state *state = &board->dash.state;
    return !board->lines.shown && board->options.on_leave == NULL &&
           (state->stay || state->mode != DASH_FLEET || state->prompt == PROMPT_FILTER ||
            state->filter != NULL);
}

static void board_finish(struct output *output, const struct view *view) {
    struct dashboard *board = container_of(output, struct dashboard, base);
    if (board->terminal == NULL) {
        return;
    }
    board->over = true;
    if (board->seat != NULL) {
        seat_close(board->seat);
        board->seat = NULL;
        if (is_read(board)) {
            stay(board);
        }
    }
    struct terminal_traffic traffic = terminal_traffic(board->terminal);
    terminal_close(board->terminal);
    board->terminal = NULL;
    if (board->options.output.verbosity > 0) {
        printf("(dashboard: %llu frames, %llu bytes to the terminal, the largest frame %zu)\n",
               (unsigned long long)traffic.frames, (unsigned long long)traffic.bytes,
               traffic.largest);
    }
    if (view->run != NULL) {
        struct buf text = BUF_INIT;
        summary_write(view, &board->options.output, &text);
        fwrite(text.data, 1, text.len, stdout);
        buf_free(&text);
    }
    fflush(stdout);
}

static void board_free(struct output *output) {
    struct dashboard *board = container_of(output, struct dashboard, base);
    if (board->seat != NULL) {
        seat_close(board->seat);
    }
    if (board->terminal != NULL) {
        terminal_close(board->terminal);
    }
    output_free(board->plain);
    side_lines_release(&board->lines);
    dash_release(&board->dash);
    free(board);
}

static const struct output_ops board_ops = {.attach = board_attach,
                                            .event = board_event,
                                            .tick = board_tick,
                                            .finish = board_finish,
                                            .free = board_free};

bool output_dashboard_is_possible(void) {
    return terminal_is_usable();
}

struct output *output_dashboard_new(const struct dashboard_options *options) {
    struct terminal *terminal = terminal_open(options->output.color);
    if (terminal == NULL) {
        return NULL;
    }
    struct dashboard *board = xcalloc(1, sizeof(*board));
    board->base.ops = &board_ops;
    board->options = *options;
    board->terminal = terminal;
    dash_init(&board->dash);
    board->dash.live = options->live;
    board->dash.screen.ascii = options->ascii || !terminal_speaks_utf8();
    board->handlers = (struct seat_handlers){
        .key = on_key, .frame = on_frame, .returned = on_returned, .gone = on_gone, .arg = board};
    side_lines_init(&board->lines);
    board->plain = output_plain_new(board->lines.file, &options->output);
    return &board->base;
}

void output_dashboard_set_live(struct output *output, bool live) {
    struct dashboard *board = container_of(output, struct dashboard, base);
    board->dash.live = live;
    if (board->seat != NULL) {
        seat_want_frame(board->seat, false);
    }
}
