/* A hostile host behind a working connection: what its shell prints, on both outputs and in any
 * pieces, while fleet asks for facts, units, a plan's comparison and a command. Each question is
 * answered exactly once, or not at all where fleet closes the shell (an input that begins with 3).
 *
 * The input is what the host prints, with the bytes that a fuzzer can't guess named: 1 is the marker
 * that is due on the current output, 2 changes the output, 3 ends a piece, 4 ends the shell.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "core/plan_ask.h"
#include "core/probe_asks.h"
#include "core/status.h"
#include "transport/shell.h"

enum {
    BYTE_MARKER = 1,
    BYTE_OUTPUT,
    BYTE_PIECE,
    BYTE_END
};
#define MARKER_MAX 80u
#define QUESTIONS  4u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The only stream there is: the shell's. */
static struct far {
    struct stream stream;
    struct stream_handlers handlers;
    void *arg;
    char marker[MARKER_MAX]; /* that the far side is to print next */
    bool open;
    int fd;
    size_t answers;
} far;

/* "printf fleet-%s-%s AAA BBB" and "printf 'fleet-%s-%s %d\n' AAA BBB $fleet_status" alike. */
static void learn_marker(const char *text) {
    const char *format = strstr(text, "printf 'fleet-%s-%s");
    format = format != NULL ? format : strstr(text, "printf fleet-%s-%s");
    if (format == NULL) {
        return;
    }
    const char *of_script = strstr(format, "\\n' ");
    const char *first = of_script != NULL ? of_script + 4 : strstr(format, "-%s ") + 4;
    const char *second = first + strcspn(first, " ") + 1;
    AUTO_FREE char *a = xstrndup(first, strcspn(first, " "));
    AUTO_FREE char *b = xstrndup(second, strcspn(second, " ;"));
    AUTO_FREE char *marker = xasprintf("fleet-%s-%s%s", a, b, of_script != NULL ? " 0\n" : "");
    memset(far.marker, 0, sizeof(far.marker));
    memcpy(far.marker, marker, strlen(marker) < MARKER_MAX ? strlen(marker) : MARKER_MAX - 1);
}

static int far_write(struct stream *stream, const void *data, size_t len) {
    (void)stream;
    AUTO_FREE char *text = xstrndup(data, len);
    learn_marker(text);
    return 0;
}

static size_t far_queued(const struct stream *stream) {
    (void)stream;
    return 0;
}

static void far_eof(struct stream *stream) {
    (void)stream;
}

static void far_pause(struct stream *stream, bool paused) {
    (void)stream;
    (void)paused;
}

static void far_close(struct stream *stream) {
    (void)stream;
    far.open = false;
}

static struct stream *far_exec(struct conn *conn, const char *command,
                               const struct stream_handlers *handlers, void *arg) {
    static const struct stream_ops ops = {.write = far_write,
                                          .queued = far_queued,
                                          .eof = far_eof,
                                          .pause = far_pause,
                                          .close = far_close};
    (void)conn;
    far = (struct far){.stream = {&ops}, .handlers = *handlers, .arg = arg, .open = true, .fd = 1};
    learn_marker(command);
    return &far.stream;
}

static void say(const char *data, size_t len) {
    if (far.open && len > 0) {
        far.handlers.on_data(far.fd, data, len, far.arg);
    }
}

static void end_shell(void) {
    if (far.open) {
        struct stream_end end = {.status = 1};
        far.open = false;
        far.handlers.on_end(&end, far.arg);
    }
}

/* One piece up to the next named byte; returns how many bytes that were. */
static size_t play(const uint8_t *data, size_t size) {
    size_t len = 0;
    while (len < size && (data[len] == 0 || data[len] > BYTE_END)) {
        len++;
    }
    say((const char *)data, len);
    if (len == size) {
        return len;
    }
    if (data[len] == BYTE_MARKER) {
        AUTO_FREE char *marker = xstrdup(far.marker);
        say(marker, strlen(marker));
    } else if (data[len] == BYTE_OUTPUT) {
        far.fd = far.fd == 1 ? 2 : 1;
    } else if (data[len] == BYTE_END) {
        end_shell();
    }
    return len + 1;
}

static void on_facts(int err, const struct target_reply *reply, const struct error *error,
                     void *arg) {
    (void)err;
    (void)error;
    (void)arg;
    struct status status;
    far.answers++;
    status_read(reply, NULL, &status);
    status_release(&status);
}

static void on_units(const struct health_units *units, void *arg) {
    (void)arg;
    far.answers++;
    for (size_t i = 0; i < units->count; i++) {
        if (units->items[i].name[0] == '\0') {
            abort();
        }
    }
}

static void on_command(const struct health_command *result, void *arg) {
    (void)arg;
    far.answers++;
    if (result->output != NULL && strchr(result->output, '\033') != NULL) {
        abort();
    }
}

static void on_planned(const struct error *error, void *arg) {
    struct plan_host *host = arg;
    far.answers++;
    if (error->code == FLEET_OK) {
        plan_host_judge(host);
        free(plan_host_json(host));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const struct conn_ops ops = {.exec = far_exec};
    static const char *const globs[] = {"*.service"};
    static const struct elevation nobody = {.how = ELEVATE_NONE};
    struct inv_host inv = {.name = "db1"};
    struct conn conn = {&ops};
    struct probe_asks asks = {0};
    uv_loop_t loop;
    uv_loop_init(&loop);
    struct plan_host host = {.inv = &inv, .source = BUILD_SOURCE_TARGET, .reached = true};
    host.desired = xstrdup("/nix/store/7z7y2q0b1n5d3l8x9v4k6s2h1m0c3w5r-system");
    struct shell *shell = shell_open(&loop, &conn, &nobody);
    target_inspect(shell, NULL, NULL, on_facts, NULL);
    probe_asks_units(&asks, shell, true, globs, 1, on_units, NULL);
    probe_asks_command(&asks, shell, globs, 1, 1000, on_command, NULL);
    plan_ask(shell, &host, on_planned, &host);
    bool hangs_up = size > 0 && data[0] == BYTE_PIECE;
    for (size_t at = 0; at < size;) {
        at += play(data + at, size - at);
        uv_run(&loop, UV_RUN_NOWAIT);
    }
    while (!hangs_up && far.answers < QUESTIONS) {
        end_shell();
        uv_run(&loop, UV_RUN_ONCE);
    }
    if (far.answers > QUESTIONS) {
        abort();
    }
    shell_close(shell);
    probe_asks_drop(&asks);
    uv_run(&loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&loop) != 0) {
        abort();
    }
    plan_host_free(&host);
    return 0;
}
