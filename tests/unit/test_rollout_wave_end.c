/* Healthy once is not healthy: each wave is probed again at its end, whatever `bake` is. How a bake
 * waits is tests/unit/test_rollout_budget.c's.
 */
#include "rollout_script.h"

TestSuite(rollout_wave_end, .fini = free_rollout);

/* Hosts with a probe each, waves of two, all of a wave at once. */
static void with_probed(size_t hosts) {
    with_hosts(hosts);
    for (size_t i = 0; i < hosts; i++) {
        f->hosts[i].health_count = 1;
    }
    fixture_limit(f, NULL, 2);
    fixture_add_wave(f, 2, false);
}

static void start_probed(size_t hosts) {
    with_probed(hosts);
    start_rollout();
    stage_all();
    expect("wave 1; activate h0; activate h1");
}

static void reprobed(size_t host, bool ok) {
    rollout_reprobed(r, host, ok, ++now_ms);
}

static void assert_waits(const char *want) {
    struct buf why = BUF_INIT;
    rollout_waiting(r, now_ms, &why);
    cr_assert_str_eq(buf_text(&why), want);
    buf_free(&why);
}

Test(rollout_wave_end, wave_is_probed_again_when_its_last_host_is_done) {
    start_probed(3);
    go_well(0);
    cr_assert(rollout_awaits_wave(r, 0));
    expect("");
    go_well(1);
    expect("reprobe h0; reprobe h1");
    reprobed(1, true);
    cr_assert(rollout_awaits_wave(r, 0));
    expect("");
    reprobed(0, true);
    expect("end-wave 1; wave 2; activate h2");
    cr_assert_not(rollout_awaits_wave(r, 0));
    go_well(2);
    expect("reprobe h2");
    reprobed(2, true);
    expect("end-wave 2; end");
    assert_exit(0, "done");
}

Test(rollout_wave_end, host_that_fails_then_goes_back_and_counts) {
    start_probed(3);
    go_well(0);
    go_well(1);
    expect("reprobe h0; reprobe h1");
    reprobed(0, false);
    reprobed(1, true);
    expect("back h0");
    end_back(0);
    expect("stop max-failed; skip h2 budget; end-wave 1");
    cr_assert_eq(rollout_failures(r), 1);
    failed(2, HOST_SKIPPED, "budget");
    expect("end");
    assert_exit(3, "failed");
}

Test(rollout_wave_end, hosts_that_have_nothing_to_ask_are_let_go_at_once) {
    with_probed(3);
    f->hosts[0].health_count = 0;
    start_rollout();
    stage_all();
    expect("wave 1; activate h0; activate h1");
    go_well(0);
    cr_assert_not(rollout_awaits_wave(r, 0));
    go_well(1);
    expect("reprobe h1");
    reprobed(1, true);
    expect("end-wave 1; wave 2; activate h2");
}

Test(rollout_wave_end, unchanged_hosts_are_not_asked) {
    with_probed(3);
    start_rollout();
    moved(0, HOST_UNCHANGED);
    moved(1, HOST_UNCHANGED);
    answer(2);
    cr_assert_not(rollout_awaits_wave(r, 0));
    expect("wave 1; end-wave 1; wave 2");
}

Test(rollout_wave_end, budget_that_is_passed_saves_nobody_the_look) {
    start_probed(3);
    go_well(0);
    go_back(1);
    expect("stop max-failed; skip h2 budget; reprobe h0");
    failed(2, HOST_SKIPPED, "budget");
    assert_waits("it stops, as more hosts failed than max_failed allows; "
                 "wave 1 is probed again: 1 host is left");
    reprobed(0, false);
    expect("back h0");
    end_back(0);
    expect("end-wave 1; end");
    cr_assert_eq(rollout_failures(r), 2);
}

Test(rollout_wave_end, drained_run_probes_what_it_has_changed) {
    start_probed(3);
    go_well(0);
    control(ROLLOUT_CONTROL_DRAIN, 0);
    expect("stop stopped; skip h2 stopped");
    go_well(1);
    expect("reprobe h0; reprobe h1");
    reprobed(0, true);
    reprobed(1, true);
    failed(2, HOST_SKIPPED, "budget");
    expect("end-wave 1; end");
}

Test(rollout_wave_end, stop_cuts_the_bake_short_and_not_the_look) {
    with_probed(3);
    f->policy.bake_ms = 60000;
    start_rollout();
    stage_all();
    expect("wave 1; activate h0; activate h1");
    go_well(0);
    go_well(1);
    expect("bake");
    control(ROLLOUT_CONTROL_DRAIN, 0);
    expect("stop stopped; skip h2 stopped; reprobe h0; reprobe h1");
}

Test(rollout_wave_end, who_goes_back_for_the_others_sake_is_not_asked) {
    with_probed(2);
    f->policy.on_failure = INV_ON_FAILURE_ROLLBACK_WAVE;
    start_rollout();
    stage_all();
    expect("wave 1; activate h0; activate h1");
    go_well(0);
    go_back(1);
    expect("stop max-failed; back h0");
    end_back(0);
    expect("end-wave 1; end");
}

/* Nothing begins in a pause, and what has begun is finished: the look is part of it. */
Test(rollout_wave_end, pause_does_not_hold_the_look_up) {
    start_probed(3);
    go_well(0);
    control(ROLLOUT_CONTROL_PAUSE, 0);
    expect("pause paused");
    go_well(1);
    expect("reprobe h0; reprobe h1");
    assert_waits("it is paused by a person; wave 1 is probed again: 2 hosts are left");
    reprobed(0, true);
    reprobed(1, true);
    expect("end-wave 1");
    control(ROLLOUT_CONTROL_PROMOTE, 0);
    expect("wave 2; activate h2");
}

Test(rollout_wave_end, promotion_is_asked_for_after_the_look) {
    with_probed(3);
    f->policy.promote_manual = true;
    start_rollout();
    stage_all();
    expect("wave 1; activate h0; activate h1");
    go_well(0);
    go_well(1);
    expect("reprobe h0; reprobe h1");
    reprobed(0, true);
    reprobed(1, true);
    expect("end-wave 1; pause promote");
}

Test(rollout_wave_end, host_without_a_way_back_ends_failed) {
    with_probed(2);
    f->hosts[0].policy.rollback = false;
    start_rollout();
    stage_all();
    expect("wave 1; activate h0; activate h1");
    go_well(0);
    go_well(1);
    expect("reprobe h0; reprobe h1");
    reprobed(0, false);
    reprobed(1, true);
    expect("leave h0 bake; stop max-failed; end-wave 1; end");
    assert_exit(3, "failed");
}

Test(rollout_wave_end, host_of_an_earlier_wave_that_is_tried_again_is_probed_with_the_next) {
    with_probed(4);
    f->policy.max_failed.value = 1;
    start_rollout();
    stage_all();
    expect("wave 1; activate h0; activate h1");
    go_well(0);
    go_back(1);
    expect("reprobe h0");
    reprobed(0, true);
    expect("end-wave 1; wave 2; activate h2; activate h3");
    struct buf why = BUF_INIT;
    cr_assert(rollout_retry(r, 1, ++now_ms, &why), "%s", buf_text(&why));
    buf_free(&why);
    answer(1);
    stage(1);
    expect("retry h1");
    go_well(2);
    expect("activate h1");
    go_well(1);
    cr_assert(rollout_awaits_wave(r, 1));
    go_well(3);
    expect("reprobe h1; reprobe h2; reprobe h3");
}

/* Its healthy hosts have nobody who could ask them: they are not connected to. */
Test(rollout_wave_end,
     wave_that_was_over_before_the_run_was_resumed_is_not_asked_when_it_comes_again) {
    with_probed(3);
    f->policy.max_failed.value = 1;
    r = fixture_rollout(f);
    moved(0, HOST_ACTIVATING);
    moved(0, HOST_HEALTHY);
    moved(1, HOST_ACTIVATING);
    moved(1, HOST_ROLLED_BACK);
    moved(2, HOST_UNCHANGED);
    rollout_resume(r, 1, false);
    rollout_start(r, ++now_ms);
    struct buf why = BUF_INIT;
    cr_assert(rollout_retry(r, 1, ++now_ms, &why), "%s", buf_text(&why));
    buf_free(&why);
    answer(1);
    stage(1);
    expect("retry h1; wave 1; activate h1");
    go_well(1);
    expect("reprobe h1");
}
