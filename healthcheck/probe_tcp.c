/* TCP: a connection can be made. From here by a plain socket, each address of a name in turn; from
 * the target through a tunnel of its connection.
 *
 * The try (struct dial) outlives the probe's interest in it until its look-up and its socket are
 * done with.
 */
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "healthcheck/probe.h"

struct dial {
    struct probe *probe; /* NULL: given up */
    char *host;
    uint64_t began_ns;
    /* From here. */
    uv_getaddrinfo_t lookup;
    bool looking;
    struct addrinfo *addresses;
    struct addrinfo *next;
    uv_tcp_t socket;
    bool has_socket;
    uv_connect_t connect;
    /* From the target. */
    struct stream *stream;
};

static void dial_free(struct dial *dial) {
    if (dial->addresses != NULL) {
        uv_freeaddrinfo(dial->addresses);
    }
    auto_free(&dial->host);
    auto_free(&dial);
}

static void on_socket_closed(uv_handle_t *handle) {
    dial_free(handle->data);
}

/* Lets go of everything; the memory follows when the loop has. */
static void dial_close(struct dial *dial) {
    dial->probe = NULL;
    if (dial->stream != NULL) {
        stream_close(dial->stream);
        dial->stream = NULL;
    }
    if (dial->looking) {
        uv_cancel((uv_req_t *)&dial->lookup); /* on_lookup frees it, cancelled or not */
    } else if (dial->has_socket) {
        if (!uv_is_closing((uv_handle_t *)&dial->socket)) {
            uv_close((uv_handle_t *)&dial->socket, on_socket_closed);
        }
    } else {
        dial_free(dial);
    }
}

static void conclude(struct dial *dial, const char *failure) {
    struct probe *probe = dial->probe;
    unsigned long long took = (uv_hrtime() - dial->began_ns) / 1000000;
    dial->probe = NULL;
    dial_close(dial);
    if (failure == NULL) {
        probe_done(probe, GATE_PASS, "connected in %llu ms", took);
    } else {
        probe_done(probe, GATE_FAIL, "%s", failure);
    }
}

static void try_next(struct dial *dial);

static void on_retry_closed(uv_handle_t *handle) {
    struct dial *dial = handle->data;
    dial->has_socket = false;
    if (dial->probe == NULL) {
        dial_free(dial);
    } else {
        try_next(dial);
    }
}

static void on_connect(uv_connect_t *connect, int status) {
    struct dial *dial = container_of(connect, struct dial, connect);
    if (dial->probe == NULL) {
        return;
    }
    if (status == 0) {
        conclude(dial, NULL);
    } else if (dial->next != NULL) {
        uv_close((uv_handle_t *)&dial->socket, on_retry_closed);
    } else {
        conclude(dial, uv_strerror(status));
    }
}

static void try_next(struct dial *dial) {
    const struct addrinfo *address = dial->next;
    dial->next = dial->next->ai_next;
    uv_tcp_init(dial->probe->env->loop, &dial->socket);
    dial->socket.data = dial;
    dial->has_socket = true;
    int err = uv_tcp_connect(&dial->connect, &dial->socket, address->ai_addr, on_connect);
    if (err == 0) {
        return;
    }
    if (dial->next != NULL) {
        uv_close((uv_handle_t *)&dial->socket, on_retry_closed);
    } else {
        conclude(dial, uv_strerror(err));
    }
}

static void on_lookup(uv_getaddrinfo_t *lookup, int status, struct addrinfo *addresses) {
    struct dial *dial = container_of(lookup, struct dial, lookup);
    dial->looking = false;
    dial->addresses = addresses;
    dial->next = addresses;
    if (dial->probe == NULL) {
        dial_free(dial);
    } else if (status != 0 || addresses == NULL) {
        char *why = xasprintf("cannot resolve %s: %s", dial->host,
                              status != 0 ? uv_strerror(status) : "no address");
        conclude(dial, why);
        auto_free(&why);
    } else {
        try_next(dial);
    }
}

static void dial_from_here(struct dial *dial) {
    char port[8];
    snprintf(port, sizeof(port), "%u", dial->probe->entry->port);
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    int err =
        uv_getaddrinfo(dial->probe->env->loop, &dial->lookup, on_lookup, dial->host, port, &hints);
    if (err != 0) {
        char *why = xasprintf("cannot resolve %s: %s", dial->host, uv_strerror(err));
        conclude(dial, why);
        auto_free(&why);
        return;
    }
    dial->looking = true;
}

static void on_open(void *arg) {
    conclude(arg, NULL);
}

static void on_data(int fd, const char *data, size_t len, void *arg) {
    (void)fd;
    (void)data;
    (void)len;
    conclude(arg, NULL);
}

static void on_end(const struct stream_end *end, void *arg) {
    struct dial *dial = arg;
    dial->stream = NULL;
    conclude(dial, end->lost ? end->error.message : NULL);
}

static void dial_from_target(struct dial *dial) {
    static const struct stream_handlers handlers = {
        .on_open = on_open, .on_data = on_data, .on_end = on_end};
    dial->stream =
        conn_tunnel(dial->probe->env->conn, dial->host, dial->probe->entry->port, &handlers, dial);
    /* What serves then says or ends something also where the carrier doesn't call on_open. */
    stream_eof(dial->stream);
}

static void start(struct probe *probe) {
    const struct inv_health *entry = probe->entry;
    if (entry->from_target && probe->env->conn == NULL) {
        probe_done(probe, GATE_FAIL, "no connection to the host");
        return;
    }
    struct dial *dial = xcalloc(1, sizeof(*dial));
    dial->probe = probe;
    dial->began_ns = uv_hrtime();
    if (entry->host == NULL) {
        dial->host = xstrdup(probe->address);
    } else {
        dial->host = inv_expand(entry->host, probe->host, probe->address);
        /* ${address} brackets IPv6, as a URL wants it; a look-up doesn't. */
        size_t len = strlen(dial->host);
        if (len > 2 && dial->host[0] == '[' && dial->host[len - 1] == ']') {
            memmove(dial->host, dial->host + 1, len - 2);
            dial->host[len - 2] = '\0';
        }
    }
    probe->attempt = dial;
    if (entry->from_target) {
        dial_from_target(dial);
    } else {
        dial_from_here(dial);
    }
}

static void cancel(struct probe *probe) {
    dial_close(probe->attempt);
}

static int validate(const struct inv_health *entry, struct error *error) {
    if (entry->port == 0) {
        return error_set(error, FLEET_ERR_USAGE, "bad-health", "health \"%s\": `port` is missing",
                         entry->name);
    }
    return 0;
}

const struct probe_type probe_tcp = {
    .name = "tcp",
    .start = start,
    .cancel = cancel,
    .validate = validate,
};
