/* One host's pipeline in the situations that users are burnt by, each told whole: what is asked of
 * the target and in which order, the public states, the end and its reason. What holds in every run
 * is checked by tests/pipeline/world.c. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "tests/pipeline/virtual_time.h"
#include "tests/pipeline/world.h"

#define GOES_WELL "connecting building staging staged activating confirming probing committing "
#define BREAKS    "connecting building staging staged activating confirming probing "

static struct world world;
static struct machine *const machine = &world.machine;

static void setup(void) {
    world_begin(&world);
}

static void teardown(void) {
    world_end(&world);
}

TestSuite(host, .init = setup, .fini = teardown);

static void set(char *to, const char *value) {
    snprintf(to, 256, "%s", value);
}

static void expect_end(enum host_state state, const char *reason) {
    cr_expect(world.end == state && strcmp(world.reason, reason) == 0, "%s(%s): %s",
              buf_text(&world.story), world.reason, world.message);
}

static void expect_trace(const char *trace) {
    cr_expect_str_eq(buf_text(&machine->trace), trace);
}

static void expect_story(const char *story) {
    cr_expect_str_eq(buf_text(&world.story), story);
}

static bool asked_for(const char *name) {
    return strstr(buf_text(&machine->trace), name) != NULL;
}

/* ---- a rollout that goes well ---- */

Test(host, asks_for_each_thing_once_and_in_order_when_all_goes_well) {
    world_run(&world);
    expect_end(HOST_HEALTHY, "");
    expect_story(GOES_WELL "healthy");
    expect_trace("inspect lock_take stage guard_start renew commit inspect unstage lock_release ");
    cr_expect_eq(machine->generation, 8);
    cr_expect_eq(machine->conns_made, 2);
}

/* Its answers cost their length, not the square of it: other hosts wait in the same loop. */
Test(host, holds_nobody_up_with_long_answers, .timeout = 100) {
    machine->talkative = true;
    world_run(&world);
    expect_end(HOST_HEALTHY, "");
}

Test(host, renews_first_over_a_connection_of_its_own) {
    world_run(&world);
    cr_expect_eq(machine->renewals_by_conn[1], 0);
    cr_expect_geq(machine->renewals_by_conn[2], 1);
    cr_expect_eq(machine->commit_conn, 2);
}

static unsigned polls;

static enum fault counts_polls(struct world *self, const char *name) {
    polls += self->host->step == STEP_ACTIVATE && strcmp(name, "guard_poll") == 0;
    return FAULT_NONE;
}

/* What the guard's start answers is believed as any word of the guard: no poll follows. */
Test(host, takes_a_quick_activation_from_the_answer_of_its_start) {
    static const struct {
        int rc;
        bool refused;
        enum host_state end;
        const char *reason;
    } rows[] = {{0, false, HOST_HEALTHY, ""},
                {2, false, HOST_ROLLED_BACK, "activation-failed"},
                {100, true, HOST_REBOOT_REQUIRED, ""}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (i > 0) {
            world_end(&world);
            world_begin(&world);
        }
        polls = 0;
        machine->activation_ms = 0;
        machine->activation_rc = rows[i].rc;
        machine->activation_refused = rows[i].refused;
        world.on_script = counts_polls;
        world_run(&world);
        expect_end(rows[i].end, rows[i].reason);
        cr_expect_eq(polls, 0, "%u polls while it activates (%d)", polls, rows[i].rc);
    }
}

static enum fault copies_under_the_lock(struct world *self, const char *name) {
    if (strcmp(name, "serve") == 0) {
        cr_expect_str_neq(self->machine.lock_id, "", "a copy without the lock");
        cr_expect(!self->machine.staged);
    }
    return FAULT_NONE;
}

Test(host, copies_under_the_lock_and_before_the_root) {
    world.copies = true;
    world.on_script = copies_under_the_lock;
    world_run(&world);
    expect_end(HOST_HEALTHY, "");
    cr_expect(world.steps & (UINT64_C(1) << STEP_COPY));
}

/* ---- what changes, where nothing is copied ---- */

Test(host, tells_what_changes_where_nothing_is_copied_when_asked) {
    world.compare = true;
    world_run(&world);
    expect_end(HOST_HEALTHY, "");
    expect_story(GOES_WELL "healthy");
    cr_expect_eq(world.changes, 1);
    cr_expect_eq(machine->conns_made, 2);
}

static enum fault closures_fault;
static bool question_ended;

static enum fault spoils_closures(struct world *self, const char *name) {
    bool hit = strcmp(name, "closures") == 0;
    self->struck = self->struck || hit;
    return hit ? closures_fault : FAULT_NONE;
}

/* A host that can't tell costs the list and nothing else: no time, no connection. */
Test(host, goes_on_without_an_answer_about_what_changes) {
    static const enum fault faults[] = {FAULT_FAIL, FAULT_HANG};
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        if (i > 0) {
            world_end(&world);
            world_begin(&world);
        }
        closures_fault = faults[i];
        world.compare = true;
        world.on_script = spoils_closures;
        world_run(&world);
        cr_expect(world.struck, "it was not asked");
        expect_end(HOST_HEALTHY, "");
        expect_story(GOES_WELL "healthy");
        cr_expect_eq(world.changes, 0);
        cr_expect_eq(machine->conns_made, 2);
    }
}

static enum fault cuts_the_first_closures(struct world *self, const char *name) {
    if (strcmp(name, "closures") != 0 || self->struck) {
        return FAULT_NONE;
    }
    self->struck = true;
    return FAULT_CUT;
}

Test(host, is_staged_over_another_connection_when_that_question_cut_it) {
    world.compare = true;
    world.on_script = cuts_the_first_closures;
    world_run(&world);
    cr_expect(world.struck, "it was not asked");
    expect_end(HOST_HEALTHY, "");
    cr_expect_eq(machine->conns_made, 3);
}

/* The activation is granted later than that, so that only the deadline can have ended it. */
static void notes_the_deadline(struct world *self) {
    if (self->struck && self->host->step == STEP_AWAIT_ACTIVATE &&
        self->machine.streams_open == 1) {
        question_ended = true;
    }
}

Test(host, ends_the_question_about_what_changes_at_its_deadline) {
    closures_fault = FAULT_HANG;
    world.compare = true;
    world.answer_ms = 40000;
    world.on_script = spoils_closures;
    world.on_turn = notes_the_deadline;
    world_run(&world);
    cr_expect(world.struck, "it was not asked");
    cr_expect(question_ended, "it was never ended");
    expect_end(HOST_HEALTHY, "");
    cr_expect_eq(world.changes, 0);
}

Test(host, touches_nothing_when_it_runs_it_already) {
    set(machine->running, NEW);
    set(machine->profile, NEW);
    world_go(&world);
    expect_end(HOST_UNCHANGED, "");
    expect_trace("inspect ");
}

Test(host, keeps_the_root_and_lets_the_lock_go_when_pushed) {
    world.run.action = ACTION_PUSH;
    world_run(&world);
    expect_end(HOST_STAGED, "");
    expect_trace("inspect lock_take stage lock_release ");
    cr_expect(machine->staged);
}

Test(host, is_staged_again_after_the_dry_activation) {
    world.run.action = ACTION_DRY_ACTIVATE;
    world_run(&world);
    expect_story("connecting building staging staged staged");
    expect_trace("inspect lock_take stage dry_activate unstage lock_release ");
}

static void frees_lock_later(struct world *self) {
    if (virtual_time_ms() > 1000000 + 15000 && strcmp(self->machine.lock_run, "other-run") == 0) {
        self->machine.lock_id[0] = '\0';
    }
}

Test(host, waits_for_the_lock_when_told_to) {
    set(machine->lock_id, "thief");
    snprintf(machine->lock_run, sizeof(machine->lock_run), "other-run");
    world.run.lock_timeout_ms = 60000;
    world.on_turn = frees_lock_later;
    world_run(&world);
    expect_end(HOST_HEALTHY, "");
}

Test(host, waits_for_the_lock_no_longer_than_told_to) {
    set(machine->lock_id, "thief");
    snprintf(machine->lock_run, sizeof(machine->lock_run), "other-run");
    world.run.lock_timeout_ms = 10000;
    world.on_turn = frees_lock_later;
    world_run(&world);
    expect_end(HOST_SKIPPED, "locked");
    cr_expect(!asked_for("guard_start"));
}

/* ---- refusals ---- */

Test(host, says_what_is_missing_before_anything_is_touched) {
    machine->not_root = true;
    world_run(&world);
    expect_end(HOST_FAILED, "not-root");
    expect_trace("inspect ");
}

Test(host, is_skipped_when_optional_and_offline) {
    world.inv.optional = true;
    machine->reachable_at_ms = UINT64_MAX;
    world_run(&world);
    expect_end(HOST_SKIPPED, "offline");
}

Test(host, leaves_a_host_alone_whose_guard_is_at_work) {
    machine->guard.alive = machine->guard.record = true;
    machine->guard.next_ms = virtual_time_ms() + 20000;
    machine->guard.phase = GUARD_REVERTING;
    set(machine->guard.old, OLD);
    set(machine->guard.link, OLD);
    world_go(&world);
    expect_end(HOST_SKIPPED, "locked");
    expect_trace("inspect ");
}

Test(host, gives_up_on_a_record_that_no_repair_removes) {
    machine->guard.record = true;
    machine->keeps_record = true;
    set(machine->guard.new, NEW);
    world_go(&world);
    expect_end(HOST_FAILED, "unfinished");
    cr_expect_eq(machine->repairs, 3);
}

/* ---- confirmation ---- */

static void no_new_connections(struct world *self) {
    self->machine.swallow_connections = self->host->step == STEP_CONFIRM;
}

Test(host, is_not_confirmed_by_the_connection_that_stayed_open) {
    world.on_turn = no_new_connections;
    world_run(&world);
    expect_end(HOST_ROLLED_BACK, "confirm-timeout");
    cr_expect(!asked_for("renew"));
    cr_expect(!asked_for("commit"));
}

static void first_new_connection_is_stuck(struct world *self) {
    self->machine.swallow_connections =
        self->host->step >= STEP_ACTIVATE && self->machine.conns_made < 2;
}

Test(host, a_stuck_connection_leaves_time_in_the_window_for_another) {
    world.inv.policy.confirm_timeout_ms = 9000; /* less than that connection would take */
    world.on_turn = first_new_connection_is_stuck;
    world_run(&world);
    expect_end(HOST_HEALTHY, "");
    cr_expect_eq(world.machine.conns_made, 3);
}

static void away_while_probed(struct world *self) {
    if (self->host->step == STEP_PROBE && self->scripts < 1000) {
        self->scripts = 1000;
        self->machine.reachable_at_ms = virtual_time_ms() + 120000;
        machine_cut(&self->machine);
    }
}

/* Health gating, 5: success is what the host itself reports once the window is closed. */
Test(host, tells_of_a_guard_that_went_back_while_nobody_looked) {
    world.probe.failures = 1000;
    world.on_turn = away_while_probed;
    world_run(&world);
    expect_end(HOST_ROLLED_BACK, "confirm-timeout");
    /* As when the laptop was closed for ten minutes: a new version that keeps everybody out is no such. */
    cr_expect(strstr(world.message, "then not renewed") != NULL, "%s", world.message);
    cr_expect(!asked_for("commit"));
}

/* ---- answers that are lost ---- */

Test(host, starts_one_guard_when_the_answer_of_its_start_is_lost) {
    world.at = STEP_GUARD_START;
    world.blow = BLOW_CUT_AFTER;
    world_run(&world);
    expect_end(HOST_HEALTHY, "");
    cr_expect_eq(machine->activations, 1);
}

Test(host, makes_one_generation_when_the_answer_of_the_commit_is_lost) {
    world.at = STEP_COMMIT;
    world.blow = BLOW_CUT_AFTER;
    world_run(&world);
    expect_end(HOST_HEALTHY, "");
    cr_expect_eq(machine->generation, 8);
}

Test(host, says_that_a_commit_may_have_become_final_when_it_is_gone) {
    world.at = STEP_COMMIT;
    world.blow = BLOW_GONE_AFTER;
    world_run(&world);
    expect_end(HOST_UNKNOWN, "connection-lost");
    cr_expect(strstr(world.message, "may have become final") != NULL, "%s", world.message);
    cr_expect_str_eq(machine->running, NEW);
    cr_expect_str_eq(machine->profile, NEW);
}

/* The script of before is still at it, and has the lock's file. */
static enum fault commit_is_still_running(struct world *self, const char *name) {
    static int asked;
    (void)self;
    if (strcmp(name, "commit_now") != 0) {
        return FAULT_NONE;
    }
    asked++;
    return asked == 1 ? FAULT_CUT_AFTER : asked < 4 ? FAULT_FAIL : FAULT_NONE;
}

Test(host, waits_for_a_commit_that_goes_on_without_it) {
    world.run.action = ACTION_BOOT;
    world.on_script = commit_is_still_running;
    world_run(&world);
    expect_end(HOST_REBOOT_REQUIRED, "");
    cr_expect_eq(machine->generation, 8);
}

static enum fault commit_never_ends(struct world *self, const char *name) {
    static int asked;
    (void)self;
    return strcmp(name, "commit_now") != 0 ? FAULT_NONE
           : asked++ == 0                  ? FAULT_CUT_AFTER
                                           : FAULT_FAIL;
}

Test(host, does_not_say_failed_of_a_commit_that_it_could_not_ask_again) {
    world.run.action = ACTION_BOOT;
    world.on_script = commit_never_ends;
    world_run(&world);
    expect_end(HOST_UNKNOWN, "script-failed");
    cr_expect(strstr(world.message, "may have become final") != NULL, "%s", world.message);
}

static void cut_in_mid_commit(struct world *self) {
    struct machine *target = &self->machine;
    machine_settle(target);
    if (self->host->step == STEP_COMMIT && target->guard.phase == GUARD_COMMITTING) {
        set(target->profile, NEW);
        target->generation = 8;
        machine_power_cut(target, 20000);
    }
}

Test(host, finishes_a_commit_that_a_power_cut_left_half_done) {
    world.on_turn = cut_in_mid_commit;
    world.powered = true;
    world_run(&world);
    expect_end(HOST_HEALTHY, "");
    cr_expect_eq(machine->repairs, 1, "%s | %s", buf_text(&world.story), buf_text(&machine->trace));
}

static void kill_at_activate(struct world *self) {
    if (self->host->step == STEP_ACTIVATE && self->machine.guard.phase == GUARD_ACTIVATING) {
        machine_kill_guard(&self->machine);
    }
}

Test(host, repairs_what_a_guard_left_that_was_killed_with_its_way_back) {
    world.on_turn = kill_at_activate;
    world_run(&world);
    expect_end(HOST_ROLLED_BACK, "guard-gone");
    cr_expect_eq(machine->repairs, 1);
}

static enum fault verdict_with_a_renewal_behind_it(struct world *self, const char *name) {
    if (strcmp(name, "units") == 0 && self->host->step == STEP_PROBE && self->host->op_started &&
        !self->host->op_done) {
        set(self->machine.failed_unit, "web.service");
        self->machine.failed_unit[63] = '\0';
        self->struck = true;
    }
    return FAULT_NONE;
}

Test(host, drops_a_renewal_that_is_under_way_when_the_verdict_comes) {
    world.inv.policy.confirm_timeout_ms = 15000;
    world.inv.policy.min_healthy_time_ms = 100000;
    machine->latency_ms = 400;
    machine->breaks_unit = NULL;
    world.on_script = verdict_with_a_renewal_behind_it;
    world_run(&world);
    cr_expect(world.struck, "no question was asked before a renewal");
    cr_expect_eq(world.end, HOST_ROLLED_BACK, "%s", world.message);
}

/* ---- going back ---- */

/* Health gating, 4: it is probed again after it went back (its script: guard_commit.bats). */
Test(host, asks_to_go_back_and_probes_the_old_system) {
    machine->breaks_unit = "web.service";
    world_run(&world);
    expect_end(HOST_ROLLED_BACK, "probe-failed");
    expect_story(BREAKS "rolling_back(probe-failed) rolled_back(probe-failed)");
    expect_trace("inspect lock_take stage guard_start renew abort inspect unstage lock_release ");
    cr_expect_eq(machine->generation, 7);
}

Test(host, asks_nothing_of_a_guard_that_goes_back_already) {
    machine->activation_rc = 2;
    world_run(&world);
    expect_end(HOST_ROLLED_BACK, "activation-failed");
    cr_expect_eq(machine->aborts, 0);
    cr_expect(!asked_for("commit"));
}

Test(host, is_rolled_back_without_a_generation_when_the_commit_fails) {
    machine->commit_fails = true;
    world_run(&world);
    expect_end(HOST_ROLLED_BACK, "commit-failed");
    cr_expect_eq(machine->generation, 7);
}

Test(host, says_when_the_way_back_failed) {
    machine->breaks_unit = "web.service";
    machine->revert_fails = true;
    world_run(&world);
    expect_end(HOST_ROLLBACK_FAILED, "probe-failed");
}

Test(host, waits_for_a_way_back_of_many_tries_and_says_what_is_in_its_way) {
    machine->breaks_unit = "web.service";
    world.inv.policy.activate_timeout_ms = 30000;
    machine->back_tries = 30; /* ten seconds each: the guard's patience, and programs that hang */
    world_run(&world);
    expect_end(HOST_ROLLED_BACK, "probe-failed");
    const char *said = buf_text(&world.log);
    cr_expect(strstr(said, "fleet: reverting, try 30: /run or a disk is full") != NULL, "%s", said);
}

Test(host, says_why_the_way_back_was_given_up) {
    machine->breaks_unit = "web.service";
    machine->back_tries = 3;
    machine->revert_fails = true;
    world_run(&world);
    expect_end(HOST_ROLLBACK_FAILED, "probe-failed");
    cr_expect(strstr(world.message, "as /run or a disk is full there") != NULL, "%s",
              world.message);
}

Test(host, says_when_the_boot_default_could_not_be_put_back) {
    machine->commit_fails = true;
    machine->boot_default_stuck = true;
    world_run(&world);
    expect_end(HOST_ROLLBACK_FAILED, "commit-failed");
    cr_expect(strstr(world.message, "boot default") != NULL);
}

Test(host, goes_back_to_the_profile_when_it_was_running_but_not_committed) {
    set(machine->running, NEW);
    world_run(&world);
    expect_end(HOST_HEALTHY, "");
    cr_expect_str_eq(machine->profile, NEW);
}

Test(host, takes_an_uncommitted_system_back_to_the_profile_when_it_fails) {
    set(machine->running, NEW);
    machine->breaks_unit = "web.service";
    world_run(&world);
    expect_end(HOST_ROLLED_BACK, "probe-failed");
    cr_expect_str_eq(machine->running, OLD);
}

Test(host, leaves_the_profile_as_found_when_it_was_committed_but_not_running) {
    set(machine->profile, NEW);
    machine->breaks_unit = "web.service";
    world_run(&world);
    expect_end(HOST_ROLLED_BACK, "probe-failed");
    cr_expect_str_eq(machine->profile, NEW);
    cr_expect(strstr(world.message, "as it was before") != NULL, "%s", world.message);
}

/* ---- a committed host is taken back ---- */

Test(host, goes_back_under_a_guard_with_the_systems_exchanged) {
    world.take_back = true;
    world_run(&world);
    expect_end(HOST_ROLLED_BACK, "taken-back");
    cr_expect_str_eq(world.message, "taken back, as asked");
    expect_story(GOES_WELL "healthy rolling_back(taken-back) rolled_back(taken-back)");
    expect_trace("inspect lock_take stage guard_start renew commit inspect "
                 "guard_start renew commit inspect unstage lock_release ");
    cr_expect_eq(machine->generation, 7);
    cr_expect_str_eq(machine->profile, OLD);
}

static void old_fails_too(struct world *self) {
    if (asked_for("abort") && strcmp(self->machine.running, OLD) == 0) {
        set(self->machine.failed_unit, "db.service");
    }
}

/* Health gating, 4: it is probed again after it went back. */
Test(host, tells_that_the_old_system_fails_its_probes_after_it_went_back) {
    machine->breaks_unit = "web.service";
    world.on_turn = old_fails_too;
    world_run(&world);
    expect_end(HOST_ROLLED_BACK, "probe-failed");
    cr_expect(strstr(world.message, "the old system fails its probes too: ") != NULL, "%s",
              world.message);
    cr_expect(strstr(world.message, "db.service") != NULL, "%s", world.message);
}

/* Health gating, 2: the way back has no canary steps. */
static void old_breaks_unit(struct world *self) {
    if (self->took_back && strcmp(self->machine.running, OLD) == 0) {
        set(self->machine.failed_unit, "web.service");
    }
}

Test(host, goes_back_at_once_and_tells_that_the_old_system_fails_its_probes_too) {
    world.take_back = true;
    world.on_turn = old_breaks_unit;
    world_run(&world);
    expect_end(HOST_ROLLED_BACK, "taken-back");
    cr_expect_str_eq(machine->running, OLD);
    cr_expect_str_eq(machine->profile, OLD);
    cr_expect(strstr(world.message, "the old system fails its probes too") != NULL, "%s",
              world.message);
}

Test(host, goes_back_once_where_it_was_only_tested) {
    world.run.action = ACTION_TEST;
    world.take_back = true;
    world_run(&world);
    expect_end(HOST_ROLLED_BACK, "taken-back");
    expect_story(BREAKS "healthy rolling_back(taken-back) rolled_back(taken-back)");
    cr_expect_str_eq(machine->running, OLD);
    cr_expect_str_eq(machine->profile, OLD);
}

/* Another run takes the lock over just before that script. */
static const char *stolen_before;

static enum fault steals_the_lock(struct world *self, const char *name) {
    if (strcmp(name, stolen_before) == 0 && strcmp(self->machine.lock_run, "other-run") != 0) {
        snprintf(self->machine.lock_id, sizeof(self->machine.lock_id), "thief");
        snprintf(self->machine.lock_run, sizeof(self->machine.lock_run), "other-run");
    }
    return FAULT_NONE;
}

Test(host, changes_nothing_more_once_another_run_has_its_lock) {
    static const struct {
        const char *before;
        enum host_state end;
    } cases[] = {
        {"guard_start", HOST_SKIPPED}, {"renew", HOST_ROLLED_BACK}, {"commit", HOST_ROLLED_BACK}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        stolen_before = cases[i].before;
        world.on_script = steals_the_lock;
        world_run(&world);
        expect_end(cases[i].end, "lock-lost");
        cr_expect_str_eq(machine->running, OLD);
        cr_expect_str_eq(machine->profile, OLD);
        cr_expect_str_eq(machine->lock_id, "thief");
        cr_expect_eq(machine->generation, 7);
        if (i + 1 < ARRAY_LEN(cases)) {
            world_end(&world);
            world_begin(&world);
        }
    }
}

Test(host, takes_the_lock_anew_where_it_went_with_a_reboot) {
    world.inv.policy.reboot = INV_REBOOT_ALWAYS;
    world.take_back = true;
    world_run(&world);
    expect_end(HOST_ROLLED_BACK, "taken-back");
    cr_expect_str_eq(machine->running, OLD);
    cr_expect_str_eq(machine->profile, OLD);
}

/* Health gating, 14: what shows after a reboot only needs one; and an answer alone is none. */
Test(host, is_not_rebooted_before_its_boot_id_has_changed) {
    world.inv.policy.reboot = INV_REBOOT_ALWAYS;
    machine->stays_up = true;
    world_run(&world);
    expect_end(HOST_UNKNOWN, "not-back");
    cr_expect(strstr(world.message, "still the boot from before") != NULL, "%s", world.message);
}

static bool is_committed(const struct machine *target) {
    return target->commit_conn != 0 && !target->guard.alive && strcmp(target->profile, NEW) == 0;
}

static void runs_another_one(struct world *self) {
    if (is_committed(&self->machine)) {
        set(self->machine.running, OTHER);
    }
}

static void has_another_profile(struct world *self) {
    if (is_committed(&self->machine)) {
        set(self->machine.profile, OTHER);
    }
}

/* Health gating, 5: healthy is only what the host itself reports after its window has closed. */
Test(host, is_not_healthy_where_it_runs_another_system_after_the_commit) {
    world.on_turn = runs_another_one;
    world_run(&world);
    expect_end(HOST_ROLLBACK_FAILED, "not-committed");
}

Test(host, is_not_healthy_where_its_profile_is_another_one_after_the_commit) {
    world.on_turn = has_another_profile;
    world_run(&world);
    expect_end(HOST_ROLLBACK_FAILED, "not-committed");
}

static int first_boot;

static void boots_the_old_one(struct world *self) {
    if (self->machine.boot != first_boot) {
        snprintf(self->machine.running, sizeof(self->machine.running), "%s", OLD);
    }
}

/* Whatever the boot loader's menu says: what came up is what counts. */
Test(host, is_not_healthy_where_it_has_booted_another_system) {
    world.inv.policy.reboot = INV_REBOOT_ALWAYS;
    world.on_turn = boots_the_old_one;
    first_boot = machine->boot;
    world_run(&world);
    expect_end(HOST_FAILED, "booted-another");
    cr_expect(strstr(world.message, "look at its boot menu") != NULL, "%s", world.message);
    cr_expect(strstr(world.message, OLD) != NULL, "%s", world.message);
}

static void old_fails(struct world *self) {
    self->machine.activation_rc = self->took_back ? 1 : 0;
}

Test(host, never_rolls_a_rollback_back) {
    world.take_back = true;
    world.on_turn = old_fails;
    world_run(&world);
    expect_end(HOST_ROLLBACK_FAILED, "activation-failed");
    cr_expect_str_eq(machine->running, NEW);
    cr_expect_str_eq(machine->profile, NEW);
    cr_expect(strstr(world.message, NEW) != NULL, "%s", world.message);
}

Test(host, is_not_skipped_when_it_may_not_go_back) {
    world.take_back = true;
    world.at = STEP_HOLD;
    world.blow = BLOW_STOLEN;
    world_run(&world);
    expect_end(HOST_ROLLBACK_FAILED, "lock-lost");
    cr_expect_str_eq(machine->running, NEW);
}

/* ---- other policies ---- */

Test(host, does_not_touch_the_profile_when_it_only_tests) {
    world.run.action = ACTION_TEST;
    world_run(&world);
    expect_end(HOST_HEALTHY, "");
    expect_story(BREAKS "healthy");
    expect_trace("inspect lock_take stage guard_start renew leave unstage lock_release ");
}

Test(host, commits_first_when_rollback_is_false) {
    world.inv.policy.rollback = false;
    world_run(&world);
    expect_end(HOST_HEALTHY, "");
    expect_story("connecting building staging staged committing activating confirming probing "
                 "committing healthy");
    expect_trace("inspect lock_take stage commit_now guard_start inspect unstage lock_release ");
}

Test(host, stays_on_the_new_system_when_rollback_is_false) {
    world.inv.policy.rollback = false;
    machine->breaks_unit = "web.service";
    world_run(&world);
    expect_end(HOST_FAILED, "probe-failed");
    cr_expect(strstr(world.message, "left running") != NULL, "%s", world.message);
    cr_expect_str_eq(machine->running, NEW);
    cr_expect_eq(machine->aborts, 0);
}

Test(host, tells_the_words_of_a_boot_loader_that_failed) {
    world.run.action = ACTION_BOOT;
    machine->commit_fails = true;
    world_run(&world);
    expect_end(HOST_FAILED, "commit-failed");
    cr_expect(strstr(world.message, "No space left") != NULL, "%s", world.message);
}

Test(host, needs_a_reboot_when_nothing_could_be_activated) {
    machine->activation_refused = true;
    machine->activation_rc = 100;
    world_run(&world);
    expect_end(HOST_REBOOT_REQUIRED, "");
    cr_expect(!asked_for("abort"));
}

Test(host, fails_when_the_program_is_no_executable) {
    machine->activation_refused = true;
    machine->activation_rc = 126;
    world_run(&world);
    expect_end(HOST_FAILED, "activation-failed");
}

/* ---- the program leaves ---- */

Test(host, leaves_its_guard_armed_and_lets_its_lock_go_when_released) {
    world.at = STEP_PROBE;
    world.blow = BLOW_RELEASE;
    world_run(&world);
    cr_expect_eq(world.ends, 0);
    cr_expect(!asked_for("abort"));
    cr_expect(!asked_for("unstage"), "a resumed run copies nothing anew");
    cr_expect(asked_for("lock_release"), "the guard keeps others away");
    cr_expect_str_eq(machine->running, OLD, "the guard went back alone");
    cr_expect_str_eq(machine->profile, OLD);
}

static unsigned renewals;

static enum fault count_renewals(struct world *self, const char *name) {
    bool waits = self->host != NULL && self->host->step == STEP_AWAIT_ACTIVATE;
    renewals += waits && self->struck && strcmp(name, "lock_take") == 0;
    return FAULT_NONE;
}

Test(host, keeps_its_lock_over_a_broken_connection_while_it_waits) {
    world.at = STEP_AWAIT_ACTIVATE;
    world.blow = BLOW_CUT;
    world.answer_ms = 300 * 1000; /* the lease is two minutes */
    world.on_script = count_renewals;
    world_run(&world);
    expect_end(HOST_HEALTHY, "");
    cr_expect_geq(renewals, 6, "renewed %u times in five minutes", renewals);
}

Test(host, is_probed_again_when_asked) {
    world.reprobe = true;
    world_run(&world);
    expect_end(HOST_HEALTHY, "");
    cr_expect_eq(world.reprobed, 1);
}

/* No data is never healthy. */
Test(host, is_lost_as_it_is_probed_again_and_goes_back_for_that) {
    world.reprobe = true;
    world.take_back = true;
    world.at = STEP_REPROBE;
    world.blow = BLOW_GONE;
    world_run(&world);
    cr_expect_eq(world.reprobed, 0);
    cr_expect(strstr(buf_text(&world.story), "healthy rolling_back(bake)") != NULL, "%s",
              buf_text(&world.story));
    expect_end(HOST_ROLLBACK_FAILED, "connection-lost");
}

static enum fault probe_hangs(struct world *self, const char *name) {
    bool again = strcmp(name, "units") == 0 && self->host->step == STEP_REPROBE;
    self->struck |= again;
    return again ? FAULT_HANG : FAULT_NONE;
}

static void leave_as_it_is_probed_again(struct world *self) {
    if (self->struck && !self->released) {
        self->released = true;
        host_release(self->host);
        cr_expect_eq(self->host->step, STEP_UNLOCK);
    }
}

/* A second signal leaves no more than some seconds to give the lock back. */
Test(host, lets_go_at_once_as_it_is_probed_again) {
    world.reprobe = true;
    world.on_script = probe_hangs;
    world.on_turn = leave_as_it_is_probed_again;
    world_run(&world);
    expect_end(HOST_HEALTHY, "");
    cr_expect_eq(world.reprobed, -1);
    cr_expect_str_eq(machine->lock_id, "");
}

/* It is committed: no guard that would have to decide first. */
Test(host, was_healthy_and_is_not_waited_for_long_when_its_run_is_resumed) {
    world_resume(&world, 1000);
    machine->guard = (struct machine_guard){.alive = false};
    world.resume.was_healthy = true;
    machine->reachable_at_ms = UINT64_MAX;
    uint64_t began_ms = virtual_time_ms();
    world_go(&world);
    expect_end(HOST_UNKNOWN, "connection-refused");
    cr_expect(strstr(world.message, "It was healthy before") != NULL, "%s", world.message);
    cr_expect_leq(virtual_time_ms() - began_ms, 120000);
}

/* By `nixos-rebuild switch` or `boot`, say: nothing of ours went wrong, and it is not taken away. */
Test(host, was_healthy_and_was_changed_since_and_is_left_as_it_is) {
    static const char newer[] = "/nix/store/00000000000000000000000000000003-newer";
    char *const changed[] = {machine->running, machine->profile};
    for (size_t i = 0; i < 2; i++) {
        if (i > 0) {
            teardown();
            setup();
        }
        world_resume(&world, 1000);
        world.resume.was_healthy = true;
        machine->guard.alive = false;
        machine->guard.record = false;
        snprintf(machine->last, sizeof(machine->last), "committed %s rc=0", machine->guard.nonce);
        snprintf(machine->guard.state, sizeof(machine->guard.state), "%s", machine->last);
        snprintf(machine->running, sizeof(machine->running), "%s", NEW);
        snprintf(machine->profile, sizeof(machine->profile), "%s", NEW);
        snprintf(changed[i], sizeof(machine->running), "%s", newer);
        world_run(&world);
        expect_end(HOST_FAILED, "changed-since");
        cr_expect_str_eq(changed[i], newer);
        cr_expect(strstr(buf_text(&machine->trace), "guard_start") == NULL, "%s",
                  buf_text(&machine->trace));
    }
}

Test(host, guard_that_is_found_shortly_before_it_goes_back_judges_nothing) {
    bool confirmed_once = false, late_once = false;
    for (uint64_t left_ms = 20; left_ms < 600; left_ms += 10) {
        if (left_ms > 20) {
            teardown();
            setup();
        }
        world_resume(&world, left_ms);
        world_run(&world);
        cr_expect_eq(world.end, HOST_HEALTHY, "with %llu ms left: %s: %s",
                     (unsigned long long)left_ms, buf_text(&world.story), world.message);
        late_once |= strstr(buf_text(&world.story), "confirming connecting") != NULL;
        confirmed_once |= strstr(buf_text(&world.story), "building") == NULL;
    }
    cr_expect(late_once && confirmed_once, "late: %d, in time: %d", late_once, confirmed_once);
}

Test(host, guard_that_ends_while_it_is_looked_at_is_judged_by_its_last_word) {
    world_resume(&world, 1000);
    snprintf(machine->guard.state, sizeof(machine->guard.state), "activating %s",
             machine->guard.nonce);
    snprintf(machine->last, sizeof(machine->last), "committed %s rc=0", machine->guard.nonce);
    snprintf(machine->profile, sizeof(machine->profile), "%s", NEW);
    machine->guard.alive = false;
    machine->guard.record = false;
    world.granted[ACT_COMMIT] = true;
    world_run(&world);
    cr_expect_eq(world.end, HOST_HEALTHY, "%s: %s", buf_text(&world.story), world.message);
    cr_expect_null(strstr(buf_text(&world.story), "building"), "%s", buf_text(&world.story));
}

Test(host, what_the_try_before_has_broken_is_not_tolerated_by_who_resumes) {
    world_resume(&world, 1000);
    machine->guard.alive = false;
    machine->guard.record = false;
    machine->guard.state[0] = '\0';
    snprintf(machine->last, sizeof(machine->last), "reverted %s rc=0 why=deadline",
             machine->guard.nonce);
    snprintf(machine->running, sizeof(machine->running), "%s", OLD);
    snprintf(machine->failed_unit, sizeof(machine->failed_unit), "web.service");
    world.inv.policy.tolerate_preexisting = true;
    world_run(&world);
    cr_expect_eq(world.end, HOST_ROLLED_BACK, "%s: %s", buf_text(&world.story), world.message);
    cr_expect_not_null(strstr(world.message, "web.service"), "%s", world.message);
}
