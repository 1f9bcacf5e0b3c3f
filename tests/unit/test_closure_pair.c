/* What a target says of two systems that it has, with a real nix-store on pipes; and what a target
 * that lies, dies or says nothing costs: the answer, and nothing that stays open. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "core/base/xalloc.h"
#include "tests/unit/copy_fixture.h"
#include "transport/closure_pair.h"

static struct closure_pair *pair;
static int told;
static size_t from_count, to_count;

TestSuite(closure_pair, .init = setup, .fini = teardown);

static void on_told(const struct closure_pair_paths *from, const struct closure_pair_paths *to,
                    void *arg) {
    cr_expect_eq(arg, &told);
    told++;
    from_count = from->count;
    to_count = to->count;
    for (size_t i = 0; i < to->count; i++) {
        cr_expect(store_path_is_valid(to->paths[i]));
    }
    closure_pair_close(pair);
    pair = NULL;
}

static void ask(const char *command, const char *from, const char *to) {
    const struct elevation none = {.how = ELEVATE_NONE};
    told = 0;
    pair = closure_pair_ask(&loop, &targets[0].conn.conn, &none, command, from, to, on_told, &told);
    cr_assert_eq(told, 0, "a callback came before its call returned");
}

/* Runs until the channel has ended, and its deadline with it. */
static void await_word(void) {
    uv_run(&loop, UV_RUN_DEFAULT);
    closure_pair_close(pair);
    pair = NULL;
}

static char *serving(void) {
    return xasprintf("nix-store --serve --store local?root=%s/src", folder);
}

Test(closure_pair, tells_both_closures) {
    make_store(40, 1);
    AUTO_FREE char *command = serving();
    ask(command, MIXED, TOP);
    await_word();
    cr_expect_eq(told, 1);
    cr_expect_eq(from_count, 1u);
    cr_expect_eq(to_count, 42u);
    cr_expect_eq(targets[0].conn.exec_count, 1u);
}

Test(closure_pair, tells_nothing_where_one_is_missing) {
    make_store(4, 0);
    AUTO_FREE char *command = serving();
    ask(command, TOP, "/nix/store/00000000000000000000000000000009-gone");
    await_word();
    cr_expect_eq(told, 0);
}

Test(closure_pair, tells_nothing_of_what_is_no_answer) {
    static const char *const commands[] = {"false", "true", "cat /dev/zero", "echo hello",
                                           "no-such-program --serve"};
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        ask(commands[i], MIXED, TOP);
        await_word();
        cr_expect_eq(told, 0, "%s", commands[i]);
    }
}

Test(closure_pair, is_closed_in_the_middle) {
    for (int i = 0; i < 2; i++) {
        ask("sleep 600", MIXED, TOP);
        uv_run(&loop, i == 0 ? UV_RUN_NOWAIT : UV_RUN_ONCE);
        closure_pair_close(pair);
        closure_pair_close(NULL);
        uv_run(&loop, UV_RUN_DEFAULT);
        cr_expect_eq(told, 0);
    }
}
