/* A command: exit status 0 passes. On the target through the pipeline's shell, or here by argv,
 * never through a shell.
 *
 * Here it leads a process group of its own, so that at the deadline everything that it started
 * goes with it. The try (struct run) outlives the probe's interest in it until its process and its
 * pipe are closed.
 */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "healthcheck/probe.h"

#define OUTPUT_KEPT 400

struct run {
    struct probe *probe; /* NULL: given up */
    uv_process_t process;
    uv_pipe_t pipe; /* stdout and stderr */
    size_t open;
    bool exited, drained;
    int64_t status;
    int signal;
    char output[OUTPUT_KEPT]; /* the last words */
    size_t output_len;
    char chunk[4096];
};

/* argv with ${name} and ${address} expanded, ended by NULL. */
static char **expand_argv(const struct probe *probe) {
    const struct inv_strings *run = &probe->entry->run;
    char **argv = xcalloc(run->count + 1, sizeof(char *));
    for (size_t i = 0; i < run->count; i++) {
        argv[i] = inv_expand(run->items[i], probe->host, probe->address);
    }
    return argv;
}

static void free_argv(char **argv) {
    for (size_t i = 0; argv[i] != NULL; i++) {
        auto_free(&argv[i]);
    }
    auto_free(&argv);
}

/* The last line that isn't empty, cleaned; the caller frees. */
static char *last_line(const char *text, size_t len) {
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r' || text[len - 1] == ' ')) {
        len--;
    }
    const char *newline = len > 0 ? memrchr(text, '\n', len) : NULL;
    const char *begin = newline == NULL ? text : newline + 1;
    return text_cleaned(begin, len - (size_t)(begin - text));
}

static void conclude(struct probe *probe, int64_t status, int signum, const char *output,
                     size_t len) {
    if (len > OUTPUT_KEPT) {
        output += len - OUTPUT_KEPT;
        len = OUTPUT_KEPT;
    }
    char *words = last_line(output, len);
    const char *colon = words[0] == '\0' ? "" : ": ";
    if (signum != 0) {
        probe_done(probe, GATE_FAIL, "killed by signal %d (%s)%s%s", signum, strsignal(signum),
                   colon, words);
    } else if (status == 0) {
        probe_done(probe, GATE_PASS, "exit status 0%s%s", colon, words);
    } else {
        probe_done(probe, GATE_FAIL, "exit status %d%s%s", (int)status, colon, words);
    }
    auto_free(&words);
}

/* --- On this machine --- */

static void on_closed(uv_handle_t *handle) {
    struct run *run = handle->data;
    if (--run->open == 0) {
        auto_free(&run);
    }
}

/* Both the exit and the end of the output have come. A child that keeps the pipe open in the
 * background doesn't hold up the result. */
static void finish(struct run *run) {
    struct probe *probe = run->probe;
    run->probe = NULL;
    if (!uv_is_closing((uv_handle_t *)&run->pipe)) {
        uv_close((uv_handle_t *)&run->pipe, on_closed);
    }
    if (probe != NULL) {
        conclude(probe, run->status, run->signal, run->output, run->output_len);
    }
}

static void keep_output(struct run *run, const char *data, size_t len) {
    if (len >= OUTPUT_KEPT) {
        memcpy(run->output, data + len - OUTPUT_KEPT, OUTPUT_KEPT);
        run->output_len = OUTPUT_KEPT;
        return;
    }
    if (run->output_len + len > OUTPUT_KEPT) {
        size_t drop = run->output_len + len - OUTPUT_KEPT;
        memmove(run->output, run->output + drop, run->output_len - drop);
        run->output_len -= drop;
    }
    memcpy(run->output + run->output_len, data, len);
    run->output_len += len;
}

static void on_exit_status(uv_process_t *process, int64_t status, int signum) {
    struct run *run = container_of(process, struct run, process);
    run->exited = true;
    run->status = status;
    run->signal = signum;
    /* Given up: what it left running in its group goes as well. */
    if (run->probe == NULL) {
        kill(-process->pid, SIGKILL);
    }
    uv_close((uv_handle_t *)process, on_closed);
    /* What it wrote last is in the pipe still, and read without waiting for others to close it. */
    if (!run->drained && run->probe != NULL) {
        ssize_t got = 0;
        uv_os_fd_t fd;
        int reads = 32; /* a child that writes on in the background must not hold us here */
        if (uv_fileno((uv_handle_t *)&run->pipe, &fd) == 0) {
            while (reads-- > 0 && (got = read(fd, run->chunk, sizeof(run->chunk))) > 0) {
                keep_output(run, run->chunk, (size_t)got);
            }
        }
    }
    finish(run);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
    (void)suggested;
    struct run *run = handle->data;
    *buf = uv_buf_init(run->chunk, sizeof(run->chunk));
}

static void on_output(uv_stream_t *stream, ssize_t got, const uv_buf_t *buf) {
    struct run *run = stream->data;
    if (got > 0) {
        keep_output(run, buf->base, (size_t)got);
    } else if (got < 0) {
        run->drained = true;
        uv_close((uv_handle_t *)stream, on_closed);
    }
}

static void spawn(struct probe *probe, char **argv) {
    struct run *run = xcalloc(1, sizeof(*run));
    uv_pipe_init(probe->env->loop, &run->pipe, 0);
    run->pipe.data = run;
    run->process.data = run;
    int ends[2];
    int err = uv_pipe(ends, UV_NONBLOCK_PIPE, 0);
    if (err == 0) {
        uv_stdio_container_t stdio[] = {
            {.flags = UV_IGNORE},
            {.flags = UV_INHERIT_FD, .data.fd = ends[1]},
            {.flags = UV_INHERIT_FD, .data.fd = ends[1]},
        };
        uv_pipe_open(&run->pipe, ends[0]);
        uv_process_options_t options = {
            .exit_cb = on_exit_status,
            .file = argv[0],
            .args = argv,
            .flags = UV_PROCESS_DETACHED,
            .stdio = stdio,
            .stdio_count = (int)ARRAY_LEN(stdio),
        };
        err = uv_spawn(probe->env->loop, &run->process, &options);
        close(ends[1]);
        run->open = 2;
    } else {
        run->open = 1;
    }
    if (err != 0) {
        if (run->open == 2) {
            uv_close((uv_handle_t *)&run->process, on_closed);
        }
        uv_close((uv_handle_t *)&run->pipe, on_closed);
        probe_done(probe, GATE_FAIL, "cannot run %s: %s", argv[0], uv_strerror(err));
        return;
    }
    run->probe = probe;
    probe->attempt = run;
    uv_read_start((uv_stream_t *)&run->pipe, on_alloc, on_output);
}

/* --- On the target --- */

static void on_answer(const struct health_command *result, void *arg) {
    struct probe *probe = probe_answered(arg);
    if (probe == NULL) {
        return;
    }
    if (result->error != NULL) {
        probe_done(probe, GATE_FAIL, "it did not run: %s", result->error->message);
    } else {
        const char *output = result->output != NULL ? result->output : "";
        conclude(probe, result->status, 0, output, strlen(output));
    }
}

static void ask_target(struct probe *probe, char **argv) {
    if (probe->env->command == NULL) {
        probe_done(probe, GATE_FAIL, "no connection to the host");
        return;
    }
    struct probe_question *question = probe_ask(probe);
    const char **words = xcalloc(probe->entry->run.count + 1, sizeof(char *));
    for (size_t i = 0; i < probe->entry->run.count; i++) {
        words[i] = argv[i];
    }
    probe->env->command(words, probe->entry->run.count, probe->entry->timeout_ms, on_answer,
                        question, probe->env->arg);
    auto_free(&words);
}

static void start(struct probe *probe) {
    char **argv = expand_argv(probe);
    if (probe->entry->from_target) {
        ask_target(probe, argv);
    } else {
        spawn(probe, argv);
    }
    free_argv(argv);
}

static void cancel(struct probe *probe) {
    if (probe->entry->from_target) {
        probe_give_up(probe);
        return;
    }
    struct run *run = probe->attempt;
    run->probe = NULL;
    /* Its exit closes the rest. */
    kill(-run->process.pid, SIGKILL);
}

static int validate(const struct inv_health *entry, struct error *error) {
    if (entry->run.count == 0 || entry->run.items[0][0] == '\0') {
        return error_set(error, FLEET_ERR_USAGE, "bad-health",
                         "health \"%s\": `run` names no program", entry->name);
    }
    return 0;
}

const struct probe_type probe_command = {
    .name = "command",
    .start = start,
    .cancel = cancel,
    .validate = validate,
};
