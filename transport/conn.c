#include "transport/conn.h"

struct stream *conn_exec(struct conn *conn, const char *command,
                         const struct stream_handlers *handlers, void *arg) {
    return conn->ops->exec(conn, command, handlers, arg);
}

struct stream *conn_tunnel(struct conn *conn, const char *host, uint16_t port,
                           const struct stream_handlers *handlers, void *arg) {
    return conn->ops->tunnel(conn, host, port, handlers, arg);
}

void conn_close(struct conn *conn) {
    conn->ops->close(conn);
}

bool conn_is_narrow(const struct conn *conn) {
    return conn->ops->is_narrow != NULL && conn->ops->is_narrow(conn);
}

int stream_write(struct stream *stream, const void *data, size_t len) {
    return stream->ops->write(stream, data, len);
}

int stream_write_chunk(struct stream *stream, struct chunk *chunk) {
    return stream->ops->write_chunk(stream, chunk);
}

size_t stream_queued(const struct stream *stream) {
    return stream->ops->queued(stream);
}

void stream_eof(struct stream *stream) {
    stream->ops->eof(stream);
}

void stream_pause(struct stream *stream, bool paused) {
    stream->ops->pause(stream, paused);
}

void stream_close(struct stream *stream) {
    stream->ops->close(stream);
}
