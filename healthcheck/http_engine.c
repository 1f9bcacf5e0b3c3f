/* libcurl's sockets and its one timer on a libuv loop
 * (https://curl.se/libcurl/c/curl_multi_socket_action.html).
 *
 * Invariants: one uv_poll_t a socket, stopped before libcurl closes it (CURL_POLL_REMOVE comes
 * first). libcurl is never called from inside its own callbacks. The engine lives as long as
 * exchanges do; the list of engines is the thread's own, so no lock is needed.
 */
#include <assert.h>
#include <pthread.h>

#include "core/base/xalloc.h"
#include "healthcheck/http.h"

struct http_engine {
    struct http_engine *next;
    uv_loop_t *loop;
    CURLM *multi;
    uv_timer_t timer;
    unsigned refs;
};

struct engine_socket {
    uv_poll_t poll;
    struct http_engine *engine;
    curl_socket_t fd;
};

static _Thread_local struct http_engine *engines;

static void global_init(void) {
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* Hands finished transfers on. */
static void collect(struct http_engine *engine) {
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(engine->multi, &left)) != NULL) {
        if (message->msg != CURLMSG_DONE) {
            continue;
        }
        /* The message is gone once the handle is removed. */
        CURLcode code = message->data.result;
        char *owner = NULL;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &owner);
        http_finished((struct http *)(void *)owner, code);
    }
}

static void act(struct http_engine *engine, curl_socket_t fd, int events) {
    engine->refs++; /* a handler may end the last exchange */
    int running;
    curl_multi_socket_action(engine->multi, fd, events, &running);
    collect(engine);
    http_engine_unref(engine);
}

static void on_timer(uv_timer_t *timer) {
    act(container_of(timer, struct http_engine, timer), CURL_SOCKET_TIMEOUT, 0);
}

static void on_poll(uv_poll_t *poll, int status, int events) {
    const struct engine_socket *socket = container_of(poll, struct engine_socket, poll);
    int flags = 0;
    if (status < 0) {
        flags = CURL_CSELECT_IN | CURL_CSELECT_OUT; /* curl asks the socket what is wrong with it */
    }
    if (events & UV_READABLE) {
        flags |= CURL_CSELECT_IN;
    }
    if (events & UV_WRITABLE) {
        flags |= CURL_CSELECT_OUT;
    }
    act(socket->engine, socket->fd, flags);
}

static void on_poll_closed(uv_handle_t *handle) {
    struct engine_socket *socket = container_of(handle, struct engine_socket, poll);
    auto_free(&socket);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *assigned) {
    (void)easy;
    struct http_engine *engine = arg;
    struct engine_socket *socket = assigned;
    if (what == CURL_POLL_REMOVE) {
        if (socket != NULL) {
            uv_poll_stop(&socket->poll);
            uv_close((uv_handle_t *)&socket->poll, on_poll_closed);
            curl_multi_assign(engine->multi, fd, NULL);
        }
        return 0;
    }
    if (socket == NULL) {
        socket = xcalloc(1, sizeof(*socket));
        socket->engine = engine;
        socket->fd = fd;
        if (uv_poll_init_socket(engine->loop, &socket->poll, fd) != 0) {
            auto_free(&socket);
            return -1;
        }
        curl_multi_assign(engine->multi, fd, socket);
    }
    int events = 0;
    if (what & CURL_POLL_IN) {
        events |= UV_READABLE;
    }
    if (what & CURL_POLL_OUT) {
        events |= UV_WRITABLE;
    }
    uv_poll_start(&socket->poll, events, on_poll);
    return 0;
}

static int on_timeout(CURLM *multi, long timeout_ms, void *arg) {
    (void)multi;
    struct http_engine *engine = arg;
    if (timeout_ms < 0) {
        uv_timer_stop(&engine->timer);
    } else {
        uv_timer_start(&engine->timer, on_timer, (uint64_t)timeout_ms, 0);
    }
    return 0;
}

struct http_engine *http_engine_ref(uv_loop_t *loop) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, global_init);
    for (struct http_engine *engine = engines; engine != NULL; engine = engine->next) {
        if (engine->loop == loop) {
            engine->refs++;
            return engine;
        }
    }
    struct http_engine *engine = xcalloc(1, sizeof(*engine));
    engine->loop = loop;
    engine->refs = 1;
    engine->multi = curl_multi_init();
    assert(engine->multi != NULL);
    curl_multi_setopt(engine->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(engine->multi, CURLMOPT_SOCKETDATA, engine);
    curl_multi_setopt(engine->multi, CURLMOPT_TIMERFUNCTION, on_timeout);
    curl_multi_setopt(engine->multi, CURLMOPT_TIMERDATA, engine);
    uv_timer_init(loop, &engine->timer);
    engine->next = engines;
    engines = engine;
    return engine;
}

static void on_engine_closed(uv_handle_t *handle) {
    struct http_engine *engine = container_of(handle, struct http_engine, timer);
    auto_free(&engine);
}

void http_engine_unref(struct http_engine *engine) {
    assert(engine->refs > 0);
    if (--engine->refs > 0) {
        return;
    }
    struct http_engine **link = &engines;
    while (*link != engine) {
        link = &(*link)->next;
    }
    *link = engine->next;
    /* May still close sockets and set the timer. */
    curl_multi_cleanup(engine->multi);
    uv_close((uv_handle_t *)&engine->timer, on_engine_closed);
}

void http_engine_add(struct http_engine *engine, CURL *easy) {
    CURLMcode code = curl_multi_add_handle(engine->multi, easy);
    assert(code == CURLM_OK);
    (void)code;
}

void http_engine_remove(struct http_engine *engine, CURL *easy) {
    curl_multi_remove_handle(engine->multi, easy);
}
