/* The bytes under an SSH session: a TCP socket, or a tunnel through a jump host's session.
 *
 * Sending always takes everything: what the socket doesn't take is kept and sent when it can be.
 * libssh2 therefore never sees a partial send. That matters: in 1.11.1 a partly sent packet blocks
 * every other sender until the same call is repeated with the same addresses, and a keepalive or
 * an EOF lives on the stack, so its call can't be repeated. The writer looks at ssh_link_backlog
 * instead and waits.
 *
 * Receiving has a budget a turn, so that one fast host can't keep the loop from the others.
 */
#ifndef FLEET_TRANSPORT_SSH_LINK_H
#define FLEET_TRANSPORT_SSH_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#include "transport/conn.h"
#include "transport/transport.h"

struct ssh_link;

struct ssh_link_handlers {
    /* Bytes may flow. */
    void (*on_connected)(void *arg);
    /* It could not be connected (reasons connection-refused, no-route, name-not-found,
     * connect-timeout ...). */
    void (*on_failed)(const struct error *error, void *arg);
    /* Bytes have come, the backlog has gone, or the far side has closed. */
    void (*on_io)(void *arg);
};

/* Resolves and connects within `timeout_ms`; every address of a name is tried. */
struct ssh_link *ssh_link_tcp(uv_loop_t *loop, const struct conn_address *address,
                              uint64_t timeout_ms, const struct ssh_link_handlers *handlers,
                              void *arg);
/* Through an established connection; `timeout_ms` is the caller's to watch. */
struct ssh_link *ssh_link_tunnel(uv_loop_t *loop, struct conn *jump,
                                 const struct conn_address *address,
                                 const struct ssh_link_handlers *handlers, void *arg);

/* Starts a turn: the budget is full again. */
void ssh_link_turn(struct ssh_link *link);
/* As recv(2) and send(2), with -errno. What is sent leaves by the end of the turn (ssh_link_want). ssh_link_recv answers -EAGAIN when nothing is there or the
 * turn's budget is used up, 0 at the end. */
ssize_t ssh_link_recv(struct ssh_link *link, void *data, size_t len);
ssize_t ssh_link_send(struct ssh_link *link, const void *data, size_t len);
/* True when ssh_link_recv had to stop for its budget: another turn is needed. */
bool ssh_link_over_budget(const struct ssh_link *link);
/* Bytes taken by ssh_link_send that the socket did not take yet. */
size_t ssh_link_backlog(const struct ssh_link *link);
/* Any descriptor that is non-blocking: libssh2 wants to see one. */
int ssh_link_fd(const struct ssh_link *link);
/* Why a tunnel could not be opened or was lost; NULL where there is nothing to say. */
const struct error *ssh_link_error(const struct ssh_link *link);
/* Says whether bytes are wanted, and arms the socket's handle. */
void ssh_link_want(struct ssh_link *link, bool want_read);
/* No callback follows; frees itself. */
void ssh_link_close(struct ssh_link *link);

#endif
