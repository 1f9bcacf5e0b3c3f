/* Any bytes as a line of a journal: it is refused, or written and read again to the same line; and
 * a view takes it without harm. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/view.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct event *event = NULL;
    struct error error = ERROR_INIT;
    if (event_parse((const char *)data, size, &event, &error) != 0) {
        if (error.reason[0] == '\0' || event != NULL) {
            abort();
        }
        return 0;
    }
    struct buf first = BUF_INIT;
    struct buf second = BUF_INIT;
    struct event *again = NULL;
    event_format(event, &first);
    if (event_parse(first.data, first.len, &again, &error) != 0) {
        abort();
    }
    event_format(again, &second);
    if (first.len != second.len || memcmp(first.data, second.data, first.len) != 0 ||
        memchr(first.data, '\033', first.len) != NULL) {
        abort();
    }
    struct view *view = view_new();
    view_apply(view, event);
    view_apply(view, again);
    view_free(view);
    event_free(event);
    event_free(again);
    buf_free(&first);
    buf_free(&second);
    return 0;
}
