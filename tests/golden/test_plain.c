/* Plain output of whole runs, held against tests/golden/plain/NAME.txt.
 *
 * FLEET_GOLDEN_UPDATE=1 writes the files anew; look at the difference before committing it. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "tui/github.h"
#include "tui/junit.h"
#include "tui/output.h"

#define START_MS INT64_C(1795367040000)

struct story {
    struct view *view;
    struct output *output;
    FILE *file;
    char *text;
    size_t size;
    int64_t now_ms;
    uint64_t seq;
};

static void story_init(struct story *story, const struct output_options *options) {
    *story = (struct story){.view = view_new(), .now_ms = START_MS};
    story->file = open_memstream(&story->text, &story->size);
    story->output = output_plain_new(story->file, options);
}

static struct event *say(struct story *story, enum event_type type, const char *host) {
    struct event *event = event_new(type);
    event->seq = ++story->seq;
    event->ts_ms = story->now_ms;
    event->run = xstrdup("20261122-170400-x7k2q9");
    event->host = host != NULL ? xstrdup(host) : NULL;
    return event;
}

/* Gives the event to view and output, and frees it. */
static void tell(struct story *story, struct event *event) {
    view_apply(story->view, event);
    story->output->ops->event(story->output, event, story->view);
    event_free(event);
}

static void begin(struct story *story, size_t count, uint32_t waves, enum run_action action) {
    static const char *const names[] = {"db1", "db2", "db3", "api1", "web1", "web2"};
    struct event *event = say(story, EVENT_RUN_START, NULL);
    event->fleet = xstrdup("demo");
    event->rev = xstrdup("a1b2c3d4e5f6");
    event->dirty = true;
    event->action = action;
    event->wave_count = waves;
    event->hosts = xcalloc(count, sizeof(*event->hosts));
    event->host_count = count;
    for (size_t i = 0; i < count; i++) {
        event->hosts[i].name = i < 6 ? xstrdup(names[i]) : xasprintf("node%zu", i);
        event->hosts[i].wave = i == 0 ? 1 : i < 3 || waves < 3 ? (waves > 1 ? 2 : 1) : 3;
        event->hosts[i].address = xasprintf("root@10.0.0.%zu%s", 11 + i, i == 3 ? ":2222" : "");
    }
    tell(story, event);
}

static void move_to(struct story *story, const char *host, enum host_state state,
                    const char *reason, const char *message, int64_t generation) {
    struct event *event = say(story, EVENT_HOST_STATE, host);
    const struct view_host *before = view_host(story->view, host);
    event->has_from = before->seen;
    event->from = before->state;
    event->to = state;
    event->reason = reason != NULL ? xstrdup(reason) : NULL;
    event->message = message != NULL ? xstrdup(message) : NULL;
    event->generation = generation;
    tell(story, event);
}

static void say_log(struct story *story, const char *host, const char *line) {
    struct event *event = say(story, EVENT_LOG, host);
    event->stream = xstrdup("activation");
    event->line = xstrdup(line);
    tell(story, event);
}

static void prepare(struct story *story, const char *host, int64_t generation) {
    static const enum host_state states[] = {HOST_CONNECTING, HOST_BUILDING, HOST_STAGING,
                                             HOST_STAGED};
    for (size_t i = 0; i < ARRAY_LEN(states); i++) {
        move_to(story, host, states[i], NULL, NULL, i > 0 ? generation : 0);
        story->now_ms += 200;
    }
}

static void activate(struct story *story, const char *host) {
    move_to(story, host, HOST_ACTIVATING, NULL, NULL, 0);
    say_log(story, host, "starting the following units: web.service");
    story->now_ms += 3000;
    move_to(story, host, HOST_CONFIRMING, NULL, NULL, 0);
    move_to(story, host, HOST_PROBING, NULL, NULL, 0);
}

static void go_well(struct story *story, const char *host, int64_t generation) {
    activate(story, host);
    story->now_ms += 10000;
    move_to(story, host, HOST_COMMITTING, NULL, NULL, 0);
    move_to(story, host, HOST_HEALTHY, NULL, NULL, generation);
}

static void end(struct story *story, const char *result, int exit) {
    struct event *event = say(story, EVENT_RUN_END, NULL);
    event->result = xstrdup(result);
    event->exit = exit;
    tell(story, event);
}

static size_t count_lines(const char *text) {
    size_t lines = 0;
    for (; *text != '\0'; text++) {
        lines += *text == '\n';
    }
    return lines;
}

static void close_story(struct story *story) {
    story->output->ops->finish(story->output, story->view);
    output_free(story->output);
    fclose(story->file);
    view_free(story->view);
}

static void compare_text(const char *text, size_t size, const char *file_name) {
    char *path = xasprintf("tests/golden/plain/%s", file_name);
    if (getenv("FLEET_GOLDEN_UPDATE") != NULL) {
        FILE *file = fopen(path, "w");
        cr_assert_not_null(file, "%s can't be written", path);
        fwrite(text, 1, size, file);
        fclose(file);
    }
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file, "%s is missing; FLEET_GOLDEN_UPDATE=1 makes it", path);
    char *want = xcalloc(1, 65536);
    size_t len = fread(want, 1, 65535, file);
    want[len] = '\0';
    fclose(file);
    cr_expect_str_eq(text, want, "%s differs", path);
    free(want);
    free(path);
}

/* Ends the output and compares it; returns how many lines it has. */
static size_t compare(struct story *story, const char *name) {
    char *file_name = xasprintf("%s.txt", name);
    close_story(story);
    compare_text(story->text, story->size, file_name);
    size_t lines = count_lines(story->text);
    free(file_name);
    free(story->text);
    return lines;
}

static void tick(struct story *story, const char *waiting) {
    story->output->ops->tick(story->output, story->view, story->now_ms, waiting);
}

/* The last of six hosts answers HTTP 500 and goes back. */
static void tell_rollback(struct story *story) {
    static const char *const names[] = {"db1", "db2", "db3", "web1", "web2"};
    begin(story, 6, 3, ACTION_SWITCH);
    for (int i = 0; i < 5; i++) {
        prepare(story, names[i], 147 + i);
    }
    prepare(story, "api1", 90);
    for (int i = 0; i < 5; i++) {
        go_well(story, names[i], 148 + i);
    }
    tick(story, "api1 is being activated");
    activate(story, "api1");
    story->now_ms += 9000;
    move_to(story, "api1", HOST_ROLLING_BACK, "probe-failed",
            "web: http://10.0.0.14:8080/ refused the connection 3 times, 12 s after activation", 0);
    story->now_ms += 4000;
    move_to(story, "api1", HOST_ROLLED_BACK, "probe-failed",
            "web: http://10.0.0.14:8080/ refused the connection 3 times, 12 s after activation",
            90);
    end(story, "failed", 3);
}

Test(plain, six_hosts_with_one_that_goes_back) {
    struct story story;
    story_init(&story, &(struct output_options){.verbosity = 0});
    tell_rollback(&story);
    cr_assert_lt(compare(&story, "rollback"), 30, "a story of under 30 lines");
}

Test(plain, quiet_tells_failures_only) {
    struct story story;
    story_init(&story, &(struct output_options){.verbosity = -1});
    tell_rollback(&story);
    compare(&story, "rollback-quiet");
}

Test(plain, verbose_tells_every_move_and_the_log) {
    struct story story;
    story_init(&story, &(struct output_options){.verbosity = 1});
    tell_rollback(&story);
    compare(&story, "rollback-verbose");
}

Test(plain, colour_only_repeats_the_words) {
    struct story story;
    story_init(&story, &(struct output_options){.color = true});
    tell_rollback(&story);
    compare(&story, "rollback-colour");
}

/* A build fails, a host is down, an activation and its way back fail. */
static void tell_troubles(struct story *story) {
    begin(story, 3, 1, ACTION_SWITCH);
    move_to(story, "db1", HOST_CONNECTING, NULL, NULL, 0);
    move_to(story, "db1", HOST_BUILDING, NULL, NULL, 0);
    for (int i = 0; i < 20; i++) {
        char *line = xasprintf("compiling \033[31mpart\033[0m %d", i);
        say_log(story, "db1", line);
        free(line);
    }
    say_log(story, "db1", "   ");
    move_to(story, "db1", HOST_FAILED, "build-failed",
            "builder for /nix/store/x.drv failed with exit code 1\ncompiling part 19", 0);
    move_to(story, "db2", HOST_UNREACHABLE, "connection-refused",
            "10.0.0.12 port 22 refused the connection", 0);
    prepare(story, "db3", 7);
    activate(story, "db3");
    for (int i = 0; i < 7; i++) {
        char *line = xasprintf("\033[31mfailing\033[0m to start unit %d", i);
        say_log(story, "db3", line);
        free(line);
    }
    say_log(story, "db3", " ");
    move_to(story, "db3", HOST_ROLLING_BACK, "activation-failed",
            "switch-to-configuration test exited with 2", 0);
    move_to(story, "db3", HOST_ROLLBACK_FAILED, "rollback-failed",
            "the old system's activation failed too: exit 4", 0);
    end(story, "unknown-hosts", 4);
}

Test(plain, failing_tool_has_the_last_word) {
    struct story story;
    story_init(&story, &(struct output_options){.verbosity = 0});
    tell_troubles(&story);
    compare(&story, "failing-tools");
}

static void say_probe(struct story *story, const char *host, const char *name, bool ok,
                      const char *detail) {
    struct event *event = say(story, EVENT_PROBE, host);
    event->name = xstrdup(name);
    event->ok = ok;
    event->detail = xstrdup(detail);
    tell(story, event);
}

Test(plain, what_failed_before_the_change_is_told_and_stands_in_the_summary) {
    struct story story;
    story_init(&story, &(struct output_options){.verbosity = 0});
    begin(&story, 2, 1, ACTION_SWITCH);
    for (size_t i = 0; i < 2; i++) {
        const char *host = i == 0 ? "db1" : "db2";
        move_to(&story, host, HOST_CONNECTING, NULL, NULL, 0);
        say_probe(&story, host, "web", i == 1, i == 1 ? "200 in 3 ms" : "connection refused");
        say_probe(&story, host, "units", i == 1, i == 1 ? "no unit has failed" : "old.service");
        say_probe(&story, host, "web", i == 1, "connection refused");
        prepare(&story, host, 7);
        struct event *grant = say(&story, EVENT_GRANT, host);
        grant->act = ACT_ACTIVATE;
        tell(&story, grant);
        activate(&story, host);
        say_probe(&story, host, "web", false, "connection refused");
        move_to(&story, host, HOST_HEALTHY, NULL, NULL, 8);
    }
    end(&story, "done", 0);
    compare(&story, "failed-before");
}

Test(plain, github_gets_annotations) {
    struct story story;
    story_init(&story, &(struct output_options){.verbosity = -1, .github = true});
    tell_troubles(&story);
    compare(&story, "github");
}

Test(plain, github_annotations_are_ten_at_most) {
    struct story story;
    story_init(&story, &(struct output_options){.verbosity = -1});
    begin(&story, 40, 1, ACTION_SWITCH);
    for (size_t i = 6; i < 40; i++) {
        char *name = xasprintf("node%zu", i);
        move_to(&story, name, HOST_FAILED, "disk-full", "100% of /nix\nis used", 0);
        free(name);
    }
    struct buf out = BUF_INIT;
    github_write_annotations(story.view, &out);
    cr_assert_eq(count_lines(buf_text(&out)), 10);
    cr_assert(
        strstr(buf_text(&out), "::error title=fleet failed::node6: 100%25 of /nix%0Ais used\n"));
    cr_assert(strstr(buf_text(&out), "and also: node15, node16"));
    buf_free(&out);
    close_story(&story);
    free(story.text);
}

Test(plain, github_summary_and_junit) {
    struct story story;
    story_init(&story, &(struct output_options){.verbosity = -1});
    tell_rollback(&story);
    move_to(&story, "web2", HOST_FAILED, "copy-failed", "<b>|`a` & \"b\"\n@all", 0);
    move_to(&story, "web1", HOST_UNKNOWN, "confirm-timeout", NULL, 0);
    move_to(&story, "db2", HOST_SKIPPED, "budget", NULL, 0);
    struct buf out = BUF_INIT;
    github_write_summary(story.view, &out);
    compare_text(buf_text(&out), out.len, "summary.md");
    buf_free(&out);
    junit_write(story.view, &out);
    compare_text(buf_text(&out), out.len, "junit.xml");
    buf_free(&out);
    close_story(&story);
    free(story.text);
}

Test(plain, github_summary_is_bounded) {
    struct story story;
    story_init(&story, &(struct output_options){.verbosity = -1});
    begin(&story, 4000, 1, ACTION_SWITCH);
    char *long_message = xcalloc(1, 1001);
    memset(long_message, 'x', 1000);
    for (size_t i = 6; i < 4000; i++) {
        char *name = xasprintf("node%zu", i);
        move_to(&story, name, HOST_FAILED, "disk-full", long_message, 0);
        free(name);
    }
    free(long_message);
    struct buf out = BUF_INIT;
    github_write_summary(story.view, &out);
    cr_assert(out.len > 800000 && out.len < 900 * 1024 + 200, "%zu", out.len);
    cr_assert(strstr(buf_text(&out), "hosts more: `fleet show x7k2q9`"));
    buf_free(&out);
    close_story(&story);
    free(story.text);
}

Test(plain, many_of_one_fate_are_told_together) {
    struct story story;
    story_init(&story, &(struct output_options){.verbosity = 0});
    begin(&story, 120, 2, ACTION_SWITCH);
    for (size_t i = 6; i < 60; i++) {
        char *name = xasprintf("node%zu", i);
        move_to(&story, name, HOST_UNCHANGED, NULL, NULL, 3);
        free(name);
    }
    prepare(&story, "db1", 1);
    go_well(&story, "db1", 2);
    prepare(&story, "db2", 1);
    activate(&story, "db2");
    move_to(&story, "db2", HOST_UNKNOWN, "confirm-timeout",
            "no address answered within 60 s after the activation", 0);
    for (size_t i = 60; i < 120; i++) {
        char *name = xasprintf("node%zu", i);
        move_to(&story, name, HOST_SKIPPED, i == 60 ? "offline" : "budget", NULL, 0);
        free(name);
    }
    end(&story, "unknown-hosts", 4);
    compare(&story, "many");
}

/* The builds of all hosts but one fail for want of one derivation. */
Test(plain, a_failure_that_hosts_share_is_told_once) {
    static const char words[] = "the build failed: builder for '/nix/store/x-web.drv' failed\n"
                                "greet.c:7: error\nerror: 1 dependencies of '/nix/store/%s.drv' "
                                "failed\nthe whole log: build/%s.log";
    static const char *const names[] = {"db1", "db2", "db3", "web1", "web2"};
    struct story story;
    story_init(&story, &(struct output_options){.verbosity = 0});
    begin(&story, 6, 1, ACTION_SWITCH);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char message[512];
        snprintf(message, sizeof(message), words, names[i], names[i]);
        move_to(&story, names[i], HOST_BUILDING, NULL, NULL, 0);
        move_to(&story, names[i], HOST_FAILED, "build-failed", message, 0);
    }
    move_to(&story, "api1", HOST_BUILDING, NULL, NULL, 0);
    move_to(&story, "api1", HOST_FAILED, "build-failed",
            "the build failed: builder for '/nix/store/y-api.drv' failed\nanother reason", 0);
    end(&story, "build-failed", 9);
    compare(&story, "shared-failure");
}

Test(plain, a_stop_by_max_unreachable_names_the_ways_on) {
    struct story story;
    story_init(&story, &(struct output_options){.verbosity = 0});
    begin(&story, 3, 1, ACTION_SWITCH);
    move_to(&story, "db2", HOST_UNREACHABLE, "no-route", "there is no route to 10.0.0.12", 0);
    move_to(&story, "db3", HOST_UNREACHABLE, "no-route", "there is no route to 10.0.0.13", 0);
    move_to(&story, "db1", HOST_SKIPPED, "budget", NULL, 0);
    end(&story, "unreachable", 5);
    compare(&story, "unreachable");
}

Test(plain, who_holds_a_host_is_told_in_short_and_in_the_end_with_the_remedy) {
    struct story story;
    story_init(&story, &(struct output_options){.verbosity = 0});
    begin(&story, 1, 1, ACTION_SWITCH);
    move_to(&story, "db1", HOST_SKIPPED, "locked",
            "held by ann@laptop pid 7 since 2026-01-01T00:00:00Z (run r1): wait for it, use "
            "--lock-timeout, or if it is dead: fleet unlock db1 --id abc",
            0);
    end(&story, "locked", 7);
    compare(&story, "locked");
}

Test(plain, interrupted_run_names_every_state_and_the_way_on) {
    struct story story;
    story_init(&story, &(struct output_options){.verbosity = 0});
    begin(&story, 6, 3, ACTION_SWITCH);
    prepare(&story, "db1", 147);
    go_well(&story, "db1", 148);
    prepare(&story, "db2", 112);
    activate(&story, "db2");
    end(&story, "interrupted", 130);
    compare(&story, "interrupted");
}

Test(plain, interrupted_build_is_begun_anew_not_resumed) {
    struct story story;
    story_init(&story, &(struct output_options){.verbosity = 0});
    begin(&story, 2, 1, ACTION_BUILD);
    end(&story, "interrupted", 130);
    compare(&story, "interrupted-build");
}

Test(plain, paused_run_says_how_to_go_on) {
    struct story story;
    story_init(&story, &(struct output_options){.verbosity = 0});
    begin(&story, 3, 2, ACTION_SWITCH);
    struct event *event = say(&story, EVENT_WAVE_START, NULL);
    event->wave = 1;
    tell(&story, event);
    prepare(&story, "db1", 147);
    go_well(&story, "db1", 148);
    event = say(&story, EVENT_PAUSE, NULL);
    event->reason = xstrdup("promote");
    event->wave = 1;
    tell(&story, event);
    end(&story, "paused", 6);
    compare(&story, "paused");
}

Test(plain, heartbeat_comes_every_thirty_seconds) {
    struct story story;
    story_init(&story, &(struct output_options){.verbosity = 0});
    begin(&story, 3, 2, ACTION_SWITCH);
    struct event *event = say(&story, EVENT_WAVE_START, NULL);
    event->wave = 1;
    tell(&story, event);
    for (int second = 1; second <= 95; second++) {
        story.now_ms += 1000;
        tick(&story, "3 hosts are being \033[5mbuilt");
    }
    end(&story, "done", 0);
    compare(&story, "heartbeat");
}

Test(plain, hostile_bytes_reach_no_terminal) {
    struct story story;
    story_init(&story, &(struct output_options){.verbosity = 2});
    begin(&story, 1, 1, ACTION_PUSH);
    move_to(&story, "db1", HOST_FAILED, "copy-failed", "\033]0;owned\007\033[2J\r\xe2\x80\xae no",
            0);
    say_log(&story, "db1", "\033[1A\033[2Kall is well\b\b\b");
    struct event *event = say(&story, EVENT_PROBE, "db1");
    event->name = xstrdup("web");
    event->detail = xstrdup("\x9b"
                            "31mred\nand more");
    tell(&story, event);
    end(&story, "failed", 3);
    fflush(story.file);
    cr_assert_null(strchr(story.text, '\033'));
    cr_assert_null(strchr(story.text, '\r'));
    compare(&story, "hostile");
}
