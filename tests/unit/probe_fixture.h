/* For the tests of health and its probes: a loop, one host's health on it, servers on 127.0.0.1 and
 * a connection whose tunnels are plain sockets. Everything is closed at the end, and the loop must
 * agree (uv_loop_close() == 0).
 */
#ifndef FLEET_TESTS_UNIT_PROBE_FIXTURE_H
#define FLEET_TESTS_UNIT_PROBE_FIXTURE_H

#include <uv.h>

#include "core/base/buf.h"
#include "healthcheck/health.h"

enum {
    FIXTURE_ENTRIES = 4,
    FIXTURE_NAMES = 4
};

struct fixture {
    uv_loop_t loop;
    struct inv_host host;
    struct inv_health entries[FIXTURE_ENTRIES];
    struct health_env env;
    struct health_plan plan;
    struct health *health;
    struct buf results; /* "web fail counted: connection refused\n" a result */
    size_t passes, failures;
    bool healthy, unhealthy;
    struct error error;
    bool stop_in_result; /* the first result's handler calls health_stop */
    uv_timer_t limit;
    /* What the host says about its units; changed by `script` before each answer. */
    struct health_unit units[4];
    size_t unit_count;
    bool units_silent;
    bool units_fail;
    size_t units_asked;
    void (*script)(struct fixture *fixture);
    int command_status;
    char *command_line;
};

/* One probe of this type, seen once in a short time; the policy is quick. */
void fixture_init(struct fixture *fixture, enum inv_health_type type);
struct inv_health *fixture_add(struct fixture *fixture, enum inv_health_type type,
                               const char *name);
void fixture_start(struct fixture *fixture);
/* Runs the loop until `*until`, or for `ms`. False when the time ran out. */
bool fixture_run(struct fixture *fixture, const bool *until, uint64_t ms);
/* One look at everything; true if healthy. */
bool fixture_round(struct fixture *fixture);
void fixture_end(struct fixture *fixture);

/* A server that answers each connection with the same bytes and closes it. */
struct server {
    uv_tcp_t listener;
    uint16_t port;
    const char *response; /* NULL: accepts and says nothing */
    size_t repeat;        /* sends the response so often; 0: once */
    size_t connections;
    struct buf request; /* of the last connection */
};
void server_start(struct server *server, struct fixture *fixture, const char *response);
void server_stop(struct server *server);
/* A port on 127.0.0.1 that nobody listens on. */
uint16_t closed_port(void);

/* A connection whose tunnels lead to 127.0.0.1, whatever host is asked for. */
struct fake_conn {
    struct conn conn;
    uv_loop_t *loop;
    size_t tunnels;
    char last_host[64];
    bool silent; /* tunnels never open */
};
void fake_conn_init(struct fake_conn *fake, uv_loop_t *loop);

#endif
