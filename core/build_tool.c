#include "core/build_tool.h"

#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"

#define OUT_MAX       (4u * 1000u * 1000u)
#define KILL_AFTER_MS 2000
/* How long the pipes are read on after the exit, where a child of the tool still holds them. */
#define LINGER_MS 1000

struct build_tool {
    struct build_tool_handlers handlers;
    void *arg;
    uv_process_t process;
    uv_pipe_t out, err;
    uv_timer_t limit_timer; /* also starts a tool's end that failed to start */
    uv_timer_t kill;
    struct build_limit limit;
    uint64_t began_ms;
    size_t open;    /* handles that aren't closed */
    size_t reading; /* pipes that aren't at their end */
    bool exited;
    bool closing;
    int64_t status;
    int signal;
    struct error error; /* why it was ended, or didn't start */
    struct buf output;
    struct build_lines lines;
    char chunk[16384];
};

void build_lines_add(struct build_lines *lines, const char *data, size_t len,
                     void (*on_line)(const char *line, size_t len, void *arg), void *arg) {
    for (size_t i = 0; i < len; i++) {
        bool end = data[i] == '\n' || data[i] == '\r';
        if (!end) {
            lines->text[lines->len++] = data[i];
        }
        /* The second half of "\r\n" and a redrawn empty line are no lines. */
        if ((end && lines->len > 0) || (data[i] == '\n' && i > 0 && data[i - 1] == '\n') ||
            lines->len == sizeof(lines->text)) {
            on_line(lines->text, lines->len, arg);
            lines->len = 0;
        }
    }
}

void build_lines_end(struct build_lines *lines,
                     void (*on_line)(const char *line, size_t len, void *arg), void *arg) {
    if (lines->len > 0) {
        on_line(lines->text, lines->len, arg);
        lines->len = 0;
    }
}

/* --- Limits --- */

void build_limit_arm(const struct build_limit *limit, uint64_t began_ms, uv_timer_t *timer,
                     uv_timer_cb on_limit) {
    uint64_t spent_ms = uv_now(timer->loop) - began_ms;
    uint64_t left_ms = limit->total_ms > spent_ms ? limit->total_ms - spent_ms : 0;
    uv_timer_start(timer, on_limit, left_ms < limit->silence_ms ? left_ms : limit->silence_ms, 0);
}

void build_limit_error(const struct build_limit *limit, uint64_t began_ms, const uv_timer_t *timer,
                       struct error *error) {
    if (uv_now(timer->loop) - began_ms >= limit->total_ms) {
        error_set(error, FLEET_ERR_TIMEOUT, "build-timeout", "not done after %llu s, ended",
                  (unsigned long long)(limit->total_ms / 1000));
    } else {
        error_set(error, FLEET_ERR_TIMEOUT, "build-silent", "no output for %llu s, ended",
                  (unsigned long long)(limit->silence_ms / 1000));
    }
}

/* --- The end --- */

static void on_closed(uv_handle_t *handle) {
    struct build_tool *tool = handle->data;
    if (--tool->open > 0) {
        return;
    }
    build_lines_end(&tool->lines, tool->handlers.on_line, tool->arg);
    struct build_tool_result result = {
        .err = (int)tool->error.code,
        .status = tool->signal != 0 ? 128 + tool->signal : (int)tool->status,
        .out = buf_text(&tool->output),
        .error = tool->error,
    };
    tool->handlers.on_done(&result, tool->arg);
    buf_free(&tool->output);
    auto_free(&tool);
}

static void close_handle(uv_handle_t *handle) {
    if (!uv_is_closing(handle)) {
        uv_close(handle, on_closed);
    }
}

static void close_all(struct build_tool *tool) {
    tool->closing = true;
    close_handle((uv_handle_t *)&tool->process);
    close_handle((uv_handle_t *)&tool->out);
    close_handle((uv_handle_t *)&tool->err);
    close_handle((uv_handle_t *)&tool->limit_timer);
    close_handle((uv_handle_t *)&tool->kill);
}

static void on_linger(uv_timer_t *timer) {
    close_all(timer->data);
}

static void check_end(struct build_tool *tool) {
    if (!tool->exited || tool->closing) {
        return;
    }
    if (tool->reading == 0) {
        close_all(tool);
    } else {
        uv_timer_start(&tool->kill, on_linger, LINGER_MS, 0);
    }
}

static void on_exit_status(uv_process_t *process, int64_t status, int signum) {
    struct build_tool *tool = process->data;
    tool->exited = true;
    tool->status = status;
    tool->signal = signum;
    uv_timer_stop(&tool->limit_timer);
    check_end(tool);
}

static void on_kill(uv_timer_t *timer) {
    const struct build_tool *tool = timer->data;
    kill(-tool->process.pid, SIGKILL);
}

static void end(struct build_tool *tool) {
    if (!tool->exited) {
        uv_timer_stop(&tool->limit_timer);
        kill(-tool->process.pid, SIGTERM);
        uv_timer_start(&tool->kill, on_kill, KILL_AFTER_MS, 0);
    }
}

static void on_limit(uv_timer_t *timer) {
    struct build_tool *tool = timer->data;
    build_limit_error(&tool->limit, tool->began_ms, timer, &tool->error);
    end(tool);
}

void build_tool_cancel(struct build_tool *tool) {
    if (tool->error.code == 0) {
        error_set(&tool->error, FLEET_ERR_CANCELLED, "cancelled", "cancelled");
        end(tool);
    }
}

/* --- Output --- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
    struct build_tool *tool = handle->data;
    (void)suggested;
    *buf = uv_buf_init(tool->chunk, sizeof(tool->chunk));
}

static void on_read(uv_stream_t *stream, ssize_t got, const uv_buf_t *buf) {
    struct build_tool *tool = stream->data;
    if (got < 0) {
        uv_read_stop(stream);
        tool->reading--;
        check_end(tool);
        return;
    }
    if (got > 0 && !tool->exited && tool->error.code == 0) {
        build_limit_arm(&tool->limit, tool->began_ms, &tool->limit_timer, on_limit);
    }
    if (stream == (uv_stream_t *)&tool->err) {
        build_lines_add(&tool->lines, buf->base, (size_t)got, tool->handlers.on_line, tool->arg);
    } else if (tool->output.len < OUT_MAX) {
        buf_add(&tool->output, buf->base, (size_t)got);
    } else if (tool->error.code == 0) {
        error_set(&tool->error, FLEET_ERR_BUILD, "build-output",
                  "more than %u MB on its standard output, where one store path is expected: ended",
                  OUT_MAX / 1000000);
        end(tool);
    }
}

/* --- The start --- */

static void on_not_started(uv_timer_t *timer) {
    close_all(timer->data);
}

static int spawn(struct build_tool *tool, const char *const *argv, const char *dir) {
    uv_stdio_container_t stdio[] = {
        {.flags = UV_IGNORE},
        {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&tool->out},
        {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&tool->err},
    };
    size_t count = 0;
    while (argv[count] != NULL) {
        count++;
    }
    /* libuv wants them writable and leaves them alone. */
    char **args = xmemdup(argv, (count + 1) * sizeof(*argv));
    uv_process_options_t options = {
        .exit_cb = on_exit_status,
        .file = argv[0],
        .args = args,
        .cwd = dir,
        .flags = UV_PROCESS_DETACHED,
        .stdio = stdio,
        .stdio_count = (int)ARRAY_LEN(stdio),
    };
    int err = uv_spawn(tool->out.loop, &tool->process, &options);
    auto_free(&args);
    return err;
}

struct build_tool *build_tool_start(uv_loop_t *loop, const char *const *argv, const char *dir,
                                    const struct build_limit *limit,
                                    const struct build_tool_handlers *handlers, void *arg) {
    struct build_tool *tool = xcalloc(1, sizeof(*tool));
    tool->handlers = *handlers;
    tool->arg = arg;
    tool->limit = *limit;
    tool->began_ms = uv_now(loop);
    uv_pipe_init(loop, &tool->out, 0);
    uv_pipe_init(loop, &tool->err, 0);
    uv_timer_init(loop, &tool->limit_timer);
    uv_timer_init(loop, &tool->kill);
    tool->process.data = tool->out.data = tool->err.data = tool->limit_timer.data =
        tool->kill.data = tool;
    tool->open = 5;
    int err = spawn(tool, argv, dir);
    if (err != 0) {
        tool->exited = true;
        error_set(&tool->error, FLEET_ERR_SYSTEM, "no-tool", "cannot run %s: %s%s", argv[0],
                  uv_strerror(err),
                  err == UV_ENOENT   ? "; install it, or say where it is with nix_bin"
                  : err == UV_EAGAIN ? "; the account may have no more processes (`ulimit -u`)"
                  : err == UV_EACCES ? "; it must be a file that this account may execute"
                                     : "");
        uv_timer_start(&tool->limit_timer, on_not_started, 0, 0);
        return tool;
    }
    tool->reading = 2;
    uv_read_start((uv_stream_t *)&tool->out, on_alloc, on_read);
    uv_read_start((uv_stream_t *)&tool->err, on_alloc, on_read);
    build_limit_arm(limit, tool->began_ms, &tool->limit_timer, on_limit);
    return tool;
}
