/* The words in which the tests of core/rollout are written: what hosts do and ask for, in one line
 * each, and what the rollout decides, as text: "wave 1; copy h0; ...". Short, since they are read
 * by the hundred. `now_ms` goes on by one with each.
 */
#ifndef FLEET_TESTS_ROLLOUT_SCRIPT_H
#define FLEET_TESTS_ROLLOUT_SCRIPT_H

#include <criterion/criterion.h>

#include "core/base/text.h"
#include "rollout_fixture.h"

extern struct fixture *f;
extern struct rollout *r;
extern uint64_t now_ms;

/* Makes `f`; it is changed to taste before start_rollout() makes `r` of it. */
void with_hosts(size_t hosts);
/* Every suite's .fini. */
void free_rollout(void);
void start_rollout(void);

void moved(size_t host, enum host_state state);
void failed(size_t host, enum host_state state, const char *reason);
void wants(size_t host, enum act act);
void control(enum rollout_control what, size_t host);
/* Reached, and its system known. */
void answer(size_t host);
/* Copied, and asks for its activation. */
void stage(size_t host);
/* Both for every host. */
void stage_all(void);
/* From the grant of its activation to probing. */
void probe(size_t host);
/* Asks for its commit, which must be granted at once, and is healthy. */
void commit(size_t host);
/* From the grant of its activation to healthy, and to rolled_back. */
void go_well(size_t host);
void go_back(size_t host);
/* A way back that was asked for ends. */
void end_back(size_t host);
/* Those that the rollout has told to skip are skipped. */
void skip_all(void);
/* Which wave each host is in, a digit each. */
const char *waves_text(void);
/* Adds what was decided to `out`, in words. */
void say_decision(const struct rollout_decision *decision, struct buf *out);

/* All that has been decided since the last time, and nothing else. */
#define expect(want)                                                                               \
    do {                                                                                           \
        struct buf said = BUF_INIT;                                                                \
        struct rollout_decision decision;                                                          \
        while (rollout_next(r, &decision)) {                                                       \
            say_decision(&decision, &said);                                                        \
        }                                                                                          \
        cr_assert_str_eq(buf_text(&said), want);                                                   \
        buf_free(&said);                                                                           \
    } while (0)

#define assert_exit(code, word)                                                                    \
    do {                                                                                           \
        cr_assert_eq(rollout_exit_code(r, 0), code);                                               \
        cr_assert_str_eq(rollout_result(r, 0), word);                                              \
    } while (0)

#endif
