/* JSON Lines for commands that are no run (see json_line.h). */
#include "cmd/json_line.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/base/text.h"

static void add_quoted(struct buf *out, const char *data, size_t len) {
    buf_add_char(out, '"');
    for (size_t i = 0; i < len;) {
        unsigned char c = (unsigned char)data[i];
        size_t width = text_utf8_length(data + i, len - i);
        if (width == 0) {
            buf_add_text(out, "\xEF\xBF\xBD");
            width = 1;
        } else if (c == '"' || c == '\\') {
            buf_add_char(out, '\\');
            buf_add_char(out, (char)c);
        } else if (c == '\n') {
            buf_add_text(out, "\\n");
        } else if (c < 0x20 || c == 0x7F) {
            buf_printf(out, "\\u%04x", c);
        } else {
            buf_add(out, data + i, width);
        }
        i += width;
    }
    buf_add_char(out, '"');
}

/* The comma that parts a value from the one before it, and its key. */
static void add_key(struct buf *out, const char *key) {
    char last = out->len > 0 ? out->data[out->len - 1] : '\0';
    if (last != '\0' && last != '{' && last != '[') {
        buf_add_char(out, ',');
    }
    if (key != NULL) {
        add_quoted(out, key, strlen(key));
        buf_add_char(out, ':');
    }
}

void json_open(struct buf *out, const char *key) {
    add_key(out, key);
    buf_add_char(out, '{');
}

void json_close(struct buf *out) {
    buf_add_char(out, '}');
}

void json_list_open(struct buf *out, const char *key) {
    add_key(out, key);
    buf_add_char(out, '[');
}

void json_list_close(struct buf *out) {
    buf_add_char(out, ']');
}

void json_bytes(struct buf *out, const char *key, const char *data, size_t len) {
    add_key(out, key);
    add_quoted(out, data, len);
}

void json_text(struct buf *out, const char *key, const char *text) {
    if (text == NULL) {
        json_null(out, key);
    } else {
        json_bytes(out, key, text, strlen(text));
    }
}

void json_number(struct buf *out, const char *key, int64_t number) {
    add_key(out, key);
    buf_printf(out, "%" PRId64, number);
}

void json_bool(struct buf *out, const char *key, bool value) {
    add_key(out, key);
    buf_add_text(out, value ? "true" : "false");
}

void json_null(struct buf *out, const char *key) {
    add_key(out, key);
    buf_add_text(out, "null");
}

void json_print(struct buf *out) {
    buf_add_char(out, '\n');
    fwrite(out->data, 1, out->len, stdout);
    fflush(stdout);
    buf_clear(out);
}
