#include "transport/local.h"

#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "transport/write_queue.h"

enum {
    KILL_AFTER_MS = 2000,
    READ_BYTES = 64 * 1024,
    TUNNEL_TIMEOUT_MS = 10000
};

struct local_conn {
    struct conn conn; /* first */
    uv_loop_t *loop;
    const struct conn_spec *spec;
    struct conn_handlers handlers;
    void *arg;
    struct local_stream *streams;
    uv_timer_t start;
    unsigned handles; /* of its own and of its streams */
    bool closed;
    char buffer[READ_BYTES];
};

/* A command (stdin, stdout, stderr are pipes[0..2]) or a tunnel (`tcp`). Freed when the owner is
 * done with it and every handle is closed. */
struct local_stream {
    struct stream stream; /* first */
    struct local_conn *conn;
    struct local_stream *next;
    struct stream_handlers handlers;
    void *arg;
    bool tunnel;
    bool ended;   /* no callback any more */
    bool closing; /* its handles are being closed */
    bool exited;  /* the process is gone, or never was */
    bool paused;
    bool writing;
    bool connected;
    bool eof_wanted;
    unsigned readers; /* ends that may still give bytes */
    unsigned handles;
    struct stream_end end;
    struct write_queue out;
    uv_write_t write;
    uv_shutdown_t shutdown;
    uv_process_t process;
    uv_pipe_t pipes[3];
    uv_tcp_t tcp;
    uv_connect_t connect;
    struct addrinfo *found;
    struct local_lookup *lookup;
    uv_timer_t timer; /* of the kill, of a tunnel's connection, or of an early end */
};

/* A look-up that may outlive its stream. */
struct local_lookup {
    uv_getaddrinfo_t request;
    struct local_stream *stream;
};

static void pump(struct local_stream *self);
static void update_reading(struct local_stream *self);

static uv_stream_t *input_of(struct local_stream *self) {
    return self->tunnel ? (uv_stream_t *)&self->tcp : (uv_stream_t *)&self->pipes[0];
}

static void conn_release(struct local_conn *conn) {
    if (--conn->handles > 0) {
        return;
    }
    void (*on_closed)(void *) = conn->handlers.on_closed;
    void *arg = conn->arg;
    free(conn);
    if (on_closed != NULL) {
        on_closed(arg);
    }
}

static void free_stream(struct local_stream *self) {
    struct local_conn *conn = self->conn;
    for (struct local_stream **at = &conn->streams; *at != NULL; at = &(*at)->next) {
        if (*at == self) {
            *at = self->next;
            break;
        }
    }
    write_queue_clear(&self->out);
    uv_freeaddrinfo(self->found);
    free(self);
    conn_release(conn);
}

static void on_stream_handle_closed(uv_handle_t *handle) {
    struct local_stream *self = handle->data;
    if (--self->handles == 0) {
        free_stream(self);
    }
}

static void add_handle(struct local_stream *self, uv_handle_t *handle) {
    handle->data = self;
    self->handles++;
}

static void close_handle(uv_handle_t *handle) {
    if (handle->data != NULL && !uv_is_closing(handle)) {
        uv_close(handle, on_stream_handle_closed);
    }
}

static void close_handles(struct local_stream *self) {
    if (self->closing) {
        return;
    }
    self->closing = true;
    if (self->lookup != NULL) {
        self->lookup->stream = NULL;
        uv_cancel((uv_req_t *)&self->lookup->request);
        self->lookup = NULL;
    }
    for (int i = 0; i < 3; i++) {
        close_handle((uv_handle_t *)&self->pipes[i]);
    }
    close_handle((uv_handle_t *)&self->tcp);
    close_handle((uv_handle_t *)&self->process);
    close_handle((uv_handle_t *)&self->timer);
}

static void tell_end(struct local_stream *self) {
    if (!self->ended) {
        self->ended = true;
        write_queue_clear(&self->out);
        struct stream_end end = self->end;
        self->handlers.on_end(&end, self->arg);
    }
}

static void on_end_timer(uv_timer_t *timer) {
    struct local_stream *self = timer->data;
    tell_end(self);
    close_handles(self);
}

/* It could not begin: the owner hears of it in the next turn. */
static void end_soon(struct local_stream *self) {
    self->exited = true;
    self->end.lost = true;
    self->end.status = -1;
    uv_timer_start(&self->timer, on_end_timer, 0, 0);
}

static void finish_if_done(struct local_stream *self) {
    if (self->closing || self->readers > 0 || !self->exited) {
        return;
    }
    tell_end(self);
    close_handles(self);
}

static void on_kill_timer(uv_timer_t *timer) {
    struct local_stream *self = timer->data;
    uv_kill(-self->process.pid, SIGKILL);
}

static void on_process_exit(uv_process_t *process, int64_t status, int signum) {
    struct local_stream *self = process->data;
    self->exited = true;
    self->end.status = signum != 0 ? -1 : (int)(status & 0xff);
    if (signum != 0) {
        const char *name = sigabbrev_np(signum);
        snprintf(self->end.signal, sizeof(self->end.signal), "%s", name != NULL ? name : "?");
    }
    if (self->ended) {
        /* Given up: what it left behind in its group goes too. */
        uv_kill(-process->pid, SIGKILL);
        close_handles(self);
        return;
    }
    finish_if_done(self);
}

/* Ends the group; the process handle stays until it has been reaped. */
static void end_process(struct local_stream *self) {
    for (int i = 0; i < 3; i++) {
        close_handle((uv_handle_t *)&self->pipes[i]);
    }
    uv_kill(-self->process.pid, SIGTERM);
    uv_timer_start(&self->timer, on_kill_timer, KILL_AFTER_MS, 0);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
    struct local_stream *self = handle->data;
    (void)suggested;
    *buf = uv_buf_init(self->conn->buffer, READ_BYTES);
}

static void on_read(uv_stream_t *from, ssize_t got, const uv_buf_t *buf) {
    struct local_stream *self = from->data;
    if (self->ended || got == 0) {
        return;
    }
    if (got > 0) {
        int fd = !self->tunnel && from == (uv_stream_t *)&self->pipes[2] ? 2 : 1;
        self->handlers.on_data(fd, buf->base, (size_t)got, self->arg);
        return;
    }
    uv_read_stop(from);
    self->readers--;
    if (self->tunnel && got != UV_EOF) {
        self->end.lost = true;
        error_set(&self->end.error, FLEET_ERR_LOST, "connection-lost", "the connection broke: %s",
                  uv_strerror((int)got));
    }
    if (!self->tunnel) {
        close_handle((uv_handle_t *)from);
    }
    finish_if_done(self);
}

static void update_reading(struct local_stream *self) {
    uv_stream_t *const ends[] = {
        self->tunnel ? (uv_stream_t *)&self->tcp : (uv_stream_t *)&self->pipes[1],
        self->tunnel ? NULL : (uv_stream_t *)&self->pipes[2],
    };
    if (!self->connected) {
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        if (ends[i] == NULL || uv_is_closing((uv_handle_t *)ends[i])) {
            continue;
        }
        if (self->paused) {
            uv_read_stop(ends[i]);
        } else if (self->readers > 0) {
            uv_read_start(ends[i], on_alloc, on_read);
        }
    }
}

static void on_shutdown(uv_shutdown_t *request, int status) {
    struct local_stream *self = container_of(request, struct local_stream, shutdown);
    (void)status;
    if (!self->tunnel) {
        close_handle((uv_handle_t *)&self->pipes[0]);
    }
}

static void on_written(uv_write_t *request, int status) {
    struct local_stream *self = container_of(request, struct local_stream, write);
    self->writing = false;
    if (self->closing || self->ended) {
        return;
    }
    if (status != 0) {
        write_queue_clear(&self->out); /* the command has closed its input */
    } else {
        write_queue_pop(&self->out, (size_t)(uintptr_t)request->data);
    }
    if (self->handlers.on_drain != NULL && write_queue_drained(&self->out)) {
        self->handlers.on_drain(self->arg);
    }
    if (!self->ended) {
        pump(self);
    }
}

/* Hands the front of the queue to libuv, one piece at a time. */
static void pump(struct local_stream *self) {
    const char *data;
    size_t len;
    uv_stream_t *to = input_of(self);
    if (self->writing || !self->connected || uv_is_closing((uv_handle_t *)to)) {
        return;
    }
    if (write_queue_front(&self->out, &data, &len)) {
        uv_buf_t buf = uv_buf_init((char *)(uintptr_t)data, (unsigned)len);
        self->write.data = (void *)(uintptr_t)len;
        self->writing = uv_write(&self->write, to, &buf, 1, on_written) == 0;
        if (!self->writing) {
            write_queue_clear(&self->out);
        }
    } else if (self->eof_wanted) {
        self->eof_wanted = false;
        uv_shutdown(&self->shutdown, to, on_shutdown);
    }
}

static int local_write(struct stream *stream, const void *data, size_t len) {
    struct local_stream *self = (struct local_stream *)stream;
    if (self->ended) {
        return FLEET_ERR_LOST;
    }
    write_queue_add(&self->out, data, len);
    pump(self);
    return 0;
}

static int local_write_chunk(struct stream *stream, struct chunk *chunk) {
    struct local_stream *self = (struct local_stream *)stream;
    if (self->ended) {
        return FLEET_ERR_LOST;
    }
    write_queue_add_chunk(&self->out, chunk);
    pump(self);
    return 0;
}

static size_t local_queued(const struct stream *stream) {
    return ((const struct local_stream *)stream)->out.bytes;
}

static void local_eof(struct stream *stream) {
    struct local_stream *self = (struct local_stream *)stream;
    self->eof_wanted = true;
    pump(self);
}

static void local_pause(struct stream *stream, bool paused) {
    struct local_stream *self = (struct local_stream *)stream;
    self->paused = paused;
    update_reading(self);
}

static void local_close(struct stream *stream) {
    struct local_stream *self = (struct local_stream *)stream;
    if (self->ended) {
        return;
    }
    self->ended = true;
    if (self->exited) {
        close_handles(self);
    } else {
        end_process(self);
    }
}

static const struct stream_ops stream_ops = {
    .write = local_write,
    .write_chunk = local_write_chunk,
    .queued = local_queued,
    .eof = local_eof,
    .pause = local_pause,
    .close = local_close,
};

static struct local_stream *add_stream(struct local_conn *conn,
                                       const struct stream_handlers *handlers, void *arg) {
    struct local_stream *self = xcalloc(1, sizeof(*self));
    self->stream.ops = &stream_ops;
    self->conn = conn;
    self->handlers = *handlers;
    self->arg = arg;
    self->next = conn->streams;
    conn->streams = self;
    conn->handles++;
    uv_timer_init(conn->loop, &self->timer);
    add_handle(self, (uv_handle_t *)&self->timer);
    return self;
}

static struct stream *local_exec(struct conn *conn, const char *command,
                                 const struct stream_handlers *handlers, void *arg) {
    struct local_conn *local = (struct local_conn *)conn;
    struct local_stream *self = add_stream(local, handlers, arg);
    char *args[] = {(char[]){"sh"}, (char[]){"-c"}, xstrdup(command), NULL};
    uv_stdio_container_t stdio[3];
    for (int i = 0; i < 3; i++) {
        uv_pipe_init(local->loop, &self->pipes[i], 0);
        add_handle(self, (uv_handle_t *)&self->pipes[i]);
        stdio[i].flags =
            (uv_stdio_flags)(UV_CREATE_PIPE | (i == 0 ? UV_READABLE_PIPE : UV_WRITABLE_PIPE));
        stdio[i].data.stream = (uv_stream_t *)&self->pipes[i];
    }
    uv_process_options_t options = {
        .exit_cb = on_process_exit,
        .file = "/bin/sh",
        .args = args,
        .flags = UV_PROCESS_DETACHED,
        .stdio_count = 3,
        .stdio = stdio,
    };
    add_handle(self, (uv_handle_t *)&self->process);
    int rc = uv_spawn(local->loop, &self->process, &options);
    free(args[2]);
    if (rc != 0) {
        error_set(&self->end.error, FLEET_ERR_SYSTEM, "spawn-failed",
                  "starting /bin/sh on this machine: %s", uv_strerror(rc));
        end_soon(self);
        return &self->stream;
    }
    self->connected = true;
    self->readers = 2;
    update_reading(self);
    return &self->stream;
}

static void set_tunnel_error(struct local_stream *self, int rc) {
    error_set(&self->end.error, FLEET_ERR_UNREACHABLE,
              rc == UV_ECONNREFUSED ? "connection-refused" : "tunnel-refused",
              "the connection could not be made: %s", uv_strerror(rc));
    end_soon(self);
}

static void on_connected(uv_connect_t *request, int status) {
    struct local_stream *self = container_of(request, struct local_stream, connect);
    if (self->closing || self->ended) {
        return;
    }
    uv_timer_stop(&self->timer);
    if (status != 0) {
        set_tunnel_error(self, status);
        return;
    }
    self->connected = true;
    self->readers = 1;
    uv_tcp_nodelay(&self->tcp, 1);
    update_reading(self);
    pump(self);
}

static void on_lookup(uv_getaddrinfo_t *request, int status, struct addrinfo *found) {
    struct local_lookup *lookup = container_of(request, struct local_lookup, request);
    struct local_stream *self = lookup->stream;
    free(lookup);
    if (self == NULL) {
        uv_freeaddrinfo(found);
        return;
    }
    self->lookup = NULL;
    self->found = found;
    int rc = status;
    if (rc == 0) {
        rc = uv_tcp_connect(&self->connect, &self->tcp, found->ai_addr, on_connected);
    }
    if (rc != 0) {
        set_tunnel_error(self, rc);
    }
}

static void on_tunnel_timeout(uv_timer_t *timer) {
    struct local_stream *self = timer->data;
    set_tunnel_error(self, UV_ETIMEDOUT);
}

static struct stream *local_tunnel(struct conn *conn, const char *host, uint16_t port,
                                   const struct stream_handlers *handlers, void *arg) {
    struct local_conn *local = (struct local_conn *)conn;
    struct local_stream *self = add_stream(local, handlers, arg);
    self->tunnel = true;
    self->exited = true;
    uv_tcp_init(local->loop, &self->tcp);
    add_handle(self, (uv_handle_t *)&self->tcp);
    char service[8];
    snprintf(service, sizeof(service), "%u", (unsigned)port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    self->lookup = xcalloc(1, sizeof(*self->lookup));
    self->lookup->stream = self;
    int rc = uv_getaddrinfo(local->loop, &self->lookup->request, on_lookup, host, service, &hints);
    if (rc != 0) {
        free(self->lookup);
        self->lookup = NULL;
        set_tunnel_error(self, rc);
        return &self->stream;
    }
    uv_timer_start(&self->timer, on_tunnel_timeout, TUNNEL_TIMEOUT_MS, 0);
    return &self->stream;
}

static void on_start_closed(uv_handle_t *handle) {
    conn_release(handle->data);
}

static void local_conn_close(struct conn *conn) {
    struct local_conn *local = (struct local_conn *)conn;
    if (local->closed) {
        return;
    }
    local->closed = true;
    for (struct local_stream *at = local->streams; at != NULL; at = at->next) {
        local_close(&at->stream);
    }
    uv_close((uv_handle_t *)&local->start, on_start_closed);
}

static const struct conn_ops local_ops = {
    .exec = local_exec,
    .tunnel = local_tunnel,
    .close = local_conn_close,
};

static void on_start(uv_timer_t *timer) {
    struct local_conn *local = timer->data;
    if (local->handlers.on_ready != NULL) {
        local->handlers.on_ready("", local->arg);
    }
}

struct conn *local_open(uv_loop_t *loop, const struct conn_spec *spec,
                        const struct conn_handlers *handlers, void *arg) {
    struct local_conn *local = xcalloc(1, sizeof(*local));
    local->conn.ops = &local_ops;
    local->loop = loop;
    local->spec = spec;
    local->handlers = *handlers;
    local->arg = arg;
    local->handles = 1;
    uv_timer_init(loop, &local->start);
    local->start.data = local;
    uv_timer_start(&local->start, on_start, 0, 0);
    return &local->conn;
}
