/* The policy, rule by rule. What a rollout decides is written as text: "wave 1; copy h0; ...". */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "rollout_fixture.h"

static struct fixture *f;
static struct rollout *r;
static uint64_t now_ms;

static void setup(size_t hosts) {
    f = fixture_new(hosts);
    now_ms = 1000;
}

static void teardown(void) {
    rollout_free(r);
    r = NULL;
    if (f != NULL) {
        fixture_free(f);
        f = NULL;
    }
}

TestSuite(rollout, .fini = teardown);

static void describe(const struct rollout_decision *d, struct buf *out) {
    static const char *const kinds[] = {
        [ROLLOUT_GRANT] = "",          [ROLLOUT_LEAVE] = "leave",
        [ROLLOUT_TAKE_BACK] = "back",  [ROLLOUT_SKIP] = "skip",
        [ROLLOUT_WAVE_START] = "wave", [ROLLOUT_BAKE] = "bake",
        [ROLLOUT_REPROBE] = "reprobe", [ROLLOUT_WAVE_END] = "end-wave",
        [ROLLOUT_PAUSE] = "pause",     [ROLLOUT_STOP] = "stop",
        [ROLLOUT_END] = "end",         [ROLLOUT_RETRY] = "retry",
    };
    if (out->len > 0) {
        buf_add_text(out, "; ");
    }
    buf_add_text(out, d->kind == ROLLOUT_GRANT ? act_name(d->act) : kinds[d->kind]);
    if (d->kind == ROLLOUT_WAVE_START || d->kind == ROLLOUT_WAVE_END) {
        buf_printf(out, " %zu", d->wave);
    } else if (d->kind <= ROLLOUT_SKIP || d->kind == ROLLOUT_REPROBE || d->kind == ROLLOUT_RETRY) {
        buf_printf(out, " h%zu", d->host);
    }
    if (d->reason != NULL && d->kind != ROLLOUT_TAKE_BACK) {
        buf_printf(out, " %s", d->reason);
    }
}

#define expect(want)                                                                               \
    do {                                                                                           \
        struct buf said = BUF_INIT;                                                                \
        struct rollout_decision decision;                                                          \
        while (rollout_next(r, &decision)) {                                                       \
            describe(&decision, &said);                                                            \
        }                                                                                          \
        cr_assert_str_eq(buf_text(&said), want);                                                   \
        buf_free(&said);                                                                           \
    } while (0)

static void start(void) {
    r = fixture_rollout(f);
    rollout_start(r, now_ms);
}

static void moved(size_t host, enum host_state state) {
    rollout_moved(r, host, state, NULL, ++now_ms);
}

static void failed(size_t host, enum host_state state, const char *reason) {
    rollout_moved(r, host, state, reason, ++now_ms);
}

static void wants(size_t host, enum act act) {
    rollout_wants(r, host, act, ++now_ms);
}

static void control(enum rollout_control what, size_t host) {
    rollout_control(r, what, host, ++now_ms);
}

static void answer(size_t host) {
    moved(host, HOST_CONNECTING);
    moved(host, HOST_BUILDING);
}

static void stage(size_t host) {
    moved(host, HOST_STAGED);
    wants(host, ACT_ACTIVATE);
}

static void stage_all(void) {
    for (size_t i = 0; i < f->count; i++) {
        answer(i);
    }
    for (size_t i = 0; i < f->count; i++) {
        stage(i);
    }
}

/* From the grant of its activation to healthy. */
static void probe(size_t host) {
    moved(host, HOST_ACTIVATING);
    moved(host, HOST_CONFIRMING);
    moved(host, HOST_PROBING);
}

static void commit(size_t host) {
    wants(host, ACT_COMMIT);
    struct rollout_decision decision;
    cr_assert(rollout_next(r, &decision) && decision.act == ACT_COMMIT && decision.host == host);
    moved(host, HOST_COMMITTING);
    moved(host, HOST_HEALTHY);
}

static void go_well(size_t host) {
    probe(host);
    commit(host);
}

static void go_back(size_t host) {
    probe(host);
    wants(host, ACT_ROLLBACK);
    struct rollout_decision decision;
    cr_assert(rollout_next(r, &decision) && decision.act == ACT_ROLLBACK);
    moved(host, HOST_ROLLING_BACK);
    failed(host, HOST_ROLLED_BACK, "probe-failed");
}

static void skip_all(void) {
    for (size_t i = 0; i < f->count; i++) {
        if (rollout_count(r, HOST_SKIPPED) < f->count) {
            failed(i, HOST_SKIPPED, "budget");
        }
    }
}

#define assert_exit(code, word)                                                                    \
    do {                                                                                           \
        cr_assert_eq(rollout_exit_code(r, 0), code);                                               \
        cr_assert_str_eq(rollout_result(r, 0), word);                                              \
    } while (0)

static const char *waves_text(void) {
    static char text[256];
    size_t len = 0;
    for (size_t i = 0; i < f->count; i++) {
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%zu", rollout_wave_of(r, i));
    }
    return text;
}

/* ---- waves ---- */

Test(rollout, waves_are_cumulative_and_rounded_up) {
    setup(12);
    fixture_add_wave(f, 1, false);
    fixture_add_wave(f, 10, true);
    fixture_add_wave(f, 100, true);
    start();
    cr_assert_str_eq(waves_text(), "123333333333");
    cr_assert_eq(rollout_wave_count(r), 3);
    cr_assert_eq(rollout_wave_size(r, 3), 10);
}

Test(rollout, wave_that_adds_no_host_is_left_out) {
    setup(6);
    fixture_add_wave(f, 1, false);
    fixture_add_wave(f, 10, true);
    fixture_add_wave(f, 100, true);
    start();
    cr_assert_str_eq(waves_text(), "122222");
}

Test(rollout, waves_end_in_everything) {
    setup(6);
    fixture_add_wave(f, 2, false);
    start();
    cr_assert_str_eq(waves_text(), "112222");
}

Test(rollout, waves_by_name_then_by_size) {
    setup(8);
    fixture_tag(f, 2, "canary");
    fixture_tag(f, 4, "web");
    fixture_tag(f, 7, "web");
    fixture_add_tag_wave(f, "canary");
    fixture_add_tag_wave(f, "web");
    fixture_add_tag_wave(f, "nobody");
    fixture_add_wave(f, 50, true);
    start();
    cr_assert_str_eq(waves_text(), "34142442");
}

Test(rollout, no_waves_means_one) {
    setup(3);
    start();
    cr_assert_str_eq(waves_text(), "111");
}

Test(rollout, no_hosts_end_at_once) {
    setup(0);
    start();
    expect("end");
    assert_exit(0, "done");
}

Test(rollout, shuffle_is_by_seed) {
    setup(30);
    f->policy.order = INV_ORDER_SHUFFLE;
    fixture_add_wave(f, 10, false);
    f->seed = 1;
    start();
    char *first = xstrdup(waves_text());
    rollout_free(r);
    start();
    cr_assert_str_eq(waves_text(), first, "same seed, same waves");
    rollout_free(r);
    f->seed = 2;
    start();
    cr_assert_str_neq(waves_text(), first);
    cr_assert_eq(rollout_wave_size(r, 1), 10);
    free(first);
}

Test(rollout, known_unhealthy_hosts_are_in_the_first_wave) {
    setup(4);
    fixture_add_wave(f, 1, false);
    r = fixture_rollout(f);
    rollout_unhealthy_before(r, 3);
    rollout_start(r, now_ms);
    cr_assert_str_eq(waves_text(), "2221");
}

/* ---- slots ---- */

Test(rollout, default_slots_are_a_third_and_at_most_ten) {
    setup(7);
    start();
    stage_all();
    expect("wave 1; activate h0; activate h1");
    teardown();
    setup(60);
    start();
    stage_all();
    expect("wave 1; activate h0; activate h1; activate h2; activate h3; activate h4; activate h5; "
           "activate h6; activate h7; activate h8; activate h9");
}

Test(rollout, free_slot_is_filled_at_once) {
    setup(4);
    fixture_limit(f, NULL, 2);
    start();
    stage_all();
    expect("wave 1; activate h0; activate h1");
    go_well(1);
    expect("activate h2");
    expect("");
    go_well(0);
    expect("activate h3");
}

Test(rollout, given_max_parallel_is_taken_as_it_stands) {
    setup(3);
    fixture_limit(f, NULL, 50);
    start();
    stage_all();
    expect("wave 1; activate h0; activate h1; activate h2");
}

Test(rollout, tag_limit_bounds_its_hosts_only) {
    setup(5);
    fixture_limit(f, NULL, 5);
    fixture_limit(f, "db", 1);
    fixture_tag(f, 0, "db");
    fixture_tag(f, 1, "db");
    fixture_tag(f, 2, "db");
    start();
    stage_all();
    expect("wave 1; activate h0; activate h3; activate h4");
    go_well(0);
    expect("activate h1");
}

Test(rollout, exclusive_group_is_never_two_in_flight) {
    setup(3);
    fixture_limit(f, NULL, 3);
    f->hosts[0].policy.exclusive = "pair";
    f->hosts[2].policy.exclusive = "pair";
    start();
    stage_all();
    expect("wave 1; activate h0; activate h1");
    go_back(0);
    f->policy.max_failed.value = 9;
    expect("stop max-failed; skip h2 budget");
}

Test(rollout, unchanged_hosts_hold_no_slot) {
    setup(4);
    fixture_limit(f, NULL, 1);
    start();
    for (size_t i = 0; i < 4; i++) {
        answer(i);
    }
    moved(0, HOST_UNCHANGED);
    moved(1, HOST_UNCHANGED);
    stage(2);
    expect("wave 1; activate h2");
    moved(3, HOST_UNCHANGED);
    go_well(2);
    expect("end-wave 1; end");
    assert_exit(0, "done");
}

Test(rollout, copies_are_bounded_too) {
    setup(3);
    fixture_limit(f, NULL, 3);
    f->limits[0].has_copy_parallel = true;
    f->limits[0].copy_parallel = 2;
    start();
    for (size_t i = 0; i < 3; i++) {
        answer(i);
        moved(i, HOST_STAGING);
        wants(i, ACT_COPY);
    }
    expect("wave 1; copy h0; copy h1");
    moved(0, HOST_STAGED);
    expect("copy h2");
}

Test(rollout, tag_bounds_its_copies) {
    setup(3);
    fixture_limit(f, "db", 3);
    f->limits[0].has_max_parallel = false;
    f->limits[0].has_copy_parallel = true;
    f->limits[0].copy_parallel = 1;
    fixture_tag(f, 0, "db");
    fixture_tag(f, 2, "db");
    start();
    for (size_t i = 0; i < 3; i++) {
        answer(i);
        moved(i, HOST_STAGING);
        wants(i, ACT_COPY);
    }
    expect("wave 1; copy h0; copy h1");
    moved(0, HOST_STAGED);
    expect("copy h2");
}

/* ---- prestage ---- */

static void ask_copies(enum inv_prestage prestage) {
    setup(3);
    fixture_add_wave(f, 1, false);
    fixture_add_wave(f, 2, false);
    f->policy.prestage = prestage;
    start();
    for (size_t i = 0; i < 3; i++) {
        answer(i);
        moved(i, HOST_STAGING);
        wants(i, ACT_COPY);
    }
}

Test(rollout, prestage_wave_copies_one_wave_ahead) {
    ask_copies(INV_PRESTAGE_WAVE);
    expect("wave 1; copy h0; copy h1");
    stage(0);
    expect("activate h0");
    go_well(0);
    expect("end-wave 1; wave 2; copy h2");
}

Test(rollout, prestage_none_copies_the_wave_itself) {
    ask_copies(INV_PRESTAGE_NONE);
    expect("wave 1; copy h0");
    stage(0);
    expect("activate h0");
    go_well(0);
    expect("end-wave 1; wave 2; copy h1");
}

Test(rollout, prestage_all_copies_all_before_the_first_activation) {
    ask_copies(INV_PRESTAGE_ALL);
    expect("wave 1; copy h0; copy h1; copy h2");
    stage(0);
    stage(1);
    expect("");
    stage(2);
    expect("activate h0");
}

/* ---- budgets ---- */

/* Health gating, 10: a budget trips when it is passed. */
Test(rollout, budget_trips_when_passed_not_when_met) {
    setup(6);
    fixture_limit(f, NULL, 2);
    f->policy.max_failed.value = 1;
    start();
    stage_all();
    expect("wave 1; activate h0; activate h1");
    go_back(0);
    expect("activate h2");
    cr_assert_eq(rollout_failures(r), 1);
    go_back(1);
    expect("stop max-failed; skip h3 budget; skip h4 budget; skip h5 budget");
    go_well(2);
    failed(3, HOST_SKIPPED, "budget");
    failed(4, HOST_SKIPPED, "budget");
    failed(5, HOST_SKIPPED, "budget");
    expect("end-wave 1; end");
    assert_exit(3, "failed");
}

Test(rollout, budget_in_percent_is_rounded_down_and_for_the_whole_run) {
    setup(15);
    f->policy.max_failed = (struct inv_amount){.percent = true, .value = 10};
    start();
    cr_assert_eq(rollout_failures_allowed(r), 1);
}

/* Health gating, 9: not there before the change and broken by it are counted apart. */
Test(rollout, unreachable_and_broken_are_counted_apart) {
    setup(4);
    fixture_limit(f, NULL, 1);
    f->policy.max_unreachable.value = 1;
    start();
    failed(0, HOST_UNREACHABLE, "connection-refused");
    for (size_t i = 1; i < 4; i++) {
        answer(i);
        stage(i);
    }
    expect("wave 1; activate h1");
    cr_assert_eq(rollout_failures(r), 0);
    go_well(1);
    expect("activate h2");
    failed(3, HOST_UNREACHABLE, "connection-lost");
    go_well(2);
    expect("stop max-unreachable; end-wave 1; end");
    assert_exit(5, "unreachable");
}

Test(rollout, host_that_waits_for_a_touch_holds_up_no_other) {
    setup(2);
    start();
    answer(0);
    stage(0);
    expect("wave 1");
    rollout_waits_for_person(r, 1);
    expect("activate h0");
    go_well(0);
    rollout_waits_for_person(r, 1);
    failed(1, HOST_UNREACHABLE, "auth-failed");
    expect("stop max-unreachable; end-wave 1; end");
    assert_exit(5, "unreachable");
}

Test(rollout, host_that_is_down_stops_the_run_before_the_first_host_is_touched) {
    setup(3);
    fixture_add_wave(f, 1, false);
    start();
    answer(0);
    stage(0);
    answer(1);
    moved(2, HOST_CONNECTING);
    expect("wave 1");
    failed(2, HOST_UNREACHABLE, "connect-timeout");
    expect("stop max-unreachable; skip h0 budget; skip h1 budget");
    failed(0, HOST_SKIPPED, "budget");
    failed(1, HOST_SKIPPED, "budget");
    expect("end-wave 1; end");
    assert_exit(5, "unreachable");
}

Test(rollout, optional_host_that_is_offline_counts_for_nothing) {
    setup(2);
    fixture_add_wave(f, 1, false);
    start();
    failed(0, HOST_SKIPPED, "offline");
    answer(1);
    stage(1);
    expect("wave 1; end-wave 1; wave 2; activate h1");
    go_well(1);
    expect("end-wave 2; end");
    assert_exit(0, "done");
}

Test(rollout, failed_build_is_not_counted_and_the_others_go_on) {
    setup(3);
    fixture_add_wave(f, 1, false);
    start();
    for (size_t i = 0; i < 3; i++) {
        answer(i);
    }
    failed(0, HOST_FAILED, "build-failed");
    stage(1);
    failed(2, HOST_FAILED, "connection-lost"); /* out of building */
    expect("wave 1; end-wave 1; wave 2; activate h1");
    go_well(1);
    expect("end-wave 2; end");
    cr_assert_eq(rollout_failures(r), 0);
    assert_exit(9, "build-failed");
}

Test(rollout, failed_evaluation_before_the_host_answered_is_a_failed_build) {
    setup(1);
    start();
    moved(0, HOST_CONNECTING);
    failed(0, HOST_FAILED, "eval-failed");
    assert_exit(9, "build-failed");
    cr_assert_eq(rollout_failures(r), 0);
}

Test(rollout, wave_without_a_healthy_host_stops_the_run) {
    setup(4);
    fixture_add_wave(f, 1, false);
    f->policy.max_failed.value = 4;
    start();
    stage_all();
    expect("wave 1; activate h0");
    go_back(0);
    expect("end-wave 1; stop no-healthy-host; skip h1 budget; skip h2 budget; skip h3 budget");
    skip_all();
}

Test(rollout, unchanged_canary_is_good_enough) {
    setup(2);
    fixture_add_wave(f, 1, false);
    start();
    moved(0, HOST_UNCHANGED);
    answer(1);
    stage(1);
    expect("wave 1; end-wave 1; wave 2; activate h1");
}

/* Health gating, 11: a straggler does not block its batch. */
Test(rollout, straggler_does_not_block_its_batch) {
    setup(5);
    fixture_limit(f, NULL, 2);
    start();
    stage_all();
    expect("wave 1; activate h0; activate h1");
    probe(0);
    go_well(1);
    expect("activate h2");
    go_well(2);
    expect("activate h3");
    go_well(3);
    expect("activate h4");
}

/* ---- on_failure ---- */

/* Two waves; h0 is healthy in the first, h1 in the second, and h2 then fails. */
static void fail_in_second_wave(enum inv_on_failure how) {
    setup(5);
    fixture_limit(f, NULL, 2);
    fixture_add_wave(f, 1, false);
    f->policy.on_failure = how;
    start();
    stage_all();
    expect("wave 1; activate h0");
    go_well(0);
    expect("end-wave 1; wave 2; activate h1; activate h2");
    go_well(1);
    expect("activate h3");
    probe(3);
    probe(2);
    wants(2, ACT_ROLLBACK);
}

static void end_back(size_t host) {
    moved(host, HOST_ROLLING_BACK);
    failed(host, HOST_ROLLED_BACK, "taken-back");
}

/* Health gating, 3: one late failure does not revert a fleet. */
Test(rollout, one_late_failure_reverts_no_other_host_by_default) {
    fail_in_second_wave(INV_ON_FAILURE_ROLLBACK_HOST);
    expect("rollback h2");
    end_back(2);
    expect("stop max-failed; skip h4 budget");
    wants(3, ACT_COMMIT);
    expect("commit h3");
    moved(3, HOST_COMMITTING);
    moved(3, HOST_HEALTHY);
    failed(4, HOST_SKIPPED, "budget");
    expect("end-wave 2; end");
    cr_assert_eq(rollout_count(r, HOST_HEALTHY), 3);
}

Test(rollout, rollback_wave_takes_the_wave_back_and_who_is_in_flight) {
    fail_in_second_wave(INV_ON_FAILURE_ROLLBACK_WAVE);
    expect("rollback h2");
    end_back(2);
    expect("stop max-failed; skip h4 budget; back h1");
    commit(3);
    expect("back h3");
    end_back(1);
    end_back(3);
    failed(4, HOST_SKIPPED, "budget");
    expect("end-wave 2; end");
    cr_assert_eq(rollout_failures(r), 1, "who went back for the others' sake has not failed");
    cr_assert_eq(rollout_count(r, HOST_HEALTHY), 1);
    assert_exit(3, "failed");
}

Test(rollout, rollback_all_takes_every_wave_back) {
    fail_in_second_wave(INV_ON_FAILURE_ROLLBACK_ALL);
    expect("rollback h2");
    end_back(2);
    expect("stop max-failed; skip h4 budget; back h0; back h1");
    end_back(0);
    end_back(1);
    failed(4, HOST_SKIPPED, "budget");
    expect("");
    commit(3);
    expect("back h3");
    end_back(3);
    expect("end-wave 2; end");
}

Test(rollout, committing_host_goes_back_when_it_is_done) {
    fail_in_second_wave(INV_ON_FAILURE_ROLLBACK_WAVE);
    expect("rollback h2");
    wants(3, ACT_COMMIT);
    expect("commit h3");
    moved(3, HOST_COMMITTING);
    end_back(2);
    expect("stop max-failed; skip h4 budget; back h1");
    moved(3, HOST_HEALTHY);
    expect("back h3");
}

Test(rollout, leave_disarms_and_leaves) {
    fail_in_second_wave(INV_ON_FAILURE_LEAVE);
    expect("leave h2");
    failed(2, HOST_FAILED, "left");
    expect("stop max-failed; skip h4 budget");
    cr_assert_eq(rollout_failures(r), 1);
}

Test(rollout, host_that_may_not_go_back_is_left) {
    setup(2);
    f->hosts[0].policy.rollback = false;
    f->policy.on_failure = INV_ON_FAILURE_ROLLBACK_ALL;
    start();
    stage_all();
    expect("wave 1; activate h0");
    go_well(0);
    expect("activate h1");
    go_back(1);
    expect("stop max-failed; end-wave 1; end");
    cr_assert_eq(rollout_count(r, HOST_HEALTHY), 1);
}

/* Health gating, 1: never roll back a rollback. */
Test(rollout, rollback_is_never_rolled_back) {
    setup(1);
    start();
    stage_all();
    expect("wave 1; activate h0");
    probe(0);
    wants(0, ACT_ROLLBACK);
    expect("rollback h0");
    moved(0, HOST_ROLLING_BACK);
    moved(0, HOST_PROBING);
    wants(0, ACT_ROLLBACK);
    expect("leave h0");
    failed(0, HOST_ROLLBACK_FAILED, "probe-failed");
    expect("stop max-failed; end-wave 1; end");
    assert_exit(4, "unknown-hosts");
}

/* Health gating, 2: the way back is immediate. */
Test(rollout, way_back_needs_no_slot_and_no_canary_but_leaves_a_group_standing) {
    setup(7);
    fixture_limit(f, NULL, 1);
    f->policy.on_failure = INV_ON_FAILURE_ROLLBACK_ALL;
    f->hosts[0].policy.exclusive = "pair";
    f->hosts[1].policy.exclusive = "pair";
    start();
    stage_all();
    expect("wave 1; activate h0");
    for (size_t i = 0; i < 5; i++) {
        go_well(i);
        struct rollout_decision d;
        cr_assert(rollout_next(r, &d) && d.host == i + 1);
    }
    go_back(5);
    expect("stop max-failed; skip h6 budget; back h0; back h2; back h3; back h4");
    end_back(0);
    expect("back h1");
}

/* ---- bake ---- */

static void bake_two(void) {
    setup(3);
    fixture_limit(f, NULL, 2);
    fixture_add_wave(f, 2, false);
    f->policy.bake_ms = 60000;
    start();
    stage_all();
    expect("wave 1; activate h0; activate h1");
    go_well(0);
    go_well(1);
    expect("bake");
}

Test(rollout, wave_bakes_and_is_probed_again) {
    bake_two();
    cr_assert_eq(rollout_next_tick_ms(r), now_ms + 60000);
    rollout_tick(r, now_ms += 59999);
    expect("");
    rollout_tick(r, now_ms += 1);
    expect("reprobe h0; reprobe h1");
    rollout_reprobed(r, 0, true, now_ms);
    expect("");
    rollout_reprobed(r, 1, true, now_ms);
    expect("end-wave 1; wave 2; activate h2");
}

/* Health gating, 7: healthy once is not healthy. */
Test(rollout, healthy_once_is_not_healthy) {
    bake_two();
    rollout_tick(r, now_ms += 60000);
    expect("reprobe h0; reprobe h1");
    rollout_reprobed(r, 1, false, now_ms);
    expect("back h1");
    rollout_reprobed(r, 0, true, now_ms);
    end_back(1);
    cr_assert_eq(rollout_failures(r), 1);
    expect("stop max-failed; skip h2 budget; end-wave 1");
}

Test(rollout, reboot_that_fails_while_it_bakes_is_a_failure_and_no_way_back) {
    setup(1);
    f->policy.bake_ms = 1000;
    f->action = ACTION_REBOOT;
    start();
    answer(0);
    wants(0, ACT_REBOOT);
    expect("wave 1; reboot h0");
    moved(0, HOST_REBOOTING);
    moved(0, HOST_HEALTHY);
    expect("bake");
    rollout_tick(r, now_ms += 1000);
    expect("reprobe h0");
    rollout_reprobed(r, 0, false, now_ms);
    expect("leave h0 bake; stop max-failed; end-wave 1; end");
    assert_exit(3, "failed");
}

/* Health gating, 12: no deadline ticks while a person has paused. */
Test(rollout, no_deadline_ticks_while_a_person_paused) {
    bake_two();
    uint64_t until_ms = rollout_next_tick_ms(r);
    now_ms += 20000;
    rollout_control(r, ROLLOUT_CONTROL_PAUSE, 0, now_ms);
    expect("pause paused");
    cr_assert_eq(rollout_next_tick_ms(r), UINT64_MAX);
    now_ms += 500000;
    rollout_tick(r, now_ms);
    expect("");
    rollout_control(r, ROLLOUT_CONTROL_PROMOTE, 0, now_ms);
    expect("");
    cr_assert_eq(rollout_next_tick_ms(r), until_ms + 500000);
}

Test(rollout, unchanged_wave_does_not_bake) {
    setup(2);
    fixture_add_wave(f, 1, false);
    f->policy.bake_ms = 60000;
    start();
    moved(0, HOST_UNCHANGED);
    answer(1);
    expect("wave 1; end-wave 1; wave 2");
}

/* ---- promotion, pause, drain, skip, taking back ---- */

Test(rollout, manual_promotion_waits_after_each_wave_but_the_last) {
    setup(3);
    fixture_add_wave(f, 1, false);
    fixture_add_wave(f, 2, false);
    f->policy.promote_manual = true;
    start();
    stage_all();
    expect("wave 1; activate h0");
    go_well(0);
    expect("end-wave 1; pause promote");
    assert_exit(6, "paused");
    struct buf why = BUF_INIT;
    rollout_waiting(r, now_ms, &why);
    cr_assert_str_eq(buf_text(&why), "wave 1 is done; wave 2 waits for promotion");
    buf_free(&why);
    control(ROLLOUT_CONTROL_PROMOTE, 0);
    expect("wave 2; activate h1");
    go_well(1);
    expect("end-wave 2; pause promote");
    control(ROLLOUT_CONTROL_PROMOTE, 0);
    expect("wave 3; activate h2");
    go_well(2);
    expect("end-wave 3; end");
    assert_exit(0, "done");
}

Test(rollout, paused_run_begins_no_host_and_finishes_those_in_flight) {
    setup(6);
    start();
    stage_all();
    expect("wave 1; activate h0; activate h1");
    control(ROLLOUT_CONTROL_PAUSE, 0);
    expect("pause paused");
    go_well(0);
    expect("");
    probe(1);
    wants(1, ACT_ROLLBACK);
    expect("rollback h1");
    control(ROLLOUT_CONTROL_PROMOTE, 0);
    expect("activate h2");
}

Test(rollout, drained_run_finishes_what_is_in_flight) {
    setup(6);
    start();
    stage_all();
    expect("wave 1; activate h0; activate h1");
    control(ROLLOUT_CONTROL_DRAIN, 0);
    expect("stop stopped; skip h2 stopped; skip h3 stopped; skip h4 stopped; skip h5 stopped");
    go_well(0);
    probe(1);
    wants(1, ACT_COMMIT);
    expect("commit h1");
    moved(1, HOST_HEALTHY);
    for (size_t i = 2; i < 6; i++) {
        failed(i, HOST_SKIPPED, "stopped");
    }
    expect("end-wave 1; end");
    assert_exit(5, "skipped");
    cr_assert_eq(rollout_exit_code(r, 2), 130);
    cr_assert_eq(rollout_exit_code(r, 15), 143);
    cr_assert_str_eq(rollout_result(r, 2), "interrupted");
}

Test(rollout, drained_wait_for_promotion_ends) {
    setup(2);
    fixture_add_wave(f, 1, false);
    f->policy.promote_manual = true;
    start();
    stage_all();
    expect("wave 1; activate h0");
    go_well(0);
    expect("end-wave 1; pause promote");
    control(ROLLOUT_CONTROL_DRAIN, 0);
    expect("stop stopped; skip h1 stopped");
    failed(1, HOST_SKIPPED, "stopped");
    expect("end");
    assert_exit(6, "paused");
}

Test(rollout, dry_activate_ends_staged_a_second_time) {
    setup(2);
    fixture_add_wave(f, 1, false);
    f->action = ACTION_DRY_ACTIVATE;
    start();
    answer(0);
    answer(1);
    moved(0, HOST_STAGED);
    moved(1, HOST_STAGED);
    expect("wave 1");
    moved(0, HOST_STAGED);
    expect("");
    moved(1, HOST_STAGED);
    expect("end-wave 1; end");
    assert_exit(0, "done");
}

Test(rollout, bake_that_fails_where_nothing_may_go_back_is_a_failure) {
    setup(2);
    fixture_add_wave(f, 1, false);
    f->policy.bake_ms = 1000;
    f->policy.max_failed.value = 1;
    f->hosts[0].policy.rollback = false;
    start();
    stage_all();
    expect("wave 1; activate h0");
    go_well(0);
    expect("bake");
    rollout_tick(r, now_ms += 1000);
    expect("reprobe h0");
    rollout_reprobed(r, 0, false, now_ms);
    expect("leave h0 bake; end-wave 1; stop no-healthy-host; skip h1 budget");
    assert_exit(3, "failed");
    failed(0, HOST_FAILED, "bake");
    failed(1, HOST_SKIPPED, "budget");
    expect("end");
    cr_assert_eq(rollout_failures(r), 1);
}

Test(rollout, person_skips_a_host_that_has_not_begun) {
    setup(3);
    start();
    stage_all();
    expect("wave 1; activate h0");
    control(ROLLOUT_CONTROL_SKIP, 0);
    expect("");
    control(ROLLOUT_CONTROL_SKIP, 1);
    expect("skip h1 stopped");
    failed(1, HOST_SKIPPED, "stopped");
    go_well(0);
    expect("activate h2");
}

Test(rollout, person_takes_one_host_back) {
    setup(3);
    start();
    stage_all();
    expect("wave 1; activate h0");
    go_well(0);
    control(ROLLOUT_CONTROL_TAKE_BACK, 0);
    expect("back h0; activate h1");
    control(ROLLOUT_CONTROL_TAKE_BACK, 0);
    end_back(0);
    control(ROLLOUT_CONTROL_TAKE_BACK, 0);
    expect("");
    cr_assert_eq(rollout_failures(r), 0);
}

Test(rollout, person_takes_all_back) {
    setup(6);
    start();
    stage_all();
    expect("wave 1; activate h0; activate h1");
    go_well(0);
    control(ROLLOUT_CONTROL_TAKE_BACK, SIZE_MAX);
    expect("stop stopped; skip h2 stopped; skip h3 stopped; skip h4 stopped; skip h5 stopped; "
           "back h0");
}

Test(rollout, canary_that_a_person_skipped_says_nothing) {
    setup(2);
    fixture_add_wave(f, 1, false);
    start();
    answer(0);
    answer(1);
    expect("wave 1");
    control(ROLLOUT_CONTROL_SKIP, 0);
    expect("skip h0 stopped");
    failed(0, HOST_SKIPPED, "stopped");
    stage(1);
    expect("end-wave 1; wave 2; activate h1");
}

/* ---- order ---- */

/* Health gating, 13: who is unhealthy goes first, the last healthy member never goes down. */
Test(rollout, unhealthy_hosts_go_first) {
    setup(3);
    start();
    for (size_t i = 0; i < 3; i++) {
        answer(i);
    }
    rollout_unhealthy_before(r, 2);
    for (size_t i = 0; i < 3; i++) {
        stage(i);
    }
    expect("wave 1; activate h2");
    go_well(2);
    expect("activate h0");
}

Test(rollout, order_inventory_takes_no_account_of_health) {
    setup(3);
    f->policy.order = INV_ORDER_INVENTORY;
    start();
    for (size_t i = 0; i < 3; i++) {
        answer(i);
    }
    rollout_unhealthy_before(r, 2);
    for (size_t i = 0; i < 3; i++) {
        stage(i);
    }
    expect("wave 1; activate h0");
}

/* h0 serves, h1 doesn't; both are the group's only members. */
static void last_healthy_pair(void) {
    setup(2);
    fixture_limit(f, NULL, 2);
    f->policy.max_failed.value = 2;
    f->hosts[0].policy.exclusive = "pair";
    f->hosts[1].policy.exclusive = "pair";
    start();
    answer(0);
    answer(1);
    rollout_unhealthy_before(r, 1);
    stage(0);
    expect("wave 1");
    stage(1);
    expect("activate h1");
}

Test(rollout, last_healthy_member_waits_for_another) {
    last_healthy_pair();
    go_well(1);
    expect("activate h0");
}

Test(rollout, last_healthy_member_is_not_taken_down) {
    last_healthy_pair();
    go_back(1);
    expect("skip h0 last-healthy");
    failed(0, HOST_SKIPPED, "last-healthy");
    expect("end-wave 1; end");
    assert_exit(3, "failed");
}

/* ---- actions ---- */

Test(rollout, push_copies_everything_and_activates_nothing) {
    setup(3);
    fixture_add_wave(f, 1, false);
    f->action = ACTION_PUSH;
    start();
    for (size_t i = 0; i < 3; i++) {
        answer(i);
        moved(i, HOST_STAGING);
        wants(i, ACT_COPY);
    }
    expect("wave 1; copy h0; copy h1; copy h2");
    moved(0, HOST_STAGED);
    moved(1, HOST_STAGED);
    wants(1, ACT_ACTIVATE);
    moved(2, HOST_UNCHANGED);
    expect("end-wave 1; end");
    assert_exit(0, "done");
}

Test(rollout, boot_is_good_when_a_reboot_is_required) {
    setup(2);
    fixture_add_wave(f, 1, false);
    f->action = ACTION_BOOT;
    start();
    for (size_t i = 0; i < 2; i++) {
        answer(i);
        moved(i, HOST_STAGED);
        wants(i, ACT_COMMIT);
    }
    expect("wave 1; commit h0");
    moved(0, HOST_COMMITTING);
    moved(0, HOST_REBOOT_REQUIRED);
    expect("end-wave 1; wave 2; commit h1");
    moved(1, HOST_COMMITTING);
    moved(1, HOST_REBOOT_REQUIRED);
    expect("end-wave 2; end");
    assert_exit(0, "done");
}

Test(rollout, reboot_required_under_switch_is_exit_3) {
    setup(1);
    start();
    stage_all();
    expect("wave 1; activate h0");
    moved(0, HOST_ACTIVATING);
    failed(0, HOST_REBOOT_REQUIRED, "reboot-required");
    expect("end-wave 1; end");
    assert_exit(3, "failed");
}

Test(rollout, reboot_goes_in_waves) {
    setup(2);
    fixture_add_wave(f, 1, false);
    f->action = ACTION_REBOOT;
    start();
    answer(0);
    answer(1);
    wants(0, ACT_REBOOT);
    wants(1, ACT_REBOOT);
    expect("wave 1; reboot h0");
    moved(0, HOST_REBOOTING);
    moved(0, HOST_HEALTHY);
    expect("end-wave 1; wave 2; reboot h1");
}

Test(rollout, host_in_flight_reboots_at_once) {
    setup(1);
    start();
    stage_all();
    expect("wave 1; activate h0");
    probe(0);
    wants(0, ACT_COMMIT);
    wants(0, ACT_REBOOT);
    expect("commit h0; reboot h0");
}

Test(rollout, secret_before_the_activation_takes_the_slot) {
    setup(3);
    start();
    for (size_t i = 0; i < 3; i++) {
        answer(i);
    }
    moved(0, HOST_STAGED);
    wants(0, ACT_SECRET);
    expect("wave 1; secret h0");
    stage(1);
    expect("");
    wants(0, ACT_ACTIVATE);
    expect("activate h0");
}

/* ---- resume, exit codes ---- */

Test(rollout, resumed_run_goes_on_where_it_was) {
    setup(4);
    fixture_limit(f, NULL, 2);
    fixture_add_wave(f, 1, false);
    r = fixture_rollout(f);
    moved(0, HOST_ACTIVATING);
    moved(0, HOST_HEALTHY);
    moved(1, HOST_ACTIVATING);
    moved(1, HOST_PROBING);
    moved(2, HOST_ACTIVATING);
    moved(2, HOST_PENDING); /* it went back by itself when the operator died */
    rollout_start(r, now_ms);
    expect("wave 1; end-wave 1; wave 2");
    answer(2);
    answer(3);
    stage(2);
    stage(3);
    expect("activate h2");
    wants(1, ACT_COMMIT);
    expect("commit h1");
    moved(1, HOST_HEALTHY);
    expect("activate h3");
}

Test(rollout, resumed_way_back_stays_the_only_one) {
    setup(1);
    r = fixture_rollout(f);
    moved(0, HOST_ACTIVATING);
    moved(0, HOST_ROLLING_BACK);
    rollout_start(r, now_ms);
    expect("wave 1");
    wants(0, ACT_ROLLBACK);
    expect("leave h0");
}

Test(rollout, resumed_host_that_begins_anew_waits_for_its_turn_again) {
    setup(2);
    f->policy.max_failed.value = 1;
    r = fixture_rollout(f);
    moved(0, HOST_ACTIVATING);
    rollout_start(r, now_ms);
    expect("wave 1");
    answer(1);
    stage(1);
    expect(""); /* h0 may be at work: it holds the only slot */
    moved(0, HOST_CONNECTING);
    expect("");
    moved(0, HOST_BUILDING); /* its guard took it back */
    expect("activate h1");
    moved(1, HOST_HEALTHY);
    stage(0);
    expect("activate h0");
}

Test(rollout, resumed_run_says_nothing_of_waves_that_are_over) {
    static const uint32_t waves[] = {2, 1, 2};
    setup(3);
    f->policy.bake_ms = 5000;
    struct rollout_plan plan = {.hosts = f->pointers,
                                .host_count = 3,
                                .policy = &f->policy,
                                .action = ACTION_SWITCH,
                                .waves = waves};
    r = rollout_new(&plan);
    cr_assert_eq(rollout_wave_count(r), 2);
    cr_assert_eq(rollout_wave_of(r, 0), 2);
    moved(1, HOST_ACTIVATING);
    moved(1, HOST_HEALTHY);
    rollout_resume(r, 1, false);
    rollout_start(r, now_ms);
    expect("wave 2");
}

Test(rollout, resumed_run_waits_for_promotion_as_before) {
    setup(2);
    fixture_add_wave(f, 1, false);
    f->policy.promote_manual = true;
    r = fixture_rollout(f);
    moved(0, HOST_ACTIVATING);
    moved(0, HOST_HEALTHY);
    rollout_resume(r, 1, true);
    rollout_start(r, now_ms);
    expect("pause promote");
    cr_assert_eq(rollout_exit_code(r, 0), 6);
    rollout_control(r, ROLLOUT_CONTROL_PROMOTE, SIZE_MAX, now_ms);
    expect("wave 2");
}

Test(rollout, says_why_a_host_can_be_neither_skipped_nor_taken_back) {
    setup(4);
    fixture_limit(f, NULL, 2);
    f->hosts[1].policy.rollback = false;
    f->policy.max_failed = (struct inv_amount){.value = 2};
    start();
    stage_all();
    expect("wave 1; activate h0; activate h1");
    cr_assert(strstr(rollout_refusal(r, ROLLOUT_CONTROL_SKIP, 0), "under way"));
    cr_assert_null(rollout_refusal(r, ROLLOUT_CONTROL_SKIP, 3));
    cr_assert_null(rollout_refusal(r, ROLLOUT_CONTROL_TAKE_BACK, 0), "in flight: it may");
    cr_assert_null(rollout_refusal(r, ROLLOUT_CONTROL_TAKE_BACK, 3), "it is skipped");
    cr_assert_null(rollout_refusal(r, ROLLOUT_CONTROL_TAKE_BACK, SIZE_MAX));
    cr_assert_null(rollout_refusal(r, ROLLOUT_CONTROL_PAUSE, 0));
    go_well(0);
    go_well(1);
    cr_assert(strstr(rollout_refusal(r, ROLLOUT_CONTROL_SKIP, 0), "ended"));
    cr_assert(strstr(rollout_refusal(r, ROLLOUT_CONTROL_TAKE_BACK, 1), "rollback"));
    control(ROLLOUT_CONTROL_TAKE_BACK, 0);
    cr_assert(strstr(rollout_refusal(r, ROLLOUT_CONTROL_TAKE_BACK, 0), "on its way back"));
    expect("back h0; activate h2; activate h3");
    go_back(2);
    cr_assert(strstr(rollout_refusal(r, ROLLOUT_CONTROL_TAKE_BACK, 2), "does not run"));
}

/* ---- tried again ---- */

static void retry(size_t host) {
    struct buf why = BUF_INIT;
    cr_assert(rollout_retry(r, host, ++now_ms, &why), "%s", buf_text(&why));
    buf_free(&why);
}

#define expect_refusal(of_host, words)                                                             \
    do {                                                                                           \
        struct buf why = BUF_INIT;                                                                 \
        cr_assert_not(rollout_retry(r, of_host, ++now_ms, &why));                                  \
        cr_assert(strstr(buf_text(&why), words), "%s", buf_text(&why));                            \
        buf_free(&why);                                                                            \
        expect("");                                                                                \
    } while (0)

Test(rollout, host_that_is_tried_again_is_judged_by_its_last_outcome) {
    setup(2);
    f->policy.max_failed = (struct inv_amount){.value = 1};
    fixture_limit(f, NULL, 1);
    start();
    stage_all();
    expect("wave 1; activate h0");
    go_back(0);
    expect("activate h1");
    cr_assert_eq(rollout_failures(r), 1);
    retry(0);
    expect("retry h0");
    cr_assert_eq(rollout_failures(r), 0);
    cr_assert_eq(rollout_count(r, HOST_PENDING), 1);
    answer(0);
    stage(0);
    expect("");
    go_well(1);
    expect("activate h0");
    go_well(0);
    expect("end-wave 1; end");
    assert_exit(0, "done");
}

Test(rollout, host_that_is_tried_again_may_go_back_again) {
    setup(1);
    f->policy.max_failed = (struct inv_amount){.value = 5};
    start();
    stage_all();
    expect("wave 1; activate h0");
    probe(0);
    wants(0, ACT_ROLLBACK);
    expect("rollback h0");
    moved(0, HOST_ROLLING_BACK);
    failed(0, HOST_ROLLED_BACK, "probe-failed");
    retry(0);
    answer(0);
    stage(0);
    expect("retry h0; activate h0");
    probe(0);
    wants(0, ACT_ROLLBACK);
    expect("rollback h0");
    moved(0, HOST_ROLLING_BACK);
    failed(0, HOST_ROLLED_BACK, "probe-failed");
    expect("end-wave 1; end");
    cr_assert_eq(rollout_failures(r), 1);
    assert_exit(3, "failed");
}

Test(rollout, stopped_run_is_taken_up_by_a_retry_and_stopped_by_one_more_failure) {
    setup(4);
    fixture_add_wave(f, 2, false);
    fixture_limit(f, NULL, 2);
    start();
    stage_all();
    expect("wave 1; activate h0; activate h1");
    go_back(0);
    expect("stop max-failed; skip h2 budget; skip h3 budget");
    failed(2, HOST_SKIPPED, "budget");
    failed(3, HOST_SKIPPED, "budget");
    retry(0);
    retry(2);
    expect("retry h0; retry h2");
    answer(0);
    stage(0);
    expect("activate h0");
    answer(2);
    stage(2);
    expect("");
    go_well(1);
    go_well(0);
    expect("end-wave 1; wave 2; activate h2");
    go_back(2);
    expect("stop max-failed; end-wave 2; end");
    assert_exit(3, "failed");
}

Test(rollout, run_that_has_stopped_for_the_unreachable_begins_at_their_wave_when_they_are_tried) {
    setup(3);
    fixture_add_wave(f, 1, false);
    start();
    failed(2, HOST_UNREACHABLE, "connection-refused");
    expect("stop max-unreachable; skip h0 budget; skip h1 budget");
    failed(0, HOST_SKIPPED, "budget");
    moved(1, HOST_CONNECTING);
    for (size_t i = 3; i-- > 0;) {
        if (i != 1) {
            retry(i);
        }
    }
    expect("retry h2; retry h0; wave 1");
    failed(1, HOST_SKIPPED, "budget");
    answer(0);
    stage(0);
    expect("activate h0");
    go_well(0);
    answer(2);
    stage(2);
    expect("end-wave 1; wave 2; activate h2");
    go_well(2);
    expect("end-wave 2; end");
    assert_exit(5, "skipped");
}

Test(rollout, retry_in_an_earlier_wave_waits_for_a_slot_and_for_no_wave) {
    setup(4);
    fixture_add_wave(f, 2, false);
    fixture_limit(f, NULL, 1);
    f->policy.max_unreachable = (struct inv_amount){.value = 1};
    start();
    failed(0, HOST_UNREACHABLE, "no-route");
    for (size_t i = 1; i < 4; i++) {
        answer(i);
        stage(i);
    }
    expect("wave 1; activate h1");
    go_well(1);
    expect("end-wave 1; wave 2; activate h2");
    retry(0);
    answer(0);
    stage(0);
    expect("retry h0");
    go_well(2);
    expect("activate h0");
    go_well(0);
    expect("activate h3");
    go_well(3);
    expect("end-wave 2; end");
    assert_exit(0, "done");
}

Test(rollout, host_of_a_baked_wave_that_is_tried_again_is_baked_alone) {
    setup(2);
    f->policy.bake_ms = 1000;
    f->policy.max_failed = (struct inv_amount){.value = 1};
    start();
    stage_all();
    expect("wave 1; activate h0");
    go_well(0);
    expect("activate h1");
    go_back(1);
    expect("bake");
    retry(1);
    answer(1);
    stage(1);
    expect("retry h1; activate h1");
    go_well(1);
    expect("bake");
    rollout_tick(r, rollout_next_tick_ms(r));
    expect("reprobe h0; reprobe h1");
    rollout_reprobed(r, 0, true, ++now_ms);
    rollout_reprobed(r, 1, true, ++now_ms);
    expect("end-wave 1; end");
}

Test(rollout, retry_while_it_waits_for_promotion_goes_ahead_of_it) {
    setup(2);
    fixture_add_wave(f, 1, false);
    f->policy.promote_manual = true;
    f->policy.max_failed = (struct inv_amount){.value = 1};
    f->policy.max_unreachable = (struct inv_amount){.value = 2};
    f->hosts[0].policy.rollback = false;
    start();
    stage_all();
    expect("wave 1; activate h0");
    probe(0);
    wants(0, ACT_ROLLBACK);
    expect("leave h0");
    failed(0, HOST_FAILED, "left");
    expect("end-wave 1; stop no-healthy-host; skip h1 budget");
    retry(0);
    expect("retry h0; wave 1");
    answer(0);
    stage(0);
    expect("activate h0");
    go_well(0);
    failed(1, HOST_SKIPPED, "budget");
    retry(1);
    answer(1);
    stage(1);
    expect("retry h1; end-wave 1; pause promote");
    control(ROLLOUT_CONTROL_PROMOTE, 0);
    expect("wave 2; activate h1");
}

Test(rollout, paused_run_tries_nobody_again_before_it_goes_on) {
    setup(2);
    f->policy.max_failed = (struct inv_amount){.value = 1};
    start();
    stage_all();
    expect("wave 1; activate h0");
    control(ROLLOUT_CONTROL_PAUSE, 0);
    expect("pause paused");
    go_back(0);
    retry(0);
    answer(0);
    stage(0);
    expect("retry h0");
    control(ROLLOUT_CONTROL_PROMOTE, 0);
    expect("activate h0");
}

Test(rollout, host_that_a_person_skipped_can_be_tried_after_all) {
    setup(2);
    start();
    stage_all();
    expect("wave 1; activate h0");
    control(ROLLOUT_CONTROL_SKIP, 1);
    expect("skip h1 stopped");
    failed(1, HOST_SKIPPED, "stopped");
    retry(1);
    answer(1);
    stage(1);
    expect("retry h1");
    go_well(0);
    expect("activate h1");
    go_well(1);
    expect("end-wave 1; end");
    assert_exit(0, "done");
}

Test(rollout, refuses_to_try_again_what_is_good_under_way_lost_or_unbuilt) {
    setup(5);
    f->policy.max_failed = (struct inv_amount){.value = 4};
    fixture_limit(f, NULL, 3);
    start();
    failed(4, HOST_FAILED, "build-failed");
    for (size_t i = 0; i < 4; i++) {
        answer(i);
        stage(i);
    }
    expect("wave 1; activate h0; activate h1; activate h2");
    go_well(0);
    expect("activate h3");
    probe(2);
    failed(2, HOST_UNKNOWN, "connection-lost");
    expect_refusal(0, "ended well");
    expect_refusal(1, "under way");
    expect_refusal(2, "fleet resume");
    expect_refusal(4, "could not be built");
    control(ROLLOUT_CONTROL_DRAIN, 0);
    expect("stop stopped");
    go_back(1);
    expect_refusal(1, "drained");
    go_well(3);
    expect("end-wave 1; end");
    expect_refusal(1, "over");
}

Test(rollout, refuses_to_try_again_while_others_are_on_their_way_back) {
    setup(3);
    f->policy.on_failure = INV_ON_FAILURE_ROLLBACK_ALL;
    fixture_limit(f, NULL, 2);
    start();
    stage_all();
    expect("wave 1; activate h0; activate h1");
    go_well(0);
    expect("activate h2");
    go_back(1);
    expect("stop max-failed; back h0");
    expect_refusal(1, "on their way back");
    failed(0, HOST_ROLLED_BACK, "taken-back");
    probe(2);
    retry(0);
    answer(0);
    stage(0);
    expect("retry h0; activate h0");
}

Test(rollout, worst_code_comes_first) {
    static const struct {
        const char *reason;
        enum host_state state;
        int code;
    } rows[] = {
        {"stopped", HOST_SKIPPED, 5},         {"locked", HOST_SKIPPED, 7},
        {"build-failed", HOST_FAILED, 9},     {"disk-full", HOST_FAILED, 3},
        {"confirm-timeout", HOST_UNKNOWN, 4},
    };
    setup(ARRAY_LEN(rows));
    r = fixture_rollout(f);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        failed(i, rows[i].state, rows[i].reason);
        cr_assert_eq(rollout_exit_code(r, 0), rows[i].code, "after %s", rows[i].reason);
        cr_assert_eq(rollout_exit_code(r, 2), rows[i].code == 4 ? 4 : 130);
    }
}

Test(rollout, says_why_it_waits_at_every_time) {
    setup(3);
    fixture_add_wave(f, 1, false);
    f->policy.bake_ms = 5000;
    struct buf why = BUF_INIT;
    r = fixture_rollout(f);
#define assert_waits(want)                                                                         \
    do {                                                                                           \
        buf_clear(&why);                                                                           \
        rollout_waiting(r, now_ms, &why);                                                          \
        cr_assert_str_eq(buf_text(&why), want);                                                    \
    } while (0)
    assert_waits("it has not begun");
    rollout_start(r, now_ms);
    expect("wave 1");
    assert_waits("3 hosts have not answered yet");
    moved(0, HOST_CONNECTING);
    assert_waits("h0 is being connected to");
    stage_all();
    expect("activate h0");
    probe(0);
    assert_waits("h0 is being probed");
    control(ROLLOUT_CONTROL_PAUSE, 0);
    assert_waits("it is paused by a person; h0 is being probed");
    control(ROLLOUT_CONTROL_PROMOTE, 0);
    expect("pause paused");
    wants(0, ACT_COMMIT);
    expect("commit h0");
    moved(0, HOST_HEALTHY);
    expect("bake");
    assert_waits("wave 1 bakes for 5.0 s more, then it is probed again");
    rollout_tick(r, now_ms += 5000);
    expect("reprobe h0");
    assert_waits("wave 1 is probed again: 1 host is left");
    rollout_reprobed(r, 0, true, now_ms);
    expect("end-wave 1; wave 2; activate h1");
    go_back(1);
    assert_waits("it stops, as more hosts failed than max_failed allows");
    expect("stop max-failed; skip h2 budget");
    failed(2, HOST_SKIPPED, "budget");
    expect("end-wave 2; end");
    assert_waits("it stops, as more hosts failed than max_failed allows");
    buf_free(&why);
}
