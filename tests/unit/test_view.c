#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "core/view.h"

static struct view *view;
static uint64_t seq;

static void make_view(void) {
    view = view_new();
}
static void free_view(void) {
    view_free(view);
}
TestSuite(view, .init = make_view, .fini = free_view);

static struct event *event_of(enum event_type type, const char *host) {
    struct event *event = event_new(type);
    event->seq = ++seq;
    event->ts_ms = (int64_t)seq * 1000;
    event->host = host != NULL ? xstrdup(host) : NULL;
    return event;
}

static void apply(struct event *event) {
    view_apply(view, event);
    event_free(event);
}

static void begin(void) {
    struct event *event = event_of(EVENT_RUN_START, NULL);
    event->run = xstrdup("r1");
    event->fleet = xstrdup("demo");
    event->wave_count = 2;
    event->host_count = 2;
    event->hosts = xcalloc(2, sizeof(*event->hosts));
    event->hosts[0] = (struct event_host){.name = xstrdup("a"), .wave = 1};
    event->hosts[1] = (struct event_host){.name = xstrdup("b"), .wave = 2};
    apply(event);
}

static void move_to(const char *host, enum host_state state, const char *message) {
    struct event *event = event_of(EVENT_HOST_STATE, host);
    event->to = state;
    event->message = message != NULL ? xstrdup(message) : NULL;
    apply(event);
}

static void grant(const char *host, enum act act, const char *nonce) {
    struct event *event = event_of(EVENT_GRANT, host);
    event->act = act;
    event->nonce = nonce != NULL ? xstrdup(nonce) : NULL;
    apply(event);
}

Test(view, hosts_are_known_from_the_start) {
    begin();
    cr_assert_eq(view->host_count, 2);
    cr_assert_eq(view_count(view, HOST_PENDING), 2);
    cr_assert_eq(view_host(view, "b")->wave, 2);
    cr_assert_null(view_host(view, "c"));
    cr_assert_eq(view->started_ms, (int64_t)view->last_seq * 1000);
}

Test(view, moves_are_counted_and_stamped) {
    begin();
    move_to("a", HOST_CONNECTING, NULL);
    move_to("a", HOST_FAILED, "no");
    move_to("a", HOST_CONNECTING, NULL);
    const struct view_host *host = view_host(view, "a");
    cr_assert_eq(view_count(view, HOST_CONNECTING), 1);
    cr_assert_eq(view_count(view, HOST_FAILED), 0);
    cr_assert_eq(host->state_at_ms[HOST_CONNECTING], (int64_t)(seq - 2) * 1000, "first entered");
    cr_assert_eq(host->since_ms, (int64_t)seq * 1000);
    cr_assert_null(host->message, "the last move said nothing");
}

Test(view, host_that_is_tried_again_has_begun_nothing) {
    begin();
    move_to("a", HOST_CONNECTING, NULL);
    grant("a", ACT_ACTIVATE, "n1");
    move_to("a", HOST_ROLLING_BACK, "web: refused");
    move_to("a", HOST_ROLLED_BACK, NULL);
    move_to("a", HOST_PENDING, "is tried again");
    const struct view_host *host = view_host(view, "a");
    cr_assert_eq(view_count(view, HOST_ROLLED_BACK), 0);
    cr_assert_eq(host->state_at_ms[HOST_CONNECTING], 0);
    cr_assert_not(host->granted[ACT_ACTIVATE] || host->verdict_rollback);
    cr_assert_null(host->nonce);
    cr_assert_null(host->verdict);
}

Test(view, unknown_host_is_added) {
    begin();
    for (int i = 0; i < 100; i++) {
        char *name = xasprintf("n%d", i);
        move_to(name, HOST_STAGED, NULL);
        free(name);
    }
    cr_assert_eq(view->host_count, 102);
    cr_assert_eq(view_count(view, HOST_STAGED), 100);
    cr_assert_str_eq(view_host(view, "n57")->name, "n57");
}

Test(view, host_is_found_by_the_name_that_events_have) {
    static const char hostile[] = "n\033[2Jx";
    begin();
    move_to(hostile, HOST_STAGED, NULL);
    const struct view_host *host = view_host(view, hostile);
    cr_assert_not_null(host);
    cr_assert_null(strchr(host->name, '\033'));
    cr_assert_eq(view_host(view, host->name), host);
    cr_assert_null(view_host(view, "nobody"));
}

Test(view, grants_and_the_verdict_are_what_resume_needs) {
    begin();
    grant("a", ACT_ACTIVATE, "n1");
    cr_assert(view_host(view, "a")->granted[ACT_ACTIVATE]);
    cr_assert_str_eq(view_host(view, "a")->nonce, "n1");
    grant("a", ACT_ROLLBACK, NULL);
    cr_assert(view_host(view, "a")->verdict_rollback, "a rollback begun on a verdict stays one");
    move_to("a", HOST_ROLLING_BACK, "web: refused");
    move_to("a", HOST_ROLLED_BACK, NULL);
    cr_assert_str_eq(view_host(view, "a")->verdict, "web: refused");
    grant("a", ACT_ACTIVATE, "n2");
    cr_assert_not(view_host(view, "a")->verdict_rollback);
    cr_assert_not(view_host(view, "a")->granted[ACT_ROLLBACK]);
    cr_assert_str_eq(view_host(view, "a")->nonce, "n2");
}

static void probe(const char *host, bool ok, const char *detail) {
    struct event *event = event_of(EVENT_PROBE, host);
    event->name = xstrdup("web");
    event->ok = ok;
    event->detail = xstrdup(detail);
    apply(event);
}

Test(view, failed_probe_is_kept) {
    begin();
    probe("a", true, "200");
    cr_assert_str_eq(view_host(view, "a")->last_probe, "web: 200");
    probe("a", false, "refused");
    probe("a", true, "200");
    cr_assert_str_eq(view_host(view, "a")->last_probe, "web: refused");
}

Test(view, pause_lasts_until_promotion) {
    begin();
    struct event *event = event_of(EVENT_PAUSE, NULL);
    event->reason = xstrdup("promote");
    apply(event);
    cr_assert_str_eq(view->paused, "promote");
    apply(event_of(EVENT_PROMOTE, NULL));
    cr_assert_null(view->paused);
}

Test(view, run_that_is_taken_up_again_has_not_ended) {
    begin();
    struct event *event = event_of(EVENT_RUN_END, NULL);
    event->result = xstrdup("interrupted");
    event->exit = 130;
    apply(event);
    cr_assert(view->ended);
    cr_assert_eq(view->exit, 130);
    move_to("a", HOST_CONNECTING, NULL);
    cr_assert_not(view->ended);
    cr_assert_eq(view->ended_ms, 0);
}

Test(view, generations_before_and_after) {
    begin();
    struct event *event = event_of(EVENT_HOST_STATE, "a");
    event->generation = 147;
    event->current = xstrdup("/nix/store/old");
    apply(event);
    event = event_of(EVENT_HOST_STATE, "a");
    event->to = HOST_HEALTHY;
    event->generation = 148;
    apply(event);
    cr_assert_eq(view_host(view, "a")->first_generation, 147);
    cr_assert_eq(view_host(view, "a")->generation, 148);
    cr_assert_str_eq(view_host(view, "a")->current, "/nix/store/old");
}

Test(view, of_a_journal_is_that_of_the_live_run) {
    struct view *again = view_new();
    static const char *const messages[] = {"plain", "\033[31mred\033[0m\r\n\tmore", "\xff\xfe", ""};
    for (size_t i = 0; i < ARRAY_LEN(messages); i++) {
        struct event *event = event_of(EVENT_HOST_STATE, messages[i]);
        event->run = xstrdup("r1");
        event->to = HOST_FAILED;
        event->message = xstrdup(messages[i]);
        struct buf line = BUF_INIT;
        event_format(event, &line);
        struct event *read = NULL;
        cr_assert_eq(event_parse(line.data, line.len, &read, NULL), 0);
        buf_free(&line);
        apply(event);
        view_apply(again, read);
        event_free(read);
        cr_assert_eq(again->host_count, view->host_count);
        cr_assert_str_eq(again->hosts[i].name, view->hosts[i].name);
        const char *live = view->hosts[i].message;
        cr_assert_eq(live == NULL, messages[i][0] == '\0');
        cr_assert(live == NULL || strcmp(again->hosts[i].message, live) == 0);
        cr_assert(live == NULL || strchr(live, '\033') == NULL);
    }
    view_free(again);
}
