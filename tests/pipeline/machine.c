/* What a played target is and does (see machine.h). */
#include "tests/pipeline/machine.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "tests/pipeline/virtual_time.h"

#define COMMIT_MS 700u
#define REVERT_MS 900u
#define RETRY_MS  10000u

static void set(char *to, size_t room, const char *text) {
    snprintf(to, room, "%s", text);
}
#define SET(field, text) set(field, sizeof(field), text)

/* ---- the guard ---- */

static void put_state(struct machine *machine, enum guard_phase phase, const char *more) {
    struct machine_guard *guard = &machine->guard;
    guard->phase = phase;
    guard->phase_on_disk = phase;
    snprintf(guard->state, sizeof(guard->state), "%s %s%s%s", guard_phase_name(phase), guard->nonce,
             more[0] != '\0' ? " " : "", more);
}

static void put_active(struct machine *machine, uint64_t now) {
    struct machine_guard *guard = &machine->guard;
    char more[128];
    guard->next_ms = now + guard->confirm_ms;
    bool failed = guard->fault[0] != '\0';
    snprintf(more, sizeof(more), "rc=%d%s%s deadline=%llu.%llu", guard->rc, failed ? " fault=" : "",
             guard->fault, (unsigned long long)(guard->next_ms / 1000),
             (unsigned long long)(guard->next_ms % 1000 / 100));
    put_state(machine, GUARD_ACTIVE, more);
}

static void finish(struct machine *machine, enum guard_phase phase, const char *more) {
    put_state(machine, phase, more);
    SET(machine->last, machine->guard.state);
    machine->guard.alive = false;
    machine->guard.record = false;
}

static void go_back(struct machine *machine, const char *why, uint64_t now) {
    char more[64];
    SET(machine->guard.why, why);
    snprintf(more, sizeof(more), "rc=%d why=%s", machine->guard.rc, why);
    put_state(machine, GUARD_REVERTING, more);
    machine->guard.next_ms = now + REVERT_MS;
    machine->guard.tries = 1;
}

static void activation_ends(struct machine *machine, uint64_t now) {
    struct machine_guard *guard = &machine->guard;
    char more[256];
    guard->rc = machine->activation_rc;
    if (machine->activation_refused) {
        snprintf(more, sizeof(more), "rc=%d why=reboot", guard->rc);
        finish(machine, GUARD_INERT, more);
        return;
    }
    if (guard->rc == 0 || !machine->activation_stops) {
        SET(machine->running, guard->new);
    }
    if (strcmp(guard->new, NEW) == 0 && machine->breaks_unit != NULL) {
        SET(machine->failed_unit, machine->breaks_unit);
    }
    if (strcmp(guard->action, "committed") == 0) {
        bool other = strcmp(machine->running, guard->new) != 0;
        snprintf(more, sizeof(more), "rc=%d%s%s%.200s", guard->rc,
                 guard->rc != 0 ? " why=activation" : "", other ? " current=" : "",
                 other ? machine->running : "");
        finish(machine, GUARD_COMMITTED, more);
        return;
    }
    const char *fault = guard->rc == 0 ? "" : guard->rc == 124 ? "activate-timeout" : "activation";
    if (guard->rc != 0 && (!guard->leaves || strcmp(machine->running, guard->new) != 0)) {
        go_back(machine, fault, now);
    } else {
        SET(guard->fault, fault);
        guard->renew = guard->commit = false;
        put_active(machine, now);
    }
}

static void way_back_ends(struct machine *machine, uint64_t now) {
    struct machine_guard *guard = &machine->guard;
    char more[400];
    if (guard->tries < machine->back_tries) {
        snprintf(more, sizeof(more), "rc=0 why=%s try=%u stuck=room", guard->why, ++guard->tries);
        put_state(machine, GUARD_REVERTING, more);
        guard->next_ms = now + RETRY_MS;
        return;
    }
    if (machine->revert_fails) {
        snprintf(more, sizeof(more), "rc=1 why=%s%s current=%.250s", guard->why,
                 machine->back_tries > 0 ? " stuck=room" : "", machine->running);
        finish(machine, GUARD_REVERT_FAILED, more);
        return;
    }
    SET(machine->running, guard->old);
    SET(machine->profile, guard->link);
    machine->generation = guard->link_generation;
    if (machine->breaks_unit != NULL) {
        machine->failed_unit[0] = '\0';
    }
    snprintf(more, sizeof(more), "rc=0 why=%s%s", guard->why,
             machine->boot_default_stuck ? " boot_rc=1" : "");
    finish(machine, GUARD_REVERTED, more);
}

static void commit_ends(struct machine *machine, uint64_t now) {
    struct machine_guard *guard = &machine->guard;
    if (machine->commit_fails && guard->leaves) {
        finish(machine, GUARD_INERT, "rc=0 fault=commit-failed why=leave");
        return;
    }
    if (machine->commit_fails) {
        go_back(machine, "commit-failed", now);
        return;
    }
    if (strcmp(guard->action, "test") != 0 && strcmp(machine->profile, guard->new) != 0) {
        SET(machine->profile, guard->new);
        machine->generation = guard->to > 0 ? guard->to : machine->generation + 1;
    }
    finish(machine, GUARD_COMMITTED, "rc=0");
}

static bool window_goes_on(struct machine *machine, uint64_t now) {
    struct machine_guard *guard = &machine->guard;
    bool seen = now >= guard->seen_ms;
    if (seen && guard->abort) {
        go_back(machine, "abort", now);
    } else if (seen && guard->leave) {
        char more[128];
        bool failed = guard->fault[0] != '\0';
        snprintf(more, sizeof(more), "rc=%d%s%s why=leave", guard->rc, failed ? " fault=" : "",
                 guard->fault);
        finish(machine, GUARD_INERT, more);
    } else if (seen && guard->commit) {
        put_state(machine, GUARD_COMMITTING, "rc=0");
        guard->next_ms = now + COMMIT_MS;
    } else if (seen && guard->renew) {
        guard->renew = false;
        put_active(machine, now);
    } else if (now >= guard->next_ms) {
        go_back(machine, "deadline", guard->next_ms);
        return true;
    } else {
        return false;
    }
    return guard->alive;
}

/* One move of the guard that is due; false if there is none. */
static bool guard_moves(struct machine *machine, uint64_t now) {
    struct machine_guard *guard = &machine->guard;
    if (!guard->alive) {
        return false;
    }
    if (guard->phase == GUARD_ACTIVE) {
        return window_goes_on(machine, now);
    }
    if (now < guard->next_ms) {
        return false;
    }
    uint64_t then = guard->next_ms;
    if (guard->phase == GUARD_NONE) {
        put_state(machine, GUARD_ACTIVATING, "");
        guard->next_ms = then + machine->activation_ms;
    } else if (guard->phase == GUARD_ACTIVATING) {
        activation_ends(machine, then);
    } else if (guard->phase == GUARD_COMMITTING) {
        commit_ends(machine, then);
    } else {
        way_back_ends(machine, then);
    }
    return true;
}

void machine_settle(struct machine *machine) {
    while (guard_moves(machine, virtual_time_ms())) {
    }
}

/* ---- what befalls it ---- */

void machine_init(struct machine *machine, uv_loop_t *loop) {
    *machine = (struct machine){.loop = loop,
                                .transport = {&machine_transport_ops},
                                .generation = 7,
                                .boot = 1,
                                .latency_ms = 20,
                                .activation_ms = 3000};
    SET(machine->running, OLD);
    SET(machine->profile, OLD);
}

void machine_free(struct machine *machine) {
    buf_free(&machine->trace);
}

void machine_gone(struct machine *machine) {
    machine->reachable_at_ms = UINT64_MAX;
    machine_cut(machine);
}

void machine_power_cut(struct machine *machine, uint64_t off_ms) {
    struct machine_guard *guard = &machine->guard;
    machine_settle(machine);
    SET(machine->running, machine->profile);
    machine->failed_unit[0] = '\0';
    machine->boot++;
    machine->lock_id[0] = '\0';
    machine->secret_count = 0;
    machine->restart_due = false;
    guard->alive = false;
    guard->phase = GUARD_NONE;
    guard->state[0] = '\0';
    guard->folder = false;
    if (machine->reachable_at_ms != UINT64_MAX) {
        machine->reachable_at_ms = virtual_time_ms() + off_ms;
    }
    machine_cut(machine);
}

void machine_kill_guard(struct machine *machine) {
    machine_settle(machine);
    machine->guard.alive = false;
}

/* ---- scripts ---- */

static void say(struct buf *out, const char *key, const char *value) {
    buf_printf(out, "%s %s\n", key, value);
}

static const char *yes(bool is) {
    return is ? "yes" : "no";
}

static int inspect(struct machine *machine, const struct script_vars *vars, struct buf *out) {
    (void)vars;
    say(out, "current", machine->running);
    say(out, "booted", machine->running);
    say(out, "profile", machine->profile);
    buf_printf(out, "generation %lld\nboot_id boot-%d\nuid %d\n", (long long)machine->generation,
               machine->boot, machine->not_root ? 1000 : 0);
    say(out, "nix_store", machine->no_nix ? "" : "/run/current-system/sw/bin/nix-store");
    say(out, "systemd", yes(!machine->no_systemd));
    if (machine->failed_unit[0] != '\0') {
        say(out, "failed", machine->failed_unit);
    }
    say(out, "guard", machine->guard.state);
    say(out, "guard_record", yes(machine->guard.record));
    if (machine->guard.record) {
        say(out, "guard_run", machine->guard.run);
    }
    say(out, "guard_alive", yes(machine->guard.alive));
    return 0;
}

static int lock_take(struct machine *machine, const struct script_vars *vars, struct buf *out) {
    const char *run = script_var(vars, "LOCK_RUN");
    bool mine = strcmp(machine->lock_id, script_var(vars, "LOCK_ID")) == 0;
    if (!mine && strcmp(script_var(vars, "RENEW"), "yes") == 0) {
        say(out, "lock", "lost");
        return 0;
    }
    if (machine->lock_id[0] != '\0' && strcmp(machine->lock_id, script_var(vars, "LOCK_ID")) != 0 &&
        strcmp(machine->lock_run, run) != 0) {
        say(out, "lock", "held");
        say(out, "lock_id", machine->lock_id);
        say(out, "lock_run", machine->lock_run);
        say(out, "lock_who", "eve@laptop pid 4711");
        say(out, "lock_since", "2026-11-22T17:00:00Z");
        return 0;
    }
    SET(machine->lock_id, script_var(vars, "LOCK_ID"));
    SET(machine->lock_run, run);
    say(out, "lock", "ok");
    return 0;
}

static int lock_release(struct machine *machine, const struct script_vars *vars, struct buf *out) {
    bool mine = strcmp(machine->lock_id, script_var(vars, "LOCK_ID")) == 0;
    if (mine) {
        machine->lock_id[0] = '\0';
    }
    say(out, "lock", mine ? "released" : "held");
    return 0;
}

static bool lock_is_mine(const struct machine *machine, const struct script_vars *vars) {
    const char *id = script_var(vars, "LOCK_ID");
    return id[0] == '\0' || strcmp(machine->lock_id, id) == 0;
}

static int stage(struct machine *machine, const struct script_vars *vars, struct buf *out) {
    (void)vars;
    machine->staged = true;
    say(out, "root", "gone");
    return 0;
}

static int unstage(struct machine *machine, const struct script_vars *vars, struct buf *out) {
    (void)vars;
    machine->staged = false;
    say(out, "root", "gone");
    return 0;
}

static int guard_start(struct machine *machine, const struct script_vars *vars, struct buf *out) {
    struct machine_guard *guard = &machine->guard;
    if (!lock_is_mine(machine, vars)) {
        say(out, "guard", "lock-lost");
        return 0;
    }
    if (guard->alive) {
        say(out, "guard", "busy");
        return 0;
    }
    if (guard->record) {
        say(out, "guard", "unfinished");
        return 0;
    }
    *guard = (struct machine_guard){.alive = true, .record = true, .folder = true, .rc = -1};
    SET(guard->nonce, script_var(vars, "NONCE"));
    SET(guard->run, script_var(vars, "ACT_RUN"));
    SET(guard->action, script_var(vars, "ACTION"));
    SET(guard->new, script_var(vars, "NEW"));
    guard->leaves = strcmp(script_var(vars, "LEAVE"), "yes") == 0;
    SET(guard->link, machine->profile);
    SET(guard->old, machine->running);
    if (strcmp(guard->old, guard->new) == 0) {
        SET(guard->old, machine->profile);
    }
    guard->link_generation = machine->generation;
    guard->to = strtoll(script_var(vars, "TO"), NULL, 10);
    guard->activate_ms = (uint64_t)strtoll(script_var(vars, "ACTIVATE_MS"), NULL, 10);
    guard->confirm_ms = (uint64_t)strtoll(script_var(vars, "CONFIRM_MS"), NULL, 10);
    guard->next_ms = virtual_time_ms() + (machine->activation_ms > 0 ? 30 : 0);
    machine->activations++;
    say(out, "guard", "started");
    say(out, "weak", yes(machine->no_systemd));
    say(out, "old", guard->old);
    buf_printf(out, "generation %lld\n", (long long)machine->generation);
    return 0;
}

static bool state_is_for(const struct machine *machine, const struct script_vars *vars) {
    const char *nonce = script_var(vars, "NONCE");
    return machine->guard.state[0] != '\0' && strcmp(machine->guard.nonce, nonce) == 0;
}

bool machine_poll_waits(struct machine *machine, const struct script_vars *vars) {
    machine_settle(machine);
    const char *state = state_is_for(machine, vars) ? machine->guard.state : "";
    return machine->guard.folder && strcmp(state, script_var(vars, "SEEN")) == 0;
}

static int guard_poll(struct machine *machine, const struct script_vars *vars, struct buf *out) {
    const struct machine_guard *guard = &machine->guard;
    bool ours = state_is_for(machine, vars);
    say(out, "state", ours ? guard->state : "");
    buf_printf(out, "log_offset 0\n");
    uint64_t now = virtual_time_ms();
    if (ours && guard->phase == GUARD_ACTIVE) {
        buf_printf(out, "deadline_ms %llu\n",
                   (unsigned long long)(guard->next_ms > now ? guard->next_ms - now : 0));
    }
    say(out, "alive", yes(guard->alive));
    say(out, "record", yes(guard->record));
    if (!guard->record) {
        say(out, "current", machine->running);
        say(out, "profile", machine->profile);
        say(out, "last", machine->last);
    }
    return 0;
}

static int guard_request(struct machine *machine, const char *name, const struct script_vars *vars,
                         struct buf *out) {
    struct machine_guard *guard = &machine->guard;
    bool abort = strcmp(name, "abort") == 0;
    bool commit_refused = strcmp(name, "commit") == 0 && guard->fault[0] != '\0';
    bool heard =
        state_is_for(machine, vars) && !commit_refused && (abort || guard->phase == GUARD_ACTIVE);
    if (!heard) {
        say(out, "request", "refused");
    } else if (!abort && !lock_is_mine(machine, vars)) {
        say(out, "request", "lock-lost");
    } else {
        guard->renew |= strcmp(name, "renew") == 0;
        guard->commit |= strcmp(name, "commit") == 0;
        guard->leave |= strcmp(name, "leave") == 0;
        guard->abort |= abort;
        machine->aborts += abort;
        guard->seen_ms = virtual_time_ms() + machine->request_ms;
        say(out, "request", "left");
    }
    return 0;
}

static int commit_now(struct machine *machine, const struct script_vars *vars, struct buf *out) {
    if (!lock_is_mine(machine, vars)) {
        buf_printf(out, "rc -1\nguard lock-lost\n");
        return 0;
    }
    if (machine->guard.alive || machine->guard.record) {
        buf_printf(out, "rc -1\nguard busy\n");
        return 0;
    }
    if (machine->commit_fails) {
        buf_printf(out, "log cp: error writing '/boot/x': No space left on device\nrc 1\n");
        buf_printf(out, "generation %lld\n", (long long)machine->generation);
        return 0;
    }
    if (strcmp(machine->profile, script_var(vars, "NEW")) != 0) {
        SET(machine->profile, script_var(vars, "NEW"));
        machine->generation++;
    }
    buf_printf(out, "rc 0\ngeneration %lld\n", (long long)machine->generation);
    return 0;
}

static int repair(struct machine *machine, const struct script_vars *vars, struct buf *out) {
    struct machine_guard *guard = &machine->guard;
    machine->repairs++;
    if (!lock_is_mine(machine, vars)) {
        say(out, "finished", "lock-lost");
        return 0;
    }
    if (guard->alive) {
        say(out, "finished", "busy");
        return 0;
    }
    if (machine->keeps_record) {
        say(out, "finished", "failed");
        return 0;
    }
    bool forward =
        guard->phase_on_disk == GUARD_COMMITTED ||
        (guard->phase_on_disk == GUARD_COMMITTING && strcmp(machine->profile, guard->new) == 0 &&
         strcmp(machine->running, guard->new) == 0);
    if (guard->record && !forward) {
        SET(machine->profile, guard->link);
        machine->generation = guard->link_generation;
        SET(machine->running, guard->old);
    }
    snprintf(machine->last, sizeof(machine->last), "%s %s rc=-1 why=power-cut",
             forward ? "committed" : "reverted", guard->nonce);
    guard->record = false;
    say(out, "finished", forward ? "forward" : "back");
    return 0;
}

static int units(struct machine *machine, const struct script_vars *vars, struct buf *out) {
    (void)vars;
    buf_printf(out, "unit sshd.service loaded active running 0 0 1000 aa\n");
    if (machine->failed_unit[0] != '\0') {
        buf_printf(out, "unit %s loaded failed failed 0 1 1000 bb\nchanged %s\n",
                   machine->failed_unit, machine->failed_unit);
    }
    for (int i = 0; machine->talkative && i < 49000; i++) {
        buf_printf(out,
                   i < 500 ? "unit u%d.service loaded active running 0 0 1000 aa\n"
                           : "changed u%d.service\n",
                   i);
    }
    return 0;
}

static int reboot(struct machine *machine, const struct script_vars *vars, struct buf *out) {
    (void)vars;
    machine->reboots = true;
    say(out, "reboot", "started");
    return 0;
}

static int dry_activate(struct machine *machine, const struct script_vars *vars, struct buf *out) {
    (void)vars;
    buf_printf(out, "log would start web.service\nrc %d\n", machine->activation_rc);
    return 0;
}

static int generations(struct machine *machine, const struct script_vars *vars, struct buf *out) {
    (void)vars;
    buf_add_text(out, machine->gens != NULL ? machine->gens : "");
    return 0;
}

/* ---- secrets ---- */

static int secret_look(struct machine *machine, const struct script_vars *vars, struct buf *out) {
    (void)vars;
    for (unsigned i = 0; i < machine->secret_count; i++) {
        buf_add_text(out, "secret ");
        for (int digit = 0; digit < 64; digit++) {
            buf_add_char(out, machine->secrets[i].mark);
        }
        buf_printf(out, " root root 400 %s\n", machine->secrets[i].path);
    }
    say(out, "restart", machine->restart_due ? "yes" : "no");
    return 0;
}

static int secret_put(struct machine *machine, const struct script_vars *vars, struct buf *out) {
    const char *path = script_var(vars, "SECRET_PATH");
    unsigned i = 0;
    if (machine->secret_refused) {
        return 1;
    }
    if (strcmp(machine->lock_id, script_var(vars, "LOCK_ID")) != 0) {
        say(out, "secret", "lock-lost");
        return 0;
    }
    while (i < machine->secret_count && strcmp(machine->secrets[i].path, path) != 0) {
        i++;
    }
    assert(i < ARRAY_LEN(machine->secrets));
    machine->secret_count += i == machine->secret_count;
    SET(machine->secrets[i].path, path);
    machine->secrets[i].mark = script_var(vars, "CONTENT")[0];
    machine->restart_due |= script_var(vars, "UNITS")[0] != '\0';
    machine->puts++;
    say(out, "secret", "written");
    return 0;
}

static int secret_restart(struct machine *machine, const struct script_vars *vars,
                          struct buf *out) {
    (void)vars;
    if (machine->restart_due) {
        machine->unit_restarts++;
        say(out, machine->restart_fails ? "restart_failed" : "restarted", "web.service");
    }
    machine->restart_due = false;
    return 0;
}

int machine_run(struct machine *machine, const char *name, const struct script_vars *vars,
                struct buf *out) {
    static const struct {
        const char *name;
        int (*run)(struct machine *machine, const struct script_vars *vars, struct buf *out);
    } scripts[] = {{"inspect", inspect},
                   {"lock_take", lock_take},
                   {"lock_release", lock_release},
                   {"stage", stage},
                   {"unstage", unstage},
                   {"guard_start", guard_start},
                   {"guard_poll", guard_poll},
                   {"commit_now", commit_now},
                   {"repair", repair},
                   {"units", units},
                   {"generations", generations},
                   {"dry_activate", dry_activate},
                   {"secret_look", secret_look},
                   {"secret_put", secret_put},
                   {"secret_restart", secret_restart},
                   {"reboot", reboot}};
    machine_settle(machine);
    for (size_t i = 0; i < ARRAY_LEN(scripts); i++) {
        if (strcmp(scripts[i].name, name) == 0) {
            return scripts[i].run(machine, vars, out);
        }
    }
    return guard_request(machine, name, vars, out);
}
