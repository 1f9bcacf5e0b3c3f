/* Reads a line of JSON back into an event.
 *
 * A journal may have been written by another version: unknown fields are passed over, a field of
 * the wrong type counts as absent. The head (v, seq, ts, type) and the names of states and acts
 * are what the rest stands on, and must be right. cJSON knows no positions and takes keys
 * without regard to case, unless asked by its CaseSensitive functions. */
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "core/base/clock.h"
#include "core/base/xalloc.h"
#include "core/event_fields.h"
#include "core/name_index.h"

/* Beyond 2^53 a double no longer holds every whole number. */
#define WHOLE_MAX 9007199254740992.0

/* A whole number, 0 where it is none or too large. The comparison is false for a NaN. */
static int64_t number_of(const cJSON *item) {
    bool fits =
        cJSON_IsNumber(item) && item->valuedouble <= WHOLE_MAX && item->valuedouble >= -WHOLE_MAX;
    return fits ? (int64_t)item->valuedouble : 0;
}

static uint64_t size_of(const cJSON *item) {
    int64_t number = number_of(item);
    return number > 0 ? (uint64_t)number : 0;
}

static uint32_t count_of(const cJSON *item) {
    uint64_t size = size_of(item);
    return size < UINT32_MAX ? (uint32_t)size : UINT32_MAX;
}

static char *text_of(const cJSON *item) {
    return cJSON_IsString(item) ? xstrdup(item->valuestring) : NULL;
}

static const char *name_of(const cJSON *item) {
    return cJSON_IsString(item) ? item->valuestring : "";
}

static const cJSON *member(const cJSON *object, const char *name) {
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

static void read_hosts(struct event *event, const cJSON *list) {
    int count = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0;
    event->hosts = xcalloc((size_t)count + 1, sizeof(*event->hosts));
    const cJSON *item;
    cJSON_ArrayForEach(item, list) {
        if (cJSON_IsString(item)) {
            event->hosts[event->host_count++].name = xstrdup(item->valuestring);
        }
    }
}

static struct name_index *index_hosts(const struct event *event) {
    struct name_index *index = name_index_new();
    for (size_t i = 0; i < event->host_count; i++) {
        name_index_add(index, event->hosts[i].name, i);
    }
    return index;
}

static void read_waves(struct event *event, const cJSON *list) {
    struct name_index *index = index_hosts(event);
    const cJSON *wave;
    cJSON_ArrayForEach(wave, list) {
        event->wave_count++;
        const cJSON *item;
        cJSON_ArrayForEach(item, wave) {
            size_t host = name_index_find(index, name_of(item));
            if (host != NAME_INDEX_NONE) {
                event->hosts[host].wave = event->wave_count;
            }
        }
    }
    name_index_free(index);
}

static void read_addresses(struct event *event, const cJSON *object) {
    struct name_index *index = index_hosts(event);
    const cJSON *item;
    cJSON_ArrayForEach(item, object) {
        size_t host = item->string != NULL ? name_index_find(index, item->string) : NAME_INDEX_NONE;
        if (host != NAME_INDEX_NONE && event->hosts[host].address == NULL) {
            event->hosts[host].address = text_of(item);
        }
    }
    name_index_free(index);
}

static char *object_of(const cJSON *object) {
    char *text = cJSON_IsObject(object) ? cJSON_PrintUnformatted(object) : NULL;
    char *copy = text != NULL ? xstrdup(text) : NULL;
    cJSON_free(text);
    return copy;
}

static void read_counts(struct event *event, const cJSON *object) {
    const cJSON *item;
    cJSON_ArrayForEach(item, object) {
        enum host_state state = host_state_parse(item->string != NULL ? item->string : "");
        if (state != HOST_STATE_COUNT) {
            event->counts[state] = count_of(item);
        }
    }
}

static int read_int(const cJSON *item) {
    int64_t number = number_of(item);
    return number > -1000 && number < 1000 ? (int)number : 0;
}

/* False where a name isn't one that this version knows. */
static bool read_names(struct event *event, const struct event_field *field, const cJSON *item) {
    switch ((int)field->kind) {
    case EVENT_FIELD_FROM:
        event->has_from = cJSON_IsString(item);
        event->from = event->has_from ? host_state_parse(item->valuestring) : HOST_PENDING;
        return event->from != HOST_STATE_COUNT;
    case EVENT_FIELD_STATE:
        event->to = host_state_parse(name_of(item));
        return event->to != HOST_STATE_COUNT;
    case EVENT_FIELD_ACT:
        event->act = act_parse(name_of(item));
        return event->act != ACT_COUNT;
    case EVENT_FIELD_ACTION:
        event->action = run_action_parse(name_of(item));
        return event->action != ACTION_COUNT;
    default:
        return true;
    }
}

/* False as read_names. */
static bool read_field(struct event *event, const struct event_field *field, const cJSON *item) {
    void *at = (char *)event + field->offset;
    switch (field->kind) {
    case EVENT_FIELD_TEXT:
        *(char **)at = text_of(item);
        break;
    case EVENT_FIELD_SIZE:
        *(uint64_t *)at = size_of(item);
        break;
    case EVENT_FIELD_NUMBER:
        *(int64_t *)at = number_of(item);
        break;
    case EVENT_FIELD_INT:
        event->exit = read_int(item);
        break;
    case EVENT_FIELD_BOOL:
        event->ok = cJSON_IsTrue(item);
        break;
    case EVENT_FIELD_GIT:
        event->rev = text_of(member(item, "rev"));
        event->dirty = cJSON_IsTrue(member(item, "dirty"));
        break;
    case EVENT_FIELD_HOSTS:
        read_hosts(event, item);
        break;
    case EVENT_FIELD_WAVES:
        read_waves(event, item);
        break;
    case EVENT_FIELD_ADDRESSES:
        read_addresses(event, item);
        break;
    case EVENT_FIELD_OBJECT:
        *(char **)at = object_of(item);
        break;
    case EVENT_FIELD_COUNTS:
        read_counts(event, item);
        break;
    case EVENT_FIELD_FROM:
    case EVENT_FIELD_STATE:
    case EVENT_FIELD_ACT:
    case EVENT_FIELD_ACTION:
        return read_names(event, field, item);
    case EVENT_FIELD_KIND_COUNT:
        break;
    }
    return true;
}

static enum event_type type_parse(const char *name) {
    int type = 0;
    while (type < EVENT_TYPE_COUNT && strcmp(event_type_name((enum event_type)type), name) != 0) {
        type++;
    }
    return (enum event_type)type;
}

static int unknown(struct error *error, const char *what) {
    return error_set(error, FLEET_ERR_PROTOCOL, "unknown-event",
                     "the event is of a kind that this version of fleet doesn't know (%s); a newer "
                     "one wrote it",
                     what);
}

static int read_event(const cJSON *object, struct event **ret, struct error *error) {
    const cJSON *version = member(object, "v");
    int64_t ts_ms = 0;
    if (!cJSON_IsObject(object) || !cJSON_IsNumber(version) || version->valuedouble < 1 ||
        !cJSON_IsNumber(member(object, "seq")) || !cJSON_IsString(member(object, "type")) ||
        clock_parse_rfc3339(name_of(member(object, "ts")), &ts_ms) != 0) {
        return error_set(error, FLEET_ERR_PROTOCOL, "bad-event",
                         "the line is no event: v, seq, ts or type is missing or wrong");
    }
    if (version->valuedouble > 1) {
        return error_set(
            error, FLEET_ERR_PROTOCOL, "newer-version",
            "a newer fleet wrote it (events of version %.0f, this one reads version 1)",
            version->valuedouble);
    }
    enum event_type type = type_parse(name_of(member(object, "type")));
    if (type == EVENT_TYPE_COUNT) {
        return unknown(error, "type");
    }
    struct event *event = event_new(type);
    event->seq = size_of(member(object, "seq"));
    event->ts_ms = ts_ms;
    event->run = text_of(member(object, "run"));
    event->host = text_of(member(object, "host"));
    event->wave = count_of(member(object, "wave"));
    for (const struct event_field *field = event_layout(type)->fields; field->name != NULL;
         field++) {
        if (!read_field(event, field, member(object, field->name))) {
            event_free(event);
            return unknown(error, field->name);
        }
    }
    *ret = event;
    return 0;
}

int event_parse(const char *line, size_t len, struct event **ret, struct error *error) {
    struct buf copy = BUF_INIT;
    if (memchr(line, '\0', len) == NULL) {
        buf_add(&copy, line, len);
    }
    /* The last argument: nothing but white space may follow the object. */
    cJSON *object = cJSON_ParseWithOpts(buf_text(&copy), NULL, 1);
    int err = object != NULL ? read_event(object, ret, error)
                             : error_set(error, FLEET_ERR_PROTOCOL, "bad-event",
                                         "the line is torn or no JSON object");
    cJSON_Delete(object);
    buf_free(&copy);
    return err;
}
