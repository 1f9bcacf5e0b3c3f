/* The calls of core/target.h against a real shell: in a mount and a pid namespace with a /run, a
 * /var/lib and a Nix state folder of its own, so that scripts do there what they do on a target
 * without systemd. tests/e2e/guard.bats has the real hosts. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"
#include "core/target.h"
#include "core/target_reply.h"
#include "tests/support/pipe_conn.h"

#define NONCE "0123456789abcdef0123"

/* A namespace of its own for each shell; a system that only sets its link, one that fails. */
static const char login[] =
    "#!/bin/sh\n"
    "exec unshare -m -p -f --kill-child --mount-proc /bin/sh -c '\n"
    "mount -t tmpfs none /run && mount -t tmpfs none /var/lib\n"
    "mkdir -p /nix/var && mount -t tmpfs none /nix/var\n"
    "mkdir -p /run/old/bin /run/new/bin /run/bad/bin /nix/var/nix/profiles\n"
    "for s in old new; do printf \"#!/bin/sh\\nln -sfn /run/$s /run/current-system\\n"
    "echo $s \\$1 >&2\\n\" >/run/$s/bin/switch-to-configuration; done\n"
    "printf \"#!/bin/sh\\necho it broke >&2; exit 2\\n\" >/run/bad/bin/switch-to-configuration\n"
    "chmod +x /run/*/bin/*; ln -s /run/old /run/current-system\n"
    "ln -s system-7-link /nix/var/nix/profiles/system\n"
    "ln -s /run/old /nix/var/nix/profiles/system-7-link\n"
    "exec /bin/sh \"$@\"' sh \"$@\"\n";

struct answer {
    int calls;
    int err;
    struct error error;
    struct target_reply *reply; /* a copy */
};

static uv_loop_t loop;
static struct pipe_conn conn;
static struct shell *shell;
static char login_path[] = "/tmp/fleet-test-target-XXXXXX";
static const struct elevation nobody = {.how = ELEVATE_NONE};

static void setup(void) {
    int fd = mkstemp(login_path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, login, sizeof(login) - 1), (ssize_t)sizeof(login) - 1);
    fchmod(fd, 0700);
    close(fd);
    cr_assert_eq(uv_loop_init(&loop), 0);
    pipe_conn_init(&conn, &loop, geteuid() == 0 ? login_path : "/bin/sh");
    shell = shell_open(&loop, &conn.conn, &nobody);
}

static void teardown(void) {
    shell_close(shell);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert_eq(uv_loop_close(&loop), 0);
    unlink(login_path);
}

TestSuite(target, .init = setup, .fini = teardown, .timeout = 30);

/* The suite's own namespaces need root, as every target does. */
static void need_root(void) {
    if (geteuid() != 0) {
        cr_skip("needs root for a namespace");
    }
}

static void copy_lines(struct answer *answer, const struct target_reply *reply) {
    static const char *const keys[] = {
        "lock",       "lock_id", "lock_who", "lock_lapsed", "out",      "rc",      "guard",
        "weak",       "old",     "state",    "request",     "log",      "current", "profile",
        "generation", "systemd", "roots",    "gen",         "finished", "lock_run"};
    char *text = xstrdup("");
    for (size_t k = 0; k < ARRAY_LEN(keys); k++) {
        const char *value;
        for (size_t i = 0; (value = target_reply_nth(reply, keys[k], i)) != NULL; i++) {
            char *longer = xasprintf("%s%s %s\n", text, keys[k], value);
            free(text);
            text = longer;
        }
    }
    answer->reply = target_reply_parse(text, strlen(text));
    free(text);
}

static void on_done(int err, const struct target_reply *reply, const struct error *error,
                    void *arg) {
    struct answer *answer = arg;
    answer->calls++;
    answer->err = err;
    answer->error = *error;
    copy_lines(answer, reply);
}

static void answer_free(struct answer *answer) {
    target_reply_free(answer->reply);
    *answer = (struct answer){0};
}

static void await(const struct answer *answer) {
    while (answer->calls == 0) {
        uv_run(&loop, UV_RUN_ONCE);
    }
}

static void expect(const struct answer *answer, const char *key, const char *value) {
    const char *said = target_reply_get(answer->reply, key);
    cr_assert_not_null(said, "no %s; %s", key, answer->error.message);
    cr_assert_str_eq(said, value);
}

Test(target_reply, keeps_keys_in_order_and_leaves_out_what_is_none) {
    static const char text[] = "current /a\nfailed x.service\nNot a key\nfailed y.service\n"
                               "empty\nempty2 \n-x 1\nnumber 42\nlast no newline";
    struct target_reply *reply = target_reply_parse(text, sizeof(text) - 1);
    cr_assert_str_eq(target_reply_get(reply, "current"), "/a");
    cr_assert_str_eq(target_reply_nth(reply, "failed", 1), "y.service");
    cr_assert_null(target_reply_nth(reply, "failed", 2));
    cr_assert_null(target_reply_get(reply, "Not"));
    cr_assert_null(target_reply_get(reply, "-x"));
    cr_assert_str_eq(target_reply_get(reply, "empty"), "");
    cr_assert_str_eq(target_reply_get(reply, "empty2"), "");
    cr_assert_eq(target_reply_number(reply, "number", -1), 42);
    cr_assert_eq(target_reply_number(reply, "current", -1), -1);
    cr_assert_eq(target_reply_number(reply, "missing", -7), -7);
    cr_assert_str_eq(target_reply_get(reply, "last"), "no newline");
    target_reply_free(reply);
}

Test(target_reply, cleans_and_bounds_what_a_host_says) {
    size_t len = 0;
    char *text = xmalloc(3u << 20);
    len += (size_t)sprintf(text, "log \033[31mred\033[0m\rgone\nlog \xff\xfe\n");
    memcpy(text + len, "long ", 5);
    memset(text + len + 5, 'x', 100000);
    len += 100005;
    text[len++] = '\n';
    for (int i = 0; i < 60000; i++) {
        len += (size_t)sprintf(text + len, "many %d\n", i);
    }
    struct target_reply *reply = target_reply_parse(text, len);
    cr_assert_str_eq(target_reply_get(reply, "log"), "redgone");
    cr_assert_eq(strlen(target_reply_get(reply, "long")), TARGET_REPLY_VALUE_MAX);
    cr_assert_null(target_reply_nth(reply, "many", TARGET_REPLY_LINES_MAX));
    cr_assert_not_null(target_reply_nth(reply, "many", TARGET_REPLY_LINES_MAX - 10));
    target_reply_free(reply);
    free(text);
}

Test(target_reply, answers_for_any_place_in_any_order) {
    static const char text[] = "a 0\nb 0\na 1\nb 1\na 2\n";
    struct target_reply *reply = target_reply_parse(text, sizeof(text) - 1);
    cr_assert_str_eq(target_reply_nth(reply, "a", 2), "2");
    cr_assert_str_eq(target_reply_nth(reply, "a", 0), "0");
    cr_assert_str_eq(target_reply_nth(reply, "a", 1), "1");
    cr_assert_str_eq(target_reply_nth(reply, "b", 1), "1");
    cr_assert_str_eq(target_reply_nth(reply, "a", 2), "2");
    cr_assert_str_eq(target_reply_nth(reply, "a", 2), "2");
    cr_assert_null(target_reply_nth(reply, "a", 3));
    cr_assert_str_eq(target_reply_nth(reply, "b", 0), "0");
    target_reply_free(reply);
}

/* A hostile host's log: looked at from its beginning for each line this takes minutes. */
Test(target_reply, goes_through_as_many_lines_as_there_may_be, .timeout = 60) {
    struct buf text = BUF_INIT;
    for (size_t i = 0; i < TARGET_REPLY_LINES_MAX; i++) {
        buf_add_text(&text, "log x\n");
    }
    struct target_reply *reply = target_reply_parse(text.data, text.len);
    size_t lines = 0;
    while (target_reply_nth(reply, "log", lines) != NULL) {
        lines++;
    }
    cr_assert_eq(lines, TARGET_REPLY_LINES_MAX);
    target_reply_free(reply);
    buf_free(&text);
}

Test(guard_state, reads_each_phase_and_its_fields) {
    struct guard_state state;
    for (int phase = GUARD_ACTIVATING; phase <= GUARD_INERT; phase++) {
        char line[100];
        snprintf(line, sizeof(line), "%s n0nce", guard_phase_name((enum guard_phase)phase));
        guard_state_parse(line, &state);
        cr_assert_eq((int)state.phase, phase);
        cr_assert_str_eq(state.nonce, "n0nce");
        cr_assert_eq(state.rc, -1);
    }
    guard_state_parse("reverted abc rc=4 failed=a.service,b.service why=activation back_rc=2",
                      &state);
    cr_assert_eq(state.phase, GUARD_REVERTED);
    cr_assert_eq(state.back_rc, 2);
    cr_assert_eq(state.rc, 4);
    cr_assert_str_eq(state.failed, "a.service,b.service");
    cr_assert_str_eq(state.why, "activation");
    cr_assert_eq(state.tries, 1);
    cr_assert_null(guard_stuck_words(&state));
    cr_assert_str_eq(state.fault, "");
    guard_state_parse("inert abc rc=4 failed=a.service fault=activation why=leave", &state);
    cr_assert_str_eq(state.fault, "activation");
    cr_assert_str_eq(state.why, "leave");
    guard_state_parse("reverting abc rc=4 why=abort try=12 stuck=room", &state);
    cr_assert_eq(state.tries, 12);
    cr_assert_str_eq(guard_stuck_words(&state), "/run or a disk is full there");
    guard_state_parse("reverting abc rc=4 why=abort try=3 stuck=nonsense0123456789", &state);
    cr_assert_null(guard_stuck_words(&state));
    guard_state_parse("reverted abc failed=a.service later=b.service word rc=2", &state);
    cr_assert_str_eq(state.failed, "a.service", "what a later guard adds is passed over");
    cr_assert_eq(state.rc, 2);
    for (int more = -1; more <= 1; more++) { /* just fits, is as long as the room, is longer */
        char line[200];
        snprintf(line, sizeof(line), "reverted abc why=%0*d", (int)sizeof(state.why) + more, 1);
        guard_state_parse(line, &state);
        cr_assert_eq(strlen(state.why), sizeof(state.why) - 1, "cut, and ended");
    }
}

Test(guard_state, takes_no_line_that_is_none) {
    static const char *const lines[] = {
        "",        "active",        "active ",
        "activ n", "Active n",      " active n",
        "none n",  "activating\tn", "active 0123456789012345678901234567890123456789"};
    struct guard_state state;
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        guard_state_parse(lines[i], &state);
        if (state.nonce[0] != '\0') {
            cr_assert_fail("'%s' gave the nonce '%s'", lines[i], state.nonce);
        }
    }
    guard_state_parse(NULL, &state);
    cr_assert_eq(state.phase, GUARD_NONE);
    char longest[2000];
    memset(longest, 'x', sizeof(longest));
    memcpy(longest, "active n why=", 13);
    memcpy(longest + 900, " failed=", 8);
    longest[sizeof(longest) - 1] = '\0';
    guard_state_parse(longest, &state);
    cr_assert_eq(strlen(state.why), sizeof(state.why) - 1);
    cr_assert_eq(strlen(state.failed), sizeof(state.failed) - 1);
}

Test(target, inspects_a_host_without_systemd) {
    need_root();
    struct answer answer = {0};
    target_inspect(shell, NULL, "", on_done, &answer);
    await(&answer);
    cr_assert_eq(answer.err, 0, "%s", answer.error.message);
    expect(&answer, "current", "/run/old");
    expect(&answer, "profile", "/run/old");
    expect(&answer, "generation", "7");
    expect(&answer, "systemd", "no");
    answer_free(&answer);
}

Test(target, hands_the_lock_to_one_run_only) {
    need_root();
    struct answer answer = {0};
    struct target_lock ours = {
        .id = "id-1", .run = "run-1", .who = "me@here\nid x' 12", .lease_ms = 60000};
    struct target_lock theirs = {.id = "id-2", .run = "run-2", .who = "you", .lease_ms = 60000};
    target_lock_take(shell, &ours, on_done, &answer);
    await(&answer);
    expect(&answer, "lock", "ok");
    answer_free(&answer);
    target_lock_take(shell, &theirs, on_done, &answer);
    await(&answer);
    expect(&answer, "lock", "held");
    expect(&answer, "lock_id", "id-1");
    expect(&answer, "lock_run", "run-1");
    expect(&answer, "lock_who", "me@here_id x_ 12");
    answer_free(&answer);
    target_lock_release(shell, "id-1", on_done, &answer);
    await(&answer);
    answer_free(&answer);
    target_lock_take(shell, &theirs, on_done, &answer);
    await(&answer);
    expect(&answer, "lock", "ok");
    answer_free(&answer);
}

Test(target, says_the_words_of_what_failed) {
    need_root();
    struct answer answer = {0};
    target_stage(shell, "run-1", "/nix/store/missing", false, on_done, &answer);
    await(&answer);
    cr_assert_eq(answer.err, FLEET_ERR_REMOTE);
    cr_assert_str_eq(answer.error.reason, "script-failed");
    cr_assert_not_null(strstr(answer.error.message, "/nix/store/missing is not in this host's"));
    answer_free(&answer);
}

Test(target, keeps_roots_of_a_run_and_gives_them_up) {
    need_root();
    struct answer answer = {0};
    target_stage(shell, "run-1", "/run/new", false, on_done, &answer);
    await(&answer);
    cr_assert_eq(answer.err, 0, "%s", answer.error.message);
    answer_free(&answer);
    target_stage(shell, "run-2", "/run/bad", true, on_done, &answer);
    await(&answer);
    answer_free(&answer);
    target_inspect(shell, NULL, "", on_done, &answer);
    await(&answer);
    expect(&answer, "roots", "stage-run-2 /run/bad");
    cr_assert_null(target_reply_nth(answer.reply, "roots", 1));
    answer_free(&answer);
    target_unstage(shell, "run-2", on_done, &answer);
    await(&answer);
    answer_free(&answer);
    target_inspect(shell, NULL, "", on_done, &answer);
    await(&answer);
    cr_assert_null(target_reply_get(answer.reply, "roots"));
    answer_free(&answer);
}

Test(target, passes_words_to_a_command_untouched_and_waits_for_it_alone) {
    struct answer answer = {0};
    static const char *const words[] = {"printf", "%s\n", "a  b", "it's", "$HOME;`id`", "", "end"};
    target_run(shell, words, ARRAY_LEN(words), 5000, on_done, &answer);
    await(&answer);
    static const char *const said[] = {"a  b", "it's", "$HOME;`id`", "", "end"};
    for (size_t i = 0; i < ARRAY_LEN(said); i++) {
        cr_assert_str_eq(target_reply_nth(answer.reply, "out", i), said[i]);
    }
    expect(&answer, "rc", "0");
    answer_free(&answer);
    static const char *const forks[] = {"sh", "-c", "sleep 20 & printf last; exit 3"};
    target_run(shell, forks, ARRAY_LEN(forks), 5000, on_done, &answer);
    await(&answer);
    expect(&answer, "rc", "3");
    expect(&answer, "out", "last");
    answer_free(&answer);
    static const char *const slow[] = {"sleep", "20"};
    target_run(shell, slow, ARRAY_LEN(slow), 200, on_done, &answer);
    await(&answer);
    expect(&answer, "rc", "124");
    answer_free(&answer);
}

static struct target_activation activation_of(const char *path) {
    return (struct target_activation){.nonce = NONCE,
                                      .run = "run-1",
                                      .lock_id = "",
                                      .path = path,
                                      .action = "test",
                                      .activate_timeout_ms = 10000,
                                      .confirm_timeout_ms = 10000,
                                      .rev = "abc",
                                      .who = "me"};
}

/* Polls until the guard is in `phase`; the answer is of that poll. */
static void await_phase(enum guard_phase phase, struct answer *answer) {
    struct guard_state state = {.phase = GUARD_NONE};
    char seen[1024] = "";
    do {
        answer_free(answer);
        target_guard_poll(shell, NONCE, seen, 0, 2000, on_done, answer);
        await(answer);
        cr_assert_eq(answer->err, 0, "%s", answer->error.message);
        const char *line = target_reply_get(answer->reply, "state");
        snprintf(seen, sizeof(seen), "%s", line != NULL ? line : "");
        guard_state_parse(line, &state);
    } while (state.phase != phase);
    cr_assert_str_eq(state.nonce, NONCE);
}

Test(target, guards_an_activation_until_it_is_confirmed) {
    need_root();
    struct answer answer = {0};
    struct target_activation activation = activation_of("/run/new");
    target_guard_start(shell, NULL, &activation, on_done, &answer);
    await(&answer);
    cr_assert_eq(answer.err, 0, "%s", answer.error.message);
    expect(&answer, "guard", "started");
    expect(&answer, "weak", "yes");
    expect(&answer, "old", "/run/old");
    expect(&answer, "generation", "7");
    await_phase(GUARD_ACTIVE, &answer);
    expect(&answer, "log", "new test");
    answer_free(&answer);
    target_guard_request(shell, TARGET_RENEW, NONCE, NULL, on_done, &answer);
    await(&answer);
    expect(&answer, "request", "left");
    answer_free(&answer);
    target_guard_request(shell, TARGET_COMMIT, "another-nonce-000", NULL, on_done, &answer);
    await(&answer);
    expect(&answer, "request", "refused");
    answer_free(&answer);
    target_guard_request(shell, TARGET_COMMIT, NONCE, NULL, on_done, &answer);
    await(&answer);
    await_phase(GUARD_COMMITTED, &answer);
    expect(&answer, "current", "/run/new");
    expect(&answer, "profile", "/run/old");
    answer_free(&answer);
}

Test(target, goes_back_when_the_activation_fails) {
    need_root();
    struct answer answer = {0};
    struct target_activation activation = activation_of("/run/bad");
    target_guard_start(shell, NULL, &activation, on_done, &answer);
    await(&answer);
    await_phase(GUARD_REVERTED, &answer);
    struct guard_state state;
    guard_state_parse(target_reply_get(answer.reply, "state"), &state);
    cr_assert_str_eq(state.why, "activation");
    cr_assert_eq(state.rc, 2);
    cr_assert_eq(state.back_rc, 0);
    expect(&answer, "log", "it broke");
    expect(&answer, "current", "/run/old");
    answer_free(&answer);
}

Test(target, refuses_a_system_without_its_switch) {
    need_root();
    struct answer answer = {0};
    struct target_activation activation = activation_of("/run/nothing");
    target_guard_start(shell, NULL, &activation, on_done, &answer);
    await(&answer);
    expect(&answer, "guard", "no-switch");
    answer_free(&answer);
    target_repair(shell, NULL, "", on_done, &answer);
    await(&answer);
    expect(&answer, "finished", "nothing");
    answer_free(&answer);
}

Test(target, frees_what_waits_when_the_shell_is_closed) {
    struct answer answer = {0};
    target_generations(shell, NULL, on_done, &answer);
    target_generations(shell, NULL, on_done, &answer);
    cr_assert_eq(answer.calls, 0);
}
