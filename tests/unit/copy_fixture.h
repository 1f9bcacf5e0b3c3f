/* A copier between real Nix stores over pipes, for tests of the copy. Needs root: a scratch store is
 * registered with its folder mounted at /nix (tests/support/make_store.sh). One test at a time.
 */
#ifndef FLEET_TESTS_COPY_FIXTURE_H
#define FLEET_TESTS_COPY_FIXTURE_H

#include <uv.h>

#include "core/base/buf.h"
#include "tests/support/pipe_conn.h"
#include "transport/copy.h"

#define TOP     "/nix/store/00000000000000000000000000000000-top"
#define MIXED   "/nix/store/00000000000000000000000000000001-mixed-1.0"
#define TARGETS 4u

struct target {
    struct pipe_conn conn;
    struct copy_job *job;
    char *command;
    struct copy_progress first, last;
    struct buf log;
    int done, failed, progressed, told; /* told: what it runs */
    size_t runs_paths, copied_paths;
    struct error error;
};

extern uv_loop_t loop;
extern struct pipe_conn source_conn;
extern struct copier *copier;
extern struct target targets[TARGETS];
extern char folder[];
extern struct copy_options options; /* of the next start */
extern const struct copy_handlers handlers;

/* For TestSuite's .init and .fini. */
void setup(void);
void teardown(void);
__attribute__((format(printf, 1, 2))) int run(const char *format, ...);
/* A source store; targets are empty stores beside it. */
void make_store(unsigned small, unsigned big_mb);
void open_copier(void);
void start(size_t i);
void await(size_t i);
void stop(size_t i);
void expect_good(size_t i);
void wait_for_paths(size_t i, uint64_t paths);

/* Whole cases, which hold for raw and for compressed bytes alike (options.compress as it is). */
/* A target that is killed after some of `small` paths by the command; a second try goes on. */
void case_killed_goes_on(unsigned small, const char *kill);
/* Three targets, of which the first is slow; the third takes the form `third`. */
void case_one_slow_of_three(enum copy_compress third);
/* Two targets, of which the first takes no byte any more. */
void case_one_mute_of_two(unsigned big_mb);

#endif
