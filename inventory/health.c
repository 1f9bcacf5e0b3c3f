/* `health`: probes. The bits of `where` are the probe types. */
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "inventory/settings.h"

#define TYPE(type)  (1U << INV_HEALTH_##type)
#define NETWORK     (TYPE(TCP) | TYPE(HTTP) | TYPE(METRIC))
#define TYPES_COUNT 5

const struct field_choice health_types[] = {
    {"systemd", INV_HEALTH_SYSTEMD, false}, {"tcp", INV_HEALTH_TCP, false},
    {"http", INV_HEALTH_HTTP, false},       {"command", INV_HEALTH_COMMAND, false},
    {"metric", INV_HEALTH_METRIC, false},   {NULL, 0, false},
};

static const char *const type_names[TYPES_COUNT] = {
    "type systemd", "type tcp", "type http", "type command", "type metric",
};

static const struct field_choice froms[] = {
    {"operator", false, false}, {"target", true, false}, {NULL, 0, false}};

static field_read_fn read_status;
static field_read_fn read_bound;

static const struct field health_fields[] = {
    {.name = "name",
     .kind = FIELD_TEXT,
     .required = LAYERS_ALL,
     .format = &format_line,
     FIELD_AT(struct inv_health, name),
     .about = "A later entry of the same name replaces this one."},
    {.name = "type",
     .kind = FIELD_CHOICE,
     .required = LAYERS_ALL,
     .choices = health_types,
     FIELD_AT(struct inv_health, type)},
    {.name = "from",
     .kind = FIELD_CHOICE,
     .where = NETWORK | TYPE(COMMAND),
     .choices = froms,
     FIELD_AT(struct inv_health, from_target),
     .about = "Default: operator; for a command the target."},
    {.name = "interval",
     .kind = FIELD_DURATION,
     .format = &format_positive,
     FIELD_AT(struct inv_health, interval_ms),
     .about = "Default: 5s."},
    {.name = "timeout",
     .kind = FIELD_DURATION,
     .format = &format_positive,
     FIELD_AT(struct inv_health, timeout_ms),
     .about = "Default: 3s."},
    {.name = "successes",
     .kind = FIELD_COUNT,
     .min = 1,
     .max = 1000,
     FIELD_AT(struct inv_health, successes),
     .about = "In a row, to count as passing. Default: 1."},
    {.name = "failures",
     .kind = FIELD_COUNT,
     .min = 1,
     .max = 1000,
     FIELD_AT(struct inv_health, failures),
     .about = "In a row, to count as failed. Default: 3."},
    {.name = "units",
     .kind = FIELD_TEXTS,
     .where = TYPE(SYSTEMD),
     .format = &format_line,
     FIELD_AT(struct inv_health, units),
     .about = "Globs; all must be active. Default: no unit failed that had not before."},
    {.name = "ignore",
     .kind = FIELD_TEXTS,
     .where = TYPE(SYSTEMD),
     .format = &format_line,
     FIELD_AT(struct inv_health, ignore),
     .about = "Globs of units that do not count."},
    {.name = "host",
     .kind = FIELD_TEXT,
     .where = TYPE(TCP),
     .format = &format_probe_host,
     FIELD_AT(struct inv_health, host),
     .about = "Default: the address that answered."},
    {.name = "port",
     .kind = FIELD_COUNT,
     .where = TYPE(TCP),
     .required = TYPE(TCP),
     .min = 1,
     .max = UINT16_MAX,
     FIELD_AT(struct inv_health, port)},
    {.name = "url",
     .kind = FIELD_TEXT,
     .where = TYPE(HTTP) | TYPE(METRIC),
     .required = TYPE(HTTP) | TYPE(METRIC),
     .format = &format_http_url,
     FIELD_AT(struct inv_health, url),
     .about = "${address} is the address that answered."},
    {.name = "method",
     .kind = FIELD_TEXT,
     .where = TYPE(HTTP),
     .format = &format_method,
     FIELD_AT(struct inv_health, method),
     .about = "Default: GET."},
    {.name = "headers",
     .kind = FIELD_PAIRS,
     .where = TYPE(HTTP),
     .format = &format_line,
     FIELD_AT(struct inv_health, headers)},
    {.name = "status",
     .kind = FIELD_CUSTOM,
     .where = TYPE(HTTP),
     .read = read_status,
     .schema = "{\"anyOf\": [{\"type\": \"integer\", \"minimum\": 100, \"maximum\": 599}, "
               "{\"$ref\": \"#/definitions/status\"}]}",
     .about = "Default: 200..399."},
    {.name = "body_regex",
     .kind = FIELD_TEXT,
     .where = TYPE(HTTP),
     .format = &format_regex,
     FIELD_AT(struct inv_health, body_regex),
     .about = "POSIX extended."},
    {.name = "tls_verify",
     .kind = FIELD_BOOL,
     .where = TYPE(HTTP) | TYPE(METRIC),
     FIELD_AT(struct inv_health, tls_verify),
     .about = "Default: true."},
    {.name = "tls_min_days",
     .kind = FIELD_COUNT,
     .where = TYPE(HTTP),
     .max = 3650,
     FIELD_AT(struct inv_health, tls_min_days),
     .about = "Days that the certificate must still be valid."},
    {.name = "run",
     .kind = FIELD_TEXTS,
     .where = TYPE(COMMAND),
     .required = TYPE(COMMAND),
     .min = 1,
     .format = &format_argument,
     FIELD_AT(struct inv_health, run),
     .about = "A command and its arguments; exit 0 passes."},
    {.name = "query",
     .kind = FIELD_TEXT,
     .where = TYPE(METRIC),
     .required = TYPE(METRIC),
     .format = &format_argument,
     FIELD_AT(struct inv_health, query),
     .about = "PromQL."},
    {.name = "above",
     .kind = FIELD_CUSTOM,
     .where = TYPE(METRIC),
     .read = read_bound,
     .schema = "{\"type\": \"number\"}",
     FIELD_AT(struct inv_health, above)},
    {.name = "below",
     .kind = FIELD_CUSTOM,
     .where = TYPE(METRIC),
     .read = read_bound,
     .schema = "{\"type\": \"number\"}",
     FIELD_AT(struct inv_health, below)},
};

const struct table health_table = {
    .name = "health",
    .fields = health_fields,
    .count = ARRAY_LEN(health_fields),
    .places = type_names,
    .place_count = TYPES_COUNT,
};

static bool read_status(struct reader *reader, const struct field *field,
                        const struct json_node *node, void *base) {
    struct inv_health *health = base;
    uint32_t status = 0;
    (void)field;
    if (node->type == JSON_NUMBER) {
        if (!reader_count(reader, node, 100, 599, &status)) {
            return false;
        }
        health->status_min = (uint16_t)status;
        health->status_max = (uint16_t)status;
        return true;
    }
    const char *text = reader_text(reader, node, &format_status);
    if (text == NULL) {
        return false;
    }
    long low = strtol(text, NULL, 10);
    long high = text[3] != '\0' ? strtol(text + 5, NULL, 10) : low;
    if (high < low) {
        return reader_refuse(reader, node, "a range that begins with the smaller status");
    }
    health->status_min = (uint16_t)low;
    health->status_max = (uint16_t)high;
    return true;
}

static bool read_bound(struct reader *reader, const struct field *field,
                       const struct json_node *node, void *base) {
    struct inv_health *health = base;
    if (node->type != JSON_NUMBER) {
        return reader_refuse(reader, node, "a number");
    }
    if (field->offset == offsetof(struct inv_health, above)) {
        health->has_above = true;
        health->above = node->number;
    } else {
        health->has_below = true;
        health->below = node->number;
    }
    return true;
}

static struct inv_health health_defaults(enum inv_health_type type) {
    return (struct inv_health){
        .type = type,
        .from_target = type == INV_HEALTH_SYSTEMD || type == INV_HEALTH_COMMAND,
        .interval_ms = 5000,
        .timeout_ms = 3000,
        .successes = 1,
        .failures = 3,
        .method = "GET",
        .status_min = 200,
        .status_max = 399,
        .tls_verify = true,
    };
}

static bool read_entry(struct reader *reader, const struct json_node *node,
                       struct inv_health *ret) {
    const struct json_node *type_node = json_member(node, "type");
    uint32_t where = LAYERS_ALL;
    *ret = (struct inv_health){0};
    for (const struct field_choice *type = health_types;
         type_node != NULL && type_node->type == JSON_STRING && type->name != NULL; type++) {
        if (strcmp(type->name, type_node->text) == 0) {
            *ret = health_defaults((enum inv_health_type)type->value);
            where = 1U << type->value;
        }
    }
    if (where == LAYERS_ALL && node->type == JSON_OBJECT) {
        /* Without a type nothing can be said of the other keys. */
        if (type_node == NULL) {
            report_value(reader->report, node,
                         "\"type\" is missing; allowed: systemd, tcp, http, command, metric");
            return false;
        }
        return field_read(reader, table_find(&health_table, "type"), type_node, ret);
    }
    if (!table_read(reader, &health_table, where, node, ret)) {
        return false;
    }
    if (ret->type == INV_HEALTH_METRIC && !ret->has_above && !ret->has_below) {
        report_value(reader->report, node, "a metric needs \"above\" or \"below\", or both");
        return false;
    }
    return true;
}

/* The place of an entry of that name, or `count`. */
static size_t find_name(const struct inv_health *items, size_t count, const char *name) {
    size_t i = 0;
    while (i < count && strcmp(items[i].name, name) != 0) {
        i++;
    }
    return i;
}

bool settings_read_health(struct reader *reader, const struct field *field,
                          const struct json_node *node, void *base) {
    struct draft *draft = base;
    (void)field;
    if (node->type == JSON_BOOL && !node->truth) {
        draft->health_off = true;
        draft->host.health = NULL;
        draft->host.health_count = 0;
        return true;
    }
    if (node->type != JSON_ARRAY || node->count > FIELD_LIST_MAX) {
        return reader_refuse(reader, node, "false, or a list of at most 1000 probes");
    }
    size_t merged = draft->host.health_count;
    struct inv_health *items = arena_alloc(reader->arena, merged + node->count, sizeof(*items));
    if (merged > 0) {
        memcpy(items, draft->host.health, merged * sizeof(*items));
    }
    size_t count = merged;
    bool good = true;
    for (const struct json_node *item = json_child(node); item != NULL; item = item->next) {
        struct inv_health entry;
        if (!read_entry(reader, item, &entry)) {
            good = false;
            continue;
        }
        if (find_name(items + merged, count - merged, entry.name) < count - merged) {
            report_value(reader->report, item, "a second probe named \"%s\" in this list",
                         entry.name);
            good = false;
            continue;
        }
        size_t at = find_name(items, merged, entry.name);
        items[at < merged ? at : count++] = entry;
    }
    draft->host.health = items;
    draft->host.health_count = count;
    draft->health_off = false;
    return good;
}

void health_add_default(struct reader *reader, struct draft *draft) {
    const struct inv_health *own = draft->host.health;
    size_t count = draft->host.health_count;
    if (draft->health_off) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (own[i].type == INV_HEALTH_SYSTEMD) {
            return;
        }
    }
    struct inv_health *items = arena_alloc(reader->arena, count + 1, sizeof(*items));
    items[0] = health_defaults(INV_HEALTH_SYSTEMD);
    /* Two probes of one name could not be told apart in events. */
    items[0].name = find_name(own, count, "units") < count ? "units (default)" : "units";
    if (count > 0) {
        memcpy(items + 1, own, count * sizeof(*items));
    }
    draft->host.health = items;
    draft->host.health_count = count + 1;
}
