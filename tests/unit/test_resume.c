#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "core/resume.h"

#define NEW "/nix/store/00000000000000000000000000000000-new"
#define OLD "/nix/store/11111111111111111111111111111111-old"

static struct view *view;
static struct resume *plan;
static uint64_t seq;

static void begin(void) {
    view = view_new();
    struct event *event = event_new(EVENT_RUN_START);
    event->seq = ++seq;
    event->ts_ms = 1;
    event->run = xstrdup("r1");
    event->wave_count = 2;
    event->host_count = 3;
    event->hosts = xcalloc(3, sizeof(*event->hosts));
    for (size_t i = 0; i < 3; i++) {
        event->hosts[i].name = xasprintf("h%zu", i + 1);
        event->hosts[i].wave = i == 0 ? 1 : 2;
    }
    view_apply(view, event);
    event_free(event);
}

static void end(void) {
    resume_free(plan);
    plan = NULL;
    view_free(view);
}
TestSuite(resume, .init = begin, .fini = end);

static void say(struct event *event) {
    event->seq = ++seq;
    event->ts_ms = (int64_t)seq;
    view_apply(view, event);
    event_free(event);
}

static void move_to(const char *host, enum host_state state, const char *reason) {
    struct event *event = event_new(EVENT_HOST_STATE);
    event->host = xstrdup(host);
    event->to = state;
    event->reason = reason != NULL ? xstrdup(reason) : NULL;
    event->message = xstrdup("so it is");
    event->current = xstrdup(OLD);
    event->generation = 7;
    say(event);
}

static void grant(const char *host, enum act act, const char *nonce) {
    struct event *event = event_new(EVENT_GRANT);
    event->host = xstrdup(host);
    event->act = act;
    event->path = xstrdup(NEW);
    event->nonce = xstrdup(nonce);
    say(event);
}

static void of_run(enum event_type type, uint32_t wave, const char *reason) {
    struct event *event = event_new(type);
    event->wave = wave;
    event->reason = reason != NULL ? xstrdup(reason) : NULL;
    event->result = xstrdup(reason != NULL ? reason : "done");
    say(event);
}

static void activate(const char *host, enum host_state state) {
    move_to(host, HOST_BUILDING, NULL);
    grant(host, ACT_COPY, "");
    move_to(host, HOST_STAGED, NULL);
    grant(host, ACT_ACTIVATE, "n1");
    move_to(host, HOST_ACTIVATING, NULL);
    move_to(host, state, NULL);
}

static const struct resume_host *resumed(size_t host) {
    if (plan == NULL) {
        plan = resume_new(view, false);
    }
    return &plan->hosts[host];
}

Test(resume, host_before_its_grant_begins_anew_with_what_was_built) {
    struct event *built = event_new(EVENT_BUILD);
    built->host = xstrdup("h1");
    built->state = xstrdup("built");
    built->path = xstrdup(NEW);
    say(built);
    move_to("h1", HOST_STAGED, NULL);
    cr_assert_eq(resumed(0)->how, RESUME_ANEW);
    cr_assert_str_eq(resumed(0)->path, NEW);
    cr_assert_not(resumed(0)->touched);
    cr_assert_null(resumed(1)->path);
}

static void grant_reboot(const char *host, const char *boot_id) {
    struct event *event = event_new(EVENT_GRANT);
    event->host = xstrdup(host);
    event->act = ACT_REBOOT;
    event->path = xstrdup(NEW);
    event->boot_id = xstrdup(boot_id);
    say(event);
}

Test(resume, host_whose_reboot_was_granted_is_asked_for_its_boot) {
    activate("h1", HOST_COMMITTING);
    grant("h1", ACT_COMMIT, "n1");
    grant_reboot("h1", "b1");
    move_to("h1", HOST_REBOOTING, NULL);
    move_to("h2", HOST_STAGED, NULL);
    grant_reboot("h2", "b2");
    move_to("h2", HOST_UNKNOWN, "not-back");
    for (size_t i = 0; i < 2; i++) {
        cr_assert_eq(resumed(i)->how, RESUME_ASK);
        cr_assert_str_eq(resumed(i)->ask.boot_id, i == 0 ? "b1" : "b2");
        cr_assert_str_eq(resumed(i)->ask.desired, NEW);
    }
    cr_assert_null(resumed(2)->ask.boot_id);
}

Test(resume, reboot_of_a_try_before_is_forgotten) {
    activate("h1", HOST_COMMITTING);
    grant_reboot("h1", "b1");
    activate("h1", HOST_PROBING);
    cr_assert_null(resumed(0)->ask.boot_id);
}

static void tell_probe(const char *host, const char *name, bool ok) {
    struct event *event = event_new(EVENT_PROBE);
    event->host = xstrdup(host);
    event->name = xstrdup(name);
    event->detail = xstrdup("so it is");
    event->ok = ok;
    say(event);
}

Test(resume, what_failed_before_the_change_is_known_to_who_resumes) {
    struct event *log = event_new(EVENT_LOG);
    log->host = xstrdup("h1");
    log->stream = xstrdup(STREAM_UNITS_BEFORE);
    log->line = xstrdup("a.service b.service");
    move_to("h1", HOST_CONNECTING, NULL);
    say(log);
    move_to("h1", HOST_BUILDING, NULL);
    tell_probe("h1", "web", false);
    tell_probe("h1", "pg", false);
    tell_probe("h1", "web", false);
    tell_probe("h1", "units", true);
    grant("h1", ACT_COPY, "");
    move_to("h1", HOST_STAGED, NULL);
    grant("h1", ACT_ACTIVATE, "n1");
    move_to("h1", HOST_PROBING, NULL);
    tell_probe("h1", "units", false);
    cr_assert_str_eq(resumed(0)->ask.probes_before, "web, pg");
    cr_assert_str_eq(resumed(0)->ask.units_before, "a.service b.service");
}

Test(resume, host_whose_change_was_granted_is_asked) {
    static const enum host_state states[] = {HOST_STAGED, HOST_ACTIVATING, HOST_CONFIRMING,
                                             HOST_PROBING, HOST_COMMITTING};
    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
        activate("h1", states[i]);
        struct resume *one = resume_new(view, false);
        const struct resume_host *host = &one->hosts[0];
        cr_assert_eq(host->how, RESUME_ASK, "%s", host_state_name(states[i]));
        cr_assert_str_eq(host->ask.nonce, "n1");
        cr_assert_str_eq(host->ask.desired, NEW);
        cr_assert_str_eq(host->ask.old, OLD);
        cr_assert_eq(host->ask.old_generation, 7);
        cr_assert_not(host->ask.back);
        resume_free(one);
    }
}

Test(resume, rollback_begun_on_a_verdict_stays_one) {
    activate("h1", HOST_PROBING);
    grant("h1", ACT_ROLLBACK, "n1");
    cr_assert(resumed(0)->ask.back);
    cr_assert_not(resumed(0)->ask.taken_back);
    resume_free(plan);
    plan = NULL;
    move_to("h1", HOST_ROLLING_BACK, "probe-failed");
    cr_assert(resumed(0)->ask.back);
    cr_assert_str_eq(resumed(0)->ask.verdict, "so it is");
    cr_assert_str_eq(resumed(0)->ask.reason, "probe-failed");
}

Test(resume, healthy_host_on_its_way_back_for_the_others_goes_on_back) {
    activate("h1", HOST_HEALTHY);
    grant("h1", ACT_ROLLBACK, "n1");
    cr_assert_eq(resumed(0)->how, RESUME_ASK);
    cr_assert(resumed(0)->ask.taken_back);
}

Test(resume, ends_stay_but_those_put_off_begin_anew) {
    activate("h1", HOST_HEALTHY);
    move_to("h2", HOST_SKIPPED, "stopped");
    move_to("h3", HOST_SKIPPED, "budget");
    cr_assert_eq(resumed(0)->how, RESUME_KEEP);
    cr_assert_eq(resumed(1)->how, RESUME_ANEW);
    cr_assert_eq(resumed(2)->how, RESUME_KEEP);
}

Test(resume, unknown_host_is_asked_and_counts_as_judged) {
    activate("h1", HOST_UNKNOWN);
    cr_assert_eq(resumed(0)->how, RESUME_ASK);
    cr_assert(resumed(0)->ask.back);
}

Test(resume, waves_are_done_only_when_all_their_hosts_are) {
    activate("h1", HOST_HEALTHY);
    of_run(EVENT_WAVE_END, 1, NULL);
    cr_assert_eq(resumed(0)->how, RESUME_KEEP);
    cr_assert_eq(plan->waves_done, 1);
    cr_assert_eq(plan->waves[0], 1);
    cr_assert_eq(plan->waves[2], 2);
    resume_free(plan);
    plan = NULL;
    move_to("h1", HOST_ROLLING_BACK, "bake");
    resumed(0);
    cr_assert_eq(plan->waves_done, 0);
}

Test(resume, hosts_of_a_wave_under_way_are_asked_again) {
    activate("h1", HOST_HEALTHY);
    plan = resume_new(view, true);
    cr_assert_eq(plan->hosts[0].how, RESUME_ASK);
    cr_assert(plan->hosts[0].ask.was_healthy);
    resume_free(plan);
    of_run(EVENT_WAVE_END, 1, NULL);
    plan = resume_new(view, true);
    cr_assert_eq(plan->hosts[0].how, RESUME_KEEP);
}

Test(resume, run_waits_until_it_is_promoted) {
    activate("h1", HOST_HEALTHY);
    of_run(EVENT_WAVE_END, 1, NULL);
    of_run(EVENT_PAUSE, 1, "promote");
    resumed(0);
    cr_assert(plan->waits);
    resume_free(plan);
    plan = NULL;
    of_run(EVENT_PROMOTE, 0, NULL);
    resumed(0);
    cr_assert_not(plan->waits);
}

Test(resume, finished_run_has_nothing_to_do) {
    cr_assert(resume_is_due(view), "it died");
    activate("h1", HOST_HEALTHY);
    activate("h2", HOST_ROLLED_BACK);
    move_to("h3", HOST_SKIPPED, "budget");
    of_run(EVENT_RUN_END, 0, NULL);
    cr_assert_not(resume_is_due(view));
    of_run(EVENT_RUN_END, 0, "interrupted");
    cr_assert(resume_is_due(view));
    of_run(EVENT_RUN_END, 0, "failed");
    cr_assert_not(resume_is_due(view));
    move_to("h2", HOST_UNKNOWN, NULL);
    of_run(EVENT_RUN_END, 0, "unknown-hosts");
    cr_assert(resume_is_due(view));
}

/* ---- what a guard's word means ---- */

static enum adopt judge(const char *line, bool alive, bool back) {
    struct guard_state said;
    guard_state_parse(line, &said);
    return resume_judge(&said, alive, back, true);
}

Test(resume, live_guard_is_followed_or_told_to_go_back) {
    cr_assert_eq(judge("activating n1", true, false), ADOPT_FOLLOW);
    cr_assert_eq(judge("active n1 rc=0 deadline=1.0", true, false), ADOPT_FOLLOW);
    cr_assert_eq(judge("active n1 rc=0 deadline=1.0", true, true), ADOPT_ABORT);
    cr_assert_eq(judge("active n1 rc=4 fault=activation deadline=1.0", true, true), ADOPT_FOLLOW);
    cr_assert_eq(judge("committing n1 rc=0", true, false), ADOPT_COMMIT);
    cr_assert_eq(judge("reverting n1 rc=0 why=deadline", true, false), ADOPT_WAIT);
    cr_assert_eq(judge("", true, false), ADOPT_WAIT);
}

Test(resume, last_word_tells_a_verdict_from_a_lapsed_window) {
    cr_assert_eq(judge("", false, false), ADOPT_ANEW);
    cr_assert_eq(judge("", false, true), ADOPT_BACK);
    cr_assert_eq(judge("committed n1 rc=0", false, false), ADOPT_VERIFY);
    static const char *const lapsed[] = {"deadline", "abort", "killed", "reboot", "power-cut"};
    for (size_t i = 0; i < sizeof(lapsed) / sizeof(lapsed[0]); i++) {
        char line[80];
        snprintf(line, sizeof(line), "reverted n1 rc=0 why=%s back_rc=0", lapsed[i]);
        cr_assert_eq(judge(line, false, false), ADOPT_ANEW, "%s", line);
        cr_assert_eq(judge(line, false, true), ADOPT_BACK, "%s", line);
    }
    cr_assert_eq(judge("reverted n1 rc=2 why=activation back_rc=0", false, false), ADOPT_BACK);
    cr_assert_eq(judge("reverted n1 rc=0 why=commit-failed back_rc=0", false, false), ADOPT_BACK);
    cr_assert_eq(judge("revert-failed n1 rc=0 why=deadline", false, false), ADOPT_BACK);
    cr_assert_eq(judge("inert n1 rc=0 why=leave", false, false), ADOPT_LEFT);
    cr_assert_eq(judge("inert n1 rc=4 fault=activation why=leave", false, false), ADOPT_LEFT);
    cr_assert_eq(judge("reverted n1 rc=4 fault=activation why=deadline", false, false), ADOPT_ANEW);
    cr_assert_eq(judge("inert n1 rc=100 why=reboot", false, false), ADOPT_INERT);
    cr_assert_eq(judge("inert n1 rc=-1 why=killed", false, false), ADOPT_ANEW);
}

Test(resume, host_that_is_committed_first_is_still_to_be_proven) {
    struct guard_state said;
    guard_state_parse("committed n1 rc=0", &said);
    cr_assert_eq(resume_judge(&said, false, false, false), ADOPT_FOLLOW);
}
