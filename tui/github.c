#include "tui/github.h"

#include <string.h>

#include "tui/markup.h"
#include "tui/summary.h"
#include "tui/wording.h"

#define ANNOTATIONS_MAX   10
#define SUMMARY_MAX_BYTES ((size_t)900 * 1024)

static bool needs_a_person(const struct view *view, const struct view_host *host) {
    return state_words(host->state)->attention && !wording_is_success(view, host->state);
}

static const char *message_of(const struct view_host *host) {
    return host->verdict != NULL ? host->verdict : host->message != NULL ? host->message : "";
}

/* The data of a workflow command: percent, CR and LF would end or change it. */
static void add_command_text(struct buf *out, const char *text) {
    for (; *text != '\0'; text++) {
        if (*text == '%' || *text == '\n' || *text == '\r') {
            buf_printf(out, "%%%02X", (unsigned)(unsigned char)*text);
        } else {
            buf_add_char(out, *text);
        }
    }
}

void github_write_annotations(const struct view *view, struct buf *out) {
    size_t total = 0;
    for (size_t i = 0; i < view->host_count; i++) {
        total += needs_a_person(view, &view->hosts[i]);
    }
    size_t alone = total <= ANNOTATIONS_MAX ? total : ANNOTATIONS_MAX - 1;
    size_t told = 0;
    for (size_t i = 0; i < view->host_count && told < total; i++) {
        const struct view_host *host = &view->hosts[i];
        if (!needs_a_person(view, host)) {
            continue;
        }
        if (told < alone) {
            buf_printf(out, "::error title=fleet %s::%s: ", state_words(host->state)->word,
                       host->name);
            add_command_text(out, message_of(host));
            buf_add_char(out, '\n');
        } else {
            buf_add_text(out, told == alone ? "::error title=fleet::and also: " : ", ");
            add_command_text(out, host->name);
        }
        told++;
    }
    if (told > alone) {
        buf_add_char(out, '\n');
    }
}

static void add_row(const struct view_host *host, struct buf *out) {
    buf_add_text(out, "| ");
    markup_add_cell(out, host->name);
    buf_printf(out, " | %u | %s %s | ", host->wave, state_words(host->state)->sign,
               state_words(host->state)->word);
    markup_add_cell(out, message_of(host));
    buf_add_text(out, " |\n");
}

void github_write_summary(const struct view *view, struct buf *out) {
    struct buf text = BUF_INIT;
    static const struct output_options plain = {.verbosity = 0};
    summary_write(view, &plain, &text);
    size_t start = out->len;
    buf_add_text(out, "### ");
    struct buf headline = BUF_INIT;
    buf_add(&headline, buf_text(&text), strcspn(buf_text(&text), "\n"));
    markup_add_cell(out, buf_text(&headline));
    buf_add_text(out, "\n\n| host | wave | state | |\n|---|---|---|---|\n");
    buf_free(&headline);
    buf_free(&text);
    size_t left_out = 0;
    /* Those that need a person stand first; they are the last to be left out. */
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < view->host_count; i++) {
            const struct view_host *host = &view->hosts[i];
            if (needs_a_person(view, host) != (pass == 0)) {
                continue;
            }
            size_t before = out->len;
            add_row(host, out);
            if (out->len - start > SUMMARY_MAX_BYTES) {
                out->len = before;
                left_out++;
            }
        }
    }
    if (left_out > 0) {
        buf_printf(out, "\nand %zu hosts more: `fleet show %s`\n", left_out,
                   wording_short_run(view->run));
    }
}
