/* Two heaps of ready hosts (urgent and not) and one of parked hosts a group.
 *
 * A group that has room again sends one parked host back to the ready heap, with a token: whoever
 * takes that host out and finds that it can't use the room (it waits no longer, or another group
 * is full) sends the next one. So room is never lost, and no release wakes more hosts than it has
 * room for. Withdrawn hosts stay in their heap and are dropped when they come up: an item counts
 * only while its version is the host's.
 */
#include "core/rollout_slots.h"

#include <stdlib.h>

#include "core/base/xalloc.h"

#define NO_GROUP     SIZE_MAX
#define URGENT_BELOW (UINT64_C(1) << 63)

struct item {
    uint64_t rank; /* below URGENT_BELOW: urgent */
    size_t host;
    size_t token; /* the group whose room it is to use, or NO_GROUP */
    uint32_t version;
};

struct heap {
    struct item *items;
    size_t count;
    size_t cap;
};

struct group {
    size_t limit;
    size_t used;
    struct heap parked;
};

struct place {
    size_t *groups;
    size_t group_count;
    uint32_t version;
    bool waiting;
    bool holds;
    bool holds_overall;
};

struct slots {
    size_t limit;
    size_t used;
    size_t waiting;
    size_t host_count;
    struct place *places;
    struct group *groups;
    size_t group_count;
    struct heap urgent;
    struct heap ready;
};

static bool before(const struct item *a, const struct item *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->host < b->host;
}

static void heap_push(struct heap *heap, struct item item) {
    if (heap->count == heap->cap) {
        heap->cap = heap->cap > 0 ? heap->cap * 2 : 16;
        heap->items = xrealloc(heap->items, heap->cap * sizeof(*heap->items));
    }
    size_t at = heap->count++;
    while (at > 0 && before(&item, &heap->items[(at - 1) / 2])) {
        heap->items[at] = heap->items[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap->items[at] = item;
}

static struct item heap_pop(struct heap *heap) {
    struct item first = heap->items[0];
    struct item last = heap->items[--heap->count];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < heap->count; at = child) {
        if (child + 1 < heap->count && before(&heap->items[child + 1], &heap->items[child])) {
            child++;
        }
        if (!before(&heap->items[child], &last)) {
            break;
        }
        heap->items[at] = heap->items[child];
    }
    heap->items[at] = last;
    return first;
}

struct slots *slots_new(size_t host_count, size_t limit) {
    struct slots *slots = xcalloc(1, sizeof(*slots));
    slots->limit = limit;
    slots->host_count = host_count;
    slots->places = xcalloc(host_count + 1, sizeof(*slots->places));
    return slots;
}

void slots_free(struct slots *slots) {
    if (slots == NULL) {
        return;
    }
    for (size_t i = 0; i < slots->host_count; i++) {
        free(slots->places[i].groups);
    }
    for (size_t i = 0; i < slots->group_count; i++) {
        free(slots->groups[i].parked.items);
    }
    free(slots->places);
    free(slots->groups);
    free(slots->urgent.items);
    free(slots->ready.items);
    free(slots);
}

size_t slots_add_group(struct slots *slots, size_t limit) {
    slots->groups = xrealloc(slots->groups, (slots->group_count + 1) * sizeof(*slots->groups));
    slots->groups[slots->group_count] = (struct group){.limit = limit};
    return slots->group_count++;
}

void slots_join(struct slots *slots, size_t host, size_t group) {
    struct place *place = &slots->places[host];
    place->groups = xrealloc(place->groups, (place->group_count + 1) * sizeof(*place->groups));
    place->groups[place->group_count++] = group;
}

const size_t *slots_groups(const struct slots *slots, size_t host, size_t *ret_count) {
    *ret_count = slots->places[host].group_count;
    return slots->places[host].groups;
}

static void make_ready(struct slots *slots, struct item item) {
    heap_push(item.rank < URGENT_BELOW ? &slots->urgent : &slots->ready, item);
}

void slots_push(struct slots *slots, size_t host, uint64_t rank, bool urgent) {
    struct place *place = &slots->places[host];
    slots_withdraw(slots, host);
    place->waiting = true;
    slots->waiting++;
    rank &= URGENT_BELOW - 1;
    make_ready(slots, (struct item){.rank = urgent ? rank : rank | URGENT_BELOW,
                                    .host = host,
                                    .token = NO_GROUP,
                                    .version = place->version});
}

void slots_withdraw(struct slots *slots, size_t host) {
    struct place *place = &slots->places[host];
    if (place->waiting) {
        place->waiting = false;
        place->version++;
        slots->waiting--;
    }
}

/* The group has room that nobody was sent for yet: the next parked host may try. */
static void pass_token(struct slots *slots, size_t number) {
    struct group *group = number != NO_GROUP ? &slots->groups[number] : NULL;
    if (group != NULL && group->used < group->limit && group->parked.count > 0) {
        struct item item = heap_pop(&group->parked);
        item.token = number;
        make_ready(slots, item);
    }
}

/* The first group of the host that has no room, or NO_GROUP. */
static size_t full_group(const struct slots *slots, size_t host) {
    const struct place *place = &slots->places[host];
    for (size_t i = 0; i < place->group_count; i++) {
        const struct group *group = &slots->groups[place->groups[i]];
        if (group->used >= group->limit) {
            return place->groups[i];
        }
    }
    return NO_GROUP;
}

static void occupy(struct slots *slots, size_t host, bool overall) {
    struct place *place = &slots->places[host];
    place->holds = true;
    place->holds_overall = overall;
    slots->used += overall;
    for (size_t i = 0; i < place->group_count; i++) {
        slots->groups[place->groups[i]].used++;
    }
}

bool slots_pop(struct slots *slots, bool all, size_t *ret_host) {
    for (;;) {
        struct heap *heap = &slots->urgent;
        if (heap->count == 0) {
            heap = &slots->ready;
            if (!all || heap->count == 0 || slots->used >= slots->limit) {
                return false;
            }
        }
        struct item item = heap_pop(heap);
        size_t token = item.token;
        item.token = NO_GROUP;
        struct place *place = &slots->places[item.host];
        if (!place->waiting || place->version != item.version) {
            pass_token(slots, token);
            continue;
        }
        size_t full = full_group(slots, item.host);
        if (full != NO_GROUP) {
            heap_push(&slots->groups[full].parked, item);
            pass_token(slots, token);
            continue;
        }
        slots_withdraw(slots, item.host);
        occupy(slots, item.host, item.rank >= URGENT_BELOW);
        pass_token(slots, token);
        *ret_host = item.host;
        return true;
    }
}

void slots_take(struct slots *slots, size_t host) {
    if (!slots->places[host].holds) {
        slots_withdraw(slots, host);
        occupy(slots, host, true);
    }
}

void slots_release(struct slots *slots, size_t host) {
    struct place *place = &slots->places[host];
    if (!place->holds) {
        return;
    }
    place->holds = false;
    slots->used -= place->holds_overall;
    for (size_t i = 0; i < place->group_count; i++) {
        slots->groups[place->groups[i]].used--;
        pass_token(slots, place->groups[i]);
    }
}

bool slots_holds(const struct slots *slots, size_t host) {
    return slots->places[host].holds;
}

size_t slots_used(const struct slots *slots) {
    return slots->used;
}

size_t slots_limit(const struct slots *slots) {
    return slots->limit;
}

size_t slots_waiting(const struct slots *slots) {
    return slots->waiting;
}
