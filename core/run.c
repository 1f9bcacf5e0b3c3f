/* The coordinator: see run.h. One loop on the main thread that connects the parts:
 *
 *   lanes ──reports──► run_receive ──► rollout (pure) ──decisions──► journal, synced ──► lanes
 *   build ──results──► lanes                    │
 *   signals ─────────► rollout          every event ──► journal, view, observer
 *
 * Invariant: a grant is on disk before its lane sees it. Decisions are drained in batches: their
 * events are written, synced once, and only then posted (struct posting).
 */
#include "core/run.h"

#include <assert.h>
#include <errno.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/build.h"
#include "core/host.h"
#include "core/journal.h"
#include "core/lane.h"
#include "core/loop_watch.h"
#include "core/resume.h"
#include "core/rollout.h"

#define LEASE_MS  (2u * 60u * 1000u)
#define LEAVE_MS  8000u
#define LANES_MAX 4u
#define TICK_MS   1000u

/* Of one host in the journal and the displays: a program that never stops talking shall not fill
 * the operator's disk. */
#define LOG_LINES_MAX 20000u

struct run_host {
    struct lane *lane; /* NULL: it had ended before the run was resumed */
    struct elevation elevation;
    char *path, *nonce; /* of what it wants */
    bool released;
    uint32_t log_lines;
};

/* A decision that waits for the journal. */
struct posting {
    struct rollout_decision decision;
    struct posting *next;
};

struct run {
    const struct run_options *options;
    uv_loop_t loop;
    struct loop_watch watch;
    struct host_run shared;
    char id[RUN_ID_SIZE];
    char *who;
    struct journal *journal;
    struct view *view;
    struct rollout *rollout;
    struct lane *lanes[LANES_MAX];
    uint32_t lane_count;
    struct run_host *hosts;
    size_t open_hosts;
    struct mailbox reports;
    struct transport *transport; /* for build hosts */
    struct build *build;
    const struct inv_host **build_hosts; /* to be built, and the host of the run that each is */
    size_t *build_map;
    bool build_done;
    struct resume *resume; /* NULL: a new run */
    uint64_t seq;
    uv_timer_t tick, display, leave;
    uv_signal_t signals[2];
    int signal; /* the first that came, or 0 */
    int signal_count;
    bool ended; /* ROLLOUT_END was seen, or the program leaves */
    bool closing;
    bool attended;        /* a person may ask for something (run_request) */
    bool draining;        /* rollout decisions are being drained */
    struct error failure; /* the program's own: the journal can't be written */
};

static uint64_t now_ms(void) {
    return clock_now_ms(&clock_system);
}

/* ---- events ---- */

static void on_tick(uv_timer_t *timer);

static void fail_run(struct run *run, const struct error *error) {
    if (run->failure.code != 0) {
        return;
    }
    run->failure = *error;
    rollout_control(run->rollout, ROLLOUT_CONTROL_DRAIN, SIZE_MAX, now_ms());
    uv_timer_start(&run->tick, on_tick, 0, 0); /* an event may come between two decisions */
}

/* Takes the event: numbers it, writes it, folds it in, shows it, frees it. */
static void publish(struct run *run, struct event *event, bool sync) {
    struct error error = ERROR_INIT;
    event->seq = ++run->seq;
    event->run = xstrdup(run->id);
    if (event->ts_ms == 0) {
        event->ts_ms = clock_wall_ms(&clock_system);
    }
    if (journal_append(run->journal, event, sync, &error) != 0) {
        fail_run(run, &error);
    }
    view_apply(run->view, event);
    run->options->observer.event(event, run->view, run->options->observer.arg);
    event_free(event);
}

static const struct inv_host *inv(const struct run *run, size_t host) {
    return run->options->hosts[host];
}

static struct event *host_event(struct run *run, enum event_type type, size_t host) {
    struct event *event = event_new(type);
    event->host = xstrdup(inv(run, host)->name);
    event->wave = (uint32_t)rollout_wave_of(run->rollout, host);
    return event;
}

/* Counts a log line of the host. The first one too many says that the rest is left out. */
static bool log_has_room(struct run *run, size_t host) {
    if (run->hosts[host].log_lines > LOG_LINES_MAX) {
        return false;
    }
    if (++run->hosts[host].log_lines <= LOG_LINES_MAX) {
        return true;
    }
    struct event *event = host_event(run, EVENT_LOG, host);
    event->stream = xstrdup("fleet");
    event->line = xasprintf("more than %u lines: the rest is left out here; a build's whole log "
                            "is beside the journal",
                            LOG_LINES_MAX);
    publish(run, event, false);
    return false;
}

static void publish_log(struct run *run, size_t host, const char *stream, const char *line,
                        size_t len) {
    if (host != SIZE_MAX && !log_has_room(run, host)) {
        return;
    }
    struct event *event =
        host != SIZE_MAX ? host_event(run, EVENT_LOG, host) : event_new(EVENT_LOG);
    event->stream = xstrdup(stream);
    event->line = text_cleaned(line, len);
    publish(run, event, false);
}

/* "[user@]host[:port]", as a person would give it to ssh. */
static char *login_of(const struct conn_spec *spec) {
    if (spec == NULL || spec->local || spec->address_count == 0) {
        return xstrdup("");
    }
    struct buf text = BUF_INIT;
    const struct conn_address *address = &spec->addresses[0];
    bool bracket = strchr(address->host, ':') != NULL && address->port != 22;
    if (spec->user != NULL) {
        buf_printf(&text, "%s@", spec->user);
    }
    buf_printf(&text, bracket ? "[%s]" : "%s", address->host);
    if (address->port != 0 && address->port != 22) {
        buf_printf(&text, ":%u", (unsigned)address->port);
    }
    return buf_take(&text);
}

/* The healthy time that all hosts share, 0 where they differ. */
static uint64_t shared_healthy_ms(const struct run *run) {
    uint64_t shared = run->options->host_count > 0 ? inv(run, 0)->policy.min_healthy_time_ms : 0;
    for (size_t i = 0; i < run->options->host_count; i++) {
        if (inv(run, i)->policy.min_healthy_time_ms != shared) {
            return 0;
        }
    }
    return shared;
}

static void publish_start(struct run *run) {
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
        const struct inv_host *host = inv(run, i);
        event->hosts[i].name = xstrdup(host->name);
        event->hosts[i].wave = (uint32_t)rollout_wave_of(run->rollout, i);
        event->hosts[i].address = login_of(spec_of(options->specs, host));
    }
    publish(run, event, true);
}

static void publish_end(struct run *run, int exit_code) {
    struct event *event = event_new(EVENT_RUN_END);
    const char *result = rollout_result(run->rollout, run->signal);
    event->result = xstrdup(run->failure.code != 0 ? "interrupted" : result);
    event->exit = exit_code;
    for (int state = 0; state < HOST_STATE_COUNT; state++) {
        event->counts[state] = (uint32_t)rollout_count(run->rollout, (enum host_state)state);
    }
    publish(run, event, true);
}

/* ---- decisions ---- */

static void schedule_tick(struct run *run);
static void end_run(struct run *run);

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
    rollout_waiting(run->rollout, now_ms(), &words);
    event->stream = xstrdup("fleet");
    event->line = buf_take(&words);
    return event;
}

static struct event *decision_event(struct run *run, const struct rollout_decision *decision) {
    struct event *event = NULL;
    struct run_host *host = &run->hosts[decision->host];
    switch (decision->kind) {
    case ROLLOUT_GRANT:
        event = host_event(run, EVENT_GRANT, decision->host);
        event->act = decision->act;
        event->path = xstrdup(host->path != NULL ? host->path : "");
        event->nonce = xstrdup(host->nonce != NULL ? host->nonce : "");
        break;
    case ROLLOUT_TAKE_BACK:
        event = host_event(run, EVENT_GRANT, decision->host);
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
    case ROLLOUT_LEAVE:
    case ROLLOUT_SKIP:
    case ROLLOUT_REPROBE:
    case ROLLOUT_END:
        break;
    }
    return event;
}

static void add_host(struct run *run, size_t index, const struct host_resume *resume);

/* A host that was healthy before the run was resumed is connected to only now. */
static void take_back(struct run *run, size_t index) {
    struct run_host *host = &run->hosts[index];
    if (host->lane != NULL) {
        lane_take_back(host->lane, index);
        return;
    }
    struct host_resume back = run->resume->hosts[index].ask;
    back.ask = true;
    back.back = true;
    back.taken_back = true;
    host->released = false;
    add_host(run, index, &back);
}

static void skip_host(struct run *run, const struct rollout_decision *decision) {
    struct error error = ERROR_INIT;
    const char *reason = decision->reason != NULL ? decision->reason : "stopped";
    error_set(&error, FLEET_ERR_CANCELLED, reason, "%s",
              strcmp(reason, "budget") == 0
                  ? "not started: the run stopped before its turn; untouched"
                  : "not started: the run was stopped; untouched");
    lane_end(run->hosts[decision->host].lane, decision->host, HOST_SKIPPED, &error);
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
        lane_grant(lane, decision->host, decision->act);
        break;
    case ROLLOUT_LEAVE:
        lane_leave(lane, decision->host);
        break;
    case ROLLOUT_TAKE_BACK:
        take_back(run, decision->host);
        break;
    case ROLLOUT_SKIP:
        skip_host(run, decision);
        break;
    case ROLLOUT_REPROBE:
        lane_reprobe(lane, decision->host);
        break;
    case ROLLOUT_END:
        end_run(run);
        break;
    case ROLLOUT_WAVE_START:
    case ROLLOUT_WAVE_END:
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
        end_run(run);
    } else if (lane != NULL) {
        error_set(&error, FLEET_ERR_CANCELLED, "stopped", "%s: the run's journal can't be written",
                  decision->act == ACT_COMMIT ? "proven, but not committed" : "untouched");
        lane_end(lane, decision->host, HOST_SKIPPED, &error);
    }
}

/* Nobody can promote a paused run where no person is there: it lets go, its hosts stay where they
 * are, and `fleet promote` goes on from there. */
static bool leaves_at(const struct run *run, const struct rollout_decision *decision) {
    return decision->kind == ROLLOUT_PAUSE && !run->options->interactive &&
           decision->reason != NULL && strcmp(decision->reason, "promote") == 0;
}

/* One batch of decisions; false when there was none. */
static bool drain_decisions(struct run *run) {
    struct posting *first = NULL;
    struct posting **last = &first;
    struct rollout_decision decision;
    bool sync = false;
    if (run->draining) {
        return false;
    }
    run->draining = true;
    while (rollout_next(run->rollout, &decision)) {
        struct posting *posting = xcalloc(1, sizeof(*posting));
        posting->decision = decision;
        *last = posting;
        last = &posting->next;
        sync = sync || needs_sync(decision.kind);
    }
    bool any = first != NULL;
    /* The last granted event's write syncs all before it. */
    struct posting *final = NULL;
    for (struct posting *posting = first; posting != NULL; posting = posting->next) {
        final = needs_sync(posting->decision.kind) ? posting : final;
    }
    for (struct posting *posting = first; posting != NULL; posting = posting->next) {
        struct event *event = decision_event(run, &posting->decision);
        if (event != NULL) {
            publish(run, event, sync && posting == final);
        }
    }
    while (first != NULL) {
        struct posting *posting = first;
        first = posting->next;
        if (leaves_at(run, &posting->decision)) {
            end_run(run);
        }
        if (is_refused(run, &posting->decision)) {
            refuse(run, &posting->decision);
        } else {
            carry_out(run, &posting->decision);
        }
        free(posting);
    }
    run->draining = false;
    return any;
}

/* After every input: decisions, until there are none. */
static void decide(struct run *run) {
    if (run->ended) {
        return;
    }
    while (drain_decisions(run)) { /* what is published may lead to further ones */
    }
    schedule_tick(run);
}

static void on_tick(uv_timer_t *timer) {
    struct run *run = timer->data;
    rollout_tick(run->rollout, now_ms());
    decide(run);
}

static void schedule_tick(struct run *run) {
    uint64_t at = rollout_next_tick_ms(run->rollout);
    if (run->closing || at == UINT64_MAX) {
        return;
    }
    uint64_t now = now_ms();
    uv_timer_start(&run->tick, on_tick, at > now ? at - now : 0, 0);
}

/* Once for all reports that lie in the mailbox: their grants share one journal sync. */
static void decide_soon(struct run *run) {
    if (!run->ended) {
        uv_timer_start(&run->tick, on_tick, 0, 0);
    }
}

static void promote(struct run *run) {
    publish(run, event_new(EVENT_PROMOTE), true);
    rollout_control(run->rollout, ROLLOUT_CONTROL_PROMOTE, SIZE_MAX, now_ms());
    decide(run);
}

/* `fleet promote` in another terminal leaves a file. One that comes when nothing waits goes unheard,
 * so that it releases no later wave. */
static void look_for_promotion(struct run *run) {
    AUTO_FREE char *path = xasprintf("%s/%s", journal_dir(run->journal), RUN_PROMOTE_FILE);
    bool waits = run->view->paused != NULL && strcmp(run->view->paused, "promote") == 0;
    if (unlink(path) == 0 && waits && !run->ended) {
        promote(run);
    }
}

static void on_display(uv_timer_t *timer) {
    struct run *run = timer->data;
    look_for_promotion(run);
    struct buf waiting = BUF_INIT;
    rollout_waiting(run->rollout, now_ms(), &waiting);
    run->options->observer.tick(run->view, clock_wall_ms(&clock_system), buf_text(&waiting),
                                run->options->observer.arg);
    buf_free(&waiting);
}

/* ---- ends ---- */

static void on_leave(uv_timer_t *timer) {
    struct run *run = timer->data;
    run->closing = true;
    uv_stop(&run->loop);
}

static void maybe_close(struct run *run) {
    if (run->ended && run->open_hosts == 0 && (run->build == NULL || run->build_done)) {
        run->closing = true;
        uv_stop(&run->loop);
    }
}

static void release_host(struct run *run, size_t host) {
    if (!run->hosts[host].released && run->hosts[host].lane != NULL) {
        run->hosts[host].released = true;
        lane_release(run->hosts[host].lane, host);
    }
}

static void end_run(struct run *run) {
    if (run->ended) {
        return;
    }
    run->ended = true;
    if (run->build != NULL && !run->build_done) {
        build_cancel(run->build);
    }
    for (size_t i = 0; i < run->options->host_count; i++) {
        release_host(run, i);
    }
    uv_timer_start(&run->leave, on_leave, run->signal != 0 ? LEAVE_MS : 2 * LEAVE_MS, 0);
    maybe_close(run);
}

/* A healthy host is held where a later failure may still take it back. */
static bool may_move_yet(const struct run *run, enum host_state state) {
    const struct inv_run_policy *policy = &run->options->inventory->policy;
    return state == HOST_HEALTHY && (run->attended || policy->bake_ms > 0 ||
                                     policy->on_failure == INV_ON_FAILURE_ROLLBACK_WAVE ||
                                     policy->on_failure == INV_ON_FAILURE_ROLLBACK_ALL);
}

static bool is_end(const struct run *run, enum host_state state) {
    bool stages =
        run->options->action == ACTION_PUSH || run->options->action == ACTION_DRY_ACTIVATE;
    return host_state_is_end(state) || (state == HOST_STAGED && stages);
}

/* ---- reports of the lanes ---- */

static void take_event(struct run *run, struct lane_report *report) {
    struct event *event = report->event;
    report->event = NULL;
    event->wave = (uint32_t)rollout_wave_of(run->rollout, report->host);
    if (event->type == EVENT_LOG && !log_has_room(run, report->host)) {
        event_free(event);
        return;
    }
    if (event->type != EVENT_HOST_STATE) {
        publish(run, event, false);
        return;
    }
    enum host_state to = event->to;
    char *reason = xstrdup(event->reason);
    if (reason[0] == '\0') { /* null in the journal, as a code is never empty */
        free(event->reason);
        event->reason = NULL;
    }
    publish(run, event, false);
    rollout_moved(run->rollout, report->host, to, reason, now_ms());
    free(reason);
    bool staged_end = to == HOST_STAGED && is_end(run, to) && run->options->action == ACTION_PUSH;
    if ((host_state_is_end(to) && !may_move_yet(run, to)) || staged_end) {
        release_host(run, report->host);
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
    rollout_wants(run->rollout, report->host, report->act, now_ms());
}

static void receive(struct mail *mail, void *arg) {
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
        rollout_reprobed(run->rollout, report->host, report->ok, now_ms());
        break;
    case LANE_CLOSED:
        run->open_hosts--;
        break;
    }
    lane_report_free(report);
    decide_soon(run);
    maybe_close(run);
}

/* ---- build ---- */

static const char *const build_names[] = {[BUILD_EVALUATING] = "evaluating",
                                          [BUILD_BUILDING] = "building",
                                          [BUILD_BUILT] = "built",
                                          [BUILD_FAILED] = "failed"};

static void on_build_state(size_t index, enum build_state state, const char *path, const char *drv,
                           void *arg) {
    struct run *run = arg;
    struct event *event = host_event(run, EVENT_BUILD, run->build_map[index]);
    event->state = xstrdup(build_names[state]);
    event->path = path != NULL ? xstrdup(path) : NULL;
    event->drv = drv != NULL ? xstrdup(drv) : NULL;
    publish(run, event, false);
}

static void on_build_log(size_t index, const char *line, size_t len, void *arg) {
    struct run *run = arg;
    publish_log(run, index != SIZE_MAX ? run->build_map[index] : SIZE_MAX, "build", line, len);
}

static void on_built(size_t index, const struct build_result *result, void *arg) {
    static const enum host_source_kind kinds[] = {[BUILD_SOURCE_LOCAL] = HOST_SOURCE_LOCAL,
                                                  [BUILD_SOURCE_REMOTE] = HOST_SOURCE_REMOTE,
                                                  [BUILD_SOURCE_TARGET] = HOST_SOURCE_TARGET};
    struct run *run = arg;
    struct host_source source = {.kind = kinds[result->source],
                                 .remote = result->remote,
                                 .remote_command = result->remote_command};
    size_t host = run->build_map[index];
    lane_desired(run->hosts[host].lane, host, result->path, &source);
}

static void on_build_failed(size_t index, const struct error *error, void *arg) {
    struct run *run = arg;
    size_t host = run->build_map[index];
    if (error->code != FLEET_ERR_CANCELLED) {
        lane_end(run->hosts[host].lane, host, HOST_FAILED, error);
    }
}

static void on_build_done(void *arg) {
    struct run *run = arg;
    run->build_done = true;
    maybe_close(run);
}

static const struct conn_spec *build_spec(const struct inv_host *host, void *arg) {
    const struct run *run = arg;
    return spec_of(run->options->specs, host);
}

/* What a resumed host is to run is known from the journal where its change was granted, or where
 * its build still lies here. */
static bool give_recorded(struct run *run, size_t host) {
    const struct resume_host *recorded = run->resume != NULL ? &run->resume->hosts[host] : NULL;
    if (recorded == NULL || recorded->path == NULL) {
        return false;
    }
    struct host_source source = {.kind = HOST_SOURCE_LOCAL};
    if (access(recorded->path, F_OK) != 0 || run->options->action == ACTION_ROLLBACK) {
        if (!recorded->touched && run->options->action != ACTION_ROLLBACK) {
            return false;
        }
        source.kind = HOST_SOURCE_TARGET; /* it was copied there before its change was granted */
    }
    lane_desired(run->hosts[host].lane, host, recorded->path, &source);
    return true;
}

/* Fills build_hosts and build_map; how many there are to build. */
static size_t choose_builds(struct run *run) {
    size_t count = 0;
    run->build_hosts = xcalloc(run->options->host_count + 1, sizeof(*run->build_hosts));
    run->build_map = xcalloc(run->options->host_count + 1, sizeof(*run->build_map));
    for (size_t i = 0; i < run->options->host_count; i++) {
        if (run->hosts[i].lane != NULL && !give_recorded(run, i)) {
            run->build_hosts[count] = inv(run, i);
            run->build_map[count++] = i;
        }
    }
    return count;
}

static void start_build(struct run *run) {
    static const struct build_handlers handlers = {.on_state = on_build_state,
                                                   .on_log = on_build_log,
                                                   .on_built = on_built,
                                                   .on_failed = on_build_failed,
                                                   .on_done = on_build_done};
    const struct run_options *options = run->options;
    struct build_options build = {.run_dir = journal_dir(run->journal),
                                  .out_link = options->out_link,
                                  .transport = run->transport,
                                  .spec = build_spec,
                                  .spec_arg = run};
    size_t count = choose_builds(run);
    if (count > 0) {
        run->build = build_start(&run->loop, options->inventory, run->build_hosts, count, &build,
                                 &handlers, run);
    }
}

/* A rollback needs no build: the hosts have it. Without a path they choose themselves. */
static void start_rollback(struct run *run) {
    struct host_source source = {.kind = HOST_SOURCE_TARGET};
    for (size_t i = 0; i < run->options->host_count; i++) {
        if (run->hosts[i].lane == NULL || give_recorded(run, i)) {
            continue;
        }
        const struct run_system *systems = run->options->systems;
        const char *path = systems != NULL ? systems[i].path : run->options->to_path;
        if (path != NULL) {
            lane_desired(run->hosts[i].lane, i, path, &source);
        }
    }
}

/* `update --plan`: exactly what was planned. */
static void start_planned(struct run *run) {
    for (size_t i = 0; i < run->options->host_count; i++) {
        const struct run_system *system = &run->options->systems[i];
        struct host_source source = {.kind = system->on_target ? HOST_SOURCE_TARGET
                                                               : HOST_SOURCE_LOCAL};
        lane_desired(run->hosts[i].lane, i, system->path, &source);
    }
}

/* ---- signals ---- */

static void on_signal(uv_signal_t *handle, int number) {
    static const char first[] =
        "interrupted: no more hosts are started, those under way are finished. "
        "Once more to leave at once, with the guards armed";
    static const char second[] =
        "leaving: hosts under way go back by themselves unless `fleet resume` "
        "takes them up";
    struct run *run = handle->data;
    run->signal_count++;
    if (run->signal == 0) {
        run->signal = number;
    }
    if (run->signal_count == 1) {
        publish_log(run, SIZE_MAX, "fleet", first, sizeof(first) - 1);
        rollout_control(run->rollout, ROLLOUT_CONTROL_DRAIN, SIZE_MAX, now_ms());
        decide(run);
    } else if (run->signal_count == 2) {
        publish_log(run, SIZE_MAX, "fleet", second, sizeof(second) - 1);
        end_run(run);
    } else {
        publish_end(run, rollout_exit_code(run->rollout, run->signal));
        fflush(stdout);
        quick_exit(128 + run->signal); /* which gives the terminal back */
    }
}

/* ---- requests of a person ---- */

/* The host's number, or SIZE_MAX: all of them, or an unknown one. */
static size_t requested_host(const struct run *run, const char *name) {
    for (size_t i = 0; name != NULL && i < run->options->host_count; i++) {
        if (strcmp(inv(run, i)->name, name) == 0) {
            return i;
        }
    }
    return SIZE_MAX;
}

static void publish_request(struct run *run, const struct run_request *request) {
    static const char *const words[RUN_REQUEST_COUNT] = {
        [RUN_REQUEST_PAUSE] = "pauses the run", [RUN_REQUEST_PROMOTE] = "lets the run go on",
        [RUN_REQUEST_DRAIN] = "drains the run", [RUN_REQUEST_ABORT] = "ends the run at once",
        [RUN_REQUEST_TAKE_BACK] = "takes back", [RUN_REQUEST_SKIP] = "skips",
    };
    bool of_host = request->kind == RUN_REQUEST_TAKE_BACK || request->kind == RUN_REQUEST_SKIP;
    const char *host = request->host != NULL ? request->host : "all hosts";
    AUTO_FREE char *line = xasprintf("%s %s%s%s", run->who, words[request->kind],
                                     of_host ? " " : "", of_host ? host : "");
    publish_log(run, SIZE_MAX, "fleet", line, strlen(line));
}

static void on_request(const struct run_request *request, void *arg) {
    static const enum rollout_control controls[RUN_REQUEST_COUNT] = {
        [RUN_REQUEST_PAUSE] = ROLLOUT_CONTROL_PAUSE,
        [RUN_REQUEST_PROMOTE] = ROLLOUT_CONTROL_PROMOTE,
        [RUN_REQUEST_DRAIN] = ROLLOUT_CONTROL_DRAIN,
        [RUN_REQUEST_ABORT] = ROLLOUT_CONTROL_DRAIN,
        [RUN_REQUEST_TAKE_BACK] = ROLLOUT_CONTROL_TAKE_BACK,
        [RUN_REQUEST_SKIP] = ROLLOUT_CONTROL_SKIP,
    };
    struct run *run = arg;
    size_t host = requested_host(run, request->host);
    if (run->ended || (request->host != NULL && host == SIZE_MAX)) {
        return;
    }
    publish_request(run, request);
    if (request->kind == RUN_REQUEST_DRAIN || request->kind == RUN_REQUEST_ABORT) {
        /* The same as Ctrl-C, once or twice. */
        int wanted = request->kind == RUN_REQUEST_DRAIN ? 1 : 2;
        while (run->signal_count < wanted) {
            on_signal(&run->signals[0], SIGINT);
        }
        return;
    }
    if (request->kind == RUN_REQUEST_PROMOTE) {
        publish(run, event_new(EVENT_PROMOTE), true);
    }
    rollout_control(run->rollout, controls[request->kind], host, now_ms());
    decide(run);
}

/* ---- start and stop ---- */

static char *who_am_i(void) {
    char machine[256] = "";
    const struct passwd *user = getpwuid(getuid());
    gethostname(machine, sizeof(machine) - 1);
    char *raw =
        xasprintf("%s@%s pid %d", user != NULL ? user->pw_name : "?", machine, (int)getpid());
    char *clean = text_cleaned(raw, strlen(raw));
    free(raw);
    return clean;
}

static uint32_t lanes_for(const struct run_options *options) {
    uint32_t lanes = options->lanes;
    if (lanes == 0) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        lanes = cores > 0 ? (uint32_t)cores : 1;
    }
    lanes = lanes > LANES_MAX ? LANES_MAX : lanes;
    return lanes > options->host_count && options->host_count > 0 ? (uint32_t)options->host_count
                                                                  : lanes;
}

static void init_loop(struct run *run) {
    static const int numbers[] = {SIGINT, SIGTERM};
    uv_timer_t *timers[] = {&run->tick, &run->display, &run->leave};
    uv_loop_init(&run->loop);
    loop_watch_start(&run->watch, &run->loop);
    mailbox_init(&run->reports, &run->loop, receive, run);
    for (size_t i = 0; i < ARRAY_LEN(timers); i++) {
        uv_timer_init(&run->loop, timers[i]);
        timers[i]->data = run;
    }
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        uv_signal_init(&run->loop, &run->signals[i]);
        run->signals[i].data = run;
        uv_signal_start(&run->signals[i], on_signal, numbers[i]);
    }
    uv_timer_start(&run->display, on_display, TICK_MS, TICK_MS);
    run->transport = transport_new(&run->loop, run->options->keyring);
}

static void close_loop(struct run *run) {
    uv_timer_t *timers[] = {&run->tick, &run->display, &run->leave};
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
    transport_free(run->transport);
    uv_run(&run->loop, UV_RUN_DEFAULT);
    uv_loop_close(&run->loop);
}

static void add_host(struct run *run, size_t index, const struct host_resume *resume) {
    struct run_host *host = &run->hosts[index];
    host->lane = run->lanes[index % run->lane_count];
    struct host_plan plan = {.index = index,
                             .inv = inv(run, index),
                             .spec = spec_of(run->options->specs, inv(run, index)),
                             .elevation = host->elevation,
                             .wave = (uint32_t)rollout_wave_of(run->rollout, index),
                             .run = &run->shared,
                             .to_generation = run->options->to_generation,
                             .resume = *resume};
    lane_add(host->lane, &plan);
    run->open_hosts++;
}

static void start_hosts(struct run *run) {
    const struct run_options *options = run->options;
    struct lane_options lane = {
        .keyring = options->keyring, .reports = &run->reports, .transport = transport_new};
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
            add_host(run, i, &resume);
        }
    }
}

/* Tells the rollout where the hosts of a resumed run stand. */
static void replay(struct run *run) {
    const struct resume *resume = run->resume;
    for (size_t i = 0; i < resume->count; i++) {
        const struct resume_host *host = &resume->hosts[i];
        if (host->touched) {
            rollout_moved(run->rollout, i, HOST_ACTIVATING, NULL, now_ms());
        }
        bool ended = host_state_is_end(host->state) && host->how == RESUME_KEEP;
        if (ended || (host->touched && host->state == HOST_ROLLING_BACK) ||
            (host->how == RESUME_KEEP && is_end(run, host->state))) {
            rollout_moved(run->rollout, i, host->state, host->reason, now_ms());
        }
    }
    bool waits = resume->waits && !run->options->promote;
    rollout_resume(run->rollout, resume->waves_done, waits);
}

static void publish_resumed(struct run *run) {
    char *line = xasprintf("%s by %s", run->options->promote ? "promoted" : "resumed", run->who);
    publish_log(run, SIZE_MAX, "fleet", line, strlen(line));
    free(line);
    if (run->resume->waits && run->options->promote) {
        publish(run, event_new(EVENT_PROMOTE), true);
    }
}

static int find_elevations(struct run *run, struct error *error) {
    for (size_t i = 0; i < run->options->host_count; i++) {
        int err = spec_elevation(run->options->specs, inv(run, i), &run->hosts[i].elevation, error);
        if (err != 0) {
            return err;
        }
    }
    return 0;
}

/* FNV-1a (Fowler, Noll, Vo): the order "shuffle" is then the same when the run is resumed. */
static uint64_t seed_of(const char *run_id) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (const char *at = run_id; *at != '\0'; at++) {
        hash = (hash ^ (unsigned char)*at) * UINT64_C(0x100000001b3);
    }
    return hash;
}

/* Reads the whole journal, which is ours by now, into the view. */
static int fold_journal(struct run *run, struct error *error) {
    struct journal_reader *reader = NULL;
    char *id = NULL;
    struct event *event = NULL;
    int got = journal_open(run->options->state_dir, run->id, &reader, &id, error);
    while (got == 0 && (got = journal_next(reader, &event, error)) > 0) {
        view_apply(run->view, event);
        event_free(event);
        got = 0;
    }
    journal_reader_close(reader);
    free(id);
    run->seq = run->view->last_seq;
    return got;
}

static int open_journal(struct run *run, struct error *error) {
    const struct run_options *options = run->options;
    run->view = view_new();
    if (options->resume_id == NULL) {
        run_id_new(clock_wall_ms(&clock_system), run->id);
        return journal_create(options->state_dir, run->id, &run->journal, error);
    }
    snprintf(run->id, sizeof(run->id), "%s", options->resume_id);
    int err = journal_reopen(options->state_dir, run->id, &run->journal, error);
    if (err == 0) {
        err = fold_journal(run, error);
    }
    if (err == 0 && run->view->host_count != options->host_count) {
        err = error_set(error, FLEET_ERR_USAGE, "usage",
                        "run %s has other hosts by now: was it resumed elsewhere? Try again",
                        run->id);
    }
    if (err == 0) {
        run->resume = resume_new(run->view, options->inventory->policy.bake_ms > 0);
    }
    return err;
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
    err = open_journal(run, error);
    if (err != 0) {
        return err;
    }
    plan.seed = seed_of(run->id);
    plan.waves = run->resume != NULL ? run->resume->waves : NULL;
    run->who = who_am_i();
    run->shared = (struct host_run){.run = run->id,
                                    .who = run->who,
                                    .rev = options->rev,
                                    .dirty = options->dirty,
                                    .action = options->action,
                                    .resumed = run->resume != NULL,
                                    .lease_ms = LEASE_MS,
                                    .lock_timeout_ms = options->lock_timeout_ms};
    run->rollout = rollout_new(&plan);
    return 0;
}

static void release(struct run *run) {
    for (size_t i = 0; run->hosts != NULL && i < run->options->host_count; i++) {
        free(run->hosts[i].path);
        free(run->hosts[i].nonce);
    }
    free(run->hosts);
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

/* For whoever has asked for it with FLEET_TRACE_LOOP. */
static void publish_turns(struct run *run, const char *loop, uint32_t number,
                          struct loop_turns turns) {
    if (run->watch.on) {
        AUTO_FREE char *line =
            xasprintf("%s %u: longest turn %.1f ms, busiest %.1f ms of CPU", loop, (unsigned)number,
                      (double)turns.longest_us / 1000, (double)turns.busiest_us / 1000);
        publish_log(run, SIZE_MAX, "loop", line, strlen(line));
    }
}

/* Everything between the first event and the last. */
static int execute(struct run *run) {
    init_loop(run);
    if (run->resume != NULL) {
        publish_resumed(run);
        replay(run);
    } else {
        publish_start(run);
    }
    if (run->failure.code != 0) {
        close_loop(run);
        return 1;
    }
    start_hosts(run);
    rollout_start(run->rollout, now_ms());
    const struct run_observer *observer = &run->options->observer;
    if (observer->attach != NULL) {
        run->attended = observer->attach(&run->loop, on_request, run, observer->arg);
    }
    if (run->options->action == ACTION_ROLLBACK) {
        start_rollback(run);
    } else if (run->options->systems != NULL) {
        start_planned(run);
    } else if (run->options->action != ACTION_REBOOT) {
        start_build(run);
    }
    decide(run);
    uv_run(&run->loop, UV_RUN_DEFAULT);
    bool all_closed = run->open_hosts == 0;
    for (uint32_t i = 0; all_closed && i < run->lane_count; i++) {
        publish_turns(run, "lane", i + 1, lane_stop(run->lanes[i]));
    }
    publish_turns(run, "coordinator", 0, loop_watch_turns(&run->watch));
    int exit_code = rollout_exit_code(run->rollout, run->signal);
    if (run->failure.code != 0 && exit_code != 4) {
        exit_code = 1;
    }
    publish_end(run, exit_code);
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
