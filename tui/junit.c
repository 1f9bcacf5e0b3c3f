#include "tui/junit.h"

#include <string.h>

#include "core/base/clock.h"
#include "tui/markup.h"
#include "tui/wording.h"

enum verdict {
    VERDICT_PASSED,
    VERDICT_FAILED,
    VERDICT_ERROR,
    VERDICT_SKIPPED,
    VERDICT_COUNT
};

static enum verdict verdict_of(const struct view *view, const struct view_host *host) {
    if (wording_is_success(view, host->state)) {
        return VERDICT_PASSED;
    }
    if (host->state == HOST_SKIPPED) {
        return VERDICT_SKIPPED;
    }
    bool failed = host->state == HOST_FAILED || host->state == HOST_ROLLED_BACK ||
                  host->state == HOST_ROLLBACK_FAILED || host->state == HOST_REBOOT_REQUIRED;
    return failed ? VERDICT_FAILED : VERDICT_ERROR;
}

static void add_seconds(struct buf *out, int64_t ms) {
    ms = ms > 0 ? ms : 0;
    buf_printf(out, "%lld.%03lld", (long long)(ms / 1000), (long long)(ms % 1000));
}

/* From the host's first move on to its last. */
static int64_t time_of(const struct view_host *host) {
    int64_t first = host->since_ms;
    for (int state = 0; state < HOST_STATE_COUNT; state++) {
        int64_t at = host->state_at_ms[state];
        first = at > 0 && at < first ? at : first;
    }
    return host->since_ms - first;
}

static void write_case(const struct view *view, const struct view_host *host, struct buf *out) {
    static const char *const elements[] = {
        [VERDICT_FAILED] = "failure", [VERDICT_ERROR] = "error", [VERDICT_SKIPPED] = "skipped"};
    enum verdict verdict = verdict_of(view, host);
    buf_printf(out, "    <testcase classname=\"wave %u\" name=\"", host->wave);
    markup_add_xml(out, host->name);
    buf_add_text(out, "\" time=\"");
    add_seconds(out, time_of(host));
    if (verdict == VERDICT_PASSED) {
        buf_add_text(out, "\"/>\n");
        return;
    }
    buf_printf(out, "\">\n      <%s message=\"%s", elements[verdict],
               state_words(host->state)->word);
    const char *message = host->verdict != NULL ? host->verdict : host->message;
    if (message != NULL) {
        buf_add_text(out, ": ");
        markup_add_xml(out, message);
    }
    if (verdict != VERDICT_SKIPPED) {
        buf_add_text(out, "\" type=\"");
        markup_add_xml(out, host->reason != NULL ? host->reason : "");
    }
    buf_add_text(out, "\"/>\n    </testcase>\n");
}

static void write_suite(const struct view *view, uint32_t wave, struct buf *out) {
    size_t counts[VERDICT_COUNT] = {0};
    size_t total = 0;
    int64_t time_ms = 0;
    for (size_t i = 0; i < view->host_count; i++) {
        if (view->hosts[i].wave == wave) {
            counts[verdict_of(view, &view->hosts[i])]++;
            total++;
            time_ms += time_of(&view->hosts[i]);
        }
    }
    if (total == 0) {
        return;
    }
    char at[CLOCK_RFC3339_SIZE];
    clock_rfc3339(view->started_ms, at);
    buf_printf(out,
               "  <testsuite name=\"wave %u\" tests=\"%zu\" failures=\"%zu\" errors=\"%zu\" "
               "skipped=\"%zu\" timestamp=\"%s\" time=\"",
               wave, total, counts[VERDICT_FAILED], counts[VERDICT_ERROR], counts[VERDICT_SKIPPED],
               at);
    add_seconds(out, time_ms);
    buf_add_text(out, "\">\n");
    for (size_t i = 0; i < view->host_count; i++) {
        if (view->hosts[i].wave == wave) {
            write_case(view, &view->hosts[i], out);
        }
    }
    buf_add_text(out, "  </testsuite>\n");
}

void junit_write(const struct view *view, struct buf *out) {
    buf_add_text(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"");
    markup_add_xml(out, view->fleet != NULL ? view->fleet : "fleet");
    buf_add_text(out, " ");
    markup_add_xml(out, view->run != NULL ? view->run : "");
    buf_add_text(out, "\">\n");
    for (uint32_t wave = 0; wave <= view->wave_count; wave++) {
        write_suite(view, wave, out);
    }
    buf_add_text(out, "</testsuites>\n");
}
