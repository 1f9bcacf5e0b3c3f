/* A run that is taken up again: the states that its journal tells come before the start.
 */
#include "rollout_script.h"

TestSuite(rollout, .fini = free_rollout);

Test(rollout, resumed_run_goes_on_where_it_was) {
    with_hosts(4);
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
    with_hosts(1);
    r = fixture_rollout(f);
    moved(0, HOST_ACTIVATING);
    moved(0, HOST_ROLLING_BACK);
    rollout_start(r, now_ms);
    expect("wave 1");
    wants(0, ACT_ROLLBACK);
    expect("leave h0");
}

Test(rollout, resumed_host_that_begins_anew_waits_for_its_turn_again) {
    with_hosts(2);
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
    with_hosts(3);
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
    with_hosts(2);
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
