/* Which fields an event of a type has: the table that writing, reading and the schema's test share.
 *
 * Private to core/event*.c and the tests.
 */
#ifndef FLEET_CORE_EVENT_FIELDS_H
#define FLEET_CORE_EVENT_FIELDS_H

#include "core/event.h"

enum event_field_kind {
    EVENT_FIELD_TEXT,   /* char * */
    EVENT_FIELD_SIZE,   /* uint64_t */
    EVENT_FIELD_NUMBER, /* int64_t */
    EVENT_FIELD_INT,    /* int */
    EVENT_FIELD_BOOL,
    EVENT_FIELD_FROM, /* enum host_state, null unless has_from */
    EVENT_FIELD_STATE,
    EVENT_FIELD_ACT,
    EVENT_FIELD_ACTION,
    EVENT_FIELD_GIT,       /* {"rev":,"dirty":} */
    EVENT_FIELD_HOSTS,     /* the names, in the inventory's order */
    EVENT_FIELD_WAVES,     /* the names, a list a wave */
    EVENT_FIELD_ADDRESSES, /* {"name":"address"} */
    EVENT_FIELD_OBJECT,    /* char *: a JSON object as text */
    EVENT_FIELD_COUNTS,    /* {"healthy":5,...} */
    EVENT_FIELD_KIND_COUNT
};

struct event_field {
    const char *name;
    enum event_field_kind kind;
    size_t offset;
    bool blank_is_null;
    bool optional; /* left out when it is NULL or 0; others are then null or 0 */
};

struct event_layout {
    const char *name;
    const struct event_field *fields; /* ends with a field without a name */
};

const struct event_layout *event_layout(enum event_type type);

#endif
