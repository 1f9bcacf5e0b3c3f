#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"
#include "tests/support/pipe_conn.h"
#include "transport/elevate.h"

/* Everything a stream gave. */
struct seen {
    struct buf out;
    struct buf err;
    bool ended;
    struct stream_end end;
};

static uv_loop_t loop;
static struct pipe_conn conn;
static struct seen seen;
static char folder[] = "/tmp/fleet-elevate-XXXXXX";

static void setup(void) {
    cr_assert_eq(uv_loop_init(&loop), 0);
    pipe_conn_init(&conn, &loop, "/bin/sh");
    seen = (struct seen){0};
    cr_assert_not_null(mkdtemp(folder));
}

static void teardown(void) {
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert_eq(uv_loop_close(&loop), 0);
    buf_free(&seen.out);
    buf_free(&seen.err);
    AUTO_FREE char *command = xasprintf("rm -rf %s", folder);
    cr_assert_eq(system(command), 0);
}

TestSuite(elevate, .init = setup, .fini = teardown, .timeout = 20);

static void on_data(int fd, const char *data, size_t len, void *arg) {
    (void)arg;
    buf_add(fd == 2 ? &seen.err : &seen.out, data, len);
}

static void on_end(const struct stream_end *end, void *arg) {
    (void)arg;
    cr_assert_not(seen.ended);
    seen.ended = true;
    seen.end = *end;
}

static const struct stream_handlers handlers = {.on_data = on_data, .on_end = on_end};

static struct stream *start(enum elevate_how how, const char *password, const char *command,
                            uint64_t timeout_ms) {
    struct elevation elevation = {.how = how, .password = password};
    return elevate_exec(&loop, &conn.conn, &elevation, command, timeout_ms, &handlers, NULL);
}

static void await_end(void) {
    while (!seen.ended) {
        uv_run(&loop, UV_RUN_ONCE);
    }
}

/* A program under `folder`; it comes first in PATH. */
static void install(const char *name, const char *script) {
    AUTO_FREE char *path = xasprintf("%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    fputs(script, file);
    fclose(file);
    cr_assert_eq(chmod(path, 0755), 0);
    AUTO_FREE char *search = xasprintf("%s:%s", folder, getenv("PATH"));
    setenv("PATH", search, 1);
}

/* A sudo that asks as the real one does: prompt on stderr with %% unescaped, answer byte by byte. */
static const char asking_sudo[] =
    "#!/bin/sh\n"
    "while [ $# -gt 0 ]; do case $1 in\n"
    "-p) prompt=$2; shift 2;; -H|-S) shift;; -n) echo 'sudo: a password is required' >&2; exit "
    "1;;\n"
    "*) break;; esac; done\n"
    "tries=0\n"
    "while [ $tries -lt 3 ]; do\n"
    "  echo \"$prompt\" | sed 's/%%/%/g' | tr -d '\\n' >&2\n"
    "  IFS= read -r word || { echo 'sudo: no password was provided' >&2; exit 1; }\n"
    "  [ \"$word\" = secret ] && exec \"$@\"\n"
    "  echo 'Sorry, try again.' >&2; tries=$((tries + 1))\n"
    "done; exit 1\n";

Test(elevate, carries_both_ways_without_elevation) {
    struct stream *stream = start(ELEVATE_NONE, NULL, "/bin/cat", 5000);
    stream_write(stream, "ping", 4);
    cr_expect_eq(stream_queued(stream), 4u);
    stream_eof(stream);
    await_end();
    cr_expect_str_eq(buf_text(&seen.out), "ping");
    cr_expect_eq(seen.end.status, 0);
    cr_expect_eq(seen.err.len, 0u);
}

Test(elevate, works_through_fish) {
    pipe_conn_init(&conn, &loop, "/usr/bin/fish");
    struct stream *stream = start(ELEVATE_NONE, NULL, "/bin/cat", 15000);
    stream_write(stream, "ping", 4);
    stream_eof(stream);
    await_end();
    cr_expect_str_eq(buf_text(&seen.out), "ping");
    cr_expect_eq(seen.err.len, 0u);
}

Test(elevate, works_through_real_sudo) {
    struct stream *stream = start(ELEVATE_SUDO, NULL, "/bin/cat", 15000);
    stream_write(stream, "ping", 4);
    stream_eof(stream);
    await_end();
    cr_expect_str_eq(buf_text(&seen.out), "ping");
    cr_expect_eq(seen.end.status, 0, "%s", seen.end.error.message);
}

Test(elevate, drops_what_the_login_shell_prints) {
    install("noisy", "#!/bin/sh\necho Welcome; echo to the host >&2; printf 'no newline'\n"
                     "set -v -x\nexec /bin/sh \"$@\"\n");
    AUTO_FREE char *noisy = xasprintf("%s/noisy", folder);
    conn.login_shell = noisy;
    struct stream *stream = start(ELEVATE_NONE, NULL, "/bin/cat", 5000);
    stream_write(stream, "ping", 4);
    stream_eof(stream);
    await_end();
    cr_expect_str_eq(buf_text(&seen.out), "ping");
    cr_expect_str_empty(buf_text(&seen.err));
}

Test(elevate, finds_the_marker_behind_much_noise_however_it_is_cut) {
    install("chatty", "#!/bin/sh\nhead -c 40000 /dev/zero | tr '\\0' x\nexec /bin/sh \"$@\"\n");
    AUTO_FREE char *chatty = xasprintf("%s/chatty", folder);
    conn.login_shell = chatty;
    for (conn.piece = 1; conn.piece < 40; conn.piece += 5) {
        buf_clear(&seen.out);
        seen.ended = false;
        struct stream *stream = start(ELEVATE_NONE, NULL, "/bin/cat", 5000);
        stream_write(stream, "ping", 4);
        stream_eof(stream);
        await_end();
        cr_expect_str_eq(buf_text(&seen.out), "ping", "in pieces of %zu", conn.piece);
    }
}

Test(elevate, answers_the_prompt_and_hides_it) {
    install("sudo", asking_sudo);
    struct stream *stream = start(ELEVATE_SUDO_PASSWORD, "secret", "/bin/cat", 5000);
    stream_write(stream, "ping", 4);
    stream_eof(stream);
    await_end();
    cr_expect_eq(seen.end.status, 0, "%s", seen.end.error.message);
    cr_expect_str_eq(buf_text(&seen.out), "ping");
    cr_expect_str_empty(buf_text(&seen.err));
}

Test(elevate, keeps_the_password_where_sudo_asks_nothing) {
    install("sudo",
            "#!/bin/sh\nwhile [ $# -gt 0 ]; do case $1 in -p) shift 2;; -H|-S|-n) shift;; *)"
            " break;; esac; done; exec \"$@\"\n");
    struct stream *stream = start(ELEVATE_SUDO_PASSWORD, "secret", "/bin/cat", 5000);
    stream_write(stream, "ping", 4);
    stream_eof(stream);
    await_end();
    cr_expect_str_eq(buf_text(&seen.out), "ping", "the command got: %s", buf_text(&seen.out));
}

Test(elevate, keeps_the_password_where_a_shell_echoes_the_command_line) {
    install("echoing", "#!/bin/sh\nprintf '%s\\n' \"$2\" >&2\nprintf '%s\\n' \"$2\"\n"
                       "exec /bin/sh \"$@\"\n");
    install("sudo",
            "#!/bin/sh\nwhile [ $# -gt 0 ]; do case $1 in -p) shift 2;; -H|-S|-n) shift;; *)"
            " break;; esac; done; exec \"$@\"\n");
    AUTO_FREE char *echoing = xasprintf("%s/echoing", folder);
    conn.login_shell = echoing;
    struct stream *stream = start(ELEVATE_SUDO_PASSWORD, "secret", "/bin/cat", 5000);
    stream_write(stream, "ping", 4);
    stream_eof(stream);
    await_end();
    cr_expect_str_eq(buf_text(&seen.out), "ping");
}

Test(elevate, tries_a_wrong_password_once) {
    install("sudo", asking_sudo);
    start(ELEVATE_SUDO_PASSWORD, "wrong", "/bin/cat", 5000);
    await_end();
    cr_expect_not(seen.end.lost);
    cr_expect_neq(seen.end.status, 0);
    cr_expect_str_eq(seen.end.error.reason, "sudo-refused");
    cr_expect(strstr(seen.end.error.message, "tried once") != NULL, "%s", seen.end.error.message);
    cr_expect_null(strstr(seen.end.error.message, "wrong"), "the password is in the message");
}

Test(elevate, gives_sudos_own_words) {
    install("sudo", asking_sudo);
    start(ELEVATE_SUDO, NULL, "/bin/cat", 5000);
    await_end();
    cr_expect_str_eq(seen.end.error.reason, "sudo-refused");
    cr_expect(strstr(seen.end.error.message, "a password is required") != NULL, "%s",
              seen.end.error.message);
}

Test(elevate, names_a_login_shell_that_runs_nothing) {
    conn.login_shell = "/usr/sbin/nologin";
    start(ELEVATE_NONE, NULL, "/bin/cat", 5000);
    await_end();
    cr_expect_str_eq(seen.end.error.reason, "login-noise");
    cr_expect(strstr(seen.end.error.message, "not available") != NULL, "%s",
              seen.end.error.message);
}

Test(elevate, ends_when_the_marker_never_comes) {
    install("silent", "#!/bin/sh\nexec sleep 3\n");
    AUTO_FREE char *silent = xasprintf("%s/silent", folder);
    conn.login_shell = silent;
    start(ELEVATE_NONE, NULL, "/bin/cat", 100);
    await_end();
    cr_expect_neq(seen.end.status, 0);
    cr_expect_str_eq(seen.end.error.reason, "no-shell");
    cr_expect(strstr(seen.end.error.message, "100 ms") != NULL, "%s", seen.end.error.message);
}

Test(elevate, bounds_noise_without_an_end) {
    install("flood", "#!/bin/sh\nhead -c 3000000 /dev/zero | tr '\\0' x\nexit 5\n");
    AUTO_FREE char *flood = xasprintf("%s/flood", folder);
    conn.login_shell = flood;
    start(ELEVATE_NONE, NULL, "/bin/cat", 10000);
    await_end();
    cr_expect_eq(seen.end.status, 5);
    cr_expect_str_eq(seen.end.error.reason, "login-noise");
}

Test(elevate, runs_nothing_that_is_not_plain_words) {
    start(ELEVATE_NONE, NULL, "cat; touch /tmp/fleet-pwned", 5000);
    cr_expect_eq(conn.exec_count, 0u);
    await_end();
    cr_expect_eq(seen.end.error.code, FLEET_ERR_USAGE);
}

Test(elevate, passes_a_missing_command_on_as_127) {
    start(ELEVATE_NONE, NULL, "no-such-program", 5000);
    await_end();
    cr_expect_eq(seen.end.status, 127);
    cr_expect(strstr(buf_text(&seen.err), "not found") != NULL);
}

Test(elevate, may_be_closed_at_any_time) {
    struct stream *stream = start(ELEVATE_NONE, NULL, "/bin/cat", 5000);
    stream_write(stream, "ping", 4);
    stream_close(stream);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_not(seen.ended);
}
