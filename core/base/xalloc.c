#include "core/base/xalloc.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *need(void *ptr) {
    if (ptr == NULL) {
        static const char message[] = "fleet: out of memory\n";
        ssize_t ignored = write(STDERR_FILENO, message, sizeof(message) - 1);
        (void)ignored;
        abort();
    }
    return ptr;
}

void *xmalloc(size_t size) {
    return need(malloc(size > 0 ? size : 1));
}

void *xcalloc(size_t count, size_t size) {
    return need(calloc(count > 0 ? count : 1, size > 0 ? size : 1));
}

void *xrealloc(void *ptr, size_t size) {
    return need(realloc(ptr, size > 0 ? size : 1));
}

char *xstrdup(const char *text) {
    return need(strdup(text));
}

char *xstrndup(const char *text, size_t max) {
    /* By hand: AddressSanitizer's strict strings want a NUL even where strndup needs none. */
    size_t len = strnlen(text, max);
    char *copy = xmalloc(len + 1);
    memcpy(copy, text, len);
    copy[len] = '\0';
    return copy;
}

void *xmemdup(const void *data, size_t size) {
    void *copy = xmalloc(size);
    if (size > 0) {
        memcpy(copy, data, size);
    }
    return copy;
}

char *xvasprintf(const char *format, va_list args) {
    char *text = NULL;
    if (vasprintf(&text, format, args) < 0) {
        text = NULL;
    }
    return need(text);
}

char *xasprintf(const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *text = xvasprintf(format, args);
    va_end(args);
    return text;
}

void secret_wipe(void *data, size_t size) {
    if (data != NULL && size > 0) {
        explicit_bzero(data, size);
    }
}

void auto_free(void *slot) {
    void *ptr;
    memcpy(&ptr, slot, sizeof(ptr));
    free(ptr);
}

void auto_close(const int *fd) {
    if (*fd >= 0) {
        close(*fd);
    }
}
