/* One host's pipeline between a played target and a played coordinator, in virtual time.
 *
 * A test sets the world up (world_begin), changes what it likes, and lets it run to its end
 * (world_run), which checks what must hold however a run goes: legal public states, no act without
 * its grant, one end, a claim that is true of the target, lock and root let go, nothing left open.
 */
#ifndef FLEET_TESTS_WORLD_H
#define FLEET_TESTS_WORLD_H

#include "core/host_internal.h"
#include "tests/pipeline/machine.h"
#include "transport/copy.h"

/* What happens once, when the host stands in the step `at`. */
enum blow {
    BLOW_NONE,
    BLOW_FAIL, /* the first FAULT_COUNT - 1 are those of machine.h, for the step's first script */
    BLOW_HANG,
    BLOW_CUT,
    BLOW_CUT_AFTER,
    BLOW_GONE,
    BLOW_GONE_AFTER,
    BLOW_POWER,   /* power cut, up again after 20 s */
    BLOW_STOLEN,  /* another run takes the lock */
    BLOW_CANCEL,  /* host_end */
    BLOW_RELEASE, /* host_release */
    BLOW_COUNT
};
extern const char *const blow_names[BLOW_COUNT];

struct world {
    uv_loop_t loop;
    struct machine machine;
    struct machine store; /* the source of copies */
    struct conn *store_conn;
    struct copier *copier;
    struct inv_host inv;
    struct inv_health probe;
    struct inv_secret secrets[2]; /* `before` restarts a unit, `after` does not */
    struct conn_spec spec;
    struct host_run run;
    struct host_plan plan;
    struct host *host; /* NULL once closed */
    uint32_t nonces;

    /* The coordinator. */
    uv_timer_t turn;         /* answers what is due */
    uv_timer_t secret_timer; /* a secret that is late */
    const char *desired;
    struct host_resume resume; /* `ask`: another process began it, with these grants already */
    bool copies;
    uint64_t answer_ms;
    bool leave, reprobe, take_back, lingers;
    bool compare;             /* it wants to know what the new system changes */
    bool has_secrets;         /* the host has both */
    char secret_mark;         /* of their content; another one is another content */
    unsigned secret_late;     /* so many askings come before they are at hand */
    const char *secret_fails; /* why they can't be had */
    bool withhold[ACT_COUNT];
    bool build_due, grant_due[ACT_COUNT], over_due;

    /* The blow. */
    enum step at;
    enum blow blow;
    bool struck;
    /* Asked first, for what a single blow can't say. */
    enum fault (*on_script)(struct world *world, const char *name);
    void (*on_turn)(struct world *world);
    unsigned scripts; /* counted by tests */

    /* What was seen. */
    struct buf
        story; /* public states and their reasons: "connecting building ... failed(locked)" */
    struct buf log;
    bool granted[ACT_COUNT];
    bool took_back, released, powered;
    enum host_state end;
    unsigned ends;
    unsigned changes; /* times that it was told what changes */
    char reason[40];
    char message[ERROR_MESSAGE_MAX];
    int reprobed;   /* -1 not asked, else the answer */
    uint64_t steps; /* mask of those that were seen standing or with a script */
};

/* An update from OLD to NEW without probes that fails nowhere. */
void world_begin(struct world *world);
/* Its operator died while the new system waited to be confirmed; the guard goes back so soon. */
void world_resume(struct world *world, uint64_t guard_left_ms);
/* Begins the host, runs until it is closed and checks everything; then frees. */
void world_run(struct world *world);
/* The same in pieces. */
void world_go(struct world *world);
void world_end(struct world *world);

#endif
