/* `fleet status` for people: a row a host, and below it what there is to say. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/status_show.h"
#include "core/base/xalloc.h"

#define UNITS_SHOWN    5u
#define NAME_COL_MAX   24u
#define PROBE_COLUMNS  6 /* as wide as the heading */
#define SYSTEM_COLUMNS 32
#define NOTE_INDENT    4
#define STORE          "/nix/store/"
#define HASH_LEN       32u
#define HASH_SHOWN     7u

/* "/nix/store/3k7...-nixos-system-db1-24.05" as "3k7xjq1 nixos-system-db1-24.05". */
static void add_system(struct buf *out, const char *path) {
    size_t store = strlen(STORE);
    if (strncmp(path, STORE, store) != 0 || strlen(path) < store + HASH_LEN + 2) {
        buf_add_text(out, path[0] != '\0' ? path : "-");
        return;
    }
    buf_add(out, path + store, HASH_SHOWN);
    buf_add_char(out, ' ');
    buf_add_text(out, path + store + HASH_LEN + 1);
}

static void note(struct buf *notes, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void note(struct buf *notes, const char *format, ...) {
    va_list args;
    va_start(args, format);
    buf_printf(notes, "%*s", NOTE_INDENT, "");
    buf_vprintf(notes, format, args);
    buf_add_char(notes, '\n');
    va_end(args);
}

static void note_units(struct buf *notes, const struct target_reply *reply) {
    struct buf units = BUF_INIT;
    size_t count = 0;
    const char *unit;
    for (; (unit = target_reply_nth(reply, "failed", count)) != NULL; count++) {
        if (count < UNITS_SHOWN) {
            buf_printf(&units, "%s%s", count > 0 ? ", " : "", unit);
        }
    }
    if (count > UNITS_SHOWN) {
        buf_printf(&units, " and %zu more", count - UNITS_SHOWN);
    }
    if (count > 0) {
        note(notes, "failed units: %s", buf_text(&units));
    }
    buf_free(&units);
}

static void note_lock(struct buf *notes, const struct inv_host *host, const struct status *status) {
    if (status->guard != GUARD_NONE) {
        struct buf words = BUF_INIT;
        guard_state_words(&status->guard_says, &words);
        note(notes, "guard: %s", buf_text(&words));
        buf_free(&words);
        if (status->guard_deadline_s >= 0) {
            note(notes, "goes back by itself in %lld s unless renewed",
                 (long long)status->guard_deadline_s);
        }
    }
    if (status->lock_id == NULL) {
        return;
    }
    note(notes, "locked by %s since %s, run %s", status->lock_who, status->lock_since,
         status->lock_run);
    if (status->lock_expires_s < 0) {
        note(notes, "the lock has lapsed; the next update takes it over");
    } else {
        note(notes, "if that run is dead: fleet unlock %s --id %s", host->name, status->lock_id);
    }
}

static void note_systems(struct buf *notes, const struct status *status) {
    if (status->drift[DRIFT_NOT_COMMITTED]) {
        note(notes, "profile  %s", status->profile[0] != '\0' ? status->profile : "(none)");
        note(notes, "running  %s", status->current[0] != '\0' ? status->current : "(none)");
    } else if (status->drift[DRIFT_NOT_DESIRED] || status->drift[DRIFT_NOT_DEPLOYED]) {
        note(notes, "running  %s", status->current);
    }
    if (status->drift[DRIFT_NOT_DESIRED]) {
        note(notes, "desired  %s", status->desired);
    }
    if (status->drift[DRIFT_NOT_DEPLOYED]) {
        note(notes, "deployed %s by %s", status->deployed.path,
             status->deployed.who != NULL ? status->deployed.who : "?");
    }
}

/* What a host lacks that fleet manages. */
static void note_missing(struct buf *notes, const struct status *status) {
    if (!status->has_nix) {
        note(notes, "Nix was not found there: nix-store is in none of the places where it may be");
    }
    if (status->current[0] == '\0') {
        note(notes, "runs no NixOS system: /run/current-system leads nowhere");
    }
}

/* What fails, each with its reason; what passes is a number in the table. */
static void note_probes(struct buf *notes, const struct status_answer *answer) {
    for (size_t i = 0; i < answer->probe_count; i++) {
        const struct status_probe *probe = &answer->probes[i];
        if (!probe->ok) {
            note(notes, "probe %s fails: %s", probe->name, probe->detail);
        }
    }
}

/* "2/3", those that pass; "-" where the host has none. */
static void add_probes(struct buf *text, const struct status_answer *answer) {
    size_t passing = 0;
    for (size_t i = 0; i < answer->probe_count; i++) {
        passing += answer->probes[i].ok ? 1 : 0;
    }
    AUTO_FREE char *count =
        answer->probe_count > 0 ? xasprintf("%zu/%zu", passing, answer->probe_count) : xstrdup("-");
    buf_printf(text, "%*s  ", PROBE_COLUMNS, count);
}

static const char *status_word(const struct status_answer *answer) {
    if (!answer->status.in_sync) {
        return "drifted";
    }
    return answer->healthy ? "in sync" : "unhealthy";
}

bool status_is_good(const struct status_answer *answer) {
    return answer->status.in_sync && answer->healthy;
}

void status_row_fill(struct status_row *row, const struct inv_host *host,
                     const struct status_answer *answer, bool probed) {
    const struct status *status = &answer->status;
    struct buf text = BUF_INIT;
    struct buf system = BUF_INIT;
    struct buf notes = BUF_INIT;
    add_system(&system, status->current);
    buf_printf(&text, "%-11s  ", status_word(answer));
    if (probed) {
        add_probes(&text, answer);
    }
    if (status->generation > 0) {
        buf_printf(&text, "%4lld  ", (long long)status->generation);
    } else {
        buf_add_text(&text, "   -  ");
    }
    buf_printf(&text, "%-*.*s  ", SYSTEM_COLUMNS, SYSTEM_COLUMNS, buf_text(&system));
    buf_printf(&text, "%.7s%s", status->deployed.rev != NULL ? status->deployed.rev : "-",
               status->deployed.dirty ? "*" : "");
    for (enum drift drift = 0; drift < DRIFT_COUNT; drift++) {
        if (status->drift[drift]) {
            note(&notes, "%s", drift_words(drift));
        }
    }
    note_missing(&notes, status);
    note_systems(&notes, status);
    note_lock(&notes, host, status);
    note_probes(&notes, answer);
    note_units(&notes, answer->reply);
    if (status->reboot_needed) {
        note(&notes, "booted another kernel than its profile has; a reboot is due");
    }
    row->text = buf_take(&text);
    row->notes = buf_take(&notes);
    buf_free(&system);
}

static const char *error_word(const struct fan_host *host, const struct error *error) {
    if (error->code == FLEET_ERR_CANCELLED) {
        return "not asked";
    }
    if (host->connected) {
        return "failed";
    }
    return host->inv->optional ? "offline" : "unreachable";
}

void status_row_fill_error(struct status_row *row, const struct fan_host *host,
                           const struct error *error, bool probed) {
    struct buf notes = BUF_INIT;
    note(&notes, "%s", error->message);
    row->text = xasprintf("%-11s%*s     -  -", error_word(host, error),
                          probed ? PROBE_COLUMNS + 2 : 0, probed ? "-" : "");
    row->notes = buf_take(&notes);
}

void status_row_release(struct status_row *row) {
    free(row->text);
    free(row->notes);
    *row = (struct status_row){0};
}

static int name_width(const struct context *context) {
    size_t width = strlen("HOST");
    for (size_t i = 0; i < context->host_count; i++) {
        size_t len = strlen(context->hosts[i]->name);
        if (len > width) {
            width = len < NAME_COL_MAX ? len : NAME_COL_MAX;
        }
    }
    return (int)width;
}

void status_table_print(const struct context *context, const struct status_row *rows, bool probed) {
    int width = name_width(context);
    if (context->verbosity >= 0) {
        printf("%-*s  %-11s  %s GEN  %-*s  REVISION\n", width, "HOST", "STATUS",
               probed ? "PROBES  " : "", SYSTEM_COLUMNS, "RUNNING");
    }
    for (size_t i = 0; i < context->host_count; i++) {
        const struct status_row *row = &rows[i];
        printf("%-*s  %s\n%s", width, context->hosts[i]->name, row->text, row->notes);
    }
}
