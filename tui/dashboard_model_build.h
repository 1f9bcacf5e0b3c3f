/* The parts of the dashboard's memory that are about builds and packages. Private to
 * tui/dashboard_model*.c.
 */
#ifndef FLEET_TUI_DASHBOARD_MODEL_BUILD_H
#define FLEET_TUI_DASHBOARD_MODEL_BUILD_H

#include "tui/dashboard_model.h"

/* Any event; those of builds count. `number` is its host's, or MODEL_NONE. */
void model_apply_build(struct model *model, size_t number, const struct event *event);
void model_release_builds(struct model *model);
/* An EVENT_CHANGE. */
void model_apply_way(struct model *model, const struct event *event);
void model_release_ways(struct model *model);

#endif
