/* What the way from one system to another changes in packages: for the displays, found out beside
 * the run, once for each pair of systems.
 *
 * Where both lie in this machine's store they are read here, in a thread of libuv's pool. Otherwise
 * a host of the pair tells the closure of what it runs along with its copy (transport/copy.h), or
 * both where nothing is copied (transport/closure_pair.h), and its lane compares. Either way it costs
 * CPU that grows with the closures, so it is done for the first pairs only: a fleet of one kind of
 * host has one pair, and where every host is a system of its own the displays do without (`fleet
 * plan` has them all). Main thread but for change_event_new.
 */
#ifndef FLEET_CORE_CHANGE_H
#define FLEET_CORE_CHANGE_H

#include <uv.h>

#include "core/event.h"
#include "core/plan.h"

struct changes;

/* `on_change` gets an EVENT_CHANGE, which it frees; it fires on the loop. */
struct changes *changes_new(uv_loop_t *loop, void (*on_change)(struct event *event, void *arg),
                            void *arg);
/* A host runs the one and shall run the other. */
void changes_note(struct changes *changes, const char *current, const char *desired);
/* A host that runs the one is about to get the other. True: it should be asked, as this machine
 * can't tell. Of each pair the first few are, in case that one of them fails before it has answered. */
bool changes_ask_host(struct changes *changes, const char *current, const char *desired);
/* A host has answered, by an EVENT_CHANGE: true where it is the first to. */
bool changes_hear(struct changes *changes, const struct event *event);
/* The event that tells it, of two settled lists of store paths. Any thread. */
struct event *change_event_new(const char *current, const char *desired,
                               const struct plan_list *from, const struct plan_list *to);
/* No more callback; frees once the loop has run until its work has ended, which this hurries. */
void changes_close(struct changes *changes);

#endif
