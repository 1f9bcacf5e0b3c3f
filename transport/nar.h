/* NAR, the archive that a store path travels as (NIX-PROTOCOL 5), read as it streams by.
 *
 * DumpStorePath sends a NAR without a length, so the reader must find its end itself; on the way
 * it validates the structure (tokens, order of names, depth, zero padding) and hashes the bytes.
 * Nothing is kept but the token at hand and one name a level: memory is constant.
 */
#ifndef FLEET_TRANSPORT_NAR_H
#define FLEET_TRANSPORT_NAR_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"

/* Limits of recent Nix readers (2.34.8); what exceeds them could not be imported anyway. */
#define NAR_DEPTH_MAX  64u
#define NAR_NAME_MAX   255u
#define NAR_TARGET_MAX 4095u

struct nar_reader;

/* A reader for one NAR. Never NULL. */
struct nar_reader *nar_reader_new(void);
/* Makes it ready for the next NAR. */
void nar_reader_reset(struct nar_reader *reader);
void nar_reader_free(struct nar_reader *reader);

enum nar_state {
    NAR_MORE,
    NAR_END
};

/* Reads from `data` until the NAR's end or the data's; `ret_used` says how many bytes were the
 * NAR's. Returns a nar_state, or FLEET_ERR_PROTOCOL with `error` saying what is wrong at which
 * byte; then only reset and free are allowed. After NAR_END likewise. */
int nar_read(struct nar_reader *reader, const char *data, size_t len, size_t *ret_used,
             struct error *error);

/* Bytes read so far. */
uint64_t nar_size(const struct nar_reader *reader);
/* After NAR_END: SHA-256 of all bytes in lower-case hex. */
void nar_hash(const struct nar_reader *reader, char ret_hex[65]);

#endif
