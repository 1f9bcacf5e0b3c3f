/* Who is in which wave and in which groups (CONTRACT, policy: waves, order, max_parallel). */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "core/name_index.h"
#include "core/rollout_parts.h"

#define DEFAULT_MAX_PARALLEL  10
#define DEFAULT_COPY_PARALLEL 64

/* SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014). */
static uint64_t next_random(uint64_t *state) {
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* The hosts in the order of the rollout. */
static size_t *make_order(const struct rollout *rollout) {
    size_t *order = xcalloc(rollout->count + 1, sizeof(*order));
    size_t at = 0;
    bool sick_first = rollout->policy->order == INV_ORDER_UNHEALTHY_FIRST;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < rollout->count; i++) {
            bool first = sick_first && rollout->members[i].unhealthy;
            if (first == (pass == 0)) {
                order[at++] = i;
            }
        }
    }
    uint64_t state = rollout->seed;
    for (size_t i = rollout->count; rollout->policy->order == INV_ORDER_SHUFFLE && i > 1; i--) {
        size_t other = (size_t)(next_random(&state) % i);
        size_t swapped = order[i - 1];
        order[i - 1] = order[other];
        order[other] = swapped;
    }
    return order;
}

size_t rollout_amount(struct inv_amount amount, size_t count, bool round_up) {
    if (!amount.percent) {
        return amount.value;
    }
    return (count * amount.value + (round_up ? 99 : 0)) / 100;
}

/* Puts the hosts of one wave of the policy into the wave `number`; how many. */
static size_t fill_wave(struct rollout *rollout, const struct inv_wave *wave, uint32_t number,
                        const size_t *order, size_t assigned) {
    size_t target = rollout_amount(wave->size, rollout->count, true);
    size_t size = 0;
    for (size_t i = 0; i < rollout->count; i++) {
        struct member *member = &rollout->members[order[i]];
        bool belongs = wave->tag != NULL ? inv_host_has_tag(member->host, wave->tag)
                                         : assigned + size < target;
        if (wave->tag == NULL && !belongs) {
            break;
        }
        if (member->wave == 0 && belongs) {
            member->wave = number;
            rollout->by_wave[assigned + size++] = order[i];
        }
    }
    return size;
}

/* The waves of a run that is resumed, as they were. */
static void assign_recorded(struct rollout *rollout, const size_t *order) {
    size_t assigned = 0;
    while (assigned < rollout->count) {
        size_t number = ++rollout->wave_count;
        size_t first = assigned;
        for (size_t i = 0; i < rollout->count; i++) {
            if (rollout->recorded[order[i]] == number) {
                rollout->members[order[i]].wave = (uint32_t)number;
                rollout->by_wave[assigned++] = order[i];
            }
        }
        assert(assigned > first);
        rollout->waves[number] = (struct wave){.first = first, .size = assigned - first};
    }
}

void rollout_assign_waves(struct rollout *rollout) {
    static const struct inv_wave whole = {.size = {.percent = true, .value = 100}};
    /* An action without an effect, or without a proof to wait for, knows no canaries. */
    bool single = rollout->action == ACTION_PUSH || rollout->action == ACTION_BUILD ||
                  rollout->action == ACTION_DRY_ACTIVATE;
    size_t written = single ? 0 : rollout->policy->wave_count;
    AUTO_FREE size_t *order = make_order(rollout);
    for (size_t i = 0; i < rollout->count; i++) {
        rollout->members[order[i]].position = i;
        rollout->members[i].wave = 0;
    }
    free(rollout->waves);
    rollout->wave_count = 0;
    if (rollout->recorded != NULL) {
        rollout->waves = xcalloc(rollout->count + 2, sizeof(*rollout->waves));
        assign_recorded(rollout, order);
        return;
    }
    rollout->waves = xcalloc(written + 2, sizeof(*rollout->waves));
    size_t assigned = 0;
    for (size_t i = 0; i <= written && assigned < rollout->count; i++) {
        const struct inv_wave *wave = i < written ? &rollout->policy->waves[i] : &whole;
        size_t number = rollout->wave_count + 1;
        size_t size = fill_wave(rollout, wave, (uint32_t)number, order, assigned);
        if (size > 0) {
            rollout->waves[number] = (struct wave){.first = assigned, .size = size};
            rollout->wave_count = number;
            assigned += size;
        }
    }
}

/* The limit over all hosts, or `missing` where the policy doesn't give one. */
static size_t overall_limit(const struct inv_run_policy *policy, bool copy, size_t missing) {
    size_t limit = missing;
    for (size_t i = 0; i < policy->limit_count; i++) {
        const struct inv_group_limit *given = &policy->limits[i];
        if (given->tag == NULL && copy && given->has_copy_parallel) {
            limit = given->copy_parallel;
        } else if (given->tag == NULL && !copy && given->has_max_parallel) {
            limit = given->max_parallel;
        }
    }
    return limit > 0 ? limit : 1;
}

static size_t default_max_parallel(size_t hosts) {
    size_t third = hosts / 3;
    size_t limit = third < DEFAULT_MAX_PARALLEL ? third : DEFAULT_MAX_PARALLEL;
    return limit > 0 ? limit : 1;
}

static size_t add_group(struct rollout *rollout, size_t limit) {
    rollout->groups =
        xrealloc(rollout->groups, (rollout->group_count + 1) * sizeof(*rollout->groups));
    rollout->groups[rollout->group_count++] = (struct rollout_group){.held = NO_HOST};
    return slots_add_group(rollout->activation, limit > 0 ? limit : 1);
}

static void join_group(struct rollout *rollout, size_t host, size_t number) {
    struct rollout_group *group = &rollout->groups[number];
    size_t count = group->member_count;
    /* Room doubles, at each power of two. */
    if ((count & (count - 1)) == 0) {
        size_t room = count > 0 ? count * 2 : 1;
        group->members = xrealloc(group->members, room * sizeof(*group->members));
    }
    group->members[group->member_count++] = host;
    group->up++;
    slots_join(rollout->activation, host, number);
}

static void make_tag_groups(struct rollout *rollout, const struct inv_group_limit *limit) {
    size_t activation = limit->has_max_parallel ? add_group(rollout, limit->max_parallel) : 0;
    size_t copy = 0;
    if (limit->has_copy_parallel) {
        size_t allowed = limit->copy_parallel > 0 ? limit->copy_parallel : 1;
        copy = slots_add_group(rollout->copy, allowed);
    }
    for (size_t i = 0; i < rollout->count; i++) {
        if (!inv_host_has_tag(rollout->members[i].host, limit->tag)) {
            continue;
        }
        if (limit->has_max_parallel) {
            join_group(rollout, i, activation);
        }
        if (limit->has_copy_parallel) {
            slots_join(rollout->copy, i, copy);
        }
    }
}

static void make_exclusive_groups(struct rollout *rollout) {
    struct name_index *index = name_index_new();
    for (size_t i = 0; i < rollout->count; i++) {
        const char *name = rollout->members[i].host->policy.exclusive;
        if (name == NULL) {
            continue;
        }
        size_t number = name_index_find(index, name);
        if (number == NAME_INDEX_NONE) {
            number = add_group(rollout, 1);
            name_index_add(index, name, number);
        }
        join_group(rollout, i, number);
    }
    name_index_free(index);
}

void rollout_make_groups(struct rollout *rollout) {
    const struct inv_run_policy *policy = rollout->policy;
    size_t parallel = overall_limit(policy, false, default_max_parallel(rollout->count));
    rollout->activation = slots_new(rollout->count, parallel);
    rollout->copy = slots_new(rollout->count, overall_limit(policy, true, DEFAULT_COPY_PARALLEL));
    for (size_t i = 0; i < policy->limit_count; i++) {
        if (policy->limits[i].tag != NULL) {
            make_tag_groups(rollout, &policy->limits[i]);
        }
    }
    make_exclusive_groups(rollout);
}

/* Serves its group as far as is known. What could not be asked is not held against it here: a
 * host that was never reached may be switched off for good. */
static bool is_up(const struct member *member) {
    if (member->state == HOST_HEALTHY) {
        return true;
    }
    bool lost = member->state == HOST_UNKNOWN || member->state == HOST_ROLLBACK_FAILED ||
                (member->state == HOST_FAILED && member->touched);
    return !lost && !member->unhealthy;
}

/* Whoever waited because it was the last healthy one is looked at again. */
static void wake_held(struct rollout *rollout, struct rollout_group *group) {
    size_t held = group->held;
    if (held != NO_HOST) {
        group->held = NO_HOST;
        if (rollout->members[held].asked) {
            slots_push(rollout->activation, held, rollout_rank(rollout, held), false);
        }
    }
}

void rollout_update_up(struct rollout *rollout, size_t host) {
    struct member *member = &rollout->members[host];
    bool up = is_up(member);
    size_t count = 0;
    const size_t *groups = slots_groups(rollout->activation, host, &count);
    for (size_t i = 0; i < count; i++) {
        struct rollout_group *group = &rollout->groups[groups[i]];
        group->up += up && !member->up;
        group->up -= !up && member->up;
        wake_held(rollout, group);
    }
    member->up = up;
}

/* True where another member of the group, now or earlier in turn, may still come up. */
static bool another_may_come_up(const struct rollout *rollout, const struct rollout_group *group,
                                size_t host) {
    for (size_t i = 0; i < group->member_count; i++) {
        const struct member *other = &rollout->members[group->members[i]];
        if (group->members[i] != host && !other->ended && other->wave <= rollout->wave) {
            return true;
        }
    }
    return false;
}

enum last_healthy rollout_last_healthy(struct rollout *rollout, size_t host) {
    size_t count = 0;
    const size_t *groups = slots_groups(rollout->activation, host, &count);
    for (size_t i = 0; i < count && rollout->members[host].up; i++) {
        struct rollout_group *group = &rollout->groups[groups[i]];
        if (group->member_count > 1 && group->up == 1) {
            if (!another_may_come_up(rollout, group, host)) {
                return LAST_HEALTHY_FOR_GOOD;
            }
            group->held = host;
            return LAST_HEALTHY_HELD;
        }
    }
    return LAST_HEALTHY_NO;
}
