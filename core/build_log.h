/* The log of one host's evaluation and build: whole on disk, its end in memory for the message of a
 * failure.
 */
#ifndef FLEET_CORE_BUILD_LOG_H
#define FLEET_CORE_BUILD_LOG_H

#include <stddef.h>
#include <stdio.h>

#include "core/base/buf.h"
#include "core/base/error.h"

enum {
    BUILD_LOG_KEPT = 120
};

struct build_log {
    char *path; /* NULL: only in memory */
    FILE *file; /* opened at the first line */
    size_t written_bytes;
    size_t next;
    char *lines[BUILD_LOG_KEPT]; /* a ring, cleaned */
};

/* RUN_DIR/build/NAME.log; nothing is created before the first line. run_dir may be NULL. */
void build_log_init(struct build_log *log, const char *run_dir, const char *name);
/* A log without end is cut in the file, and says so there. */
void build_log_add(struct build_log *log, const char *line, size_t len);
void build_log_free(struct build_log *log);

/* The words of the tool that failed, at most `max` bytes: from its first "error:" on, with the last
 * lines before it where it shows none itself; the end is kept where not all fits, since what an
 * evaluation complains about stands last. Empty where nothing was said. */
void build_log_excerpt(const struct build_log *log, size_t max, struct buf *out);

#endif
