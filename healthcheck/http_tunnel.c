/* A TCP connection made by the far side, for libcurl to talk through.
 *
 * libcurl is sent to an abstract Unix socket (CURLOPT_ABSTRACT_UNIX_SOCKET; unix(7), autobind); the
 * one connection that it makes is pumped to and from a stream of the host's connection. (The
 * straighter way, a socket pair with CURL_SOCKOPT_ALREADY_CONNECTED, is broken in libcurl 7.88.1,
 * which connects all the same: tried, EINVAL.) Such a socket has no permissions, so the peer's
 * credentials must be this very process. Back-pressure both ways: the stream is paused while
 * libcurl doesn't read, the pipe isn't read while the stream's queue is full.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "healthcheck/http.h"

#define QUEUE_MAX (64u * 1024u)

struct http_tunnel {
    uv_poll_t listener;
    int listen_fd; /* -1: closed */
    uv_pipe_t pipe;
    size_t open; /* handles that aren't closed */
    bool has_pipe;
    bool closed;
    struct conn *conn;
    struct stream *stream; /* NULL: not opened yet, or ended */
    char *host;
    uint16_t port;
    char name[sizeof(((struct sockaddr_un *)0)->sun_path)];
    char *failure;
    char chunk[16384];
};

struct tunnel_write {
    uv_write_t request;
    struct http_tunnel *tunnel;
    char data[];
};

static void tunnel_free(struct http_tunnel *tunnel) {
    auto_free(&tunnel->host);
    auto_free(&tunnel->failure);
    auto_free(&tunnel);
}

static void on_closed(uv_handle_t *handle) {
    struct http_tunnel *tunnel = handle->data;
    if (--tunnel->open == 0 && tunnel->closed) {
        tunnel_free(tunnel);
    }
}

static void stop_listening(struct http_tunnel *tunnel) {
    if (tunnel->listen_fd >= 0) {
        uv_close((uv_handle_t *)&tunnel->listener, on_closed);
        close(tunnel->listen_fd);
        tunnel->listen_fd = -1;
    }
}

/* libcurl sees the end of the file. */
static void hang_up(struct http_tunnel *tunnel) {
    if (tunnel->has_pipe && !uv_is_closing((uv_handle_t *)&tunnel->pipe)) {
        uv_close((uv_handle_t *)&tunnel->pipe, on_closed);
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

/* A connection of libcurl's own, not of somebody else on this machine; -1 where there is none. */
static int accept_own(int listen_fd) {
    struct ucred peer;
    socklen_t len = sizeof(peer);
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0 &&
        (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0 || peer.pid != getpid())) {
        close(fd);
        return -1;
    }
    return fd;
}

static void on_connection(uv_poll_t *poll, int status, int events) {
    static const struct stream_handlers handlers = {
        .on_data = on_data, .on_drain = on_drain, .on_end = on_end};
    struct http_tunnel *tunnel = container_of(poll, struct http_tunnel, listener);
    (void)status;
    (void)events;
    int fd = accept_own(tunnel->listen_fd);
    if (fd < 0) {
        return;
    }
    stop_listening(tunnel);
    uv_pipe_init(poll->loop, &tunnel->pipe, 0);
    tunnel->pipe.data = tunnel;
    tunnel->has_pipe = true;
    tunnel->open++;
    if (uv_pipe_open(&tunnel->pipe, fd) != 0) {
        close(fd);
        hang_up(tunnel);
        return;
    }
    tunnel->stream = conn_tunnel(tunnel->conn, tunnel->host, tunnel->port, &handlers, tunnel);
    uv_read_start((uv_stream_t *)&tunnel->pipe, on_alloc, on_read);
}

/* A listening socket whose name the kernel chooses; -1 and errno. */
static int listen_anywhere(char *ret_name, size_t size) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t len = sizeof(address);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -1;
    }
    if (bind(fd, (struct sockaddr *)&address, sizeof(address.sun_family)) != 0 ||
        listen(fd, 4) != 0 || getsockname(fd, (struct sockaddr *)&address, &len) != 0) {
        close(fd);
        return -1;
    }
    /* An abstract name begins with a NUL and isn't ended by one. */
    size_t name_len = len - offsetof(struct sockaddr_un, sun_path) - 1;
    if (name_len >= size) {
        close(fd);
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(ret_name, address.sun_path + 1, name_len);
    ret_name[name_len] = '\0';
    return fd;
}

struct http_tunnel *http_tunnel_new(uv_loop_t *loop, struct conn *conn, const char *host,
                                    uint16_t port) {
    struct http_tunnel *tunnel = xcalloc(1, sizeof(*tunnel));
    tunnel->listen_fd = listen_anywhere(tunnel->name, sizeof(tunnel->name));
    if (tunnel->listen_fd < 0) {
        auto_free(&tunnel);
        return NULL;
    }
    tunnel->conn = conn;
    tunnel->host = xstrdup(host);
    tunnel->port = port;
    uv_poll_init(loop, &tunnel->listener, tunnel->listen_fd);
    tunnel->listener.data = tunnel;
    tunnel->open = 1;
    uv_poll_start(&tunnel->listener, UV_READABLE, on_connection);
    return tunnel;
}

const char *http_tunnel_name(const struct http_tunnel *tunnel) {
    return tunnel->name;
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
    /* The memory goes with the last handle. */
    stop_listening(tunnel);
    hang_up(tunnel);
    if (tunnel->open == 0) {
        tunnel_free(tunnel);
    }
}
