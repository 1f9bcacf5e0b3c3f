/* The closures of two paths, as the target that has both tells them: where nothing is copied to it,
 * so that no copy can ask along (copy.h, on_before).
 *
 * One `nix-store --serve` on a channel of its own and two questions in one write, beside whatever
 * else the connection carries: nothing waits for the answers. Loop thread only.
 */
#ifndef FLEET_TRANSPORT_CLOSURE_PAIR_H
#define FLEET_TRANSPORT_CLOSURE_PAIR_H

#include <uv.h>

#include "transport/conn.h"
#include "transport/elevate.h"

struct closure_pair;

struct closure_pair_paths {
    char *const *paths;
    size_t count;
};

/* `done` fires at most once, never before this returns: not where the target has no answer (it lacks a
 * path, its nix-store fails, half a minute is over). What it is given lives during the call only.
 * `command` is plain words; `from` and `to` are valid store paths. */
struct closure_pair *closure_pair_ask(uv_loop_t *loop, struct conn *conn,
                                      const struct elevation *elevation, const char *command,
                                      const char *from, const char *to,
                                      void (*done)(const struct closure_pair_paths *from,
                                                   const struct closure_pair_paths *to, void *arg),
                                      void *arg);
/* At any time, from within `done` too, and before the connection is closed. */
void closure_pair_close(struct closure_pair *pair);

#endif
