/* What a person may do in a rollout: promote, pause, drain, skip, take back, try again; and what the
 * rollout says while it waits.
 */
#include <string.h>

#include "rollout_script.h"

TestSuite(rollout, .fini = free_rollout);

/* ---- promotion, pause, drain, skip, taking back ---- */

Test(rollout, manual_promotion_waits_after_each_wave_but_the_last) {
    with_hosts(3);
    fixture_add_wave(f, 1, false);
    fixture_add_wave(f, 2, false);
    f->policy.promote_manual = true;
    start_rollout();
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
    with_hosts(6);
    start_rollout();
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
    with_hosts(6);
    start_rollout();
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
    with_hosts(2);
    fixture_add_wave(f, 1, false);
    f->policy.promote_manual = true;
    start_rollout();
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

Test(rollout, person_skips_a_host_that_has_not_begun) {
    with_hosts(3);
    start_rollout();
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
    with_hosts(3);
    start_rollout();
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

Test(rollout, person_takes_back_who_is_in_flight_and_who_has_not_begun) {
    with_hosts(3);
    start_rollout();
    stage_all();
    expect("wave 1; activate h0");
    probe(0);
    control(ROLLOUT_CONTROL_TAKE_BACK, 0);
    control(ROLLOUT_CONTROL_TAKE_BACK, 1);
    expect("skip h1 stopped");
    failed(1, HOST_SKIPPED, "stopped");
    commit(0); /* it can't be asked in the middle, and goes back from there */
    expect("back h0; activate h2");
    end_back(0);
    cr_assert_eq(rollout_failures(r), 0);
}

Test(rollout, person_takes_all_back) {
    with_hosts(6);
    start_rollout();
    stage_all();
    expect("wave 1; activate h0; activate h1");
    go_well(0);
    control(ROLLOUT_CONTROL_TAKE_BACK, SIZE_MAX);
    expect("stop stopped; skip h2 stopped; skip h3 stopped; skip h4 stopped; skip h5 stopped; "
           "back h0");
}

Test(rollout, canary_that_a_person_skipped_says_nothing) {
    with_hosts(2);
    fixture_add_wave(f, 1, false);
    start_rollout();
    answer(0);
    answer(1);
    expect("wave 1");
    control(ROLLOUT_CONTROL_SKIP, 0);
    expect("skip h0 stopped");
    failed(0, HOST_SKIPPED, "stopped");
    stage(1);
    expect("end-wave 1; wave 2; activate h1");
}

Test(rollout, says_why_a_host_can_be_neither_skipped_nor_taken_back) {
    with_hosts(4);
    fixture_limit(f, NULL, 2);
    f->hosts[1].policy.rollback = false;
    f->policy.max_failed = (struct inv_amount){.value = 2};
    start_rollout();
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

Test(rollout, says_why_it_waits_at_every_time) {
    with_hosts(3);
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
    with_hosts(2);
    f->policy.max_failed = (struct inv_amount){.value = 1};
    fixture_limit(f, NULL, 1);
    start_rollout();
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
    with_hosts(1);
    f->policy.max_failed = (struct inv_amount){.value = 5};
    start_rollout();
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
    with_hosts(4);
    fixture_add_wave(f, 2, false);
    fixture_limit(f, NULL, 2);
    start_rollout();
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
    with_hosts(3);
    fixture_add_wave(f, 1, false);
    start_rollout();
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
    with_hosts(4);
    fixture_add_wave(f, 2, false);
    fixture_limit(f, NULL, 1);
    f->policy.max_unreachable = (struct inv_amount){.value = 1};
    start_rollout();
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
    with_hosts(2);
    f->policy.bake_ms = 1000;
    f->policy.max_failed = (struct inv_amount){.value = 1};
    start_rollout();
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
    with_hosts(2);
    fixture_add_wave(f, 1, false);
    f->policy.promote_manual = true;
    f->policy.max_failed = (struct inv_amount){.value = 1};
    f->policy.max_unreachable = (struct inv_amount){.value = 2};
    f->hosts[0].policy.rollback = false;
    start_rollout();
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
    with_hosts(2);
    f->policy.max_failed = (struct inv_amount){.value = 1};
    start_rollout();
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
    with_hosts(2);
    start_rollout();
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
    with_hosts(5);
    f->policy.max_failed = (struct inv_amount){.value = 4};
    fixture_limit(f, NULL, 3);
    start_rollout();
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
    with_hosts(3);
    f->policy.on_failure = INV_ON_FAILURE_ROLLBACK_ALL;
    fixture_limit(f, NULL, 2);
    start_rollout();
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
