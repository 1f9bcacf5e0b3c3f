/* Selection: which hosts a command line means (CONTRACT, common options).
 *
 * Selectors add up, --tag and --on narrow, --exclude takes away. Host globs are fnmatch(3).
 */
#ifndef FLEET_INVENTORY_SELECT_H
#define FLEET_INVENTORY_SELECT_H

#include "inventory/inventory.h"

struct selection_args {
    struct inv_strings selectors; /* @tag, @all, glob */
    struct inv_strings tags;      /* each a tag expression: a,b or; a+b and; !a not */
    struct inv_strings on;        /* each: comma separated glob | @tag | !glob | !@tag */
    struct inv_strings exclude;   /* as `on` */
};

/* Hosts in the inventory's order. 0 with *ret (an array of pointers into the inventory that the
 * caller frees with free()) and *ret_count; an empty result is fine only for an empty inventory.
 * FLEET_ERR_USAGE when a selector or tag matches nothing, with the nearest name, or when narrowing
 * leaves no host, with the words that did it. */
int selection_resolve(const struct inventory *inventory, const struct selection_args *args,
                      const struct inv_host ***ret, size_t *ret_count, struct error *error);

#endif
