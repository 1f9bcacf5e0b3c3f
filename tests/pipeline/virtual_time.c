/* Time that the test owns (see virtual_time.h). */
#include "tests/pipeline/virtual_time.h"

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static bool begun;
static uint64_t now_ms = 1000000;

/* Instead of the C library's, for this program and the libraries that it has loaded. */
int clock_gettime(clockid_t id, struct timespec *ret) { // NOLINT(readability-inconsistent-*)
    if (begun && (id == CLOCK_MONOTONIC || id == CLOCK_MONOTONIC_COARSE)) {
        ret->tv_sec = (time_t)(now_ms / 1000);
        ret->tv_nsec = (long)(now_ms % 1000) * 1000000;
        return 0;
    }
    return (int)syscall(SYS_clock_gettime, id, ret);
}

void virtual_time_begin(void) {
    begun = true;
}

uint64_t virtual_time_ms(void) {
    return now_ms;
}

static uint64_t clock_now(void *arg) {
    (void)arg;
    return now_ms;
}

static int64_t clock_wall(void *arg) {
    (void)arg;
    return (int64_t)now_ms;
}

const struct clock virtual_clock = {.now_ms = clock_now, .wall_ms = clock_wall};

bool virtual_time_turn(uv_loop_t *loop) {
    uv_run(loop, UV_RUN_NOWAIT);
    uv_update_time(loop);
    int wait = uv_backend_timeout(loop);
    if (wait > 0) {
        now_ms += (uint64_t)wait;
    }
    return wait >= 0 && uv_loop_alive(loop) != 0;
}
