/* The copier between two real Nix stores, over pipes. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "tests/unit/copy_fixture.h"
#include "transport/local.h"

/* Refers to nothing. */
#define SMALL_PATH "/nix/store/00000000000000000000000000000002-small-2"

TestSuite(copy, .init = setup, .fini = teardown, .timeout = 100);

Test(copy, brings_a_closure_to_an_empty_store) {
    make_store(60, 3);
    start(0);
    await(0);
    expect_good(0);
    cr_expect_eq(targets[0].last.paths_total, 62u);
    cr_expect_eq(targets[0].last.paths_done, 62u);
    cr_expect_gt(targets[0].last.bytes_total, 3000000u);
    cr_expect_eq(targets[0].last.bytes_done, targets[0].last.bytes_total);
    cr_expect_eq(targets[0].first.bytes_done, 0u);
}

Test(copy, sends_nothing_that_is_there) {
    make_store(20, 1);
    start(0);
    await(0);
    stop(0);
    start(0);
    await(0);
    expect_good(0);
    cr_expect_eq(targets[0].last.paths_total, 0u);
    cr_expect_eq(targets[0].last.bytes_total, 0u);
}

Test(copy, serves_many_and_reads_once) {
    make_store(60, 8);
    for (size_t i = 0; i < TARGETS; i++) {
        start(i);
    }
    for (size_t i = 0; i < TARGETS; i++) {
        await(i);
        expect_good(i);
    }
    cr_expect_eq(source_conn.exec_count, 1u);
}

/* Nothing waits for an acknowledgement: all goes out while none is heard, and then one flight of
 * answers ends the job. */
Test(copy, takes_two_round_trips) {
    make_store(300, 1);
    start(0);
    while (targets[0].progressed == 0) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    targets[0].conn.deaf = true;
    while (targets[0].last.bytes_done < targets[0].last.bytes_total) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    cr_expect_eq(targets[0].last.paths_done, 0u);
    cr_expect_eq(targets[0].done, 0);
    targets[0].conn.deaf = false;
    await(0);
    expect_good(0);
    cr_expect_eq(targets[0].conn.exec_count, 1u);
}

/* What the target runs is told on the same channel: where something is copied, where nothing is; and
 * where it is not valid there, nothing is told and nothing is lost. */
Test(copy, tells_what_the_target_runs) {
    make_store(40, 1);
    cr_assert_eq(run("nix-store --store 'local?root=%s/src' --export %s | nix-store --store "
                     "'local?root=%s/dst0' --import >/dev/null",
                     folder, MIXED, folder),
                 0);
    options.before = MIXED;
    start(0);
    await(0);
    expect_good(0);
    cr_expect_eq(targets[0].told, 1);
    cr_expect_eq(targets[0].runs_paths, 1u);
    cr_expect_eq(targets[0].copied_paths, 42u);
    cr_expect_eq(targets[0].last.paths_total, 41u);
    cr_expect_eq(targets[0].conn.exec_count, 1u);
    stop(0);
    options.before = TOP;
    start(0);
    start(1);
    await(0);
    await(1);
    expect_good(0);
    expect_good(1);
    cr_expect_eq(targets[0].told, 1);
    cr_expect_eq(targets[0].runs_paths, 42u);
    cr_expect_eq(targets[1].told, 0);
    stop(0);
    options.before = "/tmp/no store path";
    start(0);
    await(0);
    expect_good(0);
    cr_expect_eq(targets[0].told, 0);
}

/* A channel that begins anew in mid-path asks anew, and tells once. */
Test(copy, a_slow_target_tells_once_what_it_runs) {
    make_store(40, 24);
    cr_assert_eq(run("nix-store --store 'local?root=%s/src' --export %s | nix-store "
                     "--store 'local?root=%s/dst0' --import >/dev/null",
                     folder, SMALL_PATH, folder),
                 0);
    options.before = SMALL_PATH;
    targets[0].conn.write_rate = 1000000;
    start(0);
    options.before = NULL;
    start(1);
    await(1);
    targets[0].conn.write_rate = 0;
    await(0);
    expect_good(0);
    cr_expect_eq(targets[0].told, 1);
}

/* The login shell's last descendant is nix-store. */
Test(copy, goes_on_after_the_target_was_killed) {
    make_store(200, 0);
    targets[0].conn.write_rate = 60000;
    start(0);
    wait_for_paths(0, 1);
    AUTO_FREE char *kill = xasprintf("p=%d; while c=$(pgrep -P $p); do p=$c; done; kill -9 $p",
                                     targets[0].conn.last_pid);
    case_killed_goes_on(200, kill);
    cr_expect_str_eq(targets[0].error.reason, "copy-killed");
    cr_expect(strstr(targets[0].error.message, "/nix/store/") != NULL, "%s",
              targets[0].error.message);
    cr_expect_gt(targets[0].last.paths_total, 0u);
}

Test(copy, one_slow_host_holds_up_nobody) {
    case_one_slow_of_three(options.compress);
    cr_expect_eq(targets[0].conn.exec_count, 2u, "it did not leave in the middle of a path");
}

Test(copy, a_host_that_takes_nothing_times_out) {
    case_one_mute_of_two(12);
}

Test(copy, keeps_to_the_rate) {
    make_store(5, 3);
    options.max_rate = 2000000;
    uint64_t begin_ms = uv_hrtime() / 1000000;
    start(0);
    await(0);
    uint64_t spent_ms = uv_hrtime() / 1000000 - begin_ms;
    expect_good(0);
    cr_expect_gt(spent_ms, 1200u);
    cr_expect_lt(spent_ms, 20000u);
}

Test(copy, names_a_damaged_path_of_the_source) {
    make_store(30, 4);
    cr_assert_eq(
        run("chmod -R u+w %s/src/nix/store/*mixed* && printf damaged! | dd of=%s/src%s/share/big "
            "bs=1 seek=3999992 conv=notrunc status=none",
            folder, folder, MIXED),
        0);
    start(0);
    await(0);
    cr_assert_eq(targets[0].failed, 1);
    cr_expect_str_eq(targets[0].error.reason, "source-corrupt");
    cr_expect(strstr(targets[0].error.message, MIXED) != NULL);
    stop(0);
    cr_expect_neq(run("nix-store --store 'local?root=%s/dst0' --check-validity %s 2>/dev/null",
                      folder, MIXED),
                  0, "the target has taken a damaged path");
}

Test(copy, names_a_path_that_grew) {
    make_store(30, 1);
    cr_assert_eq(run("chmod -R u+w %s/src/nix/store/*mixed* && head -c 9000000 /dev/zero "
                     ">>%s/src%s/share/big",
                     folder, folder, MIXED),
                 0);
    start(0);
    await(0);
    cr_assert_eq(targets[0].failed, 1);
    cr_expect_str_eq(targets[0].error.reason, "source-corrupt");
}

Test(copy, names_a_path_that_is_gone_from_the_source) {
    make_store(30, 1);
    cr_assert_eq(run("rm -rf %s/src%s", folder, MIXED), 0);
    start(0);
    await(0);
    cr_assert_eq(targets[0].failed, 1);
    cr_expect_str_eq(targets[0].error.reason, "source-corrupt", "%s", targets[0].error.message);
    cr_expect(strstr(targets[0].error.message, MIXED) != NULL, "%s", targets[0].error.message);
}

Test(copy, only_who_lacks_a_damaged_path_fails) {
    make_store(30, 1);
    start(1);
    await(1);
    stop(1);
    cr_assert_eq(run("nix-store --store 'local?root=%s/dst1' --delete --ignore-liveness " TOP
                     " >/dev/null 2>&1",
                     folder),
                 0);
    cr_assert_eq(run("chmod -R u+w %s/src/nix/store/*mixed* && echo more >>%s/src%s/share/big",
                     folder, folder, MIXED),
                 0);
    start(0);
    start(1);
    await(0);
    await(1);
    cr_expect_eq(targets[0].failed, 1);
    cr_expect_eq(targets[1].done, 1, "%s", targets[1].error.message);
    cr_expect_eq(targets[1].last.paths_total, 1u);
}

Test(copy, says_that_the_disk_is_full) {
    make_store(10, 40);
    cr_assert_eq(run("mkdir %s/small && mount -t tmpfs -o size=30m none %s/small", folder, folder),
                 0);
    free(targets[3].command);
    targets[3].command = xasprintf("nix-store --serve --write --store local?root=%s/small", folder);
    start(3);
    await(3);
    cr_assert_eq(targets[3].failed, 1);
    cr_expect_eq(targets[3].error.code, FLEET_ERR_SPACE, "%s", targets[3].error.message);
    cr_expect_str_eq(targets[3].error.reason, "disk-full");
    cr_expect(strstr(targets[3].error.message, MIXED) != NULL, "%s", targets[3].error.message);
}

Test(copy, survives_a_garbage_collection_meanwhile) {
    make_store(150, 0);
    targets[0].conn.write_rate = 25000;
    start(0);
    wait_for_paths(0, 20);
    cr_assert_eq(targets[0].done + targets[0].failed, 0);
    cr_expect_eq(run("nix-collect-garbage --store 'local?root=%s/dst0' >/dev/null 2>&1", folder),
                 0);
    await(0);
    expect_good(0);
    cr_expect_eq(run("nix-collect-garbage --store 'local?root=%s/dst0' >/dev/null 2>&1", folder),
                 0);
    expect_good(0);
    stop(0);
    for (int i = 0; i < 20; i++) {
        uv_run(&loop, UV_RUN_NOWAIT);
        usleep(20000);
    }
    cr_expect_eq(run("nix-collect-garbage --store 'local?root=%s/dst0' >/dev/null 2>&1", folder),
                 0);
    cr_expect_neq(run("test -e %s/dst0" TOP, folder), 0, "the channel's locks outlived it");
}

Test(copy, knows_a_missing_nix) {
    make_store(1, 1);
    free(targets[0].command);
    targets[0].command = xstrdup("no-such-nix-store --serve --write");
    start(0);
    await(0);
    cr_assert_eq(targets[0].failed, 1);
    cr_expect_str_eq(targets[0].error.reason, "no-nix", "%s", targets[0].error.message);
}

Test(copy, knows_a_program_that_is_no_nix) {
    make_store(1, 1);
    free(targets[0].command);
    targets[0].command = xstrdup("echo hello there");
    start(0);
    await(0);
    cr_assert_eq(targets[0].failed, 1);
    cr_expect_eq(targets[0].error.code, FLEET_ERR_PROTOCOL);
    cr_expect(strstr(targets[0].error.message, "hello there") != NULL, "%s",
              targets[0].error.message);
}

Test(copy, knows_a_closure_that_is_not_there) {
    make_store(1, 1);
    cr_assert_eq(run("nix-store --store 'local?root=%s/src' --delete --ignore-liveness " TOP
                     " >/dev/null 2>&1",
                     folder),
                 0);
    start(0);
    await(0);
    cr_assert_eq(targets[0].failed, 1);
    cr_expect(strstr(targets[0].error.message, "is not valid") != NULL, "%s",
              targets[0].error.message);
}

Test(copy, hands_on_json_lines_as_text) {
    make_store(1, 1);
    free(targets[0].command);
    targets[0].command = xasprintf("nix-store --serve --write --log-format internal-json --store "
                                   "local?root=%s/dst0 --option no-such-option 1",
                                   folder);
    start(0);
    await(0);
    expect_good(0);
    cr_expect(strstr(buf_text(&targets[0].log), "no-such-option") != NULL, "%s",
              buf_text(&targets[0].log));
    cr_expect_null(strstr(buf_text(&targets[0].log), "@nix"));
}

static void close_at_once(const struct copy_progress *progress, void *arg) {
    struct target *target = arg;
    (void)progress;
    target->progressed++;
    copy_close(target->job);
    target->job = NULL;
}

Test(copy, may_be_closed_in_a_callback) {
    make_store(30, 5);
    struct copy_handlers closing = handlers;
    closing.on_progress = close_at_once;
    options.command = targets[0].command;
    targets[0].job =
        copy_start(copier, &targets[0].conn.conn, TOP, &options, &closing, &targets[0]);
    start(1);
    await(1);
    expect_good(1);
    cr_expect_eq(targets[0].progressed, 1);
    cr_expect_eq(targets[0].done + targets[0].failed, 0);
}

static void on_closure(int err, const struct closure *closure, const struct error *error,
                       void *arg) {
    (void)error;
    cr_expect_eq(err, 0);
    *(const struct closure **)arg = closure;
}

Test(copy, tells_a_closure_with_references_first) {
    make_store(40, 1);
    const struct closure *closure = NULL;
    copier_closure(copier, TOP, on_closure, &closure);
    cr_assert_null(closure, "a callback came before its call returned");
    while (closure == NULL) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    cr_expect_eq(closure->count, 42u);
    cr_expect_str_eq(closure->paths[41]->path, TOP);
    for (size_t i = 0; i < closure->count; i++) {
        const struct path_info *info = closure->paths[i];
        for (size_t r = 0; r < info->ref_count; r++) {
            bool before = strcmp(info->refs[r], info->path) == 0;
            for (size_t j = 0; j < i && !before; j++) {
                before = strcmp(closure->paths[j]->path, info->refs[r]) == 0;
            }
            cr_expect(before, "%s comes before its reference %s", info->path, info->refs[r]);
        }
    }
}

Test(copy, lets_the_target_fetch_what_its_substituters_have) {
    make_store(20, 1);
    cr_assert_eq(run("nix --extra-experimental-features nix-command copy --no-check-sigs --store "
                     "'local?root=%s/src' --to file://%s/cache " MIXED " 2>/dev/null",
                     folder, folder),
                 0);
    free(targets[0].command);
    targets[0].command =
        xasprintf("nix-store --serve --write --store local?root=%s/dst0 --option substituters "
                  "file://%s/cache --option require-sigs false",
                  folder, folder);
    options.substitute = true;
    start(0);
    await(0);
    expect_good(0);
    cr_expect_eq(targets[0].last.paths_total, 21u, "the path that the cache has was sent, too");
}

static void on_ready(const char *address, void *arg) {
    (void)address;
    *(bool *)arg = true;
}

static void on_lost(const struct error *error, void *arg) {
    (void)arg;
    cr_expect_fail("%s", error->message);
}

static const struct conn_handlers conn_handlers = {.on_ready = on_ready, .on_lost = on_lost};

Test(copy, works_over_the_local_carrier) {
    make_store(50, 20);
    struct conn_spec spec = {.name = "here", .local = true};
    bool ready = false;
    struct conn *local = local_open(&loop, &spec, &conn_handlers, &ready);
    while (!ready) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    copier_free(copier);
    AUTO_FREE char *command = xasprintf("nix-store --serve --store local?root=%s/src", folder);
    copier = copier_new(&loop, local, command, "the local store");
    options.command = targets[0].command;
    targets[0].job = copy_start(copier, local, TOP, &options, &handlers, &targets[0]);
    await(0);
    expect_good(0);
    stop(0);
    copier_free(copier);
    conn_close(local);
    open_copier();
}
