/* One HTTP exchange on the loop: libcurl's multi interface driven by libuv.
 *
 * All exchanges of a loop share one multi handle (http_engine.c, counted by reference, private to
 * the loop's thread). Nothing is reused between exchanges: a probe wants to know whether a new
 * client gets an answer. Redirections aren't followed, the proxy environment and ~/.netrc aren't
 * read, and no more of a body is kept than `body_max`.
 *
 * With `conn` the exchange goes through a tunnel of that connection (http_tunnel.c): TLS and
 * everything else is the same, and the far side resolves the name.
 *
 * There is no deadline in here; the asker cancels.
 */
#ifndef FLEET_HEALTHCHECK_HTTP_H
#define FLEET_HEALTHCHECK_HTTP_H

#include <curl/curl.h>
#include <uv.h>

#include "core/base/buf.h"
#include "transport/conn.h"

struct http;

struct http_question {
    const char *url;
    const char *method;         /* NULL: GET */
    const char *const *headers; /* "Name: value" */
    size_t header_count;
    bool tls_verify;
    bool want_expiry; /* ask for the certificates' dates */
    size_t body_max;
};

struct http_answer {
    /* NULL: an answer came. Else the reason why none did, for a person; not cleaned. */
    const char *failure;
    long status;
    const struct buf *body; /* the first `body_max` bytes */
    uint64_t duration_ms;
    /* Seconds since 1970 when the first of the server's certificates expires; 0: there was none. */
    int64_t expires;
};

/* Exactly once, never before http_ask has returned, unless http_cancel comes first. The answer is
 * valid during the call; the exchange is freed after it. */
typedef void (*http_done)(const struct http_answer *answer, void *arg);

/* Everything in `question` is copied. NULL with *ret_failure (static) for a URL that can't be read. */
struct http *http_ask(uv_loop_t *loop, struct conn *conn, const struct http_question *question,
                      http_done done, void *arg, const char **ret_failure);
void http_cancel(struct http *http);

/* --- Between the files of this module --- */

struct http_tunnel;
struct http_engine;
struct http_engine *http_engine_ref(uv_loop_t *loop);
void http_engine_unref(struct http_engine *engine);
/* Starts the transfer; http_finished(its CURLOPT_PRIVATE, ...) follows when it is over. */
void http_engine_add(struct http_engine *engine, CURL *easy);
void http_engine_remove(struct http_engine *engine, CURL *easy);
void http_finished(struct http *http, CURLcode code);

/* Pumps bytes between a stream of `conn` and the one connection that is made to an abstract Unix
 * socket. NULL where no socket can be made. */
struct http_tunnel *http_tunnel_new(uv_loop_t *loop, struct conn *conn, const char *host,
                                    uint16_t port);
/* The socket's name, without the leading NUL. */
const char *http_tunnel_name(const struct http_tunnel *tunnel);
/* Why the far side could not connect, or NULL. */
const char *http_tunnel_failure(const struct http_tunnel *tunnel);
void http_tunnel_close(struct http_tunnel *tunnel);

#endif
