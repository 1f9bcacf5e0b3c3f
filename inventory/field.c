#include "inventory/field.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/base/units.h"
#include "core/base/xalloc.h"

#define NAME_REF     "${name}"
#define NAME_REF_LEN (sizeof(NAME_REF) - 1)
/* What ${name} is taken for while a layer is checked for itself. */
#define PLACEHOLDER "name"
#define SHOWN_MAX   60
#define NAMES_MAX   40

/* How a value looks in a message: what it is, and a text or number itself. */
static void add_shown(struct buf *out, const struct json_node *node) {
    if (node->type == JSON_STRING && strlen(node->text) <= SHOWN_MAX) {
        buf_printf(out, "\"%s\"", node->text);
    } else if (node->type == JSON_NUMBER) {
        buf_printf(out, "%.15g", node->number);
    } else if (node->type == JSON_BOOL) {
        buf_add_text(out, node->truth ? "true" : "false");
    } else {
        buf_add_text(out, json_type_words(node));
    }
}

bool reader_refuse(struct reader *reader, const struct json_node *node, const char *allowed) {
    struct buf shown = BUF_INIT;
    add_shown(&shown, node);
    report_value(reader->report, node, "%s is not allowed here; allowed: %s", buf_text(&shown),
                 allowed);
    buf_free(&shown);
    return false;
}

/* `text` with each ${name} replaced. */
static const char *expand_name(struct reader *reader, const char *text, const char *name) {
    struct buf out = BUF_INIT;
    for (const char *ref; (ref = strstr(text, NAME_REF)) != NULL; text = ref + NAME_REF_LEN) {
        buf_add(&out, text, (size_t)(ref - text));
        buf_add_text(&out, name);
    }
    buf_add_text(&out, text);
    const char *expanded = arena_text(reader->arena, buf_text(&out), out.len);
    buf_free(&out);
    return expanded;
}

/* A path of this machine made absolute. */
static const char *resolve_file(struct reader *reader, const struct json_node *node,
                                const char *text) {
    if (text[0] == '/') {
        return text;
    }
    if (text[0] != '~') {
        return arena_printf(reader->arena, "%s/%s", reader->dir, text);
    }
    if (reader->home == NULL) {
        report_value(reader->report, node,
                     "~ has no meaning here: HOME is not set; write the "
                     "whole path");
        return NULL;
    }
    return arena_printf(reader->arena, "%s%s", reader->home, text + 1);
}

const char *reader_text(struct reader *reader, const struct json_node *node,
                        const struct text_format *format) {
    if (node->type != JSON_STRING) {
        reader_refuse(reader, node, format->allowed);
        return NULL;
    }
    const char *text;
    if (strstr(node->text, NAME_REF) != NULL) {
        reader->saw_name = true;
        text = expand_name(reader, node->text,
                           reader->host_name != NULL ? reader->host_name : PLACEHOLDER);
    } else {
        text = arena_text(reader->arena, node->text, strlen(node->text));
    }
    if (!format->check(text)) {
        /* What is wrong whatever the name is told once, in the words of the layer's own check. */
        if (strcmp(text, node->text) != 0 && reader->host_name != NULL &&
            format->check(expand_name(reader, node->text, PLACEHOLDER))) {
            report_value(reader->report, node, "for host %s this is \"%s\"; allowed: %s",
                         reader->host_name, text, format->allowed);
        } else {
            reader_refuse(reader, node, format->allowed);
        }
        return NULL;
    }
    return format->is_file ? resolve_file(reader, node, text) : text;
}

bool reader_texts(struct reader *reader, const struct json_node *node,
                  const struct text_format *format, size_t min, bool one, struct inv_strings *ret) {
    if (one && node->type == JSON_STRING) {
        const char *text = reader_text(reader, node, format);
        if (text == NULL) {
            return false;
        }
        *ret = (struct inv_strings){.items = arena_copy(reader->arena, &text, 1, sizeof(text)),
                                    .count = 1};
        return true;
    }
    if (node->type != JSON_ARRAY || node->count < min) {
        char allowed[300];
        snprintf(allowed, sizeof(allowed), "%sa list%s of which each is %s", one ? "one or " : "",
                 min > 0 ? ", not empty," : "", format->allowed);
        return reader_refuse(reader, node, allowed);
    }
    const char **items = arena_alloc(reader->arena, node->count, sizeof(*items));
    bool good = true;
    for (const struct json_node *item = json_child(node); item != NULL; item = item->next) {
        items[item->index] = reader_text(reader, item, format);
        good = good && items[item->index] != NULL;
    }
    if (good) {
        *ret = (struct inv_strings){.items = items, .count = node->count};
    }
    return good;
}

/* True if `number` is whole and in min..max. */
static bool is_whole(double number, double min, double max) {
    return number >= min && number <= max && number == (double)(uint64_t)number;
}

bool reader_count(struct reader *reader, const struct json_node *node, uint32_t min, uint32_t max,
                  uint32_t *ret) {
    if (node->type != JSON_NUMBER || !is_whole(node->number, min, max)) {
        char allowed[80];
        snprintf(allowed, sizeof(allowed), "a whole number from %u to %u", (unsigned)min,
                 (unsigned)max);
        return reader_refuse(reader, node, allowed);
    }
    *ret = (uint32_t)node->number;
    return true;
}

bool reader_amount(struct reader *reader, const struct json_node *node, uint32_t min,
                   struct inv_amount *ret) {
    struct inv_amount amount = {.percent = node->type == JSON_STRING};
    if (node->type == JSON_NUMBER && is_whole(node->number, min, INT32_MAX)) {
        amount.value = (uint32_t)node->number;
    } else if (node->type != JSON_STRING || units_parse_percent(node->text, &amount.value) != 0) {
        return reader_refuse(reader, node,
                             min > 0 ? "a number from 1, or a share such as \"10%\""
                                     : "a number from 0, or a share such as \"10%\"");
    }
    *ret = amount;
    return true;
}

/* A value of nix.conf: what Nix itself would print for it. NULL, reported. */
static const char *read_option(struct reader *reader, const struct json_node *node) {
    struct inv_strings words;
    if (node->type == JSON_BOOL) {
        return node->truth ? "true" : "false";
    }
    if (node->type == JSON_NUMBER && is_whole(node->number, 0, 9007199254740992.0)) {
        return arena_printf(reader->arena, "%.0f", node->number);
    }
    if (node->type == JSON_STRING) {
        return reader_text(reader, node, &format_free);
    }
    if (node->type != JSON_ARRAY) {
        reader_refuse(reader, node, "a text, a whole number, true, false, or a list of texts");
        return NULL;
    }
    if (!reader_texts(reader, node, &format_line, 0, false, &words)) {
        return NULL;
    }
    struct buf joined = BUF_INIT;
    for (size_t i = 0; i < words.count; i++) {
        buf_printf(&joined, "%s%s", i > 0 ? " " : "", words.items[i]);
    }
    const char *text = arena_text(reader->arena, buf_text(&joined), joined.len);
    buf_free(&joined);
    return text;
}

/* Puts a pair among `count` others: in the place of the same key, else at the end. */
static size_t put_pair(struct inv_pair *pairs, size_t count, size_t merged, struct inv_pair pair) {
    for (size_t i = 0; i < merged; i++) {
        if (strcmp(pairs[i].key, pair.key) == 0) {
            pairs[i] = pair;
            return count;
        }
    }
    pairs[count] = pair;
    return count + 1;
}

static bool read_pairs(struct reader *reader, const struct field *field,
                       const struct json_node *node, struct inv_pairs *pairs) {
    if (node->type != JSON_OBJECT) {
        return reader_refuse(reader, node, "an object of names and values");
    }
    if (node->count > FIELD_PAIRS_MAX) {
        return reader_refuse(reader, node, "an object of at most 1000 names and values");
    }
    struct inv_pair *items = arena_alloc(reader->arena, pairs->count + node->count, sizeof(*items));
    size_t merged = pairs->count;
    size_t count = merged;
    bool good = true;
    if (merged > 0) {
        memcpy(items, pairs->items, merged * sizeof(*items));
    }
    for (const struct json_node *item = json_child(node); item != NULL; item = item->next) {
        struct inv_pair pair = {
            .key = arena_text(reader->arena, item->key, strlen(item->key)),
            .value = field->kind == FIELD_OPTIONS ? read_option(reader, item)
                                                  : reader_text(reader, item, field->format),
        };
        if (!format_name.check(pair.key)) {
            report_key(reader->report, item, "this name is not allowed; allowed: %s",
                       format_name.allowed);
            pair.value = NULL;
        }
        good = good && pair.value != NULL;
        count = put_pair(items, count, merged, pair);
    }
    if (good) {
        *pairs = (struct inv_pairs){.items = items, .count = count};
    }
    return good;
}

static bool choice_matches(const struct field_choice *choice, const struct json_node *node) {
    if (choice->literal) {
        return node->type == JSON_BOOL && node->truth == (strcmp(choice->name, "true") == 0);
    }
    return node->type == JSON_STRING && strcmp(choice->name, node->text) == 0;
}

static bool read_choice(struct reader *reader, const struct field *field,
                        const struct json_node *node, void *out) {
    struct buf allowed = BUF_INIT;
    const char *names[NAMES_MAX];
    size_t count = 0;
    for (const struct field_choice *choice = field->choices; choice->name != NULL; choice++) {
        if (choice_matches(choice, node)) {
            if (field->size == sizeof(bool)) {
                *(bool *)out = choice->value != 0;
            } else {
                memcpy(out, &choice->value, sizeof(choice->value));
            }
            buf_free(&allowed);
            return true;
        }
        const char *quote = choice->literal ? "" : "\"";
        buf_printf(&allowed, "%s%s%s%s", allowed.len > 0 ? ", " : "", quote, choice->name, quote);
        names[count] = choice->name;
        count += count + 1 < NAMES_MAX ? 1 : 0;
    }
    const char *near = node->type == JSON_STRING ? text_nearest(node->text, names, count) : NULL;
    if (near != NULL) {
        buf_printf(&allowed, "; nearest: \"%s\"", near);
    }
    reader_refuse(reader, node, buf_text(&allowed));
    buf_free(&allowed);
    return false;
}

/* Durations and sizes. */
static bool read_quantity(struct reader *reader, const struct field *field,
                          const struct json_node *node, uint64_t *out) {
    const char *text = reader_text(reader, node, field->format);
    if (text == NULL) {
        return false;
    }
    return (field->kind == FIELD_DURATION ? units_parse_duration(text, out)
                                          : units_parse_size(text, out)) == 0;
}

static bool read_into(struct reader *reader, const struct field *field,
                      const struct json_node *node, void *out) {
    switch (field->kind) {
    case FIELD_TEXT: {
        const char *text = reader_text(reader, node, field->format);
        if (text != NULL) {
            *(const char **)out = text;
        }
        return text != NULL;
    }
    case FIELD_TEXTS:
    case FIELD_ONE_OR_TEXTS:
        return reader_texts(reader, node, field->format, field->min,
                            field->kind == FIELD_ONE_OR_TEXTS, out);
    case FIELD_PAIRS:
    case FIELD_OPTIONS:
        return read_pairs(reader, field, node, out);
    case FIELD_BOOL:
        if (node->type != JSON_BOOL) {
            return reader_refuse(reader, node, "true, false");
        }
        *(bool *)out = node->truth;
        return true;
    case FIELD_COUNT: {
        uint32_t value;
        if (!reader_count(reader, node, field->min, field->max, &value)) {
            return false;
        }
        if (field->size == sizeof(uint16_t)) {
            *(uint16_t *)out = (uint16_t)value;
        } else {
            *(uint32_t *)out = value;
        }
        return true;
    }
    case FIELD_NUMBER:
        if (node->type != JSON_NUMBER) {
            return reader_refuse(reader, node, "a number");
        }
        *(double *)out = node->number;
        return true;
    case FIELD_DURATION:
    case FIELD_SIZE:
        return read_quantity(reader, field, node, out);
    case FIELD_AMOUNT:
        return reader_amount(reader, node, field->min, out);
    case FIELD_CHOICE:
        return read_choice(reader, field, node, out);
    case FIELD_TABLE:
        return table_read(reader, field->table, LAYERS_ALL, node, out);
    case FIELD_CUSTOM:
        break;
    }
    return false;
}

bool field_read(struct reader *reader, const struct field *field, const struct json_node *node,
                void *base) {
    if (field->kind == FIELD_CUSTOM) {
        return field->read(reader, field, node, base);
    }
    char *out = (char *)base + field->offset;
    if (node->type == JSON_NULL && field->nullable) {
        memset(out, 0, field->size);
        return true;
    }
    return read_into(reader, field, node, out);
}

const struct field *table_find(const struct table *table, const char *name) {
    for (size_t i = 0; i < table->count; i++) {
        if (strcmp(table->fields[i].name, name) == 0) {
            return &table->fields[i];
        }
    }
    return NULL;
}

static bool allowed_at(const struct field *field, uint32_t where) {
    return field->where == 0 || (field->where & where) != 0;
}

const char *table_nearest(const struct table *table, uint32_t where, const char *word) {
    const char *names[NAMES_MAX];
    size_t count = 0;
    for (size_t i = 0; i < table->count && count < NAMES_MAX; i++) {
        if (allowed_at(&table->fields[i], where)) {
            names[count++] = table->fields[i].name;
        }
    }
    return text_nearest(word, names, count);
}

/* Reports the key of `node` as unknown, with the nearest name and those that are allowed. */
static void report_unknown(struct reader *reader, const struct table *table, uint32_t where,
                           const struct json_node *node) {
    const char *near = table_nearest(table, where, node->key);
    struct buf names = BUF_INIT;
    for (size_t i = 0; i < table->count; i++) {
        if (allowed_at(&table->fields[i], where)) {
            buf_printf(&names, "%s%s", names.len > 0 ? ", " : "", table->fields[i].name);
        }
    }
    if (near != NULL) {
        report_key(reader->report, node, "unknown key; did you mean \"%s\"? Allowed here: %s", near,
                   buf_text(&names));
    } else {
        report_key(reader->report, node, "unknown key; allowed here: %s", buf_text(&names));
    }
    buf_free(&names);
}

static void report_misplaced(struct reader *reader, const struct table *table,
                             const struct field *field, uint32_t where,
                             const struct json_node *node) {
    struct buf allowed = BUF_INIT;
    const char *here = "this place";
    for (size_t i = 0; i < table->place_count; i++) {
        if ((field->where & 1U << i) != 0) {
            buf_printf(&allowed, "%s%s", allowed.len > 0 ? ", " : "", table->places[i]);
        }
        here = where == 1U << i ? table->places[i] : here;
    }
    report_key(reader->report, node, "\"%s\" is not allowed in %s%s%s; allowed in: %s", field->name,
               here, field->scope != NULL ? ": " : "", field->scope != NULL ? field->scope : "",
               buf_text(&allowed));
    buf_free(&allowed);
}

static bool check_required(struct reader *reader, const struct table *table, uint32_t where,
                           const struct json_node *node) {
    bool good = true;
    for (size_t i = 0; i < table->count; i++) {
        const struct field *field = &table->fields[i];
        if ((field->required & where) != 0 && json_member(node, field->name) == NULL) {
            report_value(reader->report, node, "\"%s\" is missing", field->name);
            good = false;
        }
    }
    return good;
}

bool table_read(struct reader *reader, const struct table *table, uint32_t where,
                const struct json_node *node, void *base) {
    if (node->type != JSON_OBJECT) {
        return reader_refuse(reader, node, "an object { ... }");
    }
    bool good = true;
    for (const struct json_node *item = json_child(node); item != NULL; item = item->next) {
        const struct field *field = table_find(table, item->key);
        if (field == NULL) {
            report_unknown(reader, table, where, item);
            good = false;
            continue;
        }
        if (!allowed_at(field, where)) {
            report_misplaced(reader, table, field, where, item);
            good = false;
            continue;
        }
        void *target = table->place != NULL ? table->place(base, field) : base;
        good = (target == NULL || field_read(reader, field, item, target)) && good;
    }
    return check_required(reader, table, where, node) && good;
}
