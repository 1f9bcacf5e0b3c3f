/* `fleet watch`: a run's events from its start, and while it lives the ones to come. Read-only: it
 * opens the journal for reading and nothing else, so it may be left at any time.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "cmd/context.h"
#include "cmd/run_log.h"
#include "cmd/watch_dashboard.h"
#include "core/base/clock.h"
#include "tui/output.h"

#define LOOK_EVERY_MS 250

/* Hands on what the journal holds by now. 1: an event or more; 0: none; negative: an error. */
static int drain(struct run_log *log, struct output *output, struct error *error) {
    struct event *event = NULL;
    int any = 0;
    int got;
    while ((got = journal_next(log->reader, &event, error)) > 0) {
        view_apply(log->view, event);
        output->ops->event(output, event, log->view);
        event_free(event);
        any = 1;
    }
    return got < 0 ? got : any;
}

/* Until the run has ended, or the process that runs it has died. */
static int follow(struct run_log *log, struct output *output, struct error *error) {
    for (;;) {
        /* Asked first: what a process wrote before it ended is then surely read below. */
        bool live = journal_is_live(log->reader);
        int got = drain(log, output, error);
        if (got < 0) {
            return got;
        }
        fflush(stdout);
        if (log->view->ended || !live) {
            return 0;
        }
        output->ops->tick(output, log->view, clock_wall_ms(&clock_system), "the run goes on");
        poll(NULL, 0, LOOK_EVERY_MS);
    }
}

static int watch_lines(const struct context *context, struct run_log *log, struct error *error) {
    struct output_options options = {.color = context->color_out, .verbosity = context->verbosity};
    struct output *output =
        context->json ? output_json_new(stdout) : output_plain_new(stdout, &options);
    int err = follow(log, output, error);
    if (err == 0) {
        output->ops->finish(output, log->view);
    }
    output_free(output);
    return err;
}

static int watch(const struct context *context, const char *name) {
    struct run_log log;
    struct error error = ERROR_INIT;
    uint32_t speed = args_number(context->args, OPTION_SPEED, 0);
    int err = run_log_open(context->state_dir, name, &log, &error);
    if (err == 0) {
        err = watch_dashboard(context, &log, speed, &error);
    }
    if (err > 0) {
        err = watch_lines(context, &log, &error);
    }
    if (err == 0 && !log.view->ended && !journal_is_live(log.reader)) {
        fprintf(stderr, "fleet: run %s ended without a result: its process is gone\n", log.id);
    }
    run_log_release(&log);
    return err == 0 ? EXIT_DONE : context_fail(&error);
}

int cmd_watch(const struct args *args) {
    struct context context;
    context_init(&context, args);
    int code = context_words(args, 1);
    if (code == 0) {
        code = context_surroundings(&context);
    }
    if (code == 0) {
        code = watch(&context, args->word_count > 0 ? args->words[0] : NULL);
    }
    context_release(&context);
    return code;
}
