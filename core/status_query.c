/* One look at one host (see status_query.h): the facts, then the probes, then the answer. */
#include "core/status_query.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "core/probe_asks.h"
#include "core/target_reply.h"

struct status_query {
    struct status_question question;
    char *address;
    status_query_done done;
    void *arg;
    bool asking;                /* for the facts */
    struct target_reply *reply; /* which are these; NULL before and after */
    struct health *health;
    struct probe_asks asks;
    struct shell *commands; /* for probes that run on the target */
    struct status_probe *probes;
    size_t probe_count;
    bool *answered; /* one each of the inventory's probes, in whose order `probes` stand */
};

/* ---- the answer ---- */

/* Those that have answered, without a gap. */
static size_t pack_probes(struct status_query *query) {
    size_t count = 0;
    for (size_t i = 0; i < query->probe_count; i++) {
        if (query->answered[i]) {
            query->probes[count] = query->probes[i];
            query->answered[count++] = true;
        }
    }
    return count;
}

static void answer(struct status_query *query) {
    struct status_answer answer = {.reply = query->reply, .healthy = true};
    status_read(query->reply, query->question.desired, &answer.status);
    query->probe_count = pack_probes(query);
    answer.probes = query->probes;
    answer.probe_count = query->probe_count;
    for (size_t i = 0; i < answer.probe_count; i++) {
        answer.healthy = answer.healthy && answer.probes[i].ok;
    }
    struct target_reply *reply = query->reply;
    query->reply = NULL;
    query->done(&answer, NULL, query->arg); /* which may have stopped the query */
    status_release(&answer.status);
    target_reply_free(reply);
}

/* ---- probes ---- */

static void on_probe(const struct health_result *result, void *arg) {
    struct status_query *query = arg;
    const struct inv_host *inv = query->question.inv;
    size_t i = 0;
    while (i < inv->health_count && strcmp(inv->health[i].name, result->name) != 0) {
        i++;
    }
    if (i < query->probe_count && !query->answered[i]) {
        query->answered[i] = true;
        query->probes[i] = (struct status_probe){.name = xstrdup(result->name),
                                                 .detail = xstrdup(result->detail),
                                                 .ok = result->ok,
                                                 .duration_ms = result->duration_ms};
    }
}

static void on_healthy(void *arg) {
    answer(arg);
}

static void on_unhealthy(const struct error *error, void *arg) {
    (void)error; /* each probe has told its own */
    answer(arg);
}

static void ask_units(const char *const *globs, size_t count, health_units_done done,
                      void *done_arg, void *arg) {
    struct status_query *query = arg;
    const char *systemd = target_reply_get(query->reply, "systemd");
    bool has_systemd = systemd != NULL && strcmp(systemd, "yes") == 0;
    probe_asks_units(&query->asks, query->question.shell, has_systemd, globs, count, done,
                     done_arg);
}

static void ask_command(const char *const *argv, size_t argc, uint64_t timeout_ms,
                        health_command_done done, void *done_arg, void *arg) {
    struct status_query *query = arg;
    const struct status_question *question = &query->question;
    if (query->commands == NULL) {
        query->commands = shell_open(question->loop, question->conn, question->elevation);
    }
    probe_asks_command(&query->asks, query->commands, argv, argc, timeout_ms, done, done_arg);
}

static void start_probes(struct status_query *query) {
    static const struct health_handlers handlers = {
        .on_probe = on_probe, .on_healthy = on_healthy, .on_unhealthy = on_unhealthy};
    const struct status_question *question = &query->question;
    struct health_env env = {.loop = question->loop,
                             .conn = question->conn,
                             .units = ask_units,
                             .command = ask_command,
                             .arg = query};
    /* Nothing has changed, so nothing is excused for having failed before. */
    struct health_plan plan = {.host = question->inv, .address = query->address};
    query->probe_count = question->inv->health_count;
    query->probes = xcalloc(query->probe_count, sizeof(*query->probes));
    query->answered = xcalloc(query->probe_count, sizeof(*query->answered));
    query->health = health_start(&env, &plan, &handlers, query);
}

/* ---- the facts ---- */

static void on_facts(int err, const struct target_reply *reply, const struct error *error,
                     void *arg) {
    struct status_query *query = arg;
    query->asking = false;
    if (err != 0) {
        query->done(NULL, error, query->arg);
        return;
    }
    query->reply = target_reply_keep(reply);
    if (query->question.probe && query->question.inv->health_count > 0) {
        start_probes(query);
    } else {
        answer(query);
    }
}

struct status_query *status_query_start(const struct status_question *question,
                                        status_query_done done, void *arg) {
    struct status_query *query = xcalloc(1, sizeof(*query));
    query->question = *question;
    query->address = xstrdup(question->address);
    query->done = done;
    query->arg = arg;
    query->asking = true;
    struct target_env env = {.profile = question->inv->profile};
    target_inspect(question->shell, &env, NULL, on_facts, query);
    return query;
}

bool status_query_stop(struct status_query *query) {
    if (query == NULL) {
        return true;
    }
    bool idle = !query->asking && query->asks.first == NULL;
    if (query->health != NULL) {
        health_stop(query->health);
    }
    if (query->commands != NULL) {
        shell_close(query->commands);
    }
    probe_asks_drop(&query->asks);
    for (size_t i = 0; i < query->probe_count; i++) {
        free(query->probes[i].name);
        free(query->probes[i].detail);
    }
    free(query->probes);
    free(query->answered);
    target_reply_free(query->reply);
    free(query->address);
    free(query);
    return idle;
}
