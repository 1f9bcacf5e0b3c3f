/* The local store's archives, read, hashed and compressed once for all lanes.
 *
 * One thread for the whole program reads the store's files (nar_dump), and makes blocks of them:
 * immutable, counted references, as they are (raw) or as zstd frames (packed). Each lane's copy has
 * a port: it asks for paths in its own order and takes their blocks, in that order, when it can use
 * them. Ports that ask for the same path about the same time get the same blocks; one that comes
 * too late, or falls too far behind the others, gets a reading of its own. So nobody waits for
 * anybody, and what is kept is bounded: AHEAD a port, and a window that all share.
 *
 * A path's bytes are its AddToStoreNar header, given by who asks, and its NAR. The last block comes
 * only after size and SHA-256 have been found right.
 *
 * Thread rule: a port belongs to its loop's thread. One mutex guards the ports' queues; it is taken
 * once a block (512 KB) or once a small path, never while bytes are read, hashed or compressed.
 */
#ifndef FLEET_TRANSPORT_NAR_FEED_H
#define FLEET_TRANSPORT_NAR_FEED_H

#include <uv.h>

#include "core/base/buf.h"
#include "transport/closure.h"
#include "transport/conn.h"

struct nar_port;

enum nar_form {
    NAR_RAW = 1u,    /* as the protocol has it */
    NAR_PACKED = 2u, /* zstd frames of it */
};

struct nar_block {
    struct chunk *raw;    /* a reference for the caller, or NULL if not asked for */
    struct chunk *packed; /* likewise */
    uint64_t nar_bytes;   /* of the NAR in it; the header does not count */
    bool last;
};

/* A port. The first starts the thread, closing the last ends it. `on_ready` fires when a block may
 * be there. `root` stands before each path that is opened ("" for this machine's own /nix). */
struct nar_port *nar_port_new(uv_loop_t *loop, const char *root, void (*on_ready)(void *arg),
                              void *arg);
/* Drops what was asked for and frees itself; no callback follows. */
void nar_port_close(struct nar_port *port);

/* Asks for `info`, in `forms` (bits of nar_form). `tag` is handed back with its blocks. */
void nar_port_ask(struct nar_port *port, uint32_t tag, const struct path_info *info,
                  unsigned forms);
/* The next block of the oldest path asked for: 1, or 0 when none is there yet. A negative
 * fleet_err with `error` filled when that path can't be read: it is done with. `ret_begun` says
 * then whether any block of it has been handed out. Reasons as nar_dump_read's; "source-corrupt"
 * too where size or hash is wrong. */
int nar_port_next(struct nar_port *port, uint32_t *ret_tag, struct nar_block *ret_block,
                  bool *ret_begun, struct error *error);
/* Has the thread been at one block for `limit_ms` or longer? Then `error` is filled
 * (FLEET_ERR_TIMEOUT, "copy-stalled"). A block takes milliseconds, so a read does not come back: a
 * hung disk or network file system. Whoever waits gives up. Closing the last port leaves such a
 * thread behind after two seconds; the next port starts another. */
bool nar_port_hangs(struct nar_port *port, uint64_t limit_ms, struct error *error);
/* Has on_ready called again, soon: for whoever stopped taking although there was more. */
void nar_port_poke(struct nar_port *port);
/* Forgets all that was asked for. */
void nar_port_cancel(struct nar_port *port);

#endif
