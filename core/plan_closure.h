/* Closures of systems, read over Nix's serve protocol: from this machine's store or a build host's.
 *
 * One serve process a store for all systems; nothing is copied. Loop thread only.
 */
#ifndef FLEET_CORE_PLAN_CLOSURE_H
#define FLEET_CORE_PLAN_CLOSURE_H

#include <uv.h>

#include "core/plan.h"
#include "transport/transport.h"

struct plan_closures;

struct plan_closures *plan_closures_new(uv_loop_t *loop, struct transport *transport);
/* Asks for the closure of `path`; `ret` is filled later, or stays unknown where the store can't be
 * read or lacks the path. `remote` NULL: this machine's store, `command` is then not read. `ret`
 * lives until `on_done`; `path` is copied. */
void plan_closures_ask(struct plan_closures *closures, const struct conn_spec *remote,
                       const char *command, const char *path, struct plan_closure *ret);
/* Begins, after the last question; `on_done` when all are answered or given up (at most 2 min),
 * never before this returns. */
void plan_closures_run(struct plan_closures *closures, void (*on_done)(void *arg), void *arg);
/* After on_done; the loop has to run on until its handles have closed. */
void plan_closures_free(struct plan_closures *closures);

#endif
