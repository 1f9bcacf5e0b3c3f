/* What stays when a run is over: one line that says how it went, what failed first, what to do next.
 */
#ifndef FLEET_TUI_SUMMARY_H
#define FLEET_TUI_SUMMARY_H

#include "tui/output.h"

/* Appends the summary of the run as it stands. A run that was interrupted gets every host's state
 * and the line to go on with. */
void summary_write(const struct view *view, const struct output_options *options, struct buf *out);
/* The command that goes on from here, in a few words: a run that waits or was interrupted is taken up,
 * what failed is tried again once it is fixed, by name where that fits into `room` columns. False,
 * and nothing appended, where all is well. */
bool summary_next(const struct view *view, size_t room, struct buf *out);

#endif
