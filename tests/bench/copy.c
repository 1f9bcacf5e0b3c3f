/* How fast the copy is: one large path and many small ones, from a real store through the copier
 * into a sink that throws away, and into a real store; beside it plain SHA-256, which is the floor.
 * Nothing is asserted: times depend on the machine. Usage: bench_copy [BIG_MB [SMALL]], as root.
 */
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"
#include "tests/support/pipe_conn.h"
#include "transport/copy.h"
#include "transport/serve.h"

#define TOP "/nix/store/00000000000000000000000000000000-top"

struct usage {
    double wall_s, own_s;
};

static struct usage usage_now(void) {
    struct rusage own;
    getrusage(RUSAGE_SELF, &own);
    return (struct usage){
        (double)uv_hrtime() / 1e9,
        (double)(own.ru_utime.tv_sec + own.ru_stime.tv_sec) +
            (double)(own.ru_utime.tv_usec + own.ru_stime.tv_usec) / 1e6,
    };
}

static void print(const char *what, struct usage begin, uint64_t bytes, uint64_t paths) {
    struct usage end = usage_now();
    double wall = end.wall_s - begin.wall_s;
    double own = end.own_s - begin.own_s;
    printf("%-28s %6.2f s  %7.0f MB/s  %8.0f paths/s   own CPU %5.2f s = %5.2f s a GB\n", what,
           wall, (double)bytes / wall / 1e6, (double)paths / wall, own,
           own / ((double)bytes / 1e9));
}

/* A far side that takes everything and acknowledges it, in this process: the copier alone. Reads
 * the protocol only as far as it needs: a greeting, an empty list, and at the end whatever the
 * copier asked for. */
struct sink {
    struct conn conn;
    struct stream stream;
    struct stream_handlers handlers;
    void *arg;
    uv_timer_t timer;
    const struct closure *closure;
    uint64_t taken;
    uint64_t awaited; /* bytes until the last query is complete */
    char marker[64];  /* what the command announces itself with */
    int stage;
    bool closed;
};

static struct sink *sink_of(const struct stream *stream) {
    return container_of((uintptr_t)stream, struct sink, stream);
}

static void sink_say(struct sink *sink, struct buf *out) {
    sink->handlers.on_data(1, out->data, out->len, sink->arg);
    buf_free(out);
}

static int sink_write(struct stream *stream, const void *data, size_t len) {
    (void)data;
    sink_of(stream)->taken += len;
    return 0;
}

static int sink_write_chunk(struct stream *stream, struct chunk *chunk) {
    sink_of(stream)->taken += chunk->len;
    return 0;
}

static size_t sink_queued(const struct stream *stream) {
    (void)stream;
    return 0;
}

static void sink_eof(struct stream *stream) {
    (void)stream;
}

static void sink_pause(struct stream *stream, bool paused) {
    (void)stream;
    (void)paused;
}

static void sink_close(struct stream *stream) {
    struct sink *sink = sink_of(stream);
    if (!sink->closed) {
        sink->closed = true;
        uv_close((uv_handle_t *)&sink->timer, NULL);
    }
}

static const struct stream_ops sink_stream_ops = {sink_write, sink_write_chunk, sink_queued,
                                                  sink_eof,   sink_pause,       sink_close};

/* What the copier will have written when it waits for the last answers. */
static uint64_t bytes_awaited(const struct closure *closure) {
    struct buf out = BUF_INIT;
    serve_put_hello(&out);
    for (int query = 0; query < 2; query++) {
        serve_put_query_valid(&out, true, false, closure->count);
        for (size_t i = 0; i < closure->count; i++) {
            serve_put_text(&out, closure->paths[i]->path);
        }
    }
    for (size_t i = 0; i < closure->count; i++) {
        serve_put_add(&out, closure->paths[i]);
    }
    uint64_t bytes = out.len + closure->nar_size;
    buf_free(&out);
    return bytes;
}

/* Answers like nix-store. */
static void on_sink_timer(uv_timer_t *timer) {
    struct sink *sink = container_of(timer, struct sink, timer);
    struct buf out = BUF_INIT;
    if (sink->stage == 0) {
        sink->stage = 1;
        sink->awaited = bytes_awaited(sink->closure);
        buf_add_text(&out, sink->marker);
        serve_put_int(&out, 0x5452eecb);
        serve_put_int(&out, 0x207);
        serve_put_int(&out, 0);
        sink_say(sink, &out);
    } else if (sink->taken == sink->awaited && sink->stage == 1) {
        sink->stage = 2;
        for (size_t i = 0; i < sink->closure->count; i++) {
            serve_put_int(&out, 1);
        }
        serve_put_int(&out, sink->closure->count);
        for (size_t i = 0; i < sink->closure->count; i++) {
            serve_put_text(&out, sink->closure->paths[i]->path);
        }
        sink_say(sink, &out);
    }
}

static struct stream *sink_exec(struct conn *conn, const char *command,
                                const struct stream_handlers *handlers, void *arg) {
    struct sink *sink = container_of(conn, struct sink, conn);
    sink->handlers = *handlers;
    sink->arg = arg;
    sink->stream.ops = &sink_stream_ops;
    const char *at = strstr(command, "fleet-%s-%s ");
    if (at != NULL) {
        snprintf(sink->marker, sizeof(sink->marker), "fleet-%.16s-%.16s", at + 12, at + 29);
    }
    uv_timer_start(&sink->timer, on_sink_timer, 1, 1);
    return &sink->stream;
}

static void sink_conn_close(struct conn *conn) {
    (void)conn;
}

static const struct conn_ops sink_ops = {.exec = sink_exec, .close = sink_conn_close};

static bool over;

static void on_progress(const struct copy_progress *progress, void *arg) {
    (void)progress;
    (void)arg;
}

static void on_done(const struct copy_progress *progress, void *arg) {
    *(struct copy_progress *)arg = *progress;
    over = true;
}

static void on_failed(const struct error *error, void *arg) {
    (void)arg;
    fprintf(stderr, "bench_copy: %s\n", error->message);
    exit(1);
}

static const struct copy_handlers handlers = {
    .on_progress = on_progress, .on_done = on_done, .on_failed = on_failed};

static void on_closure(int err, const struct closure *closure, const struct error *error,
                       void *arg) {
    if (err != 0) {
        fprintf(stderr, "bench_copy: %s\n", error->message);
        exit(1);
    }
    *(const struct closure **)arg = closure;
}

static void copy_to(uv_loop_t *loop, struct copier *copier, struct conn *target,
                    const char *command, const char *what) {
    struct copy_options options = {.command = command};
    struct copy_progress progress = {0};
    struct usage begin = usage_now();
    over = false;
    struct copy_job *job = copy_start(copier, target, TOP, &options, &handlers, &progress);
    while (!over) {
        uv_run(loop, UV_RUN_ONCE);
    }
    print(what, begin, progress.bytes_total, progress.paths_total);
    copy_close(job);
}

static void hash_alone(uint64_t bytes) {
    AUTO_FREE char *block = xcalloc(1, 65536);
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    unsigned char hash[32];
    struct usage begin = usage_now();
    EVP_DigestInit_ex(digest, EVP_sha256(), NULL);
    for (uint64_t at = 0; at < bytes; at += 65536) {
        EVP_DigestUpdate(digest, block, 65536);
    }
    EVP_DigestFinal_ex(digest, hash, NULL);
    EVP_MD_CTX_free(digest);
    print("  SHA-256 alone", begin, bytes, 0);
}

static void measure(const char *name, const char *folder, unsigned small, unsigned big_mb) {
    AUTO_FREE char *make =
        xasprintf("tests/support/make_store.sh %s/src %u %u", folder, small, big_mb);
    AUTO_FREE char *serve = xasprintf("nix-store --serve --store local?root=%s/src", folder);
    AUTO_FREE char *take = xasprintf("nix-store --serve --write --store local?root=%s/dst", folder);
    AUTO_FREE char *clean = xasprintf("rm -rf %s/src %s/dst", folder, folder);
    if (system(make) != 0) {
        exit(1);
    }
    uv_loop_t loop;
    uv_loop_init(&loop);
    struct pipe_conn source;
    struct pipe_conn target;
    struct sink sink = {.conn = {&sink_ops}};
    pipe_conn_init(&source, &loop, "/bin/sh");
    pipe_conn_init(&target, &loop, "/bin/sh");
    uv_timer_init(&loop, &sink.timer);
    struct copier *copier = copier_new(&loop, &source.conn, serve, "the bench's store");
    struct usage begin = usage_now();
    copier_closure(copier, TOP, on_closure, (void *)&sink.closure);
    while (sink.closure == NULL) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    printf("%s\n", name);
    print("  closure asked", begin, sink.closure->nar_size, sink.closure->count);
    hash_alone(sink.closure->nar_size);
    copy_to(&loop, copier, &sink.conn, take, "  into a sink");
    copy_to(&loop, copier, &target.conn, take, "  into a real store");
    copier_free(copier);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    if (system(clean) != 0) {
        exit(1);
    }
}

int main(int argc, char **argv) {
    unsigned big_mb = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 500;
    unsigned small = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 2000;
    char folder[] = "/tmp/fleet-bench-XXXXXX";
    if (mkdtemp(folder) == NULL) {
        perror(folder);
        return 1;
    }
    measure("one large path", folder, 0, big_mb);
    measure("many small paths", folder, small, 0);
    rmdir(folder);
    return 0;
}
