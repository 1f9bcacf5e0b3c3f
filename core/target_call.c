/* Puts a script together, sends it, and turns what comes back into a reply and an error.
 *
 * A script is target/prelude.sh and the parts that it needs, without their comment lines: a target
 * has no use for them and a slow link has to carry them.
 */
#include "core/target_call.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/target_reply.h"
#include "target_script.h"

#define WORDS_MAX 700u
#define PLAIN_MAX 200u

/* What is kept until the answer comes. */
struct pending {
    const char *what;
    target_done done;
    void *arg;
};

static void add_var(struct target_call *call, const char *name, const char *value) {
    if (call->var_count == TARGET_VARS_MAX) {
        abort();
    }
    call->vars[call->var_count++] = (struct shell_var){.name = name, .value = value};
}

static struct buf *new_text(struct target_call *call) {
    if (call->text_count == TARGET_VARS_MAX) {
        abort();
    }
    return &call->texts[call->text_count++];
}

void target_call_set(struct target_call *call, const char *name, const char *value) {
    add_var(call, name, value != NULL ? value : "");
}

void target_call_number(struct target_call *call, const char *name, int64_t value) {
    struct buf *text = new_text(call);
    buf_printf(text, "%lld", (long long)value);
    add_var(call, name, buf_text(text));
}

void target_call_seconds(struct target_call *call, const char *name, uint64_t ms) {
    struct buf *text = new_text(call);
    buf_printf(text, "%llu.%03llu", (unsigned long long)(ms / 1000),
               (unsigned long long)(ms % 1000));
    add_var(call, name, buf_text(text));
}

void target_call_plain(struct target_call *call, const char *name, const char *value) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "@._:+/=?,~- ";
    struct buf *text = new_text(call);
    for (const char *c = value != NULL ? value : ""; *c != '\0' && text->len < PLAIN_MAX; c++) {
        buf_add_char(text, strchr(allowed, *c) != NULL ? *c : '_');
    }
    add_var(call, name, buf_text(text));
}

/* Appends a script's lines, those that are only a comment left out. */
static void add_script(struct buf *out, const char *script) {
    while (*script != '\0') {
        size_t len = strcspn(script, "\n");
        size_t blank = strspn(script, " ");
        if (blank < len && script[blank] != '#') {
            buf_add(out, script, len);
            buf_add_char(out, '\n');
        }
        script += len + (script[len] == '\n');
    }
}

void target_call_guard(struct target_call *call) {
    struct buf *text = new_text(call);
    add_script(text, target_script_prelude);
    add_script(text, target_script_record);
    add_script(text, target_script_guard_back);
    add_script(text, target_script_guard);
    add_var(call, "GUARD_SH", buf_text(text));
}

/* The last words of a script that failed, cleaned; one line. */
static void add_words(struct buf *out, const char *err_text) {
    struct buf words = BUF_INIT;
    text_clean(&words, err_text, strlen(err_text), false);
    while (words.len > 0 && words.data[words.len - 1] == ' ') {
        words.data[--words.len] = '\0';
    }
    size_t from = words.len > WORDS_MAX ? words.len - WORDS_MAX : 0;
    /* Not in the middle of a character. */
    while (from < words.len && ((unsigned char)words.data[from] & 0xC0) == 0x80) {
        from++;
    }
    buf_add_text(out, buf_text(&words) + from);
    buf_free(&words);
}

static int explain(const struct pending *pending, const struct shell_result *result,
                   struct error *error) {
    if (result->err != 0) {
        *error = result->error;
        if (error->code == FLEET_OK) {
            error_set(error, (enum fleet_err)result->err, "script-failed",
                      "%s could not be run on the host", pending->what);
        }
        return result->err;
    }
    if (result->status == 0) {
        return 0;
    }
    struct buf words = BUF_INIT;
    add_words(&words, result->err_text != NULL ? result->err_text : "");
    bool full = strstr(buf_text(&words), "No space left on device") != NULL;
    int err = error_set(error, full ? FLEET_ERR_SPACE : FLEET_ERR_REMOTE,
                        full ? "disk-full" : "script-failed",
                        "%s failed on the host (exit status %d): %s", pending->what, result->status,
                        words.len > 0 ? buf_text(&words) : "it said nothing");
    buf_free(&words);
    return err;
}

static void on_result(const struct shell_result *result, void *arg) {
    struct pending *pending = arg;
    struct error error = ERROR_INIT;
    struct target_reply *reply =
        target_reply_parse(result->out != NULL ? result->out : "", result->out_len);
    int err = explain(pending, result, &error);
    struct pending call = *pending;
    free(pending);
    call.done(err, reply, &error, call.arg);
    target_reply_free(reply);
}

void target_call_send(struct target_call *call, struct shell *shell) {
    struct buf script = BUF_INIT;
    add_script(&script, target_script_prelude);
    for (size_t i = 0; i < TARGET_PARTS_MAX && call->parts[i] != NULL; i++) {
        add_script(&script, call->parts[i]);
    }
    struct pending *pending = xcalloc(1, sizeof(*pending));
    *pending = (struct pending){.what = call->what, .done = call->done, .arg = call->arg};
    shell_run_owned(shell, buf_text(&script), call->vars, call->var_count, call->timeout_ms,
                    on_result, free, pending);
    buf_free(&script);
    for (size_t i = 0; i < call->text_count; i++) {
        buf_free(&call->texts[i]);
    }
}
