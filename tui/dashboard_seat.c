/* Keys, frames and signals of the dashboard (see dashboard_seat.h). */
#include "tui/dashboard_seat.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"

#define FRAMES_MAX 10 /* in any second */
#define SECOND_MS  1000u
#define EVENTS_MS  250u
#define KEYS_MS    20u
/* A lone ESC is the key when nothing has followed for so long. */
#define ESCAPE_MS   40u
#define INPUT_BYTES 256

struct seat {
    struct terminal *terminal;
    const struct seat_handlers *handlers; /* NULL: closed */
    uv_poll_t poll;
    uv_timer_t frame, second, escape;
    uv_signal_t resized, suspended, continued;
    int open;
    uint64_t frames_ms[FRAMES_MAX]; /* when the last ones were, by frame_count % FRAMES_MAX */
    uint64_t frame_count;
    uint64_t due_ms; /* of the next one; 0: none asked for */
    char input[INPUT_BYTES];
    size_t input_len;
};

static uint64_t now_ms(void) {
    return uv_hrtime() / 1000000u;
}

/* ---- frames ---- */

static void on_frame(uv_timer_t *timer) {
    struct seat *seat = timer->data;
    seat->due_ms = 0;
    seat->frames_ms[seat->frame_count++ % FRAMES_MAX] = now_ms();
    seat->handlers->frame(seat->handlers->arg);
}

void seat_want_frame(struct seat *seat, bool at_once) {
    uint64_t now = now_ms();
    uint64_t due = now;
    if (seat->frame_count > 0) {
        uint64_t last = seat->frames_ms[(seat->frame_count - 1) % FRAMES_MAX];
        due = last + (at_once ? KEYS_MS : EVENTS_MS);
    }
    if (seat->frame_count >= FRAMES_MAX) {
        uint64_t oldest = seat->frames_ms[seat->frame_count % FRAMES_MAX];
        due = oldest + SECOND_MS > due ? oldest + SECOND_MS : due;
    }
    due = due > now ? due : now;
    if (seat->due_ms == 0 || due < seat->due_ms) {
        seat->due_ms = due;
        uv_update_time(seat->frame.loop);
        uv_timer_start(&seat->frame, on_frame, due - now, 0);
    }
}

static void on_second(uv_timer_t *timer) {
    seat_want_frame(timer->data, false);
}

/* ---- keys ---- */

static void read_keys(struct seat *seat, bool complete) {
    size_t at = 0;
    while (at < seat->input_len && seat->handlers != NULL) {
        struct key_press press;
        size_t used = key_input_read(seat->input + at, seat->input_len - at, complete, &press);
        if (used == 0) {
            break;
        }
        at += used;
        if (press.key != KEY_NONE) {
            seat->handlers->key(&press, seat->handlers->arg);
        }
    }
    memmove(seat->input, seat->input + at, seat->input_len - at);
    seat->input_len -= at;
}

static void on_escape(uv_timer_t *timer) {
    read_keys(timer->data, true);
}

static void on_poll(uv_poll_t *poll, int status, int events);

static void watch_terminal(struct seat *seat, bool room) {
    uv_poll_start(&seat->poll, UV_READABLE | (room ? UV_WRITABLE : 0), on_poll);
}

/* The terminal is gone; what is shown there may go on without it. */
static void lose_terminal(struct seat *seat) {
    uv_poll_stop(&seat->poll);
    if (seat->handlers != NULL && seat->handlers->gone != NULL) {
        seat->handlers->gone(seat->handlers->arg);
    }
}

static void on_poll(uv_poll_t *poll, int status, int events) {
    struct seat *seat = poll->data;
    if (status < 0) {
        lose_terminal(seat);
        return;
    }
    if (events & UV_WRITABLE && terminal_flush(seat->terminal)) {
        watch_terminal(seat, false);
        seat_want_frame(seat, false);
    }
    if (!(events & UV_READABLE)) {
        return;
    }
    ssize_t n = terminal_read(seat->terminal, seat->input + seat->input_len,
                              sizeof(seat->input) - seat->input_len);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        lose_terminal(seat);
        return;
    }
    if (n > 0) {
        seat->input_len += (size_t)n;
        read_keys(seat, seat->input_len == sizeof(seat->input));
    }
    if (seat->input_len > 0 && seat->handlers != NULL) {
        uv_timer_start(&seat->escape, on_escape, ESCAPE_MS, 0);
    }
}

void seat_wait_for_room(struct seat *seat) {
    watch_terminal(seat, true);
}

/* ---- signals ---- */

static void on_resized(uv_signal_t *signal, int number) {
    (void)number;
    seat_want_frame(signal->data, true);
}

static void on_continued(uv_signal_t *signal, int number) {
    struct seat *seat = signal->data;
    (void)number;
    seat->handlers->returned(seat->handlers->arg);
    seat_want_frame(seat, true);
}

/* Gives the screen back, and stops as a program does that doesn't know of Ctrl-Z. */
static void on_suspended(uv_signal_t *signal, int number) {
    struct seat *seat = signal->data;
    terminal_leave(seat->terminal);
    uv_signal_stop(signal);
    raise(number);
    uv_signal_start(signal, on_suspended, number);
    seat->handlers->returned(seat->handlers->arg);
    seat_want_frame(seat, true);
}

/* ---- start and end ---- */

static void start_signal(struct seat *seat, uv_signal_t *signal, uv_signal_cb callback,
                         int number) {
    uv_signal_init(seat->poll.loop, signal);
    signal->data = seat;
    uv_signal_start(signal, callback, number);
    /* A display alone keeps no loop running. */
    uv_unref((uv_handle_t *)signal);
    seat->open++;
}

static void init_timer(struct seat *seat, uv_timer_t *timer) {
    uv_timer_init(seat->poll.loop, timer);
    timer->data = seat;
    uv_unref((uv_handle_t *)timer);
    seat->open++;
}

struct seat *seat_new(uv_loop_t *loop, struct terminal *terminal,
                      const struct seat_handlers *handlers) {
    struct seat *seat = xcalloc(1, sizeof(*seat));
    seat->terminal = terminal;
    seat->handlers = handlers;
    if (uv_poll_init(loop, &seat->poll, terminal_fd(terminal)) != 0) {
        free(seat);
        return NULL;
    }
    seat->poll.data = seat;
    seat->open = 1;
    uv_unref((uv_handle_t *)&seat->poll);
    init_timer(seat, &seat->frame);
    init_timer(seat, &seat->second);
    init_timer(seat, &seat->escape);
    start_signal(seat, &seat->resized, on_resized, SIGWINCH);
    start_signal(seat, &seat->suspended, on_suspended, SIGTSTP);
    start_signal(seat, &seat->continued, on_continued, SIGCONT);
    uv_timer_start(&seat->second, on_second, SECOND_MS, SECOND_MS);
    watch_terminal(seat, false);
    return seat;
}

static void on_closed(uv_handle_t *handle) {
    struct seat *seat = handle->data;
    if (--seat->open == 0) {
        free(seat);
    }
}

void seat_close(struct seat *seat) {
    uv_handle_t *handles[] = {
        (uv_handle_t *)&seat->poll,      (uv_handle_t *)&seat->frame,
        (uv_handle_t *)&seat->second,    (uv_handle_t *)&seat->escape,
        (uv_handle_t *)&seat->resized,   (uv_handle_t *)&seat->suspended,
        (uv_handle_t *)&seat->continued,
    };
    seat->handlers = NULL;
    for (size_t i = 0; i < ARRAY_LEN(handles); i++) {
        uv_close(handles[i], on_closed);
    }
}
