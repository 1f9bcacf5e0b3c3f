/* The state of a run as its events tell it: what every display, `show` and `resume` fold the stream into.
 *
 * view_apply is the only way in; a view from a journal equals the view of the live run. Used by
 * one thread.
 */
#ifndef FLEET_CORE_VIEW_H
#define FLEET_CORE_VIEW_H

#include "core/event.h"

struct view_host {
    char *name;
    char *address;
    uint32_t wave;
    enum host_state state;
    bool seen;                             /* any host_state yet */
    int64_t since_ms;                      /* wall clock of the last move */
    int64_t state_at_ms[HOST_STATE_COUNT]; /* first entered, 0: never */
    char *reason, *message;                /* of the last move */
    char *verdict;                         /* the message with which it began to go back, or NULL */
    char *current, *desired;
    char *first_current;      /* what it ran before the change */
    char *built;              /* the path of its finished build, or NULL */
    char *granted_path;       /* of the last activate grant, or NULL */
    int64_t generation;       /* the profile's, as last said; 0 unknown */
    int64_t first_generation; /* as first said: before the change */
    uint64_t bytes_done, bytes_total, paths_done, paths_total;
    char *last_probe;    /* name: detail of the last failed probe, or of the last */
    bool probe_failed;   /* last_probe failed */
    char *failed_before; /* probes that failed before its change, "web, units"; or NULL */
    bool granted[ACT_COUNT];
    char *nonce;        /* of the last activate grant */
    char *boot_id;      /* of the reboot grant that came after it: the boot before; or NULL */
    char *units_before; /* that had failed before its change, "a.service b.service"; or NULL */
    bool verdict_rollback;
};

struct view {
    char *run, *fleet, *rev, *inventory, *policy, *target;
    bool dirty;
    enum run_action action;
    int64_t started_ms, ended_ms; /* wall; ended 0: not yet */
    uint64_t max_failed;          /* hosts; more end the run */
    int64_t healthy_ms;           /* that all hosts must be; 0: it differs */
    struct view_host *hosts; /* moves when a host is added: don't keep pointers over view_apply */
    size_t host_count;
    uint32_t wave, wave_count;
    uint32_t waves_ended; /* the last wave whose end was told */
    char *paused;         /* reason, or NULL */
    bool ended;
    char *result;
    int exit;
    uint64_t last_seq;
    /* private */
    size_t host_cap;
    size_t counts[HOST_STATE_COUNT];
    struct name_index *index;
};

struct view *view_new(void);
void view_apply(struct view *view, const struct event *event);
/* The host of that name, or NULL. */
struct view_host *view_host(const struct view *view, const char *name);
/* Nothing has been done to it yet: what fails is no work of this run. */
bool view_host_is_before(const struct view_host *host);
size_t view_count(const struct view *view, enum host_state state);
void view_free(struct view *view);

#endif
