/* What each cipher costs: CPU and wall time of sending and receiving bytes over transport/ to an
 * sshd of its own on 127.0.0.1, and OpenSSH's client beside it in the same run. The order of
 * transport/ssh_connect.c's preferences comes from here. Run as root; prints a table.
 *
 * ssh_ciphers [MEGABYTES]   (default 500)
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "tests/support/own_sshd.h"

static const char *const ciphers[] = {
    "aes128-gcm@openssh.com",        "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr",
    "chacha20-poly1305@openssh.com",
};

enum {
    CHUNK_BYTES = 256 * 1024,
    QUEUE_HIGH = 1024 * 1024
};

static char folder[] = "/tmp/fleet-ssh-ciphers-XXXXXX";

struct transfer {
    struct conn *conn;
    struct stream *stream;
    struct chunk *chunk;
    const char *command;
    size_t left; /* to be sent */
    size_t received;
    int status;
};

static void pump(struct transfer *transfer) {
    while (transfer->left > 0 && stream_queued(transfer->stream) < QUEUE_HIGH) {
        stream_write_chunk(transfer->stream, transfer->chunk);
        transfer->left -= transfer->left < CHUNK_BYTES ? transfer->left : CHUNK_BYTES;
        if (transfer->left == 0) {
            stream_eof(transfer->stream);
        }
    }
}

static void on_data(int fd, const char *data, size_t len, void *arg) {
    struct transfer *transfer = arg;
    (void)fd;
    (void)data;
    transfer->received += len;
}

static void on_drain(void *arg) {
    pump(arg);
}

static void on_end(const struct stream_end *end, void *arg) {
    struct transfer *transfer = arg;
    transfer->left = 0;
    transfer->status = end->lost ? -1 : end->status;
    conn_close(transfer->conn);
}

static const struct stream_handlers stream_handlers = {
    .on_data = on_data, .on_drain = on_drain, .on_end = on_end};

static void on_ready(const char *address, void *arg) {
    struct transfer *transfer = arg;
    (void)address;
    transfer->stream = conn_exec(transfer->conn, transfer->command, &stream_handlers, transfer);
    pump(transfer);
}

static void on_lost(const struct error *error, void *arg) {
    struct transfer *transfer = arg;
    fprintf(stderr, "%s\n", error->message);
    transfer->status = -1;
    conn_close(transfer->conn);
}

static const struct conn_handlers conn_handlers = {.on_ready = on_ready, .on_lost = on_lost};

static double cpu_seconds(int who) {
    struct rusage usage;
    getrusage(who, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void ours(const struct own_sshd *sshd, const char *command, size_t send_bytes) {
    uv_loop_t loop;
    uv_loop_init(&loop);
    struct transport *transport = transport_new(&loop, sshd->keyring);
    struct transfer transfer = {.command = command, .left = send_bytes};
    transfer.chunk = chunk_new(CHUNK_BYTES);
    memset(transfer.chunk->data, 'x', CHUNK_BYTES);
    double cpu = cpu_seconds(RUSAGE_SELF);
    uint64_t start = uv_hrtime();
    transfer.conn = transport_open(transport, &sshd->spec, &conn_handlers, &transfer);
    uv_run(&loop, UV_RUN_DEFAULT);
    printf("  %6.2f s cpu %6.2f s wall%s", cpu_seconds(RUSAGE_SELF) - cpu,
           (double)(uv_hrtime() - start) / 1e9, transfer.status == 0 ? "" : " FAILED");
    chunk_unref(transfer.chunk);
    transport_free(transport);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
}

static void theirs(const struct own_sshd *sshd, size_t bytes) {
    AUTO_FREE char *from = xasprintf("head -c %zu /dev/zero |", bytes);
    double cpu = cpu_seconds(RUSAGE_CHILDREN);
    uint64_t start = uv_hrtime();
    int status =
        own_sshd_client(sshd, from, "-o KexAlgorithms=curve25519-sha256", "cat >/dev/null");
    printf("  %6.2f s cpu %6.2f s wall%s\n", cpu_seconds(RUSAGE_CHILDREN) - cpu,
           (double)(uv_hrtime() - start) / 1e9, status == 0 ? "" : " FAILED");
}

/* With an sshd that allows one cipher only. */
static void bench(const char *cipher, size_t bytes) {
    struct own_sshd sshd;
    own_sshd_start(&sshd, folder, cipher);
    AUTO_FREE char *receive = xasprintf("head -c %zu /dev/zero", bytes);
    printf("%-30s", cipher);
    ours(&sshd, "cat >/dev/null", bytes);
    ours(&sshd, receive, 0);
    theirs(&sshd, bytes);
    own_sshd_stop(&sshd);
}

int main(int argc, char **argv) {
    size_t bytes = (argc > 1 ? strtoul(argv[1], NULL, 10) : 500) * 1000000;
    signal(SIGPIPE, SIG_IGN);
    if (mkdtemp(folder) == NULL) {
        perror(folder);
        return 1;
    }
    printf("%zu MB: %-22s %-27s %-27s %s\n", bytes / 1000000, "", "sent by fleet",
           "received by fleet", "sent by OpenSSH");
    for (size_t i = 0; i < ARRAY_LEN(ciphers); i++) {
        bench(ciphers[i], bytes);
        fflush(stdout);
    }
    return rmdir(folder);
}
