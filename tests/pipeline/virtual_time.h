/* Time that the test owns: the monotonic clock of this process, libuv's included.
 *
 * virtual_time.c defines clock_gettime for the whole program, so libuv's timers, the pipeline's
 * clock and the probes' durations all read the same number, which moves only when everything has
 * been done that can be done now. Deadlines of minutes and hours are real uv timers and cost
 * nothing. The wall clock stays the machine's.
 */
#ifndef FLEET_TESTS_VIRTUAL_TIME_H
#define FLEET_TESTS_VIRTUAL_TIME_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "core/base/clock.h"

/* From now on time stands still. Before uv_loop_init. */
void virtual_time_begin(void);
uint64_t virtual_time_ms(void);
extern const struct clock virtual_clock;

/* Runs what is due on the loop, then lets time pass until its next timer. False when nothing is
 * left that time could bring about. */
bool virtual_time_turn(uv_loop_t *loop);

#endif
