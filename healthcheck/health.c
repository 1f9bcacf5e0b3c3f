#include "healthcheck/health.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "healthcheck/gate.h"
#include "healthcheck/probe.h"

/* How long a try may take and how often it runs where the entry says 0. */
#define DEFAULT_TIMEOUT_MS  3000
#define DEFAULT_INTERVAL_MS 5000

/* Invariants: `open` counts the timers that aren't closed; the memory goes when it is 0, which
 * only health_stop brings about. After `stopped` no handler is called. After `over` (unhealthy, or
 * one round is complete) nothing runs any more. A probe's timer is its deadline while `attempt` is
 * set, else the time of its next try. */
struct health {
    struct health_env env;
    struct health_handlers handlers;
    void *arg;
    char *address;
    char **failed_before;
    size_t failed_before_count;
    const struct inv_host *host;
    bool over_time;
    bool said_healthy;
    bool over;
    bool stopped;
    size_t open;
    uv_timer_t wake; /* the gate's next moment */
    struct gate *gate;
    struct probe_question *questions; /* not yet answered */
    size_t count;
    struct probe probes[];
};

static const struct probe_type *const types[] = {
    [INV_HEALTH_SYSTEMD] = &probe_systemd, [INV_HEALTH_TCP] = &probe_tcp,
    [INV_HEALTH_HTTP] = &probe_http,       [INV_HEALTH_COMMAND] = &probe_command,
    [INV_HEALTH_METRIC] = &probe_metric,
};
_Static_assert(ARRAY_LEN(types) == INV_HEALTH_METRIC + 1, "a row for every type");

static const struct probe_type *type_of(enum inv_health_type type) {
    assert((size_t)type < ARRAY_LEN(types));
    return types[type];
}

int health_validate(const struct inv_health *entry, struct error *error) {
    const struct probe_type *type = type_of(entry->type);
    return type->validate == NULL ? 0 : type->validate(entry, error);
}

static uint64_t timeout_of(const struct inv_health *entry) {
    return entry->timeout_ms > 0 ? entry->timeout_ms : DEFAULT_TIMEOUT_MS;
}

static uint64_t interval_of(const struct inv_health *entry) {
    return entry->interval_ms > 0 ? entry->interval_ms : DEFAULT_INTERVAL_MS;
}

static bool is_running(const struct health *health) {
    return !health->over && !health->stopped;
}

/* --- The verdict --- */

static void halt(struct health *health) {
    health->over = true;
    uv_timer_stop(&health->wake);
    for (size_t i = 0; i < health->count; i++) {
        struct probe *probe = &health->probes[i];
        uv_timer_stop(&probe->timer);
        if (probe->attempt != NULL) {
            probe->type->cancel(probe);
            probe->attempt = NULL;
        }
    }
}

/* "http web": what a person calls the probe. */
static void add_subject(struct buf *out, const struct probe *probe) {
    buf_add_text(out, probe->type->name);
    if (strcmp(probe->entry->name, probe->type->name) != 0) {
        buf_add_char(out, ' ');
        buf_add_text(out, probe->entry->name);
    }
}

static void describe(const struct health *health, const char *detail, struct error *error) {
    struct gate_blame blame = gate_blame(health->gate);
    struct buf text = BUF_INIT;
    const struct inv_host_policy *policy = &health->host->policy;
    if (blame.probe == SIZE_MAX) {
        buf_add_text(&text, "the probes did not all pass for ");
        text_add_duration(&text, policy->min_healthy_time_ms);
        buf_add_text(&text, " without a break before the deadline of ");
        text_add_duration(&text, policy->healthy_deadline_ms);
    } else {
        add_subject(&text, &health->probes[blame.probe]);
        buf_printf(&text, ": %s", detail);
        if (blame.deadline) {
            buf_add_text(&text, "; not healthy within ");
            text_add_duration(&text, policy->healthy_deadline_ms);
        } else if (!blame.conclusive && blame.in_row > 1) {
            buf_printf(&text, " %u times", blame.in_row);
        }
    }
    error_set(error, FLEET_ERR_HEALTH, blame.deadline ? "healthy-deadline" : "probe-failed", "%s",
              buf_text(&text));
    buf_free(&text);
}

static void arm(struct health *health);
static void on_probe_timer(uv_timer_t *timer);

/* Looks at the gate after a result or a moment. The health may be stopped afterwards. */
static void judge(struct health *health) {
    uint64_t now = uv_now(health->env.loop);
    switch (gate_verdict(health->gate, now)) {
    case GATE_UNHEALTHY: {
        size_t probe = gate_blame(health->gate).probe;
        const char *detail = "no result yet";
        if (probe != SIZE_MAX && health->probes[probe].last_detail != NULL) {
            detail = health->probes[probe].last_detail;
        }
        struct error error = ERROR_INIT;
        describe(health, detail, &error);
        halt(health);
        if (health->handlers.on_unhealthy != NULL) {
            health->handlers.on_unhealthy(&error, health->arg);
        }
        return;
    }
    case GATE_HEALTHY:
        if (!health->said_healthy) {
            health->said_healthy = true;
            if (!health->over_time) {
                halt(health);
            }
            if (health->handlers.on_healthy != NULL) {
                health->handlers.on_healthy(health->arg);
            }
        }
        break;
    case GATE_WAITING:
        break;
    }
    if (is_running(health)) {
        arm(health);
    }
}

static void on_wake(uv_timer_t *timer) {
    judge(container_of(timer, struct health, wake));
}

/* Sets the gate's timer, and starts the looks that the gate is waiting for. */
static void arm(struct health *health) {
    uint64_t now = uv_now(health->env.loop);
    for (size_t i = 0; i < health->count; i++) {
        struct probe *probe = &health->probes[i];
        /* Where a try is running, this is asked again after its result. */
        if (probe->attempt == NULL && gate_wants_look(health->gate, i, now)) {
            uv_timer_start(&probe->timer, on_probe_timer, 0, 0);
        }
    }
    uint64_t wake = gate_wake_ms(health->gate, now);
    if (wake == UINT64_MAX) {
        uv_timer_stop(&health->wake);
    } else {
        uv_timer_start(&health->wake, on_wake, wake - now, 0);
    }
}

/* --- One try --- */

/* The next try begins an interval after the last one began, at once where that is over. */
static void schedule(struct probe *probe) {
    if (!probe->health->over_time) {
        return;
    }
    uint64_t now = uv_now(probe->env->loop);
    uint64_t due = probe->asked_ms + interval_of(probe->entry);
    uint64_t wait = due > now ? due - now : 0;
    uv_timer_start(&probe->timer, on_probe_timer, wait, 0);
}

static void report(struct probe *probe, bool ok, bool counted) {
    struct health *health = probe->health;
    if (health->handlers.on_probe == NULL) {
        return;
    }
    struct buf detail = BUF_INIT;
    buf_add_text(&detail, probe->last_detail);
    uint32_t failed = gate_failed_in_row(health->gate, probe->index);
    uint32_t allowed = gate_failures_allowed(health->gate, probe->index);
    if (!ok && counted && failed > 0 && allowed > 1 && health->over_time) {
        buf_printf(&detail, " (%u of %u)", failed, allowed);
    } else if (!ok && probe->excused) {
        buf_add_text(&detail, " (failed before the change, not counted)");
    }
    struct health_result result = {
        .name = probe->entry->name,
        .ok = ok,
        .counted = counted,
        .detail = buf_text(&detail),
        .duration_ms = (uv_hrtime() - probe->began_ns) / 1000000,
    };
    health->handlers.on_probe(&result, health->arg);
    buf_free(&detail);
}

void probe_done(struct probe *probe, enum gate_outcome outcome, const char *detail, ...) {
    struct health *health = probe->health;
    assert(is_running(health));
    probe->attempt = NULL;
    uv_timer_stop(&probe->timer);
    va_list args;
    va_start(args, detail);
    char *text = xvasprintf(detail, args);
    va_end(args);
    auto_free(&probe->last_detail);
    probe->last_detail = text_cleaned(text, strlen(text));
    auto_free(&text);

    uv_update_time(health->env.loop);
    uint64_t now = uv_now(health->env.loop);
    bool counted = gate_result(health->gate, probe->index, outcome, probe->asked_ms, now);
    schedule(probe);
    report(probe, outcome == GATE_PASS, counted);
    if (is_running(health)) {
        judge(health);
    }
}

static void on_deadline(struct probe *probe) {
    struct buf limit = BUF_INIT;
    text_add_duration(&limit, timeout_of(probe->entry));
    probe->type->cancel(probe);
    probe_done(probe, GATE_FAIL, "no answer within %s", buf_text(&limit));
    buf_free(&limit);
}

static void run_probe(struct probe *probe) {
    probe->asked_ms = uv_now(probe->env->loop);
    probe->began_ns = uv_hrtime();
    uv_timer_start(&probe->timer, on_probe_timer, timeout_of(probe->entry), 0);
    probe->type->start(probe);
}

static void on_probe_timer(uv_timer_t *timer) {
    struct probe *probe = container_of(timer, struct probe, timer);
    if (probe->attempt != NULL) {
        on_deadline(probe);
    } else {
        run_probe(probe);
    }
}

/* --- What probe types ask --- */

bool probe_in_grace(const struct probe *probe) {
    return gate_in_grace(probe->health->gate, uv_now(probe->env->loop));
}

bool probe_unit_failed_before(const struct probe *probe, const char *unit) {
    const struct health *health = probe->health;
    for (size_t i = 0; i < health->failed_before_count; i++) {
        if (strcmp(health->failed_before[i], unit) == 0) {
            return true;
        }
    }
    return false;
}

struct probe_question *probe_ask(struct probe *probe) {
    struct probe_question *question = xcalloc(1, sizeof(*question));
    question->health = probe->health;
    question->probe = probe;
    question->next = probe->health->questions;
    probe->health->questions = question;
    probe->attempt = question;
    return question;
}

struct probe *probe_answered(void *arg) {
    struct probe_question *question = arg;
    struct probe_question **link = &question->health->questions;
    while (*link != question) {
        link = &(*link)->next;
    }
    *link = question->next;
    struct probe *probe = question->probe;
    auto_free(&question);
    return probe;
}

void probe_give_up(struct probe *probe) {
    struct probe_question *question = probe->attempt;
    question->probe = NULL;
}

/* --- From outside --- */

static void destroy(struct health *health) {
    for (size_t i = 0; i < health->count; i++) {
        auto_free(&health->probes[i].last_detail);
    }
    while (health->questions != NULL) {
        struct probe_question *question = health->questions;
        health->questions = question->next;
        auto_free(&question);
    }
    for (size_t i = 0; i < health->failed_before_count; i++) {
        auto_free(&health->failed_before[i]);
    }
    auto_free(&health->failed_before);
    auto_free(&health->address);
    gate_free(health->gate);
    auto_free(&health);
}

static void on_closed(uv_handle_t *handle) {
    struct health *health = handle->data;
    if (--health->open == 0) {
        destroy(health);
    }
}

static bool contains(const char *const *names, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static void init_probe(struct health *health, size_t i, const struct health_plan *plan,
                       struct gate_probe *rule) {
    struct probe *probe = &health->probes[i];
    probe->health = health;
    probe->entry = &plan->host->health[i];
    probe->type = type_of(probe->entry->type);
    probe->host = plan->host;
    probe->address = health->address;
    probe->env = &health->env;
    probe->index = i;
    probe->excused =
        plan->tolerate_preexisting &&
        contains(plan->probes_failed_before, plan->probes_failed_before_count, probe->entry->name);
    *rule = (struct gate_probe){.successes = probe->entry->successes,
                                .failures = probe->entry->failures,
                                .excused = probe->excused};
    uv_timer_init(health->env.loop, &probe->timer);
    probe->timer.data = health;
    uv_timer_start(&probe->timer, on_probe_timer, 0, 0);
}

struct health *health_start(const struct health_env *env, const struct health_plan *plan,
                            const struct health_handlers *handlers, void *arg) {
    size_t count = plan->host->health_count;
    struct health *health = xcalloc(1, sizeof(*health) + count * sizeof(health->probes[0]));
    health->env = *env;
    health->handlers = *handlers;
    health->arg = arg;
    health->host = plan->host;
    /* There is no address where the host is this machine ("address": "local"). */
    bool has_address = plan->address != NULL && plan->address[0] != '\0';
    health->address = xstrdup(has_address ? plan->address : "127.0.0.1");
    health->over_time = plan->over_time;
    health->count = count;
    if (plan->tolerate_preexisting) {
        health->failed_before = xcalloc(plan->failed_before_count, sizeof(char *));
        health->failed_before_count = plan->failed_before_count;
        for (size_t i = 0; i < plan->failed_before_count; i++) {
            health->failed_before[i] = xstrdup(plan->failed_before[i]);
        }
    }
    struct gate_probe *rules = xcalloc(count, sizeof(*rules));
    uv_update_time(env->loop);
    for (size_t i = 0; i < count; i++) {
        init_probe(health, i, plan, &rules[i]);
    }
    const struct inv_host_policy *policy = &plan->host->policy;
    health->gate = gate_new(
        &(struct gate_policy){
            .startup_grace_ms = plan->again ? 0 : policy->startup_grace_ms,
            /* Nothing to watch, nothing to wait for. */
            .min_healthy_ms = count > 0 && !plan->again ? policy->min_healthy_time_ms : 0,
            .deadline_ms = policy->healthy_deadline_ms,
            .fail_fast = policy->fail_fast || plan->again,
            .one_round = !plan->over_time,
        },
        rules, count, uv_now(env->loop));
    auto_free(&rules);
    uv_timer_init(env->loop, &health->wake);
    health->wake.data = health;
    uv_timer_start(&health->wake, on_wake, 0, 0);
    health->open = count + 1;
    return health;
}

void health_set_conn(struct health *health, struct conn *conn) {
    health->env.conn = conn;
    for (size_t i = 0; i < health->count; i++) {
        struct probe *probe = &health->probes[i];
        if (probe->attempt != NULL &&
            (probe->entry->from_target || probe->entry->type == INV_HEALTH_SYSTEMD)) {
            /* A try on the old connection says nothing about the host: once more on the new one,
             * in a callback of the timer. */
            probe->type->cancel(probe);
            probe->attempt = NULL;
            uv_timer_start(&probe->timer, on_probe_timer, 0, 0);
        }
    }
}

void health_stop(struct health *health) {
    assert(!health->stopped);
    if (!health->over) {
        halt(health);
    }
    health->stopped = true;
    for (size_t i = 0; i < health->count; i++) {
        struct probe *probe = &health->probes[i];
        if (probe->type->release != NULL && probe->state != NULL) {
            probe->type->release(probe);
            probe->state = NULL;
        }
        uv_close((uv_handle_t *)&probe->timer, on_closed);
    }
    uv_close((uv_handle_t *)&health->wake, on_closed);
}

uint64_t health_passing_ms(const struct health *health) {
    return gate_passing_ms(health->gate, uv_now(health->env.loop));
}
