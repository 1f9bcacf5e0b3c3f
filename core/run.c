/* The coordinator: see run.h. One loop on the main thread that connects the parts:
 *
 *   lanes ──reports──► run_receive ──► rollout (pure) ──decisions──► journal, synced ──► lanes
 *   build ──results──► lanes                    │
 *   signals ─────────► rollout          every event ──► journal, view, observer
 *
 * Here is its life: what is made, started, shown once a second, and freed; run_internal.h says where
 * the rest is.
 */
#include "core/run_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "core/build.h"
#include "core/who.h"

#define LEASE_MS (2u * 60u * 1000u)
#define TICK_MS  1000u

uint64_t run_now_ms(void) {
    return clock_now_ms(&clock_system);
}

const struct inv_host *run_inv(const struct run *run, size_t host) {
    return run->options->hosts[host];
}

static uint32_t lanes_for(const struct run_options *options) {
    uint32_t lanes = options->lanes;
    if (lanes == 0) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        lanes = cores > 0 ? (uint32_t)cores : 1;
    }
    lanes = lanes > RUN_LANES_MAX ? RUN_LANES_MAX : lanes;
    return lanes > options->host_count && options->host_count > 0 ? (uint32_t)options->host_count
                                                                  : lanes;
}

static void on_display(uv_timer_t *timer) {
    struct run *run = timer->data;
    struct error error = ERROR_INIT;
    if (journal_check(run->journal, &error) != 0) {
        run_fail(run, &error);
    }
    run_look_for_promotion(run);
    struct buf waiting = BUF_INIT;
    rollout_waiting(run->rollout, run_now_ms(), &waiting);
    run->options->observer.tick(run->view, clock_wall_ms(&clock_system), buf_text(&waiting),
                                run->options->observer.arg);
    buf_free(&waiting);
}

static void init_loop(struct run *run) {
    uv_timer_t *timers[] = {&run->tick, &run->display, &run->leave, &run->gather};
    uv_loop_init(&run->loop);
    loop_watch_start(&run->watch, &run->loop);
    mailbox_init(&run->reports, &run->loop, run_receive, run);
    for (size_t i = 0; i < ARRAY_LEN(timers); i++) {
        uv_timer_init(&run->loop, timers[i]);
        timers[i]->data = run;
    }
    run_watch_signals(run);
    uv_timer_start(&run->display, on_display, TICK_MS, TICK_MS);
    run->transport = transport_new(&run->loop, run->options->keyring);
}

static void close_loop(struct run *run) {
    uv_timer_t *timers[] = {&run->tick, &run->display, &run->leave, &run->gather};
    loop_watch_stop(&run->watch);
    for (size_t i = 0; i < ARRAY_LEN(timers); i++) {
        uv_close((uv_handle_t *)timers[i], NULL);
    }
    for (size_t i = 0; i < ARRAY_LEN(run->signals); i++) {
        uv_close((uv_handle_t *)&run->signals[i], NULL);
    }
    if (run->build != NULL) {
        build_free(run->build);
    }
    mailbox_close(&run->reports);
    uv_run(&run->loop, UV_RUN_DEFAULT);
    run_cache_free(run);
    transport_free(run->transport);
    uv_run(&run->loop, UV_RUN_DEFAULT);
    uv_loop_close(&run->loop);
}

void run_add_host(struct run *run, size_t index, const struct host_resume *resume) {
    struct run_host *host = &run->hosts[index];
    bool again = host->again;
    host->again = false;
    host->lane = run->lanes[index % run->lane_count];
    struct host_plan plan = {.index = index,
                             .inv = run_inv(run, index),
                             .spec = spec_of(run->options->specs, run_inv(run, index)),
                             .elevation = host->elevation,
                             .wave = (uint32_t)rollout_wave_of(run->rollout, index),
                             .run = &run->shared,
                             .to_generation = run->options->to_generation,
                             .resume = *resume,
                             .again = again};
    lane_add(host->lane, &plan);
    host->open = true;
    run->open_hosts++;
}

static void start_hosts(struct run *run) {
    const struct run_options *options = run->options;
    struct lane_options lane = {.keyring = options->keyring,
                                .reports = &run->reports,
                                .secrets = run->secrets,
                                .transport = transport_new};
    run->lane_count = lanes_for(options);
    assert(run->lane_count > 0);
    for (uint32_t i = 0; i < run->lane_count; i++) {
        run->lanes[i] = lane_new(&lane);
    }
    for (size_t i = 0; i < options->host_count; i++) {
        struct host_resume resume = {.ask = false};
        enum resume_how how = run->resume != NULL ? run->resume->hosts[i].how : RESUME_ANEW;
        if (how == RESUME_ASK) {
            resume = run->resume->hosts[i].ask;
            resume.ask = true;
        }
        if (how != RESUME_KEEP) {
            run_add_host(run, i, &resume);
        }
    }
}

static int find_elevations(struct run *run, struct error *error) {
    for (size_t i = 0; i < run->options->host_count; i++) {
        int err =
            spec_elevation(run->options->specs, run_inv(run, i), &run->hosts[i].elevation, error);
        if (err != 0) {
            return err;
        }
    }
    bool builds = run->options->action != ACTION_ROLLBACK &&
                  run->options->action != ACTION_REBOOT && run->options->systems == NULL;
    return builds ? spec_build_elevations(run->options->specs, error) : 0;
}

/* FNV-1a (Fowler, Noll, Vo): the order "shuffle" is then the same when the run is resumed. */
static uint64_t seed_of(const char *run_id) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (const char *at = run_id; *at != '\0'; at++) {
        hash = (hash ^ (unsigned char)*at) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static int prepare(struct run *run, struct error *error) {
    const struct run_options *options = run->options;
    struct rollout_plan plan = {.hosts = options->hosts,
                                .host_count = options->host_count,
                                .policy = &options->inventory->policy,
                                .action = options->action};
    run->hosts = xcalloc(options->host_count, sizeof(*run->hosts));
    int err = find_elevations(run, error);
    if (err != 0) {
        return err;
    }
    err = run_open_journal(run, error);
    if (err != 0) {
        return err;
    }
    plan.seed = seed_of(run->id);
    plan.waves = run->resume != NULL ? run->resume->waves : NULL;
    run->who = who_am_i();
    run->shared =
        (struct host_run){.run = run->id,
                          .who = run->who,
                          .rev = options->rev,
                          .dirty = options->dirty,
                          .action = options->action,
                          .resumed = run->resume != NULL,
                          .leave = options->inventory->policy.on_failure == INV_ON_FAILURE_LEAVE,
                          .lease_ms = LEASE_MS,
                          .lock_timeout_ms = options->lock_timeout_ms};
    run->rollout = rollout_new(&plan);
    run->secrets = secret_store_new(options->inventory->dir);
    return 0;
}

static void release(struct run *run) {
    for (size_t i = 0; run->hosts != NULL && i < run->options->host_count; i++) {
        free(run->hosts[i].path);
        free(run->hosts[i].nonce);
        free(run->hosts[i].desired);
        free(run->hosts[i].unbuilt);
    }
    free(run->hosts);
    secret_store_free(run->secrets);
    free(run->who);
    if (run->rollout != NULL) {
        rollout_free(run->rollout);
    }
    view_free(run->view);
    resume_free(run->resume);
    free(run->build_hosts);
    free(run->build_map);
    if (run->journal != NULL) {
        journal_close(run->journal);
    }
    free(run);
}

/* Everything between the first event and the last. */
static int execute(struct run *run) {
    init_loop(run);
    if (run->resume != NULL) {
        run_publish_resumed(run);
        run_replay(run);
    } else {
        run_publish_start(run);
    }
    if (run->failure.code != 0) {
        close_loop(run);
        return 1;
    }
    start_hosts(run);
    rollout_start(run->rollout, run_now_ms());
    const struct run_observer *observer = &run->options->observer;
    if (observer->attach != NULL) {
        run->attended = observer->attach(&run->loop, run_on_request, run, observer->arg);
    }
    run_start_systems(run);
    run_decide(run);
    uv_run(&run->loop, UV_RUN_DEFAULT);
    mailbox_drain(&run->reports);
    changes_close(run->changes);
    bool all_closed = run->open_hosts == 0;
    for (uint32_t i = 0; all_closed && i < run->lane_count; i++) {
        run_publish_turns(run, "lane", i + 1, lane_stop(run->lanes[i]));
    }
    run_publish_turns(run, "coordinator", 0, loop_watch_turns(&run->watch));
    run_publish_cost(run);
    int exit_code = rollout_exit_code(run->rollout, run->signal);
    if (run->failure.code != 0 && exit_code != 4) {
        exit_code = 1;
    }
    run_publish_end(run, exit_code);
    if (all_closed) {
        close_loop(run); /* else the process ends with the threads that didn't let go */
    }
    return exit_code;
}

int run_execute(const struct run_options *options, char *ret_run_id, struct error *error) {
    if (options->action == ACTION_BUILD) {
        error_set(error, FLEET_ERR_USAGE, "usage", "a build alone is no run over hosts");
        return 2;
    }
    struct run *run = xcalloc(1, sizeof(*run));
    run->options = options;
    int err = prepare(run, error);
    if (err != 0) {
        release(run);
        return err == FLEET_ERR_USAGE ? 2 : err == FLEET_ERR_LOCKED ? 7 : 1;
    }
    if (ret_run_id != NULL) {
        memcpy(ret_run_id, run->id, RUN_ID_SIZE);
    }
    int exit_code = execute(run);
    if (run->failure.code != 0) {
        *error = run->failure;
    }
    if (run->open_hosts == 0) {
        release(run);
    }
    return exit_code;
}
