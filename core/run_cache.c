/* Filling binary caches (copy.cache): each path once for all the hosts that fetch it from there.
 *
 * A host whose system lies in this machine's store is told what to run only when its cache has it.
 * What becomes known together is pushed by one `nix copy`; meanwhile others gather for the next one.
 * A cache that can't be filled is no reason to leave hosts on an old system: that is said in the
 * log, and the hosts are sent everything.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/build_command.h"
#include "core/build_tool.h"
#include "core/run_internal.h"

#define GATHER_MS  50u
#define SILENCE_MS (30u * 60u * 1000u)
#define TOTAL_MS   (24u * 60u * 60u * 1000u)
#define WORDS_MAX  400u

enum fill_state {
    FILL_GATHERING,
    FILL_RUNNING,
    FILL_OVER
};

struct cache_fill {
    struct cache_fill *next;
    struct run *run;
    enum fill_state state;
    const struct inv_host *host; /* the first: its cache, and the Nix tools to use */
    char **paths;
    size_t path_count;
    size_t *hosts; /* that wait */
    size_t host_count;
    struct build_tool *tool;
    struct buf words; /* the last line that it said */
};

static bool has_path(const struct cache_fill *fill, const char *path) {
    for (size_t i = 0; i < fill->path_count; i++) {
        if (strcmp(fill->paths[i], path) == 0) {
            return true;
        }
    }
    return false;
}

static void on_line(const char *line, size_t len, void *arg) {
    struct cache_fill *fill = arg;
    buf_clear(&fill->words);
    buf_add(&fill->words, line, len < WORDS_MAX ? len : WORDS_MAX);
}

static void say_failed(struct cache_fill *fill, const struct build_tool_result *result) {
    struct buf line = BUF_INIT;
    AUTO_FREE char *words = text_cleaned(buf_text(&fill->words), fill->words.len);
    buf_printf(&line,
               "the cache %s could not be filled (%s): everything is sent to the hosts "
               "instead",
               fill->host->copy.cache_push,
               result->err != 0   ? result->error.message
               : words[0] != '\0' ? words
                                  : "nix copy failed and said nothing");
    run_publish_log(fill->run, SIZE_MAX, "fleet", buf_text(&line), line.len);
    buf_free(&line);
}

static void start_next(struct run *run);

static void on_done(const struct build_tool_result *result, void *arg) {
    struct cache_fill *fill = arg;
    struct run *run = fill->run;
    fill->tool = NULL;
    fill->state = FILL_OVER;
    if (!run->ended && (result->err != 0 || result->status != 0)) {
        say_failed(fill, result);
    }
    for (size_t i = 0; i < fill->host_count && !run->ended; i++) {
        const struct run_host *known = &run->hosts[fill->hosts[i]];
        lane_desired(known->lane, fill->hosts[i], known->desired, &known->source);
    }
    fill->host_count = 0;
    start_next(run);
    run_maybe_close(run);
}

static void start(struct cache_fill *fill) {
    static const struct build_tool_handlers handlers = {.on_line = on_line, .on_done = on_done};
    const struct build_limit limit = {.silence_ms = SILENCE_MS, .total_ms = TOTAL_MS};
    struct build_argv argv = {0};
    build_cache_argv(&fill->host->system, fill->host->copy.cache_push,
                     (const char *const *)fill->paths, fill->path_count, &argv);
    fill->state = FILL_RUNNING;
    fill->tool = build_tool_start(&fill->run->loop, (const char *const *)argv.items,
                                  fill->run->options->inventory->dir, &limit, &handlers, fill);
    build_argv_free(&argv);
}

static struct cache_fill *find(const struct run *run, const char *push, enum fill_state state) {
    for (struct cache_fill *at = run->fills; at != NULL; at = at->next) {
        if (at->state == state && strcmp(at->host->copy.cache_push, push) == 0) {
            return at;
        }
    }
    return NULL;
}

/* One process a cache at a time. */
static void start_next(struct run *run) {
    for (struct cache_fill *at = run->fills; at != NULL && !run->ended; at = at->next) {
        if (at->state == FILL_GATHERING &&
            find(run, at->host->copy.cache_push, FILL_RUNNING) == NULL) {
            start(at);
        }
    }
}

static void on_gathered(uv_timer_t *timer) {
    start_next(timer->data);
}

/* The fill that has, gets or shall get the path; NULL if none does yet. */
static struct cache_fill *find_path(const struct run *run, const char *push, const char *path) {
    for (struct cache_fill *at = run->fills; at != NULL; at = at->next) {
        if (strcmp(at->host->copy.cache_push, push) == 0 && has_path(at, path)) {
            return at;
        }
    }
    return NULL;
}

static struct cache_fill *gather(struct run *run, const struct inv_host *host, const char *path) {
    struct cache_fill *fill = find(run, host->copy.cache_push, FILL_GATHERING);
    if (fill == NULL) {
        fill = xcalloc(1, sizeof(*fill));
        fill->run = run;
        fill->host = host;
        fill->next = run->fills;
        run->fills = fill;
        uv_timer_start(&run->gather, on_gathered, GATHER_MS, 0);
    }
    fill->paths = xrealloc(fill->paths, (fill->path_count + 1) * sizeof(*fill->paths));
    fill->paths[fill->path_count++] = xstrdup(path);
    return fill;
}

bool run_cache_holds(struct run *run, size_t host) {
    const struct inv_host *inv = run_inv(run, host);
    const struct run_host *known = &run->hosts[host];
    if (inv->copy.cache_push == NULL || known->source.kind != HOST_SOURCE_LOCAL) {
        return false;
    }
    struct cache_fill *fill = find_path(run, inv->copy.cache_push, known->desired);
    if (fill == NULL) {
        fill = gather(run, inv, known->desired);
    }
    if (fill->state == FILL_OVER) {
        return false;
    }
    for (size_t i = 0; i < fill->host_count; i++) {
        if (fill->hosts[i] == host) {
            return true; /* it has begun anew meanwhile */
        }
    }
    fill->hosts = xrealloc(fill->hosts, (fill->host_count + 1) * sizeof(*fill->hosts));
    fill->hosts[fill->host_count++] = host;
    return true;
}

bool run_cache_is_busy(const struct run *run) {
    for (const struct cache_fill *at = run->fills; at != NULL; at = at->next) {
        if (at->state == FILL_RUNNING) {
            return true;
        }
    }
    return false;
}

void run_cache_cancel(struct run *run) {
    for (struct cache_fill *at = run->fills; at != NULL; at = at->next) {
        if (at->tool != NULL) {
            build_tool_cancel(at->tool);
        }
    }
}

void run_cache_free(struct run *run) {
    while (run->fills != NULL) {
        struct cache_fill *fill = run->fills;
        run->fills = fill->next;
        for (size_t i = 0; i < fill->path_count; i++) {
            free(fill->paths[i]);
        }
        free(fill->paths);
        free(fill->hosts);
        buf_free(&fill->words);
        free(fill);
    }
}
