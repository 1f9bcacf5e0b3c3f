/* The bridge between a host's pipeline and its probes (healthcheck/health.h).
 *
 * Units are asked through the host's root shell. Commands on the target get a shell of their own,
 * so that a slow one doesn't delay a renewal.
 */
#include "core/host_internal.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"

/* ---- asking the target ---- */

void host_asks_drop(struct host *host) {
    probe_asks_drop(&host->asks);
}

/* A shell that gave no answer in time is closed for good: where nobody else will notice, as nothing
 * is asked of it but by the probes, another one takes its place. */
static void mend_shells(struct host *host) {
    bool waits = host->asks.first != NULL || (host->op_started && !host->op_done);
    if (host->link.state != LINK_UP || waits) {
        return;
    }
    if (shell_has_ended(host->link.shell)) {
        host_reopen_shell(host);
    }
    if (host->probe_shell != NULL && shell_has_ended(host->probe_shell)) {
        shell_close(host->probe_shell);
        host->probe_shell = NULL;
    }
}

static void ask_units(const char *const *globs, size_t count, health_units_done done,
                      void *done_arg, void *arg) {
    struct host *host = arg;
    mend_shells(host);
    struct shell *shell = host->link.state == LINK_UP ? host->link.shell : NULL;
    probe_asks_units(&host->asks, shell, host->systemd, globs, count, done, done_arg);
}

static void ask_command(const char *const *argv, size_t argc, uint64_t timeout_ms,
                        health_command_done done, void *done_arg, void *arg) {
    struct host *host = arg;
    mend_shells(host);
    if (host->link.state == LINK_UP && host->probe_shell == NULL) {
        host->probe_shell = shell_open(host->env.loop, host->link.conn, &host->plan.elevation);
    }
    struct shell *shell = host->link.state == LINK_UP ? host->probe_shell : NULL;
    probe_asks_command(&host->asks, shell, argv, argc, timeout_ms, done, done_arg);
}

/* ---- results ---- */

void host_failed_before(struct host *host, const char *name) {
    for (size_t i = 0; i < host->probes_failed_before_count; i++) {
        if (strcmp(host->probes_failed_before[i], name) == 0) {
            return;
        }
    }
    size_t count = host->probes_failed_before_count + 1;
    host->probes_failed_before =
        xrealloc(host->probes_failed_before, count * sizeof(*host->probes_failed_before));
    host->probes_failed_before[count - 1] = xstrdup(name);
    host->probes_failed_before_count = count;
}

static void on_probe(const struct health_result *result, void *arg) {
    struct host *host = arg;
    /* Of a host that begins anew what fails by now may be the work of the try before. */
    if (host->step == STEP_LOOK && (result->ok || host->adopted)) {
        return;
    }
    if (host->step == STEP_LOOK) {
        host_failed_before(host, result->name);
    }
    struct event *event = event_new(EVENT_PROBE);
    event->host = xstrdup(host->plan.inv->name);
    event->ts_ms = clock_wall_ms(host->env.clock);
    event->name = xstrdup(result->name);
    event->ok = result->ok;
    event->detail = xstrdup(result->detail);
    event->duration_ms = result->duration_ms;
    host->sink.event(event, host->sink.arg);
}

static void on_healthy(void *arg) {
    struct host *host = arg;
    host->health_ok = true;
    host_drive(host);
}

static void on_unhealthy(const struct error *error, void *arg) {
    struct host *host = arg;
    host->health_ok = false;
    host->health_bad = true;
    host->health_error = *error;
    host_drive(host);
}

void host_health_start(struct host *host, enum host_look look) {
    static const struct health_handlers handlers = {
        .on_probe = on_probe, .on_healthy = on_healthy, .on_unhealthy = on_unhealthy};
    struct health_env env = {.loop = host->env.loop,
                             .conn = host->link.conn,
                             .units = ask_units,
                             .command = ask_command,
                             .arg = host};
    struct health_plan plan = {.host = host->plan.inv,
                               .address = host->link.address,
                               .failed_before = (const char *const *)host->failed_before,
                               .failed_before_count = host->failed_before_count,
                               .tolerate_preexisting = host->plan.inv->policy.tolerate_preexisting,
                               .probes_failed_before =
                                   (const char *const *)host->probes_failed_before,
                               .probes_failed_before_count = host->probes_failed_before_count,
                               .over_time = look != LOOK_ONCE,
                               .again = look == LOOK_AGAIN};
    host->health_ok = false;
    host->health_bad = false;
    host->health_losses = host->losses;
    host->health = health_start(&env, &plan, &handlers, host);
}

bool host_health_look(struct host *host, enum host_look look) {
    if (host->health_bad && host->health_losses != host->losses && host_try_again(host)) {
        host_health_stop(host);
    }
    if (host->health == NULL && !host->health_ok && !host->health_bad) {
        host_health_start(host, look);
    }
    return host->health_ok || host->health_bad;
}

void host_health_stop(struct host *host) {
    if (host->health != NULL) {
        health_stop(host->health);
        host->health = NULL;
        probe_asks_forget(&host->asks);
    }
    if (host->probe_shell != NULL) {
        shell_close(host->probe_shell);
        host->probe_shell = NULL;
    }
    host->health_ok = false;
    host->health_bad = false;
}
