/* The dashboard of the fleet at rest: looks in, frames out, without a terminal or a host. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "core/target_reply.h"
#include "tui/rest_parts.h"

#define START_MS INT64_C(1795367040000)
#define HOSTS    3
#define MANY     300

static struct inv_host inv[MANY];
static const struct inv_host *hosts[MANY];
static const char *const logins[MANY] = {"root@10.0.0.11:2222", "root@10.0.0.12", ""};
static struct rest_view view;
static size_t asked;
static uint64_t every;
static bool left;

static void on_ask(size_t host, void *arg) {
    (void)arg;
    asked = host;
}
static void on_every(uint64_t every_ms, void *arg) {
    (void)arg;
    every = every_ms;
}
static void on_leave(void *arg) {
    (void)arg;
    left = true;
}

static void init(void) {
    static const char *const names[] = {"db1", "web1", "laptop"};
    setenv("TZ", "UTC", 1);
    for (size_t i = 0; i < HOSTS; i++) {
        inv[i] = (struct inv_host){.index = i, .name = names[i], .optional = i == 2};
        hosts[i] = &inv[i];
    }
    struct rest_options options = {.fleet = "demo",
                                   .hosts = hosts,
                                   .logins = logins,
                                   .host_count = HOSTS,
                                   .every_ms = 5000,
                                   .on_ask = on_ask,
                                   .on_every = on_every,
                                   .on_leave = on_leave};
    rest_view_init(&view, &options);
    view.now_ms = view.begun_ms = START_MS;
    screen_resize(&view.screen, 24, 80);
}
static void fini(void) {
    rest_view_release(&view);
}
TestSuite(rest, .init = init, .fini = fini);

static char *draw(void) {
    struct buf text = BUF_INIT;
    rest_draw(&view);
    for (int row = 0; row < view.screen.rows; row++) {
        screen_row_text(&view.screen, row, &text);
        buf_add_char(&text, '\n');
    }
    return buf_take(&text);
}

static void expect(const char *want) {
    char *text = draw();
    cr_expect(strstr(text, want) != NULL, "'%s' isn't on the screen:\n%s", want, text);
    free(text);
}

static void press(int key) {
    struct key_press one = {.key = key};
    rest_press(&view, &one);
}

static char who[] = "alice", rev[] = "a1b2c3d4";

static struct status good(int64_t generation) {
    return (struct status){.current = "/nix/store/new",
                           .booted = "/nix/store/new",
                           .profile = "/nix/store/new",
                           .boot_id = "b",
                           .nix = "2.24",
                           .generation = generation,
                           .free_bytes = 39000000000,
                           .in_sync = true,
                           .guard_deadline_s = -1,
                           .deployed = {.who = who, .rev = rev}};
}

static void look(size_t host, const struct status *status, const char *unit) {
    char text[64] = "";
    if (unit != NULL) {
        snprintf(text, sizeof(text), "failed %s\n", unit);
    }
    struct target_reply *reply = target_reply_parse(text, strlen(text));
    struct status_answer answer = {.reply = reply, .status = *status, .healthy = true};
    struct survey_look one = {.host = host, .answer = &answer, .connected = true};
    rest_model_look(&view.model, &one, view.now_ms);
    target_reply_free(reply);
}

static void lose(size_t host, const char *message) {
    struct error error = ERROR_INIT;
    error_set(&error, FLEET_ERR_UNREACHABLE, "connection-refused", "%s", message);
    struct survey_look one = {.host = host, .error = &error};
    rest_model_look(&view.model, &one, view.now_ms);
}

Test(rest, says_how_many_have_answered_and_that_all_is_well) {
    expect("0 of 3 hosts have answered");
    expect("nothing has changed since");
    for (size_t i = 0; i < HOSTS; i++) {
        struct status status = good(7);
        look(i, &status, NULL);
    }
    expect("3 of 3 in sync");
    expect("nothing needs a person");
    expect("nothing has changed since");
    expect("39 GB");
}

Test(rest, who_needs_a_person_stands_first_and_what_changed_is_told) {
    struct status status = good(7);
    look(0, &status, NULL);
    look(2, &status, NULL);
    status.in_sync = false;
    status.drift[DRIFT_NOT_COMMITTED] = true;
    look(0, &status, NULL);
    lose(1, "10.0.0.12 port 22 refuses connections\033[2J");
    lose(2, "asleep");
    expect("2 hosts need a person; web1: unreachable, 10.0.0.12 port 22 refuses connectio…");
    char *text = draw();
    cr_expect_lt(strstr(text, "? web1"), strstr(text, "≠ db1"));
    cr_expect_lt(strstr(text, "≠ db1"), strstr(text, "- laptop"));
    free(text);
    view.now_ms += 61000;
    status = good(8);
    look(0, &status, "old.service");
    look(1, &status, NULL);
    expect("db1     in sync");
    expect("generation 7 → 8, by alice");
    expect("web1    answers again: in sync");
    expect("failed units: old.service");
    look(0, &status, NULL);
    expect("no unit has failed any more");
}

/* A path or a reason that is wider than the screen goes on in the next row. */
Test(rest, long_words_of_a_detail_are_not_cut) {
    struct status status = good(7);
    status.current = "/nix/store/9fw3m1kxg4r1qz8h2y6d5a7s0v3b8n4j-nixos-system-web1-24.05.6";
    look(0, &status, NULL);
    screen_resize(&view.screen, 24, 60);
    press(KEY_ENTER);
    expect(" runs        /nix/store/9fw3m1kxg4r1qz8h2y6d5a7s0v3b8n4j-ni\n");
    expect("\n             xos-system-web1-24.05.6\n");
    press(KEY_ESCAPE);
    lose(0, "10.0.0.11 port 22 refuses connections: is sshd up there, and is this its port?");
    press(KEY_ENTER);
    expect("because     10.0.0.11 port 22 refuses connections: is sshd\n");
    expect("\n             up there, and is this its port?\n");
}

Test(rest, an_update_under_way_is_seen_with_its_guard) {
    struct status status = good(7);
    status.guard = GUARD_ACTIVE;
    status.guard_says.phase = GUARD_ACTIVE;
    status.guard_deadline_s = 42;
    status.in_sync = false;
    look(0, &status, NULL);
    expect("● db1");
    expect("its guard is active");
    press(KEY_ENTER);
    view.now_ms += 2000;
    expect("active: goes back by itself in 40 s unless it is renewed");
    expect("ssh -p 2222 root@10.0.0.11");
    press(KEY_ESCAPE);
    expect("STATE");
}

Test(rest, keys_ask_again_pace_filter_and_leave) {
    expect("every 5 s");
    press('r');
    cr_expect_eq(asked, 0);
    press('a');
    cr_expect_eq(asked, SIZE_MAX);
    press('-');
    cr_expect_eq(every, 10000);
    expect("every 10 s");
    press('+');
    press('+');
    press('+');
    press('+');
    press('+');
    cr_expect_eq(every, 1000);
    press('/');
    press('w');
    press('e');
    press(KEY_ENTER);
    expect("filter: we  (1 of 3 hosts");
    press('r');
    cr_expect_eq(asked, 1);
    press(KEY_ESCAPE);
    press(KEY_ESCAPE);
    press('j');
    press('G');
    expect("▸◌ laptop");
    press('n');
    expect("no host needs a person");
    press('?');
    expect("these keys");
    press(KEY_ESCAPE);
    press('q');
    cr_expect(view.leave);
}

/* More hosts than rows: a cell a host above the table, which keeps those that need a person. */
Test(rest, many_hosts_are_a_map) {
    char names[MANY][8];
    static const char *blank[MANY];
    rest_view_release(&view);
    for (size_t i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof(names[i]), "n%03zu", i + 1);
        inv[i] = (struct inv_host){.index = i, .name = names[i]};
        hosts[i] = &inv[i];
        blank[i] = "";
    }
    struct rest_options options = {
        .fleet = "prod", .hosts = hosts, .logins = blank, .host_count = MANY, .every_ms = 5000};
    rest_view_init(&view, &options);
    view.now_ms = START_MS;
    screen_resize(&view.screen, 24, 80);
    struct status status = good(7);
    for (size_t i = 0; i < MANY - 1; i++) {
        look(i, &status, NULL);
    }
    lose(2, "gone");
    expect("\n ✓✓?✓✓✓");
    expect("✓✓✓·\n");
    expect("▸? n003");
    press('v');
    char *text = draw();
    cr_expect_null(strstr(text, "✓✓?"), "the map is still there:\n%s", text);
    free(text);
    press('v');
    view.screen.ascii = true;
    expect("\n ++?+++");
    press('?');
    expect("these keys");
    press('G');
    expect("# drifted");
    press(KEY_ESCAPE);
    view.screen.ascii = false;
    /* Where not all fit a cell shows the worst of its hosts. */
    screen_resize(&view.screen, 12, 40);
    expect("\n ?✓✓✓");
    press('s');
    cr_expect(view.swap);
}

Test(rest, any_size_is_drawn) {
    struct status status = good(7);
    look(0, &status, "a.service");
    lose(1, "gone");
    for (int rows = 1; rows < 40; rows += 3) {
        for (int cols = 1; cols < 130; cols += 9) {
            screen_resize(&view.screen, rows, cols);
            for (int mode = 0; mode < REST_MODE_COUNT; mode++) {
                view.mode = (enum rest_mode)mode;
                free(draw());
            }
        }
    }
}
