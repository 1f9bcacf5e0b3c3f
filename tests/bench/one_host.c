/* What one host's copy makes of its connection: rates of a large path over a real sshd on 127.0.0.1,
 * in turns, medians of some rounds:
 *
 *   ssh cat     OpenSSH's client, `cat > /dev/null` at the far side, with its own first choice of a
 *               cipher and with the one that fleet takes
 *   fleet       the copier over transport/ (read, hashed, encrypted, acknowledged, verified) to a far
 *               side that takes the serve protocol as `cat` takes bytes: this program, with --sink
 *   host alone  `nix-store --serve --write` fed with the very bytes from a file: the host's own work,
 *               which no sender can save
 *   and both    fleet's copy into that nix-store, over SSH
 *
 * Each rate counts from the beginning of the connection. Everything shares this machine's cores.
 * Nothing is asserted. As root: bench_one_host [MEGABYTES [ROUNDS]]   (default 500, 5)
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"
#include "tests/support/own_sshd.h"
#include "tests/support/pipe_conn.h"
#include "transport/copy.h"
#include "transport/serve.h"

#define TOP "/nix/store/00000000000000000000000000000000-top"

enum {
    CAT_BYTES = 128 * 1024, /* what `cat` reads at once */
    ROUNDS_MAX = 51
};

static char folder[] = "/tmp/fleet-one-host-XXXXXX";

/* ---- the far side ---- */

/* Reads and drops exactly `left` bytes, into the file `tape` too where it is one. */
static void drop(uint64_t left, int tape) {
    static char buffer[CAT_BYTES];
    while (left > 0) {
        ssize_t got = read(0, buffer, left < sizeof(buffer) ? (size_t)left : sizeof(buffer));
        if (got <= 0 || (tape >= 0 && write(tape, buffer, (size_t)got) != got)) {
            exit(1);
        }
        left -= (uint64_t)got;
    }
}

static void say_file(const char *name) {
    char buffer[4096];
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    ssize_t got;
    while (fd >= 0 && (got = read(fd, buffer, sizeof(buffer))) > 0) {
        if (write(1, buffer, (size_t)got) != got) {
            exit(1);
        }
    }
    close(fd);
}

/* --sink BYTES ANSWER BYTES ANSWER [TAPE]: a nix-store that has nothing and takes everything. */
static int sink(char **words) {
    int tape =
        words[4] != NULL ? open(words[4], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
    for (size_t i = 0; i < 4; i += 2) {
        drop(strtoull(words[i], NULL, 10), tape);
        say_file(words[i + 1]);
    }
    char byte;
    return read(0, &byte, 1) == 0 ? 0 : 1;
}

static void put_file(const char *name, struct buf *bytes) {
    AUTO_FREE char *path = xasprintf("%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    if (file == NULL || fwrite(bytes->data, 1, bytes->len, file) != bytes->len ||
        fclose(file) != 0) {
        perror(path);
        exit(1);
    }
    buf_free(bytes);
}

static uint64_t query_bytes(const struct closure *closure) {
    struct buf out = BUF_INIT;
    serve_put_query_valid(&out, true, false, closure->count);
    for (size_t i = 0; i < closure->count; i++) {
        serve_put_text(&out, closure->paths[i]->path);
    }
    uint64_t bytes = out.len;
    buf_free(&out);
    return bytes;
}

/* The sink's command line: what it will be sent, and what it answers. */
static char *sink_command(const struct closure *closure) {
    struct buf hello = BUF_INIT;
    struct buf adds = BUF_INIT;
    struct buf first = BUF_INIT;
    struct buf last = BUF_INIT;
    serve_put_hello(&hello);
    serve_put_int(&first, 0x5452eecb);
    serve_put_int(&first, 0x207);
    serve_put_int(&first, 0);
    for (size_t i = 0; i < closure->count; i++) {
        serve_put_add(&adds, closure->paths[i]);
        serve_put_int(&last, 1);
    }
    serve_put_int(&last, closure->count);
    for (size_t i = 0; i < closure->count; i++) {
        serve_put_text(&last, closure->paths[i]->path);
    }
    put_file("first", &first);
    put_file("last", &last);
    uint64_t query = query_bytes(closure);
    unsigned long long asked = hello.len + query;
    unsigned long long sent = adds.len + closure->nar_size + query;
    char *command = xasprintf("%s/bench --sink %llu %s/first %llu %s/last", folder, asked, folder,
                              sent, folder);
    buf_free(&hello);
    buf_free(&adds);
    return command;
}

/* ---- fleet's copy ---- */

struct bench {
    uv_loop_t loop;
    struct own_sshd sshd;
    struct transport *transport;
    struct pipe_conn source;
    struct copier *copier;
    const struct closure *closure;
    struct conn *conn;
    struct copy_job *job;
    const char *command; /* of the copy at hand */
    bool over;
};

static void give_up(const struct error *error) {
    fprintf(stderr, "bench_one_host: %s\n", error->message);
    exit(1);
}

static void on_closure(int err, const struct closure *closure, const struct error *error,
                       void *arg) {
    if (err != 0) {
        give_up(error);
    }
    ((struct bench *)arg)->closure = closure;
}

static void on_progress(const struct copy_progress *progress, void *arg) {
    (void)progress;
    (void)arg;
}

static void on_done(const struct copy_progress *progress, void *arg) {
    (void)progress;
    ((struct bench *)arg)->over = true;
}

static void on_failed(const struct error *error, void *arg) {
    (void)arg;
    give_up(error);
}

static const struct copy_handlers copy_handlers = {
    .on_progress = on_progress, .on_done = on_done, .on_failed = on_failed};

static void on_ready(const char *address, void *arg) {
    struct bench *bench = arg;
    struct copy_options options = {.command = bench->command};
    (void)address;
    bench->job = copy_start(bench->copier, bench->conn, TOP, &options, &copy_handlers, bench);
}

static void on_lost(const struct error *error, void *arg) {
    (void)arg;
    give_up(error);
}

static const struct conn_handlers conn_handlers = {.on_ready = on_ready, .on_lost = on_lost};

static double seconds_since(uint64_t start) {
    return (double)(uv_hrtime() - start) / 1e9;
}

static double fleet_seconds(struct bench *bench, const char *command) {
    uint64_t start = uv_hrtime();
    bench->command = command;
    bench->over = false;
    bench->conn = transport_open(bench->transport, &bench->sshd.spec, &conn_handlers, bench);
    while (!bench->over) {
        uv_run(&bench->loop, UV_RUN_ONCE);
    }
    double spent = seconds_since(start);
    copy_close(bench->job);
    conn_close(bench->conn);
    return spent;
}

static void open_bench(struct bench *bench, unsigned megabytes) {
    AUTO_FREE char *make = xasprintf("tests/support/make_store.sh %s/src 0 %u", folder, megabytes);
    AUTO_FREE char *serve = xasprintf("nix-store --serve --store local?root=%s/src", folder);
    AUTO_FREE char *root = xasprintf("%s/src", folder);
    AUTO_FREE char *self = xasprintf("cp /proc/%d/exe %s/bench", (int)getpid(), folder);
    if (system(make) != 0 || system(self) != 0) {
        exit(1);
    }
    /* NixOS's default, in its order. */
    own_sshd_start(&bench->sshd, folder,
                   "chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes128-gcm@openssh.com,"
                   "aes256-ctr,aes192-ctr,aes128-ctr");
    uv_loop_init(&bench->loop);
    bench->transport = transport_new(&bench->loop, bench->sshd.keyring);
    pipe_conn_init(&bench->source, &bench->loop, "/bin/sh");
    bench->copier = copier_new(&bench->loop, &bench->source.conn, serve, "the bench's store");
    copier_read_files(bench->copier, root);
    copier_closure(bench->copier, TOP, on_closure, bench);
    while (bench->closure == NULL) {
        uv_run(&bench->loop, UV_RUN_ONCE);
    }
}

static void close_bench(struct bench *bench) {
    copier_free(bench->copier);
    transport_free(bench->transport);
    uv_run(&bench->loop, UV_RUN_DEFAULT);
    uv_loop_close(&bench->loop);
    own_sshd_stop(&bench->sshd);
    AUTO_FREE char *clean = xasprintf("rm -r %s", folder);
    if (system(clean) != 0) {
        exit(1);
    }
}

/* ---- the others ---- */

static double cat_seconds(const struct bench *bench, const char *options) {
    AUTO_FREE char *from = xasprintf("< %s/src%s/share/big", folder,
                                     "/nix/store/00000000000000000000000000000001-mixed-1.0");
    uint64_t start = uv_hrtime();
    if (own_sshd_client(&bench->sshd, from, options, "cat > /dev/null") != 0) {
        exit(1);
    }
    return seconds_since(start);
}

static double host_seconds(const char *store) {
    AUTO_FREE char *command = xasprintf("%s < %s/tape > /dev/null 2>&1", store, folder);
    uint64_t start = uv_hrtime();
    if (system(command) != 0) {
        exit(1);
    }
    return seconds_since(start);
}

static void forget_store(void) {
    AUTO_FREE char *command = xasprintf("chmod -R u+w %s/dst; rm -rf %s/dst", folder, folder);
    if (system(command) != 0) {
        exit(1);
    }
}

/* ---- rounds ---- */

enum row {
    CAT,
    CAT_GCM,
    FLEET,
    HOST,
    BOTH,
    ROWS
};

static const char *const names[ROWS] = {
    [CAT] = "ssh cat, OpenSSH's cipher",
    [CAT_GCM] = "ssh cat, aes128-gcm",
    [FLEET] = "fleet",
    [HOST] = "host alone",
    [BOTH] = "fleet into the host's store",
};

static int compare(const void *left, const void *right) {
    double difference = *(const double *)left - *(const double *)right;
    return difference < 0 ? -1 : difference > 0;
}

static void print(double seconds[ROWS][ROUNDS_MAX], size_t rounds, uint64_t bytes) {
    double rates[ROWS];
    for (size_t row = 0; row < ROWS; row++) {
        qsort(seconds[row], rounds, sizeof(seconds[row][0]), compare);
        rates[row] = (double)bytes / seconds[row][rounds / 2] / 1e6;
    }
    for (size_t row = 0; row < ROWS; row++) {
        printf("%-28s %6.0f MB/s  %4.0f %% of ssh cat  %4.0f %% with the same cipher\n", names[row],
               rates[row], 100 * rates[row] / rates[CAT], 100 * rates[row] / rates[CAT_GCM]);
    }
}

static void measure(struct bench *bench, size_t rounds) {
    static double seconds[ROWS][ROUNDS_MAX];
    AUTO_FREE char *take = sink_command(bench->closure);
    AUTO_FREE char *record = xasprintf("%s %s/tape", take, folder);
    AUTO_FREE char *store =
        xasprintf("nix-store --serve --write --store local?root=%s/dst", folder);
    fleet_seconds(bench, record);
    for (size_t i = 0; i < rounds; i++) {
        seconds[CAT][i] = cat_seconds(bench, "");
        seconds[FLEET][i] = fleet_seconds(bench, take);
        seconds[CAT_GCM][i] = cat_seconds(bench, "-c aes128-gcm@openssh.com");
        seconds[HOST][i] = host_seconds(store);
        forget_store();
        seconds[BOTH][i] = fleet_seconds(bench, store);
        forget_store();
    }
    print(seconds, rounds, bench->closure->nar_size);
}

int main(int argc, char **argv) {
    if (argc >= 6 && strcmp(argv[1], "--sink") == 0) {
        return sink(argv + 2);
    }
    unsigned megabytes = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 500;
    size_t rounds = argc > 2 ? strtoul(argv[2], NULL, 10) : 5;
    struct bench bench = {0};
    signal(SIGPIPE, SIG_IGN);
    if (megabytes == 0 || rounds == 0 || rounds > ROUNDS_MAX) {
        fprintf(stderr, "usage: bench_one_host [MEGABYTES [ROUNDS]]\n");
        return 2;
    }
    if (mkdtemp(folder) == NULL) {
        perror(folder);
        return 1;
    }
    open_bench(&bench, megabytes);
    printf("one host, %u MB of random bytes, medians of %zu rounds\n", megabytes, rounds);
    measure(&bench, rounds);
    close_bench(&bench);
    return 0;
}
