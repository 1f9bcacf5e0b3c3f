/* Policy overrides of one run: `--policy KEY=JSON` and its short forms (CONTRACT, common options).
 */
#ifndef FLEET_CMD_OVERRIDE_H
#define FLEET_CMD_OVERRIDE_H

#include "cmd/option.h"

struct override_set {
    struct inv_override *items; /* for inventory_load */
    size_t count;
};

/* Reads them from the command line, in its order, so that a later one wins. Whether a field exists
 * and may have the value is for inventory_load to say. 0 or FLEET_ERR_USAGE. Release in any case. */
int override_read(const struct args *args, struct override_set *ret, struct error *error);
/* What override_json made; NULL is "{}". 0 or FLEET_ERR_PROTOCOL. Release in any case. */
int override_parse(const char *json, struct override_set *ret, struct error *error);
void override_release(struct override_set *set);
/* As one JSON object, "{}" for none: what run_start records. Caller frees. */
char *override_json(const struct override_set *set);

#endif
