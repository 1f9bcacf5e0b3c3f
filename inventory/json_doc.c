#include "inventory/json_doc.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "inventory/json_scan.h"
#include "inventory/name_table.h"

/* Up to so many keys are compared in pairs, above it through a hash table. */
#define PAIRWISE_MAX 12

struct json_doc {
    cJSON *tree; /* owns the nodes' strings */
    struct json_node *nodes;
    size_t count;
};

struct builder {
    struct json_doc *doc;
    const struct json_positions *positions;
    json_on_fault *on_fault;
    void *arg;
    bool failed;
};

static enum json_type type_of(const cJSON *item) {
    switch (item->type & 0xFF) {
    case cJSON_False:
    case cJSON_True:
        return JSON_BOOL;
    case cJSON_Number:
        return JSON_NUMBER;
    case cJSON_String:
        return JSON_STRING;
    case cJSON_Array:
        return JSON_ARRAY;
    case cJSON_Object:
        return JSON_OBJECT;
    default:
        return JSON_NULL;
    }
}

static void fault_at_key(struct builder *builder, const struct json_node *node,
                         const char *message) {
    builder->on_fault(builder->arg, node->key_offset, node, message);
}

/* Told, and taken out from behind `before`: the first one stands, so that what else is wrong can
 * be told, too. */
static void refuse_duplicate(struct builder *builder, const struct json_node *before,
                             const struct json_node *node) {
    fault_at_key(builder, node, "this key stands here a second time; keep one of the two");
    builder->doc->nodes[before - builder->doc->nodes].next = node->next;
}

static bool stands_before(const struct json_node *object, const struct json_node *node) {
    for (const struct json_node *at = json_child(object); at != node; at = at->next) {
        if (strcmp(at->key, node->key) == 0) {
            return true;
        }
    }
    return false;
}

static void check_duplicates(struct builder *builder, const struct json_node *object) {
    bool few = object->count <= PAIRWISE_MAX;
    struct name_table keys = NAME_TABLE_INIT;
    const struct json_node *before = NULL;
    for (const struct json_node *node = json_child(object); node != NULL; node = node->next) {
        if (few ? stands_before(object, node)
                : !name_table_add(&keys, node->key, strlen(node->key), node->index, NULL)) {
            refuse_duplicate(builder, before, node);
        } else {
            before = node;
        }
    }
    name_table_release(&keys);
}

/* Appends `item` and what it holds. The scanner bounds the depth. */
// NOLINTNEXTLINE(misc-no-recursion)
static struct json_node *flatten(struct builder *builder, const cJSON *item,
                                 const struct json_node *parent, uint32_t index) {
    struct json_doc *doc = builder->doc;
    if (doc->count >= builder->positions->count) {
        abort(); /* The scanner and cJSON disagree: a bug that must not become an overrun. */
    }
    const struct json_position *position = &builder->positions->items[doc->count];
    struct json_node *node = &doc->nodes[doc->count++];
    *node = (struct json_node){
        .parent = parent,
        .key = item->string,
        .text = item->valuestring,
        .number = item->valuedouble,
        .type = type_of(item),
        .index = index,
        .key_offset = position->key != JSON_NO_KEY ? position->key : position->value,
        .offset = position->value,
        .truth = (item->type & 0xFF) == cJSON_True,
    };
    if (node->type == JSON_NUMBER && !isfinite(node->number)) {
        builder->failed = true;
        fault_at_key(builder, node, "this number is too large");
    }
    struct json_node *last = NULL;
    for (const cJSON *child = item->child; child != NULL; child = child->next) {
        struct json_node *added = flatten(builder, child, node, node->count++);
        if (last != NULL) {
            last->next = added;
        }
        last = added;
    }
    if (node->type == JSON_OBJECT) {
        check_duplicates(builder, node);
    }
    return node;
}

struct json_doc *json_doc_parse(const char *text, size_t len, json_on_fault *on_fault, void *arg) {
    struct json_positions positions = {0};
    struct json_fault fault;
    char *blanked = xmalloc(len + 1);
    memcpy(blanked, text, len);
    blanked[len] = '\0';
    struct json_doc *doc = NULL;
    if (json_scan(blanked, len, &positions, &fault) != 0) {
        on_fault(arg, fault.offset, NULL, fault.message);
        goto out;
    }
    const char *end = blanked;
    cJSON *tree = cJSON_ParseWithLengthOpts(blanked, len + 1, &end, 1);
    if (tree == NULL) {
        on_fault(arg, (size_t)(end - blanked), NULL, "cJSON cannot read this");
        goto out;
    }
    doc = xcalloc(1, sizeof(*doc));
    doc->tree = tree;
    doc->nodes = xmalloc(positions.count * sizeof(*doc->nodes));
    struct builder builder = {
        .doc = doc, .positions = &positions, .on_fault = on_fault, .arg = arg};
    flatten(&builder, tree, NULL, 0);
    if (builder.failed) {
        json_doc_free(doc);
        doc = NULL;
    }
out:
    free(positions.items);
    free(blanked);
    return doc;
}

void json_doc_free(struct json_doc *doc) {
    if (doc == NULL) {
        return;
    }
    cJSON_Delete(doc->tree);
    free(doc->nodes);
    free(doc);
}

const struct json_node *json_doc_root(const struct json_doc *doc) {
    return doc->nodes;
}

const struct json_node *json_member(const struct json_node *node, const char *key) {
    if (node->type != JSON_OBJECT) {
        return NULL;
    }
    for (const struct json_node *child = json_child(node); child != NULL; child = child->next) {
        if (strcmp(child->key, key) == 0) {
            return child;
        }
    }
    return NULL;
}

const char *json_type_words(const struct json_node *node) {
    static const char *const words[] = {
        [JSON_NULL] = "null",       [JSON_BOOL] = "true or false", [JSON_NUMBER] = "a number",
        [JSON_STRING] = "a string", [JSON_ARRAY] = "a list",       [JSON_OBJECT] = "an object",
    };
    return words[node->type];
}
