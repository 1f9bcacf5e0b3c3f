#include "core/build_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"

#define LINE_KEPT    400
#define LINES_BEFORE 10
#define FILE_MAX     (256u * 1000u * 1000u)

void build_log_init(struct build_log *log, const char *run_dir, const char *name) {
    *log = (struct build_log){0};
    if (run_dir != NULL) {
        char *dir = xasprintf("%s/build", run_dir);
        if (mkdir(dir, 0700) == 0 || errno == EEXIST) {
            log->path = xasprintf("%s/%s.log", dir, name);
        }
        auto_free(&dir);
    }
}

/* A build may print what is nobody else's business, so the umask has no say. */
static FILE *open_log(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    FILE *file = fd >= 0 ? fdopen(fd, "a") : NULL;
    if (file == NULL) {
        auto_close(&fd);
    }
    return file;
}

void build_log_add(struct build_log *log, const char *line, size_t len) {
    if (log->path != NULL && log->file == NULL) {
        log->file = open_log(log->path);
    }
    if (log->file != NULL && log->written_bytes < FILE_MAX) {
        fwrite(line, 1, len, log->file);
        fputc('\n', log->file);
        log->written_bytes += len + 1;
        if (log->written_bytes >= FILE_MAX) {
            fputs("fleet: the log is cut here, after 256 MB\n", log->file);
        }
        fflush(log->file);
    }
    char **slot = &log->lines[log->next++ % BUILD_LOG_KEPT];
    auto_free(slot);
    *slot = text_cleaned(line, len < LINE_KEPT ? len : LINE_KEPT);
}

void build_log_free(struct build_log *log) {
    if (log->file != NULL) {
        fclose(log->file);
    }
    for (size_t i = 0; i < BUILD_LOG_KEPT; i++) {
        auto_free(&log->lines[i]);
    }
    auto_free(&log->path);
}

static bool begins(const char *text, const char *with) {
    return strncmp(text, with, strlen(with)) == 0;
}

static const char *skip_blanks(const char *line) {
    return line + strspn(line, " ");
}

static bool ends(const char *text, const char *with) {
    size_t len = strlen(text);
    size_t tail = strlen(with);
    return len >= tail && strcmp(text + len - tail, with) == 0;
}

/* Advice for somebody at Nix's own command line, and what Nix says before it begins. */
static bool is_noise(const char *line) {
    const char *text = skip_blanks(line);
    return text[0] == '\0' || begins(text, "For full logs") ||
           begins(text, "(use '--show-trace'") || begins(text, "warning:") ||
           strcmp(text, "error:") == 0 || begins(text, "nix log /nix/store") ||
           begins(text, "building '/nix/store/") || begins(text, "waiting for lock") ||
           ends(text, "will be built:") || (begins(text, "/nix/store/") && ends(text, ".drv"));
}

/* The lines worth showing, oldest first, and which of them is the first error. */
struct view {
    const char *lines[BUILD_LOG_KEPT];
    size_t count;
    size_t error; /* count: none */
    bool shows_log;
};

static void look(const struct build_log *log, struct view *view) {
    size_t first = log->next > BUILD_LOG_KEPT ? log->next - BUILD_LOG_KEPT : 0;
    bool found = false;
    view->count = 0;
    view->shows_log = false;
    for (size_t i = first; i < log->next; i++) {
        const char *line = log->lines[i % BUILD_LOG_KEPT];
        if (is_noise(line)) {
            continue;
        }
        if (!found && begins(skip_blanks(line), "error:")) {
            found = true;
            view->error = view->count;
        }
        view->shows_log |= found && skip_blanks(line)[0] == '>';
        view->lines[view->count++] = line;
    }
    if (!found) {
        view->error = view->count;
    }
}

static void add_line(struct buf *out, const char *line) {
    if (out->len > 0) {
        buf_add_char(out, '\n');
    }
    buf_add_text(out, line);
}

void build_log_excerpt(const struct build_log *log, size_t max, struct buf *out) {
    struct view view;
    look(log, &view);
    const char *lines[BUILD_LOG_KEPT];
    size_t count = 0;
    if (view.error < view.count) {
        /* "error: " itself is said by the sentence that this goes into. */
        lines[count++] = skip_blanks(skip_blanks(view.lines[view.error]) + strlen("error:"));
    }
    if (!view.shows_log) {
        size_t from = view.error > LINES_BEFORE ? view.error - LINES_BEFORE : 0;
        /* An evaluation has no log before its error, but for what Nix is about to do. */
        for (size_t i = from; i < view.error; i++) {
            lines[count++] = view.lines[i];
        }
    }
    for (size_t i = view.error + 1; i < view.count; i++) {
        lines[count++] = view.lines[i];
    }
    /* The first line, and as many of the last ones as fit. */
    size_t room = max;
    size_t last = count;
    size_t head = count > 0 ? strlen(lines[0]) + 5 : 0;
    room = room > head ? room - head : 0;
    while (last > 1 && strlen(lines[last - 1]) + 1 <= room) {
        room -= strlen(lines[last - 1]) + 1;
        last--;
    }
    if (count > 0) {
        add_line(out, lines[0]);
    }
    if (last > 1) {
        add_line(out, "...");
    }
    for (size_t i = last; i < count; i++) {
        if (i > 0) {
            add_line(out, lines[i]);
        }
    }
}
