/* What Nix's tools print while they build, here and on a target: builders write into it what they
 * like. Lines go through the progress, the log and the target's words; the whole is taken for the
 * answer of an evaluation, too. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "core/build_command.h"
#include "core/build_log.h"
#include "core/build_progress.h"
#include "core/plan.h"
#include "transport/copy_words.h"

#define PATHS 3u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_line(const char *line, size_t len, const char *drv, void *arg) {
    (void)drv;
    build_log_add(arg, line, len);
}

static void on_step(const struct build_step *step, void *arg) {
    (void)arg;
    struct event *event = event_new(EVENT_DERIVATION);
    struct buf line = BUF_INIT;
    build_step_tell(step, event);
    event_format(event, &line);
    event_free(event);
    buf_free(&line);
}

static void read_lines(const char *data, size_t size) {
    static const struct build_progress_handlers handlers = {.on_line = on_line, .on_step = on_step};
    struct build_log log;
    build_log_init(&log, NULL, "db1");
    struct build_progress *progress = build_progress_new(&handlers, &log);
    for (size_t at = 0; at < size;) {
        const char *end = memchr(data + at, '\n', size - at);
        size_t len = end != NULL ? (size_t)(end - (data + at)) : size - at;
        build_progress_line(progress, data + at, len);
        at += len + 1;
    }
    build_progress_is_refused(progress);
    build_progress_free(progress);
    struct buf excerpt = BUF_INIT;
    build_log_excerpt(&log, 600, &excerpt);
    if (memchr(buf_text(&excerpt), '\033', excerpt.len) != NULL) {
        abort();
    }
    buf_free(&excerpt);
    build_log_free(&log);
}

static void free_paths(char **paths) {
    for (size_t i = 0; i < PATHS; i++) {
        free(paths[i]);
        paths[i] = NULL;
    }
}

static void read_answers(const char *text) {
    char *paths[PATHS] = {NULL};
    build_read_flake(text, PATHS, paths);
    free_paths(paths);
    build_read_files(text, PATHS, paths);
    free_paths(paths);
    build_read_paths(text, PATHS, paths);
    free_paths(paths);
    free(build_read_path(text));
    char *name = NULL;
    char *version = NULL;
    if (plan_package_parse(text, &name, &version)) {
        free(name);
        free(version);
    }
}

static void read_words(const char *data, size_t size) {
    struct copy_words words = {0};
    for (size_t at = 0; at < size; at += 7) {
        copy_words_feed(&words, data + at, size - at < 7 ? size - at : 7, NULL, NULL);
    }
    struct error error = ERROR_INIT;
    copy_words_explain(&words, "nix-store", false, 1, NULL, &error);
    if (error.code == FLEET_OK || strchr(error.message, '\033') != NULL) {
        abort();
    }
    copy_words_free(&words);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    AUTO_FREE char *text = xstrndup((const char *)data, size);
    read_lines((const char *)data, size);
    read_answers(text);
    read_words((const char *)data, size);
    return 0;
}
