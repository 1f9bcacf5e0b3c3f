/* The survey on this machine itself ("address": "local"), and a port where nobody listens. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/survey.h"

#define HOSTS 3
#define DOWN  2 /* the host that can't be reached */

static char folder[] = "/tmp/fleet-survey-XXXXXX";
static char path[128], mark[128];
static struct inventory *inventory;
static const struct inv_host *hosts[HOSTS];
static struct spec_set *specs;
static struct keyring *keyring;
static uv_loop_t loop;
static struct survey *survey;

static struct {
    size_t looks[HOSTS], failures[HOSTS], wanted;
    bool healthy[HOSTS], stopped, stops_early;
    char reason[40], detail[200];
    size_t probes;
} seen;

static void setup(void) {
    struct error error = ERROR_INIT;
    struct inv_errors errors = {0};
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/fleet.json", folder);
    snprintf(mark, sizeof(mark), "%s/mark", folder);
    FILE *file = fopen(path, "w");
    fprintf(file,
            "{\"version\": 1, \"defaults\": {\"address\": \"local\", \"system\": {\"path\": "
            "\"/nix/store/3k7xjq1c0v9r8l2p5n4m6a0z1y2w3v4s-system\"}, \"health\": ["
            "{\"name\": \"mark\", \"type\": \"command\", \"from\": \"target\", \"run\": [\"test\", "
            "\"-e\", \"%s\"]}, {\"name\": \"units\", \"type\": \"systemd\", \"ignore\": [\"*\"]}]},"
            " \"hosts\": {\"a\": {}, \"b\": {\"health\": false}, \"c\": {\"address\": "
            "\"127.0.0.1:1\", \"user\": \"root\", \"host_key_check\": \"off\"}}}",
            mark);
    fclose(file);
    int err = inventory_load(path, NULL, 0, &inventory, &errors, &error);
    cr_assert_eq(err, 0, "%s", errors.count > 0 ? errors.items[0].message : error.message);
    inv_errors_free(&errors);
    for (size_t i = 0; i < HOSTS; i++) {
        hosts[i] = &inventory->hosts[i];
    }
    cr_assert_eq(spec_set_new(inventory, hosts, HOSTS, &specs, &error), 0, "%s", error.message);
    keyring = keyring_new(NULL);
    uv_loop_init(&loop);
}

static void teardown(void) {
    keyring_free(keyring);
    spec_set_free(specs);
    inventory_free(inventory);
    unlink(path);
    unlink(mark);
    rmdir(folder);
}

TestSuite(survey, .init = setup, .fini = teardown, .timeout = 60);

static void on_stopped(void *arg) {
    (void)arg;
    seen.stopped = true;
}

static void write_mark(void) {
    FILE *file = fopen(mark, "w");
    cr_assert_not_null(file);
    fclose(file);
}

static void note_failure(const struct survey_look *look) {
    seen.failures[look->host]++;
    snprintf(seen.reason, sizeof(seen.reason), "%s", look->error->reason);
    cr_expect_not(look->connected);
}

static void note_answer(const struct survey_look *look) {
    cr_expect(look->connected);
    cr_expect_null(look->error);
    cr_expect_str_neq(look->answer->status.boot_id, "");
    seen.healthy[look->host] = look->answer->healthy;
    if (look->host == 0 && look->answer->probe_count > 0) {
        seen.probes = look->answer->probe_count;
        snprintf(seen.detail, sizeof(seen.detail), "%s", look->answer->probes[0].detail);
        cr_expect_str_eq(look->answer->probes[0].name, "mark");
    }
}

static void on_look(const struct survey_look *look, void *arg) {
    (void)arg;
    seen.looks[look->host]++;
    if (look->answer != NULL) {
        note_answer(look);
    } else {
        note_failure(look);
    }
    if (look->host == 0 && seen.looks[0] == 1) {
        cr_expect(seen.stops_early || !seen.healthy[0]);
        write_mark();
        survey_ask(survey, 0);
    }
    bool enough = true;
    for (size_t i = 0; i < HOSTS; i++) {
        enough = enough && seen.looks[i] >= seen.wanted;
    }
    if (enough || seen.stops_early) {
        survey_stop(survey, on_stopped, NULL);
    }
}

static void run(size_t wanted, bool probe, uint32_t opening) {
    struct survey_options options = {.hosts = hosts,
                                     .host_count = HOSTS,
                                     .specs = specs,
                                     .keyring = keyring,
                                     .every_ms = 20,
                                     .probe = probe,
                                     .opening = opening};
    seen.wanted = wanted;
    survey = survey_new(&loop, &options, on_look, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert(seen.stopped);
    cr_assert_eq(uv_loop_close(&loop), 0);
}

Test(survey, asks_again_and_again_and_tells_who_is_down) {
    run(3, true, 1);
    cr_assert(seen.healthy[0], "%s", seen.detail);
    cr_assert_eq(seen.probes, 2);
    cr_assert(seen.healthy[1]);
    cr_assert_eq(seen.failures[0] + seen.failures[1], 0);
    cr_assert_eq(seen.failures[DOWN], seen.looks[DOWN]);
    cr_assert_str_eq(seen.reason, "connection-refused");
}

Test(survey, without_probes_runs_none_and_stops_amid_the_others) {
    seen.stops_early = true;
    run(1, false, HOSTS);
    cr_assert_eq(seen.probes, 0);
}

static void never(const struct survey_look *look, void *arg) {
    (void)arg;
    cr_assert_fail("a look at %zu", look->host);
}

Test(survey, stops_before_it_has_begun) {
    struct survey_options options = {
        .hosts = hosts, .host_count = HOSTS, .specs = specs, .keyring = keyring};
    survey = survey_new(&loop, &options, never, NULL);
    survey_stop(survey, on_stopped, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert(seen.stopped);
    cr_assert_eq(uv_loop_close(&loop), 0);
}
