/* What an activation would do to the units, by switch-to-configuration's rules (see plan.h).
 *
 * Files are compared byte by byte, where newer versions of the tool compare parsed ones and overlook
 * a changed order: a plan may name a restart too many, never one too few. Targets are never
 * restarted; slices, paths, sockets and swaps are left to systemd, as there.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "core/plan.h"

/* SHA-256 of nothing: a unit that is a link to /dev/null. */
#define HASH_MASKED "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

struct comparison {
    const struct plan_system *from, *to;
    const struct plan_list *active;
    struct plan_units *ret;
};

static const char *const act_names[PLAN_UNIT_ACTS] = {[PLAN_STOP] = "stop",
                                                      [PLAN_START] = "start",
                                                      [PLAN_RESTART] = "restart",
                                                      [PLAN_RELOAD] = "reload"};

const char *plan_unit_act_name(enum plan_unit_act act) {
    return act_names[act];
}

static bool ends_with(const char *text, const char *end) {
    size_t len = strlen(text);
    size_t end_len = strlen(end);
    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

/* The unit's own file, or its template's ("getty@tty1.service": "getty@.service"). NULL also where
 * it is masked. */
static struct plan_unit *file_of(const struct plan_system *system, const char *unit) {
    struct plan_unit *found = plan_system_unit(system, unit);
    const char *at = strchr(unit, '@');
    const char *dot = strrchr(unit, '.');
    if (found == NULL && at != NULL && dot != NULL && dot > at) {
        AUTO_FREE char *name = xasprintf("%.*s%s", (int)(at + 1 - unit), unit, dot);
        found = plan_system_unit(system, name);
    }
    return found != NULL && strcmp(found->hash, HASH_MASKED) != 0 ? found : NULL;
}

/* Every drop-in of `unit` in `a` is in `b`, too, and the same. */
static bool has_drop_ins(const struct plan_system *a, const struct plan_system *b,
                         const char *unit) {
    size_t len = strlen(unit);
    for (size_t i = 0; i < a->unit_count; i++) {
        const struct plan_unit *each = &a->units[i];
        if (strncmp(each->name, unit, len) != 0 || strncmp(each->name + len, ".d/", 3) != 0) {
            continue;
        }
        const struct plan_unit *other = plan_system_unit(b, each->name);
        if (other == NULL || strcmp(other->hash, each->hash) != 0) {
            return false;
        }
    }
    return true;
}

static bool is_changed(const struct comparison *all, const struct plan_unit *old,
                       const struct plan_unit *new) {
    return strcmp(old->hash, new->hash) != 0 || !has_drop_ins(all->from, all->to, new->name) ||
           !has_drop_ins(all->to, all->from, new->name);
}

static void add(struct comparison *all, enum plan_unit_act act, const char *unit) {
    plan_list_add(&all->ret->acts[act], unit);
}

static void compare_active(struct comparison *all, const char *unit) {
    static const char *const left_alone[] = {".target", ".slice", ".path",  ".socket",
                                             ".swap",   ".scope", ".device"};
    const struct plan_unit *old = file_of(all->from, unit);
    if (old == NULL) {
        return; /* not of the system's own making */
    }
    const struct plan_unit *new = file_of(all->to, unit);
    if (new == NULL) {
        if (!old->keep_on_removal) {
            add(all, PLAN_STOP, unit);
        }
        return;
    }
    if (!is_changed(all, old, new)) {
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(left_alone); i++) {
        if (ends_with(unit, left_alone[i])) {
            return;
        }
    }
    if (new->reload || ends_with(unit, ".mount")) {
        add(all, PLAN_RELOAD, unit);
    } else if (!new->leave) {
        add(all, PLAN_RESTART, unit);
    }
}

/* The unit of "multi-user.target.wants/web.service" if `target` is the first part; else NULL. */
static const char *wanted_by(const char *want, const char *target) {
    size_t len = strlen(target);
    const char *slash = strchr(want, '/');
    if (slash == NULL || strncmp(want, target, len) != 0) {
        return NULL;
    }
    size_t rest = (size_t)(slash - want) - len;
    bool fits = (rest == strlen(".wants") && strncmp(want + len, ".wants", rest) == 0) ||
                (rest == strlen(".requires") && strncmp(want + len, ".requires", rest) == 0);
    return fits ? slash + 1 : NULL;
}

/* What `target` wants in the new system and didn't in the old one; targets among it are followed. */
static void start_wanted(struct comparison *all, const char *target, struct plan_list *targets) {
    for (size_t i = 0; i < all->to->wants.count; i++) {
        const char *want = all->to->wants.items[i];
        const char *unit = wanted_by(want, target);
        if (unit == NULL || plan_list_has(all->active, unit) || file_of(all->to, unit) == NULL ||
            (plan_list_has(&all->from->wants, want) && file_of(all->from, unit) != NULL)) {
            continue;
        }
        if (ends_with(unit, ".target")) {
            plan_list_add(targets, unit);
        } else {
            add(all, PLAN_START, unit);
        }
    }
}

/* Bounded: targets that want each other are followed once round at most. */
static void compare_wants(struct comparison *all) {
    struct plan_list targets = {0};
    for (size_t i = 0; i < all->active->count; i++) {
        if (ends_with(all->active->items[i], ".target")) {
            plan_list_add(&targets, all->active->items[i]);
        }
    }
    size_t most = targets.count + all->to->wants.count;
    for (size_t i = 0; i < targets.count && i < most; i++) {
        AUTO_FREE char *target = xstrdup(targets.items[i]);
        start_wanted(all, target, &targets);
    }
    plan_list_free(&targets);
}

/* Where nobody can tell what is active: what the usual targets want. */
static void guess_active(const struct plan_system *from, struct plan_list *ret) {
    static const char *const targets[] = {"multi-user.target", "sockets.target", "timers.target",
                                          "sysinit.target", "graphical.target"};
    for (size_t i = 0; i < ARRAY_LEN(targets); i++) {
        plan_list_add(ret, targets[i]);
    }
    for (size_t i = 0; i < from->wants.count; i++) {
        const char *slash = strchr(from->wants.items[i], '/');
        if (slash != NULL) {
            plan_list_add(ret, slash + 1);
        }
    }
    plan_list_settle(ret);
}

void plan_units_compare(const struct plan_system *from, const struct plan_system *to,
                        const struct plan_list *active, struct plan_units *ret) {
    *ret = (struct plan_units){.known = from->units_known && to->units_known};
    if (!ret->known) {
        return;
    }
    struct plan_list guessed = {0};
    if (active == NULL) {
        guess_active(from, &guessed);
        active = &guessed;
    }
    struct comparison all = {.from = from, .to = to, .active = active, .ret = ret};
    for (size_t i = 0; i < active->count; i++) {
        compare_active(&all, active->items[i]);
    }
    compare_wants(&all);
    for (size_t i = 0; i < PLAN_UNIT_ACTS; i++) {
        plan_list_settle(&ret->acts[i]);
    }
    plan_list_free(&guessed);
}

void plan_units_free(struct plan_units *units) {
    for (size_t i = 0; i < PLAN_UNIT_ACTS; i++) {
        plan_list_free(&units->acts[i]);
    }
    *units = (struct plan_units){0};
}
