#include "transport/agent.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "transport/ssh_wire.h"

enum {
    REQUEST_IDENTITIES = 11,
    IDENTITIES_ANSWER = 12,
    SIGN_REQUEST = 13,
    SIGN_RESPONSE = 14,
    FLAG_RSA_SHA2_256 = 2,
    FLAG_RSA_SHA2_512 = 4,
    ANSWER_MAX = 256 * 1024, /* as OpenSSH's own limit */
    KEYS_MAX = 2048,
};

void agent_keys_free(struct agent_key *keys, size_t count) {
    for (size_t i = 0; i < count; i++) {
        free(keys[i].blob);
        free(keys[i].comment);
    }
    free(keys);
}

int agent_parse_keys(const uint8_t *answer, size_t len, struct agent_key **ret, size_t *ret_count) {
    struct ssh_reader reader = {answer, len, false};
    uint8_t type = ssh_read_u8(&reader);
    uint32_t count = ssh_read_u32(&reader);
    if (reader.bad || type != IDENTITIES_ANSWER || count > KEYS_MAX) {
        return FLEET_ERR_PROTOCOL;
    }
    struct agent_key *keys = xcalloc(count + 1, sizeof(*keys));
    for (uint32_t i = 0; i < count; i++) {
        struct ssh_bytes blob = ssh_read_string(&reader);
        struct ssh_bytes comment = ssh_read_string(&reader);
        keys[i].blob = xmalloc(blob.len + 1);
        memcpy(keys[i].blob, blob.data, blob.len);
        keys[i].blob_len = blob.len;
        keys[i].comment = text_cleaned((const char *)comment.data, comment.len);
    }
    if (reader.bad) {
        agent_keys_free(keys, count);
        return FLEET_ERR_PROTOCOL;
    }
    *ret = keys;
    *ret_count = count;
    return 0;
}

static uint32_t sign_flags(struct ssh_bytes algorithm) {
    if (ssh_bytes_are(algorithm, "rsa-sha2-512")) {
        return FLAG_RSA_SHA2_512;
    }
    return ssh_bytes_are(algorithm, "rsa-sha2-256") ? FLAG_RSA_SHA2_256 : 0;
}

void agent_add_sign_request(struct buf *out, const uint8_t *blob, size_t blob_len,
                            const uint8_t *data, size_t len, const uint8_t *algorithm,
                            size_t algorithm_len) {
    ssh_add_u32(out, (uint32_t)(1 + 4 + blob_len + 4 + len + 4));
    ssh_add_u8(out, SIGN_REQUEST);
    ssh_add_string(out, blob, blob_len);
    ssh_add_string(out, data, len);
    ssh_add_u32(out, sign_flags((struct ssh_bytes){algorithm, algorithm_len}));
}

int agent_parse_signature(const uint8_t *answer, size_t len, const uint8_t *algorithm,
                          size_t algorithm_len, uint8_t **ret, size_t *ret_len) {
    struct ssh_reader reader = {answer, len, false};
    uint8_t type = ssh_read_u8(&reader);
    struct ssh_bytes signature = ssh_read_string(&reader);
    if (reader.bad || type != SIGN_RESPONSE) {
        return FLEET_ERR_PROTOCOL;
    }
    struct ssh_reader inside = {signature.data, signature.len, false};
    struct ssh_bytes name = ssh_read_string(&inside);
    if (!ssh_bytes_equal(name, (struct ssh_bytes){algorithm, algorithm_len})) {
        return FLEET_ERR_PROTOCOL;
    }
    struct ssh_bytes inner;
    if (name.len > 3 && memcmp(name.data, "sk-", 3) == 0) {
        /* A security key adds flags and a counter; libssh2 takes all that follows the name. */
        inner = (struct ssh_bytes){inside.data, inside.len};
    } else {
        inner = ssh_read_string(&inside);
    }
    if (inside.bad || inner.len == 0) {
        return FLEET_ERR_PROTOCOL;
    }
    *ret = xmalloc(inner.len);
    memcpy(*ret, inner.data, inner.len);
    *ret_len = inner.len;
    return 0;
}

static int connect_agent(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    if (len >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, path, len);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        int errnum = errno;
        close(fd);
        errno = errnum;
        return -1;
    }
    return fd;
}

/* Waits for `events`. 0, FLEET_ERR_TIMEOUT or FLEET_ERR_CANCELLED. */
static int await(int fd, short events, const struct agent_cancel *cancel, uint64_t deadline_ms) {
    for (;;) {
        if (cancel != NULL && atomic_load(cancel->cancelled)) {
            return FLEET_ERR_CANCELLED;
        }
        uint64_t now = clock_now_ms(&clock_system);
        if (now >= deadline_ms) {
            return FLEET_ERR_TIMEOUT;
        }
        struct pollfd fds[2] = {{.fd = fd, .events = events}, {.events = POLLIN}};
        fds[1].fd = cancel != NULL ? cancel->wake_fd : -1;
        uint64_t left = deadline_ms - now;
        int count = poll(fds, 2, left > 60000 ? 60000 : (int)left);
        if (count > 0 && fds[1].revents != 0) {
            uint64_t writes;
            (void)!read(fds[1].fd, &writes, sizeof(writes));
            continue;
        }
        if (count > 0 && fds[0].revents != 0) {
            return 0;
        }
    }
}

static int send_request(int fd, const struct buf *request, const struct agent_cancel *cancel,
                        uint64_t deadline_ms) {
    size_t sent = 0;
    while (sent < request->len) {
        ssize_t rc = send(fd, request->data + sent, request->len - sent, MSG_NOSIGNAL);
        if (rc > 0) {
            sent += (size_t)rc;
            continue;
        }
        if (errno != EAGAIN && errno != EINTR) {
            return FLEET_ERR_SYSTEM;
        }
        int waited = await(fd, POLLOUT, cancel, deadline_ms);
        if (waited != 0) {
            return waited;
        }
    }
    return 0;
}

/* Reads exactly `len` bytes. */
static int read_bytes(int fd, uint8_t *data, size_t len, const struct agent_cancel *cancel,
                      uint64_t deadline_ms) {
    size_t have = 0;
    while (have < len) {
        ssize_t rc = recv(fd, data + have, len - have, 0);
        if (rc > 0) {
            have += (size_t)rc;
            continue;
        }
        if (rc == 0 || (errno != EAGAIN && errno != EINTR)) {
            return FLEET_ERR_SYSTEM;
        }
        int waited = await(fd, POLLIN, cancel, deadline_ms);
        if (waited != 0) {
            return waited;
        }
    }
    return 0;
}

static int exchange(int fd, const struct buf *request, const struct agent_cancel *cancel,
                    uint64_t deadline_ms, struct buf *answer) {
    uint8_t head[4];
    int rc = send_request(fd, request, cancel, deadline_ms);
    if (rc == 0) {
        rc = read_bytes(fd, head, sizeof(head), cancel, deadline_ms);
    }
    if (rc != 0) {
        return rc;
    }
    struct ssh_reader reader = {head, sizeof(head), false};
    uint32_t len = ssh_read_u32(&reader);
    if (len == 0 || len > ANSWER_MAX) {
        return FLEET_ERR_PROTOCOL;
    }
    buf_clear(answer);
    rc = read_bytes(fd, (uint8_t *)buf_reserve(answer, len), len, cancel, deadline_ms);
    if (rc == 0) {
        answer->len += len;
    }
    return rc;
}

int agent_ask(const char *socket_path, const struct buf *request, const struct agent_cancel *cancel,
              uint64_t timeout_ms, struct buf *answer, struct error *error) {
    uint64_t deadline_ms = clock_now_ms(&clock_system) + timeout_ms;
    AUTO_CLOSE int fd = connect_agent(socket_path);
    if (fd < 0) {
        return error_errno(error, errno, "connecting to the SSH agent at %s", socket_path);
    }
    int rc = exchange(fd, request, cancel, deadline_ms, answer);
    switch (rc) {
    case 0:
        return 0;
    case FLEET_ERR_TIMEOUT:
        return error_set(error, FLEET_ERR_TIMEOUT, "agent-timeout",
                         "the SSH agent at %s did not answer within %llu s: is it waiting for a "
                         "touch or a PIN?",
                         socket_path, (unsigned long long)(timeout_ms / 1000));
    case FLEET_ERR_CANCELLED:
        return error_set(error, FLEET_ERR_CANCELLED, "cancelled", "the SSH agent was given up");
    default:
        return error_set(error, FLEET_ERR_SYSTEM, "agent-failed",
                         "the SSH agent at %s broke off: is it still running?", socket_path);
    }
}

int agent_list(const char *socket_path, uint64_t timeout_ms, struct agent_key **ret,
               size_t *ret_count, struct error *error) {
    struct buf request = BUF_INIT;
    struct buf answer = BUF_INIT;
    ssh_add_u32(&request, 1);
    ssh_add_u8(&request, REQUEST_IDENTITIES);
    int rc = agent_ask(socket_path, &request, NULL, timeout_ms, &answer, error);
    if (rc == 0) {
        rc = agent_parse_keys((const uint8_t *)answer.data, answer.len, ret, ret_count);
        if (rc != 0) {
            error_set(error, FLEET_ERR_PROTOCOL, "agent-failed",
                      "the SSH agent at %s answered something that is no list of keys",
                      socket_path);
        }
    }
    buf_free(&request);
    buf_free(&answer);
    return rc;
}
