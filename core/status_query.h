/* One look at one host over a connection that stands: what it says of itself, judged (core/status.h),
 * and where that is wanted one round of its probes. Changes nothing there.
 *
 * `fleet status` asks each host once (core/fan.h), the dashboard of the fleet at rest again and again
 * (core/survey.h). The loop's thread only.
 */
#ifndef FLEET_CORE_STATUS_QUERY_H
#define FLEET_CORE_STATUS_QUERY_H

#include <uv.h>

#include "core/status.h"
#include "transport/elevate.h"

struct status_probe {
    char *name, *detail; /* cleaned */
    bool ok;
    uint64_t duration_ms;
};

struct status_answer {
    const struct target_reply *reply; /* of target_inspect */
    struct status status;
    const struct status_probe *probes; /* in the inventory's order, as far as they were asked */
    size_t probe_count;
    bool healthy; /* no probe failed */
};

/* Once. `answer` is NULL where `error` is not: the host could not be asked. Both are valid during
 * the call, in which the query may be stopped. */
typedef void (*status_query_done)(const struct status_answer *answer, const struct error *error,
                                  void *arg);

struct status_question {
    uv_loop_t *loop;
    struct conn *conn; /* ready; outlives the query, as the shell does */
    struct shell *shell;
    const struct elevation *elevation;
    const struct inv_host *inv;
    const char *address; /* that answered; copied */
    const char *desired; /* see status_read; borrowed until the answer */
    bool probe;          /* run its probes, too */
};

struct status_query;
struct status_query *status_query_start(const struct status_question *question,
                                        status_query_done done, void *arg);
/* No callback follows. Due in any case, after the answer as well; NULL is allowed. False: something
 * of it is still under way in the shell, which its owner closes before the loop turns. */
bool status_query_stop(struct status_query *query);

#endif
