#include "tests/unit/copy_fixture.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/base/xalloc.h"

uv_loop_t loop;
struct pipe_conn source_conn;
struct copier *copier;
struct target targets[TARGETS];
char folder[] = "/tmp/fleet-copy-XXXXXX";
struct copy_options options;

int run(const char *format, ...) {
    va_list args;
    va_start(args, format);
    AUTO_FREE char *command = xvasprintf(format, args);
    va_end(args);
    return system(command);
}

void make_store(unsigned small, unsigned big_mb) {
    cr_assert_eq(run("tests/support/make_store.sh %s/src %u %u", folder, small, big_mb), 0);
}

void open_copier(void) {
    AUTO_FREE char *command = xasprintf("nix-store --serve --store local?root=%s/src", folder);
    copier = copier_new(&loop, &source_conn.conn, command, "the test's store");
}

void setup(void) {
    signal(SIGPIPE, SIG_IGN);
    if (geteuid() != 0) {
        cr_skip_test("needs root to mount a scratch store");
    }
    cr_assert_eq(uv_loop_init(&loop), 0);
    cr_assert_not_null(mkdtemp(folder));
    options = (struct copy_options){.stall_timeout_ms = 20000};
    pipe_conn_init(&source_conn, &loop, "/bin/sh");
    for (size_t i = 0; i < TARGETS; i++) {
        targets[i] = (struct target){0};
        pipe_conn_init(&targets[i].conn, &loop, "/bin/sh");
        targets[i].command =
            xasprintf("nix-store --serve --write --store local?root=%s/dst%zu", folder, i);
    }
    open_copier();
}

void teardown(void) {
    for (size_t i = 0; i < TARGETS; i++) {
        if (targets[i].job != NULL) {
            copy_close(targets[i].job);
        }
        free(targets[i].command);
        buf_free(&targets[i].log);
    }
    copier_free(copier);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert_eq(uv_loop_close(&loop), 0);
    run("umount %s/small 2>/dev/null; rm -rf %s", folder, folder);
}

static void on_progress(const struct copy_progress *progress, void *arg) {
    struct target *target = arg;
    if (target->progressed++ == 0) {
        target->first = *progress;
    }
    cr_expect_geq(progress->bytes_done, target->last.bytes_done);
    cr_expect_geq(progress->paths_done, target->last.paths_done);
    cr_expect_leq(progress->bytes_done, progress->bytes_total);
    target->last = *progress;
}

static void on_done(const struct copy_progress *progress, void *arg) {
    struct target *target = arg;
    target->done++;
    target->last = *progress;
}

static void on_failed(const struct error *error, void *arg) {
    struct target *target = arg;
    target->failed++;
    target->error = *error;
}

static void on_log(const char *line, size_t len, void *arg) {
    struct target *target = arg;
    buf_add(&target->log, line, len);
    buf_add_char(&target->log, '\n');
}

static void on_before(char *const *paths, size_t count, const struct closure *copied, void *arg) {
    struct target *target = arg;
    cr_expect_eq(target->done, 0, "told after the end");
    for (size_t i = 0; i < count; i++) {
        cr_expect(store_path_is_valid(paths[i]));
    }
    target->told++;
    target->runs_paths = count;
    target->copied_paths = copied->count;
}

const struct copy_handlers handlers = {.on_progress = on_progress,
                                       .on_done = on_done,
                                       .on_failed = on_failed,
                                       .on_before = on_before,
                                       .on_log = on_log};

void start(size_t i) {
    struct target *target = &targets[i];
    target->done = target->failed = target->progressed = target->told = 0;
    target->last = (struct copy_progress){0};
    options.command = target->command;
    target->job = copy_start(copier, &target->conn.conn, TOP, &options, &handlers, target);
    cr_assert_eq(target->done + target->failed, 0);
}

void await(size_t i) {
    while (targets[i].done + targets[i].failed == 0) {
        uv_run(&loop, UV_RUN_ONCE);
    }
}

void stop(size_t i) {
    copy_close(targets[i].job);
    targets[i].job = NULL;
}

void expect_good(size_t i) {
    cr_assert_eq(targets[i].done, 1, "target %zu: %s", i, targets[i].error.message);
    cr_expect_eq(targets[i].failed, 0);
    cr_expect_eq(run("nix-store --store 'local?root=%s/dst%zu' --verify --check-contents 2>&1 | "
                     "grep -q 'error\\|modified'",
                     folder, i) != 0,
                 1, "target %zu does not verify", i);
    cr_expect_eq(run("diff -r --no-dereference %s/src/nix/store %s/dst%zu/nix/store -x .links",
                     folder, folder, i),
                 0);
}

void wait_for_paths(size_t i, uint64_t paths) {
    while (targets[i].last.paths_done < paths && targets[i].done + targets[i].failed == 0) {
        uv_run(&loop, UV_RUN_ONCE);
    }
}

void case_killed_goes_on(unsigned small, const char *kill) {
    wait_for_paths(0, 30);
    cr_assert_eq(targets[0].done + targets[0].failed, 0, "it was over before it could be killed");
    cr_assert_eq(run("%s", kill), 0);
    await(0);
    cr_assert_eq(targets[0].failed, 1);
    cr_expect_eq(targets[0].error.code, FLEET_ERR_REMOTE);
    stop(0);
    targets[0].conn.write_rate = 0;
    start(0);
    await(0);
    expect_good(0);
    /* On a busy machine all of it may have arrived before the kill. */
    cr_expect_lt(targets[0].last.paths_total, small + 2u, "it began anew");
}

void case_one_slow_of_three(enum copy_compress third) {
    make_store(40, 24);
    targets[0].conn.write_rate = 1000000;
    start(0);
    start(1);
    options.compress = third;
    start(2);
    await(1);
    await(2);
    expect_good(1);
    expect_good(2);
    cr_expect_eq(targets[0].done, 0, "the slow one was not slow");
    targets[0].conn.write_rate = 0;
    await(0);
    expect_good(0);
}

void case_one_mute_of_two(unsigned big_mb) {
    make_store(5, big_mb);
    targets[0].conn.write_rate = 3000000;
    options.stall_timeout_ms = 500;
    start(0);
    options.stall_timeout_ms = 20000;
    start(1);
    while (targets[0].last.paths_total == 0) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    targets[0].conn.mute = true;
    await(0);
    cr_assert_eq(targets[0].failed, 1);
    cr_expect_eq(targets[0].error.code, FLEET_ERR_TIMEOUT);
    await(1);
    expect_good(1);
}
