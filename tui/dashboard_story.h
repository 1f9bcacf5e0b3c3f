/* The run as one person would tell it to another: which events make a line, and its words. Private
 * to tui/dashboard*.c. */
#ifndef FLEET_TUI_DASHBOARD_STORY_H
#define FLEET_TUI_DASHBOARD_STORY_H

#include "tui/dashboard_model.h"

/* Makes room for a line and returns it blank, without host; its texts are the ring's. */
struct model_line *model_ring_add(struct model_ring *ring);

void model_ring_release(struct model_ring *ring);

/* Before the event is folded into the model; `view` is the state after it. */
void story_tell(struct model *model, size_t host, const struct event *event,
                const struct view *view);
/* What the host is called in the line: its name, or "12 hosts" where they share it. */
void story_subject(const struct model_line *line, const struct view *view, struct buf *out);

#endif
