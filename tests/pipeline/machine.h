/* A target that is played: its systems, its lock and its guard, without a shell.
 *
 * What a target is (running system, profile, record on disk, lock) and how its guard moves through
 * its phases follows the scripts of core/target; machine_wire.c makes a connection of it that understands the
 * scripts. Faults come from the scenario through `on_script`. Everything happens on one loop, in
 * virtual time.
 */
#ifndef FLEET_TESTS_MACHINE_H
#define FLEET_TESTS_MACHINE_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "core/base/buf.h"
#include "core/target.h"
#include "transport/transport.h"

#define OLD   "/nix/store/00000000000000000000000000000000-system-old"
#define NEW   "/nix/store/11111111111111111111111111111111-system-new"
#define OTHER "/nix/store/22222222222222222222222222222222-system-other"

/* What happens to a script that has arrived. */
enum fault {
    FAULT_NONE,
    FAULT_FAIL,      /* it says why on stderr and exits 1, having done nothing */
    FAULT_HANG,      /* it never answers and does nothing */
    FAULT_CUT,       /* the connection breaks before it has done anything */
    FAULT_CUT_AFTER, /* it acts, and the connection breaks before its answer */
    FAULT_GONE,      /* as CUT, and the host can't be reached any more */
    FAULT_GONE_AFTER,
    FAULT_COUNT
};

struct machine_guard {
    bool alive;  /* the unit is there */
    bool record; /* /var/lib/fleet/guard */
    bool folder; /* /run/fleet/guard, gone after a reboot */
    enum guard_phase phase;
    enum guard_phase phase_on_disk; /* what the record says after a power cut */
    char state[512];                /* the state line; "" before the first and after a reboot */
    char nonce[40];
    char run[40];
    char why[32];
    char action[16];
    char new[256];
    char old[256];
    char link[256]; /* the profile before */
    int64_t link_generation;
    int64_t to;
    int rc;
    uint64_t activate_ms, confirm_ms;
    uint64_t next_ms; /* when the phase is over */
    uint64_t seen_ms; /* when it sees the requests that lie there */
    unsigned tries;   /* of the way back */
    bool renew, commit, abort, leave;
    bool leaves;    /* the policy: a failed activation may be left */
    char fault[32]; /* why it failed, where it waits to be left */
};

struct machine {
    uv_loop_t *loop;
    struct transport transport;

    /* What is true of it. */
    char running[256];
    char profile[256];
    int64_t generation;
    int boot;
    bool no_systemd, not_root, no_nix;
    char failed_unit[64]; /* a unit that has failed; "" none */
    char lock_id[64], lock_run[64];
    bool staged;
    struct machine_guard guard;
    char last[512]; /* the last word of the guard that has ended; outlives a reboot */
    /* Its secrets, in the order they came: all of them in /run. */
    struct {
        char path[64], mark; /* of its content */
    } secrets[4];
    unsigned secret_count;
    bool restart_due;

    /* How it behaves. */
    uint64_t latency_ms;    /* of every answer */
    uint64_t activation_ms; /* how long the activation takes; 0: it is over in the start's answer */
    int activation_rc;
    bool activation_stops;   /* and fails before the new system runs */
    const char *breaks_unit; /* fails once NEW runs */
    bool activation_refused; /* nothing is activated, `activation_rc` tells */
    bool commit_fails, revert_fails, boot_default_stuck;
    unsigned back_tries; /* so many does the way back need, for want of room */
    uint64_t request_ms; /* until the guard sees a request */
    bool keeps_record;   /* a repair leaves its record */
    bool reboots;        /* it has been told to */
    bool stays_up;       /* and does not */
    uint64_t reachable_at_ms;
    unsigned refuse_connections; /* so many next tries */
    bool swallow_connections;    /* they get no answer at all */
    bool lacks_paths;
    bool secret_refused, restart_fails; /* there is no such owner; its unit fails then */
    const char *gens;                   /* lines of the list of generations */
    bool talkative;                     /* it says as much as a host may, whatever is asked */

    /* Asked when a script has arrived and before it acts; `name` as in core/target, requests to the
     * guard by their own name. */
    enum fault (*on_script)(struct machine *machine, const char *name, void *arg);
    void *arg;

    /* What it has seen. */
    struct buf trace; /* names of scripts but for polls and looks at units; "connect" */
    unsigned conns_made, conns_open, streams_open;
    unsigned renewals_by_conn[64];
    unsigned commit_conn; /* the number of the connection that the commit came over */
    unsigned aborts, activations, repairs, puts, unit_restarts;
    struct machine_conn *conns;
};

void machine_init(struct machine *machine, uv_loop_t *loop);
void machine_free(struct machine *machine);
/* Lets the guard do what it has had time for. */
void machine_settle(struct machine *machine);
/* Breaks every connection now. */
void machine_cut(struct machine *machine);
/* Off and on again: comes up in its boot default after `off_ms`. */
void machine_power_cut(struct machine *machine, uint64_t off_ms);
void machine_gone(struct machine *machine);
/* The guard and its way back are ended without a trace (kill -9 where there is no systemd). */
void machine_kill_guard(struct machine *machine);

/* ---- between machine.c and machine_wire.c ---- */

extern const struct transport_ops machine_transport_ops;

struct script_vars;
/* The value of a variable of the script at hand, "" where absent. */
const char *script_var(const struct script_vars *vars, const char *name);
/* Does what the script does; its answer goes to `out`. Returns its exit status. */
int machine_run(struct machine *machine, const char *name, const struct script_vars *vars,
                struct buf *out);
/* True while a poll has nothing to tell. */
bool machine_poll_waits(struct machine *machine, const struct script_vars *vars);

#endif
