#include <criterion/criterion.h>

#include "core/rollout_slots.h"

static struct slots *slots;

static void free_slots(void) {
    slots_free(slots);
    slots = NULL;
}

TestSuite(rollout_slots, .fini = free_slots);

#define NOBODY SIZE_MAX

static size_t pop(bool all) {
    size_t host = NOBODY;
    return slots_pop(slots, all, &host) ? host : NOBODY;
}

/* `count` hosts wait; the first three are in a group that takes one at a time. */
static void narrow_group(size_t count) {
    slots = slots_new(count, 10);
    size_t group = slots_add_group(slots, 1);
    for (size_t i = 0; i < count; i++) {
        if (i < 3) {
            slots_join(slots, i, group);
        }
        slots_push(slots, i, i, false);
    }
}

Test(rollout_slots, lowest_rank_goes_first) {
    slots = slots_new(3, 10);
    slots_push(slots, 0, 5, false);
    slots_push(slots, 1, 3, false);
    slots_push(slots, 2, 4, false);
    slots_push(slots, 0, 1, false);
    cr_assert_eq(slots_waiting(slots), 3);
    cr_assert_eq(pop(true), 0);
    cr_assert_eq(pop(true), 1);
    cr_assert_eq(pop(true), 2);
    cr_assert_eq(pop(true), NOBODY, "an old rank is forgotten");
    cr_assert_eq(slots_used(slots), 3);
}

Test(rollout_slots, overall_limit_binds_all_but_urgent_ones) {
    slots = slots_new(4, 1);
    for (size_t i = 0; i < 4; i++) {
        slots_push(slots, i, i, i >= 2);
    }
    cr_assert_eq(pop(true), 2);
    cr_assert_eq(pop(false), 3);
    cr_assert_eq(pop(false), NOBODY);
    cr_assert_eq(pop(true), 0);
    cr_assert_eq(pop(true), NOBODY);
    slots_release(slots, 2);
    cr_assert_eq(pop(true), NOBODY, "an urgent one had no slot to give back");
    slots_release(slots, 0);
    cr_assert_eq(pop(true), 1);
}

Test(rollout_slots, full_group_holds_its_own_up_and_nobody_else) {
    narrow_group(4);
    cr_assert_eq(pop(true), 0);
    cr_assert_eq(pop(true), 3);
    cr_assert_eq(pop(true), NOBODY);
    cr_assert_eq(slots_waiting(slots), 2);
    slots_release(slots, 0);
    slots_release(slots, 0);
    cr_assert_eq(pop(true), 1);
    cr_assert_eq(pop(true), NOBODY);
}

Test(rollout_slots, room_goes_on_to_the_next_when_a_host_waits_no_longer) {
    narrow_group(3);
    cr_assert_eq(pop(true), 0);
    cr_assert_eq(pop(true), NOBODY);
    slots_release(slots, 0);
    slots_withdraw(slots, 1);
    cr_assert_eq(pop(true), 2);
}

Test(rollout_slots, room_goes_on_to_the_next_when_another_group_is_full) {
    narrow_group(4);
    size_t other = slots_add_group(slots, 1);
    slots_join(slots, 1, other);
    slots_join(slots, 3, other);
    cr_assert_eq(pop(true), 0);
    cr_assert_eq(pop(true), 3);
    cr_assert_eq(pop(true), NOBODY);
    slots_release(slots, 0);
    cr_assert_eq(pop(true), 2);
    slots_release(slots, 2);
    slots_release(slots, 3);
    cr_assert_eq(pop(true), 1);
}

Test(rollout_slots, host_under_way_takes_its_slots_whatever_the_limits) {
    narrow_group(3);
    slots_take(slots, 0);
    slots_take(slots, 1);
    slots_take(slots, 1);
    cr_assert_eq(slots_used(slots), 2);
    cr_assert(slots_holds(slots, 1));
    slots_release(slots, 0);
    cr_assert_eq(pop(true), NOBODY);
    slots_release(slots, 1);
    cr_assert_eq(pop(true), 2);
}

Test(rollout_slots, ten_thousand_in_one_narrow_group_are_cheap) {
    const size_t count = 10000;
    slots = slots_new(count, 10);
    size_t group = slots_add_group(slots, 1);
    for (size_t i = 0; i < count; i++) {
        slots_join(slots, i, group);
        slots_push(slots, i, i, false);
    }
    for (size_t i = 0; i < count; i++) {
        cr_assert_eq(pop(true), i);
        cr_assert_eq(pop(true), NOBODY);
        slots_release(slots, i);
    }
}
