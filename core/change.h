/* What the way from one system to another changes in packages: for the displays, found out beside
 * the run, once for each pair of systems, where both lie in this machine's store.
 *
 * Reading a closure costs CPU that grows with it, so it is done in a thread of libuv's pool and for
 * the first pairs only: a fleet of one kind of host has one pair, and where every host is a system
 * of its own the displays do without (`fleet plan` has them all). Main thread.
 */
#ifndef FLEET_CORE_CHANGE_H
#define FLEET_CORE_CHANGE_H

#include <uv.h>

#include "core/event.h"

struct changes;

/* `on_change` gets an EVENT_CHANGE, which it frees; it fires on the loop. */
struct changes *changes_new(uv_loop_t *loop, void (*on_change)(struct event *event, void *arg),
                            void *arg);
/* A host runs the one and shall run the other. */
void changes_note(struct changes *changes, const char *current, const char *desired);
/* No more callback; frees once the loop has run until its work has ended, which this hurries. */
void changes_close(struct changes *changes);

#endif
