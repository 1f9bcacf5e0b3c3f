#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "tests/support/pipe_conn.h"
#include "transport/shell.h"

/* What a script answered, copied out of the callback. */
struct answer {
    int calls;
    int err;
    int status;
    char *out;
    size_t out_len;
    char *err_text;
    char reason[40];
};

static uv_loop_t loop;
static struct pipe_conn conn;
static struct shell *shell;
static const struct elevation nobody = {.how = ELEVATE_NONE};

static void setup(void) {
    cr_assert_eq(uv_loop_init(&loop), 0);
    pipe_conn_init(&conn, &loop, "/bin/sh");
    shell = shell_open(&loop, &conn.conn, &nobody);
}

static void teardown(void) {
    shell_close(shell);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert_eq(uv_loop_close(&loop), 0);
}

TestSuite(shell, .init = setup, .fini = teardown, .timeout = 20);

static void on_done(const struct shell_result *result, void *arg) {
    struct answer *answer = arg;
    answer->calls++;
    answer->err = result->err;
    answer->status = result->status;
    answer->out = xmemdup(result->out, result->out_len + 1);
    answer->out_len = result->out_len;
    answer->err_text = xstrdup(result->err_text);
    memcpy(answer->reason, result->error.reason, sizeof(answer->reason));
}

static void answer_free(struct answer *answer) {
    free(answer->out);
    free(answer->err_text);
}

static void await(const struct answer *answer) {
    while (answer->calls == 0) {
        uv_run(&loop, UV_RUN_ONCE);
    }
}

static void ask(const char *script, uint64_t timeout_ms, struct answer *answer) {
    *answer = (struct answer){0};
    shell_run(shell, script, NULL, 0, timeout_ms, on_done, answer);
    cr_assert_eq(answer->calls, 0, "a callback came before its call returned");
    await(answer);
}

Test(shell, gives_output_and_status_apart) {
    struct answer answer;
    ask("echo out; echo err >&2; exit 7", 5000, &answer);
    cr_expect_eq(answer.err, 0);
    cr_expect_eq(answer.status, 7);
    cr_expect_str_eq(answer.out, "out\n");
    cr_expect_str_eq(answer.err_text, "err\n");
    answer_free(&answer);
}

Test(shell, finds_its_markers_however_they_are_cut) {
    for (conn.piece = 1; conn.piece < 60; conn.piece += 7) {
        struct answer answer;
        ask("echo fleet-; echo err >&2; exit 7", 5000, &answer);
        cr_expect_eq(answer.status, 7);
        cr_expect_str_eq(answer.out, "fleet-\n");
        cr_expect_str_eq(answer.err_text, "err\n");
        answer_free(&answer);
    }
}

Test(shell, keeps_output_without_a_last_newline) {
    struct answer answer;
    ask("printf 'no newline'", 5000, &answer);
    cr_expect_str_eq(answer.out, "no newline");
    answer_free(&answer);
}

Test(shell, runs_queued_scripts_in_order_in_one_process) {
    struct answer first = {0};
    struct answer second = {0};
    shell_run(shell, "x=1; cd /; echo a$$", NULL, 0, 5000, on_done, &first);
    shell_run(shell, "echo a$$; echo ${x-unset} >&2", NULL, 0, 5000, on_done, &second);
    await(&second);
    cr_expect_eq(first.calls, 1);
    cr_expect_str_eq(first.out, second.out);
    cr_expect_str_eq(second.err_text, "unset\n", "a variable leaked into the next script");
    cr_expect_eq(conn.exec_count, 1);
    answer_free(&first);
    answer_free(&second);
}

Test(shell, quotes_any_value) {
    const char *hostile = "a'b\"c $(touch /tmp/fleet-pwned) `id` \\ \n; exit 9 #\x01";
    struct shell_var vars[] = {{"VALUE", hostile}, {"_second2", ""}};
    struct answer answer = {0};
    shell_run(shell, "printf %s \"$VALUE\"; exit ${#_second2}", vars, 2, 5000, on_done, &answer);
    await(&answer);
    cr_expect_eq(answer.status, 0);
    cr_expect_str_eq(answer.out, hostile);
    answer_free(&answer);
}

Test(shell, refuses_a_variable_name_that_is_code) {
    struct shell_var vars[] = {{"A=1;id;B", "x"}};
    struct answer answer = {0};
    shell_run(shell, "echo ran", vars, 1, 5000, on_done, &answer);
    cr_assert_eq(answer.calls, 0);
    await(&answer);
    cr_expect_eq(answer.err, FLEET_ERR_USAGE);
    cr_expect_str_empty(answer.out);
    answer_free(&answer);
    ask("echo on", 5000, &answer);
    cr_expect_str_eq(answer.out, "on\n");
    answer_free(&answer);
}

Test(shell, script_cannot_read_the_scripts_after_it) {
    struct answer answer;
    struct answer next = {0};
    answer = (struct answer){0};
    shell_run(shell, "cat; echo end", NULL, 0, 5000, on_done, &answer);
    shell_run(shell, "echo next", NULL, 0, 5000, on_done, &next);
    await(&next);
    cr_expect_str_eq(answer.out, "end\n");
    cr_expect_str_eq(next.out, "next\n");
    answer_free(&answer);
    answer_free(&next);
}

Test(shell, bounds_output_and_still_sees_the_end) {
    struct answer answer;
    ask("head -c 6000000 /dev/zero; head -c 30000 /dev/zero | tr '\\0' e >&2; echo tail >&2; exit "
        "3",
        15000, &answer);
    cr_expect_eq(answer.err, 0);
    cr_expect_eq(answer.status, 3);
    cr_expect_eq(answer.out_len, SHELL_OUTPUT_MAX);
    cr_expect_eq(strlen(answer.err_text), 8192u);
    cr_expect_str_eq(answer.err_text + 8192 - 5, "tail\n");
    answer_free(&answer);
}

Test(shell, ends_the_shell_when_a_script_takes_too_long) {
    struct answer slow;
    struct answer later = {0};
    slow = (struct answer){0};
    shell_run(shell, "sleep 5", NULL, 0, 100, on_done, &slow);
    shell_run(shell, "echo later", NULL, 0, 5000, on_done, &later);
    await(&later);
    cr_expect_eq(slow.err, FLEET_ERR_TIMEOUT);
    cr_expect_eq(later.err, FLEET_ERR_TIMEOUT);
    answer_free(&slow);
    answer_free(&later);
    ask("echo even later", 5000, &later);
    cr_expect_eq(later.err, FLEET_ERR_TIMEOUT);
    answer_free(&later);
}

Test(shell, says_why_the_shell_ended) {
    struct answer answer;
    ask("echo last words >&2; kill -9 $$; sleep 1", 5000, &answer);
    cr_expect_eq(answer.err, FLEET_ERR_REMOTE);
    cr_expect_str_eq(answer.reason, "shell-ended");
    cr_expect(strstr(answer.err_text, "last words") != NULL);
    answer_free(&answer);
}

static void close_in_callback(const struct shell_result *result, void *arg) {
    (void)result;
    ++*(int *)arg;
    shell_close(shell);
}

Test(shell, may_be_closed_in_a_callback) {
    int calls = 0;
    shell_run(shell, "echo", NULL, 0, 5000, close_in_callback, &calls);
    shell_run(shell, "echo", NULL, 0, 5000, close_in_callback, &calls);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(calls, 1);
    shell = shell_open(&loop, &conn.conn, &nobody);
}

/* A far side that receives only a part: the stream is cut after any byte of the script. */
Test(shell, script_cut_short_does_nothing) {
    char folder[] = "/tmp/fleet-shell-XXXXXX";
    cr_assert_not_null(mkdtemp(folder));
    static const char format[] =
        "printf '(\\ntouch %s/ran\\ncase x in x) : ;; esac\\n' | /bin/sh -s";
    AUTO_FREE char *command = xasprintf(format, folder);
    cr_expect_neq(system(command), 0, "a script cut short passed for a whole one");
    AUTO_FREE char *ran = xasprintf("%s/ran", folder);
    cr_expect_eq(remove(ran), -1, "a script cut short ran");
    cr_expect_eq(remove(folder), 0);
}

/* A far side that reads the markers out of what it is sent, and never ends the line of a status. */
static const char endless[] = "#!/bin/sh\n"
                              "case $2 in *'exec /bin/sh -s'*) ;; *) exec /bin/sh \"$@\" ;; esac\n"
                              "begin=${2%%exec /bin/sh -s*}\n"
                              "eval \"${begin#/bin/sh -c ?}\"\n"
                              "while read -r word _ _ first second _; do\n"
                              "    [ \"$word\" != printf ] || break\n"
                              "done\n"
                              "printf 'fleet-%s-%s %099d' $first $second 0 >&2\n"
                              "printf 'fleet-%s-%s ' $first $second\n"
                              "exec tr '\\0' 0 </dev/zero\n";

Test(shell, keeps_nothing_of_a_status_without_end) {
    char path[] = "/tmp/fleet-shell-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_eq(write(fd, endless, sizeof(endless) - 1), (ssize_t)sizeof(endless) - 1);
    cr_assert_eq(fchmod(fd, 0700), 0);
    cr_assert_eq(close(fd), 0);
    struct pipe_conn hostile;
    pipe_conn_init(&hostile, &loop, path);
    struct shell *far = shell_open(&loop, &hostile.conn, &nobody);
    struct answer answer = {0};
    shell_run(far, "true", NULL, 0, 10000, on_done, &answer);
    await(&answer);
    shell_close(far);
    unlink(path);
    cr_expect_eq(answer.err, 0, "%s: it was read till the time was over", answer.reason);
    answer_free(&answer);
}
