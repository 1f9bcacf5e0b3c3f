/* The copier as it is between this machine's store and far ones: archives read from the files and
 * shared (nar_feed), bytes compressed on the way (copy_pipe). test_copy.c has the serve process. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "tests/unit/copy_fixture.h"

static void read_files(void) {
    AUTO_FREE char *root = xasprintf("%s/src", folder);
    copier_read_files(copier, root);
}

static void setup_files(void) {
    setup();
    read_files();
}

TestSuite(copy_files, .init = setup_files, .fini = teardown, .timeout = 100);

static void pack(void) {
    options.compress = COPY_COMPRESS_ZSTD;
}

Test(copy_files, brings_a_closure_without_a_serve_process_for_archives) {
    make_store(60, 3);
    start(0);
    await(0);
    expect_good(0);
    cr_expect_eq(targets[0].last.paths_done, 62u);
    cr_expect_eq(source_conn.exec_count, 1u, "the closure was asked for more than once");
    cr_expect_eq(targets[0].conn.exec_count, 1u);
}

Test(copy_files, brings_a_closure_compressed) {
    make_store(60, 8);
    pack();
    start(0);
    await(0);
    expect_good(0);
    cr_expect_eq(targets[0].last.paths_done, 62u);
    cr_expect_eq(targets[0].last.bytes_done, targets[0].last.bytes_total);
    cr_expect_eq(targets[0].conn.exec_count, 2u, "one for questions and one for bytes");
}

Test(copy_files, serves_both_forms_at_once) {
    make_store(60, 8);
    start(0);
    start(1);
    pack();
    start(2);
    start(3);
    for (size_t i = 0; i < TARGETS; i++) {
        await(i);
        expect_good(i);
    }
}

/* `auto` takes a second channel for much, not for little. */
Test(copy_files, opens_a_channel_for_much_only) {
    options.compress = COPY_COMPRESS_AUTO;
    make_store(20, 6);
    start(0);
    await(0);
    expect_good(0);
    cr_expect_eq(targets[0].conn.exec_count, 2u);
}

Test(copy_files, little_goes_over_one_channel) {
    options.compress = COPY_COMPRESS_AUTO;
    make_store(20, 1);
    start(0);
    await(0);
    expect_good(0);
    cr_expect_eq(targets[0].conn.exec_count, 1u);
}

/* A login shell whose PATH has all but zstd. */
static void hide_zstd(struct target *target) {
    cr_assert_eq(
        run("mkdir -p %s/bin && for p in nix-store sh; do ln -sf $(command -v $p) %s/bin/; "
            "done; printf '#!/bin/sh\\nshift; PATH=%s/bin; export PATH; exec /bin/sh -c "
            "\"$1\"\\n' >%s/login && chmod +x %s/login",
            folder, folder, folder, folder, folder),
        0);
    target->conn.login_shell = xasprintf("%s/login", folder);
}

Test(copy_files, sends_as_it_is_where_zstd_is_missing) {
    make_store(20, 6);
    hide_zstd(&targets[0]);
    options.compress = COPY_COMPRESS_AUTO;
    start(0);
    await(0);
    expect_good(0);
    stop(0);
    free((void *)(uintptr_t)targets[0].conn.login_shell);
}

Test(copy_files, says_that_zstd_is_missing) {
    make_store(20, 6);
    hide_zstd(&targets[0]);
    pack();
    start(0);
    await(0);
    cr_assert_eq(targets[0].failed, 1);
    cr_expect_str_eq(targets[0].error.reason, "no-zstd");
    stop(0);
    free((void *)(uintptr_t)targets[0].conn.login_shell);
}

/* What was acknowledged, or had arrived, is not sent again. */
Test(copy_files, goes_on_after_the_compressed_channel_was_killed) {
    make_store(600, 0);
    targets[0].conn.write_rate = 60000;
    pack();
    start(0);
    AUTO_FREE char *kill = xasprintf(
        "kill -9 $(pgrep -f 'nix-store --serve --write --store local.root=%s/dst0$')", folder);
    case_killed_goes_on(600, kill);
}

Test(copy_files, one_slow_host_holds_up_nobody) {
    pack();
    case_one_slow_of_three(COPY_COMPRESS_NONE);
}

Test(copy_files, a_host_that_takes_nothing_times_out) {
    pack();
    case_one_mute_of_two(24);
}

/* Reads of the file don't come back until fanotify's descriptor is closed, as with a disk that
 * hangs. The copy gives up, and so does whoever closes it; the next one reads anew. */
Test(copy_files, a_disk_that_hangs_times_out) {
    make_store(20, 4);
    int hold = fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, O_RDONLY | O_CLOEXEC);
    if (hold < 0) {
        cr_skip_test("this kernel has no fanotify");
    }
    AUTO_FREE char *file = xasprintf("%s/src%s/share/big", folder, MIXED);
    cr_assert_eq(fanotify_mark(hold, FAN_MARK_ADD, FAN_ACCESS_PERM, AT_FDCWD, file), 0);
    options.stall_timeout_ms = 5000;
    start(0);
    await(0);
    cr_assert_eq(targets[0].failed, 1);
    cr_expect_eq(targets[0].error.code, FLEET_ERR_TIMEOUT);
    cr_expect_str_eq(targets[0].error.reason, "copy-stalled");
    cr_expect(strstr(targets[0].error.message, MIXED " was read") != NULL, "%s",
              targets[0].error.message);
    stop(0);
    copier_free(copier);
    uv_run(&loop, UV_RUN_DEFAULT);
    close(hold);
    options.stall_timeout_ms = 20000;
    open_copier();
    read_files();
    start(0);
    await(0);
    expect_good(0);
}

/* The rate is that of the wire, after compression. */
Test(copy_files, keeps_to_the_rate_on_the_wire) {
    make_store(5, 5);
    options.max_rate = 2000000;
    pack();
    uint64_t begin_ms = uv_hrtime() / 1000000;
    start(0);
    await(0);
    expect_good(0);
    cr_expect_gt(uv_hrtime() / 1000000 - begin_ms, 2000u);
}

/* The last eight of random bytes: a single one is what it was in one of 256 runs. */
static void damage(void) {
    cr_assert_eq(
        run("chmod -R u+w %s/src/nix/store/*mixed* && printf damaged! | dd of=%s/src%s/share/big "
            "bs=1 seek=3999992 conv=notrunc status=none",
            folder, folder, MIXED),
        0);
}

static void expect_damage_named(void) {
    start(0);
    await(0);
    cr_assert_eq(targets[0].failed, 1);
    cr_expect_str_eq(targets[0].error.reason, "source-corrupt");
    cr_expect(strstr(targets[0].error.message, MIXED) != NULL, "%s", targets[0].error.message);
    stop(0);
    cr_expect_neq(run("nix-store --store 'local?root=%s/dst0' --check-validity %s 2>/dev/null",
                      folder, MIXED),
                  0, "the target has taken a damaged path");
}

Test(copy_files, names_a_damaged_path) {
    make_store(30, 4);
    damage();
    expect_damage_named();
}

Test(copy_files, names_a_damaged_path_when_compressed) {
    make_store(30, 4);
    damage();
    pack();
    expect_damage_named();
}

Test(copy_files, names_a_path_that_grew) {
    make_store(30, 1);
    cr_assert_eq(run("chmod -R u+w %s/src/nix/store/*mixed* && echo more >>%s/src%s/share/big",
                     folder, folder, MIXED),
                 0);
    expect_damage_named();
}

/* Then whoever serves the store knows more. */
Test(copy_files, goes_back_to_the_serve_process_where_files_are_elsewhere) {
    make_store(30, 4);
    copier_read_files(copier, "/nonexistent/root");
    pack();
    start(0);
    start(1);
    await(0);
    await(1);
    expect_good(0);
    expect_good(1);
    cr_expect_eq(source_conn.exec_count, 1u);
}

Test(copy_files, survives_a_garbage_collection_meanwhile) {
    make_store(400, 0);
    targets[0].conn.write_rate = 40000;
    pack();
    start(0);
    wait_for_paths(0, 20);
    cr_assert_eq(targets[0].done + targets[0].failed, 0);
    cr_expect_eq(run("nix-collect-garbage --store 'local?root=%s/dst0' >/dev/null 2>&1", folder),
                 0);
    targets[0].conn.write_rate = 0;
    await(0);
    expect_good(0);
    cr_expect_eq(run("nix-collect-garbage --store 'local?root=%s/dst0' >/dev/null 2>&1", folder),
                 0);
    expect_good(0);
}

/* Late ones get the blocks of those who came first, or a reading of their own. */
Test(copy_files, who_comes_late_is_served_while_the_first_still_runs) {
    make_store(40, 24);
    targets[0].conn.write_rate = 4000000;
    start(0);
    while (targets[0].progressed == 0) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    start(1);
    await(1);
    expect_good(1);
    cr_expect_eq(targets[0].done, 0, "the first was over before");
    await(0);
    expect_good(0);
}
