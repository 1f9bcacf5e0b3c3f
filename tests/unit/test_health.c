/* Health over time, and the probes that need no HTTP: units, TCP, commands. */
#include <criterion/criterion.h>
#include <string.h>
#include <time.h>

#include "core/base/xalloc.h"
#include "probe_fixture.h"

#define ASSERT_SAYS(fixture, words)                                                                \
    cr_assert(strstr(buf_text(&(fixture)->results), words) != NULL, "wanted \"%s\" in:\n%s",       \
              words, buf_text(&(fixture)->results))

static uint64_t now_ms(void) {
    return uv_hrtime() / 1000000;
}

/* --- TCP --- */

Test(health, tcp_passes_where_somebody_listens) {
    struct fixture fixture;
    struct server server;
    fixture_init(&fixture, INV_HEALTH_TCP);
    server_start(&server, &fixture, NULL);
    fixture.entries[0].port = server.port;
    cr_assert(fixture_round(&fixture));
    ASSERT_SAYS(&fixture, "probe ok: connected in ");
    cr_assert_eq(server.connections, 1);
    server_stop(&server);
    fixture_end(&fixture);
}

Test(health, tcp_says_refused) {
    struct fixture fixture;
    fixture_init(&fixture, INV_HEALTH_TCP);
    fixture.entries[0].port = closed_port();
    fixture.entries[0].host = "localhost";
    cr_assert_not(fixture_round(&fixture));
    cr_assert_str_eq(fixture.error.message, "tcp probe: connection refused");
    cr_assert_str_eq(fixture.error.reason, "probe-failed");
    cr_assert_eq(fixture.error.code, FLEET_ERR_HEALTH);
    fixture_end(&fixture);
}

Test(health, tcp_resolves_a_name) {
    struct fixture fixture;
    struct server server;
    fixture_init(&fixture, INV_HEALTH_TCP);
    server_start(&server, &fixture, NULL);
    fixture.entries[0].port = server.port;
    fixture.entries[0].host = "localhost";
    cr_assert(fixture_round(&fixture));
    server_stop(&server);
    fixture_end(&fixture);
}

Test(health, tcp_goes_through_the_connection_from_the_target) {
    struct fixture fixture;
    struct server server;
    struct fake_conn fake;
    fixture_init(&fixture, INV_HEALTH_TCP);
    server_start(&server, &fixture, NULL);
    fake_conn_init(&fake, &fixture.loop);
    fixture.env.conn = &fake.conn;
    fixture.entries[0].from_target = true;
    fixture.entries[0].port = server.port;
    fixture.entries[0].host = "db.internal";
    struct inv_health *refused = fixture_add(&fixture, INV_HEALTH_TCP, "other");
    refused->from_target = true;
    refused->port = closed_port();
    cr_assert_not(fixture_round(&fixture));
    ASSERT_SAYS(&fixture, "probe ok: connected in ");
    ASSERT_SAYS(&fixture, "other fail: connection refused");
    cr_assert_eq(fake.tunnels, 2);
    server_stop(&server);
    fixture_end(&fixture);
}

Test(health, from_the_target_without_a_connection_fails_until_there_is_one) {
    struct fixture fixture;
    struct server server;
    struct fake_conn silent;
    struct fake_conn fake;
    fixture_init(&fixture, INV_HEALTH_TCP);
    server_start(&server, &fixture, NULL);
    fake_conn_init(&fake, &fixture.loop);
    fake_conn_init(&silent, &fixture.loop);
    silent.silent = true;
    fixture.entries[0].from_target = true;
    fixture.entries[0].port = server.port;
    fixture_start(&fixture);
    fixture_run(&fixture, NULL, 50);
    ASSERT_SAYS(&fixture, "no connection to the host");
    health_set_conn(fixture.health, &silent.conn);
    fixture_run(&fixture, NULL, 60);
    size_t failures = fixture.failures;
    cr_assert_eq(silent.tunnels, 1);
    /* A try on the connection that goes is no failure; it begins again on the new one. */
    health_set_conn(fixture.health, &fake.conn);
    cr_assert(fixture_run(&fixture, &fixture.healthy, 2000));
    cr_assert_eq(fixture.failures, failures);
    server_stop(&server);
    fixture_end(&fixture);
}

/* --- Commands --- */

Test(health, a_command_here_runs_by_argv_with_names_expanded) {
    static const char *const argv[] = {
        "/bin/sh", "-c", "echo \"$1 $2 $(id -u)x\" >&2", "sh", "${name};false", "${address}"};
    struct fixture fixture;
    fixture_init(&fixture, INV_HEALTH_COMMAND);
    fixture.entries[0].run = (struct inv_strings){argv, ARRAY_LEN(argv)};
    cr_assert(fixture_round(&fixture));
    ASSERT_SAYS(&fixture, "probe ok: exit status 0: db1;false 127.0.0.1 ");
    fixture_end(&fixture);
}

Test(health, a_command_says_how_it_failed) {
    static const char *const argv[] = {"/bin/sh", "-c",
                                       "echo first; printf 'disk \\033[31mfull\\n\\n'; exit 3"};
    static const char *const missing[] = {"/nonexistent/program"};
    static const char *const killed[] = {"/bin/sh", "-c", "kill -9 $$"};
    struct fixture fixture;
    fixture_init(&fixture, INV_HEALTH_COMMAND);
    fixture.entries[0].run = (struct inv_strings){argv, ARRAY_LEN(argv)};
    fixture_add(&fixture, INV_HEALTH_COMMAND, "missing")->run = (struct inv_strings){missing, 1};
    fixture_add(&fixture, INV_HEALTH_COMMAND, "killed")->run = (struct inv_strings){killed, 3};
    cr_assert_not(fixture_round(&fixture));
    ASSERT_SAYS(&fixture, "probe fail: exit status 3: disk full\n");
    ASSERT_SAYS(&fixture, "missing fail: cannot run /nonexistent/program: no such file");
    ASSERT_SAYS(&fixture, "killed fail: killed by signal 9");
    fixture_end(&fixture);
}

Test(health, a_command_that_hangs_is_killed_with_all_that_it_started) {
    static const char *const argv[] = {"/bin/sh", "-c", "trap '' TERM; sleep 60 & sleep 60; :"};
    struct fixture fixture;
    fixture_init(&fixture, INV_HEALTH_COMMAND);
    fixture.entries[0].run = (struct inv_strings){argv, ARRAY_LEN(argv)};
    fixture.entries[0].timeout_ms = 100;
    uint64_t began = now_ms();
    cr_assert_not(fixture_round(&fixture));
    ASSERT_SAYS(&fixture, "probe fail: no answer within 100 ms");
    fixture_end(&fixture); /* would wait for a minute for the pipe */
    cr_assert_lt(now_ms() - began, 5000);
}

Test(health, a_command_that_leaves_one_in_the_background_has_ended) {
    static const char *const argv[] = {"/bin/sh", "-c", "sleep 5 & echo done"};
    struct fixture fixture;
    fixture_init(&fixture, INV_HEALTH_COMMAND);
    fixture.entries[0].run = (struct inv_strings){argv, ARRAY_LEN(argv)};
    uint64_t began = now_ms();
    cr_assert(fixture_round(&fixture));
    ASSERT_SAYS(&fixture, "exit status 0: done");
    fixture_end(&fixture);
    cr_assert_lt(now_ms() - began, 3000);
}

Test(health, a_command_on_the_target_goes_to_the_pipeline) {
    static const char *const argv[] = {"check", "${name}", "a b"};
    struct fixture fixture;
    fixture_init(&fixture, INV_HEALTH_COMMAND);
    fixture.entries[0].run = (struct inv_strings){argv, ARRAY_LEN(argv)};
    fixture.entries[0].from_target = true;
    fixture.command_status = 7;
    cr_assert_not(fixture_round(&fixture));
    cr_assert_str_eq(fixture.command_line, "[check][db1][a b]");
    ASSERT_SAYS(&fixture, "probe fail: exit status 7: the last words");
    fixture_end(&fixture);
}

/* --- Units --- */

static struct health_unit *add_unit(struct fixture *fixture, const char *name, const char *active,
                                    const char *sub) {
    struct health_unit *unit = &fixture->units[fixture->unit_count++];
    *unit = (struct health_unit){.name = name, .active = active, .sub = sub};
    return unit;
}

Test(health, a_unit_that_has_failed_is_conclusive) {
    struct fixture fixture;
    fixture_init(&fixture, INV_HEALTH_SYSTEMD);
    struct health_unit *unit = add_unit(&fixture, "web.service", "failed", "failed");
    unit->changed = true;
    unit->exec_status = 203;
    fixture_start(&fixture);
    cr_assert(fixture_run(&fixture, &fixture.unhealthy, 2000));
    cr_assert_str_eq(fixture.error.message, "systemd probe: web.service failed (exit status 203)");
    cr_assert_eq(fixture.failures, 1);
    fixture_end(&fixture);
}

Test(health, what_the_update_has_nothing_to_do_with_is_not_counted) {
    static const char *const before[] = {"old.service"};
    struct fixture fixture;
    fixture_init(&fixture, INV_HEALTH_SYSTEMD);
    add_unit(&fixture, "old.service", "failed", "failed");
    add_unit(&fixture, "backup.service", "failed", "failed")->never_active = true;
    fixture.plan.failed_before = before;
    fixture.plan.failed_before_count = 1;
    cr_assert(fixture_round(&fixture));
    ASSERT_SAYS(&fixture, "old.service failed, not counted: had failed before");
    ASSERT_SAYS(&fixture, "backup.service failed, not counted: a job that this update did not");
    fixture_end(&fixture);
}

Test(health, a_job_that_the_update_changed_and_one_that_was_active_count) {
    static const char *const before[] = {"old.service"};
    struct fixture fixture;
    fixture_init(&fixture, INV_HEALTH_SYSTEMD);
    struct health_unit *job = add_unit(&fixture, "migrate.service", "failed", "failed");
    job->never_active = true;
    job->changed = true;
    add_unit(&fixture, "bystander.service", "failed", "failed");
    add_unit(&fixture, "old.service", "failed", "failed");
    fixture.plan.failed_before = before;
    fixture.plan.failed_before_count = 1;
    fixture.plan.tolerate_preexisting = false;
    cr_assert_not(fixture_round(&fixture));
    ASSERT_SAYS(&fixture, "migrate.service failed, bystander.service failed, old.service failed");
    fixture_end(&fixture);
}

Test(health, a_slow_crash_loop_is_seen_between_two_starts) {
    struct fixture fixture;
    fixture_init(&fixture, INV_HEALTH_SYSTEMD);
    struct health_unit *unit = add_unit(&fixture, "web.service", "activating", "auto-restart");
    unit->changed = true;
    unit->exec_status = 1;
    cr_assert_not(fixture_round(&fixture));
    ASSERT_SAYS(&fixture, "web.service restarts over and over (0 so far, exit status 1)");
    fixture_end(&fixture);
}

static void restart_at_fourth_look(struct fixture *fixture) {
    if (fixture->units_asked == 4) {
        fixture->units[0].restarts++;
    }
}

Test(health, restarts_that_grow_are_a_crash_loop_even_while_it_runs) {
    struct fixture fixture;
    fixture_init(&fixture, INV_HEALTH_SYSTEMD);
    add_unit(&fixture, "web.service", "active", "running")->changed = true;
    fixture.units[0].restarts = 2;
    fixture.script = restart_at_fourth_look;
    fixture.host.policy.min_healthy_time_ms = 1000;
    fixture_start(&fixture);
    cr_assert(fixture_run(&fixture, &fixture.unhealthy, 2000));
    cr_assert_eq(fixture.passes, 3);
    ASSERT_SAYS(&fixture, "web.service restarts over and over (3 so far");
    fixture_end(&fixture);
}

Test(health, a_restart_in_the_grace_time_is_forgiven) {
    struct fixture fixture;
    fixture_init(&fixture, INV_HEALTH_SYSTEMD);
    add_unit(&fixture, "web.service", "active", "running")->changed = true;
    fixture.script = restart_at_fourth_look;
    fixture.host.policy.startup_grace_ms = 200;
    fixture.host.policy.min_healthy_time_ms = 300;
    fixture_start(&fixture);
    cr_assert(fixture_run(&fixture, &fixture.healthy, 2000));
    cr_assert_eq(fixture.failures, 1);
    ASSERT_SAYS(&fixture, "probe fail uncounted: web.service restarts");
    fixture_end(&fixture);
}

Test(health, named_units_must_all_be_active_and_exist) {
    static const char *const globs[] = {"web*.service", "db.service"};
    static const char *const ignore[] = {"web-debug.*"};
    struct fixture fixture;
    fixture_init(&fixture, INV_HEALTH_SYSTEMD);
    fixture.entries[0].units = (struct inv_strings){globs, 2};
    fixture.entries[0].ignore = (struct inv_strings){ignore, 1};
    add_unit(&fixture, "web1.service", "active", "running");
    add_unit(&fixture, "web-debug.service", "failed", "failed");
    add_unit(&fixture, "other.service", "failed", "failed");
    cr_assert_not(fixture_round(&fixture));
    ASSERT_SAYS(&fixture, "probe fail: no unit matches db.service");
    fixture_end(&fixture);

    fixture_init(&fixture, INV_HEALTH_SYSTEMD);
    fixture.entries[0].units = (struct inv_strings){globs, 1};
    add_unit(&fixture, "web1.service", "active", "running");
    add_unit(&fixture, "web2.service", "activating", "start-pre");
    cr_assert_not(fixture_round(&fixture));
    ASSERT_SAYS(&fixture, "probe fail: web2.service is activating (start-pre)");
    fixture_end(&fixture);
}

Test(health, a_host_that_cannot_say_is_not_healthy) {
    struct fixture fixture;
    fixture_init(&fixture, INV_HEALTH_SYSTEMD);
    fixture.units_fail = true;
    cr_assert_not(fixture_round(&fixture));
    ASSERT_SAYS(&fixture, "probe fail: the host cannot say: systemd does not answer");
    fixture_end(&fixture);
    fixture_init(&fixture, INV_HEALTH_SYSTEMD);
    fixture.units_silent = true;
    fixture.entries[0].timeout_ms = 50;
    cr_assert_not(fixture_round(&fixture));
    ASSERT_SAYS(&fixture, "probe fail: no answer within 50 ms");
    fixture_end(&fixture);
}

/* --- Over time --- */

static void die_at_eighty_ms(struct fixture *fixture) {
    static uint64_t began;
    began = began == 0 ? now_ms() : began;
    if (now_ms() - began >= 80) {
        fixture->units[0].active = "failed";
    }
}

Test(health, a_service_that_dies_between_two_looks_is_not_healthy) {
    struct fixture fixture;
    fixture_init(&fixture, INV_HEALTH_SYSTEMD);
    fixture.entries[0].interval_ms = 5000;
    add_unit(&fixture, "web.service", "active", "running");
    fixture.script = die_at_eighty_ms;
    fixture_start(&fixture);
    cr_assert(fixture_run(&fixture, &fixture.unhealthy, 2000));
    cr_assert_not(fixture.healthy);
    fixture_end(&fixture);
}

Test(health, a_try_that_began_too_early_is_followed_by_one_at_once) {
    static const char *const argv[] = {"/bin/sh", "-c", "sleep 0.2"};
    struct fixture fixture;
    fixture_init(&fixture, INV_HEALTH_COMMAND);
    fixture.entries[0].run = (struct inv_strings){argv, 3};
    fixture.entries[0].interval_ms = 1000;
    /* Over in the middle of the second try (1.0 s to 1.2 s); the third would begin at 2 s. */
    fixture.host.policy.min_healthy_time_ms = 900;
    fixture_start(&fixture);
    cr_assert(fixture_run(&fixture, &fixture.healthy, 1900));
    cr_assert_eq(fixture.passes, 3);
    fixture_end(&fixture);
}

Test(health, stopped_by_the_handler_of_a_failure_it_gives_no_verdict) {
    struct fixture fixture;
    fixture_init(&fixture, INV_HEALTH_SYSTEMD);
    add_unit(&fixture, "web.service", "failed", "failed")->changed = true;
    fixture.stop_in_result = true;
    fixture_start(&fixture);
    fixture_run(&fixture, NULL, 100);
    cr_assert_eq(fixture.failures, 1);
    fixture_end(&fixture);
}

Test(health, goes_on_after_healthy_and_says_when_it_breaks) {
    struct fixture fixture;
    struct server server;
    fixture_init(&fixture, INV_HEALTH_TCP);
    server_start(&server, &fixture, NULL);
    fixture.entries[0].port = server.port;
    fixture_start(&fixture);
    uint64_t began = now_ms();
    cr_assert(fixture_run(&fixture, &fixture.healthy, 2000));
    cr_assert_geq(now_ms() - began, 100);
    cr_assert_geq(health_passing_ms(fixture.health), 100);
    server_stop(&server);
    cr_assert(fixture_run(&fixture, &fixture.unhealthy, 2000));
    cr_assert_str_eq(fixture.error.message, "tcp probe: connection refused 3 times");
    ASSERT_SAYS(&fixture, "probe fail: connection refused (2 of 3)");
    cr_assert_eq(health_passing_ms(fixture.health), 0);
    fixture_end(&fixture);
}

Test(health, the_deadline_names_the_probe_that_never_passed) {
    struct fixture fixture;
    fixture_init(&fixture, INV_HEALTH_TCP);
    fixture.entries[0].port = closed_port();
    fixture.host.policy.healthy_deadline_ms = 200;
    fixture_start(&fixture);
    cr_assert(fixture_run(&fixture, &fixture.unhealthy, 2000));
    cr_assert_str_eq(fixture.error.reason, "healthy-deadline");
    cr_assert_str_eq(fixture.error.message,
                     "tcp probe: connection refused; not healthy within 200 ms");
    cr_assert_gt(fixture.failures, 3);
    fixture_end(&fixture);
}

Test(health, a_probe_that_failed_before_is_reported_and_not_counted) {
    static const char *const before[] = {"probe"};
    struct fixture fixture;
    fixture_init(&fixture, INV_HEALTH_TCP);
    fixture.entries[0].port = closed_port();
    fixture.plan.probes_failed_before = before;
    fixture.plan.probes_failed_before_count = 1;
    fixture_start(&fixture);
    cr_assert(fixture_run(&fixture, &fixture.healthy, 2000));
    ASSERT_SAYS(&fixture,
                "probe fail uncounted: connection refused (failed before the change, not");
    fixture_end(&fixture);
}

Test(health, without_probes_is_healthy_and_never_before_start_returns) {
    struct fixture fixture;
    fixture_init(&fixture, INV_HEALTH_TCP);
    fixture.host.health_count = 0;
    fixture_start(&fixture);
    cr_assert_not(fixture.healthy);
    cr_assert(fixture_run(&fixture, &fixture.healthy, 1000));
    fixture_end(&fixture);
}

Test(health, stop_is_final_at_any_time) {
    static const char *const argv[] = {"/bin/sh", "-c", "sleep 60"};
    struct fixture fixture;
    struct server server;
    fixture_init(&fixture, INV_HEALTH_TCP);
    server_start(&server, &fixture, NULL);
    fixture.entries[0].port = server.port;
    fixture_add(&fixture, INV_HEALTH_COMMAND, "command")->run = (struct inv_strings){argv, 3};
    fixture_add(&fixture, INV_HEALTH_SYSTEMD, "units");
    fixture_add(&fixture, INV_HEALTH_TCP, "name")->host = "localhost";
    fixture.stop_in_result = true;
    fixture_start(&fixture);
    fixture_run(&fixture, NULL, 100);
    cr_assert_eq(fixture.passes + fixture.failures, 1);
    server_stop(&server);
    fixture_end(&fixture);
    /* And before anything has run. */
    fixture_init(&fixture, INV_HEALTH_TCP);
    fixture_start(&fixture);
    fixture_end(&fixture);
}
