/* The reading end of a copy: one serve process of the source store.
 *
 * Two kinds of request, answered in the order in which they were made: the closure of a path
 * (QueryClosure, then QueryPathInfos for what the registry doesn't know), and the NAR of a path,
 * which is parsed and hashed as it streams and handed on piece by piece. The process starts with
 * the first request; when it dies every request in flight fails and the next request starts a new
 * one.
 */
#ifndef FLEET_TRANSPORT_COPY_SOURCE_H
#define FLEET_TRANSPORT_COPY_SOURCE_H

#include <uv.h>

#include "transport/conn.h"
#include "transport/path_registry.h"

struct copy_source;

/* The handlers may ask for more and pause; nothing else of what stands below. */
struct copy_source_handlers {
    /* A piece of a NAR. The last piece comes only after size and hash have been found right, so
     * that nobody downstream ever holds a whole NAR that is wrong. */
    void (*on_nar)(uint32_t index, const char *data, size_t len, bool last, void *arg);
    /* The path can't be read from the source (reason "source-corrupt"); no more pieces of it. */
    void (*on_bad_path)(uint32_t index, const struct error *error, void *arg);
    /* The bytes at hand have been handed on; a good moment to send what was gathered. */
    void (*on_batch)(void *arg);
    /* A closure that was asked for is in the registry, or error is not NULL. */
    void (*on_closure)(const char *top, const struct error *error, void *arg);
    /* The process died or broke the protocol; all NARs in flight are lost. `index` is the path that
     * was being read, PATH_UNKNOWN if none. */
    void (*on_failed)(uint32_t index, const struct error *error, void *arg);
};

struct copy_source *copy_source_new(uv_loop_t *loop, struct conn *conn, const char *command,
                                    const char *name, struct path_registry *registry,
                                    const struct copy_source_handlers *handlers, void *arg);
void copy_source_free(struct copy_source *source);

void copy_source_ask_closure(struct copy_source *source, const char *top);
void copy_source_ask_nar(struct copy_source *source, uint32_t index);
/* Stops and restarts reading, for back-pressure. */
void copy_source_pause(struct copy_source *source, bool paused);
/* Ends the process, dropping all NARs in flight; closures asked for are asked again. */
void copy_source_restart(struct copy_source *source);
/* Ends the process if nothing is in flight. */
void copy_source_rest(struct copy_source *source);
bool copy_source_is_running(const struct copy_source *source);
/* Milliseconds (uv_now) of the last byte or request; for the idle and the stall clock. */
uint64_t copy_source_active_ms(const struct copy_source *source);
/* True while an answer is due and reading is not paused. */
bool copy_source_is_waiting(const struct copy_source *source);
/* Fails everything in flight with a time-out; the process is ended. */
void copy_source_stalled(struct copy_source *source, uint64_t after_ms);

#endif
