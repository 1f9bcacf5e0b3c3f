/* What is told of a rollout: its result, its exit code, and why it waits. */
#include <string.h>

#include "core/base/text.h"
#include "core/rollout_parts.h"

/* What the exit code and the result depend on. */
struct tally {
    bool lost;   /* a host is on neither system for sure */
    bool failed; /* after its build */
    bool unbuilt;
    bool locked;
    bool skipped;     /* other than offline */
    bool unreachable; /* more than allowed */
};

static struct tally take_tally(const struct rollout *rollout) {
    const size_t *states = rollout->states;
    struct tally tally = {
        .lost = states[HOST_ROLLBACK_FAILED] + states[HOST_UNKNOWN] > 0,
        .failed = states[HOST_ROLLED_BACK] > 0 ||
                  (states[HOST_REBOOT_REQUIRED] > 0 && rollout->action != ACTION_BOOT),
        .unreachable = states[HOST_UNREACHABLE] > rollout->unreachable_allowed,
    };
    for (size_t i = 0; i < rollout->count; i++) {
        const struct member *member = &rollout->members[i];
        tally.failed |= member->failed_late;
        if (member->state == HOST_FAILED) {
            tally.unbuilt |= member->fate == FATE_BUILD;
            tally.failed |= member->fate != FATE_BUILD;
        } else if (member->state == HOST_SKIPPED) {
            tally.locked |= member->fate == FATE_LOCKED;
            tally.skipped |= member->fate != FATE_LOCKED && member->fate != FATE_OFFLINE;
        }
    }
    return tally;
}

static bool waits_for_a_person(const struct rollout *rollout) {
    return rollout->left_waiting || rollout->phase == PHASE_PROMOTE ||
           (rollout->paused && rollout->phase != PHASE_OVER && rollout->phase != PHASE_ENDED);
}

/* CONTRACT, Exit codes: the first that applies of 4, 1, 3, 9, 7, 6, 5. */
static int exit_code(const struct rollout *rollout, int signal, const char **ret_result) {
    const struct tally tally = take_tally(rollout);
    const struct {
        bool applies;
        int code;
        const char *result;
    } rules[] = {
        {tally.lost, 4, "unknown-hosts"},
        {signal != 0, 128 + signal, "interrupted"},
        {tally.failed, 3, "failed"},
        {tally.unbuilt, 9, "build-failed"},
        {tally.locked, 7, "locked"},
        {waits_for_a_person(rollout), 6, "paused"},
        {tally.unreachable, 5, "unreachable"},
        {tally.skipped, 5, "skipped"},
        {true, 0, "done"},
    };
    size_t i = 0;
    while (!rules[i].applies) {
        i++;
    }
    *ret_result = rules[i].result;
    return rules[i].code;
}

int rollout_exit_code(const struct rollout *rollout, int signal) {
    const char *result;
    return exit_code(rollout, signal, &result);
}

const char *rollout_result(const struct rollout *rollout, int signal) {
    const char *result;
    exit_code(rollout, signal, &result);
    return result;
}

/* ---- why it waits ---- */

/* What a host is doing, after "db1 " or "3 hosts ". */
static const struct doing {
    enum host_state state;
    const char *one, *many;
} doing[] = {
    {HOST_ROLLING_BACK, "goes back", "go back"},
    {HOST_REBOOTING, "reboots", "reboot"},
    {HOST_ACTIVATING, "is being activated", "are being activated"},
    {HOST_CONFIRMING, "is being reached anew", "are being reached anew"},
    {HOST_PROBING, "is being probed", "are being probed"},
    {HOST_COMMITTING, "commits", "commit"},
    {HOST_STAGING, "is being copied to", "are being copied to"},
    {HOST_BUILDING, "is being built", "are being built"},
    {HOST_CONNECTING, "is being connected to", "are being connected to"},
};

/* The one host in `state`, of the current wave if there is one. */
static const struct member *find_in(const struct rollout *rollout, enum host_state state) {
    for (size_t i = 0; i < rollout->count; i++) {
        if (rollout->members[i].state == state) {
            return &rollout->members[i];
        }
    }
    return NULL;
}

static void add_doing(const struct rollout *rollout, const struct doing *what, struct buf *out) {
    size_t count = rollout->states[what->state];
    const struct member *only = count == 1 ? find_in(rollout, what->state) : NULL;
    if (only != NULL) {
        buf_printf(out, "%s %s", only->host->name, what->one);
    } else {
        buf_printf(out, "%zu hosts %s", count, what->many);
    }
}

/* "db1 is being probed", "3 hosts are being activated, 2 hosts are being probed"; at most two. */
static bool add_busy(const struct rollout *rollout, struct buf *out) {
    int told = 0;
    for (size_t i = 0; i < sizeof(doing) / sizeof(doing[0]) && told < 2; i++) {
        if (rollout->states[doing[i].state] > 0) {
            buf_add_text(out, told++ > 0 ? ", " : "");
            add_doing(rollout, &doing[i], out);
        }
    }
    return told > 0;
}

static const char *stop_words(const char *reason) {
    static const struct {
        const char *reason;
        const char *words;
    } known[] = {
        {"max-failed", "it stops, as more hosts failed than max_failed allows"},
        {"max-unreachable", "it stops, as more hosts are unreachable than max_unreachable allows"},
        {"no-healthy-host", "it stops, as a wave ended without a healthy host"},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(known[i].reason, reason) == 0) {
            return known[i].words;
        }
    }
    return "it stops: no more hosts are started";
}

static void add_bake(const struct rollout *rollout, uint64_t now_ms, struct buf *out) {
    uint64_t left = rollout->bake_until_ms > now_ms ? rollout->bake_until_ms - now_ms : 0;
    buf_printf(out, "wave %zu bakes for ", rollout->wave);
    text_add_duration(out, left);
    buf_add_text(out, " more, then it is probed again");
}

/* Hosts stand still in the current wave; on what? */
static void add_standstill(const struct rollout *rollout, struct buf *out) {
    if (rollout->unreached > 0) {
        buf_printf(out, "%zu hosts have not answered yet", rollout->unreached);
    } else if (rollout->policy->prestage == INV_PRESTAGE_ALL && rollout->unstaged > 0) {
        buf_printf(out, "%zu hosts must have their copy before the first is activated",
                   rollout->unstaged);
    } else {
        buf_printf(out, "wave %zu of %zu is about to go on", rollout->wave, rollout->wave_count);
    }
}

static void add_wave_waiting(const struct rollout *rollout, struct buf *out) {
    size_t used = slots_used(rollout->activation);
    if (used > 1 && used >= slots_limit(rollout->activation)) {
        buf_printf(out, "all %zu slots are busy: ", used);
    }
    if (!add_busy(rollout, out)) {
        add_standstill(rollout, out);
    }
}

static void add_reprobes(const struct rollout *rollout, struct buf *out) {
    buf_printf(out, "wave %zu is probed again: %zu host%s left", rollout->wave,
               rollout->reprobes_pending, rollout->reprobes_pending == 1 ? " is" : "s are");
}

/* After why no host begins: what goes on all the same. */
static void add_rest(const struct rollout *rollout, struct buf *out) {
    struct buf busy = BUF_INIT;
    if (add_busy(rollout, &busy)) {
        buf_printf(out, "; %s", buf_text(&busy));
    } else if (rollout->reprobes_pending > 0) {
        buf_add_text(out, "; ");
        add_reprobes(rollout, out);
    }
    buf_free(&busy);
}

void rollout_waiting(const struct rollout *rollout, uint64_t now_ms, struct buf *out) {
    if (rollout->phase == PHASE_NEW) {
        buf_add_text(out, "it has not begun");
    } else if (rollout->phase == PHASE_ENDED) {
        buf_add_text(out, rollout->stopped ? stop_words(rollout->stop_reason) : "it is over");
    } else if (rollout->phase == PHASE_PROMOTE && !rollout->stopped) {
        buf_printf(out, "wave %zu is done; wave %zu waits for promotion", rollout->wave,
                   rollout->wave + 1);
    } else if (rollout->stopped) {
        buf_add_text(out, stop_words(rollout->stop_reason));
        add_rest(rollout, out);
    } else if (rollout->paused) {
        buf_add_text(out, "it is paused by a person");
        add_rest(rollout, out);
    } else if (rollout->phase == PHASE_BAKE) {
        add_bake(rollout, now_ms, out);
    } else if (rollout->reprobes_pending > 0) {
        add_reprobes(rollout, out);
    } else {
        add_wave_waiting(rollout, out);
    }
}
