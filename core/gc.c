/* Which generations may go (see gc.h). */
#include "core/gc.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/xalloc.h"
#include "core/target_call.h"
#include "target_script.h"

#define KIBIBYTE    1024.0
#define FREED_MAX   1e15 /* bytes; more is no answer of Nix */
#define DATE_MAX    63u
#define FIRST_COUNT 16u

struct generation {
    int64_t number;
    int64_t made_ms;
    bool dated;
    const char *path;
};

/* "N DATE PATH"; the fraction of the date's second may be longer than milliseconds. */
static bool read_generation(const char *line, struct generation *ret) {
    char *end;
    *ret = (struct generation){.number = strtoll(line, &end, 10)};
    const char *date = *end == ' ' ? end + 1 : NULL;
    const char *blank = date != NULL ? strchr(date, ' ') : NULL;
    if (end == line || ret->number <= 0 || blank == NULL) {
        return false;
    }
    size_t len = strcspn(date, "Z. ");
    if (len > 0 && len < DATE_MAX) {
        char stamp[DATE_MAX + 8];
        snprintf(stamp, sizeof(stamp), "%.*s.000Z", (int)len, date);
        ret->dated = clock_parse_rfc3339(stamp, &ret->made_ms) == 0;
    }
    ret->path = blank + 1;
    return true;
}

static int by_number(const void *a, const void *b) {
    const struct generation *left = a;
    const struct generation *right = b;
    return left->number < right->number ? -1 : left->number > right->number;
}

static struct generation *read_all(const struct target_reply *reply, size_t *ret_count) {
    size_t room = FIRST_COUNT;
    struct generation *list = xcalloc(room, sizeof(*list));
    size_t at = 0;
    const char *line;
    *ret_count = 0;
    while ((line = target_reply_next(reply, "gen", &at)) != NULL) {
        if (*ret_count == room) {
            room *= 2;
            list = xrealloc(list, room * sizeof(*list));
        }
        *ret_count += read_generation(line, &list[*ret_count]) ? 1 : 0;
    }
    qsort(list, *ret_count, sizeof(*list), by_number);
    return list;
}

static bool is_old(const struct generation *generation, const struct gc_rules *rules) {
    /* One without a date might be young. */
    return generation->dated && rules->now_ms - generation->made_ms > (int64_t)rules->older_than_ms;
}

int64_t *gc_choose(const struct gc_facts *facts, const struct gc_rules *rules, size_t *ret_count) {
    size_t count;
    AUTO_FREE struct generation *list = read_all(facts->generations, &count);
    int64_t *chosen = xcalloc(count + 1, sizeof(*chosen));
    int64_t below = 0;
    *ret_count = 0;
    for (size_t i = 0; i < count; i++) {
        below = list[i].number < facts->generation ? list[i].number : below;
    }
    for (size_t i = 0; i < count; i++) {
        const struct generation *each = &list[i];
        bool held = each->number == facts->generation || each->number == below ||
                    strcmp(each->path, facts->current) == 0 ||
                    strcmp(each->path, facts->booted) == 0;
        bool rule = rules->keep > 0 || rules->older_than_ms > 0;
        bool counted_out = rules->keep == 0 || count - i > rules->keep;
        bool aged_out = rules->older_than_ms == 0 || is_old(each, rules);
        /* Without a current generation nobody knows what a rollback goes to. */
        if (rule && facts->generation > 0 && !held && counted_out && aged_out) {
            chosen[(*ret_count)++] = each->number;
        }
    }
    return chosen;
}

void gc_collect(struct shell *shell, const struct target_env *env, const int64_t *numbers,
                size_t count, bool dry, uint64_t timeout_ms, target_done done, void *arg) {
    struct target_call call = {.what = "the garbage collection",
                               .parts = {target_script_gc},
                               .timeout_ms = timeout_ms + 360000u,
                               .done = done,
                               .arg = arg};
    struct buf words = BUF_INIT;
    for (size_t i = 0; i < count; i++) {
        buf_printf(&words, "%s%lld", i > 0 ? " " : "", (long long)numbers[i]);
    }
    target_call_set(&call, "PROFILE",
                    env != NULL && env->profile != NULL ? env->profile : TARGET_PROFILE_DEFAULT);
    target_call_set(&call, "REMOVE", buf_text(&words));
    target_call_set(&call, "DRY", dry ? "yes" : "no");
    target_call_seconds(&call, "SECONDS_MAX", timeout_ms);
    target_call_send(&call, shell);
    buf_free(&words);
}

/* "3.50 MiB freed", or from Nix 2.34 on in the unit that fits: "42.1 KiB freed"; negative: neither. */
static double read_freed(const char *text) {
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    char *end;
    double size = strtod(text, &end);
    double unit_bytes = 1.0;
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        unit_bytes *= KIBIBYTE;
        if (end > text && *end == ' ' && strncmp(end + 1, units[i], strlen(units[i])) == 0 &&
            strncmp(end + 1 + strlen(units[i]), " freed", strlen(" freed")) == 0) {
            return size * unit_bytes;
        }
    }
    return -1;
}

bool gc_read_words(const char *words, uint64_t *ret_paths, uint64_t *ret_bytes) {
    char *end;
    unsigned long long paths = strtoull(words, &end, 10);
    const char *size = strstr(end, "deleted, ");
    if (end == words || size == NULL) {
        return false;
    }
    double bytes = read_freed(size + strlen("deleted, "));
    if (!isfinite(bytes) || bytes < 0 || bytes > FREED_MAX) {
        return false;
    }
    *ret_paths = paths;
    *ret_bytes = (uint64_t)bytes;
    return true;
}
