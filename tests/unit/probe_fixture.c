#include "probe_fixture.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/xalloc.h"

/* --- The host --- */

static void answer_units(struct fixture *fixture, health_units_done done, void *done_arg) {
    static const struct error down = {FLEET_ERR_REMOTE, "x", "systemd does not answer"};
    if (fixture->script != NULL) {
        fixture->script(fixture);
    }
    struct health_units units = {.items = fixture->units, .count = fixture->unit_count};
    if (fixture->units_fail) {
        units = (struct health_units){.error = &down};
    }
    done(&units, done_arg);
}

struct later {
    uv_timer_t timer;
    struct fixture *fixture;
    health_units_done units_done;
    health_command_done command_done;
    void *done_arg;
};

static void on_later_closed(uv_handle_t *handle) {
    struct later *later = container_of(handle, struct later, timer);
    auto_free(&later);
}

static void on_later(uv_timer_t *timer) {
    struct later *later = container_of(timer, struct later, timer);
    if (later->fixture->health != NULL) {
        if (later->units_done != NULL) {
            answer_units(later->fixture, later->units_done, later->done_arg);
        } else {
            struct health_command result = {.status = later->fixture->command_status,
                                            .output = "some words\nthe last words\n"};
            later->command_done(&result, later->done_arg);
        }
    }
    uv_close((uv_handle_t *)timer, on_later_closed);
}

static struct later *answer_later(struct fixture *fixture, void *done_arg) {
    struct later *later = xcalloc(1, sizeof(*later));
    later->fixture = fixture;
    later->done_arg = done_arg;
    uv_timer_init(&fixture->loop, &later->timer);
    uv_timer_start(&later->timer, on_later, 1, 0);
    return later;
}

static void ask_units(const char *const *globs, size_t count, health_units_done done,
                      void *done_arg, void *arg) {
    struct fixture *fixture = arg;
    (void)globs;
    (void)count;
    fixture->units_asked++;
    if (!fixture->units_silent) {
        answer_later(fixture, done_arg)->units_done = done;
    }
}

static void run_command(const char *const *argv, size_t argc, uint64_t timeout_ms,
                        health_command_done done, void *done_arg, void *arg) {
    struct fixture *fixture = arg;
    (void)timeout_ms;
    struct buf line = BUF_INIT;
    for (size_t i = 0; i < argc; i++) {
        buf_printf(&line, "[%s]", argv[i]);
    }
    auto_free(&fixture->command_line);
    fixture->command_line = buf_take(&line);
    answer_later(fixture, done_arg)->command_done = done;
}

static void on_probe(const struct health_result *result, void *arg) {
    struct fixture *fixture = arg;
    cr_assert_not_null(fixture->health, "a result after health_stop");
    fixture->passes += result->ok;
    fixture->failures += !result->ok;
    buf_printf(&fixture->results, "%s %s%s: %s\n", result->name, result->ok ? "ok" : "fail",
               result->counted ? "" : " uncounted", result->detail);
    if (fixture->stop_in_result) {
        health_stop(fixture->health);
        fixture->health = NULL;
    }
}

static void on_healthy(void *arg) {
    struct fixture *fixture = arg;
    cr_assert_not_null(fixture->health, "a verdict after health_stop");
    cr_assert_not(fixture->healthy, "said twice");
    fixture->healthy = true;
    uv_stop(&fixture->loop);
}

static void on_unhealthy(const struct error *error, void *arg) {
    struct fixture *fixture = arg;
    cr_assert_not_null(fixture->health, "a verdict after health_stop");
    cr_assert_not(fixture->unhealthy, "said twice");
    fixture->unhealthy = true;
    fixture->error = *error;
    uv_stop(&fixture->loop);
}

void fixture_init(struct fixture *fixture, enum inv_health_type type) {
    *fixture = (struct fixture){0};
    uv_loop_init(&fixture->loop);
    uv_timer_init(&fixture->loop, &fixture->limit);
    fixture->host.name = "db1";
    fixture->host.health = fixture->entries;
    fixture->host.policy = (struct inv_host_policy){
        .min_healthy_time_ms = 100, .healthy_deadline_ms = 5000, .startup_grace_ms = 0};
    fixture->env = (struct health_env){
        .loop = &fixture->loop, .units = ask_units, .command = run_command, .arg = fixture};
    fixture->plan = (struct health_plan){.host = &fixture->host,
                                         .address = "127.0.0.1",
                                         .tolerate_preexisting = true,
                                         .over_time = true};
    fixture_add(fixture, type, "probe");
}

struct inv_health *fixture_add(struct fixture *fixture, enum inv_health_type type,
                               const char *name) {
    cr_assert_lt(fixture->host.health_count, FIXTURE_ENTRIES);
    struct inv_health *entry = &fixture->entries[fixture->host.health_count++];
    *entry = (struct inv_health){.name = name,
                                 .type = type,
                                 .interval_ms = 20,
                                 .timeout_ms = 1000,
                                 .successes = 1,
                                 .failures = 3,
                                 .tls_verify = true};
    return entry;
}

void fixture_start(struct fixture *fixture) {
    static const struct health_handlers handlers = {
        .on_probe = on_probe, .on_healthy = on_healthy, .on_unhealthy = on_unhealthy};
    fixture->health = health_start(&fixture->env, &fixture->plan, &handlers, fixture);
}

static void on_limit(uv_timer_t *timer) {
    *(bool *)timer->data = true;
    uv_stop(timer->loop);
}

bool fixture_run(struct fixture *fixture, const bool *until, uint64_t ms) {
    bool over = false;
    fixture->limit.data = &over;
    uv_update_time(&fixture->loop);
    uv_timer_start(&fixture->limit, on_limit, ms, 0);
    while (!over && (until == NULL || !*until)) {
        uv_run(&fixture->loop, UV_RUN_DEFAULT);
    }
    uv_timer_stop(&fixture->limit);
    return !over;
}

bool fixture_round(struct fixture *fixture) {
    fixture->plan.over_time = false;
    fixture_start(fixture);
    bool over = false;
    fixture->limit.data = &over;
    uv_timer_start(&fixture->limit, on_limit, 10000, 0);
    while (!over && !fixture->healthy && !fixture->unhealthy) {
        uv_run(&fixture->loop, UV_RUN_DEFAULT);
    }
    uv_timer_stop(&fixture->limit);
    cr_assert_not(over, "no verdict in 10 s: %s", buf_text(&fixture->results));
    return fixture->healthy;
}

void fixture_end(struct fixture *fixture) {
    if (fixture->health != NULL) {
        health_stop(fixture->health);
        fixture->health = NULL;
    }
    uv_close((uv_handle_t *)&fixture->limit, NULL);
    uv_run(&fixture->loop, UV_RUN_DEFAULT);
    cr_assert_eq(uv_loop_close(&fixture->loop), 0, "a handle is left open");
    buf_free(&fixture->results);
    auto_free(&fixture->command_line);
}

/* --- Servers --- */

struct client {
    uv_tcp_t tcp;
    uv_write_t write;
    struct server *server;
    bool answered;
    char chunk[4096];
};

static void on_client_closed(uv_handle_t *handle) {
    struct client *client = container_of(handle, struct client, tcp);
    auto_free(&client);
}

static void on_written(uv_write_t *write, int status) {
    struct client *client = container_of(write, struct client, write);
    (void)status;
    if (!uv_is_closing((uv_handle_t *)&client->tcp)) {
        uv_close((uv_handle_t *)&client->tcp, on_client_closed);
    }
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
    struct client *client = container_of(handle, struct client, tcp);
    (void)suggested;
    *buf = uv_buf_init(client->chunk, sizeof(client->chunk));
}

static void answer(struct client *client) {
    enum {
        MOST = 64
    };
    uv_buf_t bufs[MOST];
    const struct server *server = client->server;
    size_t count = server->repeat > 0 ? server->repeat : 1;
    cr_assert_leq(count, MOST);
    for (size_t i = 0; i < count; i++) {
        bufs[i].base = (char *)(uintptr_t)server->response;
        bufs[i].len = strlen(server->response);
    }
    client->answered = true;
    uv_write(&client->write, (uv_stream_t *)&client->tcp, bufs, (unsigned)count, on_written);
}

static void on_request(uv_stream_t *stream, ssize_t got, const uv_buf_t *buf) {
    struct client *client = container_of(stream, struct client, tcp);
    if (got < 0) {
        if (!uv_is_closing((uv_handle_t *)stream)) {
            uv_close((uv_handle_t *)stream, on_client_closed);
        }
        return;
    }
    buf_add(&client->server->request, buf->base, (size_t)got);
    if (!client->answered && client->server->response != NULL &&
        strstr(buf_text(&client->server->request), "\r\n\r\n") != NULL) {
        answer(client);
    }
}

static void on_connection(uv_stream_t *listener, int status) {
    struct server *server = container_of(listener, struct server, listener);
    cr_assert_eq(status, 0);
    struct client *client = xcalloc(1, sizeof(*client));
    client->server = server;
    uv_tcp_init(listener->loop, &client->tcp);
    uv_accept(listener, (uv_stream_t *)&client->tcp);
    buf_clear(&server->request);
    server->connections++;
    uv_read_start((uv_stream_t *)&client->tcp, on_alloc, on_request);
}

void server_start(struct server *server, struct fixture *fixture, const char *response) {
    *server = (struct server){.response = response};
    struct sockaddr_in address;
    uv_ip4_addr("127.0.0.1", 0, &address);
    uv_tcp_init(&fixture->loop, &server->listener);
    uv_tcp_bind(&server->listener, (struct sockaddr *)&address, 0);
    cr_assert_eq(uv_listen((uv_stream_t *)&server->listener, 16, on_connection), 0);
    int len = sizeof(address);
    uv_tcp_getsockname(&server->listener, (struct sockaddr *)&address, &len);
    server->port = ntohs(address.sin_port);
}

void server_stop(struct server *server) {
    uv_close((uv_handle_t *)&server->listener, NULL);
    buf_free(&server->request);
}

uint16_t closed_port(void) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, len), 0);
    getsockname(fd, (struct sockaddr *)&address, &len);
    close(fd);
    return ntohs(address.sin_port);
}

/* --- Tunnels --- */

struct fake_stream {
    struct stream stream;
    uv_tcp_t tcp;
    uv_connect_t connect;
    struct stream_handlers handlers;
    void *arg;
    struct buf early; /* written before it was open */
    bool open, closed;
    char chunk[4096];
};

struct fake_write {
    uv_write_t request;
    char data[];
};

static void on_stream_closed(uv_handle_t *handle) {
    struct fake_stream *stream = container_of(handle, struct fake_stream, tcp);
    buf_free(&stream->early);
    auto_free(&stream);
}

static void on_fake_written(uv_write_t *request, int status) {
    struct fake_write *write = container_of(request, struct fake_write, request);
    (void)status;
    auto_free(&write);
}

static int fake_write(struct stream *base, const void *data, size_t len) {
    struct fake_stream *stream = container_of(base, struct fake_stream, stream);
    if (!stream->open) {
        buf_add(&stream->early, data, len);
        return 0;
    }
    struct fake_write *write = xmalloc(sizeof(*write) + len);
    memcpy(write->data, data, len);
    uv_buf_t buf = uv_buf_init(write->data, (unsigned)len);
    uv_write(&write->request, (uv_stream_t *)&stream->tcp, &buf, 1, on_fake_written);
    return 0;
}

static void fake_end(struct fake_stream *stream, int error) {
    struct stream_end end = {.lost = error != 0, .status = 0};
    if (error != 0) {
        error_set(&end.error, FLEET_ERR_REMOTE, "x", "%s", uv_strerror(error));
    }
    stream->closed = true;
    uv_close((uv_handle_t *)&stream->tcp, on_stream_closed);
    stream->handlers.on_end(&end, stream->arg);
}

static void on_fake_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
    struct fake_stream *stream = container_of(handle, struct fake_stream, tcp);
    (void)suggested;
    *buf = uv_buf_init(stream->chunk, sizeof(stream->chunk));
}

static void on_fake_read(uv_stream_t *tcp, ssize_t got, const uv_buf_t *buf) {
    struct fake_stream *stream = container_of(tcp, struct fake_stream, tcp);
    if (got > 0) {
        stream->handlers.on_data(1, buf->base, (size_t)got, stream->arg);
    } else if (got < 0) {
        fake_end(stream, 0);
    }
}

static void on_fake_connect(uv_connect_t *connect, int status) {
    struct fake_stream *stream = container_of(connect, struct fake_stream, connect);
    if (stream->closed) {
        return;
    }
    if (status != 0) {
        fake_end(stream, status);
        return;
    }
    stream->open = true;
    if (stream->early.len > 0) {
        fake_write(&stream->stream, stream->early.data, stream->early.len);
    }
    uv_read_start((uv_stream_t *)&stream->tcp, on_fake_alloc, on_fake_read);
    if (stream->handlers.on_open != NULL) {
        stream->handlers.on_open(stream->arg);
    }
}

static size_t fake_queued(const struct stream *base) {
    (void)base;
    return 0;
}

static void fake_pause(struct stream *base, bool paused) {
    struct fake_stream *stream = container_of(base, struct fake_stream, stream);
    if (paused) {
        uv_read_stop((uv_stream_t *)&stream->tcp);
    } else if (stream->open && !stream->closed) {
        uv_read_start((uv_stream_t *)&stream->tcp, on_fake_alloc, on_fake_read);
    }
}

static void fake_eof(struct stream *base) {
    (void)base; /* the servers here don't care */
}

static void fake_close(struct stream *base) {
    struct fake_stream *stream = container_of(base, struct fake_stream, stream);
    stream->closed = true;
    uv_close((uv_handle_t *)&stream->tcp, on_stream_closed);
}

static struct stream *fake_tunnel(struct conn *base, const char *host, uint16_t port,
                                  const struct stream_handlers *handlers, void *arg) {
    static const struct stream_ops ops = {.write = fake_write,
                                          .queued = fake_queued,
                                          .eof = fake_eof,
                                          .pause = fake_pause,
                                          .close = fake_close};
    struct fake_conn *fake = container_of(base, struct fake_conn, conn);
    fake->tunnels++;
    snprintf(fake->last_host, sizeof(fake->last_host), "%s", host);
    struct fake_stream *stream = xcalloc(1, sizeof(*stream));
    stream->stream.ops = &ops;
    stream->handlers = *handlers;
    stream->arg = arg;
    uv_tcp_init(fake->loop, &stream->tcp);
    if (!fake->silent) {
        struct sockaddr_in address;
        uv_ip4_addr("127.0.0.1", port, &address);
        uv_tcp_connect(&stream->connect, &stream->tcp, (struct sockaddr *)&address,
                       on_fake_connect);
    }
    return &stream->stream;
}

void fake_conn_init(struct fake_conn *fake, uv_loop_t *loop) {
    static const struct conn_ops ops = {.tunnel = fake_tunnel};
    *fake = (struct fake_conn){.conn = {.ops = &ops}, .loop = loop};
}
