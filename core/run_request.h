/* What a person asks of a run while it goes on: values from a display to the coordinator, which
 * journals each one before it acts on it. What it refuses it says in a log event of the stream
 * "fleet", without a host: one sentence that begins with the host's name. Main thread.
 */
#ifndef FLEET_CORE_RUN_REQUEST_H
#define FLEET_CORE_RUN_REQUEST_H

enum run_request_kind {
    RUN_REQUEST_PAUSE,     /* activate no more hosts until RUN_REQUEST_PROMOTE */
    RUN_REQUEST_PROMOTE,   /* go on, whatever it waits for */
    RUN_REQUEST_DRAIN,     /* start no more hosts, finish those under way; as the first Ctrl-C */
    RUN_REQUEST_ABORT,     /* leave now, with the guards armed; as the second Ctrl-C */
    RUN_REQUEST_TAKE_BACK, /* `host` goes back to what it ran, or all hosts do */
    RUN_REQUEST_SKIP,      /* `host` is not started */
    RUN_REQUEST_RETRY, /* `host`, which has failed, gone back, not been reached or been skipped, is
                            * tried again; or all such hosts are */
    RUN_REQUEST_COUNT
};

struct run_request {
    enum run_request_kind kind;
    const char *host; /* NULL: all */
};

#endif
