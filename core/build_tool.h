/* One program of the operator's machine, run to its end: stdout kept, stderr as lines.
 *
 * Spawned by argv in a session of its own, so that it can be ended with everything that it started
 * and asks nothing at the terminal. Loop thread only.
 */
#ifndef FLEET_CORE_BUILD_TOOL_H
#define FLEET_CORE_BUILD_TOOL_H

#include <uv.h>

#include "core/base/error.h"

struct build_tool;

struct build_tool_result {
    int err;            /* 0: it ended by itself; FLEET_ERR_SYSTEM, _TIMEOUT, _CANCELLED */
    int status;         /* exit status; 128 + the signal that ended it */
    const char *out;    /* stdout, NUL-terminated; what is above 4 MB is dropped */
    struct error error; /* filled when err != 0 */
};

struct build_tool_handlers {
    /* A line of stderr without its end; long ones come in pieces. */
    void (*on_line)(const char *line, size_t len, void *arg);
    /* Exactly once, never before build_tool_start has returned. The tool is freed afterwards. */
    void (*on_done)(const struct build_tool_result *result, void *arg);
};

/* How long a tool or a build elsewhere may go on: without any output, and in all. */
struct build_limit {
    uint64_t silence_ms;
    uint64_t total_ms;
};
/* Ends at the earlier of both; called at the start (`began_ms` is uv_now's then) and at each output. */
void build_limit_arm(const struct build_limit *limit, uint64_t began_ms, uv_timer_t *timer,
                     uv_timer_cb on_limit);
/* Why the timer fired, as FLEET_ERR_TIMEOUT. */
void build_limit_error(const struct build_limit *limit, uint64_t began_ms, const uv_timer_t *timer,
                       struct error *error);

/* argv ends with NULL and is only read during the call. At its limit it is ended with
 * FLEET_ERR_TIMEOUT. */
struct build_tool *build_tool_start(uv_loop_t *loop, const char *const *argv, const char *dir,
                                    const struct build_limit *limit,
                                    const struct build_tool_handlers *handlers, void *arg);
/* SIGTERM, and SIGKILL after 2 s; on_done follows with FLEET_ERR_CANCELLED. */
void build_tool_cancel(struct build_tool *tool);

/* Splits a byte stream into lines, at \n and \r. */
struct build_lines {
    size_t len;
    char text[65536]; /* Nix packs a builder's whole line into one of its own */
};
void build_lines_add(struct build_lines *lines, const char *data, size_t len,
                     void (*on_line)(const char *line, size_t len, void *arg), void *arg);
/* What stands after the last line end. */
void build_lines_end(struct build_lines *lines,
                     void (*on_line)(const char *line, size_t len, void *arg), void *arg);

#endif
