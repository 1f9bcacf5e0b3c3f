/* Running a command as root on the far side: directly, through `sudo -n`, or with a password.
 *
 * A sudo password goes out only after a prompt with a random marker of our own has appeared
 * (FIELD-NOTES: where sudo asks nothing, the command itself would get it). The far side's login
 * shell may be fish, nushell, zsh or csh and may print at start-up: the command announces itself
 * with a second marker on stdout, everything before it is "login noise" and dropped, and writes
 * are held back until it has appeared.
 */
#ifndef FLEET_TRANSPORT_ELEVATE_H
#define FLEET_TRANSPORT_ELEVATE_H

#include <uv.h>

#include "transport/conn.h"

enum elevate_how {
    ELEVATE_NONE,
    ELEVATE_SUDO,
    ELEVATE_SUDO_PASSWORD
};

struct elevation {
    enum elevate_how how;
    const char *password; /* SUDO_PASSWORD; borrowed, wiped by its owner after the run */
};

/* As conn_exec, for a `command` of plain words ([A-Za-z0-9 ._/:=+,@%?-]); the stream is a wrapper
 * with the same rules. The far side's PATH is lengthened by the places where Nix and sudo may be.
 * If the marker doesn't appear within `timeout_ms`, or sudo refuses, the stream ends with
 * end.lost = false, status != 0 and the far side's words in end.error (reason "sudo-refused",
 * "login-noise", "no-shell"). `loop` is the connection's; it carries the deadline. */
struct stream *elevate_exec(uv_loop_t *loop, struct conn *conn, const struct elevation *how,
                            const char *command, uint64_t timeout_ms,
                            const struct stream_handlers *handlers, void *arg);

/* The same for `FILTER | COMMAND`, `filter` being plain words too. Where the filter's program is not
 * there the stream ends with status 127; else one byte comes first, ELEVATE_PIPE_READY. */
#define ELEVATE_PIPE_READY 'z'
struct stream *elevate_pipe(uv_loop_t *loop, struct conn *conn, const struct elevation *how,
                            const char *filter, const char *command, uint64_t timeout_ms,
                            const struct stream_handlers *handlers, void *arg);

/* True once the command of a stream from elevate_exec has announced itself. */
bool elevate_is_ready(const struct stream *stream);

#endif
