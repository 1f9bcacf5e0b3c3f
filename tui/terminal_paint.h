/* The bytes that turn what a terminal shows into another screen. Private to tui/terminal.c.
 *
 * By terminfo, with only what every entry of today has: move, erase to the end of the line,
 * attributes, eight colours. Nothing is written here.
 */
#ifndef FLEET_TUI_TERMINAL_PAINT_H
#define FLEET_TUI_TERMINAL_PAINT_H

#include "tui/screen.h"

struct paint;

/* True where $TERM is known and has what is needed. */
bool paint_is_possible(int fd);
/* NULL where it isn't possible. Without `color` only bold, dim and reverse are used. */
struct paint *paint_new(int fd, bool color);
void paint_free(struct paint *paint);

/* Takes the alternate screen and hides the cursor; and the reverse. */
void paint_add_enter(const struct paint *paint, struct buf *out);
void paint_add_leave(const struct paint *paint, struct buf *out);
/* Appends what changes the last screen into this one, and remembers it. */
void paint_difference(struct paint *paint, const struct screen *screen, struct buf *out);
/* The next difference is a whole screen. */
void paint_forget(struct paint *paint);

#endif
