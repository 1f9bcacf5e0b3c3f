/* What the probes of a host ask of it: the state of its units, and commands on it.
 *
 * The bridge between healthcheck/health.h and the scripts of a target. Whoever probes owns the
 * shells and hands them in with each question; this keeps the questions that were not answered yet.
 * Embedded by value, zero at first; the loop's thread only.
 */
#ifndef FLEET_CORE_PROBE_ASKS_H
#define FLEET_CORE_PROBE_ASKS_H

#include "healthcheck/health.h"
#include "transport/shell.h"

struct ask;

struct probe_asks {
    struct ask *first;
};

/* `shell` NULL: there is no connection, which is the answer. `systemd` false: there are no units, so
 * none has failed. `done` as struct health_env has it; it may fire at once. */
void probe_asks_units(struct probe_asks *asks, struct shell *shell, bool systemd,
                      const char *const *globs, size_t count, health_units_done done,
                      void *done_arg);
/* A slow command delays what else `shell` is asked: give it one of its own. */
void probe_asks_command(struct probe_asks *asks, struct shell *shell, const char *const *argv,
                        size_t argc, uint64_t timeout_ms, health_command_done done, void *done_arg);
/* Nobody wants the answers any more, which may still come. */
void probe_asks_forget(struct probe_asks *asks);
/* The shells that were asked are closed: no answer will come. */
void probe_asks_drop(struct probe_asks *asks);

#endif
