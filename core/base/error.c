#include "core/base/error.h"

#include <stdio.h>
#include <string.h>

/* Cuts a text that filled its buffer back to a whole UTF-8 character and marks the cut. */
static void mark_cut(char *text, size_t size) {
    size_t end = size - 4;
    while (end > 0 && ((unsigned char)text[end] & 0xC0) == 0x80) {
        end--;
    }
    memcpy(text + end, "...", 4);
}

int error_setv(struct error *error, enum fleet_err code, const char *reason, const char *format,
               va_list args) {
    if (error == NULL) {
        return code;
    }
    error->code = code;
    snprintf(error->reason, sizeof(error->reason), "%s", reason != NULL ? reason : "");
    int length = vsnprintf(error->message, sizeof(error->message), format, args);
    if (length >= (int)sizeof(error->message)) {
        mark_cut(error->message, sizeof(error->message));
    }
    return code;
}

int error_set(struct error *error, enum fleet_err code, const char *reason, const char *format,
              ...) {
    va_list args;
    va_start(args, format);
    error_setv(error, code, reason, format, args);
    va_end(args);
    return code;
}

int error_errno(struct error *error, int errnum, const char *format, ...) {
    char what[ERROR_MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    return error_set(error, FLEET_ERR_SYSTEM, "system", "%s: %s", what, strerror(errnum));
}

int error_wrap(struct error *error, const char *format, ...) {
    char context[ERROR_MESSAGE_MAX];
    char message[ERROR_MESSAGE_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(context, sizeof(context), format, args);
    va_end(args);
    memcpy(message, error->message, sizeof(message));
    int length = snprintf(error->message, sizeof(error->message), "%.400s: %s", context, message);
    if (length >= (int)sizeof(error->message)) {
        mark_cut(error->message, sizeof(error->message));
    }
    return error->code;
}
