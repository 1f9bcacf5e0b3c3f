/* What target_inspect answers, judged. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "core/status.h"
#include "core/target_reply.h"

#define OLD "/nix/store/00000000000000000000000000000000-old"
#define NEW "/nix/store/11111111111111111111111111111111-new"

static struct target_reply *reply;
static struct status status;

static void judge(const char *current, const char *profile, const char *deployed, const char *more,
                  const char *desired) {
    char text[2048];
    snprintf(text, sizeof(text), "current %s\nbooted %s\nprofile %s\ngeneration 7\ndeployed %s\n%s",
             current, OLD, profile, deployed, more);
    reply = target_reply_parse(text, strlen(text));
    status_read(reply, desired, &status);
}

static void release(void) {
    status_release(&status);
    target_reply_free(reply);
}

TestSuite(cmd_status, .fini = release, .timeout = 10);

static void expect(bool in_sync, const char *codes) {
    char found[256] = "";
    for (enum drift drift = 0; drift < DRIFT_COUNT; drift++) {
        if (status.drift[drift]) {
            strncat(found, found[0] != '\0' ? " " : "", 2);
            strncat(found, drift_code(drift), 40);
        }
    }
    cr_assert_str_eq(found, codes);
    cr_assert_eq(status.in_sync, in_sync);
}

#define RECORD(path)                                                                               \
    "{\"path\":\"" path "\",\"run\":\"r1\",\"rev\":\"abc\",\"dirty\":true,\"who\":\"me@here\","    \
    "\"when\":\"2026-11-22T10:00:00Z\",\"complete\":true}"

Test(cmd_status, in_sync_with_the_desired_system) {
    judge(NEW, NEW, "", "", NEW);
    expect(true, "");
}

Test(cmd_status, in_sync_with_the_last_deployment_where_nothing_is_desired) {
    judge(NEW, NEW, RECORD(NEW), "", NULL);
    expect(true, "");
    cr_assert_str_eq(status.deployed.who, "me@here");
    cr_assert(status.deployed.dirty);
}

Test(cmd_status, another_profile_than_desired) {
    judge(OLD, OLD, RECORD(OLD), "", NEW);
    expect(false, "not-desired");
}

Test(cmd_status, activated_and_not_committed) {
    judge(NEW, OLD, RECORD(OLD), "", NULL);
    expect(false, "not-committed");
}

Test(cmd_status, changed_by_somebody_else) {
    judge(NEW, NEW, RECORD(OLD), "", NULL);
    expect(false, "not-deployed");
}

Test(cmd_status, never_deployed) {
    judge(NEW, NEW, "", "", NULL);
    expect(false, "never-deployed");
}

Test(cmd_status, a_record_that_is_half_written_is_said_to_be) {
    judge(NEW, NEW, "{\"path\":", "", NULL);
    expect(false, "record-unreadable");
}

Test(cmd_status, a_record_of_a_newer_fleet_is_said_to_be_unreadable) {
    judge(NEW, NEW, "{\"format\":9,\"path\":[\"" NEW "\"],\"rev\":7,\"who\":{}}", "", NULL);
    expect(false, "record-unreadable");
    cr_assert_null(status.deployed.rev);
}

Test(cmd_status, an_activation_by_somebody_else) {
    judge(NEW, NEW, "", "switch_lock yes\nguard_alive no\n", NEW);
    expect(false, "switch-busy");
}

Test(cmd_status, a_guard_at_work_shows_its_deadline) {
    judge(NEW, OLD, "",
          "guard_record yes\nguard_alive yes\nguard active n0nce rc=0 deadline=130.5\nuptime_ms "
          "100200\n",
          NEW);
    expect(false, "not-committed not-desired guard-active");
    cr_assert_eq(status.guard, GUARD_ACTIVE);
    cr_assert_eq(status.guard_deadline_s, 30);
}

Test(cmd_status, a_guard_on_its_way_back_says_which_try_and_what_it_waits_for) {
    judge(OLD, OLD, "",
          "guard_record yes\nguard_alive yes\nguard reverting n0nce rc=1 why=activation try=4 "
          "stuck=systemd\n",
          OLD);
    expect(false, "guard-active");
    cr_assert_eq(status.guard_says.tries, 4);
    struct buf words = BUF_INIT;
    guard_state_words(&status.guard_says, &words);
    cr_assert_str_eq(buf_text(&words), "reverting, try 4: systemd does not answer there");
    buf_free(&words);
}

Test(cmd_status, a_record_without_a_guard_is_unfinished) {
    judge(NEW, NEW, RECORD(NEW), "guard_alive no\nguard_record yes\n", NULL);
    expect(false, "commit-unfinished");
}

Test(cmd_status, a_lock_says_who) {
    judge(NEW, NEW, "", "lock_id l1\nlock_run r2\nlock_who you\nlock_expires_s 12\n", NEW);
    expect(true, "");
    cr_assert_str_eq(status.lock_id, "l1");
    cr_assert_eq(status.lock_expires_s, 12);
}

Test(cmd_status, a_host_that_says_nothing_is_not_in_sync) {
    judge("", "", "", "", NULL);
    cr_assert(!status.in_sync);
}
