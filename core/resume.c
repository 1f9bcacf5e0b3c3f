/* What is left to do of a run (see resume.h). */
#include "core/resume.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"

static bool says(const char *text, const char *what) {
    return text != NULL && strcmp(text, what) == 0;
}

static char *copy(const char *text) {
    return text != NULL ? xstrdup(text) : NULL;
}

/* What a run does at its end with one that it had not begun yet. */
static bool was_put_off(const struct view_host *host) {
    return host->state == HOST_SKIPPED && says(host->reason, "stopped");
}

static bool has_ended(const struct view *view, const struct view_host *host) {
    bool staged_end = host->state == HOST_STAGED && view->action == ACTION_PUSH;
    return (host_state_is_end(host->state) || staged_end) && host->state != HOST_UNKNOWN &&
           !was_put_off(host);
}

/* Its change was granted, and no later try was left before it was. */
static bool has_begun(const struct view_host *host) {
    return (host->granted[ACT_ACTIVATE] || host->granted[ACT_REBOOT]) && !was_put_off(host);
}

/* Healthy once, and told to go back for the others' sake. */
static bool was_taken_back(const struct view_host *host) {
    return host->state_at_ms[HOST_HEALTHY] != 0 && host->granted[ACT_ROLLBACK] &&
           host->verdict_rollback;
}

static enum resume_how how_of(const struct view *view, const struct view_host *host) {
    bool going = was_taken_back(host) && host->state == HOST_HEALTHY;
    if (has_ended(view, host) && !going) {
        return RESUME_KEEP;
    }
    return has_begun(host) ? RESUME_ASK : RESUME_ANEW;
}

static void fill_ask(struct resume_host *ret, const struct view_host *host) {
    bool lost = host->state == HOST_UNKNOWN;
    bool reboots = host->granted[ACT_REBOOT] && !was_taken_back(host);
    ret->ask = (struct host_resume){
        .back = host->verdict_rollback || lost,
        .taken_back = was_taken_back(host),
        .nonce = copy(host->nonce),
        .old = copy(host->first_current),
        .old_generation = host->first_generation,
        .desired = copy(ret->path),
        .reason = copy(host->reason),
        .verdict = copy(host->verdict != NULL ? host->verdict
                        : lost                ? host->message
                                              : NULL),
        .boot_id = reboots ? copy(host->boot_id) : NULL,
        .units_before = copy(host->units_before),
        .probes_before = copy(host->failed_before),
    };
}

static void fill(struct resume_host *ret, const struct view *view, const struct view_host *host) {
    *ret = (struct resume_host){.how = how_of(view, host),
                                .state = host->state,
                                .reason = copy(host->reason),
                                .touched = has_begun(host)};
    if (ret->touched) {
        ret->path = copy(host->granted_path);
    } else {
        ret->path = copy(host->built != NULL ? host->built : host->desired);
    }
    if (ret->touched) {
        fill_ask(ret, host);
    }
}

/* How many waves from the first on have wholly ended. */
static size_t count_waves_done(const struct view *view) {
    size_t done = view->waves_ended;
    for (size_t i = 0; i < view->host_count; i++) {
        const struct view_host *host = &view->hosts[i];
        if (!has_ended(view, host) && host->wave > 0 && host->wave <= done) {
            done = host->wave - 1;
        }
    }
    return done;
}

/* Waves without a gap, whatever the journal says. */
static uint32_t *number_waves(const struct view *view) {
    uint32_t *waves = xcalloc(view->host_count + 1, sizeof(*waves));
    uint32_t number = 0;
    for (size_t left = view->host_count; left > 0;) {
        uint32_t next = UINT32_MAX;
        for (size_t i = 0; i < view->host_count; i++) {
            if (waves[i] == 0 && view->hosts[i].wave < next) {
                next = view->hosts[i].wave;
            }
        }
        number++;
        for (size_t i = 0; i < view->host_count; i++) {
            if (waves[i] == 0 && view->hosts[i].wave == next) {
                waves[i] = number;
                left--;
            }
        }
    }
    return waves;
}

struct resume *resume_new(const struct view *view, bool probes_again) {
    struct resume *resume = xcalloc(1, sizeof(*resume));
    resume->count = view->host_count;
    resume->hosts = xcalloc(view->host_count + 1, sizeof(*resume->hosts));
    resume->waves = number_waves(view);
    resume->waves_done = count_waves_done(view);
    resume->waits = says(view->paused, "promote") && view->waves_ended == resume->waves_done;
    for (size_t i = 0; i < view->host_count; i++) {
        const struct view_host *host = &view->hosts[i];
        struct resume_host *item = &resume->hosts[i];
        fill(item, view, host);
        if (probes_again && item->touched && host->state == HOST_HEALTHY &&
            item->how == RESUME_KEEP && resume->waves[i] > resume->waves_done) {
            item->how = RESUME_ASK;
            item->ask.was_healthy = true;
        }
    }
    return resume;
}

/* The pipeline's strings are const for it, and were allocated here. */
static void free_const(const char *text) {
    free((void *)(uintptr_t)text);
}

void resume_free(struct resume *resume) {
    if (resume == NULL) {
        return;
    }
    for (size_t i = 0; i < resume->count; i++) {
        struct resume_host *host = &resume->hosts[i];
        free(host->reason);
        free(host->path);
        free_const(host->ask.nonce);
        free_const(host->ask.old);
        free_const(host->ask.desired);
        free_const(host->ask.reason);
        free_const(host->ask.verdict);
        free_const(host->ask.boot_id);
        free_const(host->ask.units_before);
        free_const(host->ask.probes_before);
    }
    free(resume->hosts);
    free(resume->waves);
    free(resume);
}

bool resume_is_due(const struct view *view) {
    if (!view->ended || says(view->result, "interrupted") || says(view->result, "paused") ||
        view->exit == 1) {
        return true;
    }
    for (size_t i = 0; i < view->host_count; i++) {
        if (how_of(view, &view->hosts[i]) != RESUME_KEEP && view->action != ACTION_BUILD &&
            view->action != ACTION_DRY_ACTIVATE) {
            return true;
        }
    }
    return false;
}

/* It went back because nobody was there any more, with the host's power, or told to by a run whose
 * journal could not say so any more: no word about the new system. */
static bool went_back_unjudged(const char *why) {
    return strcmp(why, "deadline") == 0 || strcmp(why, "abort") == 0 ||
           strcmp(why, "killed") == 0 || strcmp(why, "reboot") == 0 ||
           strcmp(why, "power-cut") == 0;
}

static enum adopt judge_alive(const struct guard_state *said, bool back) {
    switch (said->phase) {
    case GUARD_ACTIVE:
        if (said->fault[0] != '\0') {
            return ADOPT_FOLLOW; /* failed, and to be left: whoever follows it judges it so, too */
        }
        return back ? ADOPT_ABORT : ADOPT_FOLLOW;
    case GUARD_ACTIVATING:
        return back ? ADOPT_ABORT : ADOPT_FOLLOW;
    case GUARD_COMMITTING:
        return ADOPT_COMMIT;
    case GUARD_NONE:
    case GUARD_COMMITTED:
    case GUARD_REVERTING:
    case GUARD_REVERTED:
    case GUARD_REVERT_FAILED:
    case GUARD_INERT:
        break;
    }
    return ADOPT_WAIT;
}

enum adopt resume_judge(const struct guard_state *said, bool alive, bool back, bool guarded) {
    enum adopt unjudged = back ? ADOPT_BACK : ADOPT_ANEW;
    if (alive) {
        return judge_alive(said, back);
    }
    switch (said->phase) {
    case GUARD_NONE:
    case GUARD_ACTIVATING:
    case GUARD_ACTIVE:
        return unjudged;
    case GUARD_COMMITTING:
        return ADOPT_VERIFY;
    case GUARD_COMMITTED:
        return guarded ? ADOPT_VERIFY : ADOPT_FOLLOW;
    case GUARD_REVERTING:
    case GUARD_REVERTED:
        return went_back_unjudged(said->why) ? unjudged : ADOPT_BACK;
    case GUARD_REVERT_FAILED:
        return ADOPT_BACK;
    case GUARD_INERT:
        if (strcmp(said->why, "leave") == 0) {
            return ADOPT_LEFT;
        }
        /* "reboot" here: the activation asked for one. */
        return strcmp(said->why, "reboot") == 0 || strcmp(said->why, "exec") == 0 ? ADOPT_INERT
                                                                                  : unjudged;
    }
    return unjudged;
}
