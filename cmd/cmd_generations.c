/* `fleet generations`: the generations of each host's profile.
 *
 * Two scripts over one shell: what the host runs and what fleet's roots keep, then the list.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/host_task.h"
#include "cmd/json_line.h"
#include "core/base/xalloc.h"

#define ASK_TIMEOUT_MS 60000

struct listing;

/* What one host has said so far. */
struct host_facts {
    struct listing *listing;
    struct fan_host *host;
    char *current, *booted;
    int64_t generation;
    char **pinned; /* paths that a root of fleet keeps */
    size_t pinned_count;
    struct buf text; /* the host's part of the list for people */
};

struct listing {
    const struct context *context;
    struct host_tally tally;
    struct host_facts *facts; /* one a host */
};

struct generation {
    int64_t number;
    char date[32];
    const char *path;
    bool current, booted, pinned;
};

/* "N DATE PATH"; false for anything else. */
static bool read_generation(const char *line, const struct host_facts *facts,
                            struct generation *ret) {
    char *end;
    *ret = (struct generation){.number = strtoll(line, &end, 10)};
    const char *date = *end == ' ' ? end + 1 : NULL;
    const char *blank = date != NULL ? strchr(date, ' ') : NULL;
    if (end == line || blank == NULL || (size_t)(blank - date) >= sizeof(ret->date)) {
        return false;
    }
    memcpy(ret->date, date, (size_t)(blank - date));
    ret->path = blank + 1;
    ret->current = ret->number == facts->generation;
    ret->booted = strcmp(ret->path, facts->booted) == 0;
    for (size_t i = 0; i < facts->pinned_count; i++) {
        ret->pinned = ret->pinned || strcmp(ret->path, facts->pinned[i]) == 0;
    }
    return true;
}

static void print_json(const struct inv_host *host, const struct generation *generation) {
    struct buf line = BUF_INIT;
    json_open(&line, NULL);
    json_text(&line, "host", host->name);
    json_number(&line, "generation", generation->number);
    json_text(&line, "date", generation->date);
    json_text(&line, "path", generation->path);
    json_bool(&line, "current", generation->current);
    json_bool(&line, "booted", generation->booted);
    json_bool(&line, "pinned", generation->pinned);
    json_close(&line);
    json_print(&line);
    buf_free(&line);
}

/* "2026-11-22T17:04:31Z" as "2026-11-22 17:04". */
static void add_row(struct buf *out, const struct generation *generation) {
    char date[sizeof(generation->date)];
    memcpy(date, generation->date, sizeof(date));
    date[strcspn(date, "T")] = ' ';
    buf_printf(out, "  %4lld  %.16s  %s%s%s%s\n", (long long)generation->number, date,
               generation->path, generation->current ? "  current" : "",
               generation->booted ? "  booted" : "", generation->pinned ? "  pinned" : "");
}

static int by_number(const void *a, const void *b) {
    const struct generation *left = a;
    const struct generation *right = b;
    return left->number < right->number ? -1 : left->number > right->number;
}

static void take_generations(struct host_facts *facts, const struct target_reply *reply) {
    const struct context *context = facts->listing->context;
    size_t count = 0;
    while (target_reply_nth(reply, "gen", count) != NULL) {
        count++;
    }
    AUTO_FREE struct generation *list = xcalloc(count + 1, sizeof(*list));
    size_t good = 0;
    for (size_t i = 0; i < count; i++) {
        good += read_generation(target_reply_nth(reply, "gen", i), facts, &list[good]) ? 1 : 0;
    }
    qsort(list, good, sizeof(*list), by_number);
    bool listed = false;
    for (size_t i = 0; i < good; i++) {
        if (context->json) {
            print_json(facts->host->inv, &list[i]);
        } else {
            add_row(&facts->text, &list[i]);
        }
        listed = listed || strcmp(list[i].path, facts->current) == 0;
    }
    if (!listed && facts->current[0] != '\0') {
        buf_printf(&facts->text, "  runs  %s, which is no generation\n", facts->current);
    }
}

static void on_generations(int err, const struct target_reply *reply, const struct error *error,
                           void *arg) {
    struct host_facts *facts = arg;
    if (err == 0) {
        take_generations(facts, reply);
    }
    fan_done(facts->host, err == 0 ? NULL : error);
}

static char *copy_of(const struct target_reply *reply, const char *key) {
    const char *value = target_reply_get(reply, key);
    return xstrdup(value != NULL ? value : "");
}

/* A root is "NAME PATH". */
static void take_roots(struct host_facts *facts, const struct target_reply *reply) {
    const char *root;
    for (size_t i = 0; (root = target_reply_nth(reply, "roots", i)) != NULL; i++) {
        const char *path = strchr(root, ' ');
        if (path == NULL) {
            continue;
        }
        facts->pinned = xrealloc(facts->pinned, (facts->pinned_count + 1) * sizeof(*facts->pinned));
        facts->pinned[facts->pinned_count++] = xstrdup(path + 1);
    }
}

static void on_facts(int err, const struct target_reply *reply, const struct error *error,
                     void *arg) {
    struct host_facts *facts = arg;
    if (err != 0) {
        fan_done(facts->host, error);
        return;
    }
    facts->current = copy_of(reply, "current");
    facts->booted = copy_of(reply, "booted");
    facts->generation = target_reply_number(reply, "generation", 0);
    take_roots(facts, reply);
    struct target_env env = {.profile = facts->host->inv->profile};
    target_generations(facts->host->shell, &env, on_generations, facts);
}

static void ask(struct fan_host *host, void *arg) {
    struct listing *listing = arg;
    struct host_facts *facts = &listing->facts[host->index];
    facts->listing = listing;
    facts->host = host;
    struct target_env env = {.profile = host->inv->profile};
    target_inspect(host->shell, &env, NULL, on_facts, facts);
}

static void result(const struct fan_host *host, const struct error *error, void *arg) {
    struct listing *listing = arg;
    host_tally_add(&listing->tally, host, error);
    if (error != NULL) {
        fprintf(stderr, "%s: %s\n", host->inv->name, error->message);
    }
}

static void release_facts(struct host_facts *facts) {
    free(facts->current);
    free(facts->booted);
    for (size_t i = 0; i < facts->pinned_count; i++) {
        free(facts->pinned[i]);
    }
    free(facts->pinned);
    buf_free(&facts->text);
}

int cmd_generations(const struct args *args) {
    struct context context;
    context_init(&context, args);
    int code = host_task_prepare(&context);
    if (code == 0) {
        struct listing listing = {.context = &context};
        listing.facts = xcalloc(context.host_count + 1, sizeof(*listing.facts));
        int interrupted = host_task_run(&context, true, ASK_TIMEOUT_MS, ask, result, &listing);
        for (size_t i = 0; i < context.host_count; i++) {
            if (!context.json && listing.facts[i].text.len > 0) {
                printf("%s\n%s", context.hosts[i]->name, buf_text(&listing.facts[i].text));
            }
            release_facts(&listing.facts[i]);
        }
        free(listing.facts);
        code = host_tally_exit(&listing.tally, interrupted);
    }
    context_release(&context);
    return code;
}
