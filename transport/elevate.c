/* A command on the far side that announces itself, as root where asked (see elevate.h).
 *
 * What is sent, here with a password (the account's login shell reads the outermost line; single
 * quotes mean the same to sh, csh, fish, zsh and nushell as long as nothing inside is a quote):
 *
 *   /bin/sh -c 'PATH=...; export PATH; exec sudo -H -S -p fleet-AAA%%BBB /bin/sh -c "PATH=...;
 *               export PATH; printf fleet-%s-%s AAA BBB; printf ... >&2; exec COMMAND"'
 *
 * The marker and the prompt never stand in the command line as they are printed, so a shell that
 * echoes its commands can fool neither us nor sudo. The marker is printed on both outputs; what a
 * login shell or sudo said before it is kept only to explain a failure.
 *
 * Invariants: nothing of the owner's is written before the marker has been seen on stdout; the
 * password is written at most once a stream, and only after the prompt.
 */
#include "transport/elevate.h"

#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"

#define NOISE_MAX      (16u * 1024u)
#define NOISE_SHOWN    300u
#define TOKEN_HEX_SIZE 17u

#define PATH_WIDENED                                                                               \
    ":/run/wrappers/bin:/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin"

/* One output of the far side up to the marker. */
struct announcement {
    bool seen;
    struct buf noise;
};

struct elevated {
    struct stream stream; /* first: what the owner holds */
    struct stream *inner; /* NULL once ended or closed */
    uv_timer_t timer;
    struct stream_handlers handlers;
    void *arg;
    enum elevate_how how;
    const char *password;
    uint64_t timeout_ms;
    bool password_sent;
    bool paused;
    bool eof;
    bool closed;
    char marker[64];
    char prompt[64];
    struct announcement out;
    struct announcement err;
    struct buf held;    /* the owner's writes before the marker */
    struct error error; /* why it never started; for the end that is about to be reported */
};

static void elevated_free(uv_handle_t *handle) {
    struct elevated *self = container_of((uv_timer_t *)(void *)handle, struct elevated, timer);
    buf_free(&self->out.noise);
    buf_free(&self->err.noise);
    secret_wipe(self->held.data, self->held.len);
    buf_free(&self->held);
    free(self);
}

/* Nothing is called after this. */
static void elevated_release(struct elevated *self) {
    if (self->closed) {
        return;
    }
    self->closed = true;
    if (self->inner != NULL) {
        stream_close(self->inner);
        self->inner = NULL;
    }
    uv_close((uv_handle_t *)&self->timer, elevated_free);
}

static void elevated_end(struct elevated *self, const struct stream_end *end) {
    struct stream_handlers handlers = self->handlers;
    void *arg = self->arg;
    elevated_release(self);
    handlers.on_end(end, arg);
}

/* The far side's own words: the end of what it said, in one clean line. */
static void words_of(const struct buf *noise, struct buf *out) {
    size_t skip = noise->len > NOISE_SHOWN ? noise->len - NOISE_SHOWN : 0;
    struct buf clean = BUF_INIT;
    text_clean(&clean, buf_text(noise) + skip, noise->len - skip, false);
    const char *text = buf_text(&clean);
    size_t len = clean.len;
    while (len > 0 && text[len - 1] == ' ') {
        len--;
    }
    while (len > 0 && *text == ' ') {
        text++;
        len--;
    }
    buf_add(out, text, len);
    buf_free(&clean);
}

static bool noise_has(const struct buf *noise, const char *word) {
    return noise->len > 0 && memmem(noise->data, noise->len, word, strlen(word)) != NULL;
}

/* Says in self->error why the marker never came; `what` is "ended with status 1" or the like. */
static void explain(struct elevated *self, const char *what) {
    struct buf out = BUF_INIT;
    struct buf err = BUF_INIT;
    words_of(&self->out.noise, &out);
    words_of(&self->err.noise, &err);
    bool by_sudo = self->how != ELEVATE_NONE &&
                   (noise_has(&self->err.noise, "sudo") || self->password_sent || out.len == 0);
    if (by_sudo) {
        error_set(&self->error, FLEET_ERR_REMOTE, "sudo-refused",
                  "sudo did not start the command (%s): %s. Allow it without a password for this "
                  "user (NOPASSWD), give a password_command, or log in as root",
                  what, err.len > 0 ? buf_text(&err) : "it said nothing");
    } else if (out.len > 0) {
        error_set(
            &self->error, FLEET_ERR_REMOTE, "login-noise",
            "the login shell printed \"%s\" and did not start /bin/sh (%s)%s%s. Give the "
            "account a login shell that runs commands, without a ForceCommand in sshd_config, "
            "and keep its start-up files silent",
            buf_text(&out), what, err.len > 0 ? ": " : "", buf_text(&err));
    } else {
        error_set(&self->error, FLEET_ERR_REMOTE, "no-shell",
                  "/bin/sh did not start on the far side (%s): %s. Check the account's login shell",
                  what, err.len > 0 ? buf_text(&err) : "it said nothing");
    }
    buf_free(&out);
    buf_free(&err);
}

static void end_unstarted(struct elevated *self, int status) {
    struct stream_end end = {.status = status, .error = self->error};
    elevated_end(self, &end);
}

static void on_timer(uv_timer_t *timer) {
    struct elevated *self = container_of(timer, struct elevated, timer);
    if (self->error.code == FLEET_OK) {
        struct buf what = BUF_INIT;
        buf_add_text(&what, "no answer within ");
        text_add_duration(&what, self->timeout_ms);
        explain(self, buf_text(&what));
        buf_free(&what);
    }
    end_unstarted(self, -1);
}

/* The owner may write now: what it wrote so far goes out first. */
static void release_writes(struct elevated *self) {
    uv_timer_stop(&self->timer);
    if (self->held.len > 0) {
        stream_write(self->inner, self->held.data, self->held.len);
        secret_wipe(self->held.data, self->held.len);
        buf_free(&self->held);
    }
    if (self->eof) {
        stream_eof(self->inner);
    }
    if (self->paused) {
        stream_pause(self->inner, true);
    }
}

/* sudo asks. Answers the first time; a second prompt means that the password was wrong, and
 * trying it again would only lock the account. */
static void answer_prompt(struct elevated *self) {
    struct buf *noise = &self->err.noise;
    const char *found = NULL;
    if (noise->len == 0 || self->how != ELEVATE_SUDO_PASSWORD ||
        (found = memmem(noise->data, noise->len, self->prompt, strlen(self->prompt))) == NULL) {
        return;
    }
    buf_consume(noise, (size_t)(found - noise->data) + strlen(self->prompt));
    if (self->password_sent) {
        error_set(&self->error, FLEET_ERR_REMOTE, "sudo-refused",
                  "sudo did not accept the password. Check password_command; it was tried once");
        uv_timer_start(&self->timer, on_timer, 0, 0);
        return;
    }
    self->password_sent = true;
    stream_write(self->inner, self->password, strlen(self->password));
    stream_write(self->inner, "\n", 1);
}

/* Adds to what came before the marker. When the marker is complete, returns true and what follows
 * it in ret_rest (a part of `from->noise`). */
static bool announcement_feed(struct announcement *from, const char *marker, const char *data,
                              size_t len, size_t *ret_rest) {
    buf_add(&from->noise, data, len);
    const char *found = memmem(from->noise.data, from->noise.len, marker, strlen(marker));
    if (found != NULL) {
        from->seen = true;
        *ret_rest = (size_t)(found - from->noise.data) + strlen(marker);
        return true;
    }
    if (from->noise.len > NOISE_MAX) {
        buf_consume(&from->noise, from->noise.len - NOISE_MAX / 2);
    }
    return false;
}

static void on_inner_data(int fd, const char *data, size_t len, void *arg) {
    struct elevated *self = arg;
    struct announcement *from = fd == 2 ? &self->err : &self->out;
    if (from->seen) {
        self->handlers.on_data(fd, data, len, self->arg);
        return;
    }
    size_t rest = 0;
    if (!announcement_feed(from, self->marker, data, len, &rest)) {
        if (fd == 2) {
            answer_prompt(self);
        }
        return;
    }
    if (fd != 2) {
        release_writes(self);
    }
    struct buf noise = from->noise;
    from->noise = (struct buf)BUF_INIT;
    if (noise.len > rest) {
        self->handlers.on_data(fd, noise.data + rest, noise.len - rest, self->arg);
    }
    buf_free(&noise);
}

static void on_inner_drain(void *arg) {
    struct elevated *self = arg;
    if (self->handlers.on_drain != NULL) {
        self->handlers.on_drain(self->arg);
    }
}

static void on_inner_end(const struct stream_end *end, void *arg) {
    struct elevated *self = arg;
    self->inner = NULL;
    if (end->lost || self->out.seen) {
        elevated_end(self, end);
        return;
    }
    char what[64];
    if (end->status >= 0) {
        snprintf(what, sizeof(what), "ended with status %d", end->status);
    } else {
        snprintf(what, sizeof(what), "ended by signal %s", end->signal);
    }
    if (self->error.code == FLEET_OK) {
        explain(self, what);
    }
    end_unstarted(self, end->status != 0 ? end->status : -1);
}

/* As buf_add, leaving no copy behind where the buffer grows. */
static void hold(struct buf *held, const void *data, size_t len) {
    if (held->len + len + 1 > held->cap) {
        struct buf larger = BUF_INIT;
        buf_reserve(&larger, 2 * (held->len + len));
        buf_add(&larger, held->data, held->len);
        buf_wipe(held);
        *held = larger;
    }
    buf_add(held, data, len);
}

static int elevated_write(struct stream *stream, const void *data, size_t len) {
    struct elevated *self = container_of(stream, struct elevated, stream);
    if (self->inner == NULL) {
        return FLEET_ERR_LOST;
    }
    if (self->out.seen) {
        return stream_write(self->inner, data, len);
    }
    hold(&self->held, data, len);
    return 0;
}

static int elevated_write_chunk(struct stream *stream, struct chunk *chunk) {
    struct elevated *self = container_of(stream, struct elevated, stream);
    if (self->inner != NULL && self->out.seen) {
        return stream_write_chunk(self->inner, chunk);
    }
    return elevated_write(stream, chunk->data, chunk->len);
}

static size_t elevated_queued(const struct stream *stream) {
    const struct elevated *self = (const struct elevated *)(const void *)stream;
    return self->held.len + (self->inner != NULL ? stream_queued(self->inner) : 0);
}

static void elevated_eof(struct stream *stream) {
    struct elevated *self = container_of(stream, struct elevated, stream);
    self->eof = true;
    if (self->inner != NULL && self->out.seen) {
        stream_eof(self->inner);
    }
}

static void elevated_pause(struct stream *stream, bool paused) {
    struct elevated *self = container_of(stream, struct elevated, stream);
    self->paused = paused;
    if (self->inner != NULL && self->out.seen) {
        stream_pause(self->inner, paused);
    }
}

static void elevated_close(struct stream *stream) {
    elevated_release(container_of(stream, struct elevated, stream));
}

static const struct stream_ops elevated_ops = {
    .write = elevated_write,
    .write_chunk = elevated_write_chunk,
    .queued = elevated_queued,
    .eof = elevated_eof,
    .pause = elevated_pause,
    .close = elevated_close,
};

static const struct stream_handlers inner_handlers = {
    .on_data = on_inner_data,
    .on_drain = on_inner_drain,
    .on_end = on_inner_end,
};

bool elevate_is_ready(const struct stream *stream) {
    return ((const struct elevated *)(const void *)stream)->out.seen;
}

/* Anything else could end a quote or mean something to one of five shells. */
static bool command_is_plain(const char *command) {
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 ._/:=+,@%?-";
    return command[0] != '\0' && command[strspn(command, plain)] == '\0';
}

static void random_token(char ret_hex[TOKEN_HEX_SIZE]) {
    unsigned char bytes[(TOKEN_HEX_SIZE - 1) / 2];
    if (RAND_bytes(bytes, (int)sizeof(bytes)) != 1) {
        abort(); /* without randomness the markers would promise what they don't hold */
    }
    for (size_t i = 0; i < sizeof(bytes); i++) {
        snprintf(ret_hex + 2 * i, 3, "%02x", bytes[i]);
    }
}

/* The line for the login shell; `dollar` is how the two levels spell "$", `filter` may be NULL. */
static void add_inner_script(struct buf *out, const char *dollar, const char *first,
                             const char *second, const char *filter, const char *command) {
    buf_printf(out, "PATH=%s{PATH:-/usr/bin:/bin}" PATH_WIDENED ":%sHOME/.nix-profile/bin; ",
               dollar, dollar);
    buf_printf(out, "export PATH; printf fleet-%%s-%%s %s %s; printf fleet-%%s-%%s %s %s >&2; ",
               first, second, first, second);
    if (filter == NULL) {
        buf_printf(out, "exec %s", command);
        return;
    }
    buf_printf(out, "command -v %.*s >/dev/null || exit 127; printf %c; %s | %s",
               (int)strcspn(filter, " "), filter, ELEVATE_PIPE_READY, filter, command);
}

static char *command_line(struct elevated *self, const char *filter, const char *command) {
    char first[TOKEN_HEX_SIZE];
    char second[TOKEN_HEX_SIZE];
    char asking[TOKEN_HEX_SIZE];
    random_token(first);
    random_token(second);
    random_token(asking);
    snprintf(self->marker, sizeof(self->marker), "fleet-%s-%s", first, second);
    snprintf(self->prompt, sizeof(self->prompt), "fleet-%s%%ask", asking);

    struct buf line = BUF_INIT;
    buf_add_text(&line, "/bin/sh -c '");
    if (self->how == ELEVATE_NONE) {
        add_inner_script(&line, "$", first, second, filter, command);
    } else {
        buf_add_text(&line, "PATH=${PATH:-/usr/bin:/bin}" PATH_WIDENED "; export PATH; ");
        if (self->how == ELEVATE_SUDO) {
            buf_add_text(&line, "exec sudo -H -n /bin/sh -c \"");
        } else {
            /* sudo prints "%%" as "%": the prompt differs from its spelling here. */
            buf_printf(&line, "exec sudo -H -S -p fleet-%s%%%%ask /bin/sh -c \"", asking);
        }
        add_inner_script(&line, "\\$", first, second, filter, command);
        buf_add_char(&line, '"');
    }
    buf_add_char(&line, '\'');
    return buf_take(&line);
}

struct stream *elevate_pipe(uv_loop_t *loop, struct conn *conn, const struct elevation *how,
                            const char *filter, const char *command, uint64_t timeout_ms,
                            const struct stream_handlers *handlers, void *arg) {
    struct elevated *self = xcalloc(1, sizeof(*self));
    self->stream.ops = &elevated_ops;
    self->handlers = *handlers;
    self->arg = arg;
    self->how = how->how;
    self->password = how->password != NULL ? how->password : "";
    self->timeout_ms = timeout_ms;
    uv_timer_init(loop, &self->timer);
    if (!command_is_plain(command) || (filter != NULL && !command_is_plain(filter))) {
        error_set(&self->error, FLEET_ERR_USAGE, "no-shell",
                  "the command holds characters that login shells read differently; use only "
                  "letters, digits, spaces and ._/:=+,@%%?-");
        uv_timer_start(&self->timer, on_timer, 0, 0);
        return &self->stream;
    }
    AUTO_FREE char *line = command_line(self, filter, command);
    uv_timer_start(&self->timer, on_timer, timeout_ms, 0);
    self->inner = conn_exec(conn, line, &inner_handlers, self);
    return &self->stream;
}

struct stream *elevate_exec(uv_loop_t *loop, struct conn *conn, const struct elevation *how,
                            const char *command, uint64_t timeout_ms,
                            const struct stream_handlers *handlers, void *arg) {
    return elevate_pipe(loop, conn, how, NULL, command, timeout_ms, handlers, arg);
}
