/* Any bytes as a line of a journal: it is refused, or written and read again to the same line, once
 * all has been cleaned; and a view takes it without harm. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/view.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Writes it and reads that; what was written is in `line`. */
static struct event *again(const struct event *event, struct buf *line) {
    struct event *read = NULL;
    struct error error = ERROR_INIT;
    event_format(event, line);
    if (event_parse(line->data, line->len, &read, &error) != 0 ||
        memchr(line->data, '\033', line->len) != NULL) {
        abort();
    }
    return read;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct event *event = NULL;
    struct error error = ERROR_INIT;
    if (event_parse((const char *)data, size, &event, &error) != 0) {
        if (error.reason[0] == '\0' || event != NULL) {
            abort();
        }
        return 0;
    }
    struct buf lines[3] = {BUF_INIT, BUF_INIT, BUF_INIT};
    struct event *cleaned = again(event, &lines[0]);
    struct event *second = again(cleaned, &lines[1]);
    struct event *third = again(second, &lines[2]);
    if (lines[1].len != lines[2].len || memcmp(lines[1].data, lines[2].data, lines[1].len) != 0) {
        abort();
    }
    struct view *view = view_new();
    view_apply(view, event);
    view_apply(view, third);
    view_free(view);
    event_free(event);
    event_free(cleaned);
    event_free(second);
    event_free(third);
    for (size_t i = 0; i < 3; i++) {
        buf_free(&lines[i]);
    }
    return 0;
}
