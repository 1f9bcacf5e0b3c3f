/* Whole rollouts played with random policies, fates and persons at the keys, up to 10,000 hosts.
 *
 * What must always hold is checked at every decision, from books that this file keeps itself:
 *   slots, group limits and exclusive groups are never exceeded;
 *   no host begins once a budget is passed, the run is paused, or outside of its wave;
 *   the failures are never more than the budget, the one that passed it and what was in flight;
 *   a host goes back at most once a try, and every host ends in exactly one end state;
 *   no host ends healthy that was not probed again when its wave ended (but where it was tried again
 *   beside the last wave's end);
 *   the run ends; and with the same seed it is the same run.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/xalloc.h"
#include "rollout_fixture.h"

#define EXCLUSIVE_GROUPS 7

/* What a host will meet with. */
enum lot {
    LOT_GOOD,
    LOT_UNCHANGED,
    LOT_UNREACHABLE,
    LOT_OFFLINE,
    LOT_LOCKED,
    LOT_BUILD_FAILS,
    LOT_COPY_FAILS,
    LOT_VERDICT,       /* goes back */
    LOT_BACK_FAILS,    /* and fails at that */
    LOT_GONE,          /* unknown */
    LOT_REBOOT_NEEDED, /* nothing could be activated */
    LOT_BAKE_FAILS,    /* healthy, and then not */
    LOT_COUNT
};

struct sim_host {
    enum lot lot;
    enum host_state state;
    bool ended;
    bool in_flight; /* has the slot of a grant */
    bool back;      /* on its way back without a slot */
    bool went_back;
    bool own_verdict; /* what it goes back on is its own, not the others' */
    bool skip_told;
    bool again;   /* is tried again */
    bool looked;  /* was probed again since it became healthy */
    uint32_t try; /* what was to happen to an earlier one does not happen any more */
};

enum what {
    HAPPENS_NEXT,
    HAPPENS_SKIPPED,
    HAPPENS_BACK,
    HAPPENS_REPROBED
};

/* Something that will happen to a host. */
struct happening {
    uint64_t at_ms;
    uint64_t order; /* first come, first served at one time */
    size_t host;
    enum what what;
    uint32_t try;
};

struct sim {
    struct fixture *fixture;
    struct rollout *rollout;
    struct sim_host *hosts;
    struct happening *heap;
    size_t heap_count, heap_cap;
    uint64_t order;
    uint64_t now_ms;
    uint64_t random;
    size_t limit;
    size_t tag_limit;
    size_t in_flight, in_flight_tag, in_flight_again;
    int exclusive[EXCLUSIVE_GROUPS];
    size_t failures, unreachable;
    size_t retries;
    size_t failures_known, unreachable_known; /* to the person who had a host tried again */
    size_t in_flight_when_passed;
    bool passed;
    bool paused, promote_due, stopped, ended, persons;
    uint64_t hash; /* over all decisions */
};

/* What occurred at all, over the runs of one test: a simulation in which nothing ever bakes would
 * show nothing about baking. */
static size_t seen_decisions[ROLLOUT_END + 1];
static size_t seen_ends[HOST_STATE_COUNT];
static size_t seen_stops;
static size_t seen_lifted;

static uint64_t roll(struct sim *sim, uint64_t below) {
    sim->random ^= sim->random << 13;
    sim->random ^= sim->random >> 7;
    sim->random ^= sim->random << 17;
    return sim->random % below;
}

static bool earlier(const struct happening *a, const struct happening *b) {
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->order < b->order;
}

static void happen(struct sim *sim, size_t host, enum what what, uint64_t in_ms) {
    if (sim->heap_count == sim->heap_cap) {
        sim->heap_cap = sim->heap_cap * 2 + 64;
        sim->heap = xrealloc(sim->heap, sim->heap_cap * sizeof(*sim->heap));
    }
    struct happening item = {.at_ms = sim->now_ms + in_ms,
                             .order = sim->order++,
                             .host = host,
                             .what = what,
                             .try = sim->hosts[host].try};
    size_t at = sim->heap_count++;
    for (; at > 0 && earlier(&item, &sim->heap[(at - 1) / 2]); at = (at - 1) / 2) {
        sim->heap[at] = sim->heap[(at - 1) / 2];
    }
    sim->heap[at] = item;
}

static struct happening take(struct sim *sim) {
    struct happening first = sim->heap[0];
    struct happening last = sim->heap[--sim->heap_count];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < sim->heap_count; at = child) {
        if (child + 1 < sim->heap_count && earlier(&sim->heap[child + 1], &sim->heap[child])) {
            child++;
        }
        if (!earlier(&sim->heap[child], &last)) {
            break;
        }
        sim->heap[at] = sim->heap[child];
    }
    sim->heap[at] = last;
    return first;
}

static int exclusive_of(const struct sim *sim, size_t host) {
    const char *name = sim->fixture->hosts[host].policy.exclusive;
    return name != NULL ? name[0] - 'a' : -1;
}

static bool is_tagged(const struct sim *sim, size_t host) {
    return sim->fixture->hosts[host].tags.count > 0;
}

/* Takes (by 1) or gives back (by -1) what a host in flight occupies. */
static void occupy(struct sim *sim, size_t host, int by) {
    if (is_tagged(sim, host)) {
        sim->in_flight_tag += (size_t)by;
        cr_assert_leq(sim->in_flight_tag, sim->tag_limit, "the tag's limit");
    }
    int exclusive = exclusive_of(sim, host);
    if (exclusive >= 0) {
        sim->exclusive[exclusive] += by;
        cr_assert_leq(sim->exclusive[exclusive], 1, "two of an exclusive group in flight");
    }
}

static void note_budget(struct sim *sim) {
    if (!sim->passed && sim->failures > rollout_failures_allowed(sim->rollout) &&
        sim->failures > sim->failures_known) {
        sim->passed = true;
        sim->in_flight_when_passed = sim->in_flight;
    }
}

/* As CONTRACT counts them. */
static bool is_failure(const struct sim_host *h, enum host_state state, const char *reason) {
    return (state == HOST_FAILED && strcmp(reason, "build-failed") != 0) ||
           (state == HOST_ROLLED_BACK && h->own_verdict) || state == HOST_ROLLBACK_FAILED ||
           state == HOST_UNKNOWN;
}

static void move(struct sim *sim, size_t host, enum host_state state, const char *reason) {
    struct sim_host *h = &sim->hosts[host];
    bool end = host_state_is_end(state);
    h->state = state;
    if (end) {
        if (h->in_flight || h->back) {
            occupy(sim, host, -1);
        }
        sim->in_flight -= h->in_flight;
        sim->in_flight_again -= h->in_flight && h->again;
        h->in_flight = false;
        h->back = false;
        h->ended = true;
        sim->failures += is_failure(h, state, reason);
        sim->unreachable += state == HOST_UNREACHABLE;
        note_budget(sim);
    } else {
        h->ended = false;
    }
    rollout_moved(sim->rollout, host, state, reason, sim->now_ms);
}

static void want(struct sim *sim, size_t host, enum act act) {
    rollout_wants(sim->rollout, host, act, sim->now_ms);
}

/* What a host does next by itself. States in which it waits for an answer are not among them. */
static void next_of(struct sim *sim, size_t host) {
    struct sim_host *h = &sim->hosts[host];
    if (h->skip_told || h->ended) {
        return;
    }
    switch ((int)h->state) {
    case HOST_PENDING:
        move(sim, host, HOST_CONNECTING, NULL);
        happen(sim, host, HAPPENS_NEXT, roll(sim, 2000));
        break;
    case HOST_CONNECTING:
        if (h->lot == LOT_UNREACHABLE) {
            move(sim, host, HOST_UNREACHABLE, "connection-refused");
        } else if (h->lot == LOT_OFFLINE) {
            move(sim, host, HOST_SKIPPED, "offline");
        } else if (h->lot == LOT_UNCHANGED) {
            move(sim, host, HOST_UNCHANGED, NULL);
        } else {
            move(sim, host, HOST_BUILDING, NULL);
            happen(sim, host, HAPPENS_NEXT, roll(sim, 9000));
        }
        break;
    case HOST_BUILDING:
        if (h->lot == LOT_BUILD_FAILS) {
            move(sim, host, HOST_FAILED, "build-failed");
        } else if (h->lot == LOT_LOCKED) {
            move(sim, host, HOST_SKIPPED, "locked");
        } else {
            move(sim, host, HOST_STAGING, NULL);
            want(sim, host, ACT_COPY);
        }
        break;
    case HOST_STAGING:
        if (h->lot == LOT_COPY_FAILS) {
            move(sim, host, HOST_FAILED, "disk-full");
        } else {
            move(sim, host, HOST_STAGED, NULL);
            want(sim, host, ACT_ACTIVATE);
        }
        break;
    case HOST_ACTIVATING:
        if (h->lot == LOT_REBOOT_NEEDED) {
            move(sim, host, HOST_REBOOT_REQUIRED, NULL);
            break;
        }
        move(sim, host, HOST_CONFIRMING, NULL);
        happen(sim, host, HAPPENS_NEXT, roll(sim, 3000));
        break;
    case HOST_CONFIRMING:
        if (h->lot == LOT_GONE) {
            move(sim, host, HOST_UNKNOWN, "confirm-timeout");
            break;
        }
        move(sim, host, HOST_PROBING, NULL);
        happen(sim, host, HAPPENS_NEXT, 1000 + roll(sim, 20000));
        break;
    case HOST_PROBING:
        want(sim, host,
             h->lot == LOT_VERDICT || h->lot == LOT_BACK_FAILS ? ACT_ROLLBACK : ACT_COMMIT);
        break;
    case HOST_COMMITTING:
        move(sim, host, HOST_HEALTHY, NULL);
        break;
    case HOST_ROLLING_BACK:
        move(sim, host, h->lot == LOT_BACK_FAILS ? HOST_ROLLBACK_FAILED : HOST_ROLLED_BACK,
             "probe");
        break;
    default:
        cr_assert_fail("nothing is next in %s", host_state_name(h->state));
    }
}

static void check_first_grant(const struct sim *sim, size_t host) {
    const struct rollout *rollout = sim->rollout;
    cr_assert_not(sim->passed, "h%zu begins after max_failed was passed", host);
    size_t allowed = sim->fixture->policy.max_unreachable.value * sim->fixture->count / 100;
    cr_assert(sim->unreachable <= allowed || sim->unreachable <= sim->unreachable_known,
              "h%zu begins after max_unreachable was passed", host);
    bool again = sim->hosts[host].again;
    cr_assert_not(sim->paused || sim->stopped, "h%zu begins in a pause", host);
    cr_assert(!sim->promote_due || again, "h%zu begins before the promotion", host);
    cr_assert_leq(rollout_wave_of(rollout, host), rollout_current_wave(rollout));
    cr_assert(again || rollout_wave_of(rollout, host) == rollout_current_wave(rollout));
    cr_assert_eq(sim->hosts[host].state, HOST_STAGED);
    if (sim->fixture->policy.prestage == INV_PRESTAGE_ALL) {
        size_t unstaged = 0;
        for (int state = HOST_PENDING; state < HOST_STAGED; state++) {
            unstaged += rollout_count(rollout, (enum host_state)state);
        }
        cr_assert_leq(unstaged, sim->retries, "prestage all");
    }
}

static void on_grant(struct sim *sim, size_t host, enum act act) {
    struct sim_host *h = &sim->hosts[host];
    if (act == ACT_COPY) {
        cr_assert_not(h->in_flight);
        happen(sim, host, HAPPENS_NEXT, roll(sim, 30000));
    } else if (act == ACT_ACTIVATE) {
        check_first_grant(sim, host);
        h->in_flight = true;
        sim->in_flight++;
        sim->in_flight_again += h->again;
        cr_assert_leq(sim->in_flight, sim->limit, "max_parallel");
        occupy(sim, host, 1);
        move(sim, host, HOST_ACTIVATING, NULL);
        happen(sim, host, HAPPENS_NEXT, roll(sim, 9000));
    } else if (act == ACT_COMMIT) {
        move(sim, host, HOST_COMMITTING, NULL);
        happen(sim, host, HAPPENS_NEXT, roll(sim, 500));
    } else {
        cr_assert_eq(act, ACT_ROLLBACK);
        cr_assert_not(h->went_back, "h%zu goes back twice", host);
        h->went_back = true;
        h->own_verdict = true;
        move(sim, host, HOST_ROLLING_BACK, "probe");
        happen(sim, host, HAPPENS_NEXT, roll(sim, 9000));
    }
}

static void on_take_back(struct sim *sim, size_t host) {
    struct sim_host *h = &sim->hosts[host];
    cr_assert_eq(h->state, HOST_HEALTHY);
    cr_assert(sim->fixture->hosts[host].policy.rollback);
    cr_assert_not(h->went_back, "h%zu goes back twice", host);
    h->went_back = true;
    if (!h->in_flight) {
        h->back = true;
        occupy(sim, host, 1);
    }
    happen(sim, host, HAPPENS_BACK, roll(sim, 300));
}

static void on_leave(struct sim *sim, size_t host) {
    enum inv_on_failure how = sim->fixture->policy.on_failure;
    struct sim_host *h = &sim->hosts[host];
    cr_assert(how == INV_ON_FAILURE_LEAVE || !sim->fixture->hosts[host].policy.rollback ||
              h->went_back);
    move(sim, host, HOST_FAILED, "left");
}

/* A host begins anew, and has mostly better luck. */
static void on_retry(struct sim *sim, size_t host) {
    struct sim_host *h = &sim->hosts[host];
    cr_assert(h->ended && !h->in_flight && !h->back);
    cr_assert_neq(h->state, HOST_HEALTHY);
    cr_assert_neq(h->state, HOST_UNKNOWN);
    sim->retries++;
    *h = (struct sim_host){.lot = roll(sim, 4) == 0 ? h->lot : LOT_GOOD,
                           .state = HOST_PENDING,
                           .again = true,
                           .try = h->try + 1};
    happen(sim, host, HAPPENS_NEXT, roll(sim, 500));
}

static void on_decision(struct sim *sim, const struct rollout_decision *d) {
    seen_decisions[d->kind]++;
    sim->hash = (sim->hash ^ ((uint64_t)d->kind << 56 ^ (uint64_t)d->host << 8 ^ (uint64_t)d->act ^
                              (uint64_t)d->wave << 32)) *
                UINT64_C(0x100000001b3);
    switch (d->kind) {
    case ROLLOUT_GRANT:
        on_grant(sim, d->host, d->act);
        break;
    case ROLLOUT_LEAVE:
        on_leave(sim, d->host);
        break;
    case ROLLOUT_TAKE_BACK:
        on_take_back(sim, d->host);
        break;
    case ROLLOUT_SKIP:
        cr_assert_not(sim->hosts[d->host].in_flight || sim->hosts[d->host].skip_told);
        sim->hosts[d->host].skip_told = true;
        happen(sim, d->host, HAPPENS_SKIPPED, roll(sim, 100));
        break;
    case ROLLOUT_REPROBE:
        cr_assert_eq(sim->hosts[d->host].state, HOST_HEALTHY);
        cr_assert_not(sim->hosts[d->host].looked, "h%zu is probed a third time", d->host);
        sim->hosts[d->host].looked = true;
        happen(sim, d->host, HAPPENS_REPROBED, roll(sim, 3000));
        break;
    case ROLLOUT_PAUSE:
        sim->promote_due |= strcmp(d->reason, "promote") == 0;
        sim->paused |= strcmp(d->reason, "paused") == 0; /* not where no wave is left to hold */
        break;
    case ROLLOUT_STOP:
        sim->stopped = true;
        break;
    case ROLLOUT_WAVE_START:
        cr_assert_not(sim->paused || sim->promote_due || sim->stopped);
        cr_assert_eq(sim->in_flight, sim->in_flight_again);
        break;
    case ROLLOUT_RETRY:
        on_retry(sim, d->host);
        break;
    case ROLLOUT_END:
        cr_assert_not(sim->ended);
        sim->ended = true;
        break;
    case ROLLOUT_WAVE_END:
        cr_assert_eq(sim->in_flight, sim->in_flight_again);
        break;
    case ROLLOUT_BAKE:
        break;
    }
}

static void drain(struct sim *sim) {
    struct rollout_decision decision;
    while (rollout_next(sim->rollout, &decision)) {
        on_decision(sim, &decision);
    }
}

static void on_happening(struct sim *sim, const struct happening *item) {
    struct sim_host *h = &sim->hosts[item->host];
    if (item->try != h->try) {
        return;
    }
    switch (item->what) {
    case HAPPENS_NEXT:
        next_of(sim, item->host);
        break;
    case HAPPENS_SKIPPED:
        if (!h->ended) {
            move(sim, item->host, HOST_SKIPPED, "budget");
        }
        break;
    case HAPPENS_BACK:
        move(sim, item->host, HOST_ROLLING_BACK, "taken-back");
        happen(sim, item->host, HAPPENS_NEXT, roll(sim, 9000));
        break;
    case HAPPENS_REPROBED:
        h->own_verdict |= h->state == HOST_HEALTHY && h->lot == LOT_BAKE_FAILS;
        rollout_reprobed(sim->rollout, item->host, h->lot != LOT_BAKE_FAILS, sim->now_ms);
        break;
    }
}

static void control(struct sim *sim, enum rollout_control what, size_t host) {
    rollout_control(sim->rollout, what, host, sim->now_ms);
}

/* `r` on a host that has ended; the books are as they were before it began. */
static void retry(struct sim *sim, size_t host) {
    struct buf why = BUF_INIT;
    const struct sim_host *h = &sim->hosts[host];
    size_t failures = rollout_failures(sim->rollout);
    size_t unreachable = rollout_count(sim->rollout, HOST_UNREACHABLE);
    bool stopped = sim->stopped;
    if (!rollout_retry(sim->rollout, host, sim->now_ms, &why)) {
        cr_assert_gt(why.len, 0);
        cr_assert_eq(rollout_failures(sim->rollout), failures);
    } else {
        cr_assert_eq(why.len, 0);
        cr_assert_eq(rollout_count(sim->rollout, HOST_UNREACHABLE),
                     unreachable - (h->state == HOST_UNREACHABLE));
        sim->failures = rollout_failures(sim->rollout);
        sim->unreachable -= h->state == HOST_UNREACHABLE;
        seen_lifted += stopped;
        if (stopped || sim->passed) {
            sim->stopped = false;
            sim->passed = false;
            sim->failures_known = sim->failures;
            sim->unreachable_known = sim->unreachable;
        }
    }
    buf_free(&why);
}

/* A person presses a key, now and then. */
static void press_key(struct sim *sim) {
    size_t host = (size_t)roll(sim, sim->fixture->count);
    if (sim->persons && sim->stopped && sim->retries < 50 && roll(sim, 3) == 0) {
        retry(sim, host); /* what a person does about a run that has stopped */
    }
    if (!sim->persons || roll(sim, 200) != 0) {
        return;
    }
    switch (roll(sim, 6)) {
    case 0:
        control(sim, ROLLOUT_CONTROL_PAUSE, 0);
        break;
    case 1:
        control(sim, ROLLOUT_CONTROL_SKIP, host);
        break;
    case 2:
        control(sim, ROLLOUT_CONTROL_TAKE_BACK, roll(sim, 10) == 0 ? SIZE_MAX : host);
        break;
    case 3:
        if (roll(sim, 10) == 0) {
            control(sim, ROLLOUT_CONTROL_DRAIN, 0);
        }
        break;
    case 4:
        for (size_t i = 0; i < 20 && sim->retries < 50; i++) {
            retry(sim, (size_t)roll(sim, sim->fixture->count));
            drain(sim);
        }
        break;
    default:
        break;
    }
}

/* Nothing happens by itself any more: time passes, or the person who paused goes on. */
static bool nudge(struct sim *sim) {
    uint64_t tick = rollout_next_tick_ms(sim->rollout);
    if (tick != UINT64_MAX) {
        sim->now_ms = tick > sim->now_ms ? tick : sim->now_ms;
        rollout_tick(sim->rollout, sim->now_ms);
        return true;
    }
    if (sim->paused || sim->promote_due) {
        sim->paused = false;
        sim->promote_due = false;
        sim->now_ms += 5000;
        control(sim, ROLLOUT_CONTROL_PROMOTE, 0);
        return true;
    }
    return false;
}

static void check_end(const struct sim *sim) {
    const struct fixture *fixture = sim->fixture;
    cr_assert(sim->ended, "the run stands still and has not ended");
    size_t ends = 0;
    for (int state = 0; state < HOST_STATE_COUNT; state++) {
        size_t count = rollout_count(sim->rollout, (enum host_state)state);
        seen_ends[state] += count;
        ends += host_state_is_end((enum host_state)state) ? count : 0;
    }
    cr_assert_eq(ends, fixture->count, "every host ends once");
    for (size_t i = 0; i < fixture->count; i++) {
        const struct sim_host *h = &sim->hosts[i];
        cr_assert(h->ended && !h->in_flight && !h->back);
        bool asks = fixture->policy.bake_ms > 0 || fixture->hosts[i].health_count > 0;
        cr_assert(h->state != HOST_HEALTHY || h->looked || h->again || !asks,
                  "h%zu was healthy once", i);
    }
    seen_stops += sim->stopped;
    cr_assert_eq(rollout_failures(sim->rollout), sim->failures);
    size_t allowed = rollout_failures_allowed(sim->rollout);
    /* Late ones: the look at its end fails for as many as the wave has, and a way back may fail. */
    bool late = fixture->policy.bake_ms > 0 || fixture->hosts[0].health_count > 0 ||
                fixture->policy.on_failure == INV_ON_FAILURE_ROLLBACK_WAVE ||
                fixture->policy.on_failure == INV_ON_FAILURE_ROLLBACK_ALL || sim->persons;
    if (!late && sim->passed) {
        size_t failed_copies = 0; /* they count, and need no slot */
        for (size_t i = 0; i < fixture->count; i++) {
            failed_copies += sim->hosts[i].lot == LOT_COPY_FAILS;
        }
        cr_assert_leq(sim->failures, allowed + 1 + sim->in_flight_when_passed + failed_copies);
    }
}

static enum lot draw_lot(struct sim *sim, unsigned trouble) {
    return roll(sim, 100) < trouble ? (enum lot)roll(sim, LOT_COUNT) : LOT_GOOD;
}

static void draw_policy(struct sim *sim, struct fixture *f) {
    static const uint32_t shares[] = {1, 10, 33, 50, 100};
    for (size_t i = 0; i < 5 && roll(sim, 4) != 0; i++) {
        fixture_add_wave(f, shares[i], i > 0);
    }
    f->policy.prestage = (enum inv_prestage)roll(sim, 3);
    f->policy.order = (enum inv_order)roll(sim, 3);
    f->policy.on_failure = (enum inv_on_failure)roll(sim, 4);
    f->policy.bake_ms = roll(sim, 2) * 20000;
    f->policy.max_failed = (struct inv_amount){.percent = true, .value = (uint32_t)roll(sim, 60)};
    f->policy.max_unreachable =
        (struct inv_amount){.percent = true, .value = (uint32_t)roll(sim, 101)};
    f->policy.promote_manual = roll(sim, 4) == 0;
    sim->limit = f->count / 3 < 10 ? f->count / 3 : 10;
    sim->limit = sim->limit > 0 ? sim->limit : 1;
    if (roll(sim, 2) == 0) {
        sim->limit = 1 + (size_t)roll(sim, 40);
        fixture_limit(f, NULL, (uint32_t)sim->limit);
    }
    sim->tag_limit = 1 + (size_t)roll(sim, 5);
    fixture_limit(f, "db", (uint32_t)sim->tag_limit);
    f->seed = sim->random;
}

/* Plays a run; returns the hash of all its decisions. */
static uint64_t play(size_t count, uint64_t seed, unsigned trouble) {
    static const char *const exclusive[EXCLUSIVE_GROUPS] = {"a", "b", "c", "d", "e", "f", "g"};
    struct sim sim = {.random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1};
    struct fixture *f = fixture_new(count);
    sim.fixture = f;
    draw_policy(&sim, f);
    sim.persons = roll(&sim, 3) == 0;
    bool probed = roll(&sim, 2) == 0;
    sim.hosts = xcalloc(count, sizeof(*sim.hosts));
    for (size_t i = 0; i < count; i++) {
        sim.hosts[i].lot = draw_lot(&sim, trouble);
        f->hosts[i].health_count = probed && (i == 0 || roll(&sim, 10) != 0);
        f->hosts[i].policy.rollback = roll(&sim, 10) != 0;
        if (!f->hosts[i].policy.rollback && sim.hosts[i].lot == LOT_BACK_FAILS) {
            sim.hosts[i].lot = LOT_VERDICT;
        }
        f->hosts[i].policy.exclusive =
            roll(&sim, 10) == 0 ? exclusive[roll(&sim, EXCLUSIVE_GROUPS)] : NULL;
        if (roll(&sim, 5) == 0) {
            fixture_tag(f, i, "db");
        }
    }
    sim.rollout = fixture_rollout(f);
    rollout_start(sim.rollout, 0);
    for (size_t i = 0; i < count; i++) {
        if (roll(&sim, 20) == 0) {
            rollout_unhealthy_before(sim.rollout, i);
        }
        happen(&sim, i, HAPPENS_NEXT, roll(&sim, 500));
    }
    drain(&sim);
    while (sim.heap_count > 0 || (!sim.ended && nudge(&sim))) {
        if (sim.heap_count > 0) {
            struct happening item = take(&sim);
            sim.now_ms = item.at_ms;
            on_happening(&sim, &item);
        }
        drain(&sim);
        if (!sim.ended) {
            press_key(&sim);
            drain(&sim);
        }
    }
    check_end(&sim);
    rollout_free(sim.rollout);
    free(sim.hosts);
    free(sim.heap);
    fixture_free(f);
    return sim.hash;
}

Test(rollout_sim, small_fleets_with_any_policy_and_any_trouble) {
    for (uint64_t seed = 1; seed <= 3000; seed++) {
        play(1 + (size_t)(seed % 40), seed, (unsigned)(seed % 100));
    }
    for (int kind = 0; kind <= ROLLOUT_END; kind++) {
        cr_assert_gt(seen_decisions[kind], 20, "decision %d is hardly ever taken", kind);
    }
    for (int state = HOST_HEALTHY; state < HOST_STATE_COUNT; state++) {
        cr_assert_gt(seen_ends[state], 100, "hardly a host ends %s",
                     host_state_name((enum host_state)state));
    }
    cr_assert(seen_stops > 300 && seen_stops < 2700, "%zu of 3000 runs stop", seen_stops);
    cr_assert_gt(seen_lifted, 20, "hardly a stopped run is taken up again by a retry");
}

Test(rollout_sim, ten_thousand_hosts_with_a_few_failures) {
    for (uint64_t seed = 1; seed <= 10; seed++) {
        play(10000, seed, (unsigned)(seed % 4));
    }
    cr_assert_gt(seen_ends[HOST_HEALTHY], 30000);
}

Test(rollout_sim, ten_thousand_hosts_in_much_trouble) {
    for (uint64_t seed = 1; seed <= 5; seed++) {
        play(10000, seed + 100, 60);
    }
}

Test(rollout_sim, same_seed_same_run) {
    for (uint64_t seed = 1; seed <= 50; seed++) {
        cr_assert_eq(play(200, seed, 20), play(200, seed, 20));
    }
    cr_assert_neq(play(200, 1, 20), play(200, 2, 20));
}
