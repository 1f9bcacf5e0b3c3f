#include "rollout_fixture.h"

#include <stdlib.h>

#include "core/base/xalloc.h"

struct fixture *fixture_new(size_t count) {
    struct fixture *fixture = xcalloc(1, sizeof(*fixture));
    fixture->hosts = xcalloc(count + 1, sizeof(*fixture->hosts));
    fixture->pointers = xcalloc(count + 1, sizeof(struct inv_host *));
    fixture->count = count;
    for (size_t i = 0; i < count; i++) {
        fixture->hosts[i] =
            (struct inv_host){.index = i, .name = xasprintf("h%zu", i), .policy.rollback = true};
        fixture->pointers[i] = &fixture->hosts[i];
    }
    fixture->policy.waves = fixture->waves;
    fixture->policy.limits = fixture->limits;
    fixture->policy.prestage = INV_PRESTAGE_WAVE;
    fixture->policy.order = INV_ORDER_UNHEALTHY_FIRST;
    fixture->policy.on_failure = INV_ON_FAILURE_ROLLBACK_HOST;
    return fixture;
}

/* The tags are arrays of one, made by fixture_tag. */
static void free_unread(const void *memory) {
    union {
        const void *in;
        void *out;
    } cast = {.in = memory};
    free(cast.out);
}

void fixture_free(struct fixture *fixture) {
    for (size_t i = 0; i < fixture->count; i++) {
        free_unread(fixture->hosts[i].name);
        free_unread(fixture->hosts[i].tags.items);
    }
    free(fixture->hosts);
    free(fixture->pointers);
    free(fixture);
}

void fixture_tag(struct fixture *fixture, size_t host, const char *tag) {
    const char **items = xcalloc(1, sizeof(*items));
    items[0] = tag;
    free_unread(fixture->hosts[host].tags.items);
    fixture->hosts[host].tags = (struct inv_strings){.items = items, .count = 1};
}

void fixture_add_wave(struct fixture *fixture, uint32_t value, bool percent) {
    fixture->waves[fixture->policy.wave_count++].size =
        (struct inv_amount){.percent = percent, .value = value};
}

void fixture_add_tag_wave(struct fixture *fixture, const char *tag) {
    fixture->waves[fixture->policy.wave_count++].tag = tag;
}

void fixture_limit(struct fixture *fixture, const char *tag, uint32_t max_parallel) {
    fixture->limits[fixture->policy.limit_count++] = (struct inv_group_limit){
        .tag = tag, .has_max_parallel = true, .max_parallel = max_parallel};
}

struct rollout *fixture_rollout(const struct fixture *fixture) {
    const struct rollout_plan plan = {
        .hosts = fixture->pointers,
        .host_count = fixture->count,
        .policy = &fixture->policy,
        .action = fixture->action,
        .seed = fixture->seed,
    };
    return rollout_new(&plan);
}
