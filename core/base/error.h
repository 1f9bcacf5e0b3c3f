/* Errors: 0 or a negative enum fleet_err, with the details in a caller-owned struct error.
 *
 * An error is recorded once, where it is known, in words for a person: what happened, to what,
 * what to do next. It is given context once at the boundary (error_wrap) and printed only by cmd
 * and tui. A struct error is a value: it owns no memory and may be copied between threads.
 */
#ifndef FLEET_BASE_ERROR_H
#define FLEET_BASE_ERROR_H

#include <stdarg.h>

enum fleet_err {
    FLEET_OK = 0,
    FLEET_ERR_USAGE = -1,  /* the command line or the inventory is wrong */
    FLEET_ERR_SYSTEM = -2, /* the operator's own machine failed: disk, memory, a missing tool */
    FLEET_ERR_UNREACHABLE = -3, /* no authenticated session: refused, no route, no key taken */
    FLEET_ERR_TIMEOUT = -4,     /* a deadline passed */
    FLEET_ERR_LOST = -5,        /* an authenticated connection broke */
    FLEET_ERR_PROTOCOL = -6,    /* the other side said what the protocol does not allow */
    FLEET_ERR_REMOTE = -7,      /* a command on the target failed */
    FLEET_ERR_BUILD = -8,       /* evaluation or build failed */
    FLEET_ERR_LOCKED = -9,      /* another run holds the host */
    FLEET_ERR_HEALTH = -10,     /* a probe says no */
    FLEET_ERR_CANCELLED = -11,  /* asked to stop */
    FLEET_ERR_SPACE = -12,      /* a disk is full */
    FLEET_ERR_STALE = -13       /* the plan is stale */
};

#define ERROR_MESSAGE_MAX 1024

/* `reason` is a short stable code for machines (`[a-z0-9-]`), such as "connection-refused",
 * "host-key-changed", "disk-full": the `reason` of a host_state event. */
struct error {
    enum fleet_err code;
    char reason[40];
    char message[ERROR_MESSAGE_MAX];
};

#define ERROR_INIT                                                                                 \
    { 0 }

/* Records an error and returns `code`, so that `return error_set(...)` reads well. `error` may be
 * NULL. Text that doesn't fit is cut at a character's boundary and ends in "...". Untrusted bytes
 * in the message are the caller's to clean (text_clean). */
int error_set(struct error *error, enum fleet_err code, const char *reason, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
int error_setv(struct error *error, enum fleet_err code, const char *reason, const char *format,
               va_list args) __attribute__((format(printf, 4, 0)));

/* As error_set with FLEET_ERR_SYSTEM, and ": strerror(errnum)" appended. */
int error_errno(struct error *error, int errnum, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "context: " before the message. Returns error->code. */
int error_wrap(struct error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
