/* What no program that sends a closure over SSH can save: CPU of the sending side for encryption
 * (AES-128-GCM by OpenSSL, in packets of SSH's size) and for the kernel's own sending (a bare sender
 * over loopback TCP, which pays for the receiving side's interrupts too), for reading the file,
 * hashing and compressing, for 200 MB of random bytes and of this machine's own programs, in one run.
 * The last lines say what that makes a host: reading, hashing and compressing count once for all
 * hosts, the rest for each. Beside it the least that any of zstd's fast levels would make, where
 * bytes that are packed less well cost more on the wire.
 * tests/bench/run prints beside the peers' chain what fleet needs for the same bytes.
 *
 * Usage: bench_floor [HOSTS...]   default: 8 32
 */
#include <netinet/in.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

#include "core/base/xalloc.h"
#include "transport/conn.h"
#include "transport/zstd_frame.h"

enum {
    BYTES = 200 * 1000 * 1000,
    PACKET = 32 * 1024,
    BLOCK = 512 * 1024
};

static double cpu_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static double encrypt_ms(const unsigned char *data, size_t len) {
    static const unsigned char key[16], iv[12];
    static unsigned char out[PACKET + 16];
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    EVP_EncryptInit_ex(context, EVP_aes_128_gcm(), NULL, key, iv);
    double begin = cpu_ms();
    for (size_t at = 0; at < len; at += PACKET) {
        int part = (int)(len - at < PACKET ? len - at : PACKET);
        int got = 0;
        EVP_EncryptInit_ex(context, NULL, NULL, NULL, iv);
        EVP_EncryptUpdate(context, out, &got, data + at, part);
        EVP_EncryptFinal_ex(context, out + got, &got);
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, 16, out + PACKET);
    }
    double spent = cpu_ms() - begin;
    EVP_CIPHER_CTX_free(context);
    return spent;
}

static void receive(int listener) {
    static char buffer[256 * 1024];
    int fd = accept(listener, NULL, NULL);
    while (read(fd, buffer, sizeof(buffer)) > 0) {
    }
    _exit(0);
}

static double send_ms(const unsigned char *data, size_t len) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) != 0) {
        fail("a listening socket");
    }
    pid_t child = fork();
    if (child == 0) {
        receive(listener);
    }
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, size) != 0) {
        fail("connecting");
    }
    double begin = cpu_ms();
    for (size_t at = 0; at < len;) {
        ssize_t sent = send(fd, data + at, len - at < PACKET ? len - at : PACKET, MSG_NOSIGNAL);
        if (sent < 0) {
            fail("sending");
        }
        at += (size_t)sent;
    }
    double spent = cpu_ms() - begin;
    close(fd);
    close(listener);
    waitpid(child, NULL, 0);
    return spent;
}

static double hash_ms(const unsigned char *data, size_t len) {
    unsigned char hash[32];
    double begin = cpu_ms();
    EVP_Digest(data, len, hash, NULL, EVP_sha256(), NULL);
    return cpu_ms() - begin;
}

static double pack_ms(const unsigned char *data, size_t len, size_t *ret_packed) {
    struct zstd_packer *packer = zstd_packer_new();
    *ret_packed = 0;
    double begin = cpu_ms();
    for (size_t at = 0; at < len; at += BLOCK) {
        struct chunk *frame = zstd_pack(packer, data + at, len - at < BLOCK ? len - at : BLOCK);
        *ret_packed += frame->len;
        chunk_unref(frame);
    }
    double spent = cpu_ms() - begin;
    zstd_packer_free(packer);
    return spent;
}

static double read_ms(const unsigned char *data, size_t len) {
    static char buffer[BLOCK];
    int fd = memfd_create("floor", MFD_CLOEXEC);
    for (size_t at = 0; at < len;) {
        ssize_t written = write(fd, data + at, len - at);
        if (written < 0) {
            fail("a file in memory");
        }
        at += (size_t)written;
    }
    lseek(fd, 0, SEEK_SET);
    double begin = cpu_ms();
    while (read(fd, buffer, sizeof(buffer)) > 0) {
    }
    double spent = cpu_ms() - begin;
    close(fd);
    return spent;
}

/* One of zstd's levels: CPU and megabytes. */
struct level {
    int level;
    double ms, mb;
};

static struct level try_level(const unsigned char *data, size_t len, int level) {
    struct level result = {.level = level};
    ZSTD_CCtx *context = ZSTD_createCCtx();
    size_t room = ZSTD_compressBound(BLOCK);
    AUTO_FREE char *out = xmalloc(room);
    double begin = cpu_ms();
    for (size_t at = 0; at < len; at += BLOCK) {
        size_t part = len - at < BLOCK ? len - at : BLOCK;
        result.mb += (double)ZSTD_compressCCtx(context, out, room, data + at, part, level) / 1e6;
    }
    result.ms = cpu_ms() - begin;
    ZSTD_freeCCtx(context);
    return result;
}

/* The same choice of files as tests/testbed/system/system.nix makes. */
static unsigned char *read_from(const char *command, size_t len) {
    unsigned char *data = xmalloc(len);
    FILE *pipe = popen(command, "r");
    if (pipe == NULL || fread(data, 1, len, pipe) != len) {
        fail(command);
    }
    pclose(pipe);
    return data;
}

static void measure(const char *name, const char *command, size_t count,
                    const char *const *hosts_wanted) {
    static const int levels[] = {3, 1, -1, -3, -7, -20, -50};
    struct level tried[ARRAY_LEN(levels)];
    AUTO_FREE unsigned char *data = read_from(command, BYTES);
    size_t packed;
    double reading = read_ms(data, BYTES);
    double hashing = hash_ms(data, BYTES);
    double packing = pack_ms(data, BYTES, &packed);
    double encrypting = encrypt_ms(data, packed);
    double sending = send_ms(data, packed);
    printf(
        "200 MB %-8s  read %3.0f ms  SHA-256 %4.0f ms  zstd %4.0f ms, %3.0f MB  AES-128-GCM %3.0f "
        "ms  loopback TCP %3.0f ms\n",
        name, reading, hashing, packing, (double)packed / 1e6, encrypting, sending);
    for (size_t i = 0; i < ARRAY_LEN(levels); i++) {
        tried[i] = try_level(data, BYTES, levels[i]);
    }
    double wire_ms_a_mb = (encrypting + sending) / ((double)packed / 1e6);
    for (size_t i = 0; i < count; i++) {
        double hosts = strtod(hosts_wanted[i], NULL);
        const struct level *best = NULL;
        double least = 0;
        for (size_t j = 0; j < ARRAY_LEN(levels); j++) {
            double sum = (reading + hashing + tried[j].ms) / hosts + wire_ms_a_mb * tried[j].mb;
            if (best == NULL || sum < least) {
                best = &tried[j];
                least = sum;
            }
        }
        printf(
            "    %3.0f hosts: %5.1f ms a host; the least by any level %5.1f (level %d, %.0f MB)\n",
            hosts, (reading + hashing + packing) / hosts + encrypting + sending, least, best->level,
            best->mb);
    }
}

int main(int argc, char **argv) {
    static const char *const usual[] = {"8", "32"};
    const char *const *hosts = argc > 1 ? (const char *const *)argv + 1 : usual;
    size_t count = argc > 1 ? (size_t)argc - 1 : ARRAY_LEN(usual);
    measure("random", "exec cat /dev/urandom", count, hosts);
    measure(
        "programs",
        "while find /usr/lib /usr/share -xdev -type f -size +15k | LC_ALL=C sort | sed -n '0~3p' | "
        "tr '\\n' '\\000' | xargs -0 cat; do :; done 2>/dev/null",
        count, hosts);
    return 0;
}
