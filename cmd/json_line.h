/* One JSON object a line, for the `--json` of commands that are no run (CONTRACT, Events).
 *
 * Values are added in order; text may hold any bytes: what is no UTF-8 becomes U+FFFD, controls
 * are escaped, so a line is always valid JSON.
 */
#ifndef FLEET_CMD_JSON_LINE_H
#define FLEET_CMD_JSON_LINE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/buf.h"

void json_open(struct buf *out, const char *key); /* key NULL: the line itself, or in a list */
void json_close(struct buf *out);
void json_list_open(struct buf *out, const char *key);
void json_list_close(struct buf *out);
/* `key` NULL: in a list. `text` NULL: null. */
void json_text(struct buf *out, const char *key, const char *text);
void json_bytes(struct buf *out, const char *key, const char *data, size_t len);
void json_number(struct buf *out, const char *key, int64_t number);
void json_bool(struct buf *out, const char *key, bool value);
void json_null(struct buf *out, const char *key);
/* Writes the line with its newline to stdout, at once, and empties the buffer. */
void json_print(struct buf *out);

#endif
