/* Text from and for the outside: cleaning hostile bytes, quoting for a POSIX shell, nearest names.
 */
#ifndef FLEET_BASE_TEXT_H
#define FLEET_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/buf.h"

/* Appends `len` bytes with everything removed that could move a cursor or hide text: C0 and C1
 * controls (a tab becomes a space, a newline too unless `keep_newlines`), ESC sequences whole,
 * bidirectional and other format controls; invalid UTF-8 becomes U+FFFD. The result is valid
 * UTF-8 and safe to print. */
void text_clean(struct buf *out, const char *data, size_t len, bool keep_newlines);
/* As above into a new string, which the caller frees. */
char *text_cleaned(const char *data, size_t len);

/* Bytes of the UTF-8 character that `at` begins with (RFC 3629), 0 where the bytes are none. `len`
 * is at least 1. */
size_t text_utf8_length(const char *at, size_t len);

/* Appends `text` in single quotes so that any POSIX shell reads it as one word, byte for byte. */
void text_shell_quote(struct buf *out, const char *text);

/* True if `text` is non-empty and holds only [A-Za-z0-9._:@%[]-] and doesn't begin with '-'
 * (CONTRACT: host names, users, addresses, jumps). */
bool text_is_plain_name(const char *text);

/* The candidate nearest to `word` by edit distance, or NULL when none is near enough to be meant
 * (more than a third of the word, at least 2, away). `names` has `count` entries. */
const char *text_nearest(const char *word, const char *const *names, size_t count);

/* Columns that `text` (valid UTF-8) takes on a terminal; combining marks count 0, wide ones 2. */
size_t text_width(const char *text);

/* Appends "512 B", "1.5 KB", "41 MB", "5.1 GB" (powers of 1000). */
void text_add_bytes(struct buf *out, unsigned long long bytes);
/* Appends "350 ms", "4.2 s", "01:10", "1:02:03" for a duration. */
void text_add_duration(struct buf *out, unsigned long long ms);

#endif
