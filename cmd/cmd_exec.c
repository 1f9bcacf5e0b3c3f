/* `fleet exec -- CMD...`: a command on the selected hosts, its output line by line.
 *
 * The words go to the far /bin/sh on its stdin, quoted, as one compound command: cut short by a
 * lost connection it is a syntax error and does nothing. For people each line is printed as it
 * comes, the host before it, cleaned; with --json each host's output is kept and printed whole.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/host_task.h"
#include "cmd/json_line.h"
#include "core/base/clock.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "transport/elevate.h"

#define TIMEOUT_DEFAULT_MS 3600000u
#define START_TIMEOUT_MS   30000u
/* A line is printed in parts of so many bytes where it has no end. */
#define LINE_MAX_BYTES (64u * 1024u)
/* With --json so much of each output is kept of each host. */
#define KEPT_MAX      (16u * 1024u * 1024u)
#define EXIT_NO_SHELL 127

struct execution;

struct exec_host {
    struct execution *execution;
    struct fan_host *host;
    struct buf out[2]; /* stdout, stderr: the line that has no end yet, or with --json all */
    bool truncated;
    uint64_t began_ms;
    int status; /* -1: it did not end by itself */
};

struct execution {
    const struct context *context;
    char *script;
    struct exec_host *hosts; /* one a host */
    struct host_tally tally;
};

static void print_line(const struct exec_host *host, FILE *file, const char *data, size_t len) {
    struct buf line = BUF_INIT;
    if (len > 0 && data[len - 1] == '\r') {
        len--;
    }
    buf_printf(&line, "%s: ", host->host->inv->name);
    text_clean(&line, data, len, false);
    buf_add_char(&line, '\n');
    fwrite(line.data, 1, line.len, file);
    buf_free(&line);
}

/* Prints the whole lines, and with `all` what is left. */
static void print_lines(struct exec_host *host, size_t which, bool all) {
    struct buf *out = &host->out[which];
    FILE *file = which == 0 ? stdout : stderr;
    size_t done = 0;
    while (done < out->len) {
        const char *end = memchr(out->data + done, '\n', out->len - done);
        size_t len = end != NULL ? (size_t)(end - out->data) - done : out->len - done;
        if (end == NULL && !all && len < LINE_MAX_BYTES) {
            break;
        }
        print_line(host, file, out->data + done, len);
        done += len + (end != NULL ? 1 : 0);
    }
    buf_consume(out, done);
    fflush(file);
}

static void on_data(int fd, const char *data, size_t len, void *arg) {
    struct exec_host *host = arg;
    size_t which = fd == 2 ? 1 : 0;
    struct buf *out = &host->out[which];
    if (!host->execution->context->json) {
        buf_add(out, data, len);
        print_lines(host, which, false);
        return;
    }
    size_t room = out->len < KEPT_MAX ? KEPT_MAX - out->len : 0;
    if (len > room) {
        host->truncated = true;
        len = room;
    }
    buf_add(out, data, len);
}

static void on_end(const struct stream_end *end, void *arg) {
    struct exec_host *host = arg;
    struct error error = end->error;
    if (end->lost || error.code != 0) {
        fan_done(host->host, &error);
        return;
    }
    host->status = end->status;
    if (end->status == 0) {
        fan_done(host->host, NULL);
        return;
    }
    if (end->signal[0] != '\0') {
        error_set(&error, FLEET_ERR_REMOTE, "killed", "ended by signal %s", end->signal);
    } else {
        error_set(&error, FLEET_ERR_REMOTE, "exit-status", "exit status %d", end->status);
    }
    fan_done(host->host, &error);
}

static const struct stream_handlers handlers = {.on_data = on_data, .on_end = on_end};

static void begin(struct fan_host *fan_host, void *arg) {
    struct execution *execution = arg;
    struct exec_host *host = &execution->hosts[fan_host->index];
    host->execution = execution;
    host->host = fan_host;
    host->began_ms = clock_now_ms(&clock_system);
    struct stream *stream = elevate_exec(fan_host->loop, fan_host->conn, &fan_host->elevation,
                                         "/bin/sh -s", START_TIMEOUT_MS, &handlers, host);
    stream_write(stream, execution->script, strlen(execution->script));
    stream_eof(stream);
}

static void print_json(const struct fan_host *fan_host, const struct exec_host *host,
                       const struct error *error) {
    struct buf line = BUF_INIT;
    uint64_t now = clock_now_ms(&clock_system);
    json_open(&line, NULL);
    json_text(&line, "host", fan_host->inv->name);
    if (host->status >= 0) {
        json_number(&line, "exit", host->status);
    } else {
        json_null(&line, "exit");
    }
    json_bytes(&line, "stdout", buf_text(&host->out[0]), host->out[0].len);
    json_bytes(&line, "stderr", buf_text(&host->out[1]), host->out[1].len);
    json_number(&line, "duration_ms", host->began_ms != 0 ? (int64_t)(now - host->began_ms) : 0);
    if (host->truncated) {
        json_bool(&line, "truncated", true);
    }
    if (error != NULL && host->status < 0) {
        json_text(&line, "reason", error->reason);
        json_text(&line, "message", error->message);
    }
    json_close(&line);
    json_print(&line);
    buf_free(&line);
}

/* A shell line given as one word is a common slip: no program has such a name. */
static const char *hint(const struct exec_host *host, const struct args *args) {
    bool slip = host->status == EXIT_NO_SHELL && args->rest_count == 1 &&
                strpbrk(args->rest[0], " |;&") != NULL;
    return slip ? "; a shell line is run by: fleet exec -- sh -c 'LINE'" : "";
}

static void result(const struct fan_host *fan_host, const struct error *error, void *arg) {
    struct execution *execution = arg;
    struct exec_host *host = &execution->hosts[fan_host->index];
    host_tally_add(&execution->tally, fan_host, error);
    if (execution->context->json) {
        print_json(fan_host, host, error);
    } else {
        for (size_t i = 0; host->execution != NULL && i < ARRAY_LEN(host->out); i++) {
            print_lines(host, i, true);
        }
    }
    if (error != NULL) {
        fprintf(stderr, "%s: %s%s\n", fan_host->inv->name, error->message,
                hint(host, execution->context->args));
    }
    buf_free(&host->out[0]);
    buf_free(&host->out[1]);
}

/* `{ 'CMD' 'ARG' </dev/null; exit; }`: the shell's exit status is the command's. */
static char *make_script(const struct args *args) {
    struct buf script = BUF_INIT;
    buf_add_char(&script, '{');
    for (size_t i = 0; i < args->rest_count; i++) {
        buf_add_char(&script, ' ');
        text_shell_quote(&script, args->rest[i]);
    }
    buf_add_text(&script, " </dev/null; exit; }\n");
    return buf_take(&script);
}

static void summarize(const struct execution *execution) {
    const struct host_tally *tally = &execution->tally;
    size_t bad = tally->failed + tally->unreachable;
    if (execution->context->verbosity < 0 || bad == 0 || execution->context->host_count == 1) {
        return;
    }
    fprintf(stderr, "fleet: of %zu hosts, %zu failed and %zu could not be reached\n",
            execution->context->host_count, tally->failed, tally->unreachable);
}

int cmd_exec(const struct args *args) {
    struct context context;
    context_init(&context, args);
    if (args->rest_count == 0 || args->rest[0][0] == '\0') {
        return context_usage(args, args->has_rest
                                       ? "there is no command behind '--'"
                                       : "fleet exec needs '--' before the command, as in "
                                         "fleet exec @db -- uptime");
    }
    int code = host_task_prepare(&context);
    if (code == 0) {
        struct execution execution = {.context = &context, .script = make_script(args)};
        execution.hosts = xcalloc(context.host_count + 1, sizeof(*execution.hosts));
        for (size_t i = 0; i < context.host_count; i++) {
            execution.hosts[i].status = -1;
        }
        uint64_t timeout_ms = args_duration_ms(args, OPTION_TIMEOUT, TIMEOUT_DEFAULT_MS);
        int interrupted = host_task_run(&context, false, timeout_ms, begin, result, &execution);
        summarize(&execution);
        code = host_tally_exit(&execution.tally, interrupted);
        free(execution.hosts);
        free(execution.script);
    }
    context_release(&context);
    return code;
}
