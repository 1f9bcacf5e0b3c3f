/* The JSON Schema of the inventory (draft-07), generated from the same tables that the loader
 * reads by.
 */
#ifndef FLEET_INVENTORY_SCHEMA_H
#define FLEET_INVENTORY_SCHEMA_H

#include "core/base/buf.h"

/* Appends the schema as it stands in fleet.schema.json. */
void inventory_schema(struct buf *out);

#endif
