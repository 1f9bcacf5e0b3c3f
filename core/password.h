/* Runs a command that prints a password (`password_command` of the inventory).
 */
#ifndef FLEET_CORE_PASSWORD_H
#define FLEET_CORE_PASSWORD_H

#include "core/base/error.h"

/* Runs argv (NULL-terminated, never through a shell) in folder `dir` for at most 30 s, with the
 * program's own stdin and stderr, so that it can ask. *ret is the first line that it printed, to
 * be wiped and freed by the caller. 0, or FLEET_ERR_SYSTEM. Synchronous; before any lane runs. */
int password_run(char *const *argv, const char *dir, char **ret, struct error *error);

#endif
