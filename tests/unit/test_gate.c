/* The gate's rules, with a clock of our own. */
#include <criterion/criterion.h>

#include "healthcheck/gate.h"

static const struct gate_policy usual = {
    .startup_grace_ms = 5000, .min_healthy_ms = 10000, .deadline_ms = 300000};
static const struct gate_probe probe = {.successes = 1, .failures = 3};

static struct gate *one(const struct gate_policy *policy) {
    return gate_new(policy, &probe, 1, 1000);
}

/* A try that takes no time. */
static bool at(struct gate *gate, uint64_t now, enum gate_outcome outcome) {
    return gate_result(gate, 0, outcome, now, now);
}

/* Health gating, 6: the healthy time starts at the first pass; a failure starts it anew. */
Test(gate, is_healthy_after_min_healthy_time_from_the_first_pass) {
    struct gate *gate = one(&usual);
    cr_assert_eq(gate_verdict(gate, 1000), GATE_WAITING);
    at(gate, 3000, GATE_PASS);
    at(gate, 8000, GATE_PASS);
    cr_assert_eq(gate_wake_ms(gate, 8000), 13000);
    cr_assert_eq(gate_verdict(gate, 12999), GATE_WAITING);
    at(gate, 13000, GATE_PASS);
    cr_assert_eq(gate_verdict(gate, 13000), GATE_HEALTHY);
    cr_assert_eq(gate_passing_ms(gate, 13000), 10000);
    gate_free(gate);
}

Test(gate, wants_a_last_look_that_began_after_min_healthy_time) {
    struct gate *gate = one(&usual);
    at(gate, 1000, GATE_PASS);
    at(gate, 10000, GATE_PASS);
    cr_assert_not(gate_wants_look(gate, 0, 10999));
    cr_assert(gate_wants_look(gate, 0, 11000));
    cr_assert_eq(gate_verdict(gate, 11000), GATE_WAITING, "it may have died at 10.5 s");
    cr_assert_eq(gate_wake_ms(gate, 11000), UINT64_MAX, "only a result can help now");
    gate_result(gate, 0, GATE_PASS, 10500, 11100);
    cr_assert_eq(gate_verdict(gate, 11100), GATE_WAITING, "that try began too early");
    gate_result(gate, 0, GATE_PASS, 11100, 11200);
    cr_assert_not(gate_wants_look(gate, 0, 11200));
    cr_assert_eq(gate_verdict(gate, 11200), GATE_HEALTHY);
    gate_free(gate);
}

Test(gate, a_last_look_that_fails_starts_the_time_anew) {
    struct gate *gate = one(&usual);
    at(gate, 1000, GATE_PASS);
    at(gate, 11000, GATE_FAIL);
    cr_assert_eq(gate_verdict(gate, 11000), GATE_WAITING);
    cr_assert_eq(gate_passing_ms(gate, 11000), 0);
    at(gate, 12000, GATE_PASS);
    cr_assert_eq(gate_wake_ms(gate, 12000), 22000);
    gate_free(gate);
}

Test(gate, counts_failures_in_a_row_after_the_first_pass) {
    struct gate *gate = one(&usual);
    at(gate, 7000, GATE_PASS);
    cr_assert(at(gate, 8000, GATE_FAIL));
    at(gate, 9000, GATE_FAIL);
    at(gate, 10000, GATE_PASS);
    at(gate, 11000, GATE_FAIL);
    at(gate, 12000, GATE_FAIL);
    cr_assert_eq(gate_verdict(gate, 12000), GATE_WAITING);
    cr_assert_eq(gate_failed_in_row(gate, 0), 2);
    at(gate, 13000, GATE_FAIL);
    cr_assert_eq(gate_verdict(gate, 13000), GATE_UNHEALTHY);
    cr_assert_eq(gate_blame(gate).probe, 0);
    cr_assert_eq(gate_blame(gate).in_row, 3);
    cr_assert_not(gate_blame(gate).deadline);
    gate_free(gate);
}

Test(gate, before_the_first_pass_only_the_deadline_ends_the_wait) {
    struct gate *gate = one(&usual);
    for (uint64_t now = 7000; now < 300000; now += 5000) {
        cr_assert(at(gate, now, GATE_FAIL));
        cr_assert_eq(gate_verdict(gate, now), GATE_WAITING);
    }
    cr_assert_eq(gate_failures_allowed(gate, 0), 0);
    cr_assert_eq(gate_wake_ms(gate, 300000), 301000);
    cr_assert_eq(gate_wake_ms(gate, 302000), 302000, "it is due, not over");
    cr_assert_eq(gate_verdict(gate, 301000), GATE_UNHEALTHY);
    cr_assert(gate_blame(gate).deadline);
    cr_assert_eq(gate_blame(gate).probe, 0);
    gate_free(gate);
}

Test(gate, fail_fast_counts_from_the_grace_time_on) {
    struct gate_policy policy = usual;
    policy.fail_fast = true;
    struct gate *gate = one(&policy);
    cr_assert_not(at(gate, 5999, GATE_FAIL));
    at(gate, 6000, GATE_FAIL);
    at(gate, 7000, GATE_FAIL);
    cr_assert_eq(gate_verdict(gate, 7000), GATE_WAITING);
    at(gate, 8000, GATE_FAIL);
    cr_assert_eq(gate_verdict(gate, 8000), GATE_UNHEALTHY);
    gate_free(gate);
}

Test(gate, failures_in_the_grace_time_do_not_count_but_break_the_healthy_time) {
    struct gate *gate = one(&usual);
    at(gate, 1000, GATE_PASS);
    cr_assert_not(at(gate, 2000, GATE_FAIL_CONCLUSIVE));
    cr_assert_not(at(gate, 3000, GATE_FAIL));
    cr_assert_not(at(gate, 4000, GATE_FAIL));
    cr_assert_eq(gate_verdict(gate, 4000), GATE_WAITING);
    at(gate, 5000, GATE_PASS);
    cr_assert_eq(gate_wake_ms(gate, 5000), 15000);
    gate_free(gate);
}

Test(gate, a_conclusive_failure_is_the_end_even_before_a_pass) {
    struct gate *gate = one(&usual);
    cr_assert(at(gate, 6000, GATE_FAIL_CONCLUSIVE));
    cr_assert_eq(gate_verdict(gate, 6000), GATE_UNHEALTHY);
    cr_assert(gate_blame(gate).conclusive);
    at(gate, 7000, GATE_PASS);
    cr_assert_eq(gate_verdict(gate, 400000), GATE_UNHEALTHY, "it is final");
    gate_free(gate);
}

Test(gate, healthy_once_is_not_healthy) {
    struct gate *gate = one(&usual);
    at(gate, 1000, GATE_PASS);
    at(gate, 11000, GATE_PASS);
    cr_assert_eq(gate_verdict(gate, 11000), GATE_HEALTHY);
    cr_assert_eq(gate_verdict(gate, 400000), GATE_HEALTHY, "the deadline is over with");
    at(gate, 400000, GATE_FAIL);
    cr_assert_eq(gate_wake_ms(gate, 400000), UINT64_MAX, "only results count by now");
    at(gate, 400001, GATE_FAIL);
    cr_assert_eq(gate_verdict(gate, 400001), GATE_HEALTHY);
    at(gate, 400002, GATE_FAIL);
    cr_assert_eq(gate_verdict(gate, 400002), GATE_UNHEALTHY);
    gate_free(gate);
}

Test(gate, every_probe_has_to_pass_at_once) {
    const struct gate_probe two[] = {probe, {.successes = 2, .failures = 3}};
    struct gate *gate = gate_new(&usual, two, 2, 0);
    gate_result(gate, 0, GATE_PASS, 0, 0);
    gate_result(gate, 1, GATE_PASS, 0, 0);
    cr_assert_eq(gate_passing_ms(gate, 4000), 0, "the second one wants two passes");
    gate_result(gate, 1, GATE_PASS, 4000, 4000);
    cr_assert_eq(gate_passing_ms(gate, 5000), 1000);
    gate_result(gate, 0, GATE_PASS, 14000, 14000);
    cr_assert_eq(gate_verdict(gate, 14000), GATE_WAITING);
    cr_assert(gate_wants_look(gate, 1, 14000));
    gate_result(gate, 1, GATE_PASS, 14000, 14001);
    cr_assert_eq(gate_verdict(gate, 14001), GATE_HEALTHY);
    gate_free(gate);
}

Test(gate, an_excused_probe_has_no_say) {
    const struct gate_probe two[] = {probe, {.successes = 1, .failures = 1, .excused = true}};
    struct gate *gate = gate_new(&usual, two, 2, 0);
    gate_result(gate, 0, GATE_PASS, 0, 0);
    cr_assert_not(gate_result(gate, 1, GATE_FAIL_CONCLUSIVE, 9000, 9000));
    gate_result(gate, 0, GATE_PASS, 10000, 10000);
    cr_assert_eq(gate_verdict(gate, 10000), GATE_HEALTHY);
    gate_free(gate);
    /* Nor is it blamed for what another one does not do. */
    const struct gate_probe excused_first[] = {{.excused = true}, probe};
    gate = gate_new(&usual, excused_first, 2, 0);
    gate_result(gate, 0, GATE_FAIL, 9000, 9000);
    cr_assert_eq(gate_verdict(gate, 300000), GATE_UNHEALTHY);
    cr_assert_eq(gate_blame(gate).probe, 1);
    gate_free(gate);
}

Test(gate, no_deadline_is_none_and_no_count_is_one) {
    const struct gate_policy patient = {.min_healthy_ms = 10000};
    const struct gate_probe unsaid = {0};
    struct gate *gate = gate_new(&patient, &unsaid, 1, 0);
    at(gate, 1000, GATE_FAIL);
    cr_assert_eq(gate_verdict(gate, 1000000000), GATE_WAITING, "nothing has passed yet");
    at(gate, 1000000000, GATE_PASS);
    at(gate, 1000005000, GATE_FAIL);
    cr_assert_eq(gate_verdict(gate, 1000005000), GATE_UNHEALTHY);
    gate_free(gate);
}

Test(gate, at_the_deadline_passing_too_late_is_too_late) {
    struct gate *gate = one(&usual);
    at(gate, 295000, GATE_PASS);
    cr_assert_eq(gate_wake_ms(gate, 295000), 301000);
    cr_assert_eq(gate_verdict(gate, 301000), GATE_UNHEALTHY);
    cr_assert_eq(gate_blame(gate).probe, SIZE_MAX, "each one was passing");
    gate_free(gate);
    /* Seen only after both times have passed, the earlier one still decides. */
    gate = one(&usual);
    at(gate, 295000, GATE_PASS);
    at(gate, 306000, GATE_PASS);
    cr_assert_eq(gate_verdict(gate, 306000), GATE_UNHEALTHY);
    gate_free(gate);
}

Test(gate, the_last_look_may_end_after_the_deadline) {
    struct gate *gate = one(&usual);
    at(gate, 290900, GATE_PASS);
    cr_assert_eq(gate_verdict(gate, 301500), GATE_WAITING);
    gate_result(gate, 0, GATE_PASS, 300900, 301600);
    cr_assert_eq(gate_verdict(gate, 301600), GATE_HEALTHY);
    gate_free(gate);
}

Test(gate, now_needs_one_pass_and_nothing_to_watch_needs_none) {
    struct gate_policy policy = usual;
    policy.min_healthy_ms = 0;
    struct gate *gate = one(&policy);
    at(gate, 1000, GATE_PASS);
    cr_assert_eq(gate_verdict(gate, 1000), GATE_HEALTHY);
    gate_free(gate);
    gate = gate_new(&policy, NULL, 0, 5);
    cr_assert_eq(gate_verdict(gate, 5), GATE_HEALTHY);
    gate_free(gate);
}

Test(gate, one_round_is_decided_when_each_has_answered) {
    const struct gate_policy policy = {
        .startup_grace_ms = 5000, .min_healthy_ms = 10000, .deadline_ms = 1, .one_round = true};
    const struct gate_probe twice = {.successes = 2, .failures = 3};
    const struct gate_probe three[] = {twice, probe, {.excused = true}};
    struct gate *gate = gate_new(&policy, three, 3, 0);
    cr_assert(gate_result(gate, 1, GATE_FAIL_CONCLUSIVE, 0, 9),
              "there is no grace time in one round");
    gate_result(gate, 0, GATE_PASS, 0, 10);
    cr_assert_eq(gate_verdict(gate, 10), GATE_WAITING);
    gate_result(gate, 2, GATE_FAIL, 0, 11);
    cr_assert_eq(gate_verdict(gate, 11), GATE_UNHEALTHY);
    cr_assert_eq(gate_blame(gate).probe, 1);
    gate_free(gate);
    gate = gate_new(&policy, three, 1, 0);
    gate_result(gate, 0, GATE_PASS, 0, 10);
    cr_assert_eq(gate_verdict(gate, 10), GATE_HEALTHY,
                 "one pass is a round, whatever `successes` is");
    gate_free(gate);
}
