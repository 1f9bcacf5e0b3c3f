/* Streams over an SSH session.
 *
 *   waiting ──► opening ──► requesting ──► open ──► closing ──► (swept)
 *                  │            │           │
 *                  └────────────┴───────────┴── on_end, then closing
 *
 * libssh2 opens one channel at a time on a session, and sshd refuses more than ten sessions at
 * once (MaxSessions), so streams wait for their turn. One session channel is kept open in reserve
 * (the spare): the next exec then takes one round trip instead of two, does not wait for a tunnel
 * that can't be opened, and there is a channel to read through while no stream exists (libssh2
 * reads only through a channel). A stream that the owner has given up, or
 * whose end has been told, is `ended`: it stays until its channel is closed on both sides, since a
 * channel counts at sshd until then, and is swept.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "transport/ssh_session.h"
#include "transport/ssh_wire.h"
#include "transport/write_queue.h"

enum {
    SESSIONS_MAX = 8,               /* at once; sshd's MaxSessions is 10, and closing takes time */
    WINDOW_BYTES = 4 * 1024 * 1024, /* what the far side may send unasked */
    PACKET_BYTES = 32 * 1024,
    STEP_BYTES = 512 * 1024, /* written or read by one stream in one turn */
    OPEN_TIMEOUT_S = 60,
    NUDGE_MS = 250,
    ABANDONED_TIMEOUT_S = 3, /* an open that nobody waits for must not hold up the others */
};

enum phase {
    WAITING,
    OPENING,
    REQUESTING,
    OPEN,
    CLOSING,
    DONE
};

struct ssh_stream {
    struct stream stream; /* first: this is the owner's struct stream */
    struct ssh_session *session;
    struct ssh_stream *next;
    struct stream_handlers handlers;
    void *arg;
    enum phase phase;
    bool ended;   /* no callback any more */
    bool counted; /* in session->sessions */
    bool paused;
    bool eof_wanted;
    bool eof_sent;
    bool stderr_done;
    char *command;     /* NULL for a tunnel */
    struct buf target; /* a tunnel's direct-tcpip message */
    char *target_name;
    LIBSSH2_CHANNEL *channel;
    struct write_queue out;
};

static int stream_add(struct stream *stream, const void *data, size_t len) {
    struct ssh_stream *self = (struct ssh_stream *)stream;
    if (self->ended) {
        return FLEET_ERR_LOST;
    }
    write_queue_add(&self->out, data, len);
    ssh_engine_kick(self->session->engine, self->session);
    return 0;
}

static int stream_add_chunk(struct stream *stream, struct chunk *chunk) {
    struct ssh_stream *self = (struct ssh_stream *)stream;
    if (self->ended) {
        return FLEET_ERR_LOST;
    }
    write_queue_add_chunk(&self->out, chunk);
    ssh_engine_kick(self->session->engine, self->session);
    return 0;
}

static size_t stream_count(const struct stream *stream) {
    return ((const struct ssh_stream *)stream)->out.bytes;
}

static void stream_finish(struct stream *stream) {
    struct ssh_stream *self = (struct ssh_stream *)stream;
    self->eof_wanted = true;
    ssh_engine_kick(self->session->engine, self->session);
}

static void stream_hold(struct stream *stream, bool paused) {
    struct ssh_stream *self = (struct ssh_stream *)stream;
    self->paused = paused;
    if (!paused) {
        ssh_engine_kick(self->session->engine, self->session);
    }
}

static void stream_abandon(struct stream *stream) {
    struct ssh_stream *self = (struct ssh_stream *)stream;
    self->ended = true;
    write_queue_clear(&self->out);
    ssh_engine_kick(self->session->engine, self->session);
}

static const struct stream_ops stream_ops = {
    .write = stream_add,
    .write_chunk = stream_add_chunk,
    .queued = stream_count,
    .eof = stream_finish,
    .pause = stream_hold,
    .close = stream_abandon,
};

static struct ssh_stream *add_stream(struct ssh_session *session,
                                     const struct stream_handlers *handlers, void *arg) {
    struct ssh_stream *self = xcalloc(1, sizeof(*self));
    self->stream.ops = &stream_ops;
    self->session = session;
    self->handlers = *handlers;
    self->arg = arg;
    if (session->last_stream != NULL) {
        session->last_stream->next = self;
    } else {
        session->streams = self;
    }
    session->last_stream = self;
    ssh_engine_kick(session->engine, session);
    return self;
}

struct stream *ssh_channel_exec(struct conn *conn, const char *command,
                                const struct stream_handlers *handlers, void *arg) {
    struct ssh_stream *self = add_stream((struct ssh_session *)conn, handlers, arg);
    self->command = xstrdup(command);
    self->session->has_exec = true;
    return &self->stream;
}

struct stream *ssh_channel_tunnel(struct conn *conn, const char *host, uint16_t port,
                                  const struct stream_handlers *handlers, void *arg) {
    struct ssh_stream *self = add_stream((struct ssh_session *)conn, handlers, arg);
    ssh_add_text(&self->target, host);
    ssh_add_u32(&self->target, port);
    ssh_add_text(&self->target, "127.0.0.1");
    ssh_add_u32(&self->target, 0);
    self->target_name = xasprintf("%s port %u", host, (unsigned)port);
    return &self->stream;
}

static void tell_end(struct ssh_stream *self, const struct stream_end *end) {
    if (self->ended) {
        return;
    }
    self->ended = true;
    write_queue_clear(&self->out);
    self->handlers.on_end(end, self->arg);
}

static void tell_lost(struct ssh_stream *self, const struct error *error) {
    struct stream_end end = {.lost = true, .status = -1, .error = *error};
    tell_end(self, &end);
}

/* An error on the session itself, or only on this stream? */
static bool breaks_session(int rc) {
    switch (rc) {
    case LIBSSH2_ERROR_SOCKET_SEND:
    case LIBSSH2_ERROR_SOCKET_RECV:
    case LIBSSH2_ERROR_SOCKET_DISCONNECT:
    case LIBSSH2_ERROR_DECRYPT:
    case LIBSSH2_ERROR_INVALID_MAC:
    case LIBSSH2_ERROR_OUT_OF_BOUNDARY:
    case LIBSSH2_ERROR_KEX_FAILURE:
    case LIBSSH2_ERROR_KEY_EXCHANGE_FAILURE:
        return true;
    default:
        return false;
    }
}

static void lose_session(struct ssh_session *session, int rc) {
    struct error error;
    const struct error *from_link = ssh_link_error(session->link);
    error_set(&error, FLEET_ERR_LOST, "connection-lost", "the connection to %s broke (%s)",
              session->spec->name,
              session->farewell != NULL ? session->farewell
              : from_link != NULL       ? from_link->message
              : rc == LIBSSH2_ERROR_SOCKET_DISCONNECT || rc == LIBSSH2_ERROR_SOCKET_RECV
                  ? "the other side closed it"
                  : ssh_session_words(session));
    ssh_session_lost(session, &error);
}

static void set_open_error(struct ssh_stream *self, int rc, struct error *error) {
    struct ssh_session *session = self->session;
    if (self->command != NULL) {
        error_set(error, FLEET_ERR_LOST, "channel-refused",
                  "%s would not start another command on this connection: %s. See MaxSessions in "
                  "its sshd_config",
                  session->spec->name, ssh_session_words(session));
    } else if (rc == LIBSSH2_ERROR_TIMEOUT) {
        error_set(error, FLEET_ERR_TIMEOUT, "connect-timeout", "%s could not reach %s in time",
                  session->spec->name, self->target_name);
    } else {
        error_set(error, FLEET_ERR_UNREACHABLE, "tunnel-refused", "%s could not connect to %s: %s",
                  session->spec->name, self->target_name, ssh_session_words(session));
    }
}

static void end_count(struct ssh_stream *self) {
    if (self->counted) {
        self->counted = false;
        self->session->sessions--;
    }
}

static void on_nudge(uv_timer_t *timer) {
    struct ssh_session *session = container_of(timer, struct ssh_session, nudge);
    ssh_engine_kick(session->engine, session);
}

static void step_open(struct ssh_stream *self) {
    struct ssh_session *session = self->session;
    bool tunnel = self->command == NULL;
    const char *type = tunnel ? "direct-tcpip" : "session";
    libssh2_session_set_read_timeout(session->ssh,
                                     self->ended ? ABANDONED_TIMEOUT_S : OPEN_TIMEOUT_S);
    self->channel = libssh2_channel_open_ex(
        session->ssh, type, (unsigned)strlen(type), WINDOW_BYTES, PACKET_BYTES,
        tunnel ? self->target.data : NULL, (unsigned)self->target.len);
    if (self->channel != NULL) {
        session->opening = NULL;
        self->phase = tunnel ? OPEN : REQUESTING;
        return;
    }
    int rc = libssh2_session_last_errno(session->ssh);
    if (rc == LIBSSH2_ERROR_EAGAIN) {
        if (self->ended) {
            uv_timer_start(&session->nudge, on_nudge, NUDGE_MS, 0);
        }
        return;
    }
    session->opening = NULL;
    self->phase = DONE;
    end_count(self);
    if (breaks_session(rc)) {
        lose_session(session, rc);
        return;
    }
    struct error error;
    set_open_error(self, rc, &error);
    tell_lost(self, &error);
}

static void step_request(struct ssh_stream *self) {
    struct ssh_session *session = self->session;
    int rc = libssh2_channel_process_startup(self->channel, "exec", 4, self->command,
                                             (unsigned)strlen(self->command));
    if (rc == LIBSSH2_ERROR_EAGAIN) {
        return;
    }
    if (rc == 0) {
        self->phase = OPEN;
        return;
    }
    if (breaks_session(rc)) {
        lose_session(session, rc);
        return;
    }
    struct error error;
    error_set(&error, FLEET_ERR_LOST, "exec-refused",
              "%s would not run a command for %s: does the account's sshd configuration force "
              "another one?",
              session->spec->name, session->spec->user);
    self->phase = CLOSING;
    tell_lost(self, &error);
}

static void step_write(struct ssh_stream *self) {
    struct ssh_session *session = self->session;
    size_t budget = STEP_BYTES;
    const char *data;
    size_t len;
    while (write_queue_front(&self->out, &data, &len)) {
        if (ssh_link_backlog(session->link) > 0) {
            return; /* on_io comes when it is gone */
        }
        if (budget == 0) {
            session->more = true;
            return;
        }
        ssize_t rc = libssh2_channel_write(self->channel, data, len);
        if (rc == LIBSSH2_ERROR_EAGAIN || rc == 0) {
            return; /* the window is closed */
        }
        if (rc < 0) {
            if (breaks_session((int)rc)) {
                lose_session(session, (int)rc);
            } else {
                write_queue_clear(&self->out); /* the far side has closed its input */
            }
            return;
        }
        write_queue_pop(&self->out, (size_t)rc);
        budget -= (size_t)rc < budget ? (size_t)rc : budget;
    }
    if (self->eof_wanted && !self->eof_sent) {
        int rc = libssh2_channel_send_eof(self->channel);
        self->eof_sent = rc != LIBSSH2_ERROR_EAGAIN;
    }
}

/* Reads one of the two streams. False when the stream or the session has ended meanwhile. */
static bool step_read(struct ssh_stream *self, int fd) {
    struct ssh_session *session = self->session;
    char *buffer = session->engine->read_buffer;
    size_t budget = STEP_BYTES;
    while (!self->paused) {
        if (budget == 0) {
            session->more = true;
            return true;
        }
        ssize_t got = libssh2_channel_read_ex(self->channel, fd == 2 ? SSH_EXTENDED_DATA_STDERR : 0,
                                              buffer, SSH_READ_BYTES);
        if (got == LIBSSH2_ERROR_EAGAIN || got == 0) {
            return true;
        }
        if (got < 0) {
            if (breaks_session((int)got)) {
                lose_session(session, (int)got);
            }
            return false;
        }
        budget -= (size_t)got < budget ? (size_t)got : budget;
        self->handlers.on_data(fd, buffer, (size_t)got, self->arg);
        if (self->ended || session->state != SSH_READY) {
            return false;
        }
    }
    return true;
}

static void fill_exit(struct ssh_stream *self, struct stream_end *end) {
    char *name = NULL;
    size_t len = 0;
    libssh2_channel_get_exit_signal(self->channel, &name, &len, NULL, NULL, NULL, NULL);
    if (name != NULL) {
        AUTO_FREE char *cleaned = text_cleaned(name, len);
        snprintf(end->signal, sizeof(end->signal), "%.15s", cleaned);
        end->status = -1;
        libssh2_free(self->session->ssh, name);
        return;
    }
    int status = libssh2_channel_get_exit_status(self->channel);
    end->status = status >= 0 && status <= 255 ? status : 255;
}

static void step_end(struct ssh_stream *self) {
    if (!libssh2_channel_eof(self->channel)) {
        return;
    }
    bool tunnel = self->command == NULL;
    if (!tunnel) {
        int rc = libssh2_channel_wait_closed(self->channel);
        if (rc == LIBSSH2_ERROR_EAGAIN) {
            return;
        }
        if (rc != 0 && breaks_session(rc)) {
            lose_session(self->session, rc);
            return;
        }
    }
    struct stream_end end = {.status = 0};
    if (!tunnel) {
        fill_exit(self, &end);
    }
    self->phase = CLOSING;
    tell_end(self, &end);
}

static void step_stream(struct ssh_stream *self) {
    struct ssh_session *session = self->session;
    if (!step_read(self, 1) || (self->command != NULL && !step_read(self, 2))) {
        return;
    }
    step_write(self);
    if (session->state != SSH_READY || self->ended) {
        return;
    }
    if (self->handlers.on_drain != NULL && write_queue_drained(&self->out)) {
        self->handlers.on_drain(self->arg);
        if (session->state != SSH_READY || self->ended) {
            return;
        }
    }
    if (!self->paused) {
        step_end(self);
    }
}

static void step_close(struct ssh_stream *self) {
    if (libssh2_channel_free(self->channel) == LIBSSH2_ERROR_EAGAIN) {
        return;
    }
    self->channel = NULL;
    self->phase = DONE;
    end_count(self);
}

/* May this one begin to open? */
static bool may_open(const struct ssh_stream *self) {
    const struct ssh_session *session = self->session;
    return session->opening == NULL && !session->opening_spare &&
           (self->command == NULL || session->sessions < SESSIONS_MAX);
}

/* An exec takes the spare channel where there is one, and saves a round trip. */
static bool take_spare(struct ssh_stream *self) {
    struct ssh_session *session = self->session;
    if (session->spare == NULL || self->command == NULL) {
        return false;
    }
    self->channel = session->spare;
    session->spare = NULL;
    self->counted = true;
    self->phase = REQUESTING;
    return true;
}

static void begin_open(struct ssh_stream *self) {
    struct ssh_session *session = self->session;
    session->opening = self;
    self->phase = OPENING;
    self->counted = self->command != NULL;
    session->sessions += self->counted ? 1 : 0;
}

static void step(struct ssh_stream *self) {
    if (self->phase == WAITING) {
        if (self->ended) {
            self->phase = DONE;
        } else if (!take_spare(self) && may_open(self)) {
            begin_open(self);
        }
    }
    if (self->phase == OPENING) {
        step_open(self);
    }
    if (self->phase == REQUESTING && !self->ended) {
        step_request(self);
    }
    if (self->phase == OPEN && !self->ended) {
        step_stream(self);
    }
    if (self->ended && (self->phase == REQUESTING || self->phase == OPEN)) {
        self->phase = CLOSING;
    }
    if (self->phase == CLOSING && self->channel != NULL && self->session->state == SSH_READY) {
        step_close(self);
    }
}

/* Nobody reads, but the peer may have gone, or ask something. */
static void read_spare(struct ssh_session *session) {
    char *buffer = session->engine->read_buffer;
    ssize_t got = libssh2_channel_read(session->spare, buffer, SSH_READ_BYTES);
    if (got == LIBSSH2_ERROR_EAGAIN || got > 0) {
        return;
    }
    if (got < 0 && breaks_session((int)got)) {
        lose_session(session, (int)got);
        return;
    }
    if (libssh2_channel_free(session->spare) != LIBSSH2_ERROR_EAGAIN) {
        session->spare = NULL;
        session->sessions--;
    }
}

static LIBSSH2_CHANNEL *open_session_channel(struct ssh_session *session) {
    libssh2_session_set_read_timeout(session->ssh, OPEN_TIMEOUT_S);
    return libssh2_channel_open_ex(session->ssh, "session", 7, WINDOW_BYTES, PACKET_BYTES, NULL, 0);
}

void ssh_channel_open_ahead(struct ssh_session *session) {
    session->opening_spare = true;
    session->sessions++;
    open_session_channel(session); /* asked again and again from step_spare on */
}

static bool any_waiting(const struct ssh_session *session) {
    for (const struct ssh_stream *at = session->streams; at != NULL; at = at->next) {
        if (at->phase == WAITING && !at->ended && at->command != NULL) {
            return true;
        }
    }
    return false;
}

/* Opens the spare, or reads through it where nobody else does. */
static void step_spare(struct ssh_session *session) {
    bool useful = session->streams == NULL || session->has_exec;
    if (!session->opening_spare && session->spare == NULL && session->opening == NULL && useful &&
        !session->spare_refused && session->sessions < SESSIONS_MAX && !any_waiting(session)) {
        session->opening_spare = true;
        session->sessions++;
    }
    if (session->opening_spare) {
        session->spare = open_session_channel(session);
        int rc = session->spare != NULL ? 0 : libssh2_session_last_errno(session->ssh);
        if (rc == LIBSSH2_ERROR_EAGAIN) {
            return;
        }
        session->opening_spare = false;
        if (rc != 0) {
            session->sessions--;
            session->spare_refused = true;
            if (breaks_session(rc)) {
                lose_session(session, rc);
            }
        }
    } else if (session->spare != NULL && session->streams == NULL) {
        read_spare(session);
    }
}

void ssh_channels_step(struct ssh_session *session) {
    /* A tunnel may take long to open; an exec must not have to wait for it. */
    step_spare(session);
    for (struct ssh_stream *at = session->streams; at != NULL && session->state == SSH_READY;
         at = at->next) {
        step(at);
    }
    if (session->state == SSH_READY && session->spare == NULL) {
        step_spare(session);
    }
}

void ssh_channels_lost(struct ssh_session *session, const struct error *error) {
    for (struct ssh_stream *at = session->streams; at != NULL; at = at->next) {
        tell_lost(at, error);
    }
}

static void free_stream(struct ssh_stream *self) {
    write_queue_clear(&self->out);
    buf_free(&self->target);
    free(self->target_name);
    free(self->command);
    free(self);
}

void ssh_channels_sweep(struct ssh_session *session, bool all) {
    struct ssh_stream **at = &session->streams;
    session->last_stream = NULL;
    while (*at != NULL) {
        struct ssh_stream *self = *at;
        if (all || (self->ended && self->phase == DONE)) {
            *at = self->next;
            free_stream(self);
        } else {
            session->last_stream = self;
            at = &self->next;
        }
    }
}
