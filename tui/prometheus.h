/* A run's result for Prometheus, as node_exporter's textfile collector reads it.
 * https://prometheus.io/docs/instrumenting/exposition_formats/
 */
#ifndef FLEET_TUI_PROMETHEUS_H
#define FLEET_TUI_PROMETHEUS_H

#include "core/view.h"

/* Appends gauges: the hosts by state, each host's own state, the run's exit code, beginning and end. */
void prometheus_write(const struct view *view, struct buf *out);

#endif
