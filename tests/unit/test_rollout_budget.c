/* The policy's answer to failure: budgets, the four forms of on_failure, and the bake that looks again.
 */
#include "core/base/xalloc.h"
#include "rollout_script.h"

TestSuite(rollout, .fini = free_rollout);

/* ---- budgets ---- */

/* Health gating, 10: a budget trips when it is passed. */
Test(rollout, budget_trips_when_passed_not_when_met) {
    with_hosts(6);
    fixture_limit(f, NULL, 2);
    f->policy.max_failed.value = 1;
    start_rollout();
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
    with_hosts(15);
    f->policy.max_failed = (struct inv_amount){.percent = true, .value = 10};
    start_rollout();
    cr_assert_eq(rollout_failures_allowed(r), 1);
}

/* Health gating, 9: not there before the change and broken by it are counted apart. */
Test(rollout, unreachable_and_broken_are_counted_apart) {
    with_hosts(4);
    fixture_limit(f, NULL, 1);
    f->policy.max_unreachable.value = 1;
    start_rollout();
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
    with_hosts(2);
    start_rollout();
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
    with_hosts(3);
    fixture_add_wave(f, 1, false);
    start_rollout();
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
    with_hosts(2);
    fixture_add_wave(f, 1, false);
    start_rollout();
    failed(0, HOST_SKIPPED, "offline");
    answer(1);
    stage(1);
    expect("wave 1; end-wave 1; wave 2; activate h1");
    go_well(1);
    expect("end-wave 2; end");
    assert_exit(0, "done");
}

Test(rollout, failed_build_is_not_counted_and_the_others_go_on) {
    with_hosts(3);
    fixture_add_wave(f, 1, false);
    start_rollout();
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
    with_hosts(1);
    start_rollout();
    moved(0, HOST_CONNECTING);
    failed(0, HOST_FAILED, "eval-failed");
    assert_exit(9, "build-failed");
    cr_assert_eq(rollout_failures(r), 0);
}

Test(rollout, wave_without_a_healthy_host_stops_the_run) {
    with_hosts(4);
    fixture_add_wave(f, 1, false);
    f->policy.max_failed.value = 4;
    start_rollout();
    stage_all();
    expect("wave 1; activate h0");
    go_back(0);
    expect("end-wave 1; stop no-healthy-host; skip h1 budget; skip h2 budget; skip h3 budget");
    skip_all();
}

Test(rollout, unchanged_canary_is_good_enough) {
    with_hosts(2);
    fixture_add_wave(f, 1, false);
    start_rollout();
    moved(0, HOST_UNCHANGED);
    answer(1);
    stage(1);
    expect("wave 1; end-wave 1; wave 2; activate h1");
}

/* ---- on_failure ---- */

/* Two waves; h0 is healthy in the first, h1 in the second, and h2 then fails. */
static void fail_in_second_wave(enum inv_on_failure how) {
    with_hosts(5);
    fixture_limit(f, NULL, 2);
    fixture_add_wave(f, 1, false);
    f->policy.on_failure = how;
    start_rollout();
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
    with_hosts(2);
    f->hosts[0].policy.rollback = false;
    f->policy.on_failure = INV_ON_FAILURE_ROLLBACK_ALL;
    start_rollout();
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
    with_hosts(1);
    start_rollout();
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
    with_hosts(7);
    fixture_limit(f, NULL, 1);
    f->policy.on_failure = INV_ON_FAILURE_ROLLBACK_ALL;
    f->hosts[0].policy.exclusive = "pair";
    f->hosts[1].policy.exclusive = "pair";
    start_rollout();
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
    with_hosts(3);
    fixture_limit(f, NULL, 2);
    fixture_add_wave(f, 2, false);
    f->policy.bake_ms = 60000;
    start_rollout();
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
    with_hosts(1);
    f->policy.bake_ms = 1000;
    f->action = ACTION_REBOOT;
    start_rollout();
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
    with_hosts(2);
    fixture_add_wave(f, 1, false);
    f->policy.bake_ms = 60000;
    start_rollout();
    moved(0, HOST_UNCHANGED);
    answer(1);
    expect("wave 1; end-wave 1; wave 2");
}

Test(rollout, bake_that_fails_where_nothing_may_go_back_is_a_failure) {
    with_hosts(2);
    fixture_add_wave(f, 1, false);
    f->policy.bake_ms = 1000;
    f->policy.max_failed.value = 1;
    f->hosts[0].policy.rollback = false;
    start_rollout();
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

/* ---- exit codes ---- */

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
    with_hosts(ARRAY_LEN(rows));
    r = fixture_rollout(f);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        failed(i, rows[i].state, rows[i].reason);
        cr_assert_eq(rollout_exit_code(r, 0), rows[i].code, "after %s", rows[i].reason);
        cr_assert_eq(rollout_exit_code(r, 2), rows[i].code == 4 ? 4 : 130);
    }
}
