/* Time as an input. Whatever waits or stamps asks a struct clock, so that tests own the time.
 */
#ifndef FLEET_BASE_CLOCK_H
#define FLEET_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

struct clock {
    /* Milliseconds of a monotonic clock with any origin. */
    uint64_t (*now_ms)(void *arg);
    /* Milliseconds since 1970 (UTC), for stamps only. */
    int64_t (*wall_ms)(void *arg);
    void *arg;
};

/* The machine's own: CLOCK_MONOTONIC and CLOCK_REALTIME. Any thread. */
extern const struct clock clock_system;

static inline uint64_t clock_now_ms(const struct clock *clock) {
    return clock->now_ms(clock->arg);
}
static inline int64_t clock_wall_ms(const struct clock *clock) {
    return clock->wall_ms(clock->arg);
}

#define CLOCK_RFC3339_SIZE 25
/* "2026-11-22T17:04:31.123Z" for milliseconds since 1970 (RFC 3339, UTC). */
void clock_rfc3339(int64_t wall_ms, char ret_text[CLOCK_RFC3339_SIZE]);
/* The reverse; 0 or FLEET_ERR_PROTOCOL. */
int clock_parse_rfc3339(const char *text, int64_t *ret_wall_ms);

#endif
