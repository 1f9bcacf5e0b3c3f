/* A far shell that stays open: scripts in, output and exit status back (see shell.h).
 *
 * What is written for one script:
 *
 *   (
 *   NAME='value'
 *   ...the script...
 *   ) </dev/null
 *   fleet_status=$?; printf 'fleet-%s-%s %d\n' AAA BBB $fleet_status; the same to stderr
 *
 * The shell runs nothing of a compound command before it has read its last line, and the script
 * cannot eat the lines that follow it. The markers are new for each script and do not stand in the
 * text as they are printed. Both outputs must have shown theirs before the script is over.
 *
 * Invariants: at most one script is on its way (the head of the queue); a callback is the last
 * thing that an entry point does, as it may close the shell.
 */
#include "transport/shell.h"

#include <ctype.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"

#define ERR_TEXT_MAX     (8u * 1024u)
#define START_TIMEOUT_MS 30000u
#define MARKER_SIZE      64u
#define STATUS_SIZE      16u   /* of a status; what is longer is none */
#define ROOM_FOR_REST    1024u /* the end, beside a script and its variables */

struct script {
    struct script *next;
    char *text; /* as it goes to the shell; freed when sent */
    char marker[MARKER_SIZE];
    uint64_t timeout_ms;
    shell_done done;
    void (*drop)(void *arg); /* frees `arg` where `done` was not called; may be NULL */
    void *arg;
    struct error error; /* set: it must not be sent */
};

/* What one output has given for the script on its way. */
struct output {
    struct buf text;
    struct buf tail; /* not yet known to be text: may be the marker's beginning */
    bool over;
    int status;
};

struct shell {
    struct stream *stream; /* NULL once ended */
    uv_timer_t timer;
    struct script *first;
    struct script **last;
    bool sent; /* the first script is on its way */
    bool closed;
    struct output out;
    struct output err;
    struct error ended; /* why nothing can run any more */
};

static void shell_next(struct shell *shell);

static void output_reset(struct output *output) {
    buf_clear(&output->text);
    buf_clear(&output->tail);
    output->over = false;
    output->status = 0;
}

/* Its variables may hold a secret. */
static void wipe_text(struct script *script) {
    if (script->text != NULL) {
        secret_wipe(script->text, strlen(script->text));
    }
    free(script->text);
    script->text = NULL;
}

static void script_free(struct script *script) {
    wipe_text(script);
    free(script);
}

static void shell_free(uv_handle_t *handle) {
    struct shell *shell = container_of((uv_timer_t *)(void *)handle, struct shell, timer);
    while (shell->first != NULL) {
        struct script *script = shell->first;
        shell->first = script->next;
        if (script->drop != NULL) {
            script->drop(script->arg);
        }
        script_free(script);
    }
    buf_free(&shell->out.text);
    buf_free(&shell->out.tail);
    buf_free(&shell->err.text);
    buf_free(&shell->err.tail);
    free(shell);
}

/* Takes the first script off the queue and reports it, then goes on with the next one. */
static void finish_first(struct shell *shell, int err, const struct error *error) {
    struct script *script = shell->first;
    shell->first = script->next;
    if (shell->first == NULL) {
        shell->last = &shell->first;
    }
    uv_timer_stop(&shell->timer);
    struct buf out = shell->out.text;
    struct buf err_text = shell->err.text;
    struct shell_result result = {
        .err = err,
        .status = err == 0 ? shell->out.status : -1,
        .out = buf_text(&out),
        .out_len = out.len,
        .err_text = buf_text(&err_text),
    };
    if (error != NULL) {
        result.error = *error;
    }
    shell->out.text = (struct buf)BUF_INIT;
    shell->err.text = (struct buf)BUF_INIT;
    output_reset(&shell->out);
    output_reset(&shell->err);
    shell->sent = false;
    shell_next(shell);
    script->done(&result, script->arg);
    script_free(script);
    buf_free(&out);
    buf_free(&err_text);
}

static void end_stream(struct shell *shell) {
    if (shell->stream != NULL) {
        stream_close(shell->stream);
        shell->stream = NULL;
    }
}

static void on_timer(uv_timer_t *timer) {
    struct shell *shell = container_of(timer, struct shell, timer);
    struct script *script = shell->first;
    if (script == NULL) {
        return;
    }
    if (script->error.code != FLEET_OK) {
        struct error error = script->error;
        finish_first(shell, error.code, &error);
        return;
    }
    if (shell->ended.code == FLEET_OK && !elevate_is_ready(shell->stream)) {
        /* The shell's own start has a deadline of its own. */
        uv_timer_start(timer, on_timer, script->timeout_ms, 0);
        return;
    }
    if (shell->ended.code == FLEET_OK) {
        struct buf spent = BUF_INIT;
        text_add_duration(&spent, script->timeout_ms);
        error_set(&shell->ended, FLEET_ERR_TIMEOUT, "script-timeout",
                  "a script on the host did not end within %s; it was given up and its shell "
                  "closed. Look at the host's load and disk, or raise the time-out",
                  buf_text(&spent));
        buf_free(&spent);
        end_stream(shell);
    }
    struct error error = shell->ended;
    finish_first(shell, error.code, &error);
}

/* Sends the first script, or arms the timer to report that it can't be. */
static void shell_next(struct shell *shell) {
    struct script *script = shell->first;
    if (script == NULL || shell->sent) {
        return;
    }
    if (shell->ended.code != FLEET_OK || script->error.code != FLEET_OK) {
        uv_timer_start(&shell->timer, on_timer, 0, 0);
        return;
    }
    shell->sent = true;
    uv_timer_start(&shell->timer, on_timer, script->timeout_ms, 0);
    stream_write(shell->stream, script->text, strlen(script->text));
    wipe_text(script);
}

/* Keeps the beginning of stdout and the end of stderr. */
static void output_keep(struct output *output, const char *data, size_t len, bool keep_end) {
    size_t max = keep_end ? ERR_TEXT_MAX : SHELL_OUTPUT_MAX;
    if (!keep_end) {
        size_t room = max - output->text.len;
        buf_add(&output->text, data, len < room ? len : room);
        return;
    }
    if (len > max) {
        data += len - max;
        len = max;
    }
    if (output->text.len + len > max) {
        buf_consume(&output->text, output->text.len + len - max);
    }
    buf_add(&output->text, data, len);
}

/* Looks for "MARKER STATUS\n" in `tail`; what can't belong to it any more becomes text. */
static void output_scan(struct output *output, const char *marker, bool keep_end) {
    struct buf *tail = &output->tail;
    size_t marker_len = strlen(marker);
    const char *found = tail->len > 0 ? memmem(tail->data, tail->len, marker, marker_len) : NULL;
    if (found == NULL) {
        size_t sure = tail->len >= marker_len ? tail->len - marker_len + 1 : 0;
        output_keep(output, buf_text(tail), sure, keep_end);
        buf_consume(tail, sure);
        return;
    }
    size_t at = (size_t)(found - tail->data);
    const char *line_end = memchr(found, '\n', tail->len - at);
    output_keep(output, tail->data, at, keep_end);
    if (line_end == NULL && tail->len - at < marker_len + STATUS_SIZE) {
        buf_consume(tail, at);
        return;
    }
    output->over = true;
    output->status = (int)strtol(found + marker_len, NULL, 10);
    /* The rest is what background processes print; it belongs to nobody. */
    buf_clear(tail);
}

static void on_data(int fd, const char *data, size_t len, void *arg) {
    struct shell *shell = arg;
    struct output *output = fd == 2 ? &shell->err : &shell->out;
    if (!shell->sent || output->over) {
        return;
    }
    buf_add(&output->tail, data, len);
    output_scan(output, shell->first->marker, fd == 2);
    if (shell->out.over && shell->err.over) {
        finish_first(shell, 0, NULL);
    }
}

static void explain_end(struct shell *shell, const struct stream_end *end) {
    if (end->error.code != FLEET_OK) {
        shell->ended = end->error;
        return;
    }
    if (end->lost) {
        error_set(&shell->ended, FLEET_ERR_LOST, "connection-lost",
                  "the connection broke while a script ran on the host");
        return;
    }
    AUTO_FREE char *words = text_cleaned(buf_text(&shell->err.text), shell->err.text.len);
    error_set(&shell->ended, FLEET_ERR_REMOTE, "shell-ended",
              "the shell on the host ended by itself (status %d%s%s)%s%s", end->status,
              end->signal[0] != '\0' ? ", signal " : "", end->signal, words[0] != '\0' ? ": " : "",
              words);
}

static void on_end(const struct stream_end *end, void *arg) {
    struct shell *shell = arg;
    shell->stream = NULL;
    output_keep(&shell->out, buf_text(&shell->out.tail), shell->out.tail.len, false);
    output_keep(&shell->err, buf_text(&shell->err.tail), shell->err.tail.len, true);
    explain_end(shell, end);
    if (shell->first != NULL) {
        struct error error = shell->ended;
        finish_first(shell, error.code, &error);
    }
}

static const struct stream_handlers shell_handlers = {.on_data = on_data, .on_end = on_end};

struct shell *shell_open(uv_loop_t *loop, struct conn *conn, const struct elevation *how) {
    struct shell *shell = xcalloc(1, sizeof(*shell));
    shell->last = &shell->first;
    uv_timer_init(loop, &shell->timer);
    shell->stream =
        elevate_exec(loop, conn, how, "/bin/sh -s", START_TIMEOUT_MS, &shell_handlers, shell);
    return shell;
}

static bool name_is_valid(const char *name) {
    if (!isalpha((unsigned char)name[0]) && name[0] != '_') {
        return false;
    }
    for (const char *c = name; *c != '\0'; c++) {
        if (!isalnum((unsigned char)*c) && *c != '_') {
            return false;
        }
    }
    return true;
}

/* Of the variables as they are written: at once, since a buffer that grows leaves copies. */
static size_t room_for(const struct shell_var *vars, size_t count) {
    size_t room = 0;
    for (size_t i = 0; i < count; i++) {
        room += strlen(vars[i].name) + sizeof("=''\n");
        for (const char *c = vars[i].value; *c != '\0'; c++) {
            room += *c == '\'' ? sizeof("'\\''") - 1 : 1;
        }
    }
    return room;
}

/* Fills the script's text and marker. */
static void compose(struct script *script, const char *body, const struct shell_var *vars,
                    size_t var_count) {
    uint64_t random[2];
    if (RAND_bytes((unsigned char *)random, (int)sizeof(random)) != 1) {
        abort(); /* a marker that can be guessed would let a script's output forge its status */
    }
    unsigned long long first = random[0];
    unsigned long long second = random[1];
    snprintf(script->marker, sizeof(script->marker), "fleet-%016llx-%016llx ", first, second);

    struct buf text = BUF_INIT;
    buf_reserve(&text, strlen(body) + room_for(vars, var_count) + ROOM_FOR_REST);
    buf_add_text(&text, "(\n");
    for (size_t i = 0; i < var_count; i++) {
        if (!name_is_valid(vars[i].name)) {
            error_set(&script->error, FLEET_ERR_USAGE, "bad-variable",
                      "\"%s\" can't be a shell variable's name", vars[i].name);
            continue;
        }
        buf_printf(&text, "%s=", vars[i].name);
        text_shell_quote(&text, vars[i].value);
        buf_add_char(&text, '\n');
    }
    buf_add_text(&text, body);
    buf_add_text(&text, "\n) </dev/null\nfleet_status=$?\n");
    for (int fd = 1; fd <= 2; fd++) {
        buf_printf(&text, "printf 'fleet-%%s-%%s %%d\\n' %016llx %016llx $fleet_status >&%d\n",
                   first, second, fd);
    }
    script->text = buf_take(&text);
}

void shell_run(struct shell *shell, const char *script, const struct shell_var *vars,
               size_t var_count, uint64_t timeout_ms, shell_done done, void *arg) {
    shell_run_owned(shell, script, vars, var_count, timeout_ms, done, NULL, arg);
}

void shell_run_owned(struct shell *shell, const char *script, const struct shell_var *vars,
                     size_t var_count, uint64_t timeout_ms, shell_done done,
                     void (*drop)(void *arg), void *arg) {
    struct script *entry = xcalloc(1, sizeof(*entry));
    entry->timeout_ms = timeout_ms;
    entry->done = done;
    entry->drop = drop;
    entry->arg = arg;
    compose(entry, script, vars, var_count);
    *shell->last = entry;
    shell->last = &entry->next;
    shell_next(shell);
}

bool shell_has_ended(const struct shell *shell) {
    return shell->ended.code != FLEET_OK;
}

void shell_close(struct shell *shell) {
    if (shell->closed) {
        return;
    }
    shell->closed = true;
    end_stream(shell);
    uv_close((uv_handle_t *)&shell->timer, shell_free);
}
