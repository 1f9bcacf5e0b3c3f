#include "core/state.h"

#include <string.h>

#include "core/base/xalloc.h"

static const char *const state_names[] = {
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
_Static_assert(ARRAY_LEN(state_names) == HOST_STATE_COUNT, "a name for every state");

static const char *const action_names[] = {
    [ACTION_SWITCH] = "switch",     [ACTION_BOOT] = "boot",
    [ACTION_TEST] = "test",         [ACTION_DRY_ACTIVATE] = "dry-activate",
    [ACTION_PUSH] = "push",         [ACTION_BUILD] = "build",
    [ACTION_ROLLBACK] = "rollback", [ACTION_REBOOT] = "reboot",
};
_Static_assert(ARRAY_LEN(action_names) == ACTION_COUNT, "a name for every action");

static const char *const act_names[] = {
    [ACT_COPY] = "copy",         [ACT_ACTIVATE] = "activate", [ACT_COMMIT] = "commit",
    [ACT_ROLLBACK] = "rollback", [ACT_REBOOT] = "reboot",     [ACT_SECRET] = "secret",
};
_Static_assert(ARRAY_LEN(act_names) == ACT_COUNT, "a name for every act");

/* The index of `name`, or `count`. */
static int name_index(const char *const *names, int count, const char *name) {
    int i = 0;
    while (i < count && strcmp(names[i], name) != 0) {
        i++;
    }
    return i;
}

const char *host_state_name(enum host_state state) {
    return state_names[state];
}

enum host_state host_state_parse(const char *name) {
    return (enum host_state)name_index(state_names, HOST_STATE_COUNT, name);
}

bool host_state_is_end(enum host_state state) {
    return state >= HOST_HEALTHY && state < HOST_STATE_COUNT;
}

const char *run_action_name(enum run_action action) {
    return action_names[action];
}

enum run_action run_action_parse(const char *name) {
    return (enum run_action)name_index(action_names, ACTION_COUNT, name);
}

const char *act_name(enum act act) {
    return act_names[act];
}

enum act act_parse(const char *name) {
    return (enum act)name_index(act_names, ACT_COUNT, name);
}
