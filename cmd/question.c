/* Questions at the terminal (see question.h). */
#include "cmd/question.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <termios.h>
#include <unistd.h>

#include "core/base/xalloc.h"

#define ANSWER_MAX 1024

/* The terminal as it was, for the signal handler. */
static int hidden_fd = -1;
static struct termios shown_mode;

bool question_possible(void) {
    const char *ci = getenv("CI");
    return isatty(STDIN_FILENO) == 1 && isatty(STDERR_FILENO) == 1 && (ci == NULL || ci[0] == '\0');
}

static void write_all(int fd, const char *text) {
    size_t len = strlen(text);
    while (len > 0) {
        ssize_t n = write(fd, text, len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return;
        }
        text += n;
        len -= (size_t)n;
    }
}

/* Reads a line without its newline. False at the end of input, and for a line that is too long. */
static bool read_line(int fd, char *line, size_t size) {
    size_t len = 0;
    for (;;) {
        char c;
        ssize_t n = read(fd, &c, 1);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            break;
        }
        if (c == '\n') {
            line[len < size ? len : 0] = '\0';
            return len < size;
        }
        if (len < size) {
            line[len++] = c;
        }
    }
    line[0] = '\0';
    return false;
}

bool question_confirm(const char *text) {
    AUTO_CLOSE int fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        return false;
    }
    write_all(fd, text);
    write_all(fd, " [y/N] ");
    char line[ANSWER_MAX];
    if (!read_line(fd, line, sizeof(line) - 1)) {
        write_all(fd, "\n");
        return false;
    }
    return strcasecmp(line, "y") == 0 || strcasecmp(line, "yes") == 0;
}

static void on_signal(int number) {
    if (hidden_fd >= 0) {
        tcsetattr(hidden_fd, TCSANOW, &shown_mode);
    }
    /* The handler was installed with SA_RESETHAND: this ends the program. */
    raise(number);
}

static const int deadly[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

/* Puts the echo back when a signal ends the program meanwhile. */
static void catch_signals(struct sigaction old[ARRAY_LEN(deadly)]) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < ARRAY_LEN(deadly); i++) {
        sigaction(deadly[i], &action, &old[i]);
    }
}

char *question_secret(const char *prompt) {
    AUTO_CLOSE int fd = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 || tcgetattr(fd, &shown_mode) != 0) {
        return NULL;
    }
    struct sigaction old[ARRAY_LEN(deadly)];
    catch_signals(old);
    hidden_fd = fd;
    struct termios hidden = shown_mode;
    hidden.c_lflag &= (tcflag_t) ~(unsigned)(ECHO | ECHOE | ECHOK | ECHONL);
    hidden.c_lflag |= ICANON;
    tcsetattr(fd, TCSAFLUSH, &hidden);
    write_all(fd, prompt);
    char line[ANSWER_MAX];
    bool ok = read_line(fd, line, sizeof(line) - 1);
    tcsetattr(fd, TCSAFLUSH, &shown_mode);
    hidden_fd = -1;
    for (size_t i = 0; i < ARRAY_LEN(deadly); i++) {
        sigaction(deadly[i], &old[i], NULL);
    }
    write_all(fd, "\n");
    char *secret = ok ? xstrdup(line) : NULL;
    secret_wipe(line, sizeof(line));
    return secret;
}
