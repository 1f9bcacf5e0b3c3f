/* The policy, rule by rule: waves, slots, copies, order, and what each action does. Budgets and ways
 * back are in test_rollout_budget.c, persons in test_rollout_control.c, resume in
 * test_rollout_resume.c.
 */
#include <stdlib.h>

#include "core/base/xalloc.h"
#include "rollout_script.h"

TestSuite(rollout, .fini = free_rollout);

/* ---- waves ---- */

Test(rollout, waves_are_cumulative_and_rounded_up) {
    with_hosts(12);
    fixture_add_wave(f, 1, false);
    fixture_add_wave(f, 10, true);
    fixture_add_wave(f, 100, true);
    start_rollout();
    cr_assert_str_eq(waves_text(), "123333333333");
    cr_assert_eq(rollout_wave_count(r), 3);
    cr_assert_eq(rollout_wave_size(r, 3), 10);
}

Test(rollout, wave_that_adds_no_host_is_left_out) {
    with_hosts(6);
    fixture_add_wave(f, 1, false);
    fixture_add_wave(f, 10, true);
    fixture_add_wave(f, 100, true);
    start_rollout();
    cr_assert_str_eq(waves_text(), "122222");
}

Test(rollout, waves_end_in_everything) {
    with_hosts(6);
    fixture_add_wave(f, 2, false);
    start_rollout();
    cr_assert_str_eq(waves_text(), "112222");
}

Test(rollout, waves_by_name_then_by_size) {
    with_hosts(8);
    fixture_tag(f, 2, "canary");
    fixture_tag(f, 4, "web");
    fixture_tag(f, 7, "web");
    fixture_add_tag_wave(f, "canary");
    fixture_add_tag_wave(f, "web");
    fixture_add_tag_wave(f, "nobody");
    fixture_add_wave(f, 50, true);
    start_rollout();
    cr_assert_str_eq(waves_text(), "34142442");
}

Test(rollout, no_waves_means_one) {
    with_hosts(3);
    start_rollout();
    cr_assert_str_eq(waves_text(), "111");
}

Test(rollout, no_hosts_end_at_once) {
    with_hosts(0);
    start_rollout();
    expect("end");
    assert_exit(0, "done");
}

Test(rollout, shuffle_is_by_seed) {
    with_hosts(30);
    f->policy.order = INV_ORDER_SHUFFLE;
    fixture_add_wave(f, 10, false);
    f->seed = 1;
    start_rollout();
    char *first = xstrdup(waves_text());
    rollout_free(r);
    start_rollout();
    cr_assert_str_eq(waves_text(), first, "same seed, same waves");
    rollout_free(r);
    f->seed = 2;
    start_rollout();
    cr_assert_str_neq(waves_text(), first);
    cr_assert_eq(rollout_wave_size(r, 1), 10);
    free(first);
}

Test(rollout, known_unhealthy_hosts_are_in_the_first_wave) {
    with_hosts(4);
    fixture_add_wave(f, 1, false);
    r = fixture_rollout(f);
    rollout_unhealthy_before(r, 3);
    rollout_start(r, now_ms);
    cr_assert_str_eq(waves_text(), "2221");
}

/* ---- slots ---- */

Test(rollout, default_slots_are_a_third_and_at_most_ten) {
    with_hosts(7);
    start_rollout();
    stage_all();
    expect("wave 1; activate h0; activate h1");
    free_rollout();
    with_hosts(60);
    start_rollout();
    stage_all();
    expect("wave 1; activate h0; activate h1; activate h2; activate h3; activate h4; activate h5; "
           "activate h6; activate h7; activate h8; activate h9");
}

Test(rollout, free_slot_is_filled_at_once) {
    with_hosts(4);
    fixture_limit(f, NULL, 2);
    start_rollout();
    stage_all();
    expect("wave 1; activate h0; activate h1");
    go_well(1);
    expect("activate h2");
    expect("");
    go_well(0);
    expect("activate h3");
}

Test(rollout, given_max_parallel_is_taken_as_it_stands) {
    with_hosts(3);
    fixture_limit(f, NULL, 50);
    start_rollout();
    stage_all();
    expect("wave 1; activate h0; activate h1; activate h2");
}

Test(rollout, tag_limit_bounds_its_hosts_only) {
    with_hosts(5);
    fixture_limit(f, NULL, 5);
    fixture_limit(f, "db", 1);
    fixture_tag(f, 0, "db");
    fixture_tag(f, 1, "db");
    fixture_tag(f, 2, "db");
    start_rollout();
    stage_all();
    expect("wave 1; activate h0; activate h3; activate h4");
    go_well(0);
    expect("activate h1");
}

Test(rollout, exclusive_group_is_never_two_in_flight) {
    with_hosts(3);
    fixture_limit(f, NULL, 3);
    f->hosts[0].policy.exclusive = "pair";
    f->hosts[2].policy.exclusive = "pair";
    start_rollout();
    stage_all();
    expect("wave 1; activate h0; activate h1");
    go_back(0);
    f->policy.max_failed.value = 9;
    expect("stop max-failed; skip h2 budget");
}

Test(rollout, unchanged_hosts_hold_no_slot) {
    with_hosts(4);
    fixture_limit(f, NULL, 1);
    start_rollout();
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
    with_hosts(3);
    fixture_limit(f, NULL, 3);
    f->limits[0].has_copy_parallel = true;
    f->limits[0].copy_parallel = 2;
    start_rollout();
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
    with_hosts(3);
    fixture_limit(f, "db", 3);
    f->limits[0].has_max_parallel = false;
    f->limits[0].has_copy_parallel = true;
    f->limits[0].copy_parallel = 1;
    fixture_tag(f, 0, "db");
    fixture_tag(f, 2, "db");
    start_rollout();
    for (size_t i = 0; i < 3; i++) {
        answer(i);
        moved(i, HOST_STAGING);
        wants(i, ACT_COPY);
    }
    expect("wave 1; copy h0; copy h1");
    moved(0, HOST_STAGED);
    expect("copy h2");
}

/* Health gating, 11: a straggler does not block its batch. */
Test(rollout, straggler_does_not_block_its_batch) {
    with_hosts(5);
    fixture_limit(f, NULL, 2);
    start_rollout();
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

/* ---- prestage ---- */

static void ask_copies(enum inv_prestage prestage) {
    with_hosts(3);
    fixture_add_wave(f, 1, false);
    fixture_add_wave(f, 2, false);
    f->policy.prestage = prestage;
    start_rollout();
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

/* ---- order ---- */

/* Health gating, 13: who is unhealthy goes first, the last healthy member never goes down. */
Test(rollout, unhealthy_hosts_go_first) {
    with_hosts(3);
    start_rollout();
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
    with_hosts(3);
    f->policy.order = INV_ORDER_INVENTORY;
    start_rollout();
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
    with_hosts(2);
    fixture_limit(f, NULL, 2);
    f->policy.max_failed.value = 2;
    f->hosts[0].policy.exclusive = "pair";
    f->hosts[1].policy.exclusive = "pair";
    start_rollout();
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
    with_hosts(3);
    fixture_add_wave(f, 1, false);
    f->action = ACTION_PUSH;
    start_rollout();
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
    with_hosts(2);
    fixture_add_wave(f, 1, false);
    f->action = ACTION_BOOT;
    start_rollout();
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
    with_hosts(1);
    start_rollout();
    stage_all();
    expect("wave 1; activate h0");
    moved(0, HOST_ACTIVATING);
    failed(0, HOST_REBOOT_REQUIRED, "reboot-required");
    expect("end-wave 1; end");
    assert_exit(3, "failed");
}

Test(rollout, reboot_goes_in_waves) {
    with_hosts(2);
    fixture_add_wave(f, 1, false);
    f->action = ACTION_REBOOT;
    start_rollout();
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
    with_hosts(1);
    start_rollout();
    stage_all();
    expect("wave 1; activate h0");
    probe(0);
    wants(0, ACT_COMMIT);
    wants(0, ACT_REBOOT);
    expect("commit h0; reboot h0");
}

Test(rollout, secret_before_the_activation_takes_the_slot) {
    with_hosts(3);
    start_rollout();
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

Test(rollout, dry_activate_ends_staged_a_second_time) {
    with_hosts(2);
    fixture_add_wave(f, 1, false);
    f->action = ACTION_DRY_ACTIVATE;
    start_rollout();
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
