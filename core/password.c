/* Runs a command that prints a password (see password.h). */
#include "core/password.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/xalloc.h"

#define DEADLINE_MS  30000
#define PASSWORD_MAX 4096u

static int start(char *const *argv, const char *dir, int output, pid_t *ret) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t defaults;
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    sigaddset(&defaults, SIGXFSZ);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addchdir_np(&actions, dir);
    posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    int err = posix_spawnp(ret, argv[0], &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return err;
}

/* Reads until the end of the output. False when the deadline passes or there is too much. */
static bool read_output(int fd, uint64_t deadline_ms, char room[PASSWORD_MAX], size_t *ret_len) {
    size_t len = 0;
    for (;;) {
        uint64_t now = clock_now_ms(&clock_system);
        struct pollfd polled = {.fd = fd, .events = POLLIN};
        if (now >= deadline_ms || len == PASSWORD_MAX) {
            return false;
        }
        int ready = poll(&polled, 1, (int)(deadline_ms - now));
        if (ready < 0 && errno != EINTR) {
            return false;
        }
        if (ready <= 0) {
            continue;
        }
        ssize_t n = read(fd, room + len, PASSWORD_MAX - len);
        if (n == 0) {
            *ret_len = len;
            return true;
        }
        if (n < 0 && errno != EINTR) {
            return false;
        }
        len += n > 0 ? (size_t)n : 0;
    }
}

/* The exit status; the process is ended at the deadline (-1). */
static int finish(pid_t pid, uint64_t deadline_ms) {
    int status = 0;
    for (;;) {
        pid_t ended = waitpid(pid, &status, WNOHANG);
        if (ended == pid) {
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
        }
        if (ended < 0 && errno != EINTR) {
            return -1;
        }
        if (clock_now_ms(&clock_system) >= deadline_ms) {
            kill(pid, SIGKILL);
            while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
            }
            return -1;
        }
        poll(NULL, 0, 5);
    }
}

int password_run(char *const *argv, const char *dir, char **ret, struct error *error) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) {
        return error_errno(error, errno, "making a pipe to password_command %s", argv[0]);
    }
    pid_t pid = 0;
    int failed = start(argv, dir, fds[1], &pid);
    close(fds[1]);
    if (failed != 0) {
        close(fds[0]);
        return error_errno(error, failed, "password_command %s cannot be run in %s", argv[0], dir);
    }
    uint64_t deadline_ms = clock_now_ms(&clock_system) + DEADLINE_MS;
    char room[PASSWORD_MAX];
    size_t len = 0;
    bool whole = read_output(fds[0], deadline_ms, room, &len);
    close(fds[0]);
    int status = finish(pid, whole ? deadline_ms : 0);
    size_t line = 0;
    while (line < len && room[line] != '\n' && room[line] != '\r') {
        line++;
    }
    int code = 0;
    if (!whole) {
        code = error_set(error, FLEET_ERR_SYSTEM, "password-command",
                         "password_command %s did not end within %d s; it has to print one line",
                         argv[0], DEADLINE_MS / 1000);
    } else if (status != 0 || line == 0) {
        code = error_set(error, FLEET_ERR_SYSTEM, "password-command",
                         "password_command %s %s (exit status %d); run it by hand to see why",
                         argv[0], status != 0 ? "failed" : "printed nothing", status);
    } else {
        *ret = xstrndup(room, line);
    }
    secret_wipe(room, sizeof(room));
    return code;
}
