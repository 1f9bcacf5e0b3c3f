/* Text for reports that others read as markup: each character that means something there becomes its
 * reference. Private to tui; text has been cleaned of control characters.
 */
#ifndef FLEET_TUI_MARKUP_H
#define FLEET_TUI_MARKUP_H

#include "core/base/buf.h"

/* For an XML element, or an attribute in double quotes (XML 1.0, 2.2 and 2.4). */
void markup_add_xml(struct buf *out, const char *text);
/* For a cell of a table in GitHub's Markdown: nothing of it is markup, and it stays on its line. */
void markup_add_cell(struct buf *out, const char *text);

#endif
