/* Plain lines: what one person would tell another, the host first.
 *
 * By default a host that goes well has two lines (it is activated, it is healthy) and one that
 * doesn't three or four, with the last words of the tool that failed. Hosts that many share a fate
 * with (unchanged, skipped, a failure that another host has told of) are told together. `-v` tells every move, every probe and the log.
 * A heartbeat every 30 s says that it is alive and what it waits for.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "tui/github.h"
#include "tui/output.h"
#include "tui/summary.h"
#include "tui/wording.h"

#define HEARTBEAT_MS 30000
#define TAIL_LINES   5
#define TAIL_WIDTH   400
#define NAME_MAX_COL 24
#define STATE_COL    12
/* So many of one fate in a row still get a line each. */
#define GROUP_MIN 4
/* So many different failures are kept to be compared with. */
#define FAILURES_MAX 16

/* The last lines that a host's tool said since the host's last move. */
struct tail {
    char *lines[TAIL_LINES];
    size_t count; /* all, of which the last TAIL_LINES are kept */
    char *told;   /* the last message that was printed for it */
};

/* A failure that was told in full. */
struct told_failure {
    char *host;
    char *message;
};

struct plain {
    struct output base;
    FILE *file;
    struct output_options options;
    int64_t next_heartbeat_ms; /* wall; 0: not yet known */
    size_t name_width;
    struct tail *tails; /* by the host's number in the view; one more for lines without host */
    size_t tail_count;
    struct tail shared;
    struct told_failure failures[FAILURES_MAX];
    size_t failure_count;
    /* Hosts that are told together. */
    enum host_state group_state;
    char *group_detail;
    char **group_names;
    size_t group_count;
    struct buf out; /* of the event at hand */
};

static void tail_clear(struct tail *tail) {
    for (size_t i = 0; i < TAIL_LINES; i++) {
        free(tail->lines[i]);
        tail->lines[i] = NULL;
    }
    tail->count = 0;
}

static bool is_blank(const char *line, size_t len) {
    return strspn(line, " \t\r") >= len;
}

/* A blank line says nothing, and would push one out that does. */
static void tail_add(struct tail *tail, const char *line) {
    size_t len = strlen(line);
    char *clean = text_cleaned(line, len < TAIL_WIDTH ? len : TAIL_WIDTH);
    if (is_blank(clean, strlen(clean))) {
        free(clean);
        return;
    }
    char **slot = &tail->lines[tail->count++ % TAIL_LINES];
    free(*slot);
    *slot = clean;
}

static struct tail *tail_of(struct plain *plain, const struct view *view, const char *host) {
    const struct view_host *entry = host != NULL ? view_host(view, host) : NULL;
    if (entry == NULL) {
        return &plain->shared;
    }
    size_t number = (size_t)(entry - view->hosts);
    if (number >= plain->tail_count) {
        plain->tails = xrealloc(plain->tails, view->host_count * sizeof(*plain->tails));
        memset(plain->tails + plain->tail_count, 0,
               (view->host_count - plain->tail_count) * sizeof(*plain->tails));
        plain->tail_count = view->host_count;
    }
    return &plain->tails[number];
}

/* "db1      activating   " */
static void add_prefix(struct plain *plain, const char *name, const char *word, enum tone tone) {
    bool color = plain->options.color;
    size_t width = text_width(name);
    size_t word_width = text_width(word);
    size_t pad = plain->name_width > width ? plain->name_width - width : 0;
    size_t word_pad = STATE_COL > word_width ? STATE_COL - word_width : 0;
    buf_printf(&plain->out, "%s%*s  %s%s%s%*s ", name, (int)pad, "", tone_begin(tone, color), word,
               tone_end(tone, color), (int)word_pad, "");
}

/* Ends a line; a line without a detail has no blanks at its end. */
static void end_line(struct plain *plain) {
    struct buf *out = &plain->out;
    while (out->len > 0 && out->data[out->len - 1] == ' ') {
        out->len--;
    }
    buf_add_char(out, '\n');
}

/* A line that belongs to the one before: "db1      | no space left on device". */
static void add_more(struct plain *plain, const char *name, const char *line, size_t len) {
    size_t width = text_width(name);
    size_t pad = plain->name_width > width ? plain->name_width - width : 0;
    buf_printf(&plain->out, "%s%*s  | %.*s\n", name, (int)pad, "", (int)len, line);
}

static void add_line(struct plain *plain, const char *name, enum host_state state,
                     const char *detail) {
    const struct state_words *words = state_words(state);
    size_t first = strcspn(detail, "\n");
    add_prefix(plain, name, words->word, words->tone);
    buf_add(&plain->out, detail, first);
    end_line(plain);
    const char *rest = detail + first;
    while (*rest == '\n') {
        size_t len = strcspn(rest + 1, "\n");
        if (!is_blank(rest + 1, len)) {
            add_more(plain, name, rest + 1, len);
        }
        rest += 1 + len;
    }
}

static void flush_group(struct plain *plain) {
    if (plain->group_count == 0) {
        return;
    }
    const char *detail = plain->group_detail;
    if (plain->group_count < GROUP_MIN) {
        for (size_t i = 0; i < plain->group_count; i++) {
            add_line(plain, plain->group_names[i], plain->group_state, detail);
        }
    } else {
        char *many = xasprintf("%zu hosts", plain->group_count);
        add_line(plain, many, plain->group_state, detail);
        free(many);
    }
    for (size_t i = 0; i < plain->group_count; i++) {
        free(plain->group_names[i]);
    }
    free(plain->group_names);
    plain->group_names = NULL;
    plain->group_count = 0;
}

static void add_to_group(struct plain *plain, const char *name, enum host_state state,
                         const char *detail) {
    if (plain->group_count > 0 &&
        (plain->group_state != state || strcmp(plain->group_detail, detail) != 0)) {
        flush_group(plain);
    }
    if (plain->group_count == 0) {
        free(plain->group_detail);
        plain->group_detail = xstrdup(detail);
        plain->group_state = state;
    }
    plain->group_names =
        xrealloc(plain->group_names, (plain->group_count + 1) * sizeof(*plain->group_names));
    plain->group_names[plain->group_count++] = xstrdup(name);
}

static void write_out(struct plain *plain) {
    if (plain->out.len > 0) {
        fwrite(plain->out.data, 1, plain->out.len, plain->file);
        fflush(plain->file);
        buf_clear(&plain->out);
    }
}

/* The verbosity from which on a move to `state` is told. */
static int level_of(const struct view *view, enum host_state from, enum host_state state) {
    if (state_words(state)->attention && !wording_is_success(view, state)) {
        return -1;
    }
    bool worth = host_state_is_end(state) || state == HOST_ACTIVATING || state == HOST_REBOOTING ||
                 state == HOST_ROLLING_BACK ||
                 (state == HOST_STAGED && view->action == ACTION_PUSH) ||
                 (state == HOST_STAGED && from == HOST_STAGED);
    return worth ? 0 : 1;
}

static void add_since(const struct view_host *host, enum host_state from, struct buf *out) {
    int64_t start = host->state_at_ms[from];
    if (start > 0 && host->since_ms >= start) {
        buf_add_text(out, out->len > 0 ? ", after " : "after ");
        text_add_duration(out, (unsigned long long)(host->since_ms - start));
    }
}

static void detail_activating(const struct view *view, const struct view_host *host,
                              struct buf *out) {
    if (view->wave_count > 1 && host->wave > 0) {
        buf_printf(out, "wave %u of %u", host->wave, view->wave_count);
    }
    if (host->generation > 0) {
        buf_printf(out, "%sfrom generation %lld", out->len > 0 ? ", " : "",
                   (long long)host->generation);
    }
}

static void detail_healthy(const struct view_host *host, struct buf *out) {
    if (host->generation > 0 && host->first_generation > 0 &&
        host->generation != host->first_generation) {
        buf_printf(out, "generation %lld → %lld", (long long)host->first_generation,
                   (long long)host->generation);
    }
    add_since(host, HOST_ACTIVATING, out);
}

static const char *skip_words(const struct view_host *host) {
    static const char *const words[][2] = {
        {"offline", "not reached; it is optional"},
        {"budget", "untouched: the run stopped"},
        {"stopped", "untouched: stopped before its turn"},
        {"last-healthy", "untouched: the last healthy one of its group"},
    };
    for (size_t i = 0; host->reason != NULL && i < ARRAY_LEN(words); i++) {
        if (strcmp(host->reason, words[i][0]) == 0) {
            return words[i][1];
        }
    }
    return host->reason != NULL ? host->reason : "";
}

/* Who holds a host, in the line that comes at once; what to do about it stands in the summary. */
static int message_len(const struct view_host *host) {
    bool locked =
        host->state == HOST_SKIPPED && host->reason != NULL && strcmp(host->reason, "locked") == 0;
    const char *rest = locked ? strstr(host->message, ": ") : NULL;
    return (int)(rest != NULL ? rest - host->message : (ptrdiff_t)strlen(host->message));
}

/* What the line says beyond the state's name. */
static void add_detail(const struct view *view, const struct view_host *host, const char *told,
                       struct buf *out) {
    if (host->state == HOST_ACTIVATING) {
        detail_activating(view, host, out);
    } else if (host->state == HOST_HEALTHY) {
        detail_healthy(host, out);
    } else if (host->state == HOST_ROLLED_BACK) {
        if (host->first_generation > 0) {
            buf_printf(out, "on generation %lld again", (long long)host->first_generation);
        }
        add_since(host, HOST_ACTIVATING, out);
    } else if (host->state == HOST_SKIPPED && host->message == NULL) {
        buf_add_text(out, skip_words(host));
    }
    bool news = host->message != NULL && host->message[0] != '\0' &&
                (told == NULL || strcmp(told, host->message) != 0);
    if (news) {
        buf_printf(out, "%s%.*s", out->len > 0 ? ": " : "", message_len(host), host->message);
    } else if (out->len == 0 && host->reason != NULL && state_words(host->state)->attention) {
        buf_add_text(out, host->reason);
    }
}

/* The last words of the tool, unless the message ends with them already. */
static void add_tail(struct plain *plain, const struct view_host *host, const struct tail *tail) {
    size_t first = tail->count > TAIL_LINES ? tail->count - TAIL_LINES : 0;
    const char *last = tail->count > 0 ? tail->lines[(tail->count - 1) % TAIL_LINES] : "";
    if (host->message != NULL && strstr(host->message, last) != NULL) {
        return;
    }
    for (size_t i = first; i < tail->count; i++) {
        const char *line = tail->lines[i % TAIL_LINES];
        add_more(plain, host->name, line, strlen(line));
    }
}

static bool is_shared_fate(enum host_state state) {
    return state == HOST_UNCHANGED || state == HOST_SKIPPED;
}

/* The host that has told of the same failure, or NULL: then this one is kept as the first. */
static const char *told_by(struct plain *plain, const struct view_host *host) {
    if (host->state != HOST_FAILED || host->message == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < plain->failure_count; i++) {
        const struct told_failure *each = &plain->failures[i];
        if (wording_is_same_failure(each->message, host->message) &&
            strcmp(each->host, host->name) != 0) {
            return each->host;
        }
    }
    if (plain->failure_count < FAILURES_MAX) {
        plain->failures[plain->failure_count++] =
            (struct told_failure){.host = xstrdup(host->name), .message = xstrdup(host->message)};
    }
    return NULL;
}

static void tell_move(struct plain *plain, const struct event *event, const struct view *view) {
    const struct view_host *host = view_host(view, event->host);
    struct tail *tail = tail_of(plain, view, event->host);
    const char *first = told_by(plain, host);
    if (first != NULL) {
        AUTO_FREE char *detail = xasprintf("for the same reason as %s", first);
        add_to_group(plain, host->name, host->state, detail);
    } else if (plain->options.verbosity >= level_of(view, event->from, host->state)) {
        struct buf detail = BUF_INIT;
        add_detail(view, host, tail->told, &detail);
        if (is_shared_fate(host->state)) {
            add_to_group(plain, host->name, host->state, buf_text(&detail));
        } else {
            flush_group(plain);
            add_line(plain, host->name, host->state, buf_text(&detail));
        }
        buf_free(&detail);
        free(tail->told);
        tail->told = host->message != NULL ? xstrdup(host->message) : NULL;
        bool fails = host->state == HOST_ROLLING_BACK || host->state == HOST_FAILED ||
                     host->state == HOST_ROLLBACK_FAILED;
        if (fails && plain->options.verbosity < 1) {
            bool own = tail->count > 0 || event->from != HOST_BUILDING;
            add_tail(plain, host, own ? tail : &plain->shared);
        }
    }
    tail_clear(tail);
}

static void tell_start(struct plain *plain, const struct view *view) {
    plain->name_width = 0;
    for (size_t i = 0; i < view->host_count; i++) {
        size_t width = text_width(view->hosts[i].name);
        plain->name_width = width > plain->name_width ? width : plain->name_width;
    }
    if (plain->name_width > NAME_MAX_COL) {
        plain->name_width = NAME_MAX_COL;
    }
    /* Before the version (NULL: it goes back, or stays) and before the hosts. */
    static const struct {
        const char *version;
        const char *hosts;
    } words[ACTION_COUNT] = {
        [ACTION_SWITCH] = {" to ", " on "}, [ACTION_BOOT] = {" to ", " on "},
        [ACTION_TEST] = {" of ", " on "},   [ACTION_DRY_ACTIVATE] = {" of ", " on "},
        [ACTION_PUSH] = {" of ", " to "},   [ACTION_BUILD] = {" of ", " for "},
        [ACTION_ROLLBACK] = {NULL, " on "}, [ACTION_REBOOT] = {NULL, " of "},
    };
    buf_printf(&plain->out, "%s: %s", view->fleet != NULL ? view->fleet : "fleet",
               run_action_name(view->action));
    if (words[view->action].version != NULL) {
        buf_add_text(&plain->out, words[view->action].version);
        wording_revision(view, &plain->out);
    }
    buf_printf(&plain->out, "%s%zu host%s", words[view->action].hosts, view->host_count,
               view->host_count == 1 ? "" : "s");
    if (view->wave_count > 1) {
        buf_printf(&plain->out, " in %u waves", view->wave_count);
    }
    buf_printf(&plain->out, " (run %s)\n", view->run != NULL ? view->run : "?");
}

static void tell_log(struct plain *plain, const struct event *event, const struct view *view) {
    const char *line = event->line != NULL ? event->line : "";
    const char *stream = event->stream != NULL ? event->stream : "";
    bool person = strcmp(stream, "agent") == 0; /* has to do something */
    bool own = event->host == NULL && (person || strcmp(stream, "fleet") == 0);
    if (own && plain->options.verbosity >= 0) {
        flush_group(plain);
        buf_add_text(&plain->out, "fleet: ");
        text_clean(&plain->out, line, strlen(line), false);
        buf_add_char(&plain->out, '\n');
        return;
    }
    if (plain->options.verbosity < (person ? -1 : 1)) {
        tail_add(tail_of(plain, view, event->host), line);
        return;
    }
    flush_group(plain);
    char *clean = text_cleaned(line, strlen(line));
    add_more(plain, event->host != NULL ? event->host : "", clean, strlen(clean));
    free(clean);
}

/* What failed before anything was done to the host is no work of this run, and said at once. */
static void tell_failed_before(struct plain *plain, const struct event *event,
                               const struct view *view) {
    const struct view_host *host = event->host != NULL ? view_host(view, event->host) : NULL;
    if (event->ok || host == NULL || !view_host_is_before(host) || plain->options.verbosity < 0) {
        return;
    }
    const char *words = event->detail != NULL ? event->detail : "";
    const char *probe = event->name != NULL ? event->name : "?";
    char *name = text_cleaned(probe, strlen(probe));
    char *detail = text_cleaned(words, strlen(words));
    flush_group(plain);
    add_prefix(plain, host->name, "unhealthy", TONE_WARN);
    buf_printf(&plain->out, "%s failed before the change%s%s", name, detail[0] != '\0' ? ": " : "",
               detail);
    end_line(plain);
    free(name);
    free(detail);
}

static void tell_probe(struct plain *plain, const struct event *event, const struct view *view) {
    if (plain->options.verbosity < 1) {
        tell_failed_before(plain, event, view);
        return;
    }
    const char *detail = event->detail != NULL ? event->detail : "";
    char *clean = text_cleaned(detail, strlen(detail));
    flush_group(plain);
    add_prefix(plain, event->host != NULL ? event->host : "", event->ok ? "probe" : "probe fails",
               event->ok ? TONE_PLAIN : TONE_WARN);
    buf_printf(&plain->out, "%s: %s", event->name != NULL ? event->name : "?",
               clean[0] != '\0' ? clean
               : event->ok      ? "ok"
                                : "no answer");
    end_line(plain);
    free(clean);
}

static void tell_pause(struct plain *plain, const struct event *event, const struct view *view) {
    flush_group(plain);
    if (event->reason != NULL && strcmp(event->reason, "bake") == 0) {
        buf_printf(&plain->out, "wave %u of %u bakes, then it is probed again\n", view->wave,
                   view->wave_count);
    } else if (event->reason != NULL && strcmp(event->reason, "promote") == 0) {
        buf_printf(&plain->out, "paused after wave %u of %u; go on with: fleet promote %s\n",
                   view->wave, view->wave_count, wording_short_run(view->run));
    } else {
        buf_printf(&plain->out, "paused; go on with: fleet promote %s\n",
                   wording_short_run(view->run));
    }
}

static void tell_wave(struct plain *plain, const struct event *event, const struct view *view) {
    if (plain->options.verbosity >= 1) {
        flush_group(plain);
        buf_printf(&plain->out, "wave %u of %u %s\n", event->wave, view->wave_count,
                   event->type == EVENT_WAVE_START ? "begins" : "is done");
    }
}

static void tell_grant(struct plain *plain, const struct event *event) {
    if (plain->options.verbosity >= 2) {
        flush_group(plain);
        add_prefix(plain, event->host != NULL ? event->host : "", "may", TONE_DIM);
        buf_printf(&plain->out, "%s %s", act_name(event->act),
                   event->path != NULL ? event->path : "");
        end_line(plain);
    }
}

static void tell_build(struct plain *plain, const struct event *event) {
    if (plain->options.verbosity >= 1) {
        flush_group(plain);
        add_prefix(plain, event->host != NULL ? event->host : "build",
                   event->state != NULL ? event->state : "", TONE_PLAIN);
        buf_add_text(&plain->out, event->path != NULL  ? event->path
                                  : event->drv != NULL ? event->drv
                                                       : "");
        end_line(plain);
    }
}

static void plain_event(struct output *output, const struct event *event, const struct view *view) {
    struct plain *plain = container_of(output, struct plain, base);
    switch (event->type) {
    case EVENT_RUN_START:
        if (plain->options.verbosity >= 0) {
            tell_start(plain, view);
        }
        plain->next_heartbeat_ms = event->ts_ms + HEARTBEAT_MS;
        break;
    case EVENT_HOST_STATE:
        if (event->host != NULL) {
            tell_move(plain, event, view);
        }
        break;
    case EVENT_LOG:
        tell_log(plain, event, view);
        break;
    case EVENT_PROBE:
        tell_probe(plain, event, view);
        break;
    case EVENT_BUILD:
        tell_build(plain, event);
        break;
    case EVENT_GRANT:
        tell_grant(plain, event);
        break;
    case EVENT_WAVE_START:
    case EVENT_WAVE_END:
        tell_wave(plain, event, view);
        break;
    case EVENT_PAUSE:
        tell_pause(plain, event, view);
        break;
    case EVENT_PROMOTE:
        flush_group(plain);
        buf_add_text(&plain->out, "goes on\n");
        break;
    case EVENT_DERIVATION:
    case EVENT_CHANGE:
    case EVENT_GUARD:
    case EVENT_COPY:
    case EVENT_RUN_END:
    case EVENT_TYPE_COUNT:
        break;
    }
    write_out(plain);
}

static void plain_tick(struct output *output, const struct view *view, int64_t wall_ms,
                       const char *waiting) {
    struct plain *plain = container_of(output, struct plain, base);
    flush_group(plain);
    if (plain->next_heartbeat_ms == 0) {
        plain->next_heartbeat_ms = wall_ms + HEARTBEAT_MS;
    }
    if (wall_ms >= plain->next_heartbeat_ms) {
        plain->next_heartbeat_ms = wall_ms + HEARTBEAT_MS;
        if (plain->options.verbosity >= 0) {
            wording_elapsed(wall_ms - view->started_ms, &plain->out);
            buf_add_text(&plain->out, "  ");
            if (view->wave > 0 && view->wave_count > 1) {
                buf_printf(&plain->out, "wave %u of %u: ", view->wave, view->wave_count);
            }
            wording_counts(view, &plain->out);
            if (waiting != NULL && waiting[0] != '\0') {
                buf_add_text(&plain->out, "; ");
                text_clean(&plain->out, waiting, strlen(waiting), false);
            }
            buf_add_char(&plain->out, '\n');
        }
    }
    write_out(plain);
}

static void plain_finish(struct output *output, const struct view *view) {
    struct plain *plain = container_of(output, struct plain, base);
    flush_group(plain);
    if (view->run != NULL) {
        summary_write(view, &plain->options, &plain->out);
        if (plain->options.github) {
            github_write_annotations(view, &plain->out);
        }
    }
    write_out(plain);
}

static void plain_free(struct output *output) {
    struct plain *plain = container_of(output, struct plain, base);
    for (size_t i = 0; i < plain->tail_count; i++) {
        tail_clear(&plain->tails[i]);
        free(plain->tails[i].told);
    }
    tail_clear(&plain->shared);
    flush_group(plain);
    for (size_t i = 0; i < plain->failure_count; i++) {
        free(plain->failures[i].host);
        free(plain->failures[i].message);
    }
    free(plain->tails);
    free(plain->group_detail);
    buf_free(&plain->out);
    free(plain);
}

static const struct output_ops plain_ops = {
    .event = plain_event, .tick = plain_tick, .finish = plain_finish, .free = plain_free};

struct output *output_plain_new(FILE *file, const struct output_options *options) {
    struct plain *plain = xcalloc(1, sizeof(*plain));
    plain->base.ops = &plain_ops;
    plain->file = file;
    plain->options = *options;
    return &plain->base;
}
