#include "cmd/evaluate.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "core/build.h"

#define SIGNAL_BASE 128

struct evaluation {
    const struct context *context;
    char **paths;
    size_t failed;
    int signal;
    uv_loop_t loop;
    uv_signal_t signals[2];
    struct build *build;
    bool done;
};

static void on_built(size_t host, const struct build_result *result, void *arg) {
    const struct evaluation *evaluation = arg;
    evaluation->paths[host] = xstrdup(result->path);
}

static void on_failed(size_t host, const struct error *error, void *arg) {
    struct evaluation *evaluation = arg;
    evaluation->failed++;
    if (error->code != FLEET_ERR_CANCELLED) {
        fprintf(stderr, "%s: %s\n", evaluation->context->hosts[host]->name, error->message);
    }
}

static void on_done(void *arg) {
    struct evaluation *evaluation = arg;
    evaluation->done = true;
    for (size_t i = 0; i < ARRAY_LEN(evaluation->signals); i++) {
        uv_close((uv_handle_t *)&evaluation->signals[i], NULL);
    }
    build_free(evaluation->build);
}

static void on_signal(uv_signal_t *handle, int number) {
    struct evaluation *evaluation = handle->data;
    if (!evaluation->done && evaluation->signal == 0) {
        evaluation->signal = number;
        build_cancel(evaluation->build);
    }
}

static void watch_signals(struct evaluation *evaluation) {
    static const int numbers[] = {SIGINT, SIGTERM};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        uv_signal_init(&evaluation->loop, &evaluation->signals[i]);
        evaluation->signals[i].data = evaluation;
        uv_signal_start(&evaluation->signals[i], on_signal, numbers[i]);
    }
}

int evaluate_hosts(const struct context *context, char **ret_paths) {
    static const struct build_handlers handlers = {
        .on_built = on_built, .on_failed = on_failed, .on_done = on_done};
    struct evaluation evaluation = {.context = context, .paths = ret_paths};
    struct build_options options = {.evaluate_only = true};
    uv_loop_init(&evaluation.loop);
    watch_signals(&evaluation);
    evaluation.build = build_start(&evaluation.loop, context->inventory, context->hosts,
                                   context->host_count, &options, &handlers, &evaluation);
    uv_run(&evaluation.loop, UV_RUN_DEFAULT);
    uv_loop_close(&evaluation.loop);
    if (evaluation.signal != 0) {
        return SIGNAL_BASE + evaluation.signal;
    }
    return evaluation.failed > 0 ? EXIT_BUILD_FAILED : EXIT_DONE;
}
