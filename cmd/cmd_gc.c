/* `fleet gc`: removes old generations and collects garbage on the selected hosts.
 *
 * Under the host's lock: look, list, collect. A dry run takes no lock and removes nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/json_line.h"
#include "cmd/locked_task.h"
#include "cmd/question.h"
#include "core/base/clock.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/gc.h"

#define COLLECT_TIMEOUT_MS 1800000u
#define TASK_TIMEOUT_MS    (COLLECT_TIMEOUT_MS + 600000u)

struct collection;

struct gc_host {
    struct collection *collection;
    struct fan_host *host;
    struct locked_host *locked;
    char *current, *booted;
    int64_t generation;
    int64_t *removed;
    size_t removed_count;
    uint64_t paths, bytes;
    bool counted; /* paths and bytes are known */
    char *warning;
};

struct collection {
    const struct context *context;
    struct gc_rules rules;
    bool dry;
    struct gc_host *hosts; /* one a host */
    uint64_t bytes;
};

/* ---- results ---- */

static void print_json(const struct gc_host *host) {
    struct buf line = BUF_INIT;
    json_open(&line, NULL);
    json_text(&line, "host", host->host->inv->name);
    json_bool(&line, "dry_run", host->collection->dry);
    json_list_open(&line, "generations");
    for (size_t i = 0; i < host->removed_count; i++) {
        json_number(&line, NULL, host->removed[i]);
    }
    json_list_close(&line);
    if (host->counted) {
        json_number(&line, "paths", (int64_t)host->paths);
        json_number(&line, "bytes", (int64_t)host->bytes);
    } else {
        json_null(&line, "paths");
        json_null(&line, "bytes");
    }
    json_close(&line);
    json_print(&line);
    buf_free(&line);
}

static void print_text(const struct gc_host *host) {
    bool dry = host->collection->dry;
    struct buf line = BUF_INIT;
    buf_printf(&line, "%s: %s ", host->host->inv->name, dry ? "would free" : "freed");
    if (host->counted) {
        text_add_bytes(&line, host->bytes);
        buf_printf(&line, " in %llu paths", (unsigned long long)host->paths);
    } else {
        buf_add_text(&line, "an unknown amount");
    }
    if (host->removed_count == 0) {
        buf_printf(&line, "; no generation %s", dry ? "would be removed" : "was removed");
    } else {
        buf_printf(&line, "; %s generations ", dry ? "would remove" : "removed");
    }
    for (size_t i = 0; i < host->removed_count; i++) {
        buf_printf(&line, "%s%lld", i > 0 ? ", " : "", (long long)host->removed[i]);
    }
    puts(buf_text(&line));
    buf_free(&line);
}

/* ---- one host ---- */

static void on_collected(int err, const struct target_reply *reply, const struct error *error,
                         void *arg) {
    struct gc_host *host = arg;
    if (err != 0) {
        locked_done(host->locked, error);
        return;
    }
    const char *words = target_reply_get(reply, "words");
    const char *warning = target_reply_get(reply, "warning");
    int64_t bytes = target_reply_number(reply, "bytes", -1);
    if (words != NULL) {
        host->counted = gc_read_words(words, &host->paths, &host->bytes);
    } else if (bytes >= 0) {
        host->counted = true;
        host->bytes = (uint64_t)bytes;
        host->paths = (uint64_t)target_reply_number(reply, "paths", 0);
    }
    host->warning = warning != NULL ? xstrdup(warning) : NULL;
    host->collection->bytes += host->bytes;
    locked_done(host->locked, NULL);
}

static void on_generations(int err, const struct target_reply *reply, const struct error *error,
                           void *arg) {
    struct gc_host *host = arg;
    const struct collection *collection = host->collection;
    if (err != 0) {
        locked_done(host->locked, error);
        return;
    }
    struct gc_facts facts = {.generations = reply,
                             .generation = host->generation,
                             .current = host->current,
                             .booted = host->booted};
    host->removed = gc_choose(&facts, &collection->rules, &host->removed_count);
    struct target_env env = {.profile = host->host->inv->profile};
    gc_collect(host->host->shell, &env, host->removed, host->removed_count, collection->dry,
               COLLECT_TIMEOUT_MS, on_collected, host);
}

static char *copy_of(const struct target_reply *reply, const char *key) {
    const char *value = target_reply_get(reply, key);
    return xstrdup(value != NULL ? value : "");
}

static void on_inspected(int err, const struct target_reply *reply, const struct error *error,
                         void *arg) {
    struct gc_host *host = arg;
    if (err != 0) {
        locked_done(host->locked, error);
        return;
    }
    AUTO_FREE char *record = copy_of(reply, "guard_record");
    if (strcmp(record, "yes") == 0) {
        struct error unfinished;
        error_set(&unfinished, FLEET_ERR_REMOTE, "unfinished",
                  "an activation is under way there or was left half done: nothing was removed. "
                  "The next update finishes it");
        locked_done(host->locked, &unfinished);
        return;
    }
    host->current = copy_of(reply, "current");
    host->booted = copy_of(reply, "booted");
    host->generation = target_reply_number(reply, "generation", 0);
    struct target_env env = {.profile = host->host->inv->profile};
    target_generations(host->host->shell, &env, on_generations, host);
}

static void begin(struct locked_host *locked, void *arg) {
    struct collection *collection = arg;
    struct gc_host *host = &collection->hosts[locked->host->index];
    host->collection = collection;
    host->host = locked->host;
    host->locked = locked;
    struct target_env env = {.profile = locked->host->inv->profile};
    target_inspect(locked->host->shell, &env, NULL, on_inspected, host);
}

static void result(const struct fan_host *fan_host, const struct error *error, void *arg) {
    struct collection *collection = arg;
    const struct gc_host *host = &collection->hosts[fan_host->index];
    if (error != NULL) {
        return;
    }
    if (host->warning != NULL) {
        fprintf(stderr, "%s: %s\n", fan_host->inv->name, host->warning);
    }
    if (collection->context->json) {
        print_json(host);
    } else {
        print_text(host);
    }
}

/* ---- the command ---- */

static bool is_confirmed(const struct context *context, const struct collection *collection) {
    if (collection->dry || !context->asks) {
        return true;
    }
    bool removes = collection->rules.keep > 0 || collection->rules.older_than_ms > 0;
    AUTO_FREE char *text =
        xasprintf("This collects garbage on %zu host%s of %s%s.", context->host_count,
                  context->host_count == 1 ? "" : "s", context->inventory->name,
                  removes ? " and removes old generations" : "");
    return question_confirm(text);
}

static int collect(struct context *context) {
    struct collection collection = {
        .context = context,
        .dry = args_count(context->args, OPTION_DRY_RUN) > 0,
        .rules = {.keep = args_number(context->args, OPTION_KEEP, 0),
                  .older_than_ms = args_duration_ms(context->args, OPTION_OLDER_THAN, 0),
                  .now_ms = clock_wall_ms(&clock_system)}};
    if (!is_confirmed(context, &collection)) {
        fputs("fleet: not confirmed; nothing was touched\n", stderr);
        return EXIT_USAGE;
    }
    collection.hosts = xcalloc(context->host_count + 1, sizeof(*collection.hosts));
    struct locked_task task = {.begin = begin,
                               .result = result,
                               .lock = !collection.dry,
                               .timeout_ms = TASK_TIMEOUT_MS,
                               .arg = &collection};
    struct host_tally tally = {0};
    int code = locked_task_run(context, &task, &tally);
    if (context->verbosity >= 0 && !context->json && context->host_count > 1) {
        struct buf line = BUF_INIT;
        text_add_bytes(&line, collection.bytes);
        printf("%s %s in all\n", collection.dry ? "would free" : "freed", buf_text(&line));
        buf_free(&line);
    }
    for (size_t i = 0; i < context->host_count; i++) {
        free(collection.hosts[i].current);
        free(collection.hosts[i].booted);
        free(collection.hosts[i].removed);
        free(collection.hosts[i].warning);
    }
    free(collection.hosts);
    return code;
}

int cmd_gc(const struct args *args) {
    struct context context;
    context_init(&context, args);
    int code = host_task_prepare(&context);
    if (code == 0) {
        code = collect(&context);
    }
    context_release(&context);
    return code;
}
