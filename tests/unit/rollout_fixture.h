/* Inventories and policies made up for the tests of core/rollout.
 */
#ifndef FLEET_TESTS_ROLLOUT_FIXTURE_H
#define FLEET_TESTS_ROLLOUT_FIXTURE_H

#include "core/rollout.h"

#define FIXTURE_WAVES_MAX  8
#define FIXTURE_LIMITS_MAX 4

struct fixture {
    struct inv_host *hosts; /* "h0", "h1", ...; rollback allowed, one tag at most */
    const struct inv_host **pointers;
    size_t count;
    struct inv_wave waves[FIXTURE_WAVES_MAX];
    struct inv_group_limit limits[FIXTURE_LIMITS_MAX];
    struct inv_run_policy policy; /* one wave, everything else as by default */
    enum run_action action;
    uint64_t seed;
};

struct fixture *fixture_new(size_t count);
void fixture_free(struct fixture *fixture);
/* `tag` must outlive the fixture; a host has one. */
void fixture_tag(struct fixture *fixture, size_t host, const char *tag);
void fixture_add_wave(struct fixture *fixture, uint32_t value, bool percent);
void fixture_add_tag_wave(struct fixture *fixture, const char *tag);
/* `tag` NULL: all hosts. */
void fixture_limit(struct fixture *fixture, const char *tag, uint32_t max_parallel);
struct rollout *fixture_rollout(const struct fixture *fixture);

#endif
