/* The displays of a run (see displays.h). */
#include "cmd/displays.h"

#include <stdlib.h>

void displays_open(const struct context *context, bool aside, struct displays *ret) {
    bool on_stderr = context->json || aside;
    struct output_options options = {.color = on_stderr ? context->color_err : context->color_out,
                                     .verbosity = context->verbosity,
                                     .github = getenv("GITHUB_ACTIONS") != NULL};
    *ret = (struct displays){0};
    if (args_count(context->args, OPTION_TUI) > 0) {
        fputs("fleet: the dashboard is not in this version yet; plain lines follow\n", stderr);
    }
    if (context->json) {
        ret->items[ret->count++] = output_json_new(stdout);
    }
    ret->items[ret->count++] = output_plain_new(on_stderr ? stderr : stdout, &options);
}

void displays_event(const struct event *event, const struct view *view, void *arg) {
    struct displays *displays = arg;
    for (size_t i = 0; i < displays->count; i++) {
        displays->items[i]->ops->event(displays->items[i], event, view);
    }
    for (size_t i = 0; event->type == EVENT_RUN_END && i < displays->count; i++) {
        displays->items[i]->ops->finish(displays->items[i], view);
    }
}

void displays_tick(const struct view *view, int64_t wall_ms, const char *waiting, void *arg) {
    struct displays *displays = arg;
    for (size_t i = 0; i < displays->count; i++) {
        displays->items[i]->ops->tick(displays->items[i], view, wall_ms, waiting);
    }
}

void displays_close(struct displays *displays) {
    for (size_t i = 0; i < displays->count; i++) {
        output_free(displays->items[i]);
    }
    *displays = (struct displays){0};
}
