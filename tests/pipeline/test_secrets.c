/* Secrets on a host's way: when they come, under which grant, and what happens where they don't. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "tests/pipeline/world.h"

static struct world world;
static struct machine *machine = &world.machine;

static void setup(void) {
    world_begin(&world);
    world.has_secrets = true;
}

static void teardown(void) {
    world_end(&world);
}

TestSuite(secrets, .init = setup, .fini = teardown, .timeout = 30);

static void runs_new(void) {
    snprintf(machine->running, sizeof(machine->running), "%s", NEW);
    snprintf(machine->profile, sizeof(machine->profile), "%s", NEW);
}

static void has(unsigned i, char mark) {
    machine->secret_count = i + 1 > machine->secret_count ? i + 1 : machine->secret_count;
    snprintf(machine->secrets[i].path, sizeof(machine->secrets[i].path), "%s",
             world.secrets[i].path);
    machine->secrets[i].mark = mark;
}

static void expect_end(enum host_state end, const char *reason) {
    cr_expect_eq(world.end, end, "%s: %s", buf_text(&world.story), world.message);
    cr_expect_str_eq(world.reason, reason, "%s", world.message);
}

static bool traced(const char *part) {
    return strstr(buf_text(&machine->trace), part) != NULL;
}

Test(secrets, come_before_and_after_the_activation_and_units_are_restarted_once) {
    world_run(&world);
    expect_end(HOST_HEALTHY, "");
    cr_expect(traced("stage secret_look secret_put guard_start"), "%s", buf_text(&machine->trace));
    cr_expect(traced("secret_look secret_put secret_restart"), "%s", buf_text(&machine->trace));
    cr_expect_eq(machine->puts, 2);
    cr_expect_eq(machine->unit_restarts, 1);
    cr_expect_null(strstr(buf_text(&world.log), "aaaa"));
}

Test(secrets, that_are_there_are_not_written_again) {
    has(0, 'a');
    has(1, 'a');
    world_run(&world);
    expect_end(HOST_HEALTHY, "");
    cr_expect_eq(machine->puts, 0);
    cr_expect_eq(machine->unit_restarts, 0);
    cr_expect_not(world.granted[ACT_SECRET]);
}

Test(secrets, that_cannot_be_had_end_it_before_the_activation) {
    world.secret_fails = "the secret \"token\": sops failed: no key";
    world_run(&world);
    expect_end(HOST_FAILED, "secret-command");
    cr_expect_eq(machine->activations, 0);
    cr_expect_eq(machine->puts, 0);
    cr_expect_not_null(strstr(world.message, "no key"));
}

Test(secrets, that_take_their_time_are_waited_for) {
    world.secret_late = 3;
    world_run(&world);
    expect_end(HOST_HEALTHY, "");
}

Test(secrets, without_an_owner_leave_the_old_system_running) {
    machine->secret_refused = true;
    world_run(&world);
    expect_end(HOST_FAILED, "script-failed");
    cr_expect_eq(machine->activations, 0);
}

Test(secrets, whose_unit_fails_take_the_host_back) {
    machine->restart_fails = true;
    world_run(&world);
    expect_end(HOST_ROLLED_BACK, "restart-failed");
}

Test(secrets, whose_unit_had_failed_before_are_no_reason_to_go_back) {
    snprintf(machine->failed_unit, sizeof(machine->failed_unit), "web.service");
    world.inv.policy.tolerate_preexisting = true;
    machine->restart_fails = true;
    world_run(&world);
    expect_end(HOST_HEALTHY, "");
}

Test(secrets, alone_reach_a_host_that_runs_its_system_already) {
    runs_new();
    has(0, 'a');
    has(1, 'b');
    world_run(&world);
    expect_end(HOST_UNCHANGED, "");
    cr_expect_eq(machine->puts, 1);
    cr_expect_eq(machine->unit_restarts, 0);
    cr_expect_not_null(strstr(world.message, "1 secret was written"));
    cr_expect(traced("secret_look lock_take secret_put"), "%s", buf_text(&machine->trace));
}

Test(secrets, alone_change_nothing_where_all_is_there) {
    runs_new();
    has(0, 'a');
    has(1, 'a');
    world_go(&world);
    expect_end(HOST_UNCHANGED, "");
    cr_expect_str_eq(buf_text(&machine->trace), "inspect secret_look ");
}

Test(secrets, alone_restart_a_unit_that_an_interrupted_run_left_waiting) {
    runs_new();
    has(0, 'a');
    has(1, 'a');
    machine->restart_due = true;
    world_run(&world);
    expect_end(HOST_UNCHANGED, "");
    cr_expect_eq(machine->puts, 0);
    cr_expect_eq(machine->unit_restarts, 1);
}

Test(secrets, of_a_boot_are_those_of_before_and_nothing_is_restarted) {
    world.run.action = ACTION_BOOT;
    world_run(&world);
    expect_end(HOST_REBOOT_REQUIRED, "");
    cr_expect_eq(machine->puts, 1);
    cr_expect_eq(machine->unit_restarts, 0);
}

Test(secrets, stay_away_from_a_rollback_and_a_push) {
    world.run.action = ACTION_PUSH;
    world_run(&world);
    expect_end(HOST_STAGED, "");
    cr_expect_eq(machine->puts, 0);
}

Test(secrets, come_before_the_commit_where_rollback_is_false) {
    world.inv.policy.rollback = false;
    world_run(&world);
    expect_end(HOST_HEALTHY, "");
    cr_expect(traced("secret_put commit_now"), "%s", buf_text(&machine->trace));
    cr_expect_eq(machine->unit_restarts, 1);
}

static enum fault slow_grants(struct world *self, const char *name) {
    (void)name;
    self->answer_ms = self->host->step == STEP_SECRETS_AFTER ? 40000 : 50;
    return FAULT_NONE;
}

Test(secrets, that_take_long_while_a_guard_waits_do_not_let_it_go_back) {
    world.secrets[0].after = true; /* two grants of 40 s are more than the guard waits */
    world.on_script = slow_grants;
    world_run(&world);
    expect_end(HOST_HEALTHY, "");
    cr_expect_eq(machine->puts, 2);
}

static void refuses(struct world *self) {
    struct error error = ERROR_INIT;
    if (self->host->step == STEP_SECRETS_AFTER && self->host->wanted) {
        error_set(&error, FLEET_ERR_CANCELLED, "stopped", "the run's journal can't be written");
        host_end(self->host, HOST_SKIPPED, &error);
    }
}

Test(secrets, whose_grant_is_refused_take_the_host_back) {
    world.withhold[ACT_SECRET] = true;
    world.secrets[0].after = true; /* so that only those of after the activation ask */
    world.on_turn = refuses;
    world_run(&world);
    expect_end(HOST_ROLLED_BACK, "stopped");
}
