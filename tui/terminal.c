/* Taking a terminal, and giving it back on every way out (see terminal.h). */
#include "tui/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <langinfo.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "tui/stray.h"
#include "tui/terminal_paint.h"

/* How long a terminal may take to accept the last bytes. */
#define LAST_WORDS_MS 300
#define RESTORE_MAX   128
#define MOUSE_ON      "\033[?1000h\033[?1006h"
#define MOUSE_OFF     "\033[?1006l\033[?1000l"
/* Ends a sequence that was cut short (ECMA-48, CAN). */
#define CANCEL "\030"

struct terminal {
    int fd;
    struct paint *paint;
    struct buf out; /* what the terminal hasn't taken yet */
    size_t out_at;
    bool entered, listening, mouse, gone;
    struct terminal_traffic traffic;
};

/* What signal handlers need; written before `taken` is set. */
static struct {
    volatile sig_atomic_t taken, screen;
    int fd;
    struct termios mode;
    char restore[RESTORE_MAX];
    size_t restore_len;
} given;

static const int deadly[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGQUIT, SIGHUP};
static struct sigaction former[ARRAY_LEN(deadly)];

bool terminal_speaks_utf8(void) {
    return strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

bool terminal_is_usable(void) {
    const char *term = getenv("TERM");
    return isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1 && term != NULL &&
           paint_is_possible(STDOUT_FILENO);
}

/* Async-signal-safe. */
static void restore_now(void) {
    if (!given.taken) {
        return;
    }
    given.taken = 0;
    if (given.screen) {
        ssize_t ignored = write(given.fd, given.restore, given.restore_len);
        (void)ignored;
    }
    tcsetattr(given.fd, TCSANOW, &given.mode);
    stray_end();
}

/* Gives the screen back, and lets the signal do what it would have done. */
static void on_deadly(int number, siginfo_t *info, void *context) {
    (void)context;
    int saved = errno;
    restore_now();
    for (size_t i = 0; i < ARRAY_LEN(deadly); i++) {
        if (deadly[i] == number) {
            sigaction(number, &former[i], NULL);
        }
    }
    /* A fault comes again when the instruction is run again; anything else is sent again. */
    if (info->si_code <= 0 || number == SIGABRT || number == SIGQUIT || number == SIGHUP) {
        raise(number);
    }
    errno = saved;
}

static void catch_deadly(void) {
    struct sigaction action = {.sa_sigaction = on_deadly, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < ARRAY_LEN(deadly); i++) {
        sigaction(deadly[i], &action, &former[i]);
        if (deadly[i] == SIGHUP && former[i].sa_handler != SIG_DFL) {
            sigaction(SIGHUP, &former[i], NULL); /* a run drains, and doesn't die of it */
        }
    }
}

static void release_deadly(void) {
    for (size_t i = 0; i < ARRAY_LEN(deadly); i++) {
        sigaction(deadly[i], &former[i], NULL);
    }
}

struct terminal *terminal_open(bool color) {
    static bool registered;
    struct paint *paint = paint_new(STDOUT_FILENO, color);
    if (paint == NULL) {
        return NULL;
    }
    char name[256];
    int fd = -1;
    if (ttyname_r(STDOUT_FILENO, name, sizeof(name)) == 0) {
        fd = open(name, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    }
    if (fd < 0) {
        fd = open("/dev/tty", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    }
    if (fd < 0 || tcgetattr(fd, &given.mode) != 0) {
        if (fd >= 0) {
            close(fd);
        }
        paint_free(paint);
        return NULL;
    }
    given.fd = fd;
    if (!registered) {
        registered = true;
        (void)atexit(restore_now);
        (void)at_quick_exit(restore_now);
    }
    struct terminal *terminal = xcalloc(1, sizeof(*terminal));
    terminal->fd = fd;
    terminal->paint = paint;
    return terminal;
}

static void send_all(struct terminal *terminal, const char *data, size_t len) {
    while (len > 0 && !terminal->gone) {
        ssize_t n = write(terminal->fd, data, len);
        if (n > 0) {
            data += n;
            len -= (size_t)n;
            terminal->traffic.bytes += (uint64_t)n;
            continue;
        }
        struct pollfd room = {.fd = terminal->fd, .events = POLLOUT};
        bool again = n < 0 && (errno == EINTR || errno == EAGAIN);
        if (!again || (errno == EAGAIN && poll(&room, 1, LAST_WORDS_MS) <= 0)) {
            return;
        }
    }
}

static void send_text(struct terminal *terminal, const char *text) {
    send_all(terminal, text, strlen(text));
}

/* Ctrl-C, Ctrl-Z and Ctrl-\ stay signals: the rollout has its own meaning for them. */
static void set_mode(const struct terminal *terminal) {
    struct termios mode = given.mode;
    mode.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ECHONL | IEXTEN);
    mode.c_iflag &= ~(tcflag_t)(ICRNL | INLCR | IXON);
    mode.c_cc[VMIN] = 1;
    mode.c_cc[VTIME] = 0;
    tcsetattr(terminal->fd, TCSANOW, &mode);
}

static bool is_foreground(const struct terminal *terminal) {
    pid_t group = tcgetpgrp(terminal->fd);
    return group < 0 || group == getpgrp();
}

void terminal_listen(struct terminal *terminal) {
    if (terminal->entered || !is_foreground(terminal)) {
        return;
    }
    if (!terminal->listening) {
        terminal->listening = true;
        given.screen = 0;
        given.taken = 1;
        catch_deadly();
    }
    set_mode(terminal);
}

bool terminal_enter(struct terminal *terminal) {
    if (!is_foreground(terminal)) {
        return false;
    }
    terminal_listen(terminal);
    struct buf text = BUF_INIT;
    buf_add_text(&text, CANCEL MOUSE_OFF);
    paint_add_leave(terminal->paint, &text);
    given.restore_len = text.len < RESTORE_MAX ? text.len : RESTORE_MAX;
    memcpy(given.restore, text.data, given.restore_len);
    given.screen = 1;
    given.taken = 1;
    terminal->entered = true;
    stray_begin(terminal->fd);
    buf_clear(&text);
    paint_add_enter(terminal->paint, &text);
    send_all(terminal, text.data, text.len);
    buf_free(&text);
    terminal_mouse(terminal, terminal->mouse);
    terminal_forget(terminal);
    return true;
}

void terminal_leave(struct terminal *terminal) {
    if (terminal->entered) {
        /* A frame half out would be finished into the shell's lines. */
        buf_clear(&terminal->out);
        terminal->out_at = 0;
        send_all(terminal, given.restore, given.restore_len);
        terminal->entered = false;
        given.screen = 0;
        stray_end();
    }
    if (terminal->listening) {
        terminal->listening = false;
        given.taken = 0;
        if (is_foreground(terminal)) {
            tcsetattr(terminal->fd, TCSANOW, &given.mode);
        }
        release_deadly();
    }
}

bool terminal_is_entered(const struct terminal *terminal) {
    return terminal->entered;
}

void terminal_close(struct terminal *terminal) {
    terminal_leave(terminal);
    close(terminal->fd);
    paint_free(terminal->paint);
    buf_free(&terminal->out);
    free(terminal);
}

int terminal_fd(const struct terminal *terminal) {
    return terminal->fd;
}

ssize_t terminal_read(struct terminal *terminal, char *data, size_t size) {
    return read(terminal->fd, data, size);
}

void terminal_size(const struct terminal *terminal, int *ret_rows, int *ret_cols) {
    struct winsize size;
    *ret_rows = 24;
    *ret_cols = 80;
    if (ioctl(terminal->fd, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0) {
        *ret_rows = size.ws_row;
        *ret_cols = size.ws_col;
    }
}

void terminal_mouse(struct terminal *terminal, bool on) {
    if (on || terminal->mouse) {
        send_text(terminal, on ? MOUSE_ON : MOUSE_OFF);
    }
    terminal->mouse = on;
}

bool terminal_flush(struct terminal *terminal) {
    while (terminal->out_at < terminal->out.len && !terminal->gone) {
        ssize_t n = write(terminal->fd, terminal->out.data + terminal->out_at,
                          terminal->out.len - terminal->out_at);
        if (n < 0 && errno == EAGAIN) {
            return false;
        }
        if (n < 0 && errno != EINTR) {
            terminal->gone = true;
        }
        if (n > 0) {
            terminal->out_at += (size_t)n;
            terminal->traffic.bytes += (uint64_t)n;
        }
    }
    buf_clear(&terminal->out);
    terminal->out_at = 0;
    return true;
}

bool terminal_show(struct terminal *terminal, const struct screen *screen) {
    if (!terminal->entered || !terminal_flush(terminal)) {
        return false;
    }
    stray_trim();
    paint_difference(terminal->paint, screen, &terminal->out);
    terminal->traffic.frames++;
    if (terminal->out.len > terminal->traffic.largest) {
        terminal->traffic.largest = terminal->out.len;
    }
    terminal_flush(terminal);
    return true;
}

void terminal_forget(struct terminal *terminal) {
    paint_forget(terminal->paint);
}

struct terminal_traffic terminal_traffic(const struct terminal *terminal) {
    return terminal->traffic;
}
