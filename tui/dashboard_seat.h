/* The dashboard's place in a loop: keys, frames, resizing, Ctrl-Z. Private to tui/dashboard*.c.
 *
 * Frames are at most ten in any second: events make at most four, so that nothing flickers and a
 * key finds one left and is on the screen within 20 ms. What doesn't fit into the terminal is
 * dropped, never waited for. All callbacks fire on the loop.
 */
#ifndef FLEET_TUI_DASHBOARD_SEAT_H
#define FLEET_TUI_DASHBOARD_SEAT_H

#include "tui/key_input.h"
#include "tui/output.h"
#include "tui/terminal.h"

struct seat;
struct seat_handlers {
    void (*key)(const struct key_press *press, void *arg);
    /* Time to draw: a frame was asked for, or a second has passed. */
    void (*frame)(void *arg);
    /* The terminal may have been used by somebody else. */
    void (*returned)(void *arg);
    /* It has hung up, and no signal has ended the program: nobody sees or presses anything any
     * more. May be NULL. */
    void (*gone)(void *arg);
    void *arg;
};

/* Watches the terminal on the loop. `terminal` and `handlers` outlive it. */
struct seat *seat_new(uv_loop_t *loop, struct terminal *terminal,
                      const struct seat_handlers *handlers);
/* Asks for a frame: soon, or at once for a key. */
void seat_want_frame(struct seat *seat, bool at_once);
/* A frame could not be written whole: another one follows when it could. */
void seat_wait_for_room(struct seat *seat);
/* Lets go of the loop, which then has to be run once more to forget it. No callback any more. */
void seat_close(struct seat *seat);

#endif
