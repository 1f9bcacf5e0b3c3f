/* Questions to a target, and what becomes of them (see probe_asks.h). */
#include "core/probe_asks.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"
#include "core/name_index.h"
#include "core/target.h"

/* A question under way: on the list until it is answered or its shell is closed. `units` and
 * `command` are both NULL once nobody wants the answer any more. */
struct ask {
    struct probe_asks *asks;
    struct ask *next;
    health_units_done units;
    health_command_done command;
    void *arg;
};

static struct ask *ask_new(struct probe_asks *asks, void *arg) {
    struct ask *ask = xcalloc(1, sizeof(*ask));
    ask->asks = asks;
    ask->arg = arg;
    ask->next = asks->first;
    asks->first = ask;
    return ask;
}

static void ask_free(struct ask *ask) {
    struct ask **slot = &ask->asks->first;
    while (*slot != ask) {
        slot = &(*slot)->next;
    }
    *slot = ask->next;
    free(ask);
}

void probe_asks_drop(struct probe_asks *asks) {
    while (asks->first != NULL) {
        ask_free(asks->first);
    }
}

void probe_asks_forget(struct probe_asks *asks) {
    for (struct ask *ask = asks->first; ask != NULL; ask = ask->next) {
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

/* The units that the activation has changed, as a set; their names are the reply's. */
static struct name_index *changed_units(const struct target_reply *reply) {
    struct name_index *changed = name_index_new();
    const char *unit;
    for (size_t at = 0; (unit = target_reply_next(reply, "changed", &at)) != NULL;) {
        name_index_add(changed, unit, 0);
    }
    return changed;
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
    struct name_index *changed = changed_units(reply);
    size_t count = 0;
    const char *line;
    for (size_t at = 0;
         count < UNITS_MAX && (line = target_reply_next(reply, "unit", &at)) != NULL;) {
        lines[count] = xstrdup(line);
        if (parse_unit(lines[count], &units[count]) && !is_known(units, count, units[count].name)) {
            units[count].changed = name_index_find(changed, units[count].name) != NAME_INDEX_NONE;
            count++;
        } else {
            free(lines[count]);
        }
    }
    name_index_free(changed);
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

static void set_no_connection(struct error *error) {
    error_set(error, FLEET_ERR_LOST, "connection-lost", "no connection to the host");
}

void probe_asks_units(struct probe_asks *asks, struct shell *shell, bool systemd,
                      const char *const *globs, size_t count, health_units_done done,
                      void *done_arg) {
    if (systemd && shell != NULL) {
        struct ask *ask = ask_new(asks, done_arg);
        ask->units = done;
        target_units(shell, globs, count, on_units, ask);
        return;
    }
    struct error error = ERROR_INIT;
    struct health_units none = {.count = 0};
    if (systemd) {
        set_no_connection(&error);
        none.error = &error;
    }
    done(&none, done_arg);
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
    for (size_t at = 0; (line = target_reply_next(reply, "out", &at)) != NULL;) {
        buf_printf(&output, "%s%s", output.len > 0 ? "\n" : "", line);
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

void probe_asks_command(struct probe_asks *asks, struct shell *shell, const char *const *argv,
                        size_t argc, uint64_t timeout_ms, health_command_done done,
                        void *done_arg) {
    if (shell == NULL) {
        struct error error = ERROR_INIT;
        set_no_connection(&error);
        struct health_command answer = {.status = -1, .output = "", .error = &error};
        done(&answer, done_arg);
        return;
    }
    struct ask *ask = ask_new(asks, done_arg);
    ask->command = done;
    target_run(shell, argv, argc, timeout_ms, on_command, ask);
}
