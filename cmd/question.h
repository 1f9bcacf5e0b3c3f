/* Questions to a person at the terminal: yes or no, and passphrases without echo.
 *
 * They go to /dev/tty, so that redirected output stays clean. Only before a run begins, on the
 * main thread; the terminal is as it was afterwards, also when a signal ends the program.
 */
#ifndef FLEET_CMD_QUESTION_H
#define FLEET_CMD_QUESTION_H

#include <stdbool.h>

/* True if a person is there to answer: stdin and stderr are terminals, CI is unset. */
bool question_possible(void);
/* Prints `text` and " [y/N] "; true for y or yes. */
bool question_confirm(const char *text);
/* Asks without echo; a new string that the caller wipes and frees, NULL when nothing came. */
char *question_secret(const char *prompt);

#endif
