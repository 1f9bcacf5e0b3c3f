/* Merging: from the nodes of a parsed inventory to finished hosts.
 */
#ifndef FLEET_INVENTORY_MERGE_H
#define FLEET_INVENTORY_MERGE_H

#include "inventory/field.h"
#include "inventory/name_table.h"

/* One --policy of the command line, parsed. */
struct merge_override {
    const struct field *field;
    const struct json_node *node;
    const char *source; /* "--policy KEY", for messages */
};

struct merge_input {
    const struct json_node *defaults; /* or NULL */
    const struct json_node *tags;     /* or NULL */
    const struct json_node *hosts;    /* or NULL */
    const struct merge_override *overrides;
    size_t override_count;
    bool has_flake; /* a flake.nix lies beside the inventory */
};

/* Fills the inventory's hosts, tags and policy, and `ret_names` with the positions of the hosts.
 * What is wrong goes to the reader's report; the inventory is of use only if that stayed empty. */
void merge(struct reader *reader, const struct merge_input *input, struct inventory *inventory,
           struct name_table *ret_names);

#endif
