/* Frames of the dashboard from events, and what keys do to them: without a terminal. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "tui/dashboard_parts.h"

#define START_MS INT64_C(1795367040000)

static struct dash dash;
static struct view *view;
static int64_t now_ms;
static struct run_request asked;
static char *asked_host;
static size_t asked_count;

static void on_request(const struct run_request *request, void *arg) {
    (void)arg;
    free(asked_host);
    asked = *request;
    asked_host = request->host != NULL ? xstrdup(request->host) : NULL;
    asked_count++;
}

static void make_dash(void) {
    setenv("TZ", "UTC", 1);
    dash_init(&dash);
    view = view_new();
    now_ms = START_MS;
    dash.request = on_request;
    asked_count = 0;
    screen_resize(&dash.screen, 24, 80);
}

static void free_dash(void) {
    dash_release(&dash);
    view_free(view);
    free(asked_host);
    asked_host = NULL;
}
TestSuite(dashboard, .init = make_dash, .fini = free_dash);

static struct event *say(enum event_type type, const char *host) {
    struct event *event = event_new(type);
    event->ts_ms = now_ms;
    event->run = xstrdup("20261122-170400-x7k2q9");
    event->host = host != NULL ? xstrdup(host) : NULL;
    return event;
}

static void tell(struct event *event) {
    view_apply(view, event);
    dash.view = view;
    model_apply(&dash.model, event, view);
    event_free(event);
    dash.now_ms = now_ms;
}

static void begin(size_t count, uint32_t waves) {
    static const char *const names[] = {"db1", "db2", "db3", "api1", "web1", "web2"};
    struct event *event = say(EVENT_RUN_START, NULL);
    event->fleet = xstrdup("demo");
    event->rev = xstrdup("a1b2c3d4e5f6");
    event->wave_count = waves;
    event->healthy_ms = 10000;
    event->hosts = xcalloc(count + 1, sizeof(*event->hosts));
    event->host_count = count;
    for (size_t i = 0; i < count; i++) {
        event->hosts[i].name = i < 6 ? xstrdup(names[i]) : xasprintf("node%zu", i);
        event->hosts[i].wave = i == 0 || waves == 1 ? 1 : 2;
        event->hosts[i].address = xasprintf("root@10.0.0.%zu:2222", 11 + i % 200);
    }
    tell(event);
}

static void move_to(const char *host, enum host_state state, const char *message) {
    struct event *event = say(EVENT_HOST_STATE, host);
    const struct view_host *before = view_host(view, host);
    event->has_from = before->seen;
    event->from = before->state;
    event->to = state;
    event->message = message != NULL ? xstrdup(message) : NULL;
    tell(event);
}

static void say_probe(const char *host, const char *name, bool ok, const char *detail) {
    struct event *event = say(EVENT_PROBE, host);
    event->name = xstrdup(name);
    event->ok = ok;
    event->detail = xstrdup(detail);
    tell(event);
}

static void say_log(const char *host, const char *line) {
    struct event *event = say(EVENT_LOG, host);
    event->stream = xstrdup("activation");
    event->line = xstrdup(line);
    tell(event);
}

static void press(int key) {
    struct key_press one = {.key = key};
    dash.now_ms = now_ms;
    dash_press(&dash, &one);
}

static void type(const char *text) {
    for (; *text != '\0'; text++) {
        press(*text);
    }
}

static char *draw(void) {
    struct buf text = BUF_INIT;
    dash_draw(&dash);
    for (int row = 0; row < dash.screen.rows; row++) {
        screen_row_text(&dash.screen, row, &text);
        buf_add_char(&text, '\n');
    }
    return buf_take(&text);
}

static void expect(const char *want) {
    char *text = draw();
    cr_expect(strstr(text, want) != NULL, "'%s' isn't on the screen:\n%s", want, text);
    free(text);
}

static void expect_not(const char *unwanted) {
    char *text = draw();
    cr_expect(strstr(text, unwanted) == NULL, "'%s' is on the screen:\n%s", unwanted, text);
    free(text);
}

static int row_of(const char *want) {
    struct buf text = BUF_INIT;
    dash_draw(&dash);
    int found = -1;
    for (int row = dash.screen.rows - 1; row >= 0; row--) {
        buf_clear(&text);
        screen_row_text(&dash.screen, row, &text);
        found = strstr(buf_text(&text), want) != NULL ? row : found;
    }
    buf_free(&text);
    return found;
}

Test(dashboard, says_that_it_waits_before_the_first_event) {
    expect("waiting for the run to begin");
    press('q');
    cr_expect(dash.state.leave);
}

Test(dashboard, who_needs_a_person_stands_first_and_is_selected) {
    begin(6, 2);
    move_to("db2", HOST_ACTIVATING, NULL);
    move_to("web2", HOST_FAILED, "no space left on device");
    move_to("db1", HOST_HEALTHY, NULL);
    cr_expect_lt(row_of("✗ web2"), row_of("● db2"));
    cr_expect_lt(row_of("● db2"), row_of("· web1"));
    cr_expect_lt(row_of("· web1"), row_of("✓ db1"));
    expect("▸✗ web2");
}

Test(dashboard, a_selection_stays_on_its_host) {
    begin(6, 1);
    free(draw());
    press('j');
    free(draw());
    press('j');
    expect("▸· db3");
    move_to("web2", HOST_FAILED, "gone");
    move_to("db3", HOST_HEALTHY, NULL);
    expect("▸✓ db3");
    press(KEY_ESCAPE);
    expect("▸✗ web2");
}

Test(dashboard, a_round_of_probes_is_one_result_and_passes_when_all_do) {
    begin(1, 1);
    move_to("db1", HOST_PROBING, NULL);
    say_probe("db1", "web", true, "200");
    say_probe("db1", "units", false, "web.service failed");
    cr_expect_eq(dash.model.hosts[0].passing_since_ms, 0);
    now_ms += 1000;
    say_probe("db1", "web", true, "200");
    say_probe("db1", "units", true, "no unit has failed");
    now_ms += 4000;
    cr_expect_eq(dash.model.hosts[0].strip.count, 2);
    cr_expect_eq(dash.model.hosts[0].strip.passed & 3, 1);
    dash.now_ms = now_ms;
    expect("4 of 10 s");
    expect("✗━");
}

Test(dashboard, the_map_shows_every_host_of_many) {
    begin(300, 2);
    move_to("node299", HOST_FAILED, "gone");
    move_to("node298", HOST_HEALTHY, NULL);
    char *text = draw();
    size_t cells = 0;
    for (const char *at = text; (at = strstr(at, "·")) != NULL; at += strlen("·")) {
        cells++;
    }
    free(text);
    cr_expect_geq(cells, 298);
    expect("▸✗ node299");
    press('v');
    cr_expect_leq(row_of("node299"), 5);
}

Test(dashboard, thousands_fit_by_sharing_cells) {
    begin(5000, 2);
    move_to("node4999", HOST_FAILED, "gone");
    expect("▸✗ node4999");
    cr_expect_lt(row_of("✗"), 12);
    cr_expect_geq(row_of("▸✗ node4999"), 6, "the map has gone");
    expect("····················");
}

static void say_copy(const char *host, uint64_t done, uint64_t total) {
    struct event *event = say(EVENT_COPY, host);
    event->bytes_done = done;
    event->bytes_total = total;
    tell(event);
}

Test(dashboard, a_copy_shows_its_bar_its_bytes_and_its_rate) {
    begin(2, 1);
    move_to("db1", HOST_STAGING, NULL);
    say_copy("db1", 0, 120000000);
    now_ms += 2000;
    say_copy("db1", 60000000, 120000000);
    expect("copying");
    expect("━━━────");
    expect("60 MB of 120 MB  30 MB/s");
    now_ms += 1000;
    say_copy("db1", 120000000, 120000000);
    expect("120 MB of 120 MB");
    expect_not("MB/s");
}

Test(dashboard, narrow_screens_keep_host_and_phase) {
    begin(3, 1);
    move_to("db1", HOST_FAILED, "no space");
    screen_resize(&dash.screen, 10, 40);
    expect("db1");
    expect("failed");
    expect("no space");
    expect_not("SINCE");
    screen_resize(&dash.screen, 9, 39);
    expect("1 failed, 2 waiting");
    for (int rows = 1; rows < 30; rows++) {
        for (int cols = 1; cols < 90; cols += 7) {
            screen_resize(&dash.screen, rows, cols);
            for (int mode = 0; mode < DASH_MODE_COUNT; mode++) {
                dash.state.mode = (enum dash_mode)mode;
                free(draw());
            }
        }
    }
}

Test(dashboard, filters_as_it_is_typed) {
    begin(6, 2);
    move_to("db2", HOST_FAILED, "disk full");
    press('/');
    type("web");
    expect("web2");
    expect_not("api1");
    press(KEY_BACKSPACE);
    press(KEY_BACKSPACE);
    press(KEY_BACKSPACE);
    type("disk");
    press(KEY_ENTER);
    expect("filter: disk  (1 of 6 hosts");
    press(KEY_ESCAPE);
    expect("api1");
    press('/');
    type("nothing like it");
    expect("no host matches");
}

Test(dashboard, destructive_requests_are_typed_out) {
    begin(2, 1);
    free(draw());
    press('R');
    expect("roll back db1? type 'db1':");
    type("db");
    press(KEY_ENTER);
    cr_expect_eq(asked_count, 0);
    expect("not confirmed");
    press('R');
    type("db1");
    press(KEY_ENTER);
    cr_assert_eq(asked_count, 1);
    cr_expect_eq(asked.kind, RUN_REQUEST_TAKE_BACK);
    cr_expect_str_eq(asked_host, "db1");
    press('B');
    type("all");
    press(KEY_ENTER);
    cr_expect_eq(asked_count, 2);
    cr_expect_null(asked_host);
    press('A');
    type("yes");
    press(KEY_ENTER);
    press('D');
    press(KEY_ESCAPE);
    cr_expect_eq(asked_count, 2);
    press('D');
    type("drain");
    press(KEY_ENTER);
    cr_expect_eq(asked.kind, RUN_REQUEST_DRAIN);
}

Test(dashboard, an_act_is_on_the_host_that_was_shown_selected) {
    begin(6, 1);
    free(draw());
    /* It failed, but no frame has shown that yet. */
    move_to("web2", HOST_FAILED, "gone");
    press('x');
    cr_expect_str_eq(asked_host, "db1");
    /* Typed ahead of the frames, a filter counts for the keys behind it. */
    press('/');
    type("web1");
    press(KEY_ENTER);
    press('x');
    cr_expect_str_eq(asked_host, "web1");
}

Test(dashboard, a_retry_is_typed_out_where_the_host_was_changed) {
    begin(3, 1);
    move_to("db1", HOST_UNREACHABLE, "timed out");
    free(draw());
    press('r');
    cr_assert_eq(asked_count, 1);
    cr_expect_eq(asked.kind, RUN_REQUEST_RETRY);
    cr_expect_str_eq(asked_host, "db1");
    expect("asked to try db1 again");
    move_to("db1", HOST_HEALTHY, NULL);
    struct event *grant = say(EVENT_GRANT, "db2");
    grant->act = ACT_ACTIVATE;
    tell(grant);
    move_to("db2", HOST_ROLLED_BACK, "web: refused");
    press(KEY_ESCAPE);
    free(draw());
    press('r');
    expect("try db2 again? type 'db2':");
    type("db2");
    press(KEY_ENTER);
    cr_expect_eq(asked_count, 2);
    /* What the run refuses is said where one looks. */
    struct event *line = say(EVENT_LOG, NULL);
    line->stream = xstrdup("fleet");
    line->line = xstrdup("db2 can't be tried again: nothing is left to do");
    dash_hear(&dash, line);
    tell(line);
    free(dash.state.filter);
    dash.state.filter = NULL;
    cr_expect(strstr(dash.state.notice, "can't be tried again") != NULL);
}

Test(dashboard, pause_go_on_and_skip_ask_at_once) {
    begin(2, 1);
    free(draw());
    press('p');
    cr_expect_eq(asked.kind, RUN_REQUEST_PAUSE);
    press('c');
    cr_expect_eq(asked.kind, RUN_REQUEST_PROMOTE);
    press('x');
    cr_expect_eq(asked.kind, RUN_REQUEST_SKIP);
    cr_expect_str_eq(asked_host, "db1");
}

static void pause_for(const char *reason) {
    struct event *event = say(EVENT_PAUSE, NULL);
    event->reason = xstrdup(reason);
    event->wave = 1;
    tell(event);
}

Test(dashboard, the_foot_offers_what_is_of_use_now) {
    begin(6, 2);
    expect("p pause  R roll back");
    expect_not("go on");
    pause_for("promote");
    expect(" c go on  Enter detail");
    expect_not("p pause");
    expect("the next wave waits for promotion");
    screen_resize(&dash.screen, 10, 40);
    expect(" c go on  Enter detail");
    screen_resize(&dash.screen, 24, 80);
    tell(say(EVENT_PROMOTE, NULL));
    expect_not("go on");
    pause_for("bake"); /* ends by itself */
    expect("p pause");
    tell(say(EVENT_PROMOTE, NULL));
    /* Who failed is selected. */
    move_to("api1", HOST_ROLLED_BACK, "web: refused");
    expect("r try again");
    expect_not("R roll back");
    struct event *end = say(EVENT_RUN_END, NULL);
    end->exit = 3;
    tell(end);
    expect("Enter detail");
    expect_not("try again");
    expect_not("p pause");
}

Test(dashboard, a_run_that_waits_for_a_person_has_no_estimate) {
    begin(2, 1);
    move_to("db1", HOST_ACTIVATING, NULL);
    now_ms += 30000;
    move_to("db1", HOST_HEALTHY, NULL);
    expect("00:30 ~");
    pause_for("promote");
    expect_not("00:30 ~");
    tell(say(EVENT_PROMOTE, NULL));
    expect("00:30 ~");
}

Test(dashboard, a_few_cells_hold_the_whole_sentence) {
    begin(3, 1);
    move_to("db1", HOST_ACTIVATING, NULL);
    pause_for("promote");
    screen_resize(&dash.screen, 6, 20);
    expect("demo x7k2q9");
    expect("1 activating, 2\nwaiting\n");
    cr_expect_lt(row_of("wave 1 is done"), row_of("promote"), "the sentence is cut");
}

Test(dashboard, a_reader_of_another_run_asks_nothing) {
    begin(2, 1);
    dash.request = NULL;
    static const char keys[] = "pcxrRBDA";
    for (size_t i = 0; keys[i] != '\0'; i++) {
        press(keys[i]);
        expect("read-only");
        cr_expect_eq(dash.state.prompt, PROMPT_NONE);
    }
    press('?');
    expect("× roll the selected host back");
    press('G');
    expect("×  not here: read-only");
}

Test(dashboard, every_key_of_the_table_is_in_the_help) {
    begin(2, 1);
    screen_resize(&dash.screen, 60, 100);
    press('?');
    static const char *const labels[] = {"Enter", "n ", "N ", "l ",   "p ", "c ", "r ",   "R ",
                                         "B ",    "x ", "D ", "A ",   "/ ", "f ", "w ",   "a ",
                                         "b ",    "v ", "s ", "PgUp", "m ", "o ", "Esc ", "q "};
    for (size_t i = 0; i < ARRAY_LEN(labels); i++) {
        char *want = xasprintf("\n  %s", labels[i]);
        expect(want);
        free(want);
    }
    press('?');
    expect("PHASE");
}

Test(dashboard, next_failure_goes_round) {
    begin(6, 1);
    move_to("db3", HOST_FAILED, "one");
    move_to("web1", HOST_UNREACHABLE, "two");
    expect("▸✗ db3");
    press('n');
    expect("▸? web1");
    press('n');
    expect("▸✗ db3");
}

Test(dashboard, the_log_searches_wraps_and_tells_one_host_from_all) {
    begin(2, 1);
    for (int i = 0; i < 100; i++) {
        char *line = xasprintf("line %d%s", i, i == 10 ? " needle" : "");
        say_log(i % 2 == 0 ? "db1" : "db2", line);
        free(line);
    }
    press('l');
    expect("log of all hosts · 100 lines · follows");
    expect("line 99");
    press('a');
    expect("log of db1 · 50 lines");
    press('/');
    type("needle");
    press(KEY_ENTER);
    expect("line 10 needle");
    cr_expect_eq(dash.state.log.top, 5);
    expect_not("line 98");
    press('f');
    expect("line 98");
    say_log("db1", "a very long line that does not fit into eighty columns because it goes on and "
                   "on and on until its END");
    press('w');
    expect("until its END");
    press('w');
    expect_not("until its END");
}

Test(dashboard, the_detail_tells_all_of_a_host) {
    begin(2, 2);
    move_to("db1", HOST_CONNECTING, NULL);
    now_ms += 1500;
    struct event *grant = say(EVENT_GRANT, "db1");
    grant->act = ACT_ACTIVATE;
    tell(grant);
    move_to("db1", HOST_ACTIVATING, NULL);
    say_log("db1", "restarting the following units: web.service");
    move_to("db1", HOST_PROBING, NULL);
    say_probe("db1", "web", false, "connection refused");
    screen_resize(&dash.screen, 50, 100);
    free(draw());
    press(KEY_ENTER);
    expect("ssh -p 2222 root@10.0.0.11");
    expect("armed: goes back to what it ran before by itself unless it is renewed");
    expect("restarted   web.service");
    expect("1.5 s");
    expect("✗  web");
    press(KEY_ENTER);
    expect("PHASE");
}

static void say_guard(const char *host, const char *phase, int64_t deadline_ms) {
    struct event *event = say(EVENT_GUARD, host);
    event->phase = xstrdup(phase);
    event->deadline_ms = deadline_ms;
    tell(event);
}

static void move_with(const char *host, enum host_state state, const char *current,
                      const char *desired, int64_t generation) {
    struct event *event = say(EVENT_HOST_STATE, host);
    event->to = state;
    event->current = xstrdup(current);
    event->desired = xstrdup(desired);
    event->generation = generation;
    tell(event);
}

Test(dashboard, the_detail_counts_the_guard_down) {
    begin(2, 1);
    move_with("db1", HOST_STAGED, "/nix/store/old", "/nix/store/new", 90);
    struct event *grant = say(EVENT_GRANT, "db1");
    grant->act = ACT_ACTIVATE;
    tell(grant);
    move_to("db1", HOST_ACTIVATING, NULL);
    say_guard("db1", "activating", 0);
    free(draw());
    press(KEY_ENTER);
    expect("activates; goes back to generation 90 if that fails");
    move_to("db1", HOST_PROBING, NULL);
    say_guard("db1", "active", 60000);
    now_ms += 13000;
    dash.live = true;
    dash.now_ms = now_ms;
    expect("armed: goes back to generation 90 in 47 s unless it is renewed");
    say_guard("db1", "active", 60000);
    expect("in 60 s unless");
    say_guard("db1", "committing", 0);
    expect("has been told to keep the new system");
    say_guard("db1", "reverting", 0);
    expect("takes the host back to generation 90");
    move_to("db1", HOST_ROLLED_BACK, NULL);
    expect_not("takes the host back");
}

Test(dashboard, the_detail_tells_what_changes_in_packages) {
    begin(2, 1);
    move_with("db1", HOST_STAGED, "/nix/store/old", "/nix/store/new", 90);
    move_with("db2", HOST_STAGED, "/nix/store/other", "/nix/store/new", 90);
    struct event *event = say(EVENT_CHANGE, NULL);
    event->current = xstrdup("/nix/store/old");
    event->desired = xstrdup("/nix/store/new");
    event->packages = xstrdup("{\"added\":[\"jq-1.7\"],\"removed\":[],\"changed\":[{\"name\":"
                              "\"openssl\",\"from\":\"3.0.13\",\"to\":\"3.0\\u001b[2J14\"}],"
                              "\"more\":70}");
    event->closure_bytes = xstrdup("{\"from\":1200000000,\"to\":1300000000}");
    tell(event);
    screen_resize(&dash.screen, 40, 100);
    free(draw());
    press(KEY_ENTER);
    expect("PACKAGES  1 changed, 1 added, 0 removed · closure 1.2 GB → 1.3 GB");
    expect("openssl 3.0.13 → 3.014");
    expect("+ jq-1.7");
    expect("more: fleet plan");
    press(KEY_ESCAPE);
    press('j');
    press(KEY_ENTER);
    expect("db2");
    expect_not("PACKAGES");
}

/* ---- builds ---- */

#define STORE "/nix/store/l7vxscggl3askjxgqprsrln5bcs8hr60-"

static void say_step(const char *host, const char *state, const char *drv, const char *parent) {
    struct event *event = say(EVENT_DERIVATION, host);
    event->state = xstrdup(state);
    event->drv = xasprintf(STORE "%s.drv", drv);
    event->parent = parent != NULL ? xasprintf(STORE "%s.drv", parent) : NULL;
    tell(event);
}

static void say_build(const char *host, const char *state, const char *drv) {
    struct event *event = say(EVENT_BUILD, host);
    event->state = xstrdup(state);
    event->drv = xasprintf(STORE "%s.drv", drv);
    tell(event);
}

Test(dashboard, builds_are_a_tree_opened_where_something_happens) {
    begin(2, 1);
    say_build("db1", "building", "system-db1");
    say_step("db1", "waiting", "system-db1", NULL);
    say_step("db1", "waiting", "units", "system-db1");
    say_step("db1", "waiting", "unit-web", "units");
    say_step("db1", "waiting", "linux-6.6", "system-db1");
    say_step("db1", "building", "linux-6.6", NULL);
    struct event *line = say(EVENT_LOG, "db1");
    line->stream = xstrdup("build");
    line->line = xstrdup("CC kernel/sched.o");
    line->drv = xstrdup(STORE "linux-6.6.drv");
    tell(line);
    struct event *phase = say(EVENT_DERIVATION, "db1");
    phase->state = xstrdup("building");
    phase->drv = xstrdup(STORE "linux-6.6.drv");
    phase->phase = xstrdup("buildPhase");
    phase->machine = xstrdup("big");
    tell(phase);
    now_ms += 131000;
    dash.live = true;
    dash.now_ms = now_ms;
    press('b');
    expect("derivations: 1 building, 3 waiting");
    expect("├ ● linux-6.6");
    expect("buildPhase     big");
    expect("02:11");
    expect("│    CC kernel/sched.o");
    expect("└ ◌ units  1 below waits");
    expect_not("unit-web");
    /* What another host also waits for isn't waited for anew. */
    say_step("db2", "waiting", "linux-6.6", "system-db2");
    expect("1 building, 3 waiting");
    say_step("db1", "failed", "linux-6.6", NULL);
    expect("✗ linux-6.6");
    say_step("db1", "built", "linux-6.6", NULL);
    expect_not("├");
    expect_not("└");
    expect("system-db1  2 below wait, 1 below done");
    say_build("db1", "built", "system-db1");
    expect("derivations: 4 done");
}

static void say_step_at(const char *host, const char *state, const char *drv, const char *parent,
                        const char *machine) {
    struct event *event = say(EVENT_DERIVATION, host);
    event->state = xstrdup(state);
    event->drv = xasprintf(STORE "%s.drv", drv);
    event->parent = parent != NULL ? xasprintf(STORE "%s.drv", parent) : NULL;
    event->machine = xstrdup(machine);
    tell(event);
}

/* What both need is built at each place, and each place's line says how it goes there. */
Test(dashboard, two_build_hosts_build_the_same_side_by_side) {
    static const char *const places[][2] = {{"db1", "east"}, {"db2", "west"}};
    begin(2, 1);
    for (size_t i = 0; i < 2; i++) {
        const char *host = places[i][0];
        char *top = xasprintf("system-%s", host);
        say_build(host, "building", top);
        say_step_at(host, "waiting", top, NULL, places[i][1]);
        say_step_at(host, "waiting", "linux-6.6", top, places[i][1]);
        say_step_at(host, "building", "linux-6.6", NULL, places[i][1]);
        free(top);
    }
    press('b');
    expect("derivations: 2 building, 2 waiting");
    expect("building       east");
    expect("building       west");
    say_step_at("db1", "built", "linux-6.6", NULL, "east");
    expect("derivations: 1 building, 2 waiting, 1 done");
    expect_not("building       east");
    expect("building       west");
    struct event *line = say(EVENT_LOG, "db2");
    line->stream = xstrdup("build");
    line->line = xstrdup("CC kernel/sched.o");
    line->drv = xstrdup(STORE "linux-6.6.drv");
    tell(line);
    expect("CC kernel/sched.o");
    say_build("db1", "built", "system-db1");
    expect("derivations: 1 building, 1 waiting, 2 done");
    /* East is gone, and west takes its build on: no step is left behind. */
    say_step_at("db1", "building", "linux-6.6", NULL, "west");
    say_step_at("db2", "built", "linux-6.6", NULL, "west");
    say_build("db2", "built", "system-db2");
    expect_not("waiting");
}

Test(dashboard, a_tree_of_any_depth_and_size_is_drawn) {
    begin(1, 1);
    say_build("db1", "building", "p0");
    char parent[16] = "";
    for (int i = 0; i < 2500; i++) {
        char name[16];
        snprintf(name, sizeof(name), "p%d", i);
        say_step("db1", i == 60 ? "building" : "waiting", name, i > 0 ? parent : NULL);
        if (i < 100) {
            memcpy(parent, name, sizeof(parent));
        }
    }
    cr_expect_eq(dash.model.step_count, MODEL_STEPS);
    press('b');
    for (int cols = 40; cols < 200; cols += 30) {
        screen_resize(&dash.screen, 40, cols);
        free(draw());
    }
}

Test(dashboard, hostile_text_is_shown_harmless) {
    begin(2, 1);
    move_to("db1", HOST_FAILED, "a\033[2J\033]0;owned\007b\r\xE2\x80\xAEz");
    say_log("db1", "x\033[31mred\xFF");
    expect("failed: abz");
    press('l');
    expect("xred\xEF\xBF\xBD");
    char *text = draw();
    for (const char *at = text; *at != '\0'; at++) {
        cr_expect((unsigned char)*at >= 0x20 || *at == '\n');
    }
    free(text);
}

Test(dashboard, memory_stays_bounded_for_a_day_of_events) {
    begin(10, 1);
    for (int i = 0; i < 200000; i++) {
        now_ms += 400;
        char host[8];
        snprintf(host, sizeof(host), "node%d", 6 + i % 4);
        if (i % 3 == 0) {
            say_probe(host, "web", i % 7 != 0, "200 in 3 ms");
        } else if (i % 3 == 1) {
            say_log(host, "stopping the following units: a.service");
        } else {
            move_to(host, i % 2 == 0 ? HOST_PROBING : HOST_CONFIRMING, "again");
        }
    }
    cr_expect_eq(dash.model.log.count, MODEL_LOG);
    cr_expect_eq(dash.model.story.count, MODEL_STORY);
    cr_expect_lt(strlen(dash.model.hosts[6].units), 8000);
    free(draw());
}

Test(dashboard, a_finished_run_looks_the_same_whenever_it_is_looked_at) {
    begin(2, 1);
    move_to("db1", HOST_HEALTHY, NULL);
    move_to("db2", HOST_ROLLED_BACK, "web: refused");
    now_ms += 2000;
    struct event *event = say(EVENT_RUN_END, NULL);
    event->result = xstrdup("failed");
    event->exit = 3;
    tell(event);
    dash.waiting = xstrdup("something of the moment");
    char *live = draw();
    free(dash.waiting);
    dash.waiting = NULL;
    dash.now_ms += 3600000;
    dash.live = false;
    char *later = draw();
    cr_expect_str_eq(live, later);
    cr_expect(strstr(live, "over: failed (exit 3); once fixed: fleet update db2") != NULL);
    free(live);
    free(later);
}
