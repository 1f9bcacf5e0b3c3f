/* Playing a journal into the dashboard (see watch_dashboard.h).
 *
 * Two clocks: a live run has the machine's, a playback its own, which begins with the first event
 * and goes `speed` times as fast. Read-only in all: the journal is only read, and the dashboard
 * has nobody to ask anything of.
 */
#include "cmd/watch_dashboard.h"

#include <stdlib.h>
#include <uv.h>

#include "cmd/displays.h"
#include "core/base/clock.h"
#include "core/base/xalloc.h"

#define LOOK_EVERY_MS 100u
/* A turn of the loop ends after so long, so that keys are read in between; the clock is looked at
 * after each so many events. */
#define TURN_MS    15u
#define TURN_PIECE 100

struct playback {
    uv_loop_t loop;
    uv_timer_t timer;
    uv_signal_t interrupts[2];
    struct run_log *log;
    struct output *output;
    uint32_t speed; /* 0: no playback */
    struct event *next;
    int64_t first_ms;  /* stamp of the first event; 0: none yet */
    uint64_t begun_ms; /* when it was shown */
    int err;
    struct error *error;
};

static int64_t played_ms(void *arg) {
    const struct playback *playback = arg;
    if (playback->speed == 0 || playback->first_ms == 0) {
        return clock_wall_ms(&clock_system);
    }
    uint64_t passed = clock_now_ms(&clock_system) - playback->begun_ms;
    return playback->first_ms + (int64_t)(passed * playback->speed);
}

/* The next event is there: 1; none is now: 0; negative: an error. */
static int read_next(struct playback *playback) {
    return playback->next != NULL
               ? 1
               : journal_next(playback->log->reader, &playback->next, playback->error);
}

static bool is_due(struct playback *playback) {
    if (playback->speed == 0) {
        return true;
    }
    if (playback->first_ms == 0) {
        playback->first_ms = playback->next->ts_ms;
        playback->begun_ms = clock_now_ms(&clock_system);
    }
    return playback->next->ts_ms <= played_ms(playback);
}

/* Shows what is due: 1 if there is more to show, 0 if there is none now, negative: an error. */
static int play_piece(struct playback *playback, bool *ret_at_end) {
    int got = 0;
    for (int i = 0; i < TURN_PIECE; i++) {
        got = read_next(playback);
        if (got <= 0 || !is_due(playback)) {
            *ret_at_end = got == 0;
            return got < 0 ? got : 0;
        }
        view_apply(playback->log->view, playback->next);
        playback->output->ops->event(playback->output, playback->next, playback->log->view);
        event_free(playback->next);
        playback->next = NULL;
    }
    return 1;
}

static void on_timer(uv_timer_t *timer) {
    struct playback *playback = timer->data;
    /* Asked first: what a process wrote before it ended is then surely read below. */
    bool live = journal_is_live(playback->log->reader);
    uint64_t until_ms = clock_now_ms(&clock_system) + TURN_MS;
    bool at_end = false;
    int more;
    do {
        more = play_piece(playback, &at_end);
    } while (more > 0 && clock_now_ms(&clock_system) < until_ms);
    if (more < 0) {
        playback->err = more;
        uv_stop(timer->loop);
        return;
    }
    if (at_end) {
        output_dashboard_set_live(playback->output, live);
    }
    uv_timer_start(timer, on_timer, more > 0 ? 1 : LOOK_EVERY_MS, 0);
}

static void on_leave(void *arg) {
    struct playback *playback = arg;
    uv_stop(&playback->loop);
}

static void on_interrupt(uv_signal_t *signal, int number) {
    (void)number;
    uv_stop(signal->loop);
}

static void start(struct playback *playback) {
    static const int numbers[] = {SIGINT, SIGTERM};
    uv_loop_init(&playback->loop);
    uv_timer_init(&playback->loop, &playback->timer);
    playback->timer.data = playback;
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        uv_signal_init(&playback->loop, &playback->interrupts[i]);
        uv_signal_start(&playback->interrupts[i], on_interrupt, numbers[i]);
    }
    struct output_seat seat = {.loop = &playback->loop};
    playback->output->ops->attach(playback->output, &seat);
    uv_timer_start(&playback->timer, on_timer, 0, 0);
}

static void finish(struct playback *playback) {
    if (playback->err == 0) { /* else the summary would be of what was read by then */
        playback->output->ops->finish(playback->output, playback->log->view);
    }
    output_free(playback->output); /* the terminal is given back */
    uv_close((uv_handle_t *)&playback->timer, NULL);
    for (size_t i = 0; i < ARRAY_LEN(playback->interrupts); i++) {
        uv_close((uv_handle_t *)&playback->interrupts[i], NULL);
    }
    uv_run(&playback->loop, UV_RUN_DEFAULT);
    uv_loop_close(&playback->loop);
    event_free(playback->next);
}

int watch_dashboard(const struct context *context, struct run_log *log, uint32_t speed,
                    struct error *error) {
    struct playback playback = {.log = log, .speed = speed, .error = error};
    struct dashboard_options options = {
        .output = {.color = context->color_out, .verbosity = context->verbosity},
        .ascii = args_count(context->args, OPTION_ASCII) > 0,
        .live = speed > 0 || log->live,
        .now_ms = played_ms,
        .now_arg = &playback,
        .on_leave = on_leave,
        .leave_arg = &playback,
    };
    playback.output = displays_want_dashboard(context) ? output_dashboard_new(&options) : NULL;
    if (playback.output == NULL) {
        return 1;
    }
    start(&playback);
    uv_run(&playback.loop, UV_RUN_DEFAULT);
    finish(&playback);
    return playback.err;
}
