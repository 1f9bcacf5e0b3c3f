/* Garbage collection on a target: which generations may go, and the call that removes them.
 */
#ifndef FLEET_CORE_GC_H
#define FLEET_CORE_GC_H

#include "core/target.h"

struct gc_rules {
    uint32_t keep;          /* the latest so many stay; 0: the number says nothing */
    uint64_t older_than_ms; /* younger ones stay; 0: the age says nothing */
    int64_t now_ms;         /* wall clock */
};

/* What a host has said (target_inspect, target_generations); borrowed. */
struct gc_facts {
    const struct target_reply *generations;
    int64_t generation;           /* the profile's current one; 0: none */
    const char *current, *booted; /* store paths, or "" */
};

/* The numbers of the generations to remove, ascending, in a new array. Without any rule none. With
 * both a generation goes only if both let it. Never the current one, the one below it (what a
 * rollback goes to), nor one of the running or the booted system. */
int64_t *gc_choose(const struct gc_facts *facts, const struct gc_rules *rules, size_t *ret_count);

/* Removes the generations, writes the boot menu again, collects. With `dry` nothing is removed; keys
 * then: paths, bytes (as NARs) of what would go. Otherwise: words (Nix's last line), warning (the
 * menu could not be written). */
void gc_collect(struct shell *shell, const struct target_env *env, const int64_t *numbers,
                size_t count, bool dry, uint64_t timeout_ms, target_done done, void *arg);

/* Bytes and paths out of "12 store paths deleted, 3.50 MiB freed" (KiB to TiB); false for anything
 * else. */
bool gc_read_words(const char *words, uint64_t *ret_paths, uint64_t *ret_bytes);

#endif
