/* A connection to a host and the streams over it, whatever carries them.
 *
 * One interface, three carriers: SSH (transport/ssh.h), processes of this machine for
 * "address": "local" and the local Nix store (transport/local.h), and the tests' fake. The host
 * pipeline, the shell, the store protocol and the probes know only this file.
 *
 * Thread rule: a connection belongs to the thread of its loop; every call and callback happens
 * there. Callbacks never fire before the call that registers them has returned, and never after
 * conn_close/stream_close on their object (on_closed excepted). Every callback may close the
 * object it was called for.
 */
#ifndef FLEET_TRANSPORT_CONN_H
#define FLEET_TRANSPORT_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

struct conn;
struct stream;

struct conn_handlers {
    /* Authenticated; streams may be opened from now on. `address` is the one that answered
     * ("10.0.0.11", "fd00::11"; "" where there is none), valid during the call. */
    void (*on_ready)(const char *address, void *arg);
    /* It could not be established (FLEET_ERR_UNREACHABLE, _TIMEOUT) or broke afterwards
     * (FLEET_ERR_LOST). At most once; all streams have had their on_end(lost) before. The owner
     * still calls conn_close. */
    void (*on_lost)(const struct error *error, void *arg);
    /* After conn_close: every handle is gone and the memory is about to be. NULL is allowed. */
    void (*on_closed)(void *arg);
    /* Something worth a log line ("trying the second address"). NULL is allowed. */
    void (*on_notice)(const char *text, void *arg);
    /* Something that a person has to do or to know now: the agent waits for a touch, or gave no
     * signature. NULL is allowed. */
    void (*on_person)(const char *text, void *arg);
};

struct stream_end {
    bool lost;       /* the connection broke or the stream never opened; `error` says why */
    int status;      /* exit status 0..255; -1 when killed by a signal or unknown */
    char signal[16]; /* "KILL", or "" */
    struct error error;
};

struct stream_handlers {
    /* The far side has opened it: the TCP connection of a tunnel stands, the command runs. Not
     * called where opening fails (on_end(lost) says why). At most once, before any on_data. May be
     * NULL; a TCP probe from the target needs it, since a tunnel may carry no byte at all. */
    void (*on_open)(void *arg);
    /* Bytes from the far side; fd is 1 (stdout, a tunnel's data) or 2 (stderr). The bytes are
     * valid during the call only. */
    void (*on_data)(int fd, const char *data, size_t len, void *arg);
    /* The write queue has fallen below STREAM_LOW_WATER after having been above it. May be NULL. */
    void (*on_drain)(void *arg);
    /* Exactly once unless stream_close comes first; nothing follows. The stream is freed after
     * this call: drop the pointer. */
    void (*on_end)(const struct stream_end *end, void *arg);
};

#define STREAM_LOW_WATER (256u * 1024u)

/* Immutable bytes shared by several streams (the copy's fan-out), on any thread: references are
 * counted atomically, and nobody writes into a chunk that others can see. */
struct chunk {
    _Atomic uint32_t refs;
    uint32_t len;
    uint8_t data[];
};

/* A new chunk with one reference and `len` uninitialised bytes. */
struct chunk *chunk_new(size_t len);
struct chunk *chunk_ref(struct chunk *chunk);
void chunk_unref(struct chunk *chunk);

/* First member of every carrier's own stream and connection. */
struct stream_ops {
    int (*write)(struct stream *stream, const void *data, size_t len);
    int (*write_chunk)(struct stream *stream, struct chunk *chunk);
    size_t (*queued)(const struct stream *stream);
    void (*eof)(struct stream *stream);
    void (*pause)(struct stream *stream, bool paused);
    void (*close)(struct stream *stream);
};
struct stream {
    const struct stream_ops *ops;
};
struct conn_ops {
    struct stream *(*exec)(struct conn *conn, const char *command,
                           const struct stream_handlers *handlers, void *arg);
    struct stream *(*tunnel)(struct conn *conn, const char *host, uint16_t port,
                             const struct stream_handlers *handlers, void *arg);
    void (*close)(struct conn *conn);
    bool (*is_narrow)(const struct conn *conn); /* NULL: it never is */
};
struct conn {
    const struct conn_ops *ops;
};

/* Runs `command` on the far side. Over SSH the account's login shell reads it, so it must be plain
 * words that every shell reads alike ("/bin/sh -s", "nix-store --serve --write"). Writing may
 * begin at once; bytes are queued until the stream is open. Never NULL: what goes wrong comes
 * through on_end. */
struct stream *conn_exec(struct conn *conn, const char *command,
                         const struct stream_handlers *handlers, void *arg);
/* A TCP connection made by the far side (SSH direct-tcpip; a plain socket where local). */
struct stream *conn_tunnel(struct conn *conn, const char *host, uint16_t port,
                           const struct stream_handlers *handlers, void *arg);
/* Closes all streams without their on_end and then itself; on_closed comes later. */
void conn_close(struct conn *conn);
/* True if the far side has refused a second command beside the one that runs (sshd's MaxSessions 1).
 * Known by the time that a first command has answered. */
bool conn_is_narrow(const struct conn *conn);

/* Queues bytes (copied). 0, or FLEET_ERR_LOST after the end. There is no limit: the writer asks
 * stream_queued and waits for on_drain. */
int stream_write(struct stream *stream, const void *data, size_t len);
/* The same without copying; takes a reference of its own. */
int stream_write_chunk(struct stream *stream, struct chunk *chunk);
/* Bytes queued and not yet handed to the carrier. */
size_t stream_queued(const struct stream *stream);
/* No more writes: EOF follows the queued bytes. */
void stream_eof(struct stream *stream);
/* Stops and restarts reading: back-pressure towards the far side. */
void stream_pause(struct stream *stream, bool paused);
/* Abandons the stream; no callback follows. */
void stream_close(struct stream *stream);

#endif
