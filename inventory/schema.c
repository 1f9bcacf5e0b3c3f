/* What a schema can't say, only the loader refuses: names that must exist, jumps in a circle, what
 * merged layers lack, what a host's name makes of ${name}, and whether an IPv6 address or a regular
 * expression is one. test_schema holds both to the same verdicts about everything else.
 */
#include "inventory/schema.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "inventory/settings.h"

static const struct {
    const char *name;
    uint32_t layer;
} layers[] = {
    {"defaults", LAYER_DEFAULTS},
    {"tag", LAYER_TAG},
    {"host", LAYER_HOST},
    {"builder", LAYER_BUILDER},
};

static cJSON *table_schema(const struct table *table, uint32_t where, const char *layer);

static cJSON *text_schema(const struct text_format *format) {
    cJSON *schema = cJSON_CreateObject();
    cJSON_AddStringToObject(schema, "type", "string");
    cJSON_AddStringToObject(schema, "pattern", format->pattern);
    return schema;
}

static cJSON *type_schema(const char *type) {
    cJSON *schema = cJSON_CreateObject();
    cJSON_AddStringToObject(schema, "type", type);
    return schema;
}

static cJSON *ref_schema(const char *definition, const char *layer) {
    AUTO_FREE char *ref = layer != NULL ? xasprintf("#/definitions/%s-%s", definition, layer)
                                        : xasprintf("#/definitions/%s", definition);
    cJSON *schema = cJSON_CreateObject();
    cJSON_AddStringToObject(schema, "$ref", ref);
    return schema;
}

static cJSON *any_of(cJSON *first, cJSON *second) {
    cJSON *schema = cJSON_CreateObject();
    cJSON *list = cJSON_AddArrayToObject(schema, "anyOf");
    cJSON_AddItemToArray(list, first);
    cJSON_AddItemToArray(list, second);
    return schema;
}

static cJSON *list_schema(const struct field *field) {
    cJSON *schema = type_schema("array");
    if (field->min > 0) {
        cJSON_AddNumberToObject(schema, "minItems", field->min);
    }
    if (field->max > 0) {
        cJSON_AddNumberToObject(schema, "maxItems", field->max);
    }
    cJSON_AddItemToObject(schema, "items", text_schema(field->format));
    return schema;
}

static cJSON *count_schema(double min, double max) {
    cJSON *schema = type_schema("integer");
    cJSON_AddNumberToObject(schema, "minimum", min);
    cJSON_AddNumberToObject(schema, "maximum", max);
    return schema;
}

static cJSON *choice_schema(const struct field *field) {
    cJSON *schema = cJSON_CreateObject();
    cJSON *values = cJSON_AddArrayToObject(schema, "enum");
    for (const struct field_choice *choice = field->choices; choice->name != NULL; choice++) {
        cJSON_AddItemToArray(values, choice->literal
                                         ? cJSON_CreateBool(strcmp(choice->name, "true") == 0)
                                         : cJSON_CreateString(choice->name));
    }
    return schema;
}

static cJSON *pairs_schema(const struct field *field) {
    cJSON *schema = type_schema("object");
    cJSON_AddNumberToObject(schema, "maxProperties", FIELD_PAIRS_MAX);
    cJSON_AddItemToObject(schema, "propertyNames", ref_schema("key", NULL));
    cJSON_AddItemToObject(schema, "additionalProperties",
                          field->kind == FIELD_OPTIONS ? ref_schema("option", NULL)
                                                       : text_schema(field->format));
    return schema;
}

static cJSON *custom_schema(const struct field *field, const char *layer) {
    if (field->schema == NULL) {
        return table_schema(field->table, LAYERS_ALL, layer);
    }
    if (field->schema[0] == '@') {
        return ref_schema(field->schema + 1, layer);
    }
    cJSON *schema = cJSON_Parse(field->schema);
    if (schema == NULL) {
        abort(); /* A table of this program holds no JSON. */
    }
    return schema;
}

static cJSON *kind_schema(const struct field *field, const char *layer) {
    switch (field->kind) {
    case FIELD_TEXT:
    case FIELD_DURATION:
    case FIELD_SIZE:
        return text_schema(field->format);
    case FIELD_TEXTS:
        return list_schema(field);
    case FIELD_ONE_OR_TEXTS:
        return any_of(text_schema(field->format), list_schema(field));
    case FIELD_PAIRS:
    case FIELD_OPTIONS:
        return pairs_schema(field);
    case FIELD_BOOL:
        return type_schema("boolean");
    case FIELD_COUNT:
        return count_schema(field->min, field->max);
    case FIELD_NUMBER:
        return type_schema("number");
    case FIELD_AMOUNT:
        return any_of(count_schema(field->min, INT32_MAX), text_schema(&format_percent));
    case FIELD_CHOICE:
        return choice_schema(field);
    case FIELD_TABLE:
        return table_schema(field->table, LAYERS_ALL, layer);
    case FIELD_CUSTOM:
        return custom_schema(field, layer);
    }
    return NULL;
}

static cJSON *field_schema(const struct field *field, const char *layer) {
    cJSON *schema = kind_schema(field, layer);
    if (field->nullable) {
        schema = any_of(type_schema("null"), schema);
    }
    if (field->about != NULL && cJSON_GetObjectItemCaseSensitive(schema, "$ref") == NULL) {
        cJSON_AddStringToObject(schema, "description", field->about);
    }
    return schema;
}

static cJSON *table_schema(const struct table *table, uint32_t where, const char *layer) {
    cJSON *schema = type_schema("object");
    cJSON *required = cJSON_CreateArray();
    cJSON_AddBoolToObject(schema, "additionalProperties", false);
    cJSON *properties = cJSON_AddObjectToObject(schema, "properties");
    for (size_t i = 0; i < table->count; i++) {
        const struct field *field = &table->fields[i];
        if (field->where != 0 && (field->where & where) == 0) {
            continue;
        }
        cJSON_AddItemToObject(properties, field->name, field_schema(field, layer));
        if ((field->required & where) != 0) {
            cJSON_AddItemToArray(required, cJSON_CreateString(field->name));
        }
    }
    if (cJSON_GetArraySize(required) > 0) {
        cJSON_AddItemToObject(schema, "required", required);
    } else {
        cJSON_Delete(required);
    }
    return schema;
}

static cJSON *required_schema(const char *first, const char *second) {
    cJSON *schema = cJSON_CreateObject();
    cJSON *required = cJSON_AddArrayToObject(schema, "required");
    cJSON_AddItemToArray(required, cJSON_CreateString(first));
    if (second != NULL) {
        cJSON_AddItemToArray(required, cJSON_CreateString(second));
    }
    return schema;
}

static cJSON *system_schema(void) {
    cJSON *schema = table_schema(&system_table, LAYERS_ALL, NULL);
    cJSON *pairs = cJSON_AddArrayToObject(cJSON_AddObjectToObject(schema, "not"), "anyOf");
    for (size_t i = 0; i < system_exclusive_count; i++) {
        cJSON_AddItemToArray(
            pairs, required_schema(system_exclusive[i].first, system_exclusive[i].second));
    }
    return schema;
}

/* One object a probe type. */
static cJSON *health_schema(void) {
    cJSON *schema = cJSON_CreateObject();
    cJSON *list = cJSON_AddArrayToObject(schema, "anyOf");
    for (const struct field_choice *type = health_types; type->name != NULL; type++) {
        cJSON *entry = table_schema(&health_table, 1U << type->value, NULL);
        cJSON *constant = cJSON_CreateObject();
        cJSON_AddStringToObject(constant, "const", type->name);
        cJSON_ReplaceItemInObjectCaseSensitive(
            cJSON_GetObjectItemCaseSensitive(entry, "properties"), "type", constant);
        if (type->value == INV_HEALTH_METRIC) {
            cJSON *bounds = cJSON_AddArrayToObject(entry, "anyOf");
            cJSON_AddItemToArray(bounds, required_schema("above", NULL));
            cJSON_AddItemToArray(bounds, required_schema("below", NULL));
        }
        cJSON_AddItemToArray(list, entry);
    }
    return schema;
}

/* Exactly one source, and `identity` with `age` only. */
static cJSON *secret_schema(void) {
    cJSON *schema = table_schema(&secret_table, LAYERS_ALL, NULL);
    cJSON *sources = cJSON_AddArrayToObject(schema, "oneOf");
    for (size_t i = 0; i < secret_source_count; i++) {
        cJSON_AddItemToArray(sources, required_schema(secret_sources[i], NULL));
    }
    cJSON *dependencies = cJSON_AddObjectToObject(schema, "dependencies");
    cJSON_AddItemToArray(cJSON_AddArrayToObject(dependencies, "age"),
                         cJSON_CreateString("identity"));
    cJSON_AddItemToArray(cJSON_AddArrayToObject(dependencies, "identity"),
                         cJSON_CreateString("age"));
    return schema;
}

/* A value of nix.conf. */
static cJSON *option_schema(void) {
    cJSON *schema = cJSON_CreateObject();
    cJSON *list = cJSON_AddArrayToObject(schema, "anyOf");
    cJSON_AddItemToArray(list, type_schema("string"));
    cJSON_AddItemToArray(list, type_schema("boolean"));
    cJSON_AddItemToArray(list, count_schema(0, 9007199254740992.0));
    cJSON *texts = type_schema("array");
    cJSON_AddItemToObject(texts, "items", text_schema(&format_line));
    cJSON_AddItemToArray(list, texts);
    return schema;
}

/* An inventory's name for a place to build on, or an address, which is never this machine. */
static cJSON *builder_schema(void) {
    cJSON *address = cJSON_CreateObject();
    cJSON *all = cJSON_AddArrayToObject(address, "allOf");
    cJSON_AddItemToArray(all, ref_schema("settings", "builder"));
    cJSON_AddItemToArray(all, cJSON_Parse("{\"properties\": {\"address\": "
                                          "{\"not\": {\"const\": \"local\"}}}}"));
    return any_of(ref_schema("name", NULL), address);
}

static cJSON *wave_schema(void) {
    return any_of(count_schema(1, INT32_MAX), text_schema(&format_percent));
}

/* A key is written as it is: there is no host yet whose name could stand in it. */
static cJSON *plain_schema(const char *refused) {
    cJSON *schema = type_schema("string");
    AUTO_FREE char *pattern = xasprintf("^%s[A-Za-z0-9._:@%%\\[\\]-]+$", refused);
    cJSON_AddStringToObject(schema, "pattern", pattern);
    return schema;
}

static void add_definitions(cJSON *definitions) {
    static const struct {
        const char *name;
        const struct text_format *format;
    } formats[] = {
        {"name", &format_name}, {"address", &format_address}, {"host_key", &format_host_key},
        {"tag", &format_tag},   {"status", &format_status},   {"mode", &format_mode},
    };
    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        cJSON_AddItemToObject(definitions, formats[i].name, text_schema(formats[i].format));
    }
    cJSON_AddItemToObject(definitions, "host_name", plain_schema("(?!-)(?!\\.{1,2}$)"));
    cJSON_AddItemToObject(definitions, "key", plain_schema("(?!-)"));
    cJSON_AddItemToObject(definitions, "option", option_schema());
    cJSON_AddItemToObject(definitions, "wave", wave_schema());
    cJSON_AddItemToObject(definitions, "builder", builder_schema());
    cJSON_AddItemToObject(definitions, "system", system_schema());
    cJSON_AddItemToObject(definitions, "health", health_schema());
    cJSON_AddItemToObject(definitions, "secret", secret_schema());
    for (size_t i = 0; i < ARRAY_LEN(layers); i++) {
        char name[40];
        snprintf(name, sizeof(name), "settings-%s", layers[i].name);
        cJSON_AddItemToObject(definitions, name,
                              table_schema(&settings_table, layers[i].layer, layers[i].name));
        if (layers[i].layer != LAYER_BUILDER) {
            snprintf(name, sizeof(name), "policy-%s", layers[i].name);
            cJSON_AddItemToObject(definitions, name,
                                  table_schema(&policy_table, layers[i].layer, layers[i].name));
        }
    }
}

void inventory_schema(struct buf *out) {
    cJSON *schema = cJSON_CreateObject();
    cJSON_AddStringToObject(schema, "$schema", "http://json-schema.org/draft-07/schema#");
    cJSON_AddStringToObject(schema, "title", "The inventory of fleet: fleet.json");
    cJSON *top = table_schema(inventory_table(), LAYERS_ALL, NULL);
    while (top->child != NULL) {
        cJSON *part = cJSON_DetachItemViaPointer(top, top->child);
        char *name = xstrdup(part->string);
        cJSON_AddItemToObject(schema, name, part);
        free(name);
    }
    cJSON_Delete(top);
    add_definitions(cJSON_AddObjectToObject(schema, "definitions"));
    char *text = cJSON_Print(schema);
    if (text != NULL) {
        buf_add_text(out, text);
        buf_add_char(out, '\n');
    }
    cJSON_free(text);
    cJSON_Delete(schema);
}
