/* The plain lines beside a dashboard: written all along, into memory while the dashboard has the
 * screen, and shown from where they were left when a person asks for them. Private to tui; main
 * thread.
 */
#ifndef FLEET_TUI_SIDE_LINES_H
#define FLEET_TUI_SIDE_LINES_H

#include <stdio.h>

#include "core/base/buf.h"
#include "tui/terminal.h"

struct side_lines {
    FILE *file;      /* to write them to */
    bool shown;      /* they go to stdout */
    struct buf kept; /* while they don't: the last ones */
};

/* It must stay where it is until side_lines_release. */
void side_lines_init(struct side_lines *lines);
void side_lines_release(struct side_lines *lines);
/* Gives the screen back and prints what was kept, then `hint`. */
void side_lines_show(struct side_lines *lines, struct terminal *terminal, const char *hint);
/* The screen is taken again. */
void side_lines_hide(struct side_lines *lines, struct terminal *terminal);
/* What was written is on the screen, where lines are shown. */
void side_lines_flush(struct side_lines *lines);

#endif
