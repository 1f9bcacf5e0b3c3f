/* The text of a script as fleet sends it to a far shell (transport/shell.c, core/target_call.c), and
 * which of core/target/ it is. No state; any thread, once script_init has run.
 */
#ifndef FLEET_TESTS_SCALE_SCRIPT_H
#define FLEET_TESTS_SCALE_SCRIPT_H

#include <stddef.h>

#include "core/base/buf.h"

enum {
    SCRIPT_VARS_MAX = 32,
    SCRIPT_MARKER_SIZE = 64
};

struct script_vars {
    struct {
        char *name, *value;
    } items[SCRIPT_VARS_MAX];
    size_t count;
    const char *body; /* what follows the variables; in the text that was parsed */
};

/* Before any other. */
void script_init(void);
/* The length of the first whole script in `in` and the marker that ends its output; 0: there is
 * none yet. */
size_t script_whole(const struct buf *in, char ret_marker[SCRIPT_MARKER_SIZE]);
/* Freed with script_free. `text` must outlive it. */
void script_parse(const char *text, struct script_vars *ret);
void script_free(struct script_vars *vars);
/* "inspect", "guard_poll"...; a request to the guard by its own name; NULL: not one of ours. */
const char *script_name(const struct script_vars *vars);

#endif
