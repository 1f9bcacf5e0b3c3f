/* The terminal that the dashboard takes and gives back.
 *
 * It knows terminals from terminfo (ncursesw's low level) and paints a struct screen by its
 * difference to what is shown. It doesn't use curses' own screen: that writes until the terminal
 * has taken everything, so a terminal that hangs (a lost ssh, Ctrl-S) would hang the rollout, and
 * it hides how many bytes it writes.
 *
 * The descriptor is opened anew, so that O_NONBLOCK stays ours and doesn't leak into the shell.
 * While the screen is taken it is given back on exit(), quick_exit(), and on signals that end the
 * program (crashes included), whose former action then follows. At most one terminal at a time;
 * main thread.
 */
#ifndef FLEET_TUI_TERMINAL_H
#define FLEET_TUI_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tui/screen.h"

struct terminal;

/* True where stdin and stdout are one terminal that can move its cursor: TERM is known and not
 * "dumb". */
bool terminal_is_usable(void);
/* True where the locale's character set is UTF-8. */
bool terminal_speaks_utf8(void);

/* Opens it, takes nothing yet. NULL where it can't be (terminal_is_usable says so beforehand). */
struct terminal *terminal_open(bool color);
/* Takes the screen: alternate screen, no echo, keys at once. The next frame is painted whole. False
 * while another job holds the terminal: try again later. */
bool terminal_enter(struct terminal *terminal);
/* Gives it back; nothing where it isn't taken. */
void terminal_leave(struct terminal *terminal);
bool terminal_is_entered(const struct terminal *terminal);
/* Keys at once without taking the screen: for the plain stream in between. */
void terminal_listen(struct terminal *terminal);
void terminal_close(struct terminal *terminal);

/* To be polled for keys, and for room while terminal_flush returns false. Non-blocking. */
int terminal_fd(const struct terminal *terminal);
/* As read(2). */
ssize_t terminal_read(struct terminal *terminal, char *data, size_t size);
void terminal_size(const struct terminal *terminal, int *ret_rows, int *ret_cols);
void terminal_mouse(struct terminal *terminal, bool on);

/* Makes the terminal show the screen. False: the frame before isn't out yet, nothing was done. */
bool terminal_show(struct terminal *terminal, const struct screen *screen);
/* Writes what is left of the last frame. True when all is out, or the terminal is gone. */
bool terminal_flush(struct terminal *terminal);
/* Paint the next frame whole: somebody else may have written. */
void terminal_forget(struct terminal *terminal);
/* What was written so far. A frame is at most a whole screen; there are ten a second at most. */
struct terminal_traffic {
    uint64_t bytes, frames;
    size_t largest; /* frame, in bytes */
};
struct terminal_traffic terminal_traffic(const struct terminal *terminal);

#endif
