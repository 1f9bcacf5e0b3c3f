/* `fleet status --json`: one object a host (CONTRACT, Events). */
#include <string.h>

#include "cmd/json_line.h"
#include "cmd/status_show.h"
#include "core/base/xalloc.h"

static void json_word(struct buf *line, const char *key, const char *text) {
    json_text(line, key, text != NULL && text[0] != '\0' ? text : NULL);
}

static void json_positive(struct buf *line, const char *key, int64_t number) {
    if (number > 0) {
        json_number(line, key, number);
    } else {
        json_null(line, key);
    }
}

static void json_units(struct buf *line, const struct target_reply *reply) {
    json_list_open(line, "failed_units");
    const char *unit;
    for (size_t i = 0; (unit = target_reply_nth(reply, "failed", i)) != NULL; i++) {
        json_text(line, NULL, unit);
    }
    json_list_close(line);
}

static void json_holder(struct buf *line, const struct status *status) {
    if (status->lock_id == NULL) {
        json_null(line, "lock");
    } else {
        json_open(line, "lock");
        json_text(line, "run", status->lock_run);
        json_text(line, "id", status->lock_id);
        json_text(line, "who", status->lock_who);
        json_text(line, "since", status->lock_since);
        json_number(line, "expires", status->lock_expires_s);
        json_close(line);
    }
    if (status->guard == GUARD_NONE) {
        json_null(line, "guard");
        return;
    }
    json_open(line, "guard");
    json_text(line, "run", status->lock_run);
    json_text(line, "phase", guard_phase_name(status->guard));
    if (status->guard_deadline_s >= 0) {
        json_number(line, "deadline_s", status->guard_deadline_s);
    } else {
        json_null(line, "deadline_s");
    }
    if (status->guard == GUARD_REVERTING) {
        json_number(line, "try", status->guard_says.tries);
    } else {
        json_null(line, "try");
    }
    bool known = guard_stuck_words(&status->guard_says) != NULL;
    json_text(line, "stuck", known ? status->guard_says.stuck : NULL);
    json_close(line);
}

static void json_roots(struct buf *line, const struct target_reply *reply) {
    json_list_open(line, "roots");
    const char *root;
    for (size_t i = 0; (root = target_reply_nth(reply, "roots", i)) != NULL; i++) {
        json_text(line, NULL, root);
    }
    json_list_close(line);
}

static void json_probes(struct buf *line, const struct status_answer *answer, bool probed) {
    if (!probed) {
        json_null(line, "probes");
        return;
    }
    json_list_open(line, "probes");
    for (size_t i = 0; i < answer->probe_count; i++) {
        const struct status_probe *probe = &answer->probes[i];
        json_open(line, NULL);
        json_text(line, "name", probe->name);
        json_bool(line, "ok", probe->ok);
        json_text(line, "detail", probe->detail);
        json_number(line, "duration_ms", (int64_t)probe->duration_ms);
        json_close(line);
    }
    json_list_close(line);
}

void status_json_print(const struct inv_host *host, const struct status_answer *answer,
                       bool probed) {
    struct buf line = BUF_INIT;
    const struct status *status = &answer->status;
    const struct target_reply *reply = answer->reply;
    const struct status_deployment *deployed = &status->deployed;
    json_open(&line, NULL);
    json_text(&line, "host", host->name);
    json_bool(&line, "reachable", true);
    json_word(&line, "current", status->current);
    json_word(&line, "booted", status->booted);
    json_word(&line, "profile", status->profile);
    json_positive(&line, "generation", status->generation);
    json_text(&line, "desired", status->desired);
    json_bool(&line, "in_sync", status->in_sync);
    json_text(&line, "rev", deployed->rev);
    if (deployed->path != NULL) {
        json_bool(&line, "dirty", deployed->dirty);
    } else {
        json_null(&line, "dirty");
    }
    json_text(&line, "deployed_by", deployed->who);
    json_text(&line, "deployed_at", deployed->when);
    json_text(&line, "run", deployed->run);
    json_list_open(&line, "drift");
    for (enum drift drift = 0; drift < DRIFT_COUNT; drift++) {
        if (status->drift[drift]) {
            json_text(&line, NULL, drift_code(drift));
        }
    }
    json_list_close(&line);
    json_word(&line, "boot_id", status->boot_id);
    json_units(&line, reply);
    json_holder(&line, status);
    json_positive(&line, "free_bytes", status->free_bytes);
    json_word(&line, "nix", status->nix);
    json_bool(&line, "reboot_needed", status->reboot_needed);
    json_roots(&line, reply);
    json_probes(&line, answer, probed);
    json_close(&line);
    json_print(&line);
    buf_free(&line);
}

void status_json_print_error(const struct fan_host *host, const char *desired,
                             const struct error *error) {
    static const char *const unknown[] = {"current",     "booted",      "profile", "generation",
                                          "desired",     NULL,          "rev",     "dirty",
                                          "deployed_by", "deployed_at", "run"};
    static const char *const unknown_too[] = {"lock", "guard", "free_bytes", "nix", "probes"};
    struct buf line = BUF_INIT;
    json_open(&line, NULL);
    json_text(&line, "host", host->inv->name);
    json_bool(&line, "reachable", host->connected);
    for (size_t i = 0; i < ARRAY_LEN(unknown); i++) {
        if (unknown[i] == NULL) {
            json_bool(&line, "in_sync", false);
        } else if (strcmp(unknown[i], "desired") == 0) {
            json_text(&line, "desired", desired);
        } else {
            json_null(&line, unknown[i]);
        }
    }
    json_list_open(&line, "drift");
    json_list_close(&line);
    json_null(&line, "boot_id");
    json_list_open(&line, "failed_units");
    json_list_close(&line);
    for (size_t i = 0; i < ARRAY_LEN(unknown_too); i++) {
        json_null(&line, unknown_too[i]);
    }
    json_text(&line, "reason", error->reason);
    json_text(&line, "message", error->message);
    json_close(&line);
    json_print(&line);
    buf_free(&line);
}
