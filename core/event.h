/* The event stream: the spine that journal, plain output, dashboard, --json, JUnit, watch, history and resume
 * read (CONTRACT, Events). One object a line.
 *
 * An event is a value with owned strings: made by event_new, handed on by pointer, freed by
 * event_free. Not shared between threads without handing it over whole.
 */
#ifndef FLEET_CORE_EVENT_H
#define FLEET_CORE_EVENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/buf.h"
#include "core/base/error.h"
#include "core/state.h"

enum event_type {
    EVENT_RUN_START,
    EVENT_HOST_STATE,
    EVENT_BUILD,
    EVENT_DERIVATION, /* beyond the contract: one step of a build's tree */
    EVENT_CHANGE,     /* beyond the contract: what the way from `current` to `desired` changes */
    EVENT_GUARD,      /* beyond the contract: what a host's guard said last */
    EVENT_COPY,
    EVENT_LOG,
    EVENT_PROBE,
    EVENT_GRANT,
    EVENT_WAVE_START,
    EVENT_WAVE_END,
    EVENT_PAUSE,
    EVENT_PROMOTE,
    EVENT_RUN_END,
    EVENT_TYPE_COUNT
};

/* The stream of the log line with the units that had failed before a host's change, for whoever
 * takes the run up. */
#define STREAM_UNITS_BEFORE "units-before"

struct event_host { /* run_start's hosts */
    char *name;
    uint32_t wave;
    char *address;
};

/* Fields that a type doesn't use are zero. Field names are those of the JSON. */
struct event {
    enum event_type type;
    uint64_t seq;
    int64_t ts_ms; /* wall clock, ms since 1970 */
    char *run;
    char *host;    /* or NULL */
    uint32_t wave; /* or 0 */
    /* run_start */
    char *fleet, *rev, *inventory;
    bool dirty;
    enum run_action action;
    struct event_host *hosts;
    size_t host_count;
    uint32_t wave_count;
    char *policy; /* a JSON object as text */
    char *target; /* a rollback's --to, optional */
    /* beyond the contract, optional: the budget that holds, in hosts, and the healthy time that all
     * hosts share (0: they differ) */
    uint64_t max_failed, healthy_ms;
    /* host_state; `has_from` false: the first one */
    bool has_from;
    enum host_state from, to;
    char *reason, *message; /* also pause, run_end (result) */
    uint64_t duration_ms;   /* spent in `from`; also probe */
    /* beyond the contract, optional: what the host runs and will run */
    char *current, *desired;
    int64_t generation; /* 0 unknown */
    /* build: state "evaluating"|"building"|"built"|"failed"; path, drv; grant: path = the intent */
    char *state, *path, *drv;
    /* derivation: state "waiting"|"building"|"built"|"failed"|"fetching"|"fetched"; drv (or what is
     * fetched); optional: the derivation that needs it, the builder's phase, where it is built. A
     * log line of a build has its drv too. */
    char *parent, *phase, *machine;
    /* change: from `current` to `desired`, as `plan` has them; JSON objects as text */
    char *packages, *closure_bytes;
    /* guard: `phase`, and the time until it goes back by itself; 0: it does not */
    int64_t deadline_ms;
    /* copy */
    uint64_t bytes_done, bytes_total, paths_done, paths_total;
    /* log */
    char *stream, *line;
    /* probe */
    char *name, *detail;
    bool ok;
    /* grant */
    enum act act;
    char *nonce;   /* of the activation */
    char *boot_id; /* reboot: of the boot before it */
    /* run_end */
    char *result;
    int exit;
    uint32_t counts[HOST_STATE_COUNT];
};

/* A zeroed event of the type. */
struct event *event_new(enum event_type type);
void event_free(struct event *event);
const char *event_type_name(enum event_type type);

/* Appends the event as one JSON object and a newline. Strings are cleaned to valid UTF-8. */
void event_format(const struct event *event, struct buf *out);
/* The reverse, for one line (without needing the newline). Unknown fields are ignored; an unknown
 * type, a torn or invalid line is FLEET_ERR_PROTOCOL. */
int event_parse(const char *line, size_t len, struct event **ret, struct error *error);

#endif
