/* Building and freeing the answers of scripts; reading them is in core/target.h.
 *
 * The text is hostile: every value is cleaned (text_clean) and cut, and their number is bounded.
 */
#ifndef FLEET_CORE_TARGET_REPLY_H
#define FLEET_CORE_TARGET_REPLY_H

#include "core/target.h"

#define TARGET_REPLY_LINES_MAX 50000u
#define TARGET_REPLY_VALUE_MAX 8192u

/* The lines `key value` among `text`; lines whose first word is no key ([a-z][a-z0-9_]*) are left
 * out. The caller frees it. */
struct target_reply *target_reply_parse(const char *text, size_t len);
/* Lets one live beyond the callback that it came with; give it back with target_reply_free. */
struct target_reply *target_reply_keep(const struct target_reply *reply);
void target_reply_free(struct target_reply *reply);

#endif
