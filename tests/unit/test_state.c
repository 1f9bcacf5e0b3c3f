#include <criterion/criterion.h>
#include <string.h>

#include "core/state.h"

Test(state, names_are_those_of_the_contract) {
    static const char *const names[HOST_STATE_COUNT] = {
        [HOST_PENDING] = "pending",
        [HOST_CONNECTING] = "connecting",
        [HOST_BUILDING] = "building",
        [HOST_STAGING] = "staging",
        [HOST_STAGED] = "staged",
        [HOST_ACTIVATING] = "activating",
        [HOST_CONFIRMING] = "confirming",
        [HOST_PROBING] = "probing",
        [HOST_COMMITTING] = "committing",
        [HOST_REBOOTING] = "rebooting",
        [HOST_ROLLING_BACK] = "rolling_back",
        [HOST_HEALTHY] = "healthy",
        [HOST_UNCHANGED] = "unchanged",
        [HOST_FAILED] = "failed",
        [HOST_ROLLED_BACK] = "rolled_back",
        [HOST_ROLLBACK_FAILED] = "rollback_failed",
        [HOST_UNREACHABLE] = "unreachable",
        [HOST_SKIPPED] = "skipped",
        [HOST_REBOOT_REQUIRED] = "reboot_required",
        [HOST_UNKNOWN] = "unknown",
    };
    for (int state = 0; state < HOST_STATE_COUNT; state++) {
        cr_assert_str_eq(host_state_name((enum host_state)state), names[state]);
        cr_assert_eq(host_state_parse(names[state]), (enum host_state)state);
    }
    cr_assert_eq(host_state_parse("healthyy"), HOST_STATE_COUNT);
    cr_assert_eq(host_state_parse(""), HOST_STATE_COUNT);
}

Test(state, ends_are_those_of_the_contract) {
    static const char ends[] = "healthy unchanged failed rolled_back rollback_failed unreachable "
                               "skipped reboot_required unknown";
    for (int state = 0; state < HOST_STATE_COUNT; state++) {
        const char *name = host_state_name((enum host_state)state);
        cr_assert_eq(host_state_is_end((enum host_state)state), strstr(ends, name) != NULL, "%s",
                     name);
    }
}

Test(state, actions_and_acts_parse_back) {
    for (int action = 0; action < ACTION_COUNT; action++) {
        cr_assert_eq(run_action_parse(run_action_name((enum run_action)action)),
                     (enum run_action)action);
    }
    for (int act = 0; act < ACT_COUNT; act++) {
        cr_assert_eq(act_parse(act_name((enum act)act)), (enum act)act);
    }
    cr_assert_eq(run_action_parse("dance"), ACTION_COUNT);
    cr_assert_eq(act_parse("dance"), ACT_COUNT);
}
