/* Hosts that are left as they run: by `on_failure: leave`, by `rollback: false`, and when their operator
 * died over it. What is never left: what nobody can reach, and what does not run. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "tests/pipeline/virtual_time.h"
#include "tests/pipeline/world.h"

static struct world world;
static struct machine *const machine = &world.machine;

static void setup(void) {
    world_begin(&world);
}

static void teardown(void) {
    world_end(&world);
}

TestSuite(leave, .init = setup, .fini = teardown);

static void expect_end(enum host_state state, const char *reason) {
    cr_expect(world.end == state && strcmp(world.reason, reason) == 0, "%s(%s): %s",
              buf_text(&world.story), world.reason, world.message);
}

static bool asked_for(const char *name) {
    return strstr(buf_text(&machine->trace), name) != NULL;
}

/* ---- on_failure: leave ---- */

Test(leave, is_left_uncommitted_when_asked_to) {
    world.leave = true;
    machine->breaks_unit = "web.service";
    world_run(&world);
    expect_end(HOST_FAILED, "probe-failed");
    cr_expect(strstr(world.message, "left running") != NULL, "%s", world.message);
}

/* on_failure: leave, in the policy and in what the coordinator answers. */
static void leave_failures(void) {
    world.run.leave = true;
    world.leave = true;
}

Test(leave, is_left_with_a_failed_activation_once_a_new_connection_has_come_up) {
    leave_failures();
    machine->activation_rc = 2;
    world_run(&world);
    expect_end(HOST_FAILED, "activation-failed");
    cr_expect_str_eq(buf_text(&world.story), "connecting building staging staged activating "
                                             "confirming failed(activation-failed)");
    cr_expect_str_eq(buf_text(&machine->trace),
                     "inspect lock_take stage guard_start renew leave unstage lock_release ");
    cr_expect_eq(machine->renewals_by_conn[1], 0);
    cr_expect_eq(machine->renewals_by_conn[2], 1);
    cr_expect_str_eq(machine->running, NEW);
    cr_expect_str_eq(machine->profile, OLD);
    cr_expect_str_eq(world.message,
                     "switch-to-configuration ended with 2; left running, not committed: a reboot "
                     "brings the old system back. When it is mended `fleet update db1` proves and "
                     "commits it; `fleet rollback --to 7 db1` goes back");
}

Test(leave, rollback_that_is_left_names_both_generations) {
    leave_failures();
    world.run.action = ACTION_ROLLBACK;
    world.desired = NULL;
    machine->gens = "gen 6 2026-11-01T00:00:00Z " NEW "\ngen 7 2026-11-02T00:00:00Z " OLD "\n";
    machine->activation_rc = 2;
    world_run(&world);
    expect_end(HOST_FAILED, "activation-failed");
    cr_expect(strstr(world.message, "`fleet rollback --to 6 db1` proves and commits it; `fleet "
                                    "rollback --to 7 db1` goes back") != NULL,
              "%s", world.message);
}

Test(leave, is_left_when_its_activation_took_too_long) {
    leave_failures();
    machine->activation_rc = 124;
    world_run(&world);
    expect_end(HOST_FAILED, "activate-timeout");
    cr_expect_str_eq(machine->running, NEW);
    cr_expect_str_eq(machine->profile, OLD);
}

Test(leave, is_not_left_when_nothing_of_the_new_system_runs) {
    leave_failures();
    machine->activation_rc = 2;
    machine->activation_stops = true;
    world_run(&world);
    expect_end(HOST_ROLLED_BACK, "activation-failed");
    cr_expect(strstr(world.message, "not left: the new system was not running") != NULL, "%s",
              world.message);
}

static void refuses_once_it_runs(struct world *self) {
    if (strcmp(self->machine.running, NEW) == 0) {
        self->machine.refuse_connections = 1000;
    }
}

/* The old connection lives, and proves nothing: neither a good version is left nor a bad one. */
Test(leave, is_not_left_where_nobody_gets_in_any_more) {
    leave_failures();
    world.on_turn = refuses_once_it_runs;
    machine->activation_rc = 2;
    world_run(&world);
    expect_end(HOST_ROLLED_BACK, "activation-failed");
    cr_expect(!asked_for("leave"));
    cr_expect(strstr(world.message, "not left: its guard could not be told to") != NULL, "%s",
              world.message);
    teardown();
    setup();
    leave_failures();
    world.on_turn = refuses_once_it_runs;
    world_run(&world);
    expect_end(HOST_ROLLED_BACK, "confirm-timeout");
    cr_expect(!asked_for("leave"));
}

Test(leave, proven_system_runs_on_where_only_its_commit_failed) {
    leave_failures();
    machine->commit_fails = true;
    world_run(&world);
    expect_end(HOST_FAILED, "commit-failed");
    cr_expect_str_eq(machine->running, NEW);
    cr_expect_str_eq(machine->profile, OLD);
    cr_expect(strstr(world.message, "left running, not committed") != NULL, "%s", world.message);
}

/* One that was adopted in mid-commit has confirmed nothing itself, and asks nothing of its guard. */
Test(leave, commit_that_fails_under_a_resumed_run_is_told_as_left) {
    world_resume(&world, 30000);
    leave_failures();
    machine->guard.leaves = true;
    machine->commit_fails = true;
    machine->guard.phase = GUARD_COMMITTING;
    machine->guard.phase_on_disk = GUARD_COMMITTING;
    snprintf(machine->guard.state, sizeof(machine->guard.state), "committing %s rc=0",
             machine->guard.nonce);
    world.granted[ACT_COMMIT] = true;
    world_run(&world);
    expect_end(HOST_FAILED, "commit-failed");
    cr_expect_str_eq(machine->running, NEW);
    cr_expect_str_eq(machine->profile, OLD);
}

static void old_fails(struct world *self) {
    self->machine.activation_rc = self->took_back ? 1 : 0;
}

Test(leave, taken_back_for_the_others_sake_is_never_left_half_way) {
    world.run.leave = true;
    world.take_back = true;
    world.on_turn = old_fails;
    world_run(&world);
    expect_end(HOST_ROLLBACK_FAILED, "activation-failed");
    cr_expect_str_eq(machine->running, NEW);
}

/* ---- rollback: false ---- */

Test(leave, stays_committed_when_rollback_is_false_and_its_activation_fails) {
    world.inv.policy.rollback = false;
    machine->activation_rc = 2;
    world_run(&world);
    expect_end(HOST_FAILED, "activation-failed");
    cr_expect(strstr(world.message, "left running") != NULL, "%s", world.message);
    cr_expect_str_eq(machine->running, NEW);
    cr_expect_str_eq(machine->profile, NEW);
}

Test(leave, tells_what_runs_when_rollback_is_false_and_the_new_system_does_not) {
    world.inv.policy.rollback = false;
    machine->activation_rc = 2;
    machine->activation_stops = true;
    world_run(&world);
    expect_end(HOST_FAILED, "activation-failed");
    cr_expect(strstr(world.message, "is committed, but " OLD " runs") != NULL, "%s", world.message);
    cr_expect_str_eq(machine->profile, NEW);
}

Test(leave, tested_without_rollback_stays_with_a_failed_activation_too) {
    world.run.action = ACTION_TEST;
    world.inv.policy.rollback = false;
    machine->activation_rc = 2;
    world_run(&world);
    expect_end(HOST_FAILED, "activation-failed");
    cr_expect_str_eq(machine->running, NEW);
    cr_expect_str_eq(machine->profile, OLD);
}

Test(leave, tests_without_a_commit_when_rollback_is_false) {
    world.run.action = ACTION_TEST;
    world.inv.policy.rollback = false;
    machine->breaks_unit = "web.service";
    world_run(&world);
    expect_end(HOST_FAILED, "probe-failed");
    cr_expect(!asked_for("commit_now"));
    cr_expect_str_eq(machine->profile, OLD);
    cr_expect_str_eq(machine->running, NEW);
}

/* ---- resumed ---- */

/* A window of a failed activation, which the policy would have left. */
static void resume_failed_window(uint64_t left_ms) {
    world_resume(&world, left_ms);
    leave_failures();
    machine->guard.leaves = true;
    machine->guard.rc = 4;
    snprintf(machine->guard.fault, sizeof(machine->guard.fault), "activation");
    snprintf(machine->guard.state, sizeof(machine->guard.state),
             "active %s rc=4 failed=web.service fault=activation deadline=%llu.0",
             machine->guard.nonce, (unsigned long long)(machine->guard.next_ms / 1000));
    machine->activation_rc = 4;
}

Test(leave, whose_failed_activation_waits_is_left_by_who_resumes) {
    resume_failed_window(30000);
    world_run(&world);
    cr_expect_eq(world.end, HOST_FAILED, "%s: %s", buf_text(&world.story), world.message);
    cr_expect_null(strstr(buf_text(&world.story), "probing"), "%s", buf_text(&world.story));
    cr_expect(!asked_for("commit"));
    cr_expect_str_eq(machine->running, NEW);
    cr_expect_not_null(strstr(world.message, "fleet rollback --to 7 db1"), "%s", world.message);
}

/* One that lapses under its eyes judges nothing: it begins anew, and what failed then is forgotten. */
Test(leave, whose_failed_window_lapses_begins_anew) {
    bool left_once = false, late_once = false;
    for (uint64_t left_ms = 20; left_ms < 600; left_ms += 10) {
        if (left_ms > 20) {
            teardown();
            setup();
        }
        resume_failed_window(left_ms);
        machine->activation_rc = 0;
        world_run(&world);
        bool anew = strstr(buf_text(&world.story), "building") != NULL;
        expect_end(anew ? HOST_HEALTHY : HOST_FAILED, anew ? "" : "units-failed");
        late_once |= strstr(buf_text(&world.story), "confirming connecting") != NULL;
        left_once |= !anew;
    }
    cr_expect(late_once && left_once, "late: %d, in time: %d", late_once, left_once);
}

Test(leave, that_was_left_with_a_failed_activation_is_told_so_by_who_resumes) {
    resume_failed_window(30000);
    machine->guard.alive = false;
    machine->guard.record = false;
    snprintf(machine->last, sizeof(machine->last),
             "inert %s rc=4 failed=web.service fault=activation why=leave", machine->guard.nonce);
    snprintf(machine->guard.state, sizeof(machine->guard.state), "%s", machine->last);
    world_run(&world);
    expect_end(HOST_FAILED, "units-failed");
    cr_expect_not_null(strstr(world.message, "units failed: web.service; left running"), "%s",
                       world.message);
}

/* `--action test` leaves what is proven, too. Whoever finds one such knows it for proven only where the
 * journal says so, as under this policy a failure is left in the same words. */
Test(leave, tested_and_healthy_before_its_run_was_interrupted_is_so_for_who_resumes) {
    for (int healthy = 0; healthy < 2; healthy++) {
        if (healthy > 0) {
            teardown();
            setup();
        }
        world_resume(&world, 30000);
        leave_failures();
        world.run.action = ACTION_TEST;
        world.resume.was_healthy = healthy;
        machine->guard.alive = false;
        machine->guard.record = false;
        snprintf(machine->last, sizeof(machine->last), "inert %s rc=0 why=leave",
                 machine->guard.nonce);
        snprintf(machine->guard.state, sizeof(machine->guard.state), "%s", machine->last);
        world_run(&world);
        cr_expect_eq(world.end, healthy ? HOST_HEALTHY : HOST_FAILED, "%s: %s",
                     buf_text(&world.story), world.message);
    }
}
