/* Writes an event as a line of JSON. What it writes is safe to print: text is cleaned first, so a
 * reader of the journal or of --json never meets a control sequence that a host sent. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "core/base/clock.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/event_fields.h"

/* `text` in quotes; null for NULL. After cleaning, only three characters need an escape. */
static void add_string(struct buf *out, const char *text) {
    if (text == NULL) {
        buf_add_text(out, "null");
        return;
    }
    struct buf clean = BUF_INIT;
    text_clean(&clean, text, strlen(text), true);
    buf_add_char(out, '"');
    const char *plain = buf_text(&clean);
    for (size_t span; plain[span = strcspn(plain, "\"\\\n")] != '\0'; plain += span + 1) {
        buf_add(out, plain, span);
        buf_add_char(out, '\\');
        buf_add_char(out, plain[span] == '\n' ? 'n' : plain[span]);
    }
    buf_add_text(out, plain);
    buf_add_char(out, '"');
    buf_free(&clean);
}

/* `"name":`, with a comma before it unless it is the first of its object. */
static void add_key(struct buf *out, const char *name) {
    if (out->len > 0 && out->data[out->len - 1] != '{') {
        buf_add_char(out, ',');
    }
    buf_printf(out, "\"%s\":", name);
}

static void add_hosts(struct buf *out, const struct event *event) {
    buf_add_char(out, '[');
    for (size_t i = 0; i < event->host_count; i++) {
        if (i > 0) {
            buf_add_char(out, ',');
        }
        add_string(out, event->hosts[i].name);
    }
    buf_add_char(out, ']');
}

/* A list of names a wave. The hosts are chained by wave first, so that it takes one pass. */
static void add_waves(struct buf *out, const struct event *event) {
    size_t waves = event->wave_count;
    size_t *first = xcalloc(waves + 1, sizeof(*first)); /* numbers from 1; 0: none */
    size_t *next = xcalloc(event->host_count + 1, sizeof(*next));
    for (size_t i = event->host_count; i > 0; i--) {
        size_t wave = event->hosts[i - 1].wave;
        if (wave > 0 && wave <= waves) {
            next[i] = first[wave];
            first[wave] = i;
        }
    }
    buf_add_char(out, '[');
    for (size_t wave = 1; wave <= waves; wave++) {
        buf_add_text(out, wave > 1 ? ",[" : "[");
        for (size_t i = first[wave]; i > 0; i = next[i]) {
            if (i != first[wave]) {
                buf_add_char(out, ',');
            }
            add_string(out, event->hosts[i - 1].name);
        }
        buf_add_char(out, ']');
    }
    buf_add_char(out, ']');
    free(first);
    free(next);
}

static void add_addresses(struct buf *out, const struct event *event) {
    buf_add_char(out, '{');
    bool any = false;
    for (size_t i = 0; i < event->host_count; i++) {
        if (event->hosts[i].address != NULL) {
            if (any) {
                buf_add_char(out, ',');
            }
            any = true;
            add_string(out, event->hosts[i].name);
            buf_add_char(out, ':');
            add_string(out, event->hosts[i].address);
        }
    }
    buf_add_char(out, '}');
}

/* A JSON object as text; printed anew, so that it surely is one line, and cleaned as all text is.
 * What isn't an object, before or after, becomes null. */
static void add_object(struct buf *out, const char *object_text) {
    cJSON *object = object_text != NULL ? cJSON_Parse(object_text) : NULL;
    char *text = cJSON_IsObject(object) ? cJSON_PrintUnformatted(object) : NULL;
    struct buf clean = BUF_INIT;
    if (text != NULL) {
        text_clean(&clean, text, strlen(text), false);
    }
    cJSON *again = cJSON_Parse(buf_text(&clean));
    buf_add_text(out, cJSON_IsObject(again) ? buf_text(&clean) : "null");
    cJSON_Delete(again);
    buf_free(&clean);
    cJSON_free(text);
    cJSON_Delete(object);
}

/* All ends, and what else occurs. */
static void add_counts(struct buf *out, const struct event *event) {
    buf_add_char(out, '{');
    for (int state = 0; state < HOST_STATE_COUNT; state++) {
        if (event->counts[state] > 0 || host_state_is_end((enum host_state)state)) {
            add_key(out, host_state_name((enum host_state)state));
            buf_printf(out, "%" PRIu32, event->counts[state]);
        }
    }
    buf_add_char(out, '}');
}

static const char *text_at(const void *at) {
    char *const *text = at;
    return *text;
}

static uint64_t size_at(const void *at) {
    const uint64_t *size = at;
    return *size;
}

static int64_t number_at(const void *at) {
    const int64_t *number = at;
    return *number;
}

/* "" says as little as NULL where a person is to read it. */
static const char *field_text(const struct event_field *field, const void *at) {
    const char *text = text_at(at);
    return text != NULL && text[0] == '\0' && field->blank_is_null ? NULL : text;
}

static bool is_absent(const struct event_field *field, const void *at) {
    return (field->kind == EVENT_FIELD_TEXT && field_text(field, at) == NULL) ||
           (field->kind == EVENT_FIELD_NUMBER && number_at(at) == 0);
}

static void add_value(struct buf *out, const struct event *event, const struct event_field *field,
                      const void *at) {
    switch (field->kind) {
    case EVENT_FIELD_TEXT:
        add_string(out, field_text(field, at));
        break;
    case EVENT_FIELD_SIZE:
        buf_printf(out, "%" PRIu64, size_at(at));
        break;
    case EVENT_FIELD_NUMBER:
        buf_printf(out, "%" PRId64, number_at(at));
        break;
    case EVENT_FIELD_INT:
        buf_printf(out, "%d", event->exit);
        break;
    case EVENT_FIELD_BOOL:
        buf_add_text(out, event->ok ? "true" : "false");
        break;
    case EVENT_FIELD_FROM:
        add_string(out, event->has_from ? host_state_name(event->from) : NULL);
        break;
    case EVENT_FIELD_STATE:
        add_string(out, host_state_name(event->to));
        break;
    case EVENT_FIELD_ACT:
        add_string(out, act_name(event->act));
        break;
    case EVENT_FIELD_ACTION:
        add_string(out, run_action_name(event->action));
        break;
    case EVENT_FIELD_GIT:
        buf_add_text(out, "{\"rev\":");
        add_string(out, event->rev);
        buf_printf(out, ",\"dirty\":%s}", event->dirty ? "true" : "false");
        break;
    case EVENT_FIELD_HOSTS:
        add_hosts(out, event);
        break;
    case EVENT_FIELD_WAVES:
        add_waves(out, event);
        break;
    case EVENT_FIELD_ADDRESSES:
        add_addresses(out, event);
        break;
    case EVENT_FIELD_OBJECT:
        add_object(out, text_at(at));
        break;
    case EVENT_FIELD_COUNTS:
        add_counts(out, event);
        break;
    case EVENT_FIELD_KIND_COUNT:
        break;
    }
}

void event_format(const struct event *event, struct buf *out) {
    char ts[CLOCK_RFC3339_SIZE];
    clock_rfc3339(event->ts_ms, ts);
    const struct event_layout *layout = event_layout(event->type);
    buf_printf(out, "{\"v\":1,\"seq\":%" PRIu64 ",\"ts\":\"%s\",\"run\":", event->seq, ts);
    add_string(out, event->run);
    buf_printf(out, ",\"type\":\"%s\"", layout->name);
    if (event->host != NULL) {
        add_key(out, "host");
        add_string(out, event->host);
    }
    if (event->wave > 0) {
        add_key(out, "wave");
        buf_printf(out, "%" PRIu32, event->wave);
    }
    for (const struct event_field *field = layout->fields; field->name != NULL; field++) {
        const void *at = (const char *)event + field->offset;
        if (!field->optional || !is_absent(field, at)) {
            add_key(out, field->name);
            add_value(out, event, field, at);
        }
    }
    buf_add_text(out, "}\n");
}
