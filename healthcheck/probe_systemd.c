/* Units: by default none that fails because of this update; with `units` all of them active.
 *
 * A service with Restart= and a slow RestartSec never becomes "failed" (FIELD-NOTES,
 * switch-to-configuration), so a crash loop is its own finding: `auto-restart` with a status that
 * isn't 0, or NRestarts grown. The count that it is compared with is taken anew while the grace
 * time lasts: a service that came up at its second try is no crash loop, one that goes on is.
 *
 * Conclusive: a unit that has failed or loops doesn't get better by asking again. A unit on its
 * way (activating, reloading, deactivating), and one that hasn't been active yet, is only not there
 * yet.
 */
#include <fnmatch.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "healthcheck/probe.h"

struct restarts {
    char *unit;
    uint32_t first; /* at the first look: from before the update, unless it changed the unit */
    uint32_t count; /* to compare with */
};

struct systemd_state {
    bool has_looked;
    bool has_passed;
    struct restarts *restarts; /* as last seen in the grace time, or at the first look */
    size_t restart_count;
};

/* What one look found. */
struct finding {
    struct buf failed;    /* "web.service failed (exit status 1)", comma separated */
    struct buf not_there; /* "web.service is activating" */
    struct buf noted;     /* reported, not counted */
    size_t active;
};

static bool matches_any(const struct inv_strings *globs, const char *name) {
    for (size_t i = 0; i < globs->count; i++) {
        if (fnmatch(globs->items[i], name, 0) == 0) {
            return true;
        }
    }
    return false;
}

__attribute__((format(printf, 2, 3))) static void add_part(struct buf *out, const char *format,
                                                           ...) {
    /* A host with a thousand failed units shall not fill the journal. */
    if (out->len > 400) {
        return;
    }
    if (out->len > 0) {
        buf_add_text(out, ", ");
    }
    va_list args;
    va_start(args, format);
    buf_vprintf(out, format, args);
    va_end(args);
}

static struct restarts *restarts_of(struct systemd_state *state, const char *unit) {
    for (size_t i = 0; i < state->restart_count; i++) {
        if (strcmp(state->restarts[i].unit, unit) == 0) {
            return &state->restarts[i];
        }
    }
    state->restarts =
        xrealloc(state->restarts, (state->restart_count + 1) * sizeof(*state->restarts));
    struct restarts *known = &state->restarts[state->restart_count++];
    *known = (struct restarts){.unit = xstrdup(unit)};
    return known;
}

/* Whether NRestarts has grown since the activation, as far as it counts. */
static bool has_restarted(struct probe *probe, const struct health_unit *unit) {
    struct systemd_state *state = probe->state;
    struct restarts *known = restarts_of(state, unit->name);
    if (!state->has_looked) {
        known->first = known->count = unit->restarts;
    }
    /* One that restarts by design (Restart=always, status 0) did so before the update. */
    bool by_design = !unit->changed && known->first > 0 && unit->exec_status == 0;
    bool grown = unit->restarts > known->count && !by_design;
    if (probe_in_grace(probe) || unit->restarts < known->count) {
        known->count = unit->restarts;
    }
    return grown;
}

/* True if the unit is broken, with the words for it in `why`. */
static bool is_broken(struct probe *probe, const struct health_unit *unit, struct buf *why) {
    bool restarted = has_restarted(probe, unit);
    if (strcmp(unit->active, "failed") == 0) {
        buf_add_text(why, "failed");
        if (unit->exec_status > 0) {
            buf_printf(why, " (exit status %d)", unit->exec_status);
        }
        return true;
    }
    if (restarted || (strcmp(unit->sub, "auto-restart") == 0 && unit->exec_status != 0)) {
        buf_printf(why, "restarts over and over (%u so far, exit status %d)", unit->restarts,
                   unit->exec_status);
        return true;
    }
    return false;
}

/* Whether the update has to answer for this unit; if not, why. */
static bool is_counted(const struct probe *probe, const struct health_unit *unit,
                       const char **ret_why) {
    if (probe_unit_failed_before(probe, unit->name)) {
        *ret_why = "had failed before";
        return false;
    }
    if (!unit->changed && unit->never_active) {
        *ret_why = "a job that this update did not change";
        return false;
    }
    return true;
}

static void look_at(struct probe *probe, const struct health_unit *unit, struct finding *found) {
    bool named = matches_any(&probe->entry->units, unit->name);
    if (matches_any(&probe->entry->ignore, unit->name) ||
        (probe->entry->units.count > 0 && !named)) {
        return;
    }
    struct systemd_state *state = probe->state;
    struct buf why = BUF_INIT;
    const char *excuse = NULL;
    if (is_broken(probe, unit, &why)) {
        if (!named && !is_counted(probe, unit, &excuse)) {
            add_part(&found->noted, "%s %s, not counted: %s", unit->name, buf_text(&why), excuse);
        } else {
            add_part(&found->failed, "%s %s", unit->name, buf_text(&why));
        }
    } else if (!named) {
        /* Nothing to say about a unit that runs. */
    } else if (strcmp(unit->active, "active") == 0 || strcmp(unit->active, "reloading") == 0) {
        found->active++;
    } else if (state->has_passed && strcmp(unit->active, "inactive") == 0) {
        add_part(&found->failed, "%s has stopped", unit->name);
    } else {
        add_part(&found->not_there, "%s is %s (%s)", unit->name, unit->active, unit->sub);
    }
    buf_free(&why);
}

/* A named unit that doesn't exist is no success. */
static void look_for_missing(const struct probe *probe, const struct health_units *units,
                             struct finding *found) {
    for (size_t i = 0; i < probe->entry->units.count; i++) {
        const char *glob = probe->entry->units.items[i];
        bool seen = false;
        for (size_t k = 0; k < units->count && !seen; k++) {
            seen = fnmatch(glob, units->items[k].name, 0) == 0;
        }
        if (!seen) {
            add_part(&found->not_there, "no unit matches %s", glob);
        }
    }
}

/* `any`: the host has units at all. */
static void conclude(struct probe *probe, struct finding *found, bool any) {
    struct systemd_state *state = probe->state;
    state->has_looked = true;
    if (found->failed.len > 0) {
        probe_done(probe, GATE_FAIL_CONCLUSIVE, "%s", buf_text(&found->failed));
    } else if (found->not_there.len > 0) {
        probe_done(probe, GATE_FAIL, "%s", buf_text(&found->not_there));
    } else {
        state->has_passed = true;
        if (found->noted.len > 0) {
            probe_done(probe, GATE_PASS, "no new failure; %s", buf_text(&found->noted));
        } else if (probe->entry->units.count > 0) {
            probe_done(probe, GATE_PASS, "%zu active", found->active);
        } else {
            /* Not one service is what a host without systemd has. */
            probe_done(probe, GATE_PASS,
                       any ? "no unit has failed" : "no systemd here, so no unit was looked at");
        }
    }
}

static void on_units(const struct health_units *units, void *arg) {
    struct probe *probe = probe_answered(arg);
    if (probe == NULL) {
        return;
    }
    if (units->error != NULL) {
        probe_done(probe, GATE_FAIL, "the host cannot say: %s", units->error->message);
        return;
    }
    if (probe->state == NULL) {
        probe->state = xcalloc(1, sizeof(struct systemd_state));
    }
    struct finding found = {0};
    for (size_t i = 0; i < units->count; i++) {
        look_at(probe, &units->items[i], &found);
    }
    look_for_missing(probe, units, &found);
    conclude(probe, &found, units->count > 0);
    buf_free(&found.failed);
    buf_free(&found.not_there);
    buf_free(&found.noted);
}

static void start(struct probe *probe) {
    if (probe->env->units == NULL) {
        probe_done(probe, GATE_FAIL, "no connection to the host");
        return;
    }
    /* A service that dies every few seconds and is started at once is "running" whenever one looks;
     * only its NRestarts tells, so the default rule looks at every service. */
    static const char *const services[] = {"*.service"};
    const struct inv_strings *named = &probe->entry->units;
    bool all = named->count == 0;
    struct probe_question *question = probe_ask(probe);
    probe->env->units(all ? services : named->items, all ? ARRAY_LEN(services) : named->count,
                      on_units, question, probe->env->arg);
}

static void release(struct probe *probe) {
    struct systemd_state *state = probe->state;
    for (size_t i = 0; i < state->restart_count; i++) {
        auto_free(&state->restarts[i].unit);
    }
    auto_free(&state->restarts);
    auto_free(&state);
}

const struct probe_type probe_systemd = {
    .name = "systemd",
    .start = start,
    .cancel = probe_give_up,
    .release = release,
};
