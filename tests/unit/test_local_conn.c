/* The local carrier with real processes, and the write queue under it. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"
#include "transport/keyring.h"
#include "transport/transport.h"
#include "transport/write_queue.h"

static uv_loop_t loop;
static struct keyring *keyring;
static struct transport *transport;
static struct conn *conn;
static struct buf out;
static struct buf err;
static struct stream_end last_end;
static unsigned ends;
static unsigned drains;
static bool close_at_data;
static struct stream *stream;
static const struct conn_spec spec = {.name = "here", .local = true};

static void on_data(int fd, const char *data, size_t len, void *arg) {
    (void)arg;
    buf_add(fd == 2 ? &err : &out, data, len);
    if (close_at_data) {
        stream_close(stream);
        conn_close(conn);
    }
}

static void on_drain(void *arg) {
    (void)arg;
    drains++;
}

static void on_end(const struct stream_end *end, void *arg) {
    (void)arg;
    last_end = *end;
    ends++;
    conn_close(conn);
}

static const struct stream_handlers handlers = {
    .on_data = on_data, .on_drain = on_drain, .on_end = on_end};

static bool ready;

static void on_ready(const char *address, void *arg) {
    (void)arg;
    cr_expect_str_eq(address, "");
    ready = true;
}

static const struct conn_handlers conn_handlers = {.on_ready = on_ready};

static void set_up(void) {
    signal(SIGPIPE, SIG_IGN);
    uv_loop_init(&loop);
    keyring = keyring_new(NULL);
    transport = transport_new(&loop, keyring);
    conn = transport_open(transport, &spec, &conn_handlers, NULL);
    cr_assert_not(ready, "no callback before the call returns");
    ends = drains = 0;
    close_at_data = false;
}

static void tear_down(void) {
    uv_run(&loop, UV_RUN_DEFAULT);
    transport_free(transport);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(uv_loop_close(&loop), 0, "handles were left open");
    keyring_free(keyring);
    buf_free(&out);
    buf_free(&err);
}

TestSuite(local_conn, .init = set_up, .fini = tear_down, .timeout = 30);

static void run(const char *command) {
    stream = conn_exec(conn, command, &handlers, NULL);
}

static void finish(void) {
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert(ready);
    cr_assert_eq(ends, 1);
}

Test(local_conn, gives_both_outputs_and_the_status) {
    run("echo one; echo two >&2; exit 7");
    finish();
    cr_expect_str_eq(buf_text(&out), "one\n");
    cr_expect_str_eq(buf_text(&err), "two\n");
    cr_expect(!last_end.lost && last_end.status == 7);
}

Test(local_conn, names_the_signal_that_ended_a_command) {
    run("kill -KILL $$");
    finish();
    cr_expect(!last_end.lost && last_end.status == -1);
    cr_expect_str_eq(last_end.signal, "KILL");
}

Test(local_conn, carries_megabytes_in_order_and_says_when_it_has_room) {
    enum {
        CHUNKS = 64,
        BYTES = 100000
    };
    run("cat");
    for (int i = 0; i < CHUNKS; i++) {
        struct chunk *chunk = chunk_new(BYTES);
        memset(chunk->data, 'a' + i % 26, BYTES);
        cr_assert_eq(stream_write_chunk(stream, chunk), 0);
        chunk_unref(chunk);
    }
    cr_expect_gt(stream_queued(stream), STREAM_LOW_WATER);
    stream_eof(stream);
    finish();
    cr_assert_eq(out.len, (size_t)CHUNKS * BYTES);
    for (size_t i = 0; i < out.len; i += 997) {
        cr_assert_eq(out.data[i], 'a' + (char)(i / BYTES % 26));
    }
    cr_expect_geq(drains, 1);
}

Test(local_conn, outlives_a_command_that_does_not_read) {
    run("exec <&-; sleep 0.1; exit 3");
    char *much = xcalloc(1, 1000000);
    stream_write(stream, much, 1000000);
    free(much);
    finish();
    cr_expect_eq(last_end.status, 3);
}

Test(local_conn, ends_the_whole_group_when_a_stream_is_closed) {
    run("sleep 1000 & echo $!; sleep 1000");
    close_at_data = true;
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(ends, 0, "no on_end after stream_close");
    pid_t pid = (pid_t)strtol(buf_text(&out), NULL, 10);
    cr_assert_gt(pid, 0);
    for (int i = 0; i < 100 && kill(pid, 0) == 0; i++) {
        usleep(20000); /* an orphan's reaper may take its time */
    }
    cr_expect(kill(pid, 0) != 0 && errno == ESRCH, "%d still runs", (int)pid);
}

Test(local_conn, kills_what_ignores_sigterm) {
    run("trap '' TERM; echo go; while :; do sleep 1; done");
    close_at_data = true;
    uint64_t start = uv_hrtime();
    uv_run(&loop, UV_RUN_DEFAULT);
    double seconds = (double)(uv_hrtime() - start) / 1e9;
    cr_expect(seconds > 1.5 && seconds < 10, "%f s", seconds);
}

static int listen_somewhere(uint16_t *ret_port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, size), 0);
    cr_assert_eq(listen(fd, 5), 0);
    getsockname(fd, (struct sockaddr *)&address, &size);
    *ret_port = ntohs(address.sin_port);
    return fd;
}

Test(local_conn, tunnels_are_plain_sockets) {
    uint16_t port;
    int fd = listen_somewhere(&port);
    stream = conn_tunnel(conn, "127.0.0.1", port, &handlers, NULL);
    stream_write(stream, "ping", 4);
    while (ends == 0 && out.len == 0) {
        uv_run(&loop, UV_RUN_NOWAIT);
        int peer = accept4(fd, NULL, NULL, SOCK_NONBLOCK);
        if (peer >= 0) {
            char data[4];
            while (recv(peer, data, 4, 0) != 4) {
                uv_run(&loop, UV_RUN_NOWAIT);
            }
            cr_expect_arr_eq(data, "ping", 4);
            cr_assert_eq(send(peer, "pong", 4, 0), 4);
            close(peer);
        }
        usleep(1000);
    }
    close(fd);
    finish();
    cr_expect_str_eq(buf_text(&out), "pong");
    cr_expect_not(last_end.lost);
}

Test(local_conn, a_refused_tunnel_says_so) {
    uint16_t port;
    close(listen_somewhere(&port));
    stream = conn_tunnel(conn, "127.0.0.1", port, &handlers, NULL);
    finish();
    cr_expect(last_end.lost);
    cr_expect_str_eq(last_end.error.reason, "connection-refused");
}

Test(local_conn, closing_at_once_leaves_nothing) {
    stream = conn_exec(conn, "sleep 100", &handlers, NULL);
    conn_tunnel(conn, "localhost", 1, &handlers, NULL);
    conn_close(conn);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(ends, 0);
    cr_expect_not(ready);
}

Test(write_queue, gathers_small_writes_and_shares_chunks) {
    struct write_queue queue = {0};
    const char *data;
    size_t len;
    for (int i = 0; i < 1000; i++) {
        write_queue_add(&queue, "ab", 2);
    }
    cr_assert(write_queue_front(&queue, &data, &len));
    cr_expect_eq(len, 2000, "one piece");
    const char *before = data;
    write_queue_add(&queue, "c", 1);
    cr_assert(write_queue_front(&queue, &data, &len));
    cr_expect_eq(data, before, "the front's address must not change");
    struct chunk *chunk = chunk_new(10);
    write_queue_add_chunk(&queue, chunk);
    cr_expect_eq(chunk->refs, 2);
    write_queue_add(&queue, "d", 1);
    cr_expect_eq(queue.bytes, 2012);
    write_queue_pop(&queue, 2001);
    cr_assert(write_queue_front(&queue, &data, &len));
    cr_expect_eq(data, (const char *)chunk->data);
    write_queue_clear(&queue);
    cr_expect_eq(chunk->refs, 1);
    cr_expect_eq(queue.bytes, 0);
    chunk_unref(chunk);
}
