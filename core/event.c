/* Event values, and the table of what each type holds (CONTRACT, Events). */
#include "core/event.h"

#include <stdlib.h>

#include "core/base/xalloc.h"
#include "core/event_fields.h"

#define FIELD(field_kind, member)                                                                  \
    { .name = #member, .kind = EVENT_FIELD_##field_kind, .offset = offsetof(struct event, member) }
#define OPTIONAL(field_kind, member)                                                               \
    {                                                                                              \
        .name = #member, .kind = EVENT_FIELD_##field_kind,                                         \
        .offset = offsetof(struct event, member), .blank_is_null = true, .optional = true          \
    }
/* A text of which "" says as little as none. */
#define WORDS(member)                                                                              \
    {                                                                                              \
        .name = #member, .kind = EVENT_FIELD_TEXT, .offset = offsetof(struct event, member),       \
        .blank_is_null = true                                                                      \
    }
/* A field that takes several members together. */
#define WHOLE(field_kind, field_name)                                                              \
    { .name = (field_name), .kind = EVENT_FIELD_##field_kind }
#define END                                                                                        \
    { .name = NULL }

static const struct event_layout layouts[] = {
    [EVENT_RUN_START] = {"run_start",
                         (const struct event_field[]){
                             FIELD(TEXT, fleet), FIELD(ACTION, action), WHOLE(GIT, "git"),
                             WHOLE(HOSTS, "hosts"), WHOLE(WAVES, "waves"), FIELD(OBJECT, policy),
                             WHOLE(ADDRESSES, "addresses"), OPTIONAL(TEXT, inventory),
                             OPTIONAL(TEXT, target), OPTIONAL(SIZE, max_failed),
                             OPTIONAL(SIZE, healthy_ms), END}},
    [EVENT_HOST_STATE] = {"host_state",
                          (const struct event_field[]){
                              FIELD(FROM, from), FIELD(STATE, to), WORDS(reason), WORDS(message),
                              FIELD(SIZE, duration_ms), OPTIONAL(TEXT, current),
                              OPTIONAL(TEXT, desired), OPTIONAL(NUMBER, generation), END}},
    [EVENT_BUILD] = {"build", (const struct event_field[]){FIELD(TEXT, state), WORDS(path),
                                                           WORDS(drv), END}},
    [EVENT_DERIVATION] = {"derivation",
                          (const struct event_field[]){
                              FIELD(TEXT, state), FIELD(TEXT, drv), OPTIONAL(TEXT, parent),
                              OPTIONAL(TEXT, phase), OPTIONAL(TEXT, machine), END}},
    [EVENT_CHANGE] = {"change",
                      (const struct event_field[]){FIELD(TEXT, current), FIELD(TEXT, desired),
                                                   FIELD(OBJECT, packages),
                                                   FIELD(OBJECT, closure_bytes), END}},
    [EVENT_GUARD] = {"guard", (const struct event_field[]){FIELD(TEXT, phase),
                                                           OPTIONAL(NUMBER, deadline_ms), END}},
    [EVENT_COPY] = {"copy",
                    (const struct event_field[]){FIELD(SIZE, bytes_done), FIELD(SIZE, bytes_total),
                                                 FIELD(SIZE, paths_done), FIELD(SIZE, paths_total),
                                                 END}},
    [EVENT_LOG] = {"log", (const struct event_field[]){FIELD(TEXT, stream), FIELD(TEXT, line),
                                                       OPTIONAL(TEXT, drv), END}},
    [EVENT_PROBE] = {"probe", (const struct event_field[]){FIELD(TEXT, name), FIELD(BOOL, ok),
                                                           FIELD(TEXT, detail),
                                                           FIELD(SIZE, duration_ms), END}},
    [EVENT_GRANT] = {"grant", (const struct event_field[]){FIELD(ACT, act), WORDS(path),
                                                           OPTIONAL(TEXT, nonce),
                                                           OPTIONAL(TEXT, boot_id), END}},
    [EVENT_WAVE_START] = {"wave_start", (const struct event_field[]){END}},
    [EVENT_WAVE_END] = {"wave_end", (const struct event_field[]){END}},
    [EVENT_PAUSE] = {"pause",
                     (const struct event_field[]){WORDS(reason), OPTIONAL(TEXT, message), END}},
    [EVENT_PROMOTE] = {"promote", (const struct event_field[]){END}},
    [EVENT_RUN_END] = {"run_end",
                       (const struct event_field[]){FIELD(TEXT, result), FIELD(INT, exit),
                                                    WHOLE(COUNTS, "counts"),
                                                    OPTIONAL(TEXT, message), END}},
};
_Static_assert(ARRAY_LEN(layouts) == EVENT_TYPE_COUNT, "a layout for every type");

const struct event_layout *event_layout(enum event_type type) {
    return &layouts[type];
}

const char *event_type_name(enum event_type type) {
    return layouts[type].name;
}

struct event *event_new(enum event_type type) {
    struct event *event = xcalloc(1, sizeof(*event));
    event->type = type;
    return event;
}

void event_free(struct event *event) {
    if (event == NULL) {
        return;
    }
    for (size_t i = 0; i < event->host_count; i++) {
        free(event->hosts[i].name);
        free(event->hosts[i].address);
    }
    char *const owned[] = {
        event->run,     event->host,    event->fleet,   event->rev,      event->inventory,
        event->reason,  event->message, event->current, event->desired,  event->policy,
        event->target,  event->state,   event->path,    event->drv,      event->stream,
        event->line,    event->name,    event->detail,  event->nonce,    event->result,
        event->parent,  event->phase,   event->machine, event->packages, event->closure_bytes,
        event->boot_id,
    };
    for (size_t i = 0; i < ARRAY_LEN(owned); i++) {
        free(owned[i]);
    }
    free(event->hosts);
    free(event);
}
