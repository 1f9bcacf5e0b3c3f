/* `fleet check`: the inventory is valid; with --reach, each host lets us in. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/context.h"
#include "cmd/host_task.h"
#include "cmd/json_line.h"
#include "core/base/xalloc.h"
#include "core/fan.h"
#include "healthcheck/health.h"

/* Hosts that are down, and what is to be said of each. */
struct reach {
    const struct context *context;
    size_t down;     /* counted for the exit code */
    size_t offline;  /* optional hosts that are down */
    size_t answered; /* in the order of completion */
};

static void check_reached(struct fan_host *host, void *arg) {
    (void)arg;
    fan_done(host, NULL);
}

static void print_reach_json(const struct fan_host *host, const struct error *error) {
    struct buf line = BUF_INIT;
    json_open(&line, NULL);
    json_text(&line, "host", host->inv->name);
    json_bool(&line, "reachable", error == NULL);
    json_text(&line, "address", error == NULL ? host->address : NULL);
    json_text(&line, "reason", error != NULL ? error->reason : NULL);
    json_text(&line, "message", error != NULL ? error->message : NULL);
    json_close(&line);
    json_print(&line);
    buf_free(&line);
}

static void check_result(const struct fan_host *host, const struct error *error, void *arg) {
    struct reach *reach = arg;
    if (error == NULL) {
        reach->answered++;
    } else if (host->inv->optional) {
        reach->offline++;
    } else {
        reach->down++;
    }
    if (reach->context->json) {
        print_reach_json(host, error);
    } else if (error != NULL) {
        fprintf(stderr, "%s: %s\n", host->inv->name, error->message);
    } else if (reach->context->verbosity >= 0) {
        printf("%s: reached%s%s\n", host->inv->name, host->address[0] != '\0' ? " at " : "",
               host->address);
    }
}

static int check_reach(struct context *context) {
    int code = context_connect(context, true);
    if (code != 0) {
        return code;
    }
    struct reach reach = {.context = context};
    struct fan_options options = {.inventory = context->inventory,
                                  .hosts = context->hosts,
                                  .host_count = context->host_count,
                                  .specs = context->specs,
                                  .keyring = context->keyring,
                                  .person = host_task_person,
                                  .parallel = args_number(context->args, OPTION_PARALLEL, 0)};
    int interrupted = fan_run(&options, check_reached, check_result, &reach);
    if (reach.down > 0 || reach.offline > 0) {
        fprintf(stderr, "fleet: %zu of %zu hosts reached, %zu down", reach.answered,
                context->host_count, reach.down);
        fprintf(stderr, reach.offline > 0 ? ", %zu optional and offline\n" : "\n", reach.offline);
    }
    if (interrupted != 0) {
        return interrupted;
    }
    return reach.down > 0 ? EXIT_UNREACHABLE : EXIT_DONE;
}

/* What loading can't see: the regular expressions of health entries. Entries are shared between
 * hosts that merge alike; each is checked once where its neighbour has the same. */
static int check_health(const struct context *context) {
    size_t wrong = 0;
    const struct inv_health *checked = NULL;
    for (size_t i = 0; i < context->inventory->host_count; i++) {
        const struct inv_host *host = &context->inventory->hosts[i];
        if (host->health == checked) {
            continue;
        }
        checked = host->health;
        for (size_t j = 0; j < host->health_count; j++) {
            struct error error = ERROR_INIT;
            if (health_validate(&host->health[j], &error) != 0) {
                fprintf(stderr, "%s: hosts.%s.health: %s\n", context->inventory->path, host->name,
                        error.message);
                wrong++;
            }
        }
    }
    return wrong > 0 ? EXIT_USAGE : EXIT_DONE;
}

int cmd_check(const struct args *args) {
    struct context context;
    context_init(&context, args);
    int code = context_load(&context);
    if (code == 0) {
        code = context_select(&context);
    }
    if (code == 0) {
        code = check_health(&context);
    }
    bool reach = args_count(args, OPTION_REACH) > 0;
    if (code == 0 && !context.json && context.verbosity >= 0) {
        size_t hosts = context.inventory->host_count;
        size_t tags = context.inventory->tags.count;
        printf("%s: valid, %zu host%s, %zu tag%s\n", context.inventory->path, hosts,
               hosts == 1 ? "" : "s", tags, tags == 1 ? "" : "s");
    }
    if (code == 0 && reach) {
        code = check_reach(&context);
    }
    context_release(&context);
    return code;
}
