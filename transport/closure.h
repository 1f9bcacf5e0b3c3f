/* Closures: what a store path needs, as the Nix serve protocol tells it (NIX-PROTOCOL 2.4).
 */
#ifndef FLEET_TRANSPORT_CLOSURE_H
#define FLEET_TRANSPORT_CLOSURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

struct path_info {
    const char *path;    /* "/nix/store/<hash>-<name>" */
    const char *deriver; /* "" where unknown */
    char nar_hash[65];   /* SHA-256 of the NAR, lower-case hex */
    uint64_t nar_size;   /* bytes */
    const char *const *refs;
    size_t ref_count; /* self-reference included */
    const char *const *sigs;
    size_t sig_count;
    const char *ca; /* "" where not content-addressed */
};

/* Immutable; owned by the copier that asked for it. Paths stand in topological order, references
 * first. Closures of one copier share the infos of the paths that they share: 1000 hosts of their
 * own systems hold a pointer a path, not a copy. */
struct closure {
    const char *top;
    const struct path_info *const *paths;
    size_t count;
    uint64_t nar_size; /* of all */
};

/* True if `text` is "/nix/store/", 32 characters of Nix's alphabet, "-", and a name of
 * [0-9a-zA-Z+._?=-] of at most 211 characters, and nothing more. */
bool store_path_is_valid(const char *text);

#endif
