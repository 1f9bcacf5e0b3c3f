/* Feeding the fleet at rest to a display (see status_watch.h): the dashboard on a terminal, lines or
 * --json elsewhere.
 */
#include "cmd/status_watch.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/desired.h"
#include "cmd/displays.h"
#include "cmd/status_show.h"
#include "core/base/xalloc.h"
#include "core/survey.h"
#include "tui/output.h"
#include "tui/rest.h"

#define EVERY_MS 5000u

struct watching {
    const struct context *context;
    uv_loop_t loop;
    uv_signal_t signals[2];
    struct survey *survey;
    struct rest *rest;        /* or NULL */
    struct rest_lines *lines; /* or NULL */
    char **desired;
    char **logins;
    int signal; /* that ended it, or 0 */
    bool stopped;
};

static void on_look(const struct survey_look *look, void *arg) {
    struct watching *watching = arg;
    const struct context *context = watching->context;
    if (watching->rest != NULL) {
        rest_look(watching->rest, look);
    } else if (watching->lines != NULL) {
        rest_lines_look(watching->lines, look);
    } else if (look->answer != NULL) {
        status_json_print(context->hosts[look->host], look->answer,
                          args_count(context->args, OPTION_PROBE) > 0);
    } else {
        struct fan_host host = {
            .index = look->host, .inv = context->hosts[look->host], .connected = look->connected};
        status_json_print_error(&host, watching->desired[look->host], look->error);
    }
}

static void on_ask(size_t host, void *arg) {
    const struct watching *watching = arg;
    survey_ask(watching->survey, host);
}

static void on_every(uint64_t every_ms, void *arg) {
    const struct watching *watching = arg;
    survey_every(watching->survey, every_ms);
}

static void on_leave(void *arg) {
    struct watching *watching = arg;
    uv_stop(&watching->loop);
}

static void on_signal(uv_signal_t *handle, int number) {
    struct watching *watching = handle->data;
    watching->signal = number;
    uv_stop(&watching->loop);
}

static void on_stopped(void *arg) {
    struct watching *watching = arg;
    watching->stopped = true;
}

static void open_display(struct watching *watching) {
    const struct context *context = watching->context;
    struct rest_options options = {.fleet = context->inventory->name,
                                   .hosts = context->hosts,
                                   .logins = (const char *const *)watching->logins,
                                   .host_count = context->host_count,
                                   .every_ms = EVERY_MS,
                                   .color = context->color_out,
                                   .ascii = args_count(context->args, OPTION_ASCII) > 0,
                                   .on_ask = on_ask,
                                   .on_every = on_every,
                                   .on_leave = on_leave,
                                   .arg = watching};
    if (displays_want_dashboard(context)) {
        watching->rest = rest_new(&watching->loop, &options);
    }
    if (watching->rest == NULL && !context->json) {
        watching->lines = rest_lines_new(&options);
    }
}

static void watch(struct watching *watching) {
    static const int numbers[] = {SIGINT, SIGTERM};
    const struct context *context = watching->context;
    struct survey_options options = {.hosts = context->hosts,
                                     .desired = (const char *const *)watching->desired,
                                     .host_count = context->host_count,
                                     .specs = context->specs,
                                     .keyring = context->keyring,
                                     .every_ms = EVERY_MS,
                                     .probe = args_count(context->args, OPTION_PROBE) > 0,
                                     .opening = args_number(context->args, OPTION_PARALLEL, 0)};
    uv_loop_init(&watching->loop);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        uv_signal_init(&watching->loop, &watching->signals[i]);
        watching->signals[i].data = watching;
        uv_signal_start(&watching->signals[i], on_signal, numbers[i]);
    }
    open_display(watching);
    watching->survey = survey_new(&watching->loop, &options, on_look, watching);
    uv_run(&watching->loop, UV_RUN_DEFAULT);
    if (watching->rest != NULL) {
        rest_close(watching->rest);
    }
    if (watching->lines != NULL) {
        rest_lines_free(watching->lines);
    }
    survey_stop(watching->survey, on_stopped, watching);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        uv_close((uv_handle_t *)&watching->signals[i], NULL);
    }
    uv_run(&watching->loop, UV_RUN_DEFAULT);
    uv_loop_close(&watching->loop);
}

int status_watch(const struct context *context) {
    struct watching watching = {.context = context};
    watching.desired = xcalloc(context->host_count + 1, sizeof(char *));
    watching.logins = xcalloc(context->host_count + 1, sizeof(char *));
    int code = desired_find(context, watching.desired);
    if (code == EXIT_DONE || code == EXIT_BUILD_FAILED) {
        for (size_t i = 0; i < context->host_count; i++) {
            watching.logins[i] = spec_login(spec_of(context->specs, context->hosts[i]));
        }
        watch(&watching);
        code = watching.signal != 0 ? 128 + watching.signal : EXIT_DONE;
    }
    for (size_t i = 0; i < context->host_count; i++) {
        free(watching.desired[i]);
        free(watching.logins[i]);
    }
    free(watching.desired);
    free(watching.logins);
    return code;
}
