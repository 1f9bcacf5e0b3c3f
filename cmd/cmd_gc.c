/* `fleet gc`: removes old generations and collects garbage on the selected hosts.
 *
 * Under the host's lock, so that no update is in the middle of anything: lock, look, list, collect,
 * unlock, all over one shell. A dry run takes no lock and removes nothing.
 */
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/host_task.h"
#include "cmd/json_line.h"
#include "cmd/question.h"
#include "core/base/clock.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/gc.h"
#include "core/journal.h"

#define COLLECT_TIMEOUT_MS 1800000u
#define TASK_TIMEOUT_MS    (COLLECT_TIMEOUT_MS + 600000u)
/* Nobody renews it: as long as the longest collection. */
#define LEASE_MS TASK_TIMEOUT_MS

struct collection;

struct gc_host {
    struct collection *collection;
    struct fan_host *host;
    bool locked;
    char *current, *booted;
    int64_t generation;
    int64_t *removed;
    size_t removed_count;
    uint64_t paths, bytes;
    bool counted; /* paths and bytes are known */
    char *warning;
    struct error error; /* the verdict while the lock is let go */
};

struct collection {
    const struct context *context;
    struct gc_rules rules;
    bool dry;
    char id[RUN_ID_SIZE];
    char *who;
    struct gc_host *hosts; /* one a host */
    struct host_tally tally;
    size_t held; /* hosts that another run holds */
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
    buf_add_text(&line, host->removed_count == 0 ? "; no generation goes" : "; generations ");
    for (size_t i = 0; i < host->removed_count; i++) {
        buf_printf(&line, "%s%lld", i > 0 ? ", " : "", (long long)host->removed[i]);
    }
    puts(buf_text(&line));
    buf_free(&line);
}

/* ---- one host ---- */

static void on_released(int err, const struct target_reply *reply, const struct error *error,
                        void *arg) {
    struct gc_host *host = arg;
    (void)reply;
    if (err != 0 && host->error.code == 0) {
        host->error = *error;
    }
    fan_done(host->host, host->error.code != 0 ? &host->error : NULL);
}

/* The end, well or not: lets go first. */
static void finish(struct gc_host *host, const struct error *error) {
    if (error != NULL) {
        host->error = *error;
    }
    if (!host->locked) {
        fan_done(host->host, error);
        return;
    }
    host->locked = false;
    target_lock_release(host->host->shell, host->collection->id, on_released, host);
}

static void on_collected(int err, const struct target_reply *reply, const struct error *error,
                         void *arg) {
    struct gc_host *host = arg;
    if (err != 0) {
        finish(host, error);
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
    finish(host, NULL);
}

static void on_generations(int err, const struct target_reply *reply, const struct error *error,
                           void *arg) {
    struct gc_host *host = arg;
    const struct collection *collection = host->collection;
    if (err != 0) {
        finish(host, error);
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
        finish(host, error);
        return;
    }
    AUTO_FREE char *record = copy_of(reply, "guard_record");
    if (strcmp(record, "yes") == 0) {
        struct error unfinished;
        error_set(&unfinished, FLEET_ERR_REMOTE, "unfinished",
                  "an activation is under way there or was left half done: nothing was removed. "
                  "The next update finishes it");
        finish(host, &unfinished);
        return;
    }
    host->current = copy_of(reply, "current");
    host->booted = copy_of(reply, "booted");
    host->generation = target_reply_number(reply, "generation", 0);
    struct target_env env = {.profile = host->host->inv->profile};
    target_generations(host->host->shell, &env, on_generations, host);
}

static void look(struct gc_host *host) {
    struct target_env env = {.profile = host->host->inv->profile};
    target_inspect(host->host->shell, &env, NULL, on_inspected, host);
}

static void on_locked(int err, const struct target_reply *reply, const struct error *error,
                      void *arg) {
    struct gc_host *host = arg;
    if (err != 0) {
        finish(host, error);
        return;
    }
    AUTO_FREE char *answer = copy_of(reply, "lock");
    if (strcmp(answer, "ok") == 0) {
        host->locked = true;
        look(host);
        return;
    }
    AUTO_FREE char *who = copy_of(reply, "lock_who");
    AUTO_FREE char *since = copy_of(reply, "lock_since");
    AUTO_FREE char *run = copy_of(reply, "lock_run");
    AUTO_FREE char *id = copy_of(reply, "lock_id");
    struct error held;
    error_set(&held, FLEET_ERR_LOCKED, "locked",
              "held by %s since %s (run %s): wait for it, or if it is dead: fleet unlock %s --id "
              "%s",
              who, since, run, host->host->inv->name, id);
    host->collection->held++;
    finish(host, &held);
}

static void begin(struct fan_host *fan_host, void *arg) {
    struct collection *collection = arg;
    struct gc_host *host = &collection->hosts[fan_host->index];
    host->collection = collection;
    host->host = fan_host;
    if (collection->dry) {
        look(host);
        return;
    }
    struct target_lock lock = {
        .id = collection->id, .run = collection->id, .who = collection->who, .lease_ms = LEASE_MS};
    target_lock_take(fan_host->shell, &lock, on_locked, host);
}

static void result(const struct fan_host *fan_host, const struct error *error, void *arg) {
    struct collection *collection = arg;
    const struct gc_host *host = &collection->hosts[fan_host->index];
    if (error != NULL) {
        fprintf(stderr, "%s: %s\n", fan_host->inv->name, error->message);
        if (error->code != FLEET_ERR_LOCKED) {
            host_tally_add(&collection->tally, fan_host, error);
        }
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

static char *who_am_i(void) {
    char machine[256] = "";
    const struct passwd *user = getpwuid(getuid());
    gethostname(machine, sizeof(machine) - 1);
    return xasprintf("%s@%s pid %d", user != NULL ? user->pw_name : "?", machine, (int)getpid());
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
    run_id_new(collection.rules.now_ms, collection.id);
    collection.who = who_am_i();
    collection.hosts = xcalloc(context->host_count + 1, sizeof(*collection.hosts));
    int interrupted = host_task_run(context, true, TASK_TIMEOUT_MS, begin, result, &collection);
    if (context->verbosity >= 0 && !context->json && context->host_count > 1) {
        struct buf line = BUF_INIT;
        text_add_bytes(&line, collection.bytes);
        printf("%s %s in all\n", collection.dry ? "would free" : "freed", buf_text(&line));
        buf_free(&line);
    }
    int code = host_tally_exit(&collection.tally, interrupted);
    if (collection.held > 0 && (code == EXIT_DONE || code == EXIT_UNREACHABLE)) {
        code = EXIT_LOCKED;
    }
    for (size_t i = 0; i < context->host_count; i++) {
        free(collection.hosts[i].current);
        free(collection.hosts[i].booted);
        free(collection.hosts[i].removed);
        free(collection.hosts[i].warning);
    }
    free(collection.hosts);
    free(collection.who);
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
