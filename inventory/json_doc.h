/* A parsed JSON text with positions: what json_scan passed and cJSON parsed, as one flat array of
 * nodes in document order. A node stands in front of its children. Read-only once parsed.
 */
#ifndef FLEET_INVENTORY_JSON_DOC_H
#define FLEET_INVENTORY_JSON_DOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum json_type {
    JSON_NULL,
    JSON_BOOL,
    JSON_NUMBER,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT
};

struct json_node {
    const struct json_node *parent; /* NULL: the root */
    const struct json_node *next;   /* the next sibling, or NULL */
    const char *key;                /* in an object, else NULL */
    const char *text;               /* JSON_STRING */
    double number;                  /* JSON_NUMBER, finite */
    enum json_type type;
    uint32_t index;      /* among its siblings */
    uint32_t count;      /* children */
    uint32_t key_offset; /* in the text as it was given; `offset` where there is no key */
    uint32_t offset;
    bool truth; /* JSON_BOOL */
};

/* Called for each fault, in any order. */
typedef void json_on_fault(void *arg, size_t offset, const struct json_node *node,
                           const char *message);

struct json_doc;

/* Parses `len` bytes, which stay the caller's. Syntax ends at the first fault; duplicate keys and
 * numbers without a value are all told (with their node). Of equal keys the first is kept and the
 * rest can be read all the same; after any other fault NULL. */
struct json_doc *json_doc_parse(const char *text, size_t len, json_on_fault *on_fault, void *arg);
void json_doc_free(struct json_doc *doc);
const struct json_node *json_doc_root(const struct json_doc *doc);

/* The first child, or NULL; then `next`. */
static inline const struct json_node *json_child(const struct json_node *node) {
    return node->count > 0 ? node + 1 : NULL;
}
/* The member of that key (exact case), or NULL. Linear. */
const struct json_node *json_member(const struct json_node *node, const char *key);
/* "a string", "a list", for messages. */
const char *json_type_words(const struct json_node *node);

#endif
