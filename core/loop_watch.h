/* How long a loop was away: the longest time between two waits for events.
 *
 * A loop that is away for long answers nobody meanwhile. Measured by the wall, so a machine with
 * other work shows in it. Only where FLEET_TRACE_LOOP is set in the environment; otherwise nothing
 * is watched and every function does nothing. One watch a loop, on its thread; embedded by value.
 */
#ifndef FLEET_CORE_LOOP_WATCH_H
#define FLEET_CORE_LOOP_WATCH_H

#include <stdbool.h>
#include <uv.h>

struct loop_watch {
    uv_prepare_t prepare;
    bool on;
    uint64_t since_ns; /* of uv_hrtime */
    uint64_t idle_ns;  /* spent waiting before that */
    uint64_t longest_ns;
};

/* Before the loop runs for the first time. Does not keep the loop alive. */
void loop_watch_start(struct loop_watch *watch, uv_loop_t *loop);
/* Before the loop is closed, which runs once more afterwards. */
void loop_watch_stop(struct loop_watch *watch);
/* In microseconds; 0 where nothing is watched. Valid after loop_watch_stop, too. */
uint64_t loop_watch_longest_us(const struct loop_watch *watch);

#endif
