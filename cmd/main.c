/* The program's start: surroundings that all commands rely on, then the command.
 *
 * Before any thread or loop: SIGPIPE and SIGXFSZ are ignored (a closed output, and a file that may
 * not grow, are errors of the write), inherited descriptors are closed on exec (a lock inherited by a
 * child would outlive us), no core is dumped (keys, passwords and secrets are in memory) and no
 * other process may look into it, the descriptor limit is raised (one socket a host and more), libuv
 * gets enough threads that a thousand name look-ups don't queue two at a time, and OpenSSL takes
 * nothing down at the end: a thread that was left behind in a read (transport/nar_feed.h) may come
 * back just then and use it.
 */
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cmd/command.h"
#include "cmd/context.h"
#include "cmd/help.h"

#define FIRST_OWN_FD 3

/* Opens what is missing of stdin, stdout and stderr, so that no socket ever gets their numbers. A
 * stdout that was closed stays one that can't be written, so that what gets lost is noticed. */
static void fill_standard_fds(void) {
    for (int fd = 0; fd < FIRST_OWN_FD; fd++) {
        int mode = fd == STDOUT_FILENO ? O_RDONLY : O_RDWR;
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", mode) != fd) {
            _exit(EXIT_SYSTEM);
        }
    }
}

/* Not by RLIMIT_CORE: a pipe in core_pattern gets its core whatever that limit says. Sanitizers look
 * into the process from outside for leaks. */
static void keep_memory_private(void) {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    prctl(PR_SET_DUMPABLE, 0);
#endif
}

static void prepare_process(void) {
    fill_standard_fds();
    close_range(FIRST_OWN_FD, ~0U, CLOSE_RANGE_CLOEXEC);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    keep_memory_private();
    setlocale(LC_CTYPE, "");
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    setenv("UV_THREADPOOL_SIZE", "64", 0);
    OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL);
}

static int print_help(const struct command *command) {
    struct buf out = BUF_INIT;
    if (command != NULL) {
        help_command(command, &out);
    } else {
        help_overview(&out);
    }
    fputs(buf_text(&out), stdout);
    buf_free(&out);
    return EXIT_DONE;
}

static int run(int argc, char **argv) {
    struct args args;
    struct error error = ERROR_INIT;
    int code;
    int err = args_parse(argc, argv, &args, &error);
    if (args_count(&args, OPTION_HELP) > 0) {
        code = print_help(args.command);
    } else if (err != 0) {
        code = context_usage(&args, "%s", error.message);
    } else if (args_count(&args, OPTION_VERSION) > 0) {
        puts("fleet " FLEET_VERSION);
        code = EXIT_DONE;
    } else if (args.command == NULL) {
        struct buf out = BUF_INIT;
        help_overview(&out);
        fputs(buf_text(&out), stderr);
        buf_free(&out);
        code = EXIT_USAGE;
    } else {
        code = args.command->run(&args);
    }
    args_release(&args);
    return code;
}

/* Whoever read the output has had enough (`fleet show | head`): nothing to be told about. */
static bool is_reader_gone(void) {
    struct pollfd output = {.fd = STDOUT_FILENO};
    return poll(&output, 1, 0) == 1 && (output.revents & POLLERR) != 0;
}

/* What was printed may have been lost: a full disk, a closed output, a pipe that nobody reads. */
static int settle_output(int code) {
    errno = 0;
    bool lost = fflush(stdout) != 0;
    int errnum = errno;
    if (!lost && ferror(stdout) == 0) {
        return code;
    }
    if (!is_reader_gone()) {
        fprintf(stderr, "fleet: the output could not be written%s%s; what it said is lost\n",
                errnum != 0 ? ": " : "", errnum != 0 ? strerror(errnum) : "");
    }
    return code == EXIT_DONE ? EXIT_SYSTEM : code;
}

int main(int argc, char **argv) {
    prepare_process();
    return settle_output(run(argc, argv));
}
