/* `fleet status`: what each host runs, and whether that is what it should run.
 *
 * JSON lines come as the hosts answer. The table comes when all have: its rows stand in the
 * inventory's order, and what is to be said of a host stands below its row.
 */
#include <stdio.h>
#include <stdlib.h>

#include "cmd/desired.h"
#include "cmd/host_task.h"
#include "cmd/run_unfinished.h"
#include "cmd/status_show.h"
#include "cmd/status_watch.h"
#include "core/base/xalloc.h"

#define ASK_TIMEOUT_MS 60000

struct question {
    struct report *report;
    struct fan_host *host;
    struct status_query *query;
};

struct report {
    const struct context *context;
    struct host_tally tally;
    size_t not_good;            /* out of sync, or a probe fails */
    struct question *questions; /* one a host */
    struct status_row *rows;    /* one a host; for the table */
    char **desired;             /* one a host; NULL: not known */
    bool probe;
};

/* ---- asking ---- */

static void on_answer(const struct status_answer *answer, const struct error *error, void *arg) {
    struct question *question = arg;
    struct report *report = question->report;
    struct fan_host *host = question->host;
    if (answer == NULL) {
        fan_done(host, error);
        return;
    }
    report->not_good += status_is_good(answer) ? 0 : 1;
    if (report->context->json) {
        status_json_print(host->inv, answer, report->probe);
    } else {
        status_row_fill(&report->rows[host->index], host->inv, answer, report->probe);
    }
    fan_done(host, NULL);
}

static void ask(struct fan_host *host, void *arg) {
    struct report *report = arg;
    struct question *question = &report->questions[host->index];
    *question = (struct question){.report = report, .host = host};
    struct status_question what = {.loop = host->loop,
                                   .conn = host->conn,
                                   .shell = host->shell,
                                   .elevation = &host->elevation,
                                   .inv = host->inv,
                                   .address = host->address,
                                   .desired = report->desired[host->index],
                                   .probe = report->probe};
    question->query = status_query_start(&what, on_answer, question);
}

static void on_result(const struct fan_host *host, const struct error *error, void *arg) {
    struct report *report = arg;
    struct question *question = &report->questions[host->index];
    host_tally_add(&report->tally, host, error);
    if (error != NULL && report->context->json) {
        status_json_print_error(host, report->desired[host->index], error);
        fprintf(stderr, "%s: %s\n", host->inv->name, error->message);
    } else if (error != NULL) {
        status_row_fill_error(&report->rows[host->index], host, error, report->probe);
    }
    status_query_stop(question->query); /* fan closes the shell next */
    question->query = NULL;
}

/* ---- the whole ---- */

static void report_init(struct report *report, const struct context *context) {
    size_t count = context->host_count + 1;
    *report =
        (struct report){.context = context, .probe = args_count(context->args, OPTION_PROBE) > 0};
    report->rows = xcalloc(count, sizeof(*report->rows));
    report->questions = xcalloc(count, sizeof(*report->questions));
    report->desired = xcalloc(count, sizeof(*report->desired));
}

static void report_release(struct report *report) {
    for (size_t i = 0; i < report->context->host_count; i++) {
        status_row_release(&report->rows[i]);
        free(report->desired[i]);
    }
    free(report->rows);
    free(report->questions);
    free(report->desired);
}

static int report_all(struct report *report, struct context *context) {
    int evaluated = desired_find(context, report->desired);
    if (evaluated != EXIT_DONE && evaluated != EXIT_BUILD_FAILED) {
        return evaluated;
    }
    int interrupted = host_task_run(context, true, ASK_TIMEOUT_MS, ask, on_result, report);
    if (!context->json) {
        status_table_print(context, report->rows, report->probe);
    }
    report->tally.failed += report->not_good;
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
    if (code == 0 && args_count(args, OPTION_WATCH) > 0) {
        code = status_watch(&context);
    } else if (code == 0) {
        struct report report;
        report_init(&report, &context);
        code = report_all(&report, &context);
        run_unfinished_tell(&context, context.inventory->path);
        report_release(&report);
    }
    context_release(&context);
    return code;
}
