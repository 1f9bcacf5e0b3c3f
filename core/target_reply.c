/* The answer of a script: lines `key value`, kept in the order they came (see target_reply.h). */
#include "core/target_reply.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"

struct entry {
    size_t key; /* offsets into `text` */
    size_t value;
};

struct target_reply {
    uint32_t refs;
    struct buf text;
    struct entry *entries;
    size_t count;
    size_t room;
    /* Where the last target_reply_nth ended: its key (an offset into `text`), which one of that key,
     * and the entry. A host may send tens of thousands of lines of one key, which are asked for one
     * after the other: looking from the beginning each time would take the loop away for minutes. */
    struct {
        size_t key, nth, at;
        bool known;
    } last;
};

/* Length of the key at the beginning of a line, 0 if there is none. */
static size_t key_length(const char *line, size_t len) {
    size_t i = 0;
    while (i < len && ((line[i] >= 'a' && line[i] <= 'z') ||
                       (i > 0 && ((line[i] >= '0' && line[i] <= '9') || line[i] == '_')))) {
        i++;
    }
    return i < len && line[i] != ' ' ? 0 : i;
}

static void add_line(struct target_reply *reply, const char *line, size_t len) {
    size_t key_len = key_length(line, len);
    if (key_len == 0 || reply->count == TARGET_REPLY_LINES_MAX) {
        return;
    }
    if (reply->count == reply->room) {
        reply->room = reply->room == 0 ? 32 : reply->room * 2;
        reply->entries = xrealloc(reply->entries, reply->room * sizeof(*reply->entries));
    }
    struct entry *entry = &reply->entries[reply->count++];
    entry->key = reply->text.len;
    buf_add(&reply->text, line, key_len);
    buf_add_char(&reply->text, '\0');
    entry->value = reply->text.len;
    size_t at = key_len < len ? key_len + 1 : len;
    size_t value_len = len - at < TARGET_REPLY_VALUE_MAX ? len - at : TARGET_REPLY_VALUE_MAX;
    text_clean(&reply->text, line + at, value_len, false);
    buf_add_char(&reply->text, '\0');
}

struct target_reply *target_reply_parse(const char *text, size_t len) {
    struct target_reply *reply = xcalloc(1, sizeof(*reply));
    reply->refs = 1;
    size_t at = 0;
    while (at < len) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t line_len = end != NULL ? (size_t)(end - (text + at)) : len - at;
        add_line(reply, text + at, line_len);
        at += line_len + 1;
    }
    return reply;
}

struct target_reply *target_reply_keep(const struct target_reply *reply) {
    struct target_reply *kept = (struct target_reply *)(uintptr_t)reply;
    kept->refs++;
    return kept;
}

void target_reply_free(struct target_reply *reply) {
    if (reply == NULL || --reply->refs > 0) {
        return;
    }
    buf_free(&reply->text);
    free(reply->entries);
    free(reply);
}

const char *target_reply_nth(const struct target_reply *reply, const char *key, size_t i) {
    struct target_reply *self = (struct target_reply *)(uintptr_t)reply;
    bool goes_on = self->last.known && i >= self->last.nth &&
                   strcmp(self->text.data + self->last.key, key) == 0;
    size_t nth = goes_on ? self->last.nth : 0;
    for (size_t at = goes_on ? self->last.at : 0; at < self->count; at++) {
        const struct entry *entry = &self->entries[at];
        if (strcmp(self->text.data + entry->key, key) != 0) {
            continue;
        }
        if (nth == i) {
            self->last.known = true;
            self->last.key = entry->key;
            self->last.nth = nth;
            self->last.at = at;
            return self->text.data + entry->value;
        }
        nth++;
    }
    return NULL;
}

const char *target_reply_next(const struct target_reply *reply, const char *key, size_t *at) {
    while (*at < reply->count) {
        const struct entry *entry = &reply->entries[(*at)++];
        if (strcmp(reply->text.data + entry->key, key) == 0) {
            return reply->text.data + entry->value;
        }
    }
    return NULL;
}

const char *target_reply_get(const struct target_reply *reply, const char *key) {
    return target_reply_nth(reply, key, 0);
}

int64_t target_reply_number(const struct target_reply *reply, const char *key, int64_t missing) {
    const char *value = target_reply_get(reply, key);
    if (value == NULL || *value == '\0') {
        return missing;
    }
    char *end;
    long long number = strtoll(value, &end, 10);
    return *end == '\0' ? (int64_t)number : missing;
}
