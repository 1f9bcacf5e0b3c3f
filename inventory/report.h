/* Collects everything that is wrong with an inventory, and sorts it into struct inv_errors.
 *
 * Settings of `defaults` and tags are read once for themselves and again for hosts, so the same
 * fault may be told more than once: what is told at the same place in the same words counts once.
 */
#ifndef FLEET_INVENTORY_REPORT_H
#define FLEET_INVENTORY_REPORT_H

#include <stdbool.h>

#include "inventory/inventory.h"
#include "inventory/json_doc.h"

struct report;

/* More errors than this are counted, not told. */
#define REPORT_MAX 1000

struct report *report_new(void);
void report_free(struct report *report);
bool report_is_empty(const struct report *report);

/* Notes an error at a node's value, or at its key. The text is cleaned. */
void report_value(struct report *report, const struct json_node *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void report_key(struct report *report, const struct json_node *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Notes a fault of the text itself; `node` may be NULL. */
void report_fault(struct report *report, size_t offset, const struct json_node *node,
                  const char *message);
/* Text that isn't in the file, such as "--policy waves", stands for the file in what is told from
 * now on; NULL: the file again. Such errors have line 0. */
void report_source(struct report *report, const char *source);

/* Fills *ret with everything told, in the file's order; `text` is the file's. */
void report_finish(struct report *report, const char *text, size_t len, struct inv_errors *ret);

#endif
