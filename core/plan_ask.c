/* What a host has to say for its plan (see plan_ask.h). */
#include "core/plan_ask.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "core/target_call.h"
#include "target_script.h"
#include "transport/closure.h"

#define PLAN_TIMEOUT_MS 120000u
#define HASH_LEN        ((size_t)PLAN_HASH_SIZE - 1)

/* One question under way. */
struct asking {
    struct shell *shell;
    struct plan_host *host;
    plan_ask_done done;
    void *arg;
};

static void finish(struct asking *asking, const struct error *error) {
    static const struct error none = ERROR_INIT;
    struct asking call = *asking;
    call.host->asking = NULL;
    free(asking);
    call.done(error != NULL ? error : &none, call.arg);
}

/* ---- the second answer ---- */

/* The next line PREFIX_WHAT; *at is 0 at first. */
static const char *next(const struct target_reply *reply, const char *prefix, const char *what,
                        size_t *at) {
    char key[40];
    snprintf(key, sizeof(key), "%s_%s", prefix, what);
    return target_reply_next(reply, key, at);
}

static void take_links(const struct target_reply *reply, const char *prefix,
                       struct plan_system *ret) {
    const struct {
        const char *name;
        char **slot;
    } links[] = {{"kernel ", &ret->kernel},
                 {"initrd ", &ret->initrd},
                 {"kernel-modules ", &ret->modules},
                 {"init-interface-version ", &ret->init_abi}};
    const char *line;
    for (size_t at = 0; (line = next(reply, prefix, "link", &at)) != NULL;) {
        for (size_t j = 0; j < ARRAY_LEN(links); j++) {
            size_t len = strlen(links[j].name);
            if (strncmp(line, links[j].name, len) == 0 && *links[j].slot == NULL) {
                *links[j].slot = xstrdup(line + len);
            }
        }
    }
}

static void take_units(const struct target_reply *reply, const char *prefix,
                       struct plan_system *ret) {
    const char *line;
    size_t first = 0;
    ret->units_known = next(reply, prefix, "units", &first) != NULL;
    for (size_t at = 0; (line = next(reply, prefix, "unit", &at)) != NULL;) {
        if (strlen(line) > HASH_LEN + 1 && line[HASH_LEN] == ' ') {
            char hash[PLAN_HASH_SIZE];
            memcpy(hash, line, HASH_LEN);
            hash[HASH_LEN] = '\0';
            plan_system_add_unit(ret, line + HASH_LEN + 1, hash);
        }
    }
    for (size_t at = 0; (line = next(reply, prefix, "want", &at)) != NULL;) {
        plan_list_add(&ret->wants, line);
    }
    plan_system_settle(ret);
    for (size_t at = 0; (line = next(reply, prefix, "flag", &at)) != NULL;) {
        const char *blank = strchr(line, ' ');
        AUTO_FREE char *name = blank != NULL ? xstrndup(line, (size_t)(blank - line)) : NULL;
        struct plan_unit *unit = name != NULL ? plan_system_unit(ret, name) : NULL;
        if (unit != NULL) {
            plan_unit_flag(unit, blank + 1);
        }
    }
}

static void take_closure(const struct target_reply *reply, const char *prefix,
                         struct plan_closure *ret) {
    char key[40];
    snprintf(key, sizeof(key), "%s_bytes", prefix);
    int64_t bytes = target_reply_number(reply, key, -1);
    if (bytes < 0) {
        return;
    }
    ret->known = true;
    ret->bytes = (uint64_t)bytes;
    const char *path;
    for (size_t at = 0; (path = next(reply, prefix, "path", &at)) != NULL;) {
        plan_list_add(&ret->paths, path);
    }
    plan_list_settle(&ret->paths);
}

static void on_compared(int err, const struct target_reply *reply, const struct error *error,
                        void *arg) {
    struct asking *asking = arg;
    struct plan_host *host = asking->host;
    if (err != 0) {
        finish(asking, error);
        return;
    }
    take_links(reply, "booted", &host->running_kernel);
    take_links(reply, "current", &host->from);
    take_units(reply, "current", &host->from);
    take_closure(reply, "current", &host->closure_from);
    if (host->source == BUILD_SOURCE_TARGET) {
        take_links(reply, "desired", &host->to);
        take_units(reply, "desired", &host->to);
        take_closure(reply, "desired", &host->closure_to);
    }
    const char *unit;
    for (size_t at = 0; (unit = target_reply_next(reply, "active", &at)) != NULL;) {
        plan_list_add(&host->active, unit);
    }
    plan_list_settle(&host->active);
    finish(asking, NULL);
}

static void compare(struct asking *asking) {
    const struct plan_host *host = asking->host;
    bool there = host->source == BUILD_SOURCE_TARGET;
    bool here = access(host->current, F_OK) == 0;
    struct target_call call = {.what = "the comparison of the systems",
                               .parts = {target_script_plan},
                               .timeout_ms = PLAN_TIMEOUT_MS,
                               .done = on_compared,
                               .arg = asking};
    target_call_set(&call, "CURRENT", host->current);
    target_call_set(&call, "BOOTED", host->booted);
    target_call_set(&call, "DESIRED", there ? host->desired : "");
    target_call_set(&call, "CLOSURES", there || !here ? "yes" : "no");
    target_call_send(&call, asking->shell);
}

/* ---- the first ---- */

/* A store path, or "". */
static char *path_of(const char *text) {
    return xstrdup(store_path_is_valid(text) ? text : "");
}

static void take_status(struct plan_host *host, const struct target_reply *reply) {
    struct status status;
    const char *systemd = target_reply_get(reply, "systemd");
    status_read(reply, NULL, &status);
    host->current = path_of(status.current);
    host->booted = path_of(status.booted);
    host->profile = path_of(status.profile);
    host->generation = status.generation;
    memcpy(host->drift, status.drift, sizeof(host->drift));
    host->free_boot = target_reply_number(reply, "free_boot", -1);
    host->reboot_due = status.reboot_needed;
    host->has_systemd = systemd != NULL && strcmp(systemd, "yes") == 0;
    status_release(&status);
}

static void on_inspected(int err, const struct target_reply *reply, const struct error *error,
                         void *arg) {
    struct asking *asking = arg;
    struct plan_host *host = asking->host;
    if (err != 0) {
        finish(asking, error);
        return;
    }
    take_status(host, reply);
    bool same = host->desired != NULL && strcmp(host->current, host->desired) == 0 &&
                strcmp(host->profile, host->desired) == 0;
    if (host->desired == NULL || host->current[0] == '\0' || same) {
        finish(asking, NULL);
        return;
    }
    compare(asking);
}

void plan_ask(struct shell *shell, struct plan_host *host, plan_ask_done done, void *arg) {
    struct asking *asking = xcalloc(1, sizeof(*asking));
    *asking = (struct asking){.shell = shell, .host = host, .done = done, .arg = arg};
    host->asking = asking; /* its host frees it where no answer comes any more */
    struct target_env env = {.profile = host->inv->profile};
    target_inspect(shell, &env, NULL, on_inspected, asking);
}
