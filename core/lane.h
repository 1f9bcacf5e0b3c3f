/* A lane: a thread with one libuv loop that owns its hosts. Nobody else touches them.
 *
 * Coordinator and lane exchange only value messages: lane_* below post into the lane's mailbox,
 * and the lane posts struct lane_report into the coordinator's.
 */
#ifndef FLEET_CORE_LANE_H
#define FLEET_CORE_LANE_H

#include "core/host.h"
#include "core/loop_watch.h"
#include "core/mailbox.h"
#include "core/secret_store.h"
#include "transport/keyring.h"

struct lane;

enum lane_report_kind {
    LANE_EVENT,
    LANE_WANTS,
    LANE_UNHEALTHY_BEFORE,
    LANE_REPROBED,
    LANE_CLOSED
};

/* What a lane tells; the coordinator frees it with lane_report_free. */
struct lane_report {
    struct mail mail;
    enum lane_report_kind kind;
    size_t host;
    struct event *event; /* EVENT; may be taken (set to NULL) */
    enum act act;        /* WANTS */
    char *path, *nonce;  /* WANTS */
    bool ok;             /* REPROBED */
};
void lane_report_free(struct lane_report *report);

struct lane_options {
    struct keyring *keyring;
    struct mailbox *reports;      /* the coordinator's */
    struct secret_store *secrets; /* of the run; stopped before the lanes are */
    /* Makes the transport for the lane's loop; the real one is transport_new. */
    struct transport *(*transport)(uv_loop_t *loop, struct keyring *keyring);
};

/* Starts the thread. */
struct lane *lane_new(const struct lane_options *options);

/* Each posts a message; any number, from the coordinator's thread. Strings are copied. */
void lane_add(struct lane *lane, const struct host_plan *plan); /* and begins */
void lane_desired(struct lane *lane, size_t host, const char *path,
                  const struct host_source *source);
void lane_end(struct lane *lane, size_t host, enum host_state state, const struct error *error);
void lane_grant(struct lane *lane, size_t host, enum act act);
void lane_compare(struct lane *lane, size_t host); /* host_compare */
void lane_leave(struct lane *lane, size_t host);
void lane_take_back(struct lane *lane, size_t host, const struct error *why);
void lane_reprobe(struct lane *lane, size_t host);
void lane_release(struct lane *lane, size_t host);

/* When all its hosts have reported LANE_CLOSED: ends the thread, waits for it and frees. Returns
 * how long its loop was away. */
struct loop_turns lane_stop(struct lane *lane);

#endif
