/* The copier against every Nix that it promises to speak with: conversations recorded with those
 * versions (tests/unit/fixtures/record) are played again, each version as source and as target. The
 * player insists on the requests that the recorded server has accepted, byte by byte.
 *
 * With FLEET_RECORD set to a version and FLEET_RECORD_STORE to a store of make_store.sh this makes
 * that version's tapes instead, with the nix-store that PATH finds.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "tests/support/pipe_conn.h"
#include "transport/copy.h"

#define TOP  "/nix/store/00000000000000000000000000000000-top"
#define TAPE "tests/unit/fixtures/tape"

static const char *const versions[] = {"2.3.7", "2.8.0", "2.26.3", "2.34.8"};

static uv_loop_t loop;

struct outcome {
    bool ended;
    struct copy_progress progress;
    struct error error;
};

static void on_progress(const struct copy_progress *progress, void *arg) {
    (void)progress;
    (void)arg;
}

static void on_done(const struct copy_progress *progress, void *arg) {
    struct outcome *outcome = arg;
    outcome->ended = true;
    outcome->progress = *progress;
}

static void on_failed(const struct error *error, void *arg) {
    struct outcome *outcome = arg;
    outcome->ended = true;
    outcome->error = *error;
}

static struct outcome copy(const char *source, const char *target) {
    static const struct copy_handlers handlers = {
        .on_progress = on_progress, .on_done = on_done, .on_failed = on_failed};
    struct pipe_conn from, to;
    struct outcome outcome = {0};
    cr_assert_eq(uv_loop_init(&loop), 0);
    pipe_conn_init(&from, &loop, "/bin/sh");
    pipe_conn_init(&to, &loop, "/bin/sh");
    struct copier *copier = copier_new(&loop, &from.conn, source, "the source");
    struct copy_options options = {.stall_timeout_ms = 60000, .command = target};
    struct copy_job *job = copy_start(copier, &to.conn, TOP, &options, &handlers, &outcome);
    while (!outcome.ended) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    copy_close(job);
    copier_free(copier);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert_eq(uv_loop_close(&loop), 0);
    return outcome;
}

static void expect_copied(const char *source, const char *target, const char *what) {
    struct outcome outcome = copy(source, target);
    cr_assert_eq(outcome.error.code, 0, "%s: %s", what, outcome.error.message);
    cr_expect_eq(outcome.progress.paths_total, 5u, "%s", what);
    cr_expect_eq(outcome.progress.paths_done, 5u, "%s", what);
    cr_expect_gt(outcome.progress.bytes_total, 0u, "%s", what);
    cr_expect_eq(outcome.progress.bytes_done, outcome.progress.bytes_total, "%s", what);
}

static void expect_played(const char *source, const char *target) {
    AUTO_FREE char *from = xasprintf("tests/support/serve_tape.py play %s-%s-source", TAPE, source);
    AUTO_FREE char *to = xasprintf("tests/support/serve_tape.py play %s-%s-target", TAPE, target);
    AUTO_FREE char *what = xasprintf("from %s to %s", source, target);
    expect_copied(from, to, what);
}

static void record(const char *version, const char *store) {
    AUTO_FREE char *from = xasprintf("tests/support/serve_tape.py record %s-%s-source "
                                     "nix-store --serve --store local?root=%s",
                                     TAPE, version, store);
    AUTO_FREE char *to = xasprintf("tests/support/serve_tape.py record %s-%s-target "
                                   "nix-store --serve --write --store local?root=%s-%s",
                                   TAPE, version, store, version);
    expect_copied(from, to, version);
}

Test(copy_versions, each_is_a_source_and_a_target_for_each, .timeout = 200) {
    signal(SIGPIPE, SIG_IGN);
    const char *version = getenv("FLEET_RECORD");
    if (version != NULL) {
        record(version, getenv("FLEET_RECORD_STORE"));
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
        for (size_t j = 0; j < ARRAY_LEN(versions); j++) {
            expect_played(versions[i], versions[j]);
        }
    }
}

Test(copy_versions, another_request_than_the_recorded_one_is_seen, .timeout = 60) {
    signal(SIGPIPE, SIG_IGN);
    AUTO_FREE char *tape = xasprintf("/tmp/fleet-tape.%d", (int)getpid());
    AUTO_FREE char *edit = xasprintf("sed s/small-2/small-9/ " TAPE "-2.8.0-target >%s", tape);
    cr_assert_eq(system(edit), 0);
    AUTO_FREE char *target = xasprintf("tests/support/serve_tape.py play %s", tape);
    struct outcome outcome = copy("tests/support/serve_tape.py play " TAPE "-2.8.0-source", target);
    unlink(tape);
    cr_expect(strstr(outcome.error.message, "another request") != NULL, "%s",
              outcome.error.message);
}
