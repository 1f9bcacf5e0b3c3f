/* Four loops on four threads take the same paths from the one feed, one of them late and slowly:
 * each must get every byte, and ThreadSanitizer must have nothing to say. Before they begin a read
 * hangs, as on a broken disk, and its thread is left behind; it comes back while they take. The
 * same happens once more at the end, where it comes back while the program ends. A plain program,
 * since Criterion does not run under ThreadSanitizer. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <unistd.h>
#include <zstd.h>

#include "core/base/xalloc.h"
#include "transport/nar.h"
#include "transport/nar_dump.h"
#include "transport/nar_feed.h"
#include "transport/serve.h"

enum {
    THREADS = 4,
    SMALL = 40,
    PATHS = SMALL + 2,
    HUNG = PATHS, /* one that nobody gets */
    ALL,
    HUNG_BYTES = 2 * 1000 * 1000,
    BIG_BYTES = 130 * 1000 * 1000, /* more than the feed keeps: the late one goes alone */
};

static struct path_info infos[ALL];
static atomic_uint finished;
static atomic_int held = -1; /* fanotify's descriptor: as long as it is open, reads hang */
static char root[] = "/tmp/fleet-feed-XXXXXX";

static void check(int truth, const char *what) {
    if (!truth) {
        fprintf(stderr, "test_nar_feed: %s\n", what);
        abort();
    }
}

/* One taker: a loop, a port, and how far it has come. */
struct taker {
    uv_thread_t thread;
    uv_loop_t loop;
    uv_timer_t timer;
    struct nar_port *port;
    unsigned forms;
    bool late;
    unsigned path;
    uint64_t blocks;
    struct nar_reader *reader;
    ZSTD_DStream *unpacker;
    size_t header_left;
};

static size_t header_len(unsigned path) {
    struct buf header = BUF_INIT;
    serve_put_add(&header, &infos[path]);
    size_t len = header.len;
    buf_free(&header);
    return len;
}

static void take_bytes(struct taker *taker, const void *data, size_t len) {
    size_t skip = taker->header_left < len ? taker->header_left : len;
    taker->header_left -= skip;
    size_t used = 0;
    if (len > skip) {
        int state = nar_read(taker->reader, (const char *)data + skip, len - skip, &used, NULL);
        check(state >= 0 && used == len - skip, "the bytes are no archive");
    }
}

static void unpack(struct taker *taker, const struct chunk *frame) {
    static const size_t room = 1 << 20;
    AUTO_FREE char *out = xmalloc(room);
    ZSTD_inBuffer in = {frame->data, frame->len, 0};
    while (in.pos < in.size) {
        ZSTD_outBuffer to = {out, room, 0};
        check(!ZSTD_isError(ZSTD_decompressStream(taker->unpacker, &to, &in)), "no zstd frame");
        take_bytes(taker, out, to.pos);
    }
}

static void let_go(void) {
    int fd = atomic_exchange(&held, -1);
    if (fd >= 0) {
        close(fd);
    }
}

static void path_over(struct taker *taker) {
    char hash[65];
    nar_hash(taker->reader, hash);
    check(strcmp(hash, infos[taker->path].nar_hash) == 0, "the bytes are others");
    nar_reader_reset(taker->reader);
    if (++taker->path < PATHS) {
        taker->header_left = header_len(taker->path);
        if (taker->path == SMALL / 2) {
            let_go();
        }
    } else {
        nar_port_close(taker->port);
        uv_close((uv_handle_t *)&taker->timer, NULL);
    }
}

static void on_ready(void *arg) {
    struct taker *taker = arg;
    uint32_t tag;
    struct nar_block block;
    bool begun;
    struct error error = ERROR_INIT;
    while (taker->path < PATHS) {
        if (taker->late && taker->path == SMALL && taker->blocks == SMALL + 2) {
            return; /* the timer goes on once the others are far ahead */
        }
        int got = nar_port_next(taker->port, &tag, &block, &begun, &error);
        check(got >= 0, error.message);
        if (got == 0) {
            return;
        }
        taker->blocks++;
        check(tag == taker->path, "a block of another path");
        check((block.raw != NULL) == ((taker->forms & NAR_RAW) != 0) || taker->forms == NAR_PACKED,
              "a form is missing");
        if (taker->forms == NAR_PACKED) {
            unpack(taker, block.packed);
        } else {
            take_bytes(taker, block.raw->data, block.raw->len);
        }
        chunk_unref(block.raw);
        chunk_unref(block.packed);
        if (block.last) {
            path_over(taker);
        }
    }
}

/* The late one goes on only when all others have everything: nobody may wait for it. */
static void on_timer(uv_timer_t *timer) {
    struct taker *taker = container_of(timer, struct taker, timer);
    if (atomic_load(&finished) == THREADS - 1) {
        uv_timer_stop(timer);
        taker->late = false;
        on_ready(taker);
    }
}

static void take(void *arg) {
    struct taker *taker = arg;
    uv_loop_init(&taker->loop);
    uv_timer_init(&taker->loop, &taker->timer);
    taker->reader = nar_reader_new();
    taker->unpacker = ZSTD_createDStream();
    taker->port = nar_port_new(&taker->loop, root, on_ready, taker);
    taker->header_left = header_len(0);
    for (uint32_t path = 0; path < PATHS; path++) {
        nar_port_ask(taker->port, path, &infos[path], taker->forms);
    }
    if (taker->late) {
        uv_timer_start(&taker->timer, on_timer, 20, 20);
    }
    uv_run(&taker->loop, UV_RUN_DEFAULT);
    atomic_fetch_add(&finished, 1);
    check(uv_loop_close(&taker->loop) == 0, "a handle is left");
    nar_reader_free(taker->reader);
    ZSTD_freeDStream(taker->unpacker);
}

static void make_path(unsigned i, size_t bytes) {
    AUTO_FREE char *path = xasprintf("/nix/store/%032u-path%u", i, i);
    AUTO_FREE char *make = xasprintf(
        "mkdir -p %s%s/bin && head -c %zu /dev/urandom | od -An -tx1 | head -c %zu >%s%s/bin/data",
        root, path, bytes / 2, bytes, root, path);
    check(system(make) == 0, "making a path failed");
    AUTO_FREE char *file = xasprintf("%s%s", root, path);
    struct nar_dump *dump = nar_dump_new(file);
    struct nar_reader *reader = nar_reader_new();
    static char part[1 << 20];
    bool end = false;
    while (!end) {
        size_t len = 0;
        size_t used;
        check(nar_dump_read(dump, part, sizeof(part), &len, &end, NULL) == 0, "no dump");
        check(len == 0 || nar_read(reader, part, len, &used, NULL) >= 0, "no archive");
    }
    infos[i] = (struct path_info){
        .path = xstrdup(path), .deriver = "", .nar_size = nar_size(reader), .ca = ""};
    nar_hash(reader, infos[i].nar_hash);
    nar_reader_free(reader);
    nar_dump_free(dump);
}

static void on_nothing(void *arg) {
    (void)arg;
}

/* Asks for a path whose file hangs, with another behind it, and gives up: false where this machine
 * can't have a file hang. */
static bool leave_behind(void) {
    int hold = fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, O_RDONLY | O_CLOEXEC);
    if (hold < 0) {
        fprintf(stderr, "test_nar_feed: no fanotify here (%s): no read hangs\n", strerror(errno));
        return false;
    }
    AUTO_FREE char *file = xasprintf("%s%s/bin/data", root, infos[HUNG].path);
    check(fanotify_mark(hold, FAN_MARK_ADD, FAN_ACCESS_PERM, AT_FDCWD, file) == 0, "no mark");
    atomic_store(&held, hold);
    uv_loop_t loop;
    uv_loop_init(&loop);
    struct nar_port *port = nar_port_new(&loop, root, on_nothing, NULL);
    nar_port_ask(port, 0, &infos[HUNG], NAR_RAW | NAR_PACKED);
    nar_port_ask(port, 1, &infos[0], NAR_RAW);
    struct error error = ERROR_INIT;
    while (!nar_port_hangs(port, 100, &error)) {
        usleep(1000);
    }
    check(strcmp(error.reason, "copy-stalled") == 0, error.message);
    nar_port_close(port);
    uv_run(&loop, UV_RUN_DEFAULT);
    check(uv_loop_close(&loop) == 0, "a handle is left");
    return true;
}

/* The next block of the port, which may take a while: what nar_port_next says. */
static int wait_for_block(struct nar_port *port, uint32_t *ret_tag, bool *ret_last) {
    struct nar_block block;
    bool begun;
    struct error error = ERROR_INIT;
    int got;
    for (unsigned tries = 0; (got = nar_port_next(port, ret_tag, &block, &begun, &error)) == 0;) {
        check(++tries < 60000, "no block comes any more");
        usleep(1000);
    }
    if (got > 0) {
        *ret_last = block.last;
        chunk_unref(block.raw);
    }
    return got;
}

/* One port hangs back, and by the time it has to be read to on its own the path is damaged: it is
 * told, and gets what it asked for behind that. */
static void damage_for_one(void) {
    uv_loop_t loop;
    uv_loop_init(&loop);
    struct nar_port *quick = nar_port_new(&loop, root, on_nothing, NULL);
    struct nar_port *slow = nar_port_new(&loop, root, on_nothing, NULL);
    nar_port_ask(quick, 0, &infos[SMALL], NAR_RAW);
    nar_port_ask(slow, 0, &infos[SMALL], NAR_RAW);
    nar_port_ask(slow, 1, &infos[HUNG], NAR_RAW);
    uint32_t tag;
    bool last = false;
    for (unsigned i = 0; i < 2; i++) {
        check(wait_for_block(slow, &tag, &last) == 1, "the slow one gets nothing");
    }
    AUTO_FREE char *damage =
        xasprintf("cd %s%s/bin && echo short >short && mv short data", root, infos[SMALL].path);
    check(system(damage) == 0, "damaging the path failed");
    while (!last) { /* from the file that it has open */
        check(wait_for_block(quick, &tag, &last) == 1, "the quick one lost its path");
    }
    usleep(50000); /* the thread has nothing to do by now: who takes the error has to wake it */
    int got;
    while ((got = wait_for_block(slow, &tag, &last)) == 1) {
        check(tag == 0 && !last, "it was not read anew");
    }
    check(got == FLEET_ERR_PROTOCOL && tag == 0, "the damage was not told");
    check(wait_for_block(slow, &tag, &last) == 1 && tag == 1, "the next path did not come");
    nar_port_close(quick);
    nar_port_close(slow);
    uv_run(&loop, UV_RUN_DEFAULT);
    check(uv_loop_close(&loop) == 0, "a handle is left");
}

int main(void) {
    OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT, NULL); /* as in cmd/main.c */
    check(mkdtemp(root) != NULL, "no folder");
    for (unsigned i = 0; i < ALL; i++) {
        make_path(i, i == SMALL ? BIG_BYTES : i == HUNG ? HUNG_BYTES : 5000 + 10 * i);
    }
    bool hangs = leave_behind();
    struct taker takers[THREADS] = {{.forms = NAR_RAW},
                                    {.forms = NAR_PACKED},
                                    {.forms = NAR_RAW, .late = true},
                                    {.forms = NAR_RAW}};
    for (size_t i = 0; i < THREADS; i++) {
        check(uv_thread_create(&takers[i].thread, take, &takers[i]) == 0, "no thread");
    }
    for (size_t i = 0; i < THREADS; i++) {
        uv_thread_join(&takers[i].thread);
        check(takers[i].path == PATHS, "a path is missing");
    }
    check(atomic_load(&held) < 0, "nobody let go");
    damage_for_one();
    if (hangs) {
        leave_behind();
    }
    for (unsigned i = 0; i < ALL; i++) {
        free((void *)(uintptr_t)infos[i].path);
    }
    AUTO_FREE char *clean = xasprintf("rm -rf %s", root);
    check(system(clean) == 0, "the folder stays");
    let_go();
    return 0;
}
