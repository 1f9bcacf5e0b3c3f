/* One probe: a health entry, what it does for one try, and how a try ends. Private to healthcheck.
 *
 * A probe type is one row of the table: `start` begins a try, which ends in exactly one call of
 * probe_done unless `cancel` comes first. health.c owns the schedule and the deadline of each try;
 * a type owns whatever it needs for the try (struct probe's `attempt`) and must not touch the
 * probe once the try is over. Handles that close later live in memory of their own.
 *
 * `start` runs in a callback of the loop, never inside health_start, so that it may call
 * probe_done at once.
 */
#ifndef FLEET_HEALTHCHECK_PROBE_H
#define FLEET_HEALTHCHECK_PROBE_H

#include <uv.h>

#include "healthcheck/gate.h"
#include "healthcheck/health.h"

struct probe;

struct probe_type {
    const char *name;
    void (*start)(struct probe *probe);
    /* Ends the running try without probe_done. `attempt` is set. */
    void (*cancel)(struct probe *probe);
    /* Frees what `state` points at. NULL: there is none. */
    void (*release)(struct probe *probe);
    /* What loading can't check. NULL: nothing. */
    int (*validate)(const struct inv_health *entry, struct error *error);
};

extern const struct probe_type probe_systemd;
extern const struct probe_type probe_tcp;
extern const struct probe_type probe_http;
extern const struct probe_type probe_command;
extern const struct probe_type probe_metric;

struct probe {
    struct health *health;
    const struct probe_type *type;
    const struct inv_health *entry; /* borrowed from the inventory */
    const struct inv_host *host;
    const char *address; /* that answered */
    const struct health_env *env;
    void *attempt; /* the running try; NULL: none runs */
    void *state;   /* what the type remembers between tries; NULL at first */

    /* health.c's own. */
    size_t index;
    bool excused;      /* it failed before the change */
    uint64_t asked_ms; /* loop time when the try began */
    uint64_t began_ns; /* uv_hrtime of the same */
    uv_timer_t timer;  /* while a try runs its deadline, else the time of the next one */
    char *last_detail; /* cleaned; NULL before the first result */
};

/* Ends the try. `detail` (printf) is a phrase for a person; it is cleaned here. */
void probe_done(struct probe *probe, enum gate_outcome outcome, const char *detail, ...)
    __attribute__((format(printf, 3, 4)));

/* For the systemd rule: true while failures aren't counted; whether a unit had failed before the
 * change (always false without tolerate_preexisting). */
bool probe_in_grace(const struct probe *probe);
bool probe_unit_failed_before(const struct probe *probe, const char *unit);

/* A question to the host's pipeline (health_env), which may answer after the try was given up:
 * the pipeline gets the question as its `done_arg`, and it lives until it is answered or health is
 * freed. */
struct probe_question {
    struct health *health;
    struct probe *probe; /* NULL: given up */
    struct probe_question *next;
};
/* A new one, which becomes the probe's attempt. */
struct probe_question *probe_ask(struct probe *probe);
/* To be called first in the answer, with its `arg`: the probe, or NULL where nobody waits any more.
 * The question is freed. */
struct probe *probe_answered(void *arg);
/* The `cancel` of a type that asks questions. */
void probe_give_up(struct probe *probe);

#endif
