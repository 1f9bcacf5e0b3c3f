/* A hostile web server behind a tunnel, asked by an http and by a metric probe. The first byte
 * chooses: 'B' makes the rest the body of a proper answer, anything else the whole answer.
 * There is one result each, its words can be printed, and every handle is closed at the end. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "healthcheck/health.h"

#define PROBES   2u
#define PATIENCE 10000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    const char *answer;
    size_t len;
    size_t results;
    bool judged;
} session;

/* ---- the far side: each tunnel answers once and ends ---- */

struct tunnel {
    struct stream stream;
    struct stream_handlers handlers;
    void *arg;
    uv_timer_t timer;
    bool opened;
};

static void on_gone(uv_handle_t *handle) {
    free(container_of((uv_timer_t *)(void *)handle, struct tunnel, timer));
}

static void tunnel_close(struct stream *stream) {
    struct tunnel *tunnel = container_of(stream, struct tunnel, stream);
    uv_close((uv_handle_t *)&tunnel->timer, on_gone);
}

static void on_turn(uv_timer_t *timer) {
    struct tunnel *tunnel = container_of(timer, struct tunnel, timer);
    if (!tunnel->opened) {
        tunnel->opened = true;
        if (tunnel->handlers.on_open != NULL) {
            tunnel->handlers.on_open(tunnel->arg);
        }
        return;
    }
    struct stream_end end = {.status = 0};
    uv_close((uv_handle_t *)timer, on_gone);
    tunnel->handlers.on_end(&end, tunnel->arg);
}

/* The request is there: the answer goes out, and the end follows. */
static int tunnel_write(struct stream *stream, const void *data, size_t len) {
    struct tunnel *tunnel = container_of(stream, struct tunnel, stream);
    (void)data;
    (void)len;
    uv_timer_start(&tunnel->timer, on_turn, 0, 0);
    if (session.len > 0) {
        tunnel->handlers.on_data(1, session.answer, session.len, tunnel->arg);
    }
    return 0;
}

static size_t tunnel_queued(const struct stream *stream) {
    (void)stream;
    return 0;
}

static void tunnel_eof(struct stream *stream) {
    (void)stream;
}

static void tunnel_pause(struct stream *stream, bool paused) {
    (void)stream;
    (void)paused;
}

struct far_conn {
    struct conn conn;
    uv_loop_t *loop;
};

static struct stream *open_tunnel(struct conn *conn, const char *host, uint16_t port,
                                  const struct stream_handlers *handlers, void *arg) {
    static const struct stream_ops ops = {.write = tunnel_write,
                                          .queued = tunnel_queued,
                                          .eof = tunnel_eof,
                                          .pause = tunnel_pause,
                                          .close = tunnel_close};
    (void)host;
    (void)port;
    struct tunnel *tunnel = xcalloc(1, sizeof(*tunnel));
    tunnel->stream.ops = &ops;
    tunnel->handlers = *handlers;
    tunnel->arg = arg;
    uv_timer_init(container_of(conn, struct far_conn, conn)->loop, &tunnel->timer);
    uv_timer_start(&tunnel->timer, on_turn, 0, 0);
    return &tunnel->stream;
}

/* ---- the asking side ---- */

static void on_probe(const struct health_result *result, void *arg) {
    (void)arg;
    session.results++;
    if (strchr(result->detail, '\033') != NULL || strchr(result->detail, '\n') != NULL) {
        abort();
    }
}

static void on_healthy(void *arg) {
    (void)arg;
    session.judged = true;
}

static void on_unhealthy(const struct error *error, void *arg) {
    (void)error;
    (void)arg;
    session.judged = true;
}

static void ask(uv_loop_t *loop, const struct inv_host *host) {
    static const struct conn_ops ops = {.tunnel = open_tunnel};
    static const struct health_handlers handlers = {
        .on_probe = on_probe, .on_healthy = on_healthy, .on_unhealthy = on_unhealthy};
    struct far_conn far = {.conn = {&ops}, .loop = loop};
    struct health_env env = {.loop = loop, .conn = &far.conn};
    struct health_plan plan = {.host = host, .address = "127.0.0.1"};
    struct health *health = health_start(&env, &plan, &handlers, NULL);
    while (!session.judged) {
        uv_run(loop, UV_RUN_ONCE);
    }
    health_stop(health);
    uv_run(loop, UV_RUN_DEFAULT);
    if (session.results != PROBES || uv_loop_close(loop) != 0) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const struct inv_health entries[PROBES] = {{.name = "web",
                                                       .type = INV_HEALTH_HTTP,
                                                       .from_target = true,
                                                       .timeout_ms = PATIENCE,
                                                       .successes = 1,
                                                       .failures = 1,
                                                       .url = "http://web/health",
                                                       .body_regex = "^ok|\"up\""},
                                                      {.name = "errors",
                                                       .type = INV_HEALTH_METRIC,
                                                       .from_target = true,
                                                       .timeout_ms = PATIENCE,
                                                       .successes = 1,
                                                       .failures = 1,
                                                       .url = "http://prometheus:9090",
                                                       .query = "up",
                                                       .has_below = true,
                                                       .below = 1}};
    struct inv_host host = {.name = "db1", .health_count = PROBES};
    host.health = entries;
    if (size == 0) {
        return 0;
    }
    struct buf answer = BUF_INIT;
    if (data[0] == 'B') {
        buf_printf(&answer, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", size - 1);
    }
    buf_add(&answer, data + 1, size - 1);
    session.answer = buf_text(&answer);
    session.len = answer.len;
    session.results = 0;
    session.judged = false;
    uv_loop_t loop;
    uv_loop_init(&loop);
    ask(&loop, &host);
    buf_free(&answer);
    return 0;
}
