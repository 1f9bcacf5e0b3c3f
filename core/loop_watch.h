/* How long a loop was away: the longest time between two waits for events.
 *
 * A loop that is away for long answers nobody meanwhile. Measured by the wall, which shows a slow
 * disk but also a machine with other work, and by the thread's own CPU. Only where FLEET_TRACE_LOOP is set in the environment; otherwise nothing
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
    uint64_t cpu_ns;   /* of the thread, then */
    uint64_t longest_ns, busiest_ns;
};

/* Before the loop runs for the first time. Does not keep the loop alive. */
void loop_watch_start(struct loop_watch *watch, uv_loop_t *loop);
/* Before the loop is closed, which runs once more afterwards. */
void loop_watch_stop(struct loop_watch *watch);
/* In microseconds; 0 where nothing is watched. */
struct loop_turns {
    uint64_t longest_us; /* by the wall */
    uint64_t busiest_us; /* the most CPU in one turn; not necessarily the same one */
};
/* Valid after loop_watch_stop, too. */
struct loop_turns loop_watch_turns(const struct loop_watch *watch);

#endif
