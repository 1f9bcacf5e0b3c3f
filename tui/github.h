/* What GitHub Actions shows of a run: annotations and the step's summary.
 * https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
 */
#ifndef FLEET_TUI_GITHUB_H
#define FLEET_TUI_GITHUB_H

#include "core/view.h"

/* Appends ::error lines, one a host that needs a person; GitHub shows ten a step, so that from the
 * tenth on all the others share one. */
void github_write_annotations(const struct view *view, struct buf *out);
/* Appends the run as Markdown for $GITHUB_STEP_SUMMARY, under 900 KiB (it takes 1 MiB a step). */
void github_write_summary(const struct view *view, struct buf *out);

#endif
