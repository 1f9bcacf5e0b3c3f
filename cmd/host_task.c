/* A small task on the selected hosts (see host_task.h). */
#include "cmd/host_task.h"

#include <stdio.h>

void host_tally_add(struct host_tally *tally, const struct fan_host *host,
                    const struct error *error) {
    if (error == NULL || error->code == FLEET_ERR_CANCELLED) {
        return;
    }
    if (host->connected) {
        tally->failed++;
    } else if (host->inv->optional) {
        tally->offline++;
    } else {
        tally->unreachable++;
    }
}

int host_tally_exit(const struct host_tally *tally, int interrupted) {
    if (interrupted != 0) {
        return interrupted;
    }
    if (tally->failed > 0) {
        return EXIT_HOSTS_FAILED;
    }
    return tally->unreachable > 0 ? EXIT_UNREACHABLE : EXIT_DONE;
}

int host_task_prepare(struct context *context) {
    int code = context_load(context);
    if (code == 0) {
        code = context_select(context);
    }
    return code == 0 ? context_connect(context, true) : code;
}

void host_task_person(const struct inv_host *inv, const char *text) {
    fprintf(stderr, "fleet: %s: %s\n", inv->name, text);
}

int host_task_run(struct context *context, bool shell, uint64_t timeout_ms, fan_task task,
                  fan_result result, void *arg) {
    struct fan_options options = {.inventory = context->inventory,
                                  .hosts = context->hosts,
                                  .host_count = context->host_count,
                                  .specs = context->specs,
                                  .keyring = context->keyring,
                                  .parallel = args_number(context->args, OPTION_PARALLEL, 0),
                                  .shell = shell,
                                  .person = host_task_person,
                                  .timeout_ms = timeout_ms};
    return fan_run(&options, task, result, arg);
}
