/* What the steps are written with: how one ends, the operation that it has under way, the grant that
 * it waits for, and what it tells the outside.
 *
 * Invariants: host_publish is the only way to a public state; a step has one operation under way at
 * most, and asks for one grant.
 */
#include "core/host_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"

#define HOST_RETRIES 5 /* of one step, after scripts that failed */
#define RETRY_MS     1000u

uint64_t host_now(const struct host *host) {
    return clock_now_ms(host->env.clock);
}

void host_set_string(char **slot, const char *value) {
    free(*slot);
    *slot = value != NULL ? xstrdup(value) : NULL;
}

bool host_same(const char *a, const char *b) {
    return a != NULL && b != NULL && strcmp(a, b) == 0;
}

bool host_says(const struct target_reply *reply, const char *key, const char *value) {
    return host_same(target_reply_get(reply, key), value);
}

/* ---- how a step ends ---- */

enum step_result host_go(struct host *host, enum step next) {
    host->next = next;
    return STEP_DONE;
}

enum step_result host_fail(struct host *host, const struct error *error) {
    host->error = *error;
    return STEP_FAILED;
}

enum step_result host_failf(struct host *host, enum fleet_err code, const char *reason,
                            const char *format, ...) {
    va_list args;
    va_start(args, format);
    error_setv(&host->error, code, reason, format, args);
    va_end(args);
    return STEP_FAILED;
}

bool host_try_again(struct host *host) {
    if (host->retries >= HOST_RETRIES) {
        return false;
    }
    host->retries++;
    host->op_started = false;
    host_pause(host, RETRY_MS);
    return true;
}

void host_set_end(struct host *host, enum host_state end, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(host->end_message, sizeof(host->end_message), format, args);
    va_end(args);
    host->end = end;
}

/* ---- one operation at a time ---- */

bool host_op_begin(struct host *host) {
    if (host->op_started) {
        return false;
    }
    host->op_started = true;
    host->op_done = false;
    return true;
}

void host_on_reply(int err, const struct target_reply *reply, const struct error *error,
                   void *arg) {
    struct host *host = arg;
    host->op_done = true;
    host->op_err = err;
    host->op_error = *error;
    uv_timer_stop(&host->pause); /* it has waited for this, if it has paused at all */
    host->pausing = false;
    host->reply = reply;
    host_drive(host);
    host->reply = NULL;
}

void host_await(struct host *host, uint64_t ms) {
    host->answer_until_ms = host_now(host) + ms;
    host_pause(host, ms);
}

bool host_overdue(const struct host *host) {
    return host->op_started && !host->op_done && host_now(host) >= host->answer_until_ms;
}

uint64_t host_patience_ms(const struct host *host) {
    return host->plan.inv->policy.confirm_timeout_ms / 3;
}

struct target_env host_target_env(const struct host *host) {
    return (struct target_env){.profile = host->plan.inv->profile};
}

struct target_lock host_target_lock(const struct host *host) {
    return (struct target_lock){.id = host->lock_id,
                                .run = host->plan.run->run,
                                .who = host->plan.run->who,
                                .lease_ms = host->plan.run->lease_ms,
                                .first = !host->plan.run->resumed && !host->plan.again};
}

/* ---- grants and events ---- */

bool host_granted_path(struct host *host, enum act act, const char *path) {
    if (host->wanted) {
        return host->granted[act];
    }
    host->wanted = true;
    host->granted[act] = false;
    const char *mark = act != ACT_REBOOT ? host->nonce : host->boot_id != NULL ? host->boot_id : "";
    host->sink.wants(host->plan.index, act, path, mark, host->sink.arg);
    return host->granted[act];
}

bool host_granted(struct host *host, enum act act) {
    return host_granted_path(host, act, host->desired != NULL ? host->desired : "");
}

void host_log(struct host *host, const char *stream, const char *line, size_t len) {
    struct event *event = event_new(EVENT_LOG);
    event->host = xstrdup(host->plan.inv->name);
    event->stream = xstrdup(stream);
    event->line = text_cleaned(line, len);
    event->ts_ms = clock_wall_ms(host->env.clock);
    host->sink.event(event, host->sink.arg);
}

void host_publish(struct host *host, enum host_state to, const char *reason, const char *message) {
    struct event *event = event_new(EVENT_HOST_STATE);
    uint64_t now = host_now(host);
    event->host = xstrdup(host->plan.inv->name);
    event->ts_ms = clock_wall_ms(host->env.clock);
    event->has_from = host->began;
    event->from = host->state;
    event->to = to;
    event->reason = xstrdup(reason != NULL ? reason : "");
    event->message = xstrdup(message != NULL ? message : "");
    event->duration_ms = host->began ? now - host->moved_ms : 0;
    event->current = host->current != NULL ? xstrdup(host->current) : NULL;
    event->desired = host->desired != NULL ? xstrdup(host->desired) : NULL;
    event->generation = host->generation;
    host->state = to;
    host->moved_ms = now;
    host->began = true;
    host->sink.event(event, host->sink.arg);
}
