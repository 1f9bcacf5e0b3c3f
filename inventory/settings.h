/* What a host, a tag or `defaults` may say, and the draft of a host that layers are read into, one
 * over the other.
 */
#ifndef FLEET_INVENTORY_SETTINGS_H
#define FLEET_INVENTORY_SETTINGS_H

#include "inventory/field.h"

/* A host while its layers are merged. */
struct draft {
    struct inv_host host;
    uint32_t layer; /* the one that is being read, one bit of enum layer */
    bool system_given;
    bool health_off;
    /* Run and group scope go here, or nowhere where NULL. */
    struct inv_run_policy *run;
    struct inv_group_limit *limit;
    /* Where errors that only the whole inventory shows are told; NULL: not said. */
    const struct json_node *system_node, *jump_node, *builders_node, *cache_node;
    /* The connection settings of `defaults`, which a build host's address form starts from. */
    const struct inv_host *builder_base;
    struct draft *next_spec; /* in the reader's list */
};

extern const struct table settings_table;
extern const struct table system_table;
extern const struct table health_table;
extern const struct table secret_table;
extern const struct table policy_table;
extern const struct field_choice health_types[];

/* What the top of the file may hold; in inventory.c. */
const struct table *inventory_table(void);

/* Keys of `system` that exclude each other; both the loader and the schema use it. */
struct exclusive_pair {
    const char *first, *second;
};
extern const struct exclusive_pair system_exclusive[];
extern const size_t system_exclusive_count;
/* The keys of which a secret has exactly one. */
extern const char *const secret_sources[];
extern const size_t secret_source_count;

/* A host that nothing was said about. */
void settings_start(struct draft *draft);
/* Reads one layer's object over the draft. False, reported, where something is wrong. */
bool settings_read(struct reader *reader, uint32_t layer, const struct json_node *node,
                   struct draft *draft);

/* The readers of single fields, one file a concept (address.c, system.c, health.c, ...). */
field_read_fn settings_read_addresses;
field_read_fn settings_read_builders;
field_read_fn settings_read_host_keys;
field_read_fn settings_read_system;
field_read_fn settings_read_health;
field_read_fn settings_read_secrets;
field_read_fn settings_read_policy;
field_read_fn settings_read_jump;
field_read_fn settings_read_cache;

/* Builds the default probe in front of the draft's own where none is of type systemd. */
void health_add_default(struct reader *reader, struct draft *draft);
/* Fills in what `system` leaves open. `has_flake`: a flake.nix lies beside the inventory. `node` is
 * the host's. False, reported, where there is no system. */
bool system_finish(struct reader *reader, const struct json_node *node, bool has_flake,
                   struct draft *draft);

/* The policy of a run before anything is said. */
void policy_start(struct inv_run_policy *run);

#endif
