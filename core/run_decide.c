/* The rollout's decisions, on their way through the journal to the lanes.
 *
 * Decisions are drained in batches: their events are written, synced once, and only then carried
 * out. What could not be written is not done (is_refused).
 */
#include "core/run_internal.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"

/* Decisions at once; more of them wait for the loop's next turn. */
#define BATCH_MAX 256

static bool all_have_ended(const struct run *run) {
    size_t open = 0;
    for (int state = 0; state < HOST_STATE_COUNT; state++) {
        if (!host_state_is_end((enum host_state)state)) {
            open += rollout_count(run->rollout, (enum host_state)state);
        }
    }
    return open == 0;
}

/* Why no more hosts are started, in the rollout's own words; NULL where none is left to start. */
static struct event *stop_event(const struct run *run) {
    if (all_have_ended(run)) {
        return NULL;
    }
    struct event *event = event_new(EVENT_LOG);
    struct buf words = BUF_INIT;
    rollout_waiting(run->rollout, run_now_ms(), &words);
    event->stream = xstrdup("fleet");
    event->line = buf_take(&words);
    return event;
}

static struct event *decision_event(struct run *run, const struct rollout_decision *decision) {
    struct event *event = NULL;
    struct run_host *host = &run->hosts[decision->host];
    switch (decision->kind) {
    case ROLLOUT_GRANT:
        event = run_host_event(run, EVENT_GRANT, decision->host);
        event->act = decision->act;
        event->path = xstrdup(host->path != NULL ? host->path : "");
        /* What tells this try from any other. */
        *(event->act == ACT_REBOOT ? &event->boot_id : &event->nonce) =
            xstrdup(host->nonce != NULL ? host->nonce : "");
        break;
    case ROLLOUT_TAKE_BACK:
        event = run_host_event(run, EVENT_GRANT, decision->host);
        event->act = ACT_ROLLBACK;
        event->path = xstrdup("");
        break;
    case ROLLOUT_WAVE_START:
    case ROLLOUT_WAVE_END:
        event = event_new(decision->kind == ROLLOUT_WAVE_START ? EVENT_WAVE_START : EVENT_WAVE_END);
        event->wave = (uint32_t)decision->wave;
        break;
    case ROLLOUT_STOP:
        event = stop_event(run);
        break;
    case ROLLOUT_PAUSE:
    case ROLLOUT_BAKE:
        event = event_new(EVENT_PAUSE);
        event->wave = (uint32_t)decision->wave;
        event->reason = xstrdup(decision->kind == ROLLOUT_BAKE
                                    ? "bake"
                                    : (decision->reason != NULL ? decision->reason : "paused"));
        break;
    case ROLLOUT_RETRY:
        event = run_host_event(run, EVENT_HOST_STATE, decision->host);
        event->has_from = true;
        event->from = view_host(run->view, event->host)->state;
        event->to = HOST_PENDING;
        event->reason = xstrdup("retry");
        event->message = xstrdup("is tried again");
        break;
    case ROLLOUT_LEAVE:
    case ROLLOUT_SKIP:
    case ROLLOUT_REPROBE:
    case ROLLOUT_END:
        break;
    }
    return event;
}

/* A host that was healthy before the run was resumed is connected to only now. */
static void take_back(struct run *run, size_t index, const char *stop_reason) {
    struct run_host *host = &run->hosts[index];
    if (host->lane != NULL) {
        bool asked = stop_reason == NULL || strcmp(stop_reason, "max-failed") != 0;
        struct error why = ERROR_INIT;
        error_set(&why, FLEET_ERR_CANCELLED, "taken-back", "%s",
                  asked ? "taken back, as asked"
                        : "taken back, as more hosts failed than max_failed allows");
        lane_take_back(host->lane, index, &why);
        return;
    }
    struct host_resume back = run->resume->hosts[index].ask;
    back.ask = true;
    back.back = true;
    back.taken_back = true;
    host->released = false;
    run_add_host(run, index, &back);
}

static void skip_host(struct run *run, const struct rollout_decision *decision) {
    struct error error = ERROR_INIT;
    const char *reason = decision->reason != NULL ? decision->reason : "stopped";
    error_set(&error, FLEET_ERR_CANCELLED, reason, "not started: %s; untouched",
              strcmp(reason, "budget") == 0         ? "the run stopped before its turn"
              : strcmp(reason, "last-healthy") == 0 ? "it is the last healthy one of its group"
                                                    : "stopped before its turn");
    if (!run_skip_again(run, decision->host, &error)) {
        lane_end(run->hosts[decision->host].lane, decision->host, HOST_SKIPPED, &error);
    }
}

/* What the system that it is about to get will change, unless that is known of another one. */
static void ask_for_change(struct run *run, size_t host) {
    const struct view_host *known = view_host(run->view, run->options->hosts[host]->name);
    const char *desired = run->hosts[host].path;
    if (known != NULL && known->current != NULL && desired != NULL &&
        changes_ask_host(run->changes, known->current, desired)) {
        lane_compare(run->hosts[host].lane, host);
    }
}

/* What a decision does, once it is on disk. */
static void carry_out(struct run *run, const struct rollout_decision *decision) {
    /* Decisions of no host carry host 0, which an empty fleet does not have. */
    bool known = decision->host < run->options->host_count;
    struct lane *lane = known ? run->hosts[decision->host].lane : NULL;
    bool of_host = decision->kind == ROLLOUT_GRANT || decision->kind == ROLLOUT_LEAVE ||
                   decision->kind == ROLLOUT_SKIP || decision->kind == ROLLOUT_REPROBE;
    if (of_host && lane == NULL) {
        return;
    }
    switch (decision->kind) {
    case ROLLOUT_GRANT:
        if (decision->act == ACT_COPY) {
            ask_for_change(run, decision->host);
        }
        lane_grant(lane, decision->host, decision->act);
        break;
    case ROLLOUT_LEAVE:
        lane_leave(lane, decision->host);
        break;
    case ROLLOUT_TAKE_BACK:
        take_back(run, decision->host, decision->reason);
        break;
    case ROLLOUT_SKIP:
        skip_host(run, decision);
        break;
    case ROLLOUT_REPROBE:
        lane_reprobe(lane, decision->host);
        break;
    case ROLLOUT_RETRY:
        run_begin_again(run, decision->host);
        break;
    case ROLLOUT_END:
        run_end(run);
        break;
    case ROLLOUT_WAVE_END:
        run_release_wave(run, decision->wave);
        break;
    case ROLLOUT_WAVE_START:
    case ROLLOUT_BAKE:
    case ROLLOUT_PAUSE:
    case ROLLOUT_STOP:
        break;
    }
}

static bool needs_sync(enum rollout_decision_kind kind) {
    return kind == ROLLOUT_GRANT || kind == ROLLOUT_TAKE_BACK;
}

/* What is not on disk is not done. The way back of a host under its guard is no exception: the
 * guard takes it anyway, with or without us. */
static bool is_refused(const struct run *run, const struct rollout_decision *decision) {
    bool back = decision->kind == ROLLOUT_GRANT && decision->act == ACT_ROLLBACK;
    return run->failure.code != 0 && needs_sync(decision->kind) && !back;
}

/* The host that waits for the refused decision gets an answer all the same: untouched, or back. A
 * healthy one that should go back for the others' sake can't be answered, so the run ends. */
static void refuse(struct run *run, const struct rollout_decision *decision) {
    struct lane *lane = run->hosts[decision->host].lane;
    struct error error = ERROR_INIT;
    if (decision->kind == ROLLOUT_TAKE_BACK) {
        run_end(run);
    } else if (lane != NULL) {
        error_set(&error, FLEET_ERR_CANCELLED, "stopped", "%s: the run's journal can't be written",
                  decision->act == ACT_COMMIT ? "proven, but not committed" : "untouched");
        lane_end(lane, decision->host, HOST_SKIPPED, &error);
    }
}

/* A grant that is refused was none: nobody is told of it. */
static void show_events(struct run *run, const struct rollout_decision *batch,
                        struct event *const *events, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (events[i] != NULL && is_refused(run, &batch[i])) {
            event_free(events[i]);
        } else if (events[i] != NULL) {
            run_show(run, events[i]);
        }
    }
}

/* Nobody can promote a paused run where no person is there: it lets go, its hosts stay where they
 * are, and `fleet promote` goes on from there. */
static bool leaves_at(const struct run *run, const struct rollout_decision *decision) {
    return decision->kind == ROLLOUT_PAUSE && !run->options->interactive &&
           decision->reason != NULL && strcmp(decision->reason, "promote") == 0;
}

/* The place of the last one that needs a sync, which syncs all before it; `count`: none does. */
static size_t last_synced(const struct rollout_decision *batch, size_t count) {
    for (size_t i = count; i-- > 0;) {
        if (needs_sync(batch[i].kind)) {
            return i;
        }
    }
    return count;
}

/* One batch of decisions; how many there were. */
static size_t drain_decisions(struct run *run) {
    struct rollout_decision batch[BATCH_MAX];
    struct event *events[BATCH_MAX];
    size_t count = 0;
    if (run->draining) {
        return 0;
    }
    run->draining = true;
    while (count < BATCH_MAX && rollout_next(run->rollout, &batch[count])) {
        count++;
    }
    size_t synced = last_synced(batch, count);
    for (size_t i = 0; i < count; i++) {
        events[i] = decision_event(run, &batch[i]);
        if (events[i] != NULL) {
            run_record(run, events[i], i == synced);
        }
    }
    show_events(run, batch, events, count);
    for (size_t i = 0; i < count; i++) {
        if (leaves_at(run, &batch[i])) {
            run_end(run);
        }
        if (is_refused(run, &batch[i])) {
            refuse(run, &batch[i]);
        } else {
            carry_out(run, &batch[i]);
        }
    }
    run->draining = false;
    return count;
}

static void on_tick(uv_timer_t *timer);
static void schedule_tick(struct run *run);

void run_decide(struct run *run) {
    if (run->ended) {
        return;
    }
    for (size_t count = 0; count < BATCH_MAX;) {
        size_t drained = drain_decisions(run);
        if (drained == 0) {
            schedule_tick(run);
            return;
        }
        count += drained; /* what is published may lead to further ones */
    }
    /* Not 0: that would be in the same turn of the loop (libuv 1.44). */
    uv_timer_start(&run->tick, on_tick, 1, 0);
}

static void on_tick(uv_timer_t *timer) {
    struct run *run = timer->data;
    rollout_tick(run->rollout, run_now_ms());
    run_decide(run);
}

static void schedule_tick(struct run *run) {
    uint64_t at = rollout_next_tick_ms(run->rollout);
    if (run->closing || at == UINT64_MAX) {
        return;
    }
    uint64_t now = run_now_ms();
    uv_timer_start(&run->tick, on_tick, at > now ? at - now : 0, 0);
}

void run_decide_soon(struct run *run) {
    if (!run->ended) {
        uv_timer_start(&run->tick, on_tick, 0, 0);
    }
}
