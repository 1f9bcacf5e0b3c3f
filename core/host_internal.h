/* The pipeline's inside, shared by core/host*.c only.
 */
#ifndef FLEET_CORE_HOST_INTERNAL_H
#define FLEET_CORE_HOST_INTERNAL_H

#include "core/host.h"
#include "core/probe_asks.h"
#include "core/target.h"
#include "healthcheck/health.h"
#include "transport/closure_pair.h"

/* The steps, in the order of a rollout that goes well; then the ways out. */
enum step {
    STEP_CONNECT,
    STEP_INSPECT,
    STEP_REPAIR,
    STEP_ADOPT,
    STEP_CHOOSE,
    STEP_AWAIT_BUILD,
    STEP_SECRETS,
    STEP_AWAIT_SECRET,
    STEP_LOOK,
    STEP_AWAIT_COPY,
    STEP_LOCK,
    STEP_UPLOAD,
    STEP_COPY,
    STEP_ROOT,
    STEP_DRY_RUN,
    STEP_AWAIT_ACTIVATE,
    STEP_AWAIT_REBOOT,
    STEP_SECRETS_BEFORE,
    STEP_COMMIT_NOW,
    STEP_GUARD_START,
    STEP_ACTIVATE,
    STEP_CONFIRM,
    STEP_SECRETS_AFTER,
    STEP_PROBE,
    STEP_AWAIT_COMMIT,
    STEP_COMMIT,
    STEP_VERIFY,
    STEP_REBOOT,
    STEP_BOOT,
    STEP_SECRETS_BOOT,
    STEP_PROBE_BOOT,
    STEP_VERIFY_BOOT,
    STEP_AWAIT_ROLLBACK,
    STEP_ABORT,
    STEP_REVERT,
    STEP_VERIFY_BACK,
    STEP_PROBE_BACK,
    STEP_LEAVE,
    STEP_FAIL,
    STEP_END,
    STEP_HOLD,
    STEP_REPROBE,
    STEP_UNLOCK,
    STEP_CLOSE,
    STEP_CLOSED,
    STEP_COUNT
};

enum step_result {
    STEP_AGAIN, /* called again when something it waits for has happened */
    STEP_DONE,  /* host->next is set */
    STEP_FAILED /* host->error is set; the table's on_fail follows */
};

enum link_state {
    LINK_DOWN,
    LINK_WAITING,
    LINK_OPENING,
    LINK_UP
};

/* When secrets are uploaded (host_secrets.c). */
enum secrets_phase {
    SECRETS_ALONE,
    SECRETS_BEFORE,
    SECRETS_AFTER,
    SECRETS_BOOT
};
enum secrets_act {
    SECRETS_NOTHING,
    SECRETS_LOOK,
    SECRETS_LOCK,
    SECRETS_PUT,
    SECRETS_RESTART
};
struct host_secrets {
    bool entered; /* in `phase`, and not through with it */
    enum secrets_phase phase;
    enum secrets_act act; /* the operation under way */
    bool guarded;         /* a guard waits meanwhile */
    bool locked;          /* the lock is ours, in this boot */
    bool looked;          /* `is_due` tells; it is NULL before the first look */
    bool *is_due;         /* one each of the inventory's: is missing there, or differs */
    size_t next;          /* of these */
    unsigned written;
    bool restart; /* units are to be restarted */
    bool refused; /* it gets no grant, `refusal` says why */
    struct error refusal;
};

struct link;
/* What host_settled is at. */
enum settle {
    SETTLE_LOOK,
    SETTLE_LOCK,
    SETTLE_REPAIR
};

/* What a connection's callbacks hold on to: the link that it belongs to by now, as the
 * confirmation's connection becomes the host's. */
struct tie {
    struct host *host;
    struct link *link; /* NULL once closed */
};

/* A connection with its root shell. */
struct link {
    struct host *host;
    struct conn *conn;
    struct tie *tie;
    struct shell *shell;
    enum link_state state;
    bool failed; /* the last try failed, `error` says why */
    struct error error;
    char address[128];
};

struct host {
    const struct host_plan plan;
    const struct host_env env;
    const struct host_sink sink;

    enum step step;
    enum step next;
    enum host_state state;
    bool began, driving, again, released;
    uint64_t moved_ms;
    struct error error;    /* why the step failed */
    struct error verdict;  /* the first failure: what the end tells */
    struct error back_why; /* why a healthy host is taken back */
    enum host_state end;   /* the end that STEP_END announces */
    char end_message[ERROR_MESSAGE_MAX];

    /* The running operation of the step. */
    bool op_started, op_done, timed_out, pausing;
    uint32_t restarts; /* of this step, after a lost connection */
    uint32_t retries;  /* of this step, after a script that failed */
    int op_err;
    const struct target_reply *reply; /* during a drive from its callback only */
    struct error op_error;
    int open_handles; /* timers and connections that haven't closed yet */

    uv_timer_t timer; /* the step's deadline */
    uv_timer_t pause; /* between tries and polls */
    uv_timer_t lease; /* renewal of the lock */

    struct link link;
    struct link fresh; /* the confirmation's connection, until it takes the link's place */
    uint32_t link_tries;
    uint32_t connects;         /* connections that were authenticated */
    uint32_t losses;           /* of the link; a look at the probes that saw one says nothing */
    uint64_t link_deadline_ms; /* reconnecting ends here; 0: not reconnecting */
    uint64_t shell_until_ms;   /* a shell that won't start is tried until then; 0: it starts */

    /* What it is, and shall be. */
    char *desired;
    struct host_source source;
    char *current, *booted, *profile, *nix_store;
    char *profile_before; /* as found before the first act */
    int64_t generation;
    char *boot_id;
    char **failed_before;
    size_t failed_before_count;
    char **probes_failed_before;
    size_t probes_failed_before_count;
    bool systemd;
    bool reboot_needed;
    struct error ended_error; /* host_end: ends before anything was touched, and why */
    bool ended;

    /* A reboot. */
    bool reboot_asked; /* of this try: the host has been told */
    bool booting;      /* it is waited for, until boot_until_ms */
    bool booted_anew;  /* and came back */
    uint64_t boot_until_ms;

    /* Going there. */
    char lock_id[33];
    bool locked, lock_lost;
    bool in_doubt; /* a commit without a guard was sent and not answered */
    bool commit_sent;
    bool unguarded; /* `rollback: false`: committed before it was activated, nothing to renew */
    uint64_t lock_wait_until_ms;
    struct copy_job *copy;
    bool compare;              /* tell what the way from `current` to `desired` changes */
    struct closure_pair *pair; /* asked for that, where nothing is copied; ends with its link */
    bool copied;
    bool wanted; /* the step has asked for its grant */
    bool granted[ACT_COUNT];
    bool leave;
    bool going_back; /* a committed host on its way to what it ran before */
    char nonce[33];
    char *old; /* what the guard goes back to */
    int64_t old_generation;
    int64_t to_generation; /* a rollback's commit switches to it; 0: not so */
    bool guard_sent;       /* a start was sent and its answer is not known */
    bool guard_look;       /* asking whether it has gone through */
    bool start_failed;     /* it answered with a failure, in `error` */
    enum settle settle;
    uint32_t gone_looks; /* in a row that found no guard in the middle of its work */
    uint32_t repair_tries;
    char state_line[1024];
    struct guard_state guard;
    bool guard_told; /* by the answer of its start, and not looked at yet */
    uint64_t log_offset;
    uint64_t
        guard_deadline_ms; /* by our own clock, when the guard will have gone back alone; 0: no guard */
    enum guard_phase told_phase; /* as the displays know it */
    uint64_t told_deadline_ms;
    struct health *health;
    bool health_ok, health_bad;
    struct error health_error; /* why it is bad */
    uint32_t health_losses;    /* `losses` when it began */
    struct shell *probe_shell;
    uint64_t renew_at_ms;
    uint64_t answer_until_ms; /* of host_await */
    bool renewing;
    bool reprobe_wanted, reprobe_running;
    bool unlocking, unlock_tried;
    bool adopted;      /* of a resumed run: its guard's word was taken */
    bool adopt_locked; /* ... and the lock */
    bool confirmed;    /* its guard was renewed over a new connection, by this very run */
    struct probe_asks asks;
    struct host_secrets secrets;
};

struct step_def {
    const char *name;
    enum host_state state; /* HOST_STATE_COUNT: leaves the public state alone */
    enum step_result (*run)(struct host *host);
    uint64_t (*timeout_ms)(
        const struct host *host); /* NULL: waits for the coordinator, which has deadlines */
    enum step on_fail;
    bool needs_link;
    uint64_t next; /* bit mask of legal targets, on_fail included */
};

/* ---- host_steps.c ---- */
extern const struct step_def host_steps[STEP_COUNT];

/* ---- host.c ---- */
void host_drive(struct host *host);
/* Sleeps for `ms`, then drives. */
void host_pause(struct host *host, uint64_t ms);
/* Its connection is up, for the first time or again. */
void host_on_link(struct host *host);
/* Opens another root shell on the same connection; what the old one was asked is forgotten. */
void host_reopen_shell(struct host *host);
/* Now, without waiting for the answer: at each third of the lease, and over a new connection. */
void host_renew_lock(struct host *host);

/* ---- host_op.c ---- */
uint64_t host_now(const struct host *host);
void host_set_string(char **slot, const char *value);
bool host_same(const char *a, const char *b);
bool host_says(const struct target_reply *reply, const char *key, const char *value);
/* Sets where to go when the step is DONE. */
enum step_result host_go(struct host *host, enum step next);
/* Records a failure from an operation's error or a text. */
enum step_result host_fail(struct host *host, const struct error *error);
enum step_result host_failf(struct host *host, enum fleet_err code, const char *reason,
                            const char *format, ...) __attribute__((format(printf, 4, 5)));
/* After a script that failed, a few times: the step begins anew in a second. False: enough. */
bool host_try_again(struct host *host);
void host_set_end(struct host *host, enum host_state end, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* True at the first call in a step (or after a restart of it): begin the operation. */
bool host_op_begin(struct host *host);
/* The callback of every target_* operation. */
void host_on_reply(int err, const struct target_reply *reply, const struct error *error, void *arg);
/* A connection may die without a word, and is known to be dead only long after (keepalive, a
 * script's own deadline); while a guard waits there isn't so much time. host_await: the answer of
 * the operation that was just begun is due within `ms`. host_overdue: it hasn't come. */
void host_await(struct host *host, uint64_t ms);
bool host_overdue(const struct host *host);
/* How long a guard's answer is waited for: a third of the time that it gives. */
uint64_t host_patience_ms(const struct host *host);
struct target_env host_target_env(const struct host *host);
struct target_lock host_target_lock(const struct host *host);
/* Asks for a grant, once a step. True when it has been granted. */
bool host_granted(struct host *host, enum act act);
/* The same for an act on another path than the desired system. */
bool host_granted_path(struct host *host, enum act act, const char *path);
void host_log(struct host *host, const char *stream, const char *line, size_t len);
/* Publishes the move to a public state, with reason and message from `error` (may be NULL). */
void host_publish(struct host *host, enum host_state to, const char *reason, const char *message);

/* ---- host_link.c ---- */
void link_init(struct link *link, struct host *host);
void link_open(struct link *link);
void link_close(struct link *link);
/* A line for the run's log, by which later waits are understood. */
void link_tell_loss(struct host *host, const struct error *error);
/* The confirmation's connection becomes the host's; the old one is closed. */
void link_take_fresh(struct host *host);
/* Drives towards an open link: true when it is up; false: wait (or host->error is set and it returns -1). */
int link_ensure(struct host *host);

/* A shell that ended by itself, or does not start (an account that is broken for a moment), while a
 * guard may be armed: true when it is to be tried again over another connection, as long as a host
 * that can't be reached would be. */
bool link_shell_again(struct host *host);

/* ---- steps, by file ---- */
/* host_inspect.c */
enum step_result step_connect(struct host *host);
enum step_result step_inspect(struct host *host);
enum step_result step_repair(struct host *host);
enum step_result step_choose(struct host *host);
enum step_result step_await_build(struct host *host);
enum step_result step_look(struct host *host);
/* host_stage.c */
/* `--lock-timeout`: true when the step asks again in a while, false when that time is over. */
bool host_wait_for_run(struct host *host);
enum step_result host_lock_is_held(struct host *host);
/* Ends the copy's channel, if there is one. */
void host_copy_drop(struct host *host);
enum step_result step_await_copy(struct host *host);
enum step_result step_lock(struct host *host);
enum step_result step_copy(struct host *host);
enum step_result step_root(struct host *host);
enum step_result step_dry_run(struct host *host);
enum step_result step_await_activate(struct host *host);
/* host_activate.c */
enum step_result step_commit_now(struct host *host);
/* What a person should know of the guard before it starts; "" if nothing. */
const char *host_guard_note(const struct host *host);
enum step_result step_guard_start(struct host *host);
enum step_result step_activate(struct host *host);
/* Nothing was activated and nothing needs undoing. */
enum step_result host_activation_inert(struct host *host);
/* host_guard.c */
/* Takes in an answer of guard_poll or guard_request: state, log lines, deadline. */
void host_take_guard(struct host *host);
/* One long poll after the other until the state changes; true when an answer was taken in. */
bool host_guard_poll(struct host *host, struct link *link);
/* True when the guard has gone without a last word. Its state was read a moment before its unit
 * was asked for, so only the second look in a row counts. */
bool host_guard_is_gone(struct host *host);
/* That as the step's failure. */
enum step_result host_guard_has_gone(struct host *host);
/* By its own word it goes back, or has gone back. */
bool host_guard_gave_up(const struct host *host);
/* The guard that a resumed run has found goes back, as nobody was there for most of its time: that
 * judges nothing. What becomes of the host is looked at again. */
bool host_guard_found_too_late(const struct host *host);
/* What follows from its going back: a failure, or a new look. */
enum step_result host_guard_goes_back(struct host *host);
/* What a guard's state says went wrong; always FAILED. */
enum step_result host_activation_failed(struct host *host);
/* It has seen a renewal: when the next one is due. */
void host_guard_renewed(struct host *host);
/* Nothing is committed under somebody else's lock; an abort may always be sent. */
enum step_result host_lock_was_lost(struct host *host);
/* Renews the guard's deadline (and the lock) at a third of it. FAILED when the guard has gone back by
 * itself; otherwise AGAIN. While op_started a renewal is under way, or something else is. */
enum step_result host_renew_guard(struct host *host);
/* host_confirm.c */
enum step_result step_confirm(struct host *host);
enum step_result step_probe(struct host *host);
enum step_result step_await_commit(struct host *host);
enum step_result step_commit(struct host *host);
enum step_result step_verify(struct host *host);
/* host_secrets.c */
/* The host has something to do in that phase of this run. */
bool host_has_secrets(const struct host *host, enum secrets_phase phase);
/* 1: all of the host's secrets are at hand; 0: some are being read, host_poke follows; -1: host->error
 * says which can't be had. */
int host_secrets_ready(struct host *host);
void host_secrets_free(struct host *host);
/* It runs its system already and is about to get its secrets, nothing else. */
bool host_is_alone(const struct host *host);
/* Its grant is refused: true where it waited for one in the middle of its change, and fails now. */
bool host_secrets_refuse(struct host *host, const struct error *error);
enum step_result step_secrets(struct host *host);
enum step_result step_await_secret(struct host *host);
enum step_result step_upload(struct host *host);
enum step_result step_secrets_before(struct host *host);
enum step_result step_secrets_after(struct host *host);
enum step_result step_secrets_boot(struct host *host);
/* host_resume.c */
void host_resume_init(struct host *host);
/* The units that had failed before the change, as the guard recorded them, or where it is gone the
 * journal: by now the new system's own may have. */
void host_resume_failed_before(struct host *host);
/* In the drive of an inspection: true where STEP_ADOPT has to follow. */
bool host_resume_is_due(struct host *host);
enum step_result step_adopt(struct host *host);
/* host_reboot.c */
/* `fleet reboot`, after the look: what it shall run is what its profile says. */
enum step_result host_begin_reboot(struct host *host);
/* After a commit: the policy asks for a reboot, and there was none yet. */
bool host_reboot_is_due(const struct host *host, const struct target_reply *reply);
enum step_result step_await_reboot(struct host *host);
enum step_result step_reboot(struct host *host);
enum step_result step_boot(struct host *host);
enum step_result step_probe_boot(struct host *host);
enum step_result step_verify_boot(struct host *host);
/* host_back.c */
#define HOST_REPAIRS 3u /* of one record */
enum step_result host_unfinished(struct host *host);
/* Asks the host what it is, once its guard is gone; what a power cut has left half done is finished
 * first, under the lock. DONE: `reply` is target_inspect's, and no record is left. */
enum step_result host_settled(struct host *host);
enum step_result step_await_rollback(struct host *host);
enum step_result step_abort(struct host *host);
enum step_result step_revert(struct host *host);
enum step_result step_verify_back(struct host *host);
enum step_result step_probe_back(struct host *host);
/* Adds to the end's message what the old system's probes say, if they failed. */
void host_tell_old_probes(struct host *host);
/* host_leave.c */
/* Ends a host that was committed before its activation, which failed or whose probes did. */
enum step_result host_stays_committed(struct host *host);
/* Its guard has left the new system as it runs, and ended. */
bool host_guard_has_left(const struct host *host);
/* Says in the verdict why a host goes back that should have been left. */
void host_tell_not_left(struct host *host);
/* The end of a host whose guard was told to leave it, after the verdict if there is one. */
void host_set_left(struct host *host);
enum step_result step_leave(struct host *host);
/* host_back.c */
enum step_result step_fail(struct host *host);
enum step_result step_end(struct host *host);
enum step_result step_hold(struct host *host);
enum step_result step_reprobe(struct host *host);
enum step_result step_unlock(struct host *host);
enum step_result step_close(struct host *host);
enum step_result step_closed(struct host *host);

/* ---- host_health.c ---- */
/* A probe that failed before the change: it is reported later on, not counted. */
void host_failed_before(struct host *host, const char *name);
enum host_look {
    LOOK_ONCE,  /* one round of every probe */
    LOOK_AGAIN, /* at a host that was healthy: one pass of each, or `failures` in a row */
    LOOK_OVER_TIME
};
void host_health_start(struct host *host, enum host_look look);
/* As start; begun anew where the connection was lost in the middle: true when health_ok or
 * health_bad tells. */
bool host_health_look(struct host *host, enum host_look look);
void host_health_stop(struct host *host);
/* The shells that were asked are closed: no answer will come. */
void host_asks_drop(struct host *host);

#endif
