/* How a run ends: hosts are let go, at once or at the end, and the loop stops when all have closed
 * or the time to leave is up.
 */
#include "core/run_internal.h"

#include "core/build.h"

#define LEAVE_MS 8000u

bool run_is_end(const struct run *run, enum host_state state) {
    bool stages =
        run->options->action == ACTION_PUSH || run->options->action == ACTION_DRY_ACTIVATE;
    return host_state_is_end(state) || (state == HOST_STAGED && stages);
}

bool run_may_move_yet(const struct run *run, size_t host, enum host_state state) {
    const struct inv_run_policy *policy = &run->options->inventory->policy;
    return state == HOST_HEALTHY && (run->attended || rollout_awaits_wave(run->rollout, host) ||
                                     policy->on_failure == INV_ON_FAILURE_ROLLBACK_WAVE ||
                                     policy->on_failure == INV_ON_FAILURE_ROLLBACK_ALL);
}

void run_release_host(struct run *run, size_t host) {
    if (!run->hosts[host].released && run->hosts[host].lane != NULL) {
        run->hosts[host].released = true;
        lane_release(run->hosts[host].lane, host);
    }
}

void run_release_wave(struct run *run, size_t wave) {
    for (size_t i = 0; i < run->options->host_count; i++) {
        if (rollout_wave_of(run->rollout, i) == wave &&
            rollout_state(run->rollout, i) == HOST_HEALTHY &&
            !run_may_move_yet(run, i, HOST_HEALTHY)) {
            run_release_host(run, i);
        }
    }
}

static void on_leave(uv_timer_t *timer) {
    struct run *run = timer->data;
    run->closing = true;
    uv_stop(&run->loop);
}

void run_maybe_close(struct run *run) {
    if (run->ended && run->open_hosts == 0 && (run->build == NULL || run->build_done) &&
        !run_cache_is_busy(run)) {
        run->closing = true;
        uv_stop(&run->loop);
    }
}

void run_end(struct run *run) {
    if (run->ended) {
        return;
    }
    run->ended = true;
    if (run->build != NULL && !run->build_done) {
        build_cancel(run->build);
    }
    run_cache_cancel(run);
    for (size_t i = 0; i < run->options->host_count; i++) {
        run_release_host(run, i);
    }
    uv_timer_start(&run->leave, on_leave, run->signal != 0 ? LEAVE_MS : 2 * LEAVE_MS, 0);
    run_maybe_close(run);
}
