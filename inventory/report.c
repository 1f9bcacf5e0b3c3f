#include "inventory/report.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "inventory/arena.h"
#include "inventory/name_table.h"

/* Of a key or a message so many bytes are shown. */
#define KEY_SHOWN_MAX 80
#define NO_OFFSET     SIZE_MAX

struct told {
    size_t offset; /* NO_OFFSET: not in the file */
    size_t order;
    const char *path;
    const char *message;
};

struct report {
    struct inv_arena *arena;
    const char *source;
    struct told *items;
    size_t count, cap;
    size_t more; /* beyond REPORT_MAX */
    struct name_table seen;
};

struct report *report_new(void) {
    struct report *report = xcalloc(1, sizeof(*report));
    report->arena = arena_new();
    return report;
}

void report_free(struct report *report) {
    arena_free(report->arena);
    name_table_release(&report->seen);
    free(report->items);
    free(report);
}

bool report_is_empty(const struct report *report) {
    return report->count == 0;
}

/* A key as it stands in a path: quoted where it could be misread. */
static void add_key(struct buf *path, const char *key) {
    size_t len = strlen(key);
    bool plain = len > 0 && len <= KEY_SHOWN_MAX;
    for (size_t i = 0; plain && i < len; i++) {
        plain = isalnum((unsigned char)key[i]) || key[i] == '_' || key[i] == '-';
    }
    if (plain) {
        buf_add_text(path, key);
        return;
    }
    buf_add_char(path, '"');
    size_t shown = len;
    if (len > KEY_SHOWN_MAX) {
        shown = KEY_SHOWN_MAX;
        while (((unsigned char)key[shown] & 0xC0) == 0x80) {
            shown--;
        }
    }
    text_clean(path, key, shown, false);
    buf_add_text(path, len > KEY_SHOWN_MAX ? "...\"" : "\"");
}

/* "hosts.db1.health[0].port". The scanner bounds the depth. */
// NOLINTNEXTLINE(misc-no-recursion)
static void add_path(struct buf *path, const struct json_node *node) {
    if (node->parent == NULL) {
        return;
    }
    add_path(path, node->parent);
    if (node->key == NULL) {
        buf_printf(path, "[%u]", (unsigned)node->index);
        return;
    }
    if (path->len > 0) {
        buf_add_char(path, '.');
    }
    add_key(path, node->key);
}

/* True the first time that this is told at this place. */
static bool is_news(struct report *report, size_t offset, const char *message) {
    const char *source = report->source != NULL ? report->source : "";
    const char *identity = arena_printf(report->arena, "%zu %s %s", offset, source, message);
    return name_table_add(&report->seen, identity, strlen(identity), 0, NULL);
}

static void tell(struct report *report, size_t offset, const struct json_node *node,
                 const char *message, size_t len) {
    if (report->count >= REPORT_MAX) {
        report->more++;
        return;
    }
    struct buf clean = BUF_INIT;
    text_clean(&clean, message, len, false);
    if (is_news(report, report->source != NULL ? NO_OFFSET : offset, buf_text(&clean))) {
        struct buf path = BUF_INIT;
        buf_add_text(&path, report->source != NULL ? report->source : "");
        if (node != NULL) {
            add_path(&path, node);
        }
        if (report->count == report->cap) {
            report->cap = report->cap > 0 ? report->cap * 2 : 16;
            report->items = xrealloc(report->items, report->cap * sizeof(*report->items));
        }
        report->items[report->count] = (struct told){
            .offset = report->source != NULL ? NO_OFFSET : offset,
            .order = report->count,
            .path = arena_text(report->arena, buf_text(&path), path.len),
            .message = arena_text(report->arena, buf_text(&clean), clean.len),
        };
        report->count++;
        buf_free(&path);
    }
    buf_free(&clean);
}

void report_value(struct report *report, const struct json_node *node, const char *format, ...) {
    struct buf message = BUF_INIT;
    va_list args;
    va_start(args, format);
    buf_vprintf(&message, format, args);
    va_end(args);
    tell(report, node->offset, node, buf_text(&message), message.len);
    buf_free(&message);
}

void report_key(struct report *report, const struct json_node *node, const char *format, ...) {
    struct buf message = BUF_INIT;
    va_list args;
    va_start(args, format);
    buf_vprintf(&message, format, args);
    va_end(args);
    tell(report, node->key_offset, node, buf_text(&message), message.len);
    buf_free(&message);
}

void report_fault(struct report *report, size_t offset, const struct json_node *node,
                  const char *message) {
    tell(report, offset, node, message, strlen(message));
}

void report_source(struct report *report, const char *source) {
    report->source = source != NULL ? arena_text(report->arena, source, strlen(source)) : NULL;
}

static int compare(const void *left, const void *right) {
    const struct told *a = left;
    const struct told *b = right;
    if (a->offset != b->offset) {
        return a->offset < b->offset ? -1 : 1;
    }
    return a->order < b->order ? -1 : 1;
}

/* Lines and columns of all in one pass over the text, since what is told is sorted by now. */
static void locate(const struct report *report, const char *text, size_t len,
                   struct inv_error *items) {
    /* A byte order mark is no character of the first line. */
    size_t at = len >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    size_t line = 1;
    size_t column = 1;
    for (size_t i = 0; i < report->count; i++) {
        items[i] =
            (struct inv_error){.path = report->items[i].path, .message = report->items[i].message};
        if (report->items[i].offset == NO_OFFSET) {
            continue;
        }
        for (; at < len && at < report->items[i].offset; at++) {
            if (text[at] == '\n') {
                line++;
                column = 1;
            } else if (((unsigned char)text[at] & 0xC0) != 0x80) {
                column++;
            }
        }
        items[i].line = line;
        /* A byte that isn't UTF-8 counts as the character that it interrupts. */
        items[i].column = column;
    }
}

void report_finish(struct report *report, const char *text, size_t len, struct inv_errors *ret) {
    if (report->count > 1) {
        qsort(report->items, report->count, sizeof(*report->items), compare);
    }
    struct inv_arena *arena = report->arena;
    bool cut = report->more > 0;
    struct inv_error *items = arena_alloc(arena, report->count + 1, sizeof(*items));
    locate(report, text, len, items);
    if (cut) {
        items[report->count] = (struct inv_error){
            .path = "", .message = "there are more errors than these; mend these first"};
    }
    *ret =
        (struct inv_errors){.items = items, .count = report->count + (cut ? 1 : 0), .arena = arena};
    report->arena = arena_new();
    report->count = 0;
}
