/* One serve process of the source store (see copy_source.h).
 *
 * Requests in flight are a queue; what comes in belongs to its head. NAR bytes are handed on out
 * of the carrier's buffer without a copy, everything else is gathered in a serve_reader.
 *
 * A path that is wrong in size or hash leaves the stream in step (the NAR's end is found by its
 * structure), so only that path is lost. One whose structure is wrong takes the process with it.
 */
#include "transport/copy_source.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "transport/elevate.h"
#include "transport/nar.h"
#include "transport/serve.h"

#define START_TIMEOUT_MS 30000u
#define WORDS_MAX        4096u

enum request_kind {
    REQUEST_CLOSURE,
    REQUEST_INFOS,
    REQUEST_NAR
};

struct request {
    struct request *next;
    enum request_kind kind;
    uint32_t index; /* NAR */
    char *top;      /* CLOSURE and INFOS */
    bool counted;   /* CLOSURE: the reply's length is known */
    uint64_t left;  /* paths still to come */
    char **paths;   /* the closure as listed */
    size_t path_count;
    bool begun;     /* NAR: bytes have come */
    bool discarded; /* NAR: found wrong, the rest is only skipped */
};

struct copy_source {
    uv_loop_t *loop;
    struct conn *conn;
    char *command;
    char *name;
    struct path_registry *registry;
    struct copy_source_handlers handlers;
    void *arg;
    struct stream *stream; /* NULL while no process runs */
    bool greeted;
    bool paused;
    uint64_t active_ms;
    struct serve_reader reader;
    struct nar_reader *nar;
    struct request *first;
    struct request **last;
    struct buf words; /* the end of its stderr */
};

struct copy_source *copy_source_new(uv_loop_t *loop, struct conn *conn, const char *command,
                                    const char *name, struct path_registry *registry,
                                    const struct copy_source_handlers *handlers, void *arg) {
    struct copy_source *source = xcalloc(1, sizeof(*source));
    source->loop = loop;
    source->conn = conn;
    source->command = xstrdup(command);
    source->name = xstrdup(name);
    source->registry = registry;
    source->handlers = *handlers;
    source->arg = arg;
    source->nar = nar_reader_new();
    source->last = &source->first;
    return source;
}

static void request_free(struct request *request) {
    for (size_t i = 0; i < request->path_count; i++) {
        free(request->paths[i]);
    }
    free(request->paths);
    free(request->top);
    free(request);
}

static struct request *request_add(struct copy_source *source, enum request_kind kind) {
    struct request *request = xcalloc(1, sizeof(*request));
    request->kind = kind;
    *source->last = request;
    source->last = &request->next;
    source->active_ms = uv_now(source->loop);
    return request;
}

/* Takes the head off the queue. */
static struct request *request_pop(struct copy_source *source) {
    struct request *request = source->first;
    source->first = request->next;
    if (source->first == NULL) {
        source->last = &source->first;
    }
    return request;
}

static void end_process(struct copy_source *source) {
    if (source->stream != NULL) {
        stream_close(source->stream);
        source->stream = NULL;
    }
    serve_reader_free(&source->reader);
    nar_reader_reset(source->nar);
    source->greeted = false;
    source->paused = false;
    buf_clear(&source->words);
}

void copy_source_free(struct copy_source *source) {
    if (source == NULL) {
        return;
    }
    end_process(source);
    while (source->first != NULL) {
        request_free(request_pop(source));
    }
    nar_reader_free(source->nar);
    buf_free(&source->words);
    free(source->command);
    free(source->name);
    free(source);
}

/* Every request in flight is lost. Closures are told one by one, NARs all at once. */
static void fail_all(struct copy_source *source, struct error *error) {
    error_wrap(error, "%s", source->name);
    uint32_t index = PATH_UNKNOWN;
    if (source->first != NULL && source->first->kind == REQUEST_NAR && source->first->begun) {
        index = source->first->index;
    }
    end_process(source);
    struct request *list = source->first;
    source->first = NULL;
    source->last = &source->first;
    bool nars = false;
    while (list != NULL) {
        struct request *request = list;
        list = request->next;
        if (request->kind == REQUEST_NAR) {
            nars = true;
        } else {
            source->handlers.on_closure(request->top, error, source->arg);
        }
        request_free(request);
    }
    if (nars) {
        source->handlers.on_failed(index, error, source->arg);
    }
}

static int take_closure(struct copy_source *source, struct request *request, struct error *error) {
    int got;
    if (!request->counted) {
        got = serve_take_count(&source->reader, SERVE_LIST_MAX, &request->left, error);
        if (got != 1) {
            return got;
        }
        request->counted = true;
    }
    while (request->left > 0) {
        char *path;
        got = serve_take_path(&source->reader, &path, error);
        if (got != 1) {
            return got;
        }
        if ((request->path_count & (request->path_count + 1)) == 0) {
            request->paths =
                xrealloc(request->paths, (2 * request->path_count + 2) * sizeof(request->paths[0]));
        }
        request->paths[request->path_count++] = path;
        request->left--;
    }
    return 1;
}

/* The list is known: asks for the infos of what is new in it. */
static void ask_infos(struct copy_source *source, struct request *listed) {
    struct request *request = request_add(source, REQUEST_INFOS);
    request->top = listed->top;
    request->paths = listed->paths;
    request->path_count = listed->path_count;
    listed->top = NULL;
    listed->paths = NULL;
    listed->path_count = 0;

    struct buf names = BUF_INIT;
    size_t count = 0;
    for (size_t i = 0; i < request->path_count; i++) {
        if (path_registry_find(source->registry, request->paths[i]) == PATH_UNKNOWN) {
            serve_put_text(&names, request->paths[i]);
            count++;
        }
    }
    struct buf out = BUF_INIT;
    serve_put_query_infos(&out, count);
    buf_add(&out, buf_text(&names), names.len);
    stream_write(source->stream, out.data, out.len);
    buf_free(&names);
    buf_free(&out);
}

static int take_infos(struct copy_source *source, struct request *request, struct error *error) {
    for (;;) {
        struct path_info *info;
        int got = serve_take_info(&source->reader, &info, error);
        if (got != 1) {
            return got;
        }
        if (info == NULL) {
            return 1;
        }
        if (++request->left > request->path_count) {
            free(info);
            return error_set(error, FLEET_ERR_PROTOCOL, "copy-failed",
                             "nix-store sent infos of more paths than it was asked for");
        }
        path_registry_add(source->registry, info);
    }
}

static void closure_complete(struct copy_source *source, struct request *request) {
    const struct closure *closure;
    struct error error = ERROR_INIT;
    int err = 0;
    if (path_registry_closure(source->registry, request->top) == NULL) {
        err = path_registry_make(source->registry, request->top, request->paths,
                                 request->path_count, &closure, &error);
    }
    if (err != 0) {
        error_wrap(&error, "%s", source->name);
    }
    source->handlers.on_closure(request->top, err != 0 ? &error : NULL, source->arg);
}

static void bad_path(struct copy_source *source, struct request *request,
                     const struct error *error) {
    request->discarded = true;
    source->handlers.on_bad_path(request->index, error, source->arg);
}

/* Compares with what the store says of itself; a path that differs is not handed on to its end. */
static void check_nar(struct copy_source *source, struct request *request, int state) {
    const struct path_info *info = path_registry_info(source->registry, request->index);
    uint64_t size = nar_size(source->nar);
    struct error error = ERROR_INIT;
    if (size > info->nar_size || (state == NAR_END && size != info->nar_size)) {
        error_set(&error, FLEET_ERR_PROTOCOL, "source-corrupt",
                  "%s: %s is damaged: its archive has %llu bytes%s where %llu were registered. "
                  "Repair it there: nix-store --repair-path %s",
                  source->name, info->path, (unsigned long long)size,
                  state == NAR_END ? "" : " or more", (unsigned long long)info->nar_size,
                  info->path);
        bad_path(source, request, &error);
        return;
    }
    char hash[65];
    if (state != NAR_END) {
        return;
    }
    nar_hash(source->nar, hash);
    if (strcmp(hash, info->nar_hash) != 0) {
        error_set(&error, FLEET_ERR_PROTOCOL, "source-corrupt",
                  "%s: %s is damaged: its SHA-256 is %s where %s was registered. Repair it there: "
                  "nix-store --repair-path %s",
                  source->name, info->path, hash, info->nar_hash, info->path);
        bad_path(source, request, &error);
    }
}

/* Reads NAR bytes; returns how many were used, or a negative error. */
static int take_nar(struct copy_source *source, struct request *request, const char *data,
                    size_t len, size_t *ret_used, struct error *error) {
    request->begun = true;
    int state = nar_read(source->nar, data, len, ret_used, error);
    if (state < 0) {
        struct error why = *error;
        const struct path_info *info = path_registry_info(source->registry, request->index);
        return error_set(error, FLEET_ERR_PROTOCOL, "source-corrupt",
                         "%s can't be read from the store: %.600s", info->path, why.message);
    }
    if (!request->discarded) {
        check_nar(source, request, state);
    }
    if (!request->discarded) {
        source->handlers.on_nar(request->index, data, *ret_used, state == NAR_END, source->arg);
    }
    if (state == NAR_END) {
        nar_reader_reset(source->nar);
    }
    return state;
}

/* Works on what is gathered; returns 1 when it should be called again. */
static int take_gathered(struct copy_source *source, struct error *error) {
    if (!source->greeted) {
        uint32_t version;
        int got = serve_take_hello(&source->reader, &version, error);
        source->greeted = got == 1;
        return got;
    }
    size_t len;
    const char *rest = serve_reader_rest(&source->reader, &len);
    struct request *request = source->first;
    if (request == NULL) {
        return len == 0 ? 0
                        : error_set(error, FLEET_ERR_PROTOCOL, "copy-failed",
                                    "nix-store sent %zu bytes that nobody asked for", len);
    }
    int got = 0;
    if (request->kind == REQUEST_NAR) {
        size_t used = 0;
        int state = len > 0 ? take_nar(source, request, rest, len, &used, error) : NAR_MORE;
        if (state < 0) {
            return state;
        }
        serve_reader_skip(&source->reader, used);
        got = state == NAR_END ? 1 : 0;
    } else if (request->kind == REQUEST_CLOSURE) {
        got = take_closure(source, request, error);
        if (got == 1) {
            ask_infos(source, request);
        }
    } else {
        got = take_infos(source, request, error);
    }
    if (got != 1) {
        return got;
    }
    /* Out of the queue before anyone is told: what they do next may look at the queue. */
    request_pop(source);
    if (request->kind == REQUEST_INFOS) {
        closure_complete(source, request);
    }
    request_free(request);
    return 1;
}

/* The fast way: the head is a NAR and nothing is gathered, so its bytes need no copy. Returns how
 * many bytes were used, or a negative error. */
static int take_direct(struct copy_source *source, const char *data, size_t len, size_t *ret_used,
                       struct error *error) {
    size_t gathered;
    serve_reader_rest(&source->reader, &gathered);
    *ret_used = 0;
    while (source->stream != NULL && source->greeted && gathered == 0 && *ret_used < len &&
           source->first != NULL && source->first->kind == REQUEST_NAR) {
        struct request *request = source->first;
        size_t used = 0;
        int state = take_nar(source, request, data + *ret_used, len - *ret_used, &used, error);
        if (state < 0) {
            return state;
        }
        *ret_used += used;
        if (state == NAR_END) {
            request_pop(source);
            request_free(request);
        }
    }
    return 0;
}

static void on_stdout(struct copy_source *source, const char *data, size_t len) {
    struct error error = ERROR_INIT;
    size_t used = 0;
    int err = take_direct(source, data, len, &used, &error);
    if (err == 0 && used < len && source->stream != NULL) {
        serve_reader_feed(&source->reader, data + used, len - used);
        do {
            err = take_gathered(source, &error);
        } while (err == 1 && source->stream != NULL);
    }
    if (err < 0) {
        fail_all(source, &error);
    }
    source->handlers.on_batch(source->arg);
}

static void on_data(int fd, const char *data, size_t len, void *arg) {
    struct copy_source *source = arg;
    source->active_ms = uv_now(source->loop);
    if (fd != 2) {
        on_stdout(source, data, len);
        return;
    }
    buf_add(&source->words, data, len);
    if (source->words.len > WORDS_MAX) {
        buf_consume(&source->words, source->words.len - WORDS_MAX);
    }
}

/* What the process said last, from the last "error:" on where there is one. */
static char *last_words(const struct copy_source *source) {
    const char *text = buf_text(&source->words);
    size_t len = source->words.len;
    for (size_t i = len; i-- > 0;) {
        if (strncmp(text + i, "error:", 6) == 0) {
            text += i;
            len -= i;
            break;
        }
    }
    return text_cleaned(text, len);
}

static void on_end(const struct stream_end *end, void *arg) {
    struct copy_source *source = arg;
    source->stream = NULL;
    struct error error = end->error;
    AUTO_FREE char *words = last_words(source);
    if (end->lost && (error.code == FLEET_OK || error.code == FLEET_ERR_LOST)) {
        error_set(&error, FLEET_ERR_REMOTE, "source-lost", "%s",
                  end->error.code != FLEET_OK ? end->error.message : "the connection broke");
    } else if (error.code != FLEET_OK) {
        /* The elevation's own words. As above never the FLEET_ERR_LOST that asks to connect to the
         * target again, which is not to blame. */
        error.code = FLEET_ERR_REMOTE;
    } else if (end->status == 127) {
        error_set(&error, FLEET_ERR_REMOTE, "no-nix",
                  "\"%s\" was not found (%s). Install Nix there or set nix_bin", source->command,
                  words);
    } else if (source->greeted && source->first != NULL && source->first->kind == REQUEST_NAR) {
        const struct path_info *info = path_registry_info(source->registry, source->first->index);
        source->first->begun = true;
        error_set(&error, FLEET_ERR_REMOTE, "source-corrupt",
                  "reading %s ended with status %d: %s. Try \"nix-store --verify-path %s\" there",
                  info->path, end->status, words, info->path);
    } else {
        error_set(&error, FLEET_ERR_REMOTE, "copy-failed", "\"%s\" ended with status %d: %s",
                  source->command, end->status, words[0] != '\0' ? words : "it said nothing");
    }
    fail_all(source, &error);
    source->handlers.on_batch(source->arg);
}

static const struct stream_handlers source_handlers = {.on_data = on_data, .on_end = on_end};

static void start_process(struct copy_source *source) {
    if (source->stream != NULL) {
        return;
    }
    const struct elevation none = {.how = ELEVATE_NONE};
    source->active_ms = uv_now(source->loop);
    source->stream = elevate_exec(source->loop, source->conn, &none, source->command,
                                  START_TIMEOUT_MS, &source_handlers, source);
    struct buf out = BUF_INIT;
    serve_put_hello(&out);
    stream_write(source->stream, out.data, out.len);
    buf_free(&out);
}

void copy_source_ask_closure(struct copy_source *source, const char *top) {
    start_process(source);
    request_add(source, REQUEST_CLOSURE)->top = xstrdup(top);
    struct buf out = BUF_INIT;
    serve_put_query_closure(&out, top);
    stream_write(source->stream, out.data, out.len);
    buf_free(&out);
}

void copy_source_ask_nar(struct copy_source *source, uint32_t index) {
    start_process(source);
    request_add(source, REQUEST_NAR)->index = index;
    struct buf out = BUF_INIT;
    serve_put_dump(&out, path_registry_info(source->registry, index)->path);
    stream_write(source->stream, out.data, out.len);
    buf_free(&out);
}

void copy_source_pause(struct copy_source *source, bool paused) {
    if (source->stream != NULL && source->paused != paused) {
        source->paused = paused;
        source->active_ms = uv_now(source->loop);
        stream_pause(source->stream, paused);
    }
}

void copy_source_restart(struct copy_source *source) {
    end_process(source);
    struct request *list = source->first;
    source->first = NULL;
    source->last = &source->first;
    while (list != NULL) {
        struct request *request = list;
        list = request->next;
        if (request->kind != REQUEST_NAR) {
            copy_source_ask_closure(source, request->top);
        }
        request_free(request);
    }
}

void copy_source_rest(struct copy_source *source) {
    if (source->first == NULL) {
        end_process(source);
    }
}

bool copy_source_is_running(const struct copy_source *source) {
    return source->stream != NULL;
}

uint64_t copy_source_active_ms(const struct copy_source *source) {
    return source->active_ms;
}

bool copy_source_is_waiting(const struct copy_source *source) {
    return source->first != NULL && !source->paused;
}

void copy_source_stalled(struct copy_source *source, uint64_t after_ms) {
    struct buf spent = BUF_INIT;
    text_add_duration(&spent, after_ms);
    struct error error = ERROR_INIT;
    error_set(&error, FLEET_ERR_REMOTE, "copy-failed",
              "\"%s\" has said nothing for %s and was ended. Look at that machine's load and disk",
              source->command, buf_text(&spent));
    buf_free(&spent);
    fail_all(source, &error);
}
