/* Writes the NAR of a store path of this machine, piece by piece, straight from its files.
 *
 * The reading side of transport/nar.h, for the local store: no nix-store process, no pipe, and one
 * copy less of each byte. The caller pulls, so a reader of many paths can leave one in the middle
 * and go on with another. What comes out is not trusted: whoever pulls compares its hash with what
 * the store's database says. No symlink is followed, at any level.
 */
#ifndef FLEET_TRANSPORT_NAR_DUMP_H
#define FLEET_TRANSPORT_NAR_DUMP_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/error.h"

struct nar_dump;

/* A dump of `path`, which is opened with the first read. Never NULL. */
struct nar_dump *nar_dump_new(const char *path);
void nar_dump_free(struct nar_dump *dump);

/* Fills `out` with the next bytes: all `room` of them unless the NAR ends before. Returns 0,
 * FLEET_ERR_SYSTEM with reason "source-unreadable" where a file can't be opened or read, or
 * FLEET_ERR_PROTOCOL with "source-corrupt" for what a NAR can't hold (a socket, a file that
 * changes while it is read). After an error only nar_dump_free is allowed. */
int nar_dump_read(struct nar_dump *dump, void *out, size_t room, size_t *ret_len, bool *ret_end,
                  struct error *error);

#endif
