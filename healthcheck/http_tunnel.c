/* A TCP connection made by the far side, as a socket for libcurl.
 *
 * libcurl holds one end of a socket pair and closes it; the other is a uv_pipe_t here, pumped to
 * and from a stream of the connection. Back-pressure both ways: the stream is paused while
 * libcurl doesn't read, the pipe isn't read while the stream's queue is full.
 */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "healthcheck/http.h"

#define QUEUE_MAX (64u * 1024u)

struct http_tunnel {
    uv_pipe_t pipe;
    uv_loop_t *loop;
    struct conn *conn;
    struct stream *stream; /* NULL: not opened yet, or ended */
    char *host;
    uint16_t port;
    bool open; /* `pipe` is a handle */
    bool used;
    bool closed;
    char *failure;
    char chunk[16384];
};

struct tunnel_write {
    uv_write_t request;
    struct http_tunnel *tunnel;
    char data[];
};

struct http_tunnel *http_tunnel_new(uv_loop_t *loop, struct conn *conn, const char *host,
                                    uint16_t port) {
    struct http_tunnel *tunnel = xcalloc(1, sizeof(*tunnel));
    tunnel->loop = loop;
    tunnel->conn = conn;
    tunnel->host = xstrdup(host);
    tunnel->port = port;
    return tunnel;
}

static void tunnel_free(struct http_tunnel *tunnel) {
    auto_free(&tunnel->host);
    auto_free(&tunnel->failure);
    auto_free(&tunnel);
}

static void on_pipe_closed(uv_handle_t *handle) {
    struct http_tunnel *tunnel = container_of(handle, struct http_tunnel, pipe);
    tunnel->open = false;
    if (tunnel->closed) {
        tunnel_free(tunnel);
    }
}

/* libcurl sees the end of the file. */
static void hang_up(struct http_tunnel *tunnel) {
    if (tunnel->open && !uv_is_closing((uv_handle_t *)&tunnel->pipe)) {
        uv_close((uv_handle_t *)&tunnel->pipe, on_pipe_closed);
    }
}

static void on_shutdown(uv_shutdown_t *request, int status) {
    (void)status;
    struct http_tunnel *tunnel = request->data;
    auto_free(&request);
    hang_up(tunnel);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
    (void)suggested;
    struct http_tunnel *tunnel = container_of(handle, struct http_tunnel, pipe);
    *buf = uv_buf_init(tunnel->chunk, sizeof(tunnel->chunk));
}

static void on_read(uv_stream_t *pipe, ssize_t got, const uv_buf_t *buf) {
    struct http_tunnel *tunnel = container_of(pipe, struct http_tunnel, pipe);
    if (tunnel->stream == NULL) {
        return;
    }
    if (got < 0) {
        stream_close(tunnel->stream);
        tunnel->stream = NULL;
        hang_up(tunnel);
        return;
    }
    if (got > 0) {
        stream_write(tunnel->stream, buf->base, (size_t)got);
        if (stream_queued(tunnel->stream) > STREAM_LOW_WATER) {
            uv_read_stop(pipe);
        }
    }
}

static void on_drain(void *arg) {
    struct http_tunnel *tunnel = arg;
    if (!uv_is_closing((uv_handle_t *)&tunnel->pipe)) {
        uv_read_start((uv_stream_t *)&tunnel->pipe, on_alloc, on_read);
    }
}

static void on_written(uv_write_t *request, int status) {
    (void)status;
    struct tunnel_write *write = container_of(request, struct tunnel_write, request);
    struct http_tunnel *tunnel = write->tunnel;
    auto_free(&write);
    if (tunnel->stream != NULL && tunnel->pipe.write_queue_size < QUEUE_MAX) {
        stream_pause(tunnel->stream, false);
    }
}

static void on_data(int fd, const char *data, size_t len, void *arg) {
    struct http_tunnel *tunnel = arg;
    if (fd != 1 || uv_is_closing((uv_handle_t *)&tunnel->pipe)) {
        return;
    }
    struct tunnel_write *write = xmalloc(sizeof(*write) + len);
    write->tunnel = tunnel;
    memcpy(write->data, data, len);
    uv_buf_t buf = uv_buf_init(write->data, (unsigned)len);
    if (uv_write(&write->request, (uv_stream_t *)&tunnel->pipe, &buf, 1, on_written) != 0) {
        auto_free(&write);
    } else if (tunnel->pipe.write_queue_size >= QUEUE_MAX) {
        stream_pause(tunnel->stream, true);
    }
}

static void on_end(const struct stream_end *end, void *arg) {
    struct http_tunnel *tunnel = arg;
    tunnel->stream = NULL;
    if (end->lost) {
        tunnel->failure = text_cleaned(end->error.message, strlen(end->error.message));
    }
    if (uv_is_closing((uv_handle_t *)&tunnel->pipe)) {
        return;
    }
    /* After the bytes that are queued. */
    uv_shutdown_t *request = xcalloc(1, sizeof(*request));
    request->data = tunnel;
    if (uv_shutdown(request, (uv_stream_t *)&tunnel->pipe, on_shutdown) != 0) {
        auto_free(&request);
        hang_up(tunnel);
    }
}

curl_socket_t http_tunnel_open(struct http_tunnel *tunnel) {
    static const struct stream_handlers handlers = {
        .on_data = on_data, .on_drain = on_drain, .on_end = on_end};
    int ends[2];
    if (tunnel->used || tunnel->closed ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
        return CURL_SOCKET_BAD;
    }
    tunnel->used = true;
    uv_pipe_init(tunnel->loop, &tunnel->pipe, 0);
    if (uv_pipe_open(&tunnel->pipe, ends[0]) != 0) {
        close(ends[0]);
        close(ends[1]);
        tunnel->open = true;
        hang_up(tunnel);
        return CURL_SOCKET_BAD;
    }
    tunnel->open = true;
    tunnel->stream = conn_tunnel(tunnel->conn, tunnel->host, tunnel->port, &handlers, tunnel);
    uv_read_start((uv_stream_t *)&tunnel->pipe, on_alloc, on_read);
    return ends[1];
}

const char *http_tunnel_failure(const struct http_tunnel *tunnel) {
    return tunnel->failure;
}

void http_tunnel_close(struct http_tunnel *tunnel) {
    tunnel->closed = true;
    if (tunnel->stream != NULL) {
        stream_close(tunnel->stream);
        tunnel->stream = NULL;
    }
    if (tunnel->open) {
        hang_up(tunnel); /* the memory follows */
    } else {
        tunnel_free(tunnel);
    }
}
