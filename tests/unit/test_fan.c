/* The fan on this machine itself ("address": "local"): real processes, no network. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/fan.h"

#define HOSTS 5

static char folder[] = "/tmp/fleet-fan-XXXXXX";
static struct inventory *inventory;
static const struct inv_host *hosts[HOSTS];
static struct spec_set *specs;
static struct keyring *keyring;

struct tally {
    size_t begun, good, bad;
    size_t at_once, most_at_once;
    char reasons[HOSTS][40];
    const char *command;
};

static void setup(void) {
    char path[128];
    struct error error = ERROR_INIT;
    struct inv_errors errors = {0};
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/fleet.json", folder);
    FILE *file = fopen(path, "w");
    fputs("{\"version\": 1, \"defaults\": {\"address\": \"local\", \"system\": {\"path\": "
          "\"/nix/store/3k7xjq1c0v9r8l2p5n4m6a0z1y2w3v4s-system\"}}, \"hosts\": {",
          file);
    for (int i = 0; i < HOSTS; i++) {
        fprintf(file, "%s\"h%d\": {}", i > 0 ? "," : "", i);
    }
    fputs("}}", file);
    fclose(file);
    int err = inventory_load(path, NULL, 0, &inventory, &errors, &error);
    cr_assert_eq(err, 0, "%s", errors.count > 0 ? errors.items[0].message : error.message);
    inv_errors_free(&errors);
    for (size_t i = 0; i < HOSTS; i++) {
        hosts[i] = &inventory->hosts[i];
    }
    cr_assert_eq(spec_set_new(inventory, hosts, HOSTS, &specs, &error), 0, "%s", error.message);
    keyring = keyring_new(NULL);
    unlink(path);
}

static void teardown(void) {
    keyring_free(keyring);
    spec_set_free(specs);
    inventory_free(inventory);
    rmdir(folder);
}

TestSuite(fan, .init = setup, .fini = teardown, .timeout = 60);

static void on_result(const struct fan_host *host, const struct error *error, void *arg) {
    struct tally *tally = arg;
    tally->at_once -= tally->at_once > 0 ? 1 : 0;
    if (error == NULL) {
        tally->good++;
    } else {
        tally->bad++;
        memcpy(tally->reasons[host->index], error->reason, sizeof(error->reason));
    }
}

static void count_begin(struct tally *tally) {
    tally->begun++;
    tally->at_once++;
    tally->most_at_once =
        tally->at_once > tally->most_at_once ? tally->at_once : tally->most_at_once;
}

static struct fan_options options_of(uint32_t parallel, uint64_t timeout_ms) {
    return (struct fan_options){.inventory = inventory,
                                .hosts = hosts,
                                .host_count = HOSTS,
                                .specs = specs,
                                .keyring = keyring,
                                .parallel = parallel,
                                .shell = true,
                                .timeout_ms = timeout_ms};
}

static void on_run(int err, const struct target_reply *reply, const struct error *error,
                   void *arg) {
    fan_done(arg, err == 0 && target_reply_number(reply, "rc", -1) == 0 ? NULL : error);
}

static void run_command(struct fan_host *host, void *arg) {
    struct tally *tally = arg;
    const char *argv[] = {"sh", "-c", tally->command, NULL};
    count_begin(tally);
    target_run(host->shell, argv, 3, 20000, on_run, host);
}

Test(fan, runs_the_task_on_every_host_so_many_at_once) {
    struct tally tally = {.command = "true"};
    struct fan_options options = options_of(2, 0);
    cr_assert_eq(fan_run(&options, run_command, on_result, &tally), 0);
    cr_assert_eq(tally.good, HOSTS);
    cr_assert_eq(tally.most_at_once, 2);
}

static void done_at_once(struct fan_host *host, void *arg) {
    count_begin(arg);
    fan_done(host, NULL);
}

Test(fan, a_task_may_be_done_before_it_returns) {
    struct tally tally = {0};
    struct fan_options options = options_of(0, 0);
    cr_assert_eq(fan_run(&options, done_at_once, on_result, &tally), 0);
    cr_assert_eq(tally.good, HOSTS);
}

Test(fan, a_task_that_never_ends_is_given_up) {
    struct tally tally = {.command = "sleep 20"};
    struct fan_options options = options_of(0, 300);
    cr_assert_eq(fan_run(&options, run_command, on_result, &tally), 0);
    cr_assert_eq(tally.bad, HOSTS);
    cr_assert_str_eq(tally.reasons[0], "timeout");
}

static void interrupt(struct fan_host *host, void *arg) {
    struct tally *tally = arg;
    run_command(host, arg);
    if (tally->begun == 2) {
        raise(SIGTERM);
    }
}

Test(fan, a_signal_ends_what_runs_and_starts_no_more) {
    struct tally tally = {.command = "sleep 20"};
    struct fan_options options = options_of(2, 0);
    cr_assert_eq(fan_run(&options, interrupt, on_result, &tally), 143);
    cr_assert_eq(tally.begun, 2);
    cr_assert_eq(tally.bad, HOSTS);
    cr_assert_str_eq(tally.reasons[0], "stopped");
    cr_assert_str_eq(tally.reasons[HOSTS - 1], "stopped");
}

Test(fan, no_hosts_are_no_work) {
    struct tally tally = {0};
    struct fan_options options = options_of(0, 0);
    options.host_count = 0;
    cr_assert_eq(fan_run(&options, done_at_once, on_result, &tally), 0);
}
