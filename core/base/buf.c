#include "core/base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"

enum {
    PRINTF_ROOM = 47 /* so that a new buffer begins with 64 bytes */
};

char *buf_reserve(struct buf *buf, size_t len) {
    size_t need = buf->len + len + 1;
    if (need > buf->cap) {
        size_t cap = buf->cap > 0 ? buf->cap : 64;
        while (cap < need) {
            cap *= 2;
        }
        buf->data = xrealloc(buf->data, cap);
        buf->cap = cap;
    }
    return buf->data + buf->len;
}

void buf_add(struct buf *buf, const void *data, size_t len) {
    char *room = buf_reserve(buf, len);
    if (len > 0) {
        memcpy(room, data, len);
    }
    buf->len += len;
    buf->data[buf->len] = '\0';
}

void buf_add_text(struct buf *buf, const char *text) {
    buf_add(buf, text, strlen(text));
}

void buf_add_char(struct buf *buf, char c) {
    buf_add(buf, &c, 1);
}

void buf_vprintf(struct buf *buf, const char *format, va_list args) {
    va_list again;
    va_copy(again, args);
    /* Most texts fit into the room that is there: they are formatted once. */
    char *room = buf_reserve(buf, PRINTF_ROOM);
    size_t free_room = buf->cap - buf->len;
    int length = vsnprintf(room, free_room, format, args);
    if (length > 0 && (size_t)length >= free_room) {
        room = buf_reserve(buf, (size_t)length);
        vsnprintf(room, (size_t)length + 1, format, again);
    }
    va_end(again);
    if (length > 0) {
        buf->len += (size_t)length;
    } else {
        *room = '\0';
    }
}

void buf_printf(struct buf *buf, const char *format, ...) {
    va_list args;
    va_start(args, format);
    buf_vprintf(buf, format, args);
    va_end(args);
}

void buf_consume(struct buf *buf, size_t len) {
    if (len >= buf->len) {
        buf_clear(buf);
        return;
    }
    memmove(buf->data, buf->data + len, buf->len - len + 1);
    buf->len -= len;
}

void buf_clear(struct buf *buf) {
    buf->len = 0;
    if (buf->data != NULL) {
        buf->data[0] = '\0';
    }
}

void buf_free(struct buf *buf) {
    free(buf->data);
    *buf = (struct buf)BUF_INIT;
}

void buf_wipe(struct buf *buf) {
    secret_wipe(buf->data, buf->cap);
    buf_free(buf);
}

const char *buf_text(const struct buf *buf) {
    return buf->data != NULL ? buf->data : "";
}

char *buf_take(struct buf *buf) {
    char *data = buf->data != NULL ? buf->data : xstrdup("");
    *buf = (struct buf)BUF_INIT;
    return data;
}
