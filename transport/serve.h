/* The Nix serve protocol's bytes (NIX-PROTOCOL 1, 2): requests out, replies in, nothing else.
 *
 * Pure: no I/O. Replies may arrive cut anywhere; a take function that lacks bytes takes none and
 * answers 0. Every length and count is bounded before anything is allocated for it, as the peer
 * may be hostile.
 */
#ifndef FLEET_TRANSPORT_SERVE_H
#define FLEET_TRANSPORT_SERVE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/buf.h"
#include "core/base/error.h"
#include "transport/closure.h"

#define SERVE_CLIENT_VERSION 0x0207u /* safe with every server, see NIX-PROTOCOL 2.3 */
#define SERVE_VERSION_MIN    0x0205u /* AddToStoreNar; Nix 2.1 */
#define SERVE_TEXT_MAX       65536u
#define SERVE_REFS_MAX       65536u
#define SERVE_SIGS_MAX       256u
#define SERVE_LIST_MAX       1000000u

/* Requests; each appends one whole request, or its head where paths follow by serve_put_text. */
void serve_put_int(struct buf *out, uint64_t value);
void serve_put_text(struct buf *out, const char *text);
void serve_put_hello(struct buf *out);
/* QueryValidPaths; `count` serve_put_text follow. */
void serve_put_query_valid(struct buf *out, bool lock, bool substitute, size_t count);
/* QueryClosure of one path, outputs of derivations not included. */
void serve_put_query_closure(struct buf *out, const char *path);
/* QueryPathInfos; `count` serve_put_text follow. */
void serve_put_query_infos(struct buf *out, size_t count);
void serve_put_dump(struct buf *out, const char *path);
/* AddToStoreNar; info->nar_size bytes of NAR follow. */
void serve_put_add(struct buf *out, const struct path_info *info);

/* What has come in and is not taken yet. Zero-initialised is valid; freed by serve_reader_free. */
struct serve_reader {
    struct buf in;
    size_t at;
};

void serve_reader_feed(struct serve_reader *reader, const char *data, size_t len);
/* The bytes not taken yet, for whoever reads raw data (a NAR) out of the middle. */
const char *serve_reader_rest(const struct serve_reader *reader, size_t *ret_len);
void serve_reader_skip(struct serve_reader *reader, size_t len);
void serve_reader_free(struct serve_reader *reader);

/* Each returns 1 when it took its item, 0 when bytes are missing, or FLEET_ERR_PROTOCOL with
 * `error` filled. */
int serve_take_int(struct serve_reader *reader, uint64_t *ret_value);
/* `ret_text` is NUL-terminated and the caller's to free; text with a NUL inside is refused. */
int serve_take_text(struct serve_reader *reader, char **ret_text, struct error *error);
/* The server's greeting. Other bytes are shown in the message; a server that is too old is reason
 * "nix-too-old". */
int serve_take_hello(struct serve_reader *reader, uint32_t *ret_version, struct error *error);
/* A list's length; at most `max`. */
int serve_take_count(struct serve_reader *reader, uint64_t max, uint64_t *ret_count,
                     struct error *error);
/* One store path of a list. As serve_take_text, and it is a valid store path. */
int serve_take_path(struct serve_reader *reader, char **ret_path, struct error *error);
/* One entry of QueryPathInfos, or NULL at their end. One allocation, freed with free(). */
int serve_take_info(struct serve_reader *reader, struct path_info **ret_info, struct error *error);

#endif
