/* What a host says of itself, judged (see status.h). */
#include "core/status.h"

#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"

static const struct {
    const char *code;
    const char *words;
} drifts[DRIFT_COUNT] = {
    [DRIFT_NOT_COMMITTED] = {"not-committed", "runs something else than its profile: activated "
                                              "and not committed, or changed by hand"},
    [DRIFT_NOT_DESIRED] = {"not-desired", "its profile is not the system that the inventory names"},
    [DRIFT_NOT_DEPLOYED] = {"not-deployed", "its profile is not what fleet deployed last: somebody "
                                            "else changed it"},
    [DRIFT_NEVER_DEPLOYED] = {"never-deployed", "fleet has not deployed to it yet"},
    [DRIFT_RECORD_UNREADABLE] = {"record-unreadable",
                                 "its record of what fleet deployed last can't be read: half "
                                 "written, or of a newer fleet; the next update writes it anew"},
    [DRIFT_SWITCH_BUSY] = {"switch-busy", "somebody activates a system there right now "
                                          "(nixos-rebuild, or switch-to-configuration itself)"},
    [DRIFT_GUARD_ACTIVE] = {"guard-active", "an update is under way"},
    [DRIFT_COMMIT_UNFINISHED] = {"commit-unfinished",
                                 "a commit or a way back was cut off half-way; "
                                 "the next update finishes it"},
};

const char *drift_code(enum drift drift) {
    return drifts[drift].code;
}

const char *drift_words(enum drift drift) {
    return drifts[drift].words;
}

const char *status_desired(const struct inv_host *host) {
    return host->system.kind == INV_SYSTEM_PATH ? host->system.path : NULL;
}

static const char *text_of(const struct target_reply *reply, const char *key) {
    const char *value = target_reply_get(reply, key);
    return value != NULL ? value : "";
}

static bool says(const struct target_reply *reply, const char *key, const char *value) {
    return strcmp(text_of(reply, key), value) == 0;
}

/* A member's text, cleaned; NULL where it is missing, empty or something else. */
static char *member(const cJSON *object, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    if (!cJSON_IsString(item) || item->valuestring[0] == '\0') {
        return NULL;
    }
    return text_cleaned(item->valuestring, strlen(item->valuestring));
}

static void read_deployment(const char *json, struct status_deployment *ret) {
    cJSON *object = cJSON_Parse(json);
    if (object != NULL) {
        ret->path = member(object, "path");
        ret->rev = member(object, "rev");
        ret->who = member(object, "who");
        ret->when = member(object, "when");
        ret->run = member(object, "run");
        ret->dirty = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(object, "dirty"));
    }
    ret->unreadable = ret->path == NULL && json[0] != '\0';
    cJSON_Delete(object);
}

static void read_lock(const struct target_reply *reply, struct status *ret) {
    const char *id = target_reply_get(reply, "lock_id");
    if (id == NULL || id[0] == '\0') {
        return;
    }
    ret->lock_id = id;
    ret->lock_run = text_of(reply, "lock_run");
    ret->lock_who = text_of(reply, "lock_who");
    ret->lock_since = text_of(reply, "lock_since");
    ret->lock_expires_s = target_reply_number(reply, "lock_expires_s", 0);
}

/* `deadline=` counts in seconds since the host's boot, as does uptime_ms. */
static int64_t guard_deadline(const char *line, int64_t uptime_ms) {
    const char *found = strstr(line, " deadline=");
    if (found == NULL) {
        return -1;
    }
    int64_t left = strtoll(found + strlen(" deadline="), NULL, 10) - uptime_ms / 1000;
    return left > 0 ? left : 0;
}

int64_t status_guard_left_s(const struct target_reply *reply) {
    return guard_deadline(text_of(reply, "guard"), target_reply_number(reply, "uptime_ms", 0));
}

static void read_guard(const struct target_reply *reply, struct status *ret) {
    ret->guard_deadline_s = -1;
    if (!says(reply, "guard_alive", "yes")) {
        return;
    }
    struct guard_state *says = &ret->guard_says;
    guard_state_parse(text_of(reply, "guard"), says);
    /* A guard that has not written its first state yet is about to activate. */
    says->phase = says->phase != GUARD_NONE ? says->phase : GUARD_ACTIVATING;
    ret->guard = says->phase;
    if (ret->guard == GUARD_ACTIVE) {
        ret->guard_deadline_s = status_guard_left_s(reply);
    }
}

static void judge(const struct target_reply *reply, struct status *status) {
    bool *drift = status->drift;
    const char *last = status->deployed.path;
    drift[DRIFT_NOT_COMMITTED] = strcmp(status->current, status->profile) != 0;
    if (status->desired != NULL) {
        drift[DRIFT_NOT_DESIRED] = strcmp(status->profile, status->desired) != 0;
    } else {
        drift[DRIFT_NEVER_DEPLOYED] = last == NULL && !status->deployed.unreadable;
        drift[DRIFT_RECORD_UNREADABLE] = last == NULL && status->deployed.unreadable;
        drift[DRIFT_NOT_DEPLOYED] = last != NULL && strcmp(status->profile, last) != 0;
    }
    drift[DRIFT_GUARD_ACTIVE] = status->guard != GUARD_NONE;
    drift[DRIFT_SWITCH_BUSY] = status->guard == GUARD_NONE && says(reply, "switch_lock", "yes");
    drift[DRIFT_COMMIT_UNFINISHED] =
        status->guard == GUARD_NONE && says(reply, "guard_record", "yes");
    status->in_sync = status->current[0] != '\0';
    for (enum drift i = 0; i < DRIFT_COUNT; i++) {
        status->in_sync = status->in_sync && !drift[i];
    }
}

void status_read(const struct target_reply *reply, const char *desired, struct status *ret) {
    *ret = (struct status){
        .current = text_of(reply, "current"),
        .booted = text_of(reply, "booted"),
        .profile = text_of(reply, "profile"),
        .boot_id = text_of(reply, "boot_id"),
        .nix = text_of(reply, "nix_version"),
        .generation = target_reply_number(reply, "generation", 0),
        .free_bytes = target_reply_number(reply, "free_nix", -1),
        .desired = desired,
        .reboot_needed = says(reply, "reboot_needed", "yes"),
        .has_nix = text_of(reply, "nix_store")[0] != '\0',
    };
    read_deployment(text_of(reply, "deployed"), &ret->deployed);
    read_lock(reply, ret);
    read_guard(reply, ret);
    judge(reply, ret);
}

void status_release(struct status *status) {
    free(status->deployed.path);
    free(status->deployed.rev);
    free(status->deployed.who);
    free(status->deployed.when);
    free(status->deployed.run);
    status->deployed = (struct status_deployment){0};
}
