/* Store paths being read into blocks, and the blocks that are kept of them (the inside of nar_feed).
 *
 * A reading is one path's NAR, made block by block; followers take the blocks, each at its own
 * cursor. A block is kept while a follower has not taken it, and beyond that as long as all that is
 * kept fits into the window, for followers still to come. When it doesn't fit because one follower
 * hangs back, that one gets a reading of its own.
 *
 * Thread rule: everything is under the feed's mutex, but nar_reading_make, which reads, hashes and
 * compresses without it. A reading that is `busy` meanwhile is not freed.
 */
#ifndef FLEET_TRANSPORT_NAR_READING_H
#define FLEET_TRANSPORT_NAR_READING_H

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/buf.h"
#include "core/base/error.h"
#include "transport/closure.h"
#include "transport/conn.h"
#include "transport/zstd_frame.h"

/* What a follower that hangs back may be behind, and what is read ahead of a port. */
#define NAR_AHEAD_BYTES (4u * 1024u * 1024u)

struct nar_kept {
    struct chunk *raw, *packed; /* both NULL once dropped */
    uint64_t nar_bytes;
    uint64_t end; /* of this block, counted from the first byte of the header */
    bool last;
};

/* Whoever takes a reading's blocks; embedded in the owner's struct. */
struct nar_follower {
    struct nar_follower *next; /* of the same reading */
    struct nar_reading *reading;
    size_t cursor; /* the block to take next */
    uint64_t position;
};

/* One path being read, or read. */
struct nar_reading {
    struct nar_reading *prev, *next; /* in the order of their beginning */
    char *file;                      /* root and path */
    char *path;
    char nar_hash[65];
    uint64_t nar_size;
    unsigned forms; /* bits of nar_form */
    struct nar_follower *followers;
    struct nar_kept *blocks;
    size_t count, room, first; /* blocks before `first` are dropped */
    uint64_t end;              /* of the last block */
    bool alone;                /* made for one that hung back: nobody joins */
    bool over;                 /* the last block is there, or `error` is */
    struct error error;
    /* The thread's own while it makes a block: */
    struct nar_dump *dump;
    EVP_MD_CTX *digest;
    struct buf header;
    uint64_t nar_read;
    bool busy;
};

/* All of them. Zeroed is empty. */
struct nar_readings {
    struct nar_reading *oldest, *youngest;
    size_t count;
    uint64_t kept_bytes;
};

/* Has `follower`, zeroed, follow the reading of `info` below `root` in `forms`: one that still has
 * all its blocks, or a new one. */
void nar_reading_join(struct nar_readings *all, const char *root, const struct path_info *info,
                      unsigned forms, struct nar_follower *follower);
/* Its reading is freed if nobody else follows and it isn't whole (or busy). */
void nar_reading_leave(struct nar_readings *all, struct nar_follower *follower);
void nar_reading_free(struct nar_readings *all, struct nar_reading *reading);

/* Makes the next block of a reading that isn't over, from its file; the header goes in front of the
 * first. `skip`: nobody wants its bytes. A negative fleet_err as nar_dump_read's, or with reason
 * "source-corrupt" where size or SHA-256 is not the registered one. */
int nar_reading_make(struct nar_reading *reading, struct zstd_packer *packer, bool skip,
                     struct nar_kept *ret_block, struct error *error);
/* Appends the block that was made; its chunks are the reading's now. */
void nar_reading_add(struct nar_readings *all, struct nar_reading *reading,
                     const struct nar_kept *block);
/* It is over: no further block could be made. */
void nar_reading_fail(struct nar_reading *reading, const struct error *error);
/* Keeps what is kept within the window, and what is remembered within its number, oldest first. */
void nar_readings_trim(struct nar_readings *all);

#endif
