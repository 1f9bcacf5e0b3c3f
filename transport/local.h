/* The local carrier: commands as processes of this machine, tunnels as plain TCP sockets.
 *
 * Each command runs as `/bin/sh -c COMMAND` in a session of its own, with pipes. Closing a stream
 * ends its whole process group: SIGTERM, and SIGKILL two seconds later.
 */
#ifndef FLEET_TRANSPORT_LOCAL_H
#define FLEET_TRANSPORT_LOCAL_H

#include <uv.h>

#include "transport/conn.h"
#include "transport/transport.h"

/* Ready in the loop's next turn, with the address "". */
struct conn *local_open(uv_loop_t *loop, const struct conn_spec *spec,
                        const struct conn_handlers *handlers, void *arg);

#endif
