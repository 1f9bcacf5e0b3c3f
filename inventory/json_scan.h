/* The scanner that runs before cJSON.
 *
 * cJSON 1.7 keeps no positions and takes what JSON does not allow: `01`, NUL, text after the end.
 * And people want comments and trailing commas. So this checks the text strictly (RFC 8259), blanks
 * comments, trailing commas and a byte order mark with spaces in place, so that offsets stay, and
 * notes where each key and value begins, in document order. A text that passed is one that cJSON
 * parses to exactly as many values.
 */
#ifndef FLEET_INVENTORY_JSON_SCAN_H
#define FLEET_INVENTORY_JSON_SCAN_H

#include <stddef.h>
#include <stdint.h>

#define JSON_DEPTH_MAX  64
#define JSON_VALUES_MAX ((size_t)4000000)
#define JSON_NO_KEY     UINT32_MAX

struct json_position {
    uint32_t key;   /* offset of the key's opening quote, or JSON_NO_KEY */
    uint32_t value; /* offset of the value's first byte */
};

struct json_positions {
    struct json_position *items; /* the caller frees */
    size_t count, cap;
};

struct json_fault {
    size_t offset;
    char message[200];
};

/* Scans and blanks `text`. 0 with the positions added, or FLEET_ERR_USAGE with the first fault.
 * `len` is less than 4 GB. */
int json_scan(char *text, size_t len, struct json_positions *ret, struct json_fault *fault);

#endif
