/* The displays of a run (see displays.h). */
#include "cmd/displays.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/reports.h"

bool displays_want_dashboard(const struct context *context) {
    const char *ci = getenv("CI");
    bool asked = args_count(context->args, OPTION_TUI) > 0;
    bool plain =
        context->json || context->verbosity < 0 || args_count(context->args, OPTION_PLAIN) > 0;
    bool person = asked || ci == NULL || ci[0] == '\0';
    return !plain && person && output_dashboard_is_possible();
}

static struct output *open_dashboard(const struct context *context,
                                     const struct output_options *options) {
    struct dashboard_options dashboard = {
        .output = *options, .live = true, .ascii = args_count(context->args, OPTION_ASCII) > 0};
    return output_dashboard_new(&dashboard);
}

void displays_open(const struct context *context, bool aside, struct displays *ret) {
    bool on_stderr = context->json || aside;
    struct output_options options = {.color = on_stderr ? context->color_err : context->color_out,
                                     .verbosity = context->verbosity,
                                     .github = getenv("GITHUB_ACTIONS") != NULL};
    *ret = (struct displays){.args = context->args, .inventory = context->inventory};
    ret->evaluated = evaluated_open(context->state_dir, context->inventory);
    if (!aside && displays_want_dashboard(context)) {
        ret->items[0] = open_dashboard(context, &options);
        if (ret->items[0] != NULL) {
            ret->count = 1;
            return;
        }
    }
    if (args_count(context->args, OPTION_TUI) > 0) {
        fputs("fleet: no dashboard here: it needs a terminal that can move its cursor; plain lines "
              "follow\n",
              stderr);
    }
    if (context->json) {
        ret->items[ret->count++] = output_json_new(stdout);
    }
    ret->items[ret->count++] = output_plain_new(on_stderr ? stderr : stdout, &options);
}

static void note_build(const struct displays *displays, const struct event *event) {
    bool built = event->type == EVENT_BUILD && event->state != NULL && event->host != NULL &&
                 strcmp(event->state, "built") == 0;
    const struct inv_host *host = built ? inventory_host(displays->inventory, event->host) : NULL;
    if (host != NULL && event->path != NULL) {
        evaluated_note(displays->evaluated, host, event->path);
    }
}

void displays_event(const struct event *event, const struct view *view, void *arg) {
    struct displays *displays = arg;
    note_build(displays, event);
    for (size_t i = 0; i < displays->count; i++) {
        displays->items[i]->ops->event(displays->items[i], event, view);
    }
    for (size_t i = 0; event->type == EVENT_RUN_END && i < displays->count; i++) {
        displays->items[i]->ops->finish(displays->items[i], view);
    }
    if (event->type == EVENT_RUN_END) {
        /* First: a report may lie in the tree, which it then changes. */
        evaluated_close(displays->evaluated);
        displays->evaluated = NULL;
        reports_write(displays->args, view);
    }
}

bool displays_attach(uv_loop_t *loop, void (*request)(const struct run_request *request, void *arg),
                     void *request_arg, void *arg) {
    struct displays *displays = arg;
    struct output_seat seat = {.loop = loop, .request = request, .arg = request_arg};
    bool attended = false;
    for (size_t i = 0; i < displays->count; i++) {
        if (displays->items[i]->ops->attach != NULL) {
            displays->items[i]->ops->attach(displays->items[i], &seat);
            attended = true;
        }
    }
    return attended;
}

void displays_tick(const struct view *view, int64_t wall_ms, const char *waiting, void *arg) {
    struct displays *displays = arg;
    for (size_t i = 0; i < displays->count; i++) {
        displays->items[i]->ops->tick(displays->items[i], view, wall_ms, waiting);
    }
}

void displays_close(struct displays *displays) {
    evaluated_close(displays->evaluated);
    for (size_t i = 0; i < displays->count; i++) {
        output_free(displays->items[i]);
    }
    *displays = (struct displays){0};
}
