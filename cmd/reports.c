#include "cmd/reports.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/context.h"
#include "core/base/xalloc.h"
#include "tui/github.h"
#include "tui/junit.h"
#include "tui/prometheus.h"

static const struct {
    enum option_id option;
    void (*write)(const struct view *view, struct buf *out);
} reports[] = {
    {OPTION_JUNIT, junit_write},
    {OPTION_METRICS, prometheus_write},
};

/* The folder of `path`; a new string. */
static char *folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return xstrdup(".");
    }
    return slash == path ? xstrdup("/") : xstrndup(path, (size_t)(slash - path));
}

int reports_check(const struct args *args) {
    static const enum option_id written[] = {OPTION_JUNIT, OPTION_METRICS, OPTION_OUT};
    for (size_t i = 0; i < ARRAY_LEN(written); i++) {
        const char *name = option_defs[written[i]].name;
        const char *path = args_value(args, written[i]);
        struct stat there;
        if (path == NULL) {
            continue;
        }
        AUTO_FREE char *folder = folder_of(path);
        if (access(folder, W_OK | X_OK) != 0) {
            return context_usage(args, "--%s: nothing can be written in %s: %s", name, folder,
                                 strerror(errno));
        }
        if (stat(path, &there) == 0 && S_ISDIR(there.st_mode)) {
            return context_usage(args, "--%s: %s is a folder; name a file in it", name, path);
        }
    }
    return 0;
}

static int write_text(const char *path, const char *mode, const struct buf *text) {
    FILE *file = fopen(path, mode);
    if (file == NULL) {
        return errno;
    }
    size_t written = fwrite(buf_text(text), 1, text->len, file);
    int err = written < text->len ? errno : 0;
    return fclose(file) != 0 && err == 0 ? errno : err;
}

/* Whoever reads `path` sees the old file or the new one, never a part. */
static int replace(const char *path, const struct buf *text) {
    AUTO_FREE char *fresh = xasprintf("%s.%d.new", path, (int)getpid());
    int err = write_text(fresh, "we", text);
    if (err == 0 && rename(fresh, path) != 0) {
        err = errno;
    }
    if (err != 0) {
        unlink(fresh);
    }
    return err;
}

static void complain(const char *path, int err) {
    if (err != 0) {
        fprintf(stderr, "fleet: %s can't be written: %s; the run itself is not affected\n", path,
                strerror(err));
    }
}

void reports_write(const struct args *args, const struct view *view) {
    for (size_t i = 0; i < ARRAY_LEN(reports); i++) {
        const char *path = args_value(args, reports[i].option);
        if (path != NULL) {
            struct buf text = BUF_INIT;
            reports[i].write(view, &text);
            complain(path, replace(path, &text));
            buf_free(&text);
        }
    }
    const char *summary = getenv("GITHUB_STEP_SUMMARY");
    if (summary != NULL && summary[0] != '\0') {
        struct buf text = BUF_INIT;
        github_write_summary(view, &text);
        complain(summary, write_text(summary, "ae", &text));
        buf_free(&text);
    }
}
