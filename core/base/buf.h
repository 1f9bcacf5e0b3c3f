/* A growable byte buffer. Always NUL-terminated beyond its length, so `data` may be printed when
 * it holds text. Embedded by value; zero-initialised is valid and empty. Not thread-safe.
 */
#ifndef FLEET_BASE_BUF_H
#define FLEET_BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>

struct buf {
    char *data; /* NULL while nothing was ever added; use buf_text() for a string */
    size_t len;
    size_t cap;
};

#define BUF_INIT                                                                                   \
    { 0 }

void buf_add(struct buf *buf, const void *data, size_t len);
void buf_add_text(struct buf *buf, const char *text);
void buf_add_char(struct buf *buf, char c);
void buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *buf, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));
/* Makes room for `len` more bytes and returns where they go; the caller then adds to `len`. */
char *buf_reserve(struct buf *buf, size_t len);
/* Drops the first `len` bytes. */
void buf_consume(struct buf *buf, size_t len);
void buf_clear(struct buf *buf);
void buf_free(struct buf *buf);
/* As buf_free, with the memory overwritten first; a buffer that held a secret. Such a buffer must
 * have been reserved at its full size beforehand, growing leaves copies. */
void buf_wipe(struct buf *buf);
/* The text, "" where empty; owned by the buffer until its next change. */
const char *buf_text(const struct buf *buf);
/* Hands the NUL-terminated memory over to the caller and leaves the buffer empty. Never NULL. */
char *buf_take(struct buf *buf);

#endif
