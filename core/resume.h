/* Resuming a run: what its journal says is still to be done, and what a host's guard says has become
 * of a change that had begun. Pure: reads a folded journal and a guard's words, and nothing else.
 *
 * A host that has ended stays as it is. One whose change had been granted is asked what is true, and
 * followed from there; nothing is repeated. All others, and those that were skipped because the run
 * was stopped, begin anew.
 */
#ifndef FLEET_CORE_RESUME_H
#define FLEET_CORE_RESUME_H

#include "core/host.h"
#include "core/target.h"
#include "core/view.h"

enum resume_how {
    RESUME_KEEP, /* has ended, for good */
    RESUME_ANEW, /* nothing on it has changed */
    RESUME_ASK   /* its change was granted: the host says what became of it */
};

struct resume_host {
    enum resume_how how;
    enum host_state state;  /* as recorded */
    char *reason;           /* of that state, or NULL */
    bool touched;           /* its change was granted once */
    char *path;             /* what it is to run, or NULL: not known */
    struct host_resume ask; /* where `touched`: for its pipeline; the strings are owned here */
};

struct resume {
    struct resume_host *hosts; /* in the order of the view */
    size_t count;
    uint32_t *waves;   /* of each host, from 1; as struct rollout_plan wants them */
    size_t waves_done; /* the first waves, all hosts of which have ended */
    bool waits;        /* for promotion after those */
};

/* Everything is copied out of the view. `probes_again`: also ask the hosts of a wave under way that
 * have ended well, as a run does that goes on: it probes the wave again at its end. Free with
 * resume_free. */
struct resume *resume_new(const struct view *view, bool probes_again);
void resume_free(struct resume *resume);

/* True where a run that does not live has anything left to do: it died, was interrupted or waits for
 * promotion, or a host of it is on neither system for sure. */
bool resume_is_due(const struct view *view);

/* What to do with a host whose change had begun. */
enum adopt {
    ADOPT_WAIT,   /* its guard is about to end: look again */
    ADOPT_FOLLOW, /* the activation runs, or waits to be confirmed */
    ADOPT_COMMIT, /* the commit runs */
    ADOPT_VERIFY, /* committed, as it seems */
    ADOPT_ABORT,  /* it waits, and is to go back */
    ADOPT_BACK,   /* it has gone back, on a verdict */
    ADOPT_LEFT,   /* it runs on, uncommitted, without a guard */
    ADOPT_INERT,  /* nothing was activated, and trying again would not help */
    ADOPT_ANEW    /* it runs what it ran before: nothing was ever judged */
};
/* `said`: the guard's state, or its last word (GUARD_NONE: it never had any). `alive`: it is at work.
 * `back`: the host was to go back. `guarded`: it was to be committed by its guard. */
enum adopt resume_judge(const struct guard_state *said, bool alive, bool back, bool guarded);

#endif
