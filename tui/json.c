/* JSON Lines: each event as the journal has it, flushed at once so that a reader follows live. */
#include <stdlib.h>

#include "core/base/xalloc.h"
#include "tui/output.h"

struct json {
    struct output base;
    FILE *file;
    struct buf line; /* reused */
};

static void json_event(struct output *output, const struct event *event, const struct view *view) {
    (void)view;
    struct json *json = container_of(output, struct json, base);
    buf_clear(&json->line);
    event_format(event, &json->line);
    fwrite(json->line.data, 1, json->line.len, json->file);
    fflush(json->file);
}

static void json_tick(struct output *output, const struct view *view, int64_t wall_ms,
                      const char *waiting) {
    (void)output;
    (void)view;
    (void)wall_ms;
    (void)waiting;
}

static void json_finish(struct output *output, const struct view *view) {
    (void)view;
    fflush(container_of(output, struct json, base)->file);
}

static void json_free(struct output *output) {
    struct json *json = container_of(output, struct json, base);
    buf_free(&json->line);
    free(json);
}

static const struct output_ops json_ops = {
    .event = json_event, .tick = json_tick, .finish = json_finish, .free = json_free};

struct output *output_json_new(FILE *file) {
    struct json *json = xcalloc(1, sizeof(*json));
    json->base.ops = &json_ops;
    json->file = file;
    return &json->base;
}
