/* JUnit: a suite a wave, a case a host, as CI systems show it (the format of Jenkins' plugin, which
 * the others read too).
 */
#ifndef FLEET_TUI_JUNIT_H
#define FLEET_TUI_JUNIT_H

#include "core/view.h"

/* Appends the run as an XML document. A host that failed is a failure; one whose state is not known
 * for sure, or that was not reached, an error. */
void junit_write(const struct view *view, struct buf *out);

#endif
