/* A build host: the derivation and what it needs are copied there natively, nix-store builds it
 * there with its log streamed, and the output stays: targets fetch it from the build host's own
 * serve connection.
 *
 * One connection a build host, kept until every job is done. Each job takes two channels of it (the
 * copy's, which holds the derivation against garbage collection until the build is over, and the
 * build's), and sshd grants ten.
 */
#include <assert.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/build_internal.h"

#define JOBS_MAX    4
#define READY_MS    30000
#define EXCERPT_MAX 820
#define SERVE_LOCAL "nix-store --serve"
#define SERVE_WRITE "nix-store --serve --write"
#define LOCAL_NAME  "the local store"
#define OUTPUT_MAX  4096

struct build_place {
    struct build_place *next;
    struct build *build;
    const struct inv_host *host;
    const struct conn_spec *spec;
    struct elevation elevation;
    struct conn *conn; /* NULL: not opened, or given up */
    bool ready;
    size_t running;
};

/* A job's work on its build host. */
struct build_remote {
    struct build_job *job;
    bool waiting; /* for the connection */
    struct copy_job *copy;
    struct stream *stream;
    uv_timer_t limit_timer;
    uint64_t began_ms; /* of the build itself */
    struct buf out;
    struct build_lines lines;
};

/* --- The end of a job there --- */

static void on_limit_timer_closed(uv_handle_t *handle) {
    struct build_remote *remote = container_of(handle, struct build_remote, limit_timer);
    struct build *build = handle->data;
    buf_free(&remote->out);
    auto_free(&remote);
    build_closed(build);
}

void build_place_cancel(struct build_job *job) {
    struct build_remote *remote = job->remote;
    job->remote = NULL;
    job->place->running--;
    if (remote->stream != NULL) {
        stream_close(remote->stream);
    }
    if (remote->copy != NULL) {
        copy_close(remote->copy);
    }
    uv_close((uv_handle_t *)&remote->limit_timer, on_limit_timer_closed);
}

static void fail(struct build_job *job, const struct error *error) {
    struct error mine = *error;
    error_wrap(&mine, "build host %s", job->place->spec->name);
    build_place_cancel(job);
    build_job_failed(job, &mine);
}

/* The build host itself is gone or was never there: another may do it. To the run this is a build that
 * failed, but where a target builds for itself it is that host's own end. */
static void fail_place(struct build_job *job, const struct error *error) {
    struct error mine = *error;
    if (job->place->host != job->host) {
        mine.code = FLEET_ERR_BUILD;
        snprintf(mine.reason, sizeof(mine.reason), "build-host");
    }
    struct error said = mine;
    error_wrap(&said, "build host %s", job->place->spec->name);
    if (!build_job_elsewhere(job, &said)) {
        fail(job, &mine);
    }
}

static void fail_text(struct build_job *job, const char *reason, const char *text) {
    struct error error = ERROR_INIT;
    error_set(&error, FLEET_ERR_BUILD, reason, "%s", text);
    fail(job, &error);
}

/* --- The build --- */

static void on_line(const char *line, size_t len, void *arg) {
    const struct build_remote *remote = arg;
    build_job_line(remote->job, line, len);
}

static struct build_limit limit_of(const struct build *build) {
    return (struct build_limit){.silence_ms = build->options.silence_ms,
                                .total_ms = build->options.build_ms};
}

static void on_limit(uv_timer_t *timer) {
    struct build_remote *remote = container_of(timer, struct build_remote, limit_timer);
    struct build_limit limit = limit_of(remote->job->build);
    struct error error = ERROR_INIT;
    build_limit_error(&limit, remote->began_ms, timer, &error);
    fail(remote->job, &error);
}

static void on_data(int fd, const char *data, size_t len, void *arg) {
    struct build_remote *remote = arg;
    struct build_limit limit = limit_of(remote->job->build);
    build_limit_arm(&limit, remote->began_ms, &remote->limit_timer, on_limit);
    if (fd == 2) {
        build_lines_add(&remote->lines, data, len, on_line, remote);
    } else if (remote->out.len < OUTPUT_MAX) {
        buf_add(&remote->out, data, len);
    }
}

static void fail_build(struct build_job *job, const struct stream_end *end) {
    struct buf words = BUF_INIT;
    build_log_excerpt(&job->log, EXCERPT_MAX, &words);
    if (words.len == 0 && end->error.message[0] != '\0') {
        buf_add_text(&words, end->error.message);
    } else if (words.len == 0) {
        buf_printf(&words, "exit status %d and not a word", end->status);
    }
    if (job->log.file != NULL) {
        buf_printf(&words, "\nthe whole log: %s", job->log.path);
    }
    struct error error = ERROR_INIT;
    error_set(&error, FLEET_ERR_BUILD, "build-failed", "the build failed: %s", buf_text(&words));
    buf_free(&words);
    fail(job, &error);
}

static void on_end(const struct stream_end *end, void *arg) {
    struct build_remote *remote = arg;
    struct build_job *job = remote->job;
    struct build_place *place = job->place;
    remote->stream = NULL;
    build_lines_end(&remote->lines, on_line, remote);
    if (end->lost) {
        fail_place(job, &end->error);
        return;
    }
    if (end->status != 0) {
        fail_build(job, end);
        return;
    }
    char line[OUTPUT_MAX];
    snprintf(line, sizeof(line), "%.*s", (int)strcspn(buf_text(&remote->out), "\r\n"),
             buf_text(&remote->out));
    if (!store_path_is_valid(line)) {
        fail_text(job, "build-failed", "the build ended well and named no output");
        return;
    }
    build_place_cancel(job);
    bool is_target = place->host == job->host;
    build_job_built(job, &(struct build_result){
                             .path = line,
                             .drv = strcmp(line, job->wanted) == 0 ? "" : job->wanted,
                             .source = is_target ? BUILD_SOURCE_TARGET : BUILD_SOURCE_REMOTE,
                             .remote = is_target ? NULL : place->spec,
                             .remote_command = SERVE_LOCAL,
                         });
}

static void realise(struct build_remote *remote) {
    static const struct stream_handlers handlers = {.on_data = on_data, .on_end = on_end};
    struct build_job *job = remote->job;
    char *name = xasprintf("build-%s", job->host->name);
    char *script = build_realise_script(&job->host->system, job->wanted, name);
    remote->stream = elevate_exec(job->build->loop, job->place->conn, &job->place->elevation,
                                  "/bin/sh -s", READY_MS, &handlers, remote);
    stream_write(remote->stream, script, strlen(script));
    stream_eof(remote->stream);
    struct build_limit limit = limit_of(job->build);
    remote->began_ms = uv_now(job->build->loop);
    build_limit_arm(&limit, remote->began_ms, &remote->limit_timer, on_limit);
    auto_free(&script);
    auto_free(&name);
}

/* --- The copy --- */

static void on_copy_progress(const struct copy_progress *progress, void *arg) {
    (void)progress;
    (void)arg; /* a derivation is small; its build is what one waits for */
}

static void on_copied(const struct copy_progress *progress, void *arg) {
    (void)progress;
    realise(arg);
}

static void on_copy_failed(const struct error *error, void *arg) {
    struct build_remote *remote = arg;
    if (error->code == FLEET_ERR_LOST || error->code == FLEET_ERR_UNREACHABLE) {
        fail_place(remote->job, error);
    } else {
        fail(remote->job, error);
    }
}

static void on_copy_log(const char *line, size_t len, void *arg) {
    on_line(line, len, arg);
}

static void on_local_lost(const struct error *error, void *arg) {
    (void)error;
    (void)arg; /* the copier's jobs say it, each to its own */
}

static void on_conn_closed(void *arg) {
    build_closed(arg);
}

static bool is_derivation(const char *path) {
    size_t len = strlen(path);
    return len > 4 && strcmp(path + len - 4, ".drv") == 0;
}

/* What the job waits for may have come. */
static void proceed(struct build_job *job) {
    static const struct copy_handlers handlers = {.on_progress = on_copy_progress,
                                                  .on_done = on_copied,
                                                  .on_failed = on_copy_failed,
                                                  .on_log = on_copy_log};
    struct build_remote *remote = job->remote;
    struct build *build = job->build;
    struct build_place *place = job->place;
    if (!place->ready) {
        return;
    }
    if (!is_derivation(job->wanted)) {
        remote->waiting = false;
        realise(remote);
        return;
    }
    if (build->copier == NULL) {
        return;
    }
    remote->waiting = false;
    struct copy_options options = {.command = SERVE_WRITE, .elevation = place->elevation};
    remote->copy = copy_start(build->copier, place->conn, job->wanted, &options, &handlers, remote);
}

/* --- The connection --- */

static void for_each_waiting(struct build *build, const struct build_place *place,
                             void (*call)(struct build_job *job)) {
    for (size_t i = 0; i < build->count; i++) {
        struct build_job *job = &build->jobs[i];
        if (job->remote != NULL && job->remote->waiting && (place == NULL || job->place == place)) {
            call(job);
        }
    }
}

static void on_local_ready(const char *address, void *arg) {
    struct build *build = arg;
    (void)address;
    build->copier = copier_new(build->loop, build->local, SERVE_LOCAL, LOCAL_NAME);
    copier_read_files(build->copier, "");
    for_each_waiting(build, NULL, proceed);
}

static void open_local(struct build *build) {
    static const struct conn_spec spec = {.name = LOCAL_NAME, .local = true};
    static const struct conn_handlers handlers = {
        .on_ready = on_local_ready, .on_lost = on_local_lost, .on_closed = on_conn_closed};
    build->open++;
    build->local = transport_open(build->options.transport, &spec, &handlers, build);
}

static void on_ready(const char *address, void *arg) {
    struct build_place *place = arg;
    (void)address;
    place->ready = true;
    for_each_waiting(place->build, place, proceed);
}

static void on_lost(const struct error *error, void *arg) {
    struct build_place *place = arg;
    struct build *build = place->build;
    /* A later job tries once more with a new connection. */
    struct conn *conn = place->conn;
    place->conn = NULL;
    place->ready = false;
    for (size_t i = 0; i < build->count; i++) {
        struct build_job *job = &build->jobs[i];
        if (job->remote != NULL && job->place == place) {
            fail_place(job, error);
        }
    }
    conn_close(conn);
}

static void on_person(const char *text, void *arg) {
    const struct build_place *place = arg;
    const struct build *build = place->build;
    if (build->handlers.on_person != NULL) {
        AUTO_FREE char *words = xasprintf("build host %s: %s", place->spec->name, text);
        build->handlers.on_person(words, build->arg);
    }
}

static void on_closed(void *arg) {
    const struct build_place *place = arg;
    build_closed(place->build);
}

static void open_place(struct build_place *place) {
    static const struct conn_handlers handlers = {
        .on_ready = on_ready, .on_lost = on_lost, .on_closed = on_closed, .on_person = on_person};
    place->build->open++;
    place->conn = transport_open(place->build->options.transport, place->spec, &handlers, place);
}

/* A password that can't be had was told as the command began (spec_build_elevations). */
static struct elevation elevation_of(const struct build *build, const struct inv_host *host) {
    struct elevation how = {.how = host->sudo ? ELEVATE_SUDO : ELEVATE_NONE};
    struct error error = ERROR_INIT;
    if (build->options.elevation != NULL) {
        build->options.elevation(host, &how, &error, build->options.spec_arg);
    }
    return how;
}

struct build_place *build_place_get(struct build *build, const struct inv_host *host) {
    for (struct build_place *place = build->places; place != NULL; place = place->next) {
        if (place->host == host) {
            return place;
        }
    }
    struct build_place *place = xcalloc(1, sizeof(*place));
    place->build = build;
    place->host = host;
    place->spec = build->options.spec(host, build->options.spec_arg);
    place->elevation = elevation_of(build, host);
    place->next = build->places;
    build->places = place;
    return place;
}

const char *build_place_name(const struct build_place *place) {
    return place->host->name;
}

bool build_place_has_room(const struct build_place *place) {
    return place->running < JOBS_MAX;
}

void build_place_start(struct build_job *job) {
    struct build *build = job->build;
    struct build_remote *remote = xcalloc(1, sizeof(*remote));
    remote->job = job;
    remote->waiting = true;
    uv_timer_init(build->loop, &remote->limit_timer);
    remote->limit_timer.data = build;
    build->open++;
    job->remote = remote;
    job->place->running++;
    if (job->place->conn == NULL) {
        open_place(job->place);
    }
    if (build->local == NULL && is_derivation(job->wanted)) {
        open_local(build);
    }
    proceed(job);
}

void build_places_close(struct build *build) {
    for (struct build_place *place = build->places; place != NULL; place = place->next) {
        assert(place->running == 0);
        if (place->conn != NULL) {
            struct conn *conn = place->conn;
            place->conn = NULL;
            place->ready = false;
            conn_close(conn);
        }
    }
    if (build->copier != NULL) {
        copier_free(build->copier);
        build->copier = NULL;
    }
    if (build->local != NULL) {
        conn_close(build->local);
        build->local = NULL;
    }
}

void build_places_free(struct build *build) {
    while (build->places != NULL) {
        struct build_place *place = build->places;
        build->places = place->next;
        auto_free(&place);
    }
}
