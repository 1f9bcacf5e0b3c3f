/* What an update changes, found out beside the run: with this machine's own store, if there is one.
 * That the packages are right is tests/unit/test_plan.c's; here it is when something is told, and
 * that all is closed whenever it is closed. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "core/change.h"

static uv_loop_t loop;
static struct changes *changes;
static size_t told;
static char *packages;

static void on_change(struct event *event, void *arg) {
    cr_assert_eq(arg, &loop);
    cr_assert_eq(event->type, EVENT_CHANGE);
    free(packages);
    packages = event->packages != NULL ? xstrdup(event->packages) : NULL;
    told++;
    event_free(event);
}

static void init(void) {
    uv_loop_init(&loop);
    changes = changes_new(&loop, on_change, &loop);
    told = 0;
}

static void close_all(void) {
    changes_close(changes);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert_eq(uv_loop_close(&loop), 0, "a handle is left open");
    free(packages);
    packages = NULL;
}
TestSuite(change, .init = init);

Test(change, paths_that_are_not_here_cost_nothing) {
    changes_note(changes, "/nix/store/none-such", "/nix/store/none-such-either");
    changes_note(changes, "", "/tmp");
    changes_note(changes, "/tmp", "/tmp");
    cr_expect_eq(uv_run(&loop, UV_RUN_NOWAIT), 0, "no work was begun");
    cr_expect_eq(told, 0);
    close_all();
}

Test(change, what_is_no_store_path_is_asked_for_and_not_told) {
    changes_note(changes, "/tmp", "/usr");
    changes_note(changes, "/tmp", "/usr");
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(told, 0);
    close_all();
}

Test(change, closing_in_the_middle_of_its_work_tells_nothing_and_leaves_nothing) {
    for (int i = 0; i < 40; i++) {
        char *path = xasprintf("/proc/%d", i + 1);
        changes_note(changes, "/tmp", path);
        changes_note(changes, "/usr", path);
        free(path);
    }
    uv_run(&loop, UV_RUN_NOWAIT);
    close_all();
    cr_expect_eq(told, 0);
}

/* A new derivation of this machine's Nix, as a store path. */
static char *built(const char *name) {
    char *command = xasprintf(
        "NIX_CONFIG='sandbox = false\nsubstituters =\nbuild-users-group =' nix-build --no-out-link "
        "-E 'derivation { "
        "name "
        "= \"%s\"; system = builtins.currentSystem; builder = \"/bin/sh\"; args = [ \"-c\" "
        "\"echo > $out\" ]; }' 2>/dev/null",
        name);
    FILE *file = popen(command, "r");
    char line[256] = "";
    if (fgets(line, sizeof(line), file) == NULL) {
        line[0] = '\0';
    }
    line[strcspn(line, "\n")] = '\0';
    pclose(file);
    free(command);
    return line[0] == '/' ? xstrdup(line) : NULL;
}

Test(change, a_pair_is_compared_once) {
    char *from = built("jq-1.6");
    char *to = built("jq-1.7");
    if (from == NULL || to == NULL) {
        changes_close(changes);
        cr_skip_test("there is no Nix here");
    }
    changes_note(changes, from, to);
    changes_note(changes, from, to);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(told, 1);
    cr_expect(packages != NULL &&
                  strstr(packages, "{\"name\":\"jq\",\"from\":\"1.6\",\"to\":\"1.7\"}") != NULL,
              "%s", packages);
    changes_note(changes, to, from);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_expect_eq(told, 2);
    close_all();
    free(from);
    free(to);
}

#define OLD "/nix/store/3q1b2v5l0hq0i8a6p1k7m4n2c9d0x5zr-nixos-system-old"
#define NEW "/nix/store/9fw3m1kxg4r1qz8h2y6d5a7s0v3b8n4j-nixos-system-new"

/* Systems that lie elsewhere: the first hosts of a pair are asked, and the first answer is told. */
Test(change, hosts_are_asked_for_what_lies_elsewhere) {
    for (int i = 0; i < 3; i++) {
        cr_expect(changes_ask_host(changes, OLD, NEW));
    }
    cr_expect_not(changes_ask_host(changes, OLD, NEW), "a thousand would be asked");
    cr_expect_not(changes_ask_host(changes, NEW, NEW));
    cr_expect_not(changes_ask_host(changes, "", NEW));
    cr_expect(changes_ask_host(changes, NEW, OLD));
    struct plan_list from = {0};
    struct plan_list to = {0};
    plan_list_add(&from, "/nix/store/00000000000000000000000000000001-jq-1.6");
    plan_list_add(&to, "/nix/store/00000000000000000000000000000002-jq-1.7");
    struct event *event = change_event_new(OLD, NEW, &from, &to);
    cr_expect(strstr(event->packages, "{\"name\":\"jq\",\"from\":\"1.6\",\"to\":\"1.7\"}") != NULL);
    cr_expect(changes_hear(changes, event));
    cr_expect_not(changes_hear(changes, event), "told twice");
    cr_expect(changes_ask_host(changes, NEW, OLD), "another pair");
    event_free(event);
    plan_list_free(&from);
    plan_list_free(&to);
    for (int i = 0; i < 40; i++) {
        char *path = xasprintf("/nix/store/%032d-system", i);
        cr_expect_eq(changes_ask_host(changes, OLD, path), i < 22);
        free(path);
    }
    cr_expect_eq(uv_run(&loop, UV_RUN_NOWAIT), 0, "no work was begun");
    close_all();
}
