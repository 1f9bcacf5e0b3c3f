/* `fleet status`: what each host runs, and whether that is what it should run.
 *
 * JSON lines come as the hosts answer. The table comes when all have: its rows stand in the
 * inventory's order, and what is to be said of a host stands below its row.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/evaluate.h"
#include "cmd/host_task.h"
#include "cmd/json_line.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/evaluated.h"
#include "core/status.h"

#define ASK_TIMEOUT_MS 60000
#define UNITS_SHOWN    5u
#define NAME_COL_MAX   24u
#define SYSTEM_COLUMNS 32
#define NOTE_INDENT    4
#define STORE          "/nix/store/"
#define HASH_LEN       32u
#define HASH_SHOWN     7u

struct report {
    const struct context *context;
    struct host_tally tally;
    size_t out_of_sync;
    struct question *questions; /* one a host */
    struct row *rows;           /* one a host; for the table */
    size_t name_width;
    char **desired; /* one a host; NULL: not known */
};

struct row {
    char *text;  /* without the host's name */
    char *notes; /* lines, or NULL */
};

struct question {
    struct report *report;
    struct fan_host *host;
};

/* ---- JSON ---- */

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

static void print_json(const struct inv_host *host, const struct status *status,
                       const struct target_reply *reply) {
    struct buf line = BUF_INIT;
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
    json_close(&line);
    json_print(&line);
    buf_free(&line);
}

/* The same fields, unknown. */
static void print_json_error(const struct fan_host *host, const char *desired,
                             const struct error *error) {
    static const char *const unknown[] = {"current",     "booted",      "profile", "generation",
                                          "desired",     NULL,          "rev",     "dirty",
                                          "deployed_by", "deployed_at", "run"};
    static const char *const unknown_too[] = {"lock", "guard", "free_bytes", "nix"};
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

/* ---- the table ---- */

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
        note(notes, "guard: %s", guard_phase_name(status->guard));
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

static void fill_row(struct row *row, const struct inv_host *host, const struct status *status,
                     const struct target_reply *reply) {
    struct buf text = BUF_INIT;
    struct buf system = BUF_INIT;
    struct buf notes = BUF_INIT;
    add_system(&system, status->current);
    buf_printf(&text, "%-11s  ", status->in_sync ? "in sync" : "drifted");
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
    note_systems(&notes, status);
    note_lock(&notes, host, status);
    note_units(&notes, reply);
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

static void fill_row_error(struct row *row, const struct fan_host *host,
                           const struct error *error) {
    struct buf notes = BUF_INIT;
    note(&notes, "%s", error->message);
    row->text = xasprintf("%-11s     -  -", error_word(host, error));
    row->notes = buf_take(&notes);
}

static void print_table(const struct report *report) {
    const struct context *context = report->context;
    int width = (int)report->name_width;
    if (context->verbosity >= 0) {
        printf("%-*s  %-11s   GEN  %-*s  REVISION\n", width, "HOST", "STATUS", SYSTEM_COLUMNS,
               "RUNNING");
    }
    for (size_t i = 0; i < context->host_count; i++) {
        const struct row *row = &report->rows[i];
        printf("%-*s  %s\n%s", width, context->hosts[i]->name, row->text, row->notes);
    }
}

/* ---- asking ---- */

static void status_answer(int err, const struct target_reply *reply, const struct error *error,
                          void *arg) {
    struct question *question = arg;
    struct report *report = question->report;
    struct fan_host *host = question->host;
    if (err != 0) {
        fan_done(host, error);
        return;
    }
    struct status status;
    status_read(reply, report->desired[host->index], &status);
    report->out_of_sync += status.in_sync ? 0 : 1;
    if (report->context->json) {
        print_json(host->inv, &status, reply);
    } else {
        fill_row(&report->rows[host->index], host->inv, &status, reply);
    }
    status_release(&status);
    fan_done(host, NULL);
}

static void status_ask(struct fan_host *host, void *arg) {
    struct report *report = arg;
    struct question *question = &report->questions[host->index];
    *question = (struct question){.report = report, .host = host};
    struct target_env env = {.profile = host->inv->profile};
    target_inspect(host->shell, &env, NULL, status_answer, question);
}

static void status_result(const struct fan_host *host, const struct error *error, void *arg) {
    struct report *report = arg;
    host_tally_add(&report->tally, host, error);
    if (error == NULL) {
        return;
    }
    if (report->context->json) {
        print_json_error(host, report->desired[host->index], error);
        fprintf(stderr, "%s: %s\n", host->inv->name, error->message);
    } else {
        fill_row_error(&report->rows[host->index], host, error);
    }
}

static void measure_names(struct report *report) {
    report->name_width = strlen("HOST");
    for (size_t i = 0; i < report->context->host_count; i++) {
        size_t len = strlen(report->context->hosts[i]->name);
        if (len > report->name_width) {
            report->name_width = len < NAME_COL_MAX ? len : NAME_COL_MAX;
        }
    }
}

/* What each host shall run: as the inventory says, as it was evaluated of this tree, or with --eval
 * as it evaluates now. Returns evaluate_hosts' code. */
static int find_desired(struct report *report) {
    const struct context *context = report->context;
    struct evaluated *evaluated = evaluated_open(context->state_dir, context->inventory);
    int code = EXIT_DONE;
    if (args_count(context->args, OPTION_EVAL) > 0) {
        code = evaluate_hosts(context, report->desired);
    }
    for (size_t i = 0; i < context->host_count; i++) {
        const struct inv_host *host = context->hosts[i];
        const char *known = status_desired(host);
        if (report->desired[i] != NULL) {
            evaluated_note(evaluated, host, report->desired[i]);
            continue;
        }
        if (known == NULL && evaluated != NULL && code == EXIT_DONE) {
            known = evaluated_path(evaluated, host);
        }
        report->desired[i] = known != NULL ? xstrdup(known) : NULL;
    }
    evaluated_close(evaluated);
    return code;
}

static void report_init(struct report *report, const struct context *context) {
    size_t count = context->host_count + 1;
    *report = (struct report){.context = context};
    report->rows = xcalloc(count, sizeof(*report->rows));
    report->questions = xcalloc(count, sizeof(*report->questions));
    report->desired = xcalloc(count, sizeof(*report->desired));
    measure_names(report);
}

static void report_release(struct report *report) {
    for (size_t i = 0; i < report->context->host_count; i++) {
        free(report->rows[i].text);
        free(report->rows[i].notes);
        free(report->desired[i]);
    }
    free(report->rows);
    free(report->questions);
    free(report->desired);
}

static int report_all(struct report *report, struct context *context) {
    int evaluated = find_desired(report);
    if (evaluated != EXIT_DONE && evaluated != EXIT_BUILD_FAILED) {
        return evaluated;
    }
    int interrupted =
        host_task_run(context, true, ASK_TIMEOUT_MS, status_ask, status_result, report);
    if (!context->json) {
        print_table(report);
    }
    report->tally.failed += report->out_of_sync;
    int code = host_tally_exit(&report->tally, interrupted);
    return code == EXIT_DONE || code == EXIT_UNREACHABLE ? (evaluated != 0 ? evaluated : code)
                                                         : code;
}

int cmd_status(const struct args *args) {
    struct context context;
    context_init(&context, args);
    int code = host_task_prepare(&context);
    if (code == 0) {
        code = context_surroundings(&context);
    }
    if (code == 0) {
        struct report report;
        report_init(&report, &context);
        code = report_all(&report, &context);
        report_release(&report);
    }
    context_release(&context);
    return code;
}
