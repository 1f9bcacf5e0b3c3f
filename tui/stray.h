/* Standard error while the dashboard has the terminal: what a library prints there must not stand
 * across the screen. It is kept in memory, and printed when the screen has been given back.
 *
 * Only where standard error is that very terminal; a file or a pipe is left alone. Main thread, but
 * for stray_end.
 */
#ifndef FLEET_TUI_STRAY_H
#define FLEET_TUI_STRAY_H

/* Begins to keep it, with the screen taken on `terminal_fd`; nothing where it is kept already. */
void stray_begin(int terminal_fd);
/* Forgets the middle of what has become too much. */
void stray_trim(void);
/* Standard error is the terminal again, and what was kept is printed. Async-signal-safe. */
void stray_end(void);

#endif
