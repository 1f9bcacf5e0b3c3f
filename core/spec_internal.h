/* The end points of a set of specs. Private to core/spec*.c.
 */
#ifndef FLEET_CORE_SPEC_INTERNAL_H
#define FLEET_CORE_SPEC_INTERNAL_H

#include "core/spec.h"
#include "inventory/arena.h"

#define SPEC_JUMPS_MAX 8

struct spec_node {
    struct conn_spec spec;
    const struct inv_host *inv; /* NULL: a jump that the inventory doesn't know */
    const char *jump_text;      /* then: "a,b", the whole way */
    const char *user, *host;    /* then: as the last part of it says; user may be NULL */
    uint16_t port;              /* then: 0 where it says nothing */
    const struct inv_host *by;  /* then: the host whose "jump" names it; NULL: ssh_config does */
    bool ask;                   /* host_key_check: ask */
    bool builds;                /* some host is built there */
    size_t first_config;        /* of this round's answers */
};

struct spec_password {
    struct spec_password *next;
    const struct inv_host *owner; /* whose password_command it was */
    char *text;
};

struct spec_set {
    const struct inventory *inventory;
    struct inv_arena *arena;
    struct spec_node **nodes;
    size_t count;
    struct spec_node **by_index; /* of the inventory's own hosts */
    const char **key_files;
    size_t key_file_count;
    const char *agent;
    struct spec_password *passwords;
};

#endif
