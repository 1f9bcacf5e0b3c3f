#include "core/loop_watch.h"

#include <stdlib.h>
#include <time.h>

static uint64_t thread_cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Callbacks of sockets run inside libuv's wait, hence its own count of the time that it slept. */
static void on_prepare(uv_prepare_t *prepare) {
    struct loop_watch *watch = prepare->data;
    uint64_t now = uv_hrtime();
    uint64_t idle = uv_metrics_idle_time(prepare->loop);
    uint64_t away = now - watch->since_ns - (idle - watch->idle_ns);
    uint64_t cpu = thread_cpu_ns();
    if (watch->since_ns != 0) {
        watch->longest_ns = away > watch->longest_ns ? away : watch->longest_ns;
        watch->busiest_ns =
            cpu - watch->cpu_ns > watch->busiest_ns ? cpu - watch->cpu_ns : watch->busiest_ns;
    }
    watch->since_ns = now;
    watch->cpu_ns = cpu;
    watch->idle_ns = idle;
}

void loop_watch_start(struct loop_watch *watch, uv_loop_t *loop) {
    *watch = (struct loop_watch){.on = getenv("FLEET_TRACE_LOOP") != NULL};
    if (!watch->on) {
        return;
    }
    uv_loop_configure(loop, UV_METRICS_IDLE_TIME);
    uv_prepare_init(loop, &watch->prepare);
    watch->prepare.data = watch;
    uv_prepare_start(&watch->prepare, on_prepare);
    uv_unref((uv_handle_t *)&watch->prepare);
}

void loop_watch_stop(struct loop_watch *watch) {
    if (watch->on) {
        uv_close((uv_handle_t *)&watch->prepare, NULL);
    }
}

struct loop_turns loop_watch_turns(const struct loop_watch *watch) {
    return (struct loop_turns){.longest_us = watch->longest_ns / 1000,
                               .busiest_us = watch->busiest_ns / 1000};
}
