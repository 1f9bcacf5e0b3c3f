#include "tui/summary.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/resume.h"
#include "tui/wording.h"

/* More hosts than that are no list to read: `fleet show` has the rest. */
#define DETAIL_MAX    20
#define NAMES_MAX     40
#define MESSAGE_LINES 6
#define LINE_WIDTH    96

/* What worries most stands first. */
static const enum host_state severity[] = {
    HOST_ROLLBACK_FAILED, HOST_UNKNOWN,     HOST_FAILED,
    HOST_ROLLED_BACK,     HOST_UNREACHABLE, HOST_REBOOT_REQUIRED,
};

/* "N of M hosts" goes before, the revision after; NULL: no revision. */
static const char *const achieved[][2] = {
    [ACTION_SWITCH] = {" on ", ""},
    [ACTION_BOOT] = {" boot ", " next"},
    [ACTION_TEST] = {" run ", " until they boot"},
    [ACTION_DRY_ACTIVATE] = {" tried ", ", nothing was changed"},
    [ACTION_PUSH] = {" hold ", ""},
    [ACTION_BUILD] = {" built", NULL},
    [ACTION_ROLLBACK] = {" went back", NULL},
    [ACTION_REBOOT] = {" rebooted", NULL},
};
_Static_assert(ARRAY_LEN(achieved) == ACTION_COUNT, "a phrase for every action");

static bool is_interrupted(const struct view *view) {
    return !view->ended || view->exit == 130 || view->exit == 143;
}

static bool needs_detail(const struct view *view, const struct view_host *host) {
    bool locked =
        host->state == HOST_SKIPPED && host->reason != NULL && strcmp(host->reason, "locked") == 0;
    return locked ||
           (state_words(host->state)->attention && !wording_is_success(view, host->state));
}

static void write_headline(const struct view *view, struct buf *out) {
    size_t good = 0;
    size_t total = view->host_count;
    for (int state = 0; state < HOST_STATE_COUNT; state++) {
        if (wording_is_success(view, (enum host_state)state)) {
            good += view_count(view, (enum host_state)state);
        }
    }
    buf_printf(out, "%s: %s%zu of %zu host%s%s", view->fleet != NULL ? view->fleet : "fleet",
               is_interrupted(view) ? "interrupted; " : "", good, total, total == 1 ? "" : "s",
               achieved[view->action][0]);
    if (achieved[view->action][1] != NULL) {
        wording_revision(view, out);
        buf_add_text(out, achieved[view->action][1]);
    }
    for (int state = HOST_STATE_COUNT - 1; state >= 0; state--) {
        size_t count = view_count(view, (enum host_state)state);
        bool told = wording_is_success(view, (enum host_state)state) && state != HOST_UNCHANGED;
        if (count > 0 && !told) {
            buf_printf(out, ", %zu %s", count, state_words((enum host_state)state)->word);
        }
    }
    int64_t last_ms = view->ended_ms;
    for (size_t i = 0; i < view->host_count && view->ended_ms == 0; i++) {
        last_ms = view->hosts[i].since_ms > last_ms ? view->hosts[i].since_ms : last_ms;
    }
    buf_add_text(out, " (");
    wording_elapsed(last_ms - view->started_ms, out);
    buf_printf(out, ", run %s)\n", view->run != NULL ? view->run : "?");
}

/* `text`, its first line as it is, the next ones under it. */
static void write_indented(const char *text, size_t indent, struct buf *out) {
    for (int lines = 0; lines < MESSAGE_LINES; lines++) {
        size_t len = strcspn(text, "\n");
        buf_add(out, text, len);
        buf_add_char(out, '\n');
        text += len;
        text += *text == '\n';
        if (*text == '\0') {
            return;
        }
        buf_printf(out, "%*s", (int)indent, "");
    }
    buf_add_text(out, "...\n");
}

static void write_reason(const struct view_host *host, size_t indent, struct buf *out) {
    const char *what = host->verdict != NULL ? host->verdict : host->message;
    struct buf text = BUF_INIT;
    buf_add_text(&text, state_words(host->state)->word);
    if (host->state == HOST_ROLLED_BACK) {
        buf_clear(&text);
        if (host->first_generation > 0) {
            buf_printf(&text, "back on generation %lld", (long long)host->first_generation);
        } else {
            buf_add_text(&text, "back on what it ran before");
        }
    }
    if (what != NULL && what[0] != '\0') {
        buf_printf(&text, ": %s", what);
    } else if (host->reason != NULL && host->reason[0] != '\0') {
        buf_printf(&text, ": %s", host->reason);
    }
    bool more = host->verdict != NULL && host->message != NULL && host->message[0] != '\0' &&
                strcmp(host->verdict, host->message) != 0 && host->state != HOST_ROLLED_BACK;
    if (more) {
        buf_printf(&text, "\n%s", host->message);
    }
    write_indented(buf_text(&text), indent, out);
    buf_free(&text);
}

static void write_detail(const struct view *view, const struct view_host *host, size_t name_width,
                         bool color, struct buf *out) {
    const struct state_words *words = state_words(host->state);
    size_t pad = name_width - text_width(host->name);
    size_t indent = 4 + name_width + 2;
    buf_printf(out, "  %s%s %s%s%*s  ", tone_begin(words->tone, color), words->sign, host->name,
               tone_end(words->tone, color), (int)pad, "");
    write_reason(host, indent, out);
    buf_printf(out, "%*sfleet show %s %s", (int)indent, "", wording_short_run(view->run),
               host->name);
    struct buf ssh = BUF_INIT;
    wording_ssh(host, &ssh);
    buf_printf(out, "%s%s\n", ssh.len > 0 ? "      " : "", buf_text(&ssh));
    buf_free(&ssh);
}

/* Names that go on a line until it is full. `max` 0: all. */
struct name_list {
    struct buf *out;
    size_t column;
    size_t indent;
    size_t count;
    size_t max;
};

static void name_list_add(struct name_list *list, const char *name) {
    if (++list->count > list->max && list->max > 0) {
        return;
    }
    size_t width = text_width(name);
    if (list->count > 1) {
        buf_add_char(list->out, ',');
        list->column++;
    }
    if (list->column + width + 1 > LINE_WIDTH) {
        buf_printf(list->out, "\n%*s", (int)list->indent, "");
        list->column = list->indent;
    } else if (list->count > 1) {
        buf_add_char(list->out, ' ');
        list->column++;
    }
    buf_add_text(list->out, name);
    list->column += width;
}

static void name_list_end(struct name_list *list) {
    if (list->max > 0 && list->count > list->max) {
        buf_printf(list->out, " and %zu more", list->count - list->max);
    }
    buf_add_char(list->out, '\n');
}

static const char *failure_of(const struct view_host *host) {
    return host->state != HOST_FAILED ? NULL
           : host->verdict != NULL    ? host->verdict
                                      : host->message;
}

static bool fails_alike(const struct view_host *a, const struct view_host *b) {
    const char *words = failure_of(a);
    const char *others = failure_of(b);
    return words != NULL && others != NULL && wording_is_same_failure(words, others);
}

/* The hosts behind `first` that failed for the same reason. */
static void write_alike(const struct view *view, const struct view_host *first, size_t indent,
                        struct buf *out) {
    static const char title[] = "the same: ";
    struct name_list list = {.out = out, .indent = indent + strlen(title), .max = NAMES_MAX};
    for (const struct view_host *host = first + 1; host < view->hosts + view->host_count; host++) {
        if (fails_alike(first, host)) {
            if (list.count == 0) {
                buf_printf(out, "%*s%s", (int)indent, "", title);
                list.column = list.indent;
            }
            name_list_add(&list, host->name);
        }
    }
    if (list.count > 0) {
        name_list_end(&list);
    }
}

/* Hosts that have a paragraph of their own. */
struct details {
    const struct view_host *shown[DETAIL_MAX];
    size_t count;
    size_t left_out;
};

/* Gives the host a paragraph, unless one that failed alike has it, or there are enough. */
static bool take_detail(struct details *details, const struct view_host *host) {
    for (size_t i = 0; i < details->count; i++) {
        if (fails_alike(details->shown[i], host)) {
            return false;
        }
    }
    if (details->count == DETAIL_MAX) {
        details->left_out++;
        return false;
    }
    details->shown[details->count++] = host;
    return true;
}

static void write_details(const struct view *view, bool color, struct buf *out) {
    size_t name_width = 0;
    for (size_t i = 0; i < view->host_count; i++) {
        if (needs_detail(view, &view->hosts[i])) {
            size_t width = text_width(view->hosts[i].name);
            name_width = width > name_width ? width : name_width;
        }
    }
    struct details details = {.count = 0};
    for (size_t rank = 0; rank <= ARRAY_LEN(severity); rank++) {
        for (size_t i = 0; i < view->host_count; i++) {
            const struct view_host *host = &view->hosts[i];
            bool ranked = rank < ARRAY_LEN(severity) ? host->state == severity[rank]
                                                     : host->state == HOST_SKIPPED;
            if (ranked && needs_detail(view, host) && take_detail(&details, host)) {
                write_detail(view, host, name_width, color, out);
                write_alike(view, host, 4 + name_width + 2, out);
            }
        }
    }
    if (details.left_out > 0) {
        buf_printf(out, "  and %zu more: fleet show %s\n", details.left_out,
                   wording_short_run(view->run));
    }
}

/* Every host in `state` (and with `reason`, unless that is NULL) in one paragraph, if any is. */
static void write_names(const struct view *view, enum host_state state, const char *reason,
                        const char *title, size_t max, struct buf *out) {
    struct name_list list = {.out = out, .indent = 4, .max = max};
    for (size_t i = 0; i < view->host_count; i++) {
        const struct view_host *host = &view->hosts[i];
        const char *why = host->reason != NULL ? host->reason : "";
        if (host->state == state && (reason == NULL || strcmp(why, reason) == 0)) {
            if (list.count == 0) {
                buf_printf(out, "  %s %s: ", state_words(state)->sign, title);
                list.column = 6 + text_width(title);
            }
            name_list_add(&list, host->name);
        }
    }
    if (list.count > 0) {
        name_list_end(&list);
    }
}

static void write_skipped(const struct view *view, struct buf *out) {
    static const struct {
        const char *reason;
        const char *title;
    } groups[] = {
        {"offline", "skipped, not reached (optional)"},
        {"budget", "skipped, untouched, because the run stopped"},
        {"stopped", "skipped, untouched: stopped before their turn"},
        {"last-healthy", "skipped: the last healthy one of its group"},
    };
    for (size_t i = 0; i < ARRAY_LEN(groups); i++) {
        write_names(view, HOST_SKIPPED, groups[i].reason, groups[i].title, NAMES_MAX, out);
    }
}

/* What failed before the run changed anything, for hosts that nothing else is said of. */
static void write_failed_before(const struct view *view, struct buf *out) {
    static const char title[] = "failing already before the change";
    struct name_list list = {.out = out, .indent = 4, .max = NAMES_MAX};
    for (size_t i = 0; i < view->host_count; i++) {
        const struct view_host *host = &view->hosts[i];
        if (host->failed_before == NULL || !wording_is_success(view, host->state)) {
            continue;
        }
        if (list.count == 0) {
            buf_printf(out, "  ! %s: ", title);
            list.column = 6 + strlen(title);
        }
        char *words = xasprintf("%s (%s)", host->name, host->failed_before);
        name_list_add(&list, words);
        free(words);
    }
    if (list.count > 0) {
        name_list_end(&list);
    }
}

/* A run that waits, or that has left something to be found out. */
static bool add_taking_up(const struct view *view, struct buf *out) {
    const char *run = wording_short_run(view->run);
    bool gone = view->result != NULL && strcmp(view->result, "journal-gone") == 0;
    bool may_resume = view->action != ACTION_BUILD && view->action != ACTION_DRY_ACTIVATE && !gone;
    if (view->exit == 6) {
        buf_printf(out, "it waits after wave %u of %u; go on with: fleet promote %s", view->wave,
                   view->wave_count, run);
        return true;
    }
    if (view->action == ACTION_BUILD && is_interrupted(view)) {
        buf_add_text(out, "begin it anew with: fleet build");
        return true;
    }
    if (is_interrupted(view) || (may_resume && resume_is_due(view))) {
        buf_printf(out, "go on with: fleet resume %s", run);
        return true;
    }
    return false;
}

/* Hosts that another try is for: all that are not where they should be, but for those that may be
 * away. */
static bool wants_again(const struct view *view, const struct view_host *host) {
    bool away =
        host->state == HOST_SKIPPED && host->reason != NULL && strcmp(host->reason, "offline") == 0;
    return !away && !wording_is_success(view, host->state);
}

bool summary_next(const struct view *view, size_t room, struct buf *out) {
    static const char any[] = "once fixed, the same again: what is done stays";
    if (add_taking_up(view, out)) {
        return true;
    }
    struct buf named = BUF_INIT;
    size_t count = 0;
    buf_add_text(&named, "once fixed: fleet update");
    for (size_t i = 0; i < view->host_count; i++) {
        if (wants_again(view, &view->hosts[i])) {
            count++;
            buf_printf(&named, " %s", view->hosts[i].name);
        }
    }
    /* What is done stays when these are done again. */
    bool again = view->action == ACTION_SWITCH || view->action == ACTION_PUSH ||
                 view->action == ACTION_BUILD;
    again = again && count > 0;
    if (again) {
        bool fits = view->action == ACTION_SWITCH && text_width(buf_text(&named)) <= room;
        buf_add_text(out, fits ? buf_text(&named) : any);
    }
    buf_free(&named);
    return again;
}

/* A run that max_unreachable has stopped: the ways on without, or with, those who were not reached. */
static void write_unreached(const struct view *view, struct buf *out) {
    size_t away = view_count(view, HOST_UNREACHABLE);
    struct buf names = BUF_INIT;
    for (size_t i = 0; i < view->host_count; i++) {
        if (view->hosts[i].state == HOST_UNREACHABLE) {
            buf_printf(&names, "%s%s", names.len > 0 ? "," : "", view->hosts[i].name);
        }
    }
    buf_printf(out, "  next: once %s, the same again (what is done stays)\n",
               away == 1 ? "it answers" : "they answer");
    if (away < view->host_count) {
        const char *them = away == 1 ? "it" : "them";
        if (text_width(buf_text(&names)) <= LINE_WIDTH / 2) {
            buf_printf(out, "        or leave %s out: --exclude %s\n", them, buf_text(&names));
        }
        buf_printf(out, "        or go on without %s: --policy max_unreachable=%zu\n", them, away);
    }
    buf_free(&names);
}

static void write_next(const struct view *view, struct buf *out) {
    struct buf text = BUF_INIT;
    if (!is_interrupted(view) && view->result != NULL && strcmp(view->result, "unreachable") == 0) {
        write_unreached(view, out);
        return;
    }
    if (add_taking_up(view, &text)) {
        buf_printf(out, "  %s\n", buf_text(&text));
    }
    buf_free(&text);
}

void summary_write(const struct view *view, const struct output_options *options, struct buf *out) {
    write_headline(view, out);
    write_details(view, options->color, out);
    if (is_interrupted(view)) {
        for (int state = 0; state < HOST_STATE_COUNT; state++) {
            write_names(view, (enum host_state)state, NULL,
                        state_words((enum host_state)state)->word, 0, out);
        }
    } else {
        write_skipped(view, out);
    }
    write_failed_before(view, out);
    write_next(view, out);
}
