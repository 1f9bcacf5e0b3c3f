/* Allocation that cannot fail: running out of memory ends the program with a message.
 *
 * Every allocation in fleet goes through here; callers never check for NULL. AUTO_FREE frees a
 * pointer when it leaves its scope (synchronous functions only).
 */
#ifndef FLEET_BASE_XALLOC_H
#define FLEET_BASE_XALLOC_H

#include <stdarg.h>
#include <stddef.h>

void *xmalloc(size_t size);
void *xcalloc(size_t count, size_t size);
void *xrealloc(void *ptr, size_t size);
char *xstrdup(const char *text);
char *xstrndup(const char *text, size_t max);
void *xmemdup(const void *data, size_t size);
char *xasprintf(const char *format, ...) __attribute__((format(printf, 1, 2)));
char *xvasprintf(const char *format, va_list args) __attribute__((format(printf, 1, 0)));

/* Overwrites `size` bytes so that the compiler can't drop it; for secrets. NULL is allowed. */
void secret_wipe(void *data, size_t size);

void auto_free(void *slot);
#define AUTO_FREE __attribute__((cleanup(auto_free)))
void auto_close(const int *fd);
#define AUTO_CLOSE __attribute__((cleanup(auto_close)))

#define ARRAY_LEN(a)                    (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#endif
