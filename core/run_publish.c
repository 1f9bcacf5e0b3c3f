/* The run's events: numbered, journaled, folded into the view and shown, all in one place, so that
 * no reader sees what another does not. And the events that the coordinator itself has to tell.
 */
#include "core/run_internal.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"

void run_fail(struct run *run, const struct error *error) {
    if (run->failure.code != 0) {
        return;
    }
    run->failure = *error;
    rollout_control(run->rollout, ROLLOUT_CONTROL_DRAIN, SIZE_MAX, run_now_ms());
    run_decide_soon(run); /* an event may come between two decisions */
}

void run_record(struct run *run, struct event *event, bool sync) {
    struct error error = ERROR_INIT;
    event->seq = ++run->seq;
    event->run = xstrdup(run->id);
    if (event->ts_ms == 0) {
        event->ts_ms = clock_wall_ms(&clock_system);
    }
    if (journal_append(run->journal, event, sync, &error) != 0) {
        run_fail(run, &error);
    }
}

void run_show(struct run *run, struct event *event) {
    view_apply(run->view, event);
    run->options->observer.event(event, run->view, run->options->observer.arg);
    event_free(event);
}

void run_publish(struct run *run, struct event *event, bool sync) {
    run_record(run, event, sync);
    run_show(run, event);
}

void run_publish_soon(struct run *run, size_t host, struct event *event) {
    struct lane_report *report = xcalloc(1, sizeof(*report));
    report->kind = LANE_EVENT;
    report->host = host;
    report->event = event;
    mailbox_post(&run->reports, &report->mail);
}

struct event *run_host_event(struct run *run, enum event_type type, size_t host) {
    struct event *event = event_new(type);
    event->host = xstrdup(run_inv(run, host)->name);
    event->wave = (uint32_t)rollout_wave_of(run->rollout, host);
    return event;
}

/* Of one host in the journal and the displays: a program that never stops talking shall not fill
 * the operator's disk. */
#define LOG_LINES_MAX 20000u

bool run_log_has_room(struct run *run, size_t host) {
    if (run->hosts[host].log_lines > LOG_LINES_MAX) {
        return false;
    }
    if (++run->hosts[host].log_lines <= LOG_LINES_MAX) {
        return true;
    }
    struct event *event = run_host_event(run, EVENT_LOG, host);
    event->stream = xstrdup("fleet");
    event->line = xasprintf("more than %u lines: the rest is left out here; a build's whole log "
                            "is beside the journal",
                            LOG_LINES_MAX);
    run_publish(run, event, false);
    return false;
}

static void publish_line(struct run *run, size_t host, const char *stream, const char *line,
                         size_t len, const char *drv) {
    if (host != SIZE_MAX && !run_log_has_room(run, host)) {
        return;
    }
    struct event *event =
        host != SIZE_MAX ? run_host_event(run, EVENT_LOG, host) : event_new(EVENT_LOG);
    event->stream = xstrdup(stream);
    event->line = text_cleaned(line, len);
    event->drv = drv != NULL ? xstrdup(drv) : NULL;
    run_publish(run, event, false);
}

void run_publish_log(struct run *run, size_t host, const char *stream, const char *line,
                     size_t len) {
    publish_line(run, host, stream, line, len, NULL);
}

void run_publish_build_log(struct run *run, size_t host, const char *line, size_t len,
                           const char *drv) {
    publish_line(run, host, "build", line, len, drv);
}

/* The healthy time that all hosts share, 0 where they differ. */
static uint64_t shared_healthy_ms(const struct run *run) {
    uint64_t shared =
        run->options->host_count > 0 ? run_inv(run, 0)->policy.min_healthy_time_ms : 0;
    for (size_t i = 0; i < run->options->host_count; i++) {
        if (run_inv(run, i)->policy.min_healthy_time_ms != shared) {
            return 0;
        }
    }
    return shared;
}

void run_publish_start(struct run *run) {
    const struct run_options *options = run->options;
    struct event *event = event_new(EVENT_RUN_START);
    event->fleet = xstrdup(options->inventory->name);
    event->inventory = xstrdup(options->inventory->path);
    event->rev = xstrdup(options->rev);
    event->dirty = options->dirty;
    event->action = options->action;
    event->policy = xstrdup(options->policy_json);
    if (options->to_run != NULL) {
        event->target = xasprintf("run:%s", options->to_run);
    } else if (options->to_path != NULL) {
        event->target = xstrdup(options->to_path);
    } else if (options->to_generation > 0) {
        event->target = xasprintf("%lld", (long long)options->to_generation);
    }
    event->wave_count = (uint32_t)rollout_wave_count(run->rollout);
    event->max_failed = rollout_failures_allowed(run->rollout);
    event->healthy_ms = shared_healthy_ms(run);
    event->host_count = options->host_count;
    event->hosts = xcalloc(options->host_count, sizeof(*event->hosts));
    for (size_t i = 0; i < options->host_count; i++) {
        const struct inv_host *host = run_inv(run, i);
        event->hosts[i].name = xstrdup(host->name);
        event->hosts[i].wave = (uint32_t)rollout_wave_of(run->rollout, i);
        event->hosts[i].address = spec_login(spec_of(options->specs, host));
    }
    run_publish(run, event, true);
}

void run_publish_end(struct run *run, int exit_code) {
    struct event *event = event_new(EVENT_RUN_END);
    const char *result = rollout_result(run->rollout, run->signal);
    bool gone = strcmp(run->failure.reason, "journal-gone") == 0;
    result = gone ? "journal-gone" : run->failure.code != 0 ? "interrupted" : result;
    event->result = xstrdup(result);
    event->exit = exit_code;
    for (int state = 0; state < HOST_STATE_COUNT; state++) {
        event->counts[state] = (uint32_t)rollout_count(run->rollout, (enum host_state)state);
    }
    run_publish(run, event, true);
}

void run_publish_cost(struct run *run) {
    if (run->watch.on) {
        struct journal_cost cost = journal_cost(run->journal);
        AUTO_FREE char *line = xasprintf(
            "journal: %llu syncs in %.1f ms, the longest %.1f ms", (unsigned long long)cost.syncs,
            (double)cost.total_us / 1000, (double)cost.longest_us / 1000);
        run_publish_log(run, SIZE_MAX, "loop", line, strlen(line));
    }
}

void run_publish_turns(struct run *run, const char *loop, uint32_t number,
                       struct loop_turns turns) {
    if (run->watch.on) {
        AUTO_FREE char *line =
            xasprintf("%s %u: longest turn %.1f ms, busiest %.1f ms of CPU", loop, (unsigned)number,
                      (double)turns.longest_us / 1000, (double)turns.busiest_us / 1000);
        run_publish_log(run, SIZE_MAX, "loop", line, strlen(line));
    }
}
