#include "tui/side_lines.h"

#include <string.h>

/* What is kept of them at least; older ones are in the journal. */
#define KEPT_BYTES (64u * 1024u)

/* As fopencookie(3) has it: on the screen, or into memory. */
static ssize_t write_lines(void *cookie, const char *data, size_t len) {
    struct side_lines *lines = cookie;
    if (lines->shown) {
        return fwrite(data, 1, len, stdout) == len ? (ssize_t)len : 0;
    }
    buf_add(&lines->kept, data, len);
    if (lines->kept.len > 2 * KEPT_BYTES) {
        const char *cut = memchr(lines->kept.data + lines->kept.len - KEPT_BYTES, '\n', KEPT_BYTES);
        buf_consume(&lines->kept,
                    cut != NULL ? (size_t)(cut + 1 - lines->kept.data) : lines->kept.len);
    }
    return (ssize_t)len;
}

void side_lines_init(struct side_lines *lines) {
    static const cookie_io_functions_t io = {.write = write_lines};
    *lines = (struct side_lines){.file = fopencookie(lines, "w", io)};
}

void side_lines_release(struct side_lines *lines) {
    fclose(lines->file);
    buf_free(&lines->kept);
}

void side_lines_show(struct side_lines *lines, struct terminal *terminal, const char *hint) {
    fflush(lines->file);
    terminal_leave(terminal);
    lines->shown = true;
    fwrite(lines->kept.data, 1, lines->kept.len, stdout);
    buf_clear(&lines->kept);
    fputs(hint, stdout);
    fflush(stdout);
    terminal_listen(terminal);
}

void side_lines_hide(struct side_lines *lines, struct terminal *terminal) {
    side_lines_flush(lines);
    lines->shown = false;
    terminal_leave(terminal);
    terminal_enter(terminal);
}

void side_lines_flush(struct side_lines *lines) {
    fflush(lines->file);
    if (lines->shown) {
        fflush(stdout);
    }
}
