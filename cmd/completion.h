/* Completion scripts, made from the tables of commands and options; host and tag names come from
 * `fleet list` at the moment they are asked for.
 */
#ifndef FLEET_CMD_COMPLETION_H
#define FLEET_CMD_COMPLETION_H

#include <stdbool.h>

#include "core/base/buf.h"

/* "bash", "zsh" or "fish"; false for any other. */
bool completion_script(const char *shell, struct buf *out);

#endif
