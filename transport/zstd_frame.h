/* Bytes as zstd frames, for targets that unpack them with `zstd -dc`.
 *
 * A frame holds one block of the copy whole, so frames may be shared by hosts that want different
 * paths and follow each other in any order. Bytes that don't compress cost next to nothing: zstd
 * looks, gives up early, and stores them (tests/bench/copy prints what it costs).
 */
#ifndef FLEET_TRANSPORT_ZSTD_FRAME_H
#define FLEET_TRANSPORT_ZSTD_FRAME_H

#include <stddef.h>

#include "transport/conn.h"

struct zstd_packer;

/* For one thread. Never NULL. */
struct zstd_packer *zstd_packer_new(void);
void zstd_packer_free(struct zstd_packer *packer);
/* One frame of `len` bytes, in a new chunk. */
struct chunk *zstd_pack(struct zstd_packer *packer, const void *data, size_t len);

#endif
