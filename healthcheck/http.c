#include "healthcheck/http.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "core/base/xalloc.h"

struct http {
    CURL *easy;
    struct http_engine *engine;
    struct http_tunnel *tunnel; /* NULL: from here */
    struct curl_slist *headers;
    struct buf body;
    size_t body_max;
    bool body_full;
    uint64_t began_ns;
    http_done done;
    void *arg;
    char error[CURL_ERROR_SIZE];
};

static size_t on_body(char *data, size_t size, size_t count, void *arg) {
    struct http *http = arg;
    size_t len = size * count;
    size_t room = http->body_max - http->body.len;
    buf_add(&http->body, data, len < room ? len : room);
    if (len > room) {
        http->body_full = true;
        return CURL_WRITEFUNC_ERROR;
    }
    return len;
}

/* Sockets are closed when another process is started. */
static curl_socket_t on_open_socket(void *arg, curlsocktype purpose,
                                    struct curl_sockaddr *address) {
    (void)purpose;
    (void)arg;
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
    return fd < 0 ? CURL_SOCKET_BAD : fd;
}

/* The host and port that the far side is to connect to. */
static struct http_tunnel *tunnel_for(uv_loop_t *loop, struct conn *conn, const char *url) {
    CURLU *parts = curl_url();
    char *host = NULL;
    char *port = NULL;
    struct http_tunnel *tunnel = NULL;
    if (curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK &&
        curl_url_get(parts, CURLUPART_HOST, &host, CURLU_URLDECODE) == CURLUE_OK &&
        curl_url_get(parts, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK) {
        size_t len = strlen(host);
        if (len > 2 && host[0] == '[' && host[len - 1] == ']') {
            memmove(host, host + 1, len - 2);
            host[len - 2] = '\0';
        }
        tunnel = http_tunnel_new(loop, conn, host, (uint16_t)strtoul(port, NULL, 10));
    }
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(parts);
    return tunnel;
}

static bool is_readable_url(const char *url) {
    CURLU *parts = curl_url();
    char *host = NULL;
    bool ok = curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK &&
              curl_url_get(parts, CURLUPART_HOST, &host, 0) == CURLUE_OK;
    curl_free(host);
    curl_url_cleanup(parts);
    return ok;
}

static void set_transfer(struct http *http, const struct http_question *question) {
    CURL *easy = http->easy;
    curl_easy_setopt(easy, CURLOPT_URL, question->url);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, http);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, http->error);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "fleet/" FLEET_VERSION);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, http);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, http->headers);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, question->tls_verify ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, question->tls_verify ? 2L : 0L);
    curl_easy_setopt(easy, CURLOPT_CERTINFO, question->want_expiry ? 1L : 0L);
    /* Without this, cancelling waits for a name look-up that is under way. */
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
    if (question->method != NULL && strcmp(question->method, "HEAD") == 0) {
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    } else if (question->method != NULL && strcmp(question->method, "GET") != 0) {
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, question->method);
    }
    if (http->tunnel != NULL) {
        curl_easy_setopt(easy, CURLOPT_ABSTRACT_UNIX_SOCKET, http_tunnel_name(http->tunnel));
    }
}

struct http *http_ask(uv_loop_t *loop, struct conn *conn, const struct http_question *question,
                      http_done done, void *arg, const char **ret_failure) {
    struct http_engine *engine = http_engine_ref(loop);
    struct http_tunnel *tunnel = NULL;
    if (conn != NULL) {
        tunnel = tunnel_for(loop, conn, question->url);
    }
    if (conn != NULL ? tunnel == NULL : !is_readable_url(question->url)) {
        http_engine_unref(engine);
        *ret_failure = "the URL cannot be read";
        return NULL;
    }
    struct http *http = xcalloc(1, sizeof(*http));
    http->engine = engine;
    http->tunnel = tunnel;
    http->done = done;
    http->arg = arg;
    http->body_max = question->body_max;
    http->began_ns = uv_hrtime();
    for (size_t i = 0; i < question->header_count; i++) {
        http->headers = curl_slist_append(http->headers, question->headers[i]);
    }
    http->easy = curl_easy_init();
    set_transfer(http, question);
    http_engine_add(engine, http->easy);
    return http;
}

static void http_free(struct http *http) {
    http_engine_remove(http->engine, http->easy);
    curl_easy_cleanup(http->easy);
    curl_slist_free_all(http->headers);
    if (http->tunnel != NULL) {
        http_tunnel_close(http->tunnel);
    }
    http_engine_unref(http->engine);
    buf_free(&http->body);
    auto_free(&http);
}

/* The words for a transfer that failed; static or inside `http`. */
static const char *failure_of(const struct http *http, CURLcode code) {
    if (http->tunnel != NULL && http_tunnel_failure(http->tunnel) != NULL) {
        return http_tunnel_failure(http->tunnel);
    }
    if (code == CURLE_COULDNT_CONNECT) {
        long number = 0;
        curl_easy_getinfo(http->easy, CURLINFO_OS_ERRNO, &number);
        if (number != 0) {
            return uv_strerror(-(int)number);
        }
    }
    if (code == CURLE_GOT_NOTHING) {
        return "the server closed the connection without an answer";
    }
    return http->error[0] != '\0' ? http->error : curl_easy_strerror(code);
}

/* The earliest end among the certificates that the server has sent. */
static int64_t first_expiry(CURL *easy) {
    static const char key[] = "Expire date:";
    struct curl_certinfo *info = NULL;
    int64_t first = 0;
    if (curl_easy_getinfo(easy, CURLINFO_CERTINFO, &info) != CURLE_OK || info == NULL) {
        return 0;
    }
    for (int i = 0; i < info->num_of_certs; i++) {
        for (const struct curl_slist *line = info->certinfo[i]; line != NULL; line = line->next) {
            if (strncmp(line->data, key, sizeof(key) - 1) != 0) {
                continue;
            }
            time_t when = curl_getdate(line->data + sizeof(key) - 1, NULL);
            if (when != -1 && (first == 0 || when < first)) {
                first = when;
            }
        }
    }
    return first;
}

void http_finished(struct http *http, CURLcode code) {
    struct http_answer answer = {
        .body = &http->body,
        .duration_ms = (uv_hrtime() - http->began_ns) / 1000000,
    };
    if (code == CURLE_WRITE_ERROR && http->body_full) {
        code = CURLE_OK; /* we had enough of it */
    }
    if (code != CURLE_OK) {
        answer.failure = failure_of(http, code);
    } else {
        curl_easy_getinfo(http->easy, CURLINFO_RESPONSE_CODE, &answer.status);
        answer.expires = first_expiry(http->easy);
    }
    http->done(&answer, http->arg);
    http_free(http);
}

void http_cancel(struct http *http) {
    http_free(http);
}
