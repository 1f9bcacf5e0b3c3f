/* The states of a host in a run, as events, journal and displays name them (CONTRACT, Host states).
 */
#ifndef FLEET_CORE_STATE_H
#define FLEET_CORE_STATE_H

#include <stdbool.h>

enum host_state {
    HOST_PENDING,
    HOST_CONNECTING,
    HOST_BUILDING,
    HOST_STAGING,
    HOST_STAGED,
    HOST_ACTIVATING,
    HOST_CONFIRMING,
    HOST_PROBING,
    HOST_COMMITTING,
    HOST_REBOOTING,
    HOST_ROLLING_BACK,
    /* ends */
    HOST_HEALTHY,
    HOST_UNCHANGED,
    HOST_FAILED,
    HOST_ROLLED_BACK,
    HOST_ROLLBACK_FAILED,
    HOST_UNREACHABLE,
    HOST_SKIPPED,
    HOST_REBOOT_REQUIRED,
    HOST_UNKNOWN,
    HOST_STATE_COUNT
};

/* "rolled_back"; never NULL. */
const char *host_state_name(enum host_state state);
/* The state of that name, or HOST_STATE_COUNT. */
enum host_state host_state_parse(const char *name);
/* An end as far as the host's own pipeline goes (STAGED is one only for `push`). */
bool host_state_is_end(enum host_state state);

/* What a run does (`run_start.action`). */
enum run_action {
    ACTION_SWITCH,
    ACTION_BOOT,
    ACTION_TEST,
    ACTION_DRY_ACTIVATE,
    ACTION_PUSH,
    ACTION_BUILD,
    ACTION_ROLLBACK,
    ACTION_REBOOT,
    ACTION_COUNT
};
const char *run_action_name(enum run_action action);
enum run_action run_action_parse(const char *name);

/* Acts with an effect on a host: granted by the coordinator, on disk before they happen. */
enum act {
    ACT_COPY,
    ACT_ACTIVATE,
    ACT_COMMIT,
    ACT_ROLLBACK,
    ACT_REBOOT,
    ACT_SECRET,
    ACT_COUNT
};
const char *act_name(enum act act);
enum act act_parse(const char *name);

#endif
