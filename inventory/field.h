/* Fields: const tables that say what the inventory may contain. Loading, error messages and the
 * JSON Schema all come from them.
 *
 * A field has a name, a kind (how its JSON is read, and into what), and `where`: a mask of the
 * places where it is allowed. What the bits mean is the table's matter: layers for settings, types
 * for probes. A value is written at `offset` of the struct that the table describes.
 */
#ifndef FLEET_INVENTORY_FIELD_H
#define FLEET_INVENTORY_FIELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "inventory/arena.h"
#include "inventory/format.h"
#include "inventory/inventory.h"
#include "inventory/json_doc.h"
#include "inventory/report.h"

/* The bits of `where` for settings and policy. */
enum layer {
    LAYER_DEFAULTS = 1,
    LAYER_TAG = 2,
    LAYER_HOST = 4,
    LAYER_OVERRIDE = 8, /* --policy */
    LAYER_BUILDER = 16, /* the address form of build.on */
};
#define LAYERS_ALL  0xFFFFFFFFU
#define LAYER_COUNT 5

/* Of one object of pairs, one host's tags, probes or secrets. */
#define FIELD_PAIRS_MAX 1000
#define FIELD_LIST_MAX  1000

struct draft;

/* What reading needs. One a load. */
struct reader {
    struct inv_arena *arena;
    struct report *report;
    const char *dir;       /* the inventory's folder, absolute */
    const char *home;      /* for ~, or NULL */
    const char *host_name; /* for ${name}; NULL: the layer is read for itself */
    bool saw_name;         /* ${name} was met: the result holds for this host only */
    struct draft *specs;   /* build hosts given by address, to be resolved at the end */
};

enum field_kind {
    FIELD_TEXT,         /* const char *, of `format` */
    FIELD_TEXTS,        /* struct inv_strings: a list of `format`, at least `min` */
    FIELD_ONE_OR_TEXTS, /* the same, and a single text stands for a list of one */
    FIELD_PAIRS,        /* struct inv_pairs, merged by key; `format` for the values */
    FIELD_OPTIONS,      /* the same with texts, numbers, booleans and lists of texts (nix.conf) */
    FIELD_BOOL,         /* bool */
    FIELD_COUNT,        /* uint32_t, or uint16_t where size is 2, min..max */
    FIELD_NUMBER,       /* double */
    FIELD_DURATION,     /* uint64_t, milliseconds; `format` positive or not */
    FIELD_SIZE,         /* uint64_t, bytes */
    FIELD_AMOUNT,       /* struct inv_amount: a count or a share */
    FIELD_CHOICE,       /* one of `choices`: an enum, or a bool where size is that of bool */
    FIELD_TABLE,        /* an object of its own: `table`, read into the same base + offset */
    FIELD_CUSTOM,       /* `read`, with `schema` as what the JSON Schema says */
};

struct field_choice {
    const char *name; /* NULL ends the list */
    int value;
    bool literal; /* JSON's true or false instead of a string */
};

struct field;

/* Reads a value that no kind covers. True, or false with the error reported. */
typedef bool field_read_fn(struct reader *reader, const struct field *field,
                           const struct json_node *node, void *base);

struct table {
    const char *name; /* the JSON Schema's definition; "" where a layer is added */
    const struct field *fields;
    size_t count;
    /* What a bit of `where` is called, for "not allowed in ..."; LAYER_COUNT entries or more. */
    const char *const *places;
    size_t place_count;
    /* Where a field's value goes, or NULL to check it only; without it: base. */
    void *(*place)(void *base, const struct field *field);
};

struct field {
    const char *name;
    enum field_kind kind;
    bool nullable;     /* null takes back what a lower layer said */
    uint32_t where;    /* 0: everywhere */
    uint32_t required; /* of these places */
    size_t offset, size;
    uint32_t min, max;
    const struct text_format *format;
    const struct field_choice *choices;
    const struct table *table;
    field_read_fn *read;
    const char *schema; /* JSON; "@policy" refers to the definition of the same layer */
    const char *about;  /* one line for the schema */
    const char *scope;  /* why it isn't allowed everywhere, for messages, or NULL */
};

#define FIELD_AT(type, member)                                                                     \
    .offset = offsetof(type, member), .size = sizeof(((type *)NULL)->member)

/* Reads one value. True, or false with the error reported and nothing written. */
bool field_read(struct reader *reader, const struct field *field, const struct json_node *node,
                void *base);
/* Reads an object by its table as seen from the place `where` (one bit): unknown, misplaced and
 * missing keys are reported, and all the others still read. */
bool table_read(struct reader *reader, const struct table *table, uint32_t where,
                const struct json_node *node, void *base);
const struct field *table_find(const struct table *table, const char *name);
/* The name nearest to `word` of those allowed at `where`, or NULL. */
const char *table_nearest(const struct table *table, uint32_t where, const char *word);

/* A string with ${name} expanded and its format checked, and a file made absolute; in the arena.
 * NULL with the error reported. */
const char *reader_text(struct reader *reader, const struct json_node *node,
                        const struct text_format *format);
/* A list of strings, or one where `one` allows it. */
bool reader_texts(struct reader *reader, const struct json_node *node,
                  const struct text_format *format, size_t min, bool one, struct inv_strings *ret);
/* Reports that the value isn't `allowed`. Returns false. */
bool reader_refuse(struct reader *reader, const struct json_node *node, const char *allowed);
/* A whole number in min..max, or false, reported. */
bool reader_count(struct reader *reader, const struct json_node *node, uint32_t min, uint32_t max,
                  uint32_t *ret);
bool reader_amount(struct reader *reader, const struct json_node *node, uint32_t min,
                   struct inv_amount *ret);

#endif
