#include "tests/support/pipe_conn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"
#include "transport/write_queue.h"

#define TICK_MS 10u

struct pipe_stream {
    struct stream stream;
    struct pipe_conn *conn;
    struct stream_handlers handlers;
    void *arg;
    uv_process_t process;
    uv_pipe_t pipes[3];
    uv_timer_t pacer;
    uv_write_t write;
    uv_shutdown_t shutdown;
    struct write_queue queue;
    size_t writing;
    size_t budget;
    struct buf kept; /* stdout while the connection is deaf */
    unsigned open_handles;
    unsigned open_outputs;
    bool eof;
    bool eof_sent;
    bool exited;
    bool dead; /* the owner has let go or was told the end */
    struct stream_end end;
};

static void on_closed(uv_handle_t *handle) {
    struct pipe_stream *self = handle->data;
    if (--self->open_handles == 0) {
        write_queue_clear(&self->queue);
        buf_free(&self->kept);
        free(self);
    }
}

static void release(struct pipe_stream *self) {
    self->dead = true;
    uv_handle_t *handles[] = {(uv_handle_t *)&self->process, (uv_handle_t *)&self->pipes[0],
                              (uv_handle_t *)&self->pipes[1], (uv_handle_t *)&self->pipes[2],
                              (uv_handle_t *)&self->pacer};
    for (size_t i = 0; i < ARRAY_LEN(handles); i++) {
        if (!uv_is_closing(handles[i])) {
            uv_close(handles[i], on_closed);
        }
    }
}

static void maybe_end(struct pipe_stream *self) {
    if (self->exited && self->open_outputs == 0 && !self->dead && self->kept.len == 0) {
        struct stream_end end = self->end;
        release(self);
        self->handlers.on_end(&end, self->arg);
    }
}

static void pump(struct pipe_stream *self);

static void on_written(uv_write_t *request, int status) {
    struct pipe_stream *self = container_of(request, struct pipe_stream, write);
    size_t len = self->writing;
    self->writing = 0;
    write_queue_pop(&self->queue, len);
    if (self->dead) {
        return;
    }
    if (status < 0) {
        write_queue_clear(&self->queue);
        return;
    }
    bool drained = write_queue_drained(&self->queue);
    pump(self);
    if (drained && self->handlers.on_drain != NULL) {
        self->handlers.on_drain(self->arg);
    }
}

static void on_shutdown(uv_shutdown_t *request, int status) {
    (void)request;
    (void)status;
}

static void pump(struct pipe_stream *self) {
    const char *data;
    size_t len;
    if (self->writing > 0 || self->conn->mute) {
        return;
    }
    if (!write_queue_front(&self->queue, &data, &len)) {
        if (self->eof && !self->eof_sent) {
            self->eof_sent = true;
            uv_shutdown(&self->shutdown, (uv_stream_t *)&self->pipes[0], on_shutdown);
        }
        return;
    }
    if (self->conn->write_rate > 0) {
        len = len < self->budget ? len : self->budget;
        self->budget -= len;
        if (len == 0) {
            return;
        }
    }
    self->writing = len;
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)data, (unsigned)len);
    if (uv_write(&self->write, (uv_stream_t *)&self->pipes[0], &buf, 1, on_written) != 0) {
        self->writing = 0;
        write_queue_clear(&self->queue);
    }
}

static void on_pacer(uv_timer_t *timer) {
    struct pipe_stream *self = timer->data;
    if (!self->conn->deaf && self->kept.len > 0) {
        struct buf kept = self->kept;
        self->kept = (struct buf)BUF_INIT;
        self->handlers.on_data(1, kept.data, kept.len, self->arg);
        buf_free(&kept);
        maybe_end(self);
        return;
    }
    self->budget = self->conn->write_rate * TICK_MS / 1000 + 1;
    pump(self);
}

static int pipe_write(struct stream *stream, const void *data, size_t len) {
    struct pipe_stream *self = container_of(stream, struct pipe_stream, stream);
    write_queue_add(&self->queue, data, len);
    pump(self);
    return 0;
}

static int pipe_write_chunk(struct stream *stream, struct chunk *chunk) {
    struct pipe_stream *self = container_of(stream, struct pipe_stream, stream);
    write_queue_add_chunk(&self->queue, chunk);
    pump(self);
    return 0;
}

static size_t pipe_queued(const struct stream *stream) {
    return ((const struct pipe_stream *)(const void *)stream)->queue.bytes;
}

static void pipe_eof(struct stream *stream) {
    struct pipe_stream *self = container_of(stream, struct pipe_stream, stream);
    self->eof = true;
    pump(self);
}

static char read_room[65536];

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
    (void)handle;
    (void)suggested;
    *buf = uv_buf_init(read_room, sizeof(read_room));
}

static void hand_on(struct pipe_stream *self, int fd, const char *data, size_t len) {
    size_t piece = self->conn->piece > 0 ? self->conn->piece : len;
    for (size_t at = 0; at < len && !self->dead; at += piece) {
        self->handlers.on_data(fd, data + at, len - at < piece ? len - at : piece, self->arg);
    }
}

static void on_read(uv_stream_t *pipe, ssize_t count, const uv_buf_t *buf) {
    struct pipe_stream *self = pipe->data;
    if (count > 0) {
        int fd = pipe == (uv_stream_t *)&self->pipes[2] ? 2 : 1;
        if (fd == 1 && (self->conn->deaf || self->kept.len > 0)) {
            buf_add(&self->kept, buf->base, (size_t)count);
            uv_timer_start(&self->pacer, on_pacer, TICK_MS, TICK_MS);
            return;
        }
        hand_on(self, fd, buf->base, (size_t)count);
    } else if (count < 0) {
        uv_read_stop(pipe);
        self->open_outputs--;
        maybe_end(self);
    }
}

static void pipe_pause(struct stream *stream, bool paused) {
    struct pipe_stream *self = container_of(stream, struct pipe_stream, stream);
    if (paused) {
        uv_read_stop((uv_stream_t *)&self->pipes[1]);
    } else {
        uv_read_start((uv_stream_t *)&self->pipes[1], on_alloc, on_read);
    }
}

static void pipe_close(struct stream *stream) {
    release(container_of(stream, struct pipe_stream, stream));
}

static const struct stream_ops pipe_stream_ops = {
    .write = pipe_write,
    .write_chunk = pipe_write_chunk,
    .queued = pipe_queued,
    .eof = pipe_eof,
    .pause = pipe_pause,
    .close = pipe_close,
};

static void on_exit_status(uv_process_t *process, int64_t status, int signal) {
    struct pipe_stream *self = process->data;
    self->exited = true;
    self->end.status = signal != 0 ? -1 : (int)status;
    if (signal != 0) {
        snprintf(self->end.signal, sizeof(self->end.signal), "%d", signal);
    }
    maybe_end(self);
}

static struct stream *pipe_exec(struct conn *conn, const char *command,
                                const struct stream_handlers *handlers, void *arg) {
    struct pipe_stream *self = xcalloc(1, sizeof(*self));
    self->stream.ops = &pipe_stream_ops;
    self->conn = container_of(conn, struct pipe_conn, conn);
    self->handlers = *handlers;
    self->arg = arg;
    uv_stdio_container_t stdio[3];
    for (int i = 0; i < 3; i++) {
        uv_pipe_init(self->conn->loop, &self->pipes[i], 0);
        self->pipes[i].data = self;
        stdio[i].flags = UV_CREATE_PIPE | (i == 0 ? UV_READABLE_PIPE : UV_WRITABLE_PIPE);
        stdio[i].data.stream = (uv_stream_t *)&self->pipes[i];
    }
    uv_timer_init(self->conn->loop, &self->pacer);
    self->pacer.data = self;
    self->open_handles = 5;
    AUTO_FREE char *line = xstrdup(command);
    AUTO_FREE char *shell = xstrdup(self->conn->login_shell);
    char dash_c[] = "-c";
    char *args[] = {shell, dash_c, line, NULL};
    uv_process_options_t options = {
        .file = shell, .args = args, .stdio = stdio, .stdio_count = 3, .exit_cb = on_exit_status};
    self->process.data = self;
    int err = uv_spawn(self->conn->loop, &self->process, &options);
    if (err != 0) {
        fprintf(stderr, "pipe_conn: %s: %s\n", shell, uv_strerror(err));
        abort();
    }
    self->conn->last_pid = self->process.pid;
    self->conn->exec_count++;
    self->open_outputs = 2;
    uv_read_start((uv_stream_t *)&self->pipes[1], on_alloc, on_read);
    uv_read_start((uv_stream_t *)&self->pipes[2], on_alloc, on_read);
    if (self->conn->write_rate > 0) {
        uv_timer_start(&self->pacer, on_pacer, 0, TICK_MS);
    }
    return &self->stream;
}

static void pipe_conn_close(struct conn *conn) {
    (void)conn;
}

static const struct conn_ops pipe_conn_ops = {.exec = pipe_exec, .close = pipe_conn_close};

void pipe_conn_init(struct pipe_conn *self, uv_loop_t *loop, const char *login_shell) {
    *self = (struct pipe_conn){.conn = {&pipe_conn_ops}, .loop = loop, .login_shell = login_shell};
}
