/* The copy: closures from one source store to many hosts, natively over Nix's serve protocol.
 *
 * A copier belongs to one loop and has one source, a stream to `nix-store --serve` (a local
 * process or a build host's). Each host asks for what it lacks (lock=1 over the whole closure).
 * Hosts that wait are served together in a pass: the union of what they lack in reference order,
 * each path read once, hashed on the way, its bytes shared (struct chunk) by every host that lacks
 * it, through a bounded queue a host. A host that falls behind leaves the pass and is served in a
 * later one. Pipelined: two round trips for any number of paths (NIX-PROTOCOL 10, 12).
 *
 * Archives of this machine's own store are read, hashed and compressed once for the whole program
 * (nar_feed.h); those of a build host once a lane. Compressed bytes go through a second channel,
 * `zstd -dc | nix-store --serve --write`, while the first keeps the locks and answers questions.
 */
#ifndef FLEET_TRANSPORT_COPY_H
#define FLEET_TRANSPORT_COPY_H

#include <uv.h>

#include "transport/closure.h"
#include "transport/conn.h"
#include "transport/elevate.h"

struct copier;
struct copy_job;

/* The source: a ready connection (borrowed; local or a build host) and the command that serves its
 * store, e.g. "nix-store --serve". The serve process is started at the first need and ended after
 * 30 s without one. `name` is for messages ("the local store", "build host b1"). */
struct copier *copier_new(uv_loop_t *loop, struct conn *source, const char *command,
                          const char *name);
/* The source is a store of this machine: archives are read from the files under `root`/nix/store,
 * once for all copiers that say so (nar_feed.h), and not through the serve process. Where a file
 * can't be opened the copier goes back to that process. */
void copier_read_files(struct copier *copier, const char *root);
/* All jobs must have been closed. */
void copier_free(struct copier *copier);

typedef void (*copier_closure_done)(int err, const struct closure *closure,
                                    const struct error *error, void *arg);
/* The closure of `top` with all its path infos; asked for once, then remembered until
 * copier_free. `done` fires later, exactly once, unless copier_free comes first. */
void copier_closure(struct copier *copier, const char *top, copier_closure_done done, void *arg);

enum copy_compress {
    COPY_COMPRESS_NONE,
    COPY_COMPRESS_AUTO, /* where the target has zstd and there is enough to send */
    COPY_COMPRESS_ZSTD, /* always; a target without zstd fails, reason "no-zstd" */
};

struct copy_options {
    const char *command; /* on the target: "nix-store --serve --write", plain words */
    struct elevation elevation;
    bool substitute; /* let the target fetch from its substituters first */
    enum copy_compress compress;
    /* What the target runs: on_before tells its closure. Copied; NULL: nobody wants to know. */
    const char *before;
    bool ahead;                /* nothing is said on the channel before copy_ask */
    uint64_t max_rate;         /* bytes a second, 0: none */
    uint64_t stall_timeout_ms; /* no byte and no ack for so long is FLEET_ERR_TIMEOUT; 0: 60 s. The
                                  target's "waiting for the big garbage collector lock" suspends it. */
};

struct copy_progress {
    uint64_t bytes_done, bytes_total; /* NAR bytes of what this host lacked */
    uint64_t paths_done, paths_total; /* acknowledged */
};

struct copy_handlers {
    /* When it is known what the host lacks and then at most every 500 ms. */
    void (*on_progress)(const struct copy_progress *progress, void *arg);
    /* Every path of the closure is valid on the host and temporarily rooted by the channel, which
     * stays open: the owner sets a lasting root, then calls copy_close. */
    void (*on_done)(const struct copy_progress *progress, void *arg);
    /* The channel is closed. FLEET_ERR_LOST: connect again and copy_start again, it goes on where the last ack was.
     * FLEET_ERR_SPACE, _REMOTE (Nix's own words), _PROTOCOL, _TIMEOUT; reasons "disk-full",
     * "untrusted-user" (both remedies named), "source-corrupt", "source-lost" (the source's
     * connection: start again with a copier of a new one), "no-nix", "nix-too-old", "copy-failed". */
    void (*on_failed)(const struct error *error, void *arg);
    /* The store paths of `before`, unless the target lacks it, and what is copied; before on_done.
     * Costs no round trip where something is copied, else one. During the call only. May be NULL. */
    void (*on_before)(char *const *paths, size_t count, const struct closure *copied, void *arg);
    /* A line of the target's stderr worth showing, uncleaned. May be NULL. */
    void (*on_log)(const char *line, size_t len, void *arg);
};

/* Begins; exactly one of on_done or on_failed follows unless copy_close comes first. `target` is
 * ready and outlives the job. */
struct copy_job *copy_start(struct copier *copier, struct conn *target, const char *top,
                            const struct copy_options *options,
                            const struct copy_handlers *handlers, void *arg);
/* Where `ahead` was set: the channel may be used by now. */
void copy_ask(struct copy_job *job);
/* Ends the channel (its locks end with it) and frees the job. At any time; no callback follows. */
void copy_close(struct copy_job *job);

#endif
