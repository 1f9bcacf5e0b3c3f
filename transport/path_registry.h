/* Every store path that a copier has met, once, in one order that suits all closures.
 *
 * A path's index grows with the order of addition, and a path is added after all that it refers
 * to; so ascending indices are a topological order of any union of closures, and "what a host
 * lacks" is a set of bits. Lives on one thread.
 */
#ifndef FLEET_TRANSPORT_PATH_REGISTRY_H
#define FLEET_TRANSPORT_PATH_REGISTRY_H

#include "core/base/error.h"
#include "transport/closure.h"

struct path_registry;

#define PATH_UNKNOWN UINT32_MAX

struct path_registry *path_registry_new(void);
/* Frees all infos and closures with it. */
void path_registry_free(struct path_registry *registry);

/* The index of a path that has its place in the order, or PATH_UNKNOWN. */
uint32_t path_registry_find(const struct path_registry *registry, const char *path);
const struct path_info *path_registry_info(const struct path_registry *registry, uint32_t index);
uint32_t path_registry_count(const struct path_registry *registry);

/* Takes over an info (one allocation, see serve_take_info). It has no index before it is part of a
 * closure. One that is known already is dropped. */
void path_registry_add(struct path_registry *registry, struct path_info *info);

/* The closure of `top`, or NULL if it was not made. */
const struct closure *path_registry_closure(const struct path_registry *registry, const char *top);
/* The indices of a closure's paths, in the same order: ascending. */
const uint32_t *path_registry_indices(const struct closure *closure);
/* Makes it: `paths` are all of it, `top` included, and their infos have been added. Returns 0, or
 * FLEET_ERR_PROTOCOL where an info or a reference is missing or references run in a circle. */
int path_registry_make(struct path_registry *registry, const char *top, char *const *paths,
                       size_t count, const struct closure **ret_closure, struct error *error);

#endif
