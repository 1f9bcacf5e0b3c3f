/* Help, made from the tables of commands and options.
 */
#ifndef FLEET_CMD_HELP_H
#define FLEET_CMD_HELP_H

#include "cmd/command.h"
#include "core/base/buf.h"

/* `fleet --help`: the commands. */
void help_overview(struct buf *out);
/* `fleet COMMAND --help`. */
void help_command(const struct command *command, struct buf *out);
/* The manual page fleet(1), in man(7)'s macros. */
void help_manual(struct buf *out);

#endif
