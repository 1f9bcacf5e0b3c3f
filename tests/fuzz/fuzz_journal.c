/* A whole journal, damaged in any way: what can be read of it is folded into a view, and what is
 * left to do of that run can be said. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/resume.h"
#include "core/view.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fold(struct view *view, const char *text, size_t size) {
    for (size_t at = 0; at < size;) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t len = end != NULL ? (size_t)(end - (text + at)) : size - at;
        struct event *event = NULL;
        struct error error = ERROR_INIT;
        if (event_parse(text + at, len, &event, &error) == 0) {
            view_apply(view, event);
            event_free(event);
        }
        at += len + 1;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct view *view = view_new();
    fold(view, (const char *)data, size);
    size_t counted = 0;
    for (size_t i = 0; i < HOST_STATE_COUNT; i++) {
        counted += view_count(view, (enum host_state)i);
    }
    if (counted != view->host_count) {
        abort();
    }
    resume_is_due(view);
    for (int probes_again = 0; probes_again <= 1; probes_again++) {
        struct resume *resume = resume_new(view, probes_again == 1);
        if (resume->count != view->host_count) {
            abort();
        }
        resume_free(resume);
    }
    view_free(view);
    return 0;
}
