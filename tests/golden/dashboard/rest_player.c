/* The dashboard of the fleet at rest on a real terminal, without hosts: looks of our own, at a time of
 * our own, then keys until `q`. For tests/golden/dashboard.bats.
 *
 * usage: golden_rest_player HOSTS      8: one of each kind; more: a large fleet, mostly in sync
 */
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "core/target_reply.h"
#include "tui/rest.h"

#define START_MS INT64_C(1795371060000) /* 2026-11-22 18:11 UTC */
#define KINDS    8

static uv_loop_t loop;
static int64_t now_ms = START_MS;
static size_t count;
static struct inv_host *hosts;

static int64_t played_ms(void *arg) {
    (void)arg;
    return now_ms;
}

static void on_ask(size_t host, void *arg) {
    (void)host;
    (void)arg;
}

static void on_every(uint64_t every_ms, void *arg) {
    (void)every_ms;
    (void)arg;
}

/* A display alone keeps no loop running. */
static void on_nothing(uv_timer_t *timer) {
    (void)timer;
}

static void on_leave(void *arg) {
    (void)arg;
    uv_stop(&loop);
}

static struct status status_of(size_t host) {
    static char who[] = "alice@ops", rev[] = "a1b2c3d4e5f6", when[] = "2026-11-22T17:58:11Z",
                run[] = "20261122-175811-m2p0aa";
    static const char path[] = "/nix/store/9fw3m1kxg4r1qz8h2y6d5a7s0v3b8n4j-nixos-system-24.05.6";
    return (struct status){.current = path,
                           .booted = path,
                           .profile = path,
                           .desired = path,
                           .boot_id = "b",
                           .nix = "2.24.9",
                           .generation = (int64_t)(80 + host % 40),
                           .free_bytes = INT64_C(39000000000) + (int64_t)host * 1700000000,
                           .in_sync = true,
                           .guard_deadline_s = -1,
                           .deployed = {.who = who, .rev = rev, .when = when, .run = run}};
}

/* What is the matter with a host: a number below KINDS, 0 for nothing. */
static size_t kind_of(size_t host) {
    return count <= KINDS      ? host % KINDS
           : host % 97 == 96   ? 4
           : host % 61 == 60   ? 1
           : host % 53 == 52   ? 3
           : host % 41 == 40   ? 2
           : host == count - 1 ? 5
                               : 0;
}

static void look(struct rest *rest, size_t host, size_t kind) {
    struct status status = status_of(host);
    static char probe[] = "web", detail[] = "10.0.0.1:8080 refuses connections";
    struct status_probe bad = {.name = probe, .detail = detail};
    struct status_answer answer = {.status = status, .healthy = kind != 3};
    struct error error = ERROR_INIT;
    struct survey_look one = {.host = host, .answer = &answer, .connected = true};
    const char *text = kind == 6 ? "failed logrotate.service\n" : "";
    if (kind == 1) {
        answer.status.in_sync = false;
        answer.status.drift[DRIFT_NOT_COMMITTED] = true;
    } else if (kind == 2) {
        answer.status.in_sync = false;
        answer.status.guard = GUARD_ACTIVE;
        answer.status.guard_says.phase = GUARD_ACTIVE;
        answer.status.guard_deadline_s = 42;
    } else if (kind == 3) {
        answer.probes = &bad;
        answer.probe_count = 1;
    } else if (kind == 4 || kind == 5) {
        error_set(&error, FLEET_ERR_UNREACHABLE, "connection-refused",
                  "10.0.0.%zu port 22 refuses connections", host % 250);
        one = (struct survey_look){.host = host, .error = &error};
    }
    struct target_reply *reply = target_reply_parse(text, strlen(text));
    answer.reply = reply;
    rest_look(rest, &one);
    target_reply_free(reply);
}

/* All are well at first; later some are not. The last one of the eight never answers. */
static void play(struct rest *rest) {
    for (int turn = 0; turn < 4; turn++, now_ms += 20000) {
        for (size_t i = 0; i < count; i++) {
            bool early = turn < 2 && kind_of(i) != 5;
            if (kind_of(i) < KINDS - 1) {
                look(rest, i, early ? 0 : kind_of(i));
            }
        }
    }
}

int main(int argc, char **argv) {
    setlocale(LC_ALL, "");
    count = argc > 1 ? strtoul(argv[1], NULL, 10) : KINDS;
    hosts = xcalloc(count + 1, sizeof(*hosts));
    const struct inv_host **list = xcalloc(count + 1, sizeof(*list));
    const char **logins = xcalloc(count + 1, sizeof(*logins));
    for (size_t i = 0; i < count; i++) {
        hosts[i] = (struct inv_host){
            .index = i, .name = xasprintf("node%03zu", i + 1), .optional = kind_of(i) == 5};
        list[i] = &hosts[i];
        logins[i] = "root@10.0.0.11:2222";
    }
    uv_loop_init(&loop);
    struct rest_options options = {.fleet = "prod",
                                   .hosts = list,
                                   .logins = logins,
                                   .host_count = count,
                                   .every_ms = 5000,
                                   .color = getenv("NO_COLOR") == NULL,
                                   .now_ms = played_ms,
                                   .on_ask = on_ask,
                                   .on_every = on_every,
                                   .on_leave = on_leave};
    struct rest *rest = rest_new(&loop, &options);
    if (rest == NULL) {
        fprintf(stderr, "golden_rest_player: needs a terminal\n");
        return 1;
    }
    play(rest);
    uv_timer_t hold;
    uv_timer_init(&loop, &hold);
    uv_timer_start(&hold, on_nothing, 600000, 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_close((uv_handle_t *)&hold, NULL);
    rest_close(rest);
    uv_run(&loop, UV_RUN_DEFAULT);
    int open = uv_loop_close(&loop);
    for (size_t i = 0; i < count; i++) {
        free((void *)(uintptr_t)hosts[i].name);
    }
    free(hosts);
    free(list);
    free(logins);
    return open;
}
