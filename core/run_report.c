/* What the lanes report: a host has moved, wishes for an act, has closed.
 */
#include "core/run_internal.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"

static void take_event(struct run *run, struct lane_report *report) {
    struct event *event = report->event;
    report->event = NULL;
    if (event->type == EVENT_CHANGE) {
        if (changes_hear(run->changes, event)) {
            run_publish(run, event, false);
        } else {
            event_free(event);
        }
        return;
    }
    event->wave = (uint32_t)rollout_wave_of(run->rollout, report->host);
    if (event->type == EVENT_LOG && !run_log_has_room(run, report->host)) {
        event_free(event);
        return;
    }
    if (event->type != EVENT_HOST_STATE) {
        bool person = event->type == EVENT_LOG && strcmp(event->stream, "agent") == 0;
        run_publish(run, event, false);
        if (person) {
            rollout_waits_for_person(run->rollout, report->host);
        }
        return;
    }
    enum host_state to = event->to;
    if ((to == HOST_STAGING || to == HOST_ACTIVATING) && event->current != NULL &&
        event->desired != NULL) {
        changes_note(run->changes, event->current, event->desired);
    }
    char *reason = xstrdup(event->reason);
    if (reason[0] == '\0') { /* null in the journal, as a code is never empty */
        free(event->reason);
        event->reason = NULL;
    }
    run_publish(run, event, false);
    rollout_moved(run->rollout, report->host, to, reason, run_now_ms());
    free(reason);
    bool staged_end =
        to == HOST_STAGED && run_is_end(run, to) && run->options->action == ACTION_PUSH;
    if ((host_state_is_end(to) && !run_may_move_yet(run, report->host, to)) || staged_end) {
        run_release_host(run, report->host);
    }
}

static void take_wish(struct run *run, struct lane_report *report) {
    struct run_host *host = &run->hosts[report->host];
    free(host->path);
    free(host->nonce);
    host->path = report->path;
    host->nonce = report->nonce;
    report->path = NULL;
    report->nonce = NULL;
    rollout_wants(run->rollout, report->host, report->act, run_now_ms());
}

void run_receive(struct mail *mail, void *arg) {
    struct lane_report *report = container_of(mail, struct lane_report, mail);
    struct run *run = arg;
    switch (report->kind) {
    case LANE_EVENT:
        take_event(run, report);
        break;
    case LANE_WANTS:
        take_wish(run, report);
        break;
    case LANE_UNHEALTHY_BEFORE:
        rollout_unhealthy_before(run->rollout, report->host);
        break;
    case LANE_REPROBED:
        rollout_reprobed(run->rollout, report->host, report->ok, run_now_ms());
        break;
    case LANE_CLOSED:
        run->open_hosts--;
        run_on_closed(run, report->host);
        break;
    }
    lane_report_free(report);
    run_decide_soon(run);
    run_maybe_close(run);
}
