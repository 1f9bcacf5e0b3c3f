/* `fleet history` and `fleet show`: past runs, from their journals. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/context.h"
#include "cmd/json_line.h"
#include "cmd/run_log.h"
#include "core/base/clock.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/resume.h"

#define LIMIT_DEFAULT 20
#define REV_SHOWN     8

static void add_time(struct buf *line, const char *key, int64_t wall_ms) {
    char text[CLOCK_RFC3339_SIZE];
    if (wall_ms == 0) {
        json_null(line, key);
        return;
    }
    clock_rfc3339(wall_ms, text);
    json_text(line, key, text);
}

static void print_json(const struct run_log *log) {
    const struct view *view = log->view;
    struct buf line = BUF_INIT;
    json_open(&line, NULL);
    json_text(&line, "run", log->id);
    json_text(&line, "action", run_action_name(view->action));
    add_time(&line, "started", view->started_ms);
    add_time(&line, "ended", view->ended_ms);
    json_text(&line, "result", run_log_result(log));
    if (view->ended) {
        json_number(&line, "exit", view->exit);
    } else {
        json_null(&line, "exit");
    }
    json_text(&line, "fleet", view->fleet);
    json_text(&line, "rev", view->rev);
    json_bool(&line, "dirty", view->dirty);
    json_number(&line, "hosts", (int64_t)view->host_count);
    json_open(&line, "counts");
    for (enum host_state state = 0; state < HOST_STATE_COUNT; state++) {
        size_t count = view_count(view, state);
        if (count > 0) {
            json_number(&line, host_state_name(state), (int64_t)count);
        }
    }
    json_close(&line);
    json_close(&line);
    json_print(&line);
    buf_free(&line);
}

/* "3 healthy, 1 rolled_back" */
static void add_counts(const struct view *view, struct buf *out) {
    for (enum host_state state = 0; state < HOST_STATE_COUNT; state++) {
        size_t count = view_count(view, state);
        if (count > 0) {
            buf_printf(out, "%s%zu %s", out->len > 0 ? ", " : "", count, host_state_name(state));
        }
    }
}

/* "2026-11-22 17:04" */
static void print_row(const struct run_log *log) {
    const struct view *view = log->view;
    char when[CLOCK_RFC3339_SIZE];
    struct buf counts = BUF_INIT;
    clock_rfc3339(view->started_ms, when);
    when[10] = ' ';
    add_counts(view, &counts);
    printf("%-23s %.16s  %-12s %-12s  %.*s%-2s %s\n", log->id, when, run_action_name(view->action),
           run_log_result(log), REV_SHOWN,
           view->rev != NULL && view->rev[0] != '\0' ? view->rev : "-       ",
           view->dirty ? "*" : "", buf_text(&counts));
    buf_free(&counts);
}

static int list_runs(const struct context *context, char **ids, size_t count) {
    int code = EXIT_DONE;
    for (size_t i = 0; i < count; i++) {
        struct run_log log;
        struct error error = ERROR_INIT;
        int err = run_log_open(context->state_dir, ids[i], &log, &error);
        if (err == 0) {
            err = run_log_read(&log, &error);
        }
        if (err != 0) {
            fprintf(stderr, "fleet: %s: %s\n", ids[i], error.message);
            code = EXIT_SYSTEM;
        } else if (context->json) {
            print_json(&log);
        } else {
            print_row(&log);
        }
        run_log_release(&log);
    }
    return code;
}

int cmd_history(const struct args *args) {
    struct context context;
    context_init(&context, args);
    int code = context_words(args, 0);
    if (code == 0) {
        code = context_surroundings(&context);
    }
    if (code == 0) {
        char **ids = NULL;
        size_t count = 0;
        struct error error = ERROR_INIT;
        if (journal_list(context.state_dir, &ids, &count, &error) != 0) {
            code = context_fail(&error);
        } else {
            size_t limit = args_number(args, OPTION_LIMIT, LIMIT_DEFAULT);
            if (count == 0 && !context.json) {
                fprintf(stderr, "fleet: no runs in %s yet\n", context.state_dir);
            } else if (!context.json && context.verbosity >= 0) {
                printf("%-23s %-16s  %-12s %-12s  %-10s %s\n", "RUN", "STARTED (UTC)", "ACTION",
                       "RESULT", "REVISION", "HOSTS");
            }
            code = list_runs(&context, ids, count < limit ? count : limit);
        }
        for (size_t i = 0; i < count; i++) {
            free(ids[i]);
        }
        free(ids);
    }
    context_release(&context);
    return code;
}

/* ---- show ---- */

static void print_host(const struct view_host *host, int name_width) {
    AUTO_FREE char *message =
        host->message != NULL ? text_cleaned(host->message, strlen(host->message)) : NULL;
    printf("  %-*s  %-15s", name_width, host->name, host_state_name(host->state));
    if (host->state_at_ms[HOST_ACTIVATING] != 0 &&
        host->since_ms > host->state_at_ms[HOST_ACTIVATING]) {
        struct buf took = BUF_INIT;
        text_add_duration(
            &took, (unsigned long long)(host->since_ms - host->state_at_ms[HOST_ACTIVATING]));
        printf(" after %s", buf_text(&took));
        buf_free(&took);
    }
    if (message != NULL && message[0] != '\0') {
        printf(" %s", message);
    }
    putchar('\n');
    if (host->desired != NULL && host->desired[0] != '\0') {
        const char *before = host->first_current != NULL ? host->first_current : "?";
        printf("  %-*s  %s -> %s\n", name_width, "", before, host->desired);
    }
}

static void print_run(const struct run_log *log, const char *state_dir) {
    const struct view *view = log->view;
    char when[CLOCK_RFC3339_SIZE];
    clock_rfc3339(view->started_ms, when);
    printf("run       %s\n", log->id);
    printf("fleet     %s\n", view->fleet != NULL ? view->fleet : "-");
    printf("action    %s\n", run_action_name(view->action));
    printf("revision  %s%s\n", view->rev != NULL && view->rev[0] != '\0' ? view->rev : "-",
           view->dirty ? " (dirty)" : "");
    printf("started   %s\n", when);
    if (view->ended_ms != 0) {
        struct buf took = BUF_INIT;
        clock_rfc3339(view->ended_ms, when);
        text_add_duration(&took, (unsigned long long)(view->ended_ms - view->started_ms));
        printf("ended     %s, after %s\n", when, buf_text(&took));
        buf_free(&took);
    }
    printf("result    %s", run_log_result(log));
    printf(view->ended ? ", exit code %d\n" : "\n", view->exit);
    printf("journal   %s/runs/%s\n", state_dir, log->id);
    if (!log->live && resume_is_due(view) && view->action != ACTION_BUILD) {
        bool waits = view->paused != NULL && strcmp(view->paused, "promote") == 0;
        printf("go on     fleet %s %s\n", waits ? "promote" : "resume", log->id);
    }
    putchar('\n');
    int name_width = 4;
    for (size_t i = 0; i < view->host_count; i++) {
        int width = (int)strlen(view->hosts[i].name);
        name_width = width > name_width ? width : name_width;
    }
    for (size_t i = 0; i < view->host_count; i++) {
        print_host(&view->hosts[i], name_width);
    }
}

/* A line an event, of one host; what many lines say alike (copy's progress) is left out. */
static void print_event(const struct event *event) {
    char when[CLOCK_RFC3339_SIZE];
    clock_rfc3339(event->ts_ms, when);
    printf("  %.12s  %-10s ", when + strlen("2026-11-22T"), event_type_name(event->type));
    AUTO_FREE char *message = NULL;
    if (event->message != NULL) {
        message = text_cleaned(event->message, strlen(event->message));
    }
    switch (event->type) {
    case EVENT_HOST_STATE:
        printf("%s%s%s\n", host_state_name(event->to), message != NULL ? ": " : "",
               message != NULL ? message : "");
        break;
    case EVENT_BUILD:
        printf("%s %s\n", event->state != NULL ? event->state : "",
               event->path != NULL ? event->path : "");
        break;
    case EVENT_LOG:
        printf("%s| %s\n", event->stream != NULL ? event->stream : "",
               event->line != NULL ? event->line : "");
        break;
    case EVENT_PROBE:
        printf("%s %s: %s\n", event->name != NULL ? event->name : "",
               event->ok ? "passed" : "failed", event->detail != NULL ? event->detail : "");
        break;
    case EVENT_GRANT:
        printf("%s %s\n", act_name(event->act), event->path != NULL ? event->path : "");
        break;
    case EVENT_GUARD:
        printf("guard: %s", event->phase != NULL ? event->phase : "");
        if (event->deadline_ms > 0) {
            printf(", goes back by itself in %lld s unless renewed",
                   (long long)(event->deadline_ms / 1000));
        }
        putchar('\n');
        break;
    case EVENT_DERIVATION:
        printf("%s %s%s%s\n", event->state != NULL ? event->state : "",
               event->drv != NULL ? event->drv : "", event->phase != NULL ? ": " : "",
               event->phase != NULL ? event->phase : "");
        break;
    case EVENT_CHANGE:
    case EVENT_RUN_START:
    case EVENT_COPY:
    case EVENT_WAVE_START:
    case EVENT_WAVE_END:
    case EVENT_PAUSE:
    case EVENT_PROMOTE:
    case EVENT_RUN_END:
    case EVENT_TYPE_COUNT:
        putchar('\n');
        break;
    }
}

/* Reads the run, and prints what it says of `host` (NULL: nothing) on the way: as lines for people
 * or as the events themselves, then of all where `host` is NULL. */
static int read_events(struct run_log *log, const char *host, bool json, struct error *error) {
    struct event *event = NULL;
    struct buf line = BUF_INIT;
    int got;
    while ((got = journal_next(log->reader, &event, error)) > 0) {
        bool meant = event->host != NULL && host != NULL && strcmp(event->host, host) == 0;
        view_apply(log->view, event);
        if (json && (meant || host == NULL)) {
            event_format(event, &line);
            fwrite(line.data, 1, line.len, stdout);
            buf_clear(&line);
        } else if (!json && meant && event->type != EVENT_COPY) {
            print_event(event);
        }
        event_free(event);
    }
    buf_free(&line);
    return got;
}

static int show(const struct context *context, struct run_log *log) {
    const struct args *args = context->args;
    const char *host = args->word_count > 1 ? args->words[1] : NULL;
    struct error error = ERROR_INIT;
    int err =
        run_log_open(context->state_dir, args->word_count > 0 ? args->words[0] : NULL, log, &error);
    if (err == 0) {
        err = read_events(log, host, context->json, &error);
    }
    if (err != 0) {
        return context_fail(&error);
    }
    if (host != NULL && view_host(log->view, host) == NULL) {
        AUTO_FREE char *shown = text_cleaned(host, strlen(host));
        return context_usage(args, "no host '%s' in run %s", shown, log->id);
    }
    if (!context->json && host == NULL) {
        print_run(log, context->state_dir);
    } else if (!context->json) {
        print_host(view_host(log->view, host), (int)strlen(host));
    }
    return EXIT_DONE;
}

int cmd_show(const struct args *args) {
    struct context context;
    context_init(&context, args);
    int code = context_words(args, 2);
    if (code == 0) {
        code = context_surroundings(&context);
    }
    if (code == 0) {
        struct run_log log = {0};
        code = show(&context, &log);
        run_log_release(&log);
    }
    context_release(&context);
    return code;
}
