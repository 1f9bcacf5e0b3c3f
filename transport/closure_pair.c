/* Two questions to a target's store (see closure_pair.h).
 *
 * The target is hostile: whatever is no answer ends the channel, and nobody is told. */
#include "transport/closure_pair.h"

#include <stdlib.h>

#include "core/base/xalloc.h"
#include "transport/serve_list.h"

#define DEADLINE_MS 30000u

struct closure_pair {
    struct stream *stream; /* NULL once it has ended */
    uv_timer_t deadline;
    bool closed, greeted;
    struct serve_reader reader;
    struct serve_list lists[2];
    size_t complete; /* of these */
    void (*done)(const struct closure_pair_paths *from, const struct closure_pair_paths *to,
                 void *arg);
    void *arg;
};

static void end_stream(struct closure_pair *pair) {
    uv_timer_stop(&pair->deadline);
    if (pair->stream != NULL) {
        stream_close(pair->stream);
        pair->stream = NULL;
    }
}

static void on_deadline(uv_timer_t *timer) {
    end_stream(timer->data);
}

static void tell(struct closure_pair *pair) {
    end_stream(pair);
    struct closure_pair_paths told[2];
    for (size_t i = 0; i < ARRAY_LEN(told); i++) {
        if (!serve_list_is_whole(&pair->lists[i])) {
            return;
        }
        told[i] = (struct closure_pair_paths){pair->lists[i].paths, pair->lists[i].count};
    }
    pair->done(&told[0], &told[1], pair->arg);
}

/* One item of what has come in; 1 if there may be more. */
static int take(struct closure_pair *pair) {
    struct error error = ERROR_INIT;
    if (!pair->greeted) {
        uint32_t version;
        int got = serve_take_hello(&pair->reader, &version, &error);
        pair->greeted = got == 1;
        return got;
    }
    int got = serve_list_take(&pair->lists[pair->complete], &pair->reader, SERVE_LIST_MAX, &error);
    if (got == 1 && ++pair->complete == ARRAY_LEN(pair->lists)) {
        tell(pair);
        return 0;
    }
    return got;
}

static void on_data(int fd, const char *data, size_t len, void *arg) {
    struct closure_pair *pair = arg;
    if (fd == 2) {
        return;
    }
    serve_reader_feed(&pair->reader, data, len);
    int got;
    do {
        got = take(pair);
    } while (got == 1);
    if (got < 0) {
        end_stream(pair);
    }
}

static void on_end(const struct stream_end *end, void *arg) {
    struct closure_pair *pair = arg;
    (void)end;
    pair->stream = NULL;
    uv_timer_stop(&pair->deadline);
}

struct closure_pair *closure_pair_ask(uv_loop_t *loop, struct conn *conn,
                                      const struct elevation *elevation, const char *command,
                                      const char *from, const char *to,
                                      void (*done)(const struct closure_pair_paths *from,
                                                   const struct closure_pair_paths *to, void *arg),
                                      void *arg) {
    static const struct stream_handlers handlers = {.on_data = on_data, .on_end = on_end};
    struct closure_pair *pair = xcalloc(1, sizeof(*pair));
    pair->done = done;
    pair->arg = arg;
    uv_timer_init(loop, &pair->deadline);
    pair->deadline.data = pair;
    uv_timer_start(&pair->deadline, on_deadline, DEADLINE_MS, 0);
    pair->stream = elevate_exec(loop, conn, elevation, command, DEADLINE_MS, &handlers, pair);
    struct buf out = BUF_INIT;
    serve_put_hello(&out);
    serve_put_query_closure(&out, from);
    serve_put_query_closure(&out, to);
    stream_write(pair->stream, out.data, out.len);
    buf_free(&out);
    return pair;
}

static void on_closed(uv_handle_t *handle) {
    struct closure_pair *pair = handle->data;
    for (size_t i = 0; i < ARRAY_LEN(pair->lists); i++) {
        serve_list_free(&pair->lists[i]);
    }
    serve_reader_free(&pair->reader);
    free(pair);
}

void closure_pair_close(struct closure_pair *pair) {
    if (pair == NULL || pair->closed) {
        return;
    }
    pair->closed = true;
    end_stream(pair);
    uv_close((uv_handle_t *)&pair->deadline, on_closed);
}
