/* The bridge between a host's pipeline and its probes (healthcheck/health.h).
 *
 * Units are asked through the host's root shell. Commands on the target get a shell of their own,
 * so that a slow one doesn't delay a renewal.
 */
#include "core/host_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"

/* ---- asking the target ---- */

/* A question under way: on the host's list until it is answered or its shell is closed. `units`
 * and `command` are both NULL once nobody wants the answer any more. */
struct ask {
    struct host *host;
    struct ask *next;
    health_units_done units;
    health_command_done command;
    void *arg;
};

static struct ask *ask_new(struct host *host, void *arg) {
    struct ask *ask = xcalloc(1, sizeof(*ask));
    ask->host = host;
    ask->arg = arg;
    ask->next = host->asks;
    host->asks = ask;
    return ask;
}

static void ask_free(struct ask *ask) {
    struct ask **slot = &ask->host->asks;
    while (*slot != ask) {
        slot = &(*slot)->next;
    }
    *slot = ask->next;
    free(ask);
}

void host_asks_drop(struct host *host) {
    while (host->asks != NULL) {
        ask_free(host->asks);
    }
}

static void forget_asks(struct host *host) {
    for (struct ask *ask = host->asks; ask != NULL; ask = ask->next) {
        ask->units = NULL;
        ask->command = NULL;
    }
}

#define UNITS_MAX 512

/* "NAME LOAD ACTIVE SUB NRESTARTS EXECSTATUS ACTIVE_ENTER_MS ..." in place. */
static bool parse_unit(char *line, struct health_unit *ret) {
    char *save = NULL;
    char *field[7];
    for (size_t i = 0; i < ARRAY_LEN(field); i++) {
        field[i] = strtok_r(i == 0 ? line : NULL, " ", &save);
        if (field[i] == NULL) {
            return false;
        }
    }
    *ret = (struct health_unit){.name = field[0],
                                .active = field[2],
                                .sub = field[3],
                                .restarts = (uint32_t)strtoul(field[4], NULL, 10),
                                .exec_status = (int)strtol(field[5], NULL, 10),
                                .never_active = strcmp(field[6], "0") == 0};
    return true;
}

static bool is_changed(const struct target_reply *reply, const char *unit) {
    const char *changed;
    for (size_t i = 0; (changed = target_reply_nth(reply, "changed", i)) != NULL; i++) {
        if (strcmp(changed, unit) == 0) {
            return true;
        }
    }
    return false;
}

/* A unit that failed and matches a glob is told twice. */
static bool is_known(const struct health_unit *units, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++) {
        if (strcmp(units[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static void on_units(int err, const struct target_reply *reply, const struct error *error,
                     void *arg) {
    struct ask *ask = arg;
    if (err == FLEET_ERR_LOST) {
        ask_free(ask); /* the broken connection answers for it, and the probe asks again */
        return;
    }
    struct health_unit units[UNITS_MAX];
    char *lines[UNITS_MAX];
    size_t count = 0;
    const char *line;
    for (size_t i = 0; count < UNITS_MAX && (line = target_reply_nth(reply, "unit", i)) != NULL;
         i++) {
        lines[count] = xstrdup(line);
        if (parse_unit(lines[count], &units[count]) && !is_known(units, count, units[count].name)) {
            units[count].changed = is_changed(reply, units[count].name);
            count++;
        } else {
            free(lines[count]);
        }
    }
    struct health_units answer = {.items = units, .count = count, .error = err != 0 ? error : NULL};
    /* Gone first: a verdict may end the step, which drops all questions. */
    health_units_done done = ask->units;
    void *done_arg = ask->arg;
    ask_free(ask);
    if (done != NULL) {
        done(&answer, done_arg);
    }
    for (size_t i = 0; i < count; i++) {
        free(lines[i]);
    }
}

static void answer_units_error(health_units_done done, void *done_arg) {
    struct error error = ERROR_INIT;
    error_set(&error, FLEET_ERR_LOST, "connection-lost", "no connection to the host");
    struct health_units answer = {.error = &error};
    done(&answer, done_arg);
}

static void ask_units(const char *const *globs, size_t count, health_units_done done,
                      void *done_arg, void *arg) {
    struct host *host = arg;
    if (host->link.state != LINK_UP || !host->systemd) {
        if (!host->systemd) {
            struct health_units none = {.count = 0};
            done(&none, done_arg);
        } else {
            answer_units_error(done, done_arg);
        }
        return;
    }
    struct ask *ask = ask_new(host, done_arg);
    ask->units = done;
    target_units(host->link.shell, globs, count, on_units, ask);
}

static void on_command(int err, const struct target_reply *reply, const struct error *error,
                       void *arg) {
    struct ask *ask = arg;
    if (err == FLEET_ERR_LOST) {
        ask_free(ask);
        return;
    }
    struct buf output = BUF_INIT;
    const char *line;
    for (size_t i = 0; (line = target_reply_nth(reply, "out", i)) != NULL; i++) {
        buf_printf(&output, "%s%s", i > 0 ? " " : "", line);
    }
    struct health_command answer = {.status = (int)target_reply_number(reply, "rc", -1),
                                    .output = buf_text(&output),
                                    .error = err != 0 ? error : NULL};
    health_command_done done = ask->command;
    void *done_arg = ask->arg;
    ask_free(ask);
    if (done != NULL) {
        done(&answer, done_arg);
    }
    buf_free(&output);
}

static void ask_command(const char *const *argv, size_t argc, uint64_t timeout_ms,
                        health_command_done done, void *done_arg, void *arg) {
    struct host *host = arg;
    if (host->link.state != LINK_UP) {
        struct error error = ERROR_INIT;
        error_set(&error, FLEET_ERR_LOST, "connection-lost", "no connection to the host");
        struct health_command answer = {.status = -1, .output = "", .error = &error};
        done(&answer, done_arg);
        return;
    }
    if (host->probe_shell == NULL) {
        host->probe_shell = shell_open(host->env.loop, host->link.conn, &host->plan.elevation);
    }
    struct ask *ask = ask_new(host, done_arg);
    ask->command = done;
    target_run(host->probe_shell, argv, argc, timeout_ms, on_command, ask);
}

/* ---- results ---- */

static void remember_failed_before(struct host *host, const char *name) {
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
    if (host->step == STEP_LOOK) {
        if (!result->ok) {
            remember_failed_before(host, result->name);
        }
        return;
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

void host_health_start(struct host *host, bool over_time) {
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
                               .over_time = over_time};
    host->health_ok = false;
    host->health_bad = false;
    host->health_losses = host->losses;
    host->health = health_start(&env, &plan, &handlers, host);
}

bool host_health_look(struct host *host) {
    if (host->health_bad && host->health_losses != host->losses && host_try_again(host)) {
        host_health_stop(host);
    }
    if (host->health == NULL && !host->health_ok && !host->health_bad) {
        host_health_start(host, false);
    }
    return host->health_ok || host->health_bad;
}

void host_health_stop(struct host *host) {
    if (host->health != NULL) {
        health_stop(host->health);
        host->health = NULL;
        forget_asks(host);
    }
    if (host->probe_shell != NULL) {
        shell_close(host->probe_shell);
        host->probe_shell = NULL;
    }
    host->health_ok = false;
    host->health_bad = false;
}
