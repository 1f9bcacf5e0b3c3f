/* Readings, their blocks and the window (see nar_reading.h).
 *
 *   blocks: [dropped | kept ........ ] ─► grows     each follower's cursor is in the kept part
 */
#include "transport/nar_reading.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "transport/nar_dump.h"
#include "transport/nar_feed.h"
#include "transport/serve.h"

#define BLOCK_BYTES  (512u * 1024u)
#define WINDOW_BYTES (96u * 1024u * 1024u)
#define REMEMBERED   1024u /* readings, since looking for one is a walk */

/* ---- readings and their followers ---- */

static void drop_block(struct nar_readings *all, struct nar_kept *block) {
    all->kept_bytes -= (block->raw != NULL ? block->raw->len : 0) +
                       (block->packed != NULL ? block->packed->len : 0);
    chunk_unref(block->raw);
    chunk_unref(block->packed);
    block->raw = NULL;
    block->packed = NULL;
}

void nar_reading_free(struct nar_readings *all, struct nar_reading *reading) {
    *(reading->prev != NULL ? &reading->prev->next : &all->oldest) = reading->next;
    *(reading->next != NULL ? &reading->next->prev : &all->youngest) = reading->prev;
    while (reading->first < reading->count) {
        drop_block(all, &reading->blocks[reading->first++]);
    }
    all->count--;
    nar_dump_free(reading->dump);
    EVP_MD_CTX_free(reading->digest);
    buf_free(&reading->header);
    free(reading->blocks);
    free(reading->file);
    free(reading->path);
    free(reading);
}

static struct nar_reading *reading_new(struct nar_readings *all, const char *root,
                                       const char *path) {
    struct nar_reading *reading = xcalloc(1, sizeof(*reading));
    reading->file = xasprintf("%s%s", root, path);
    reading->path = xstrdup(path);
    reading->prev = all->youngest;
    *(reading->prev != NULL ? &reading->prev->next : &all->oldest) = reading;
    all->youngest = reading;
    all->count++;
    return reading;
}

static struct nar_reading *find_reading(const struct nar_readings *all, const char *root,
                                        const struct path_info *info, unsigned forms) {
    size_t skip = strlen(root);
    for (struct nar_reading *at = all->youngest; at != NULL; at = at->prev) {
        if (at->nar_size == info->nar_size && at->first == 0 && !at->alone &&
            at->error.code == FLEET_OK && (at->forms & forms) == forms &&
            strcmp(at->path, info->path) == 0 && strcmp(at->nar_hash, info->nar_hash) == 0 &&
            strncmp(at->file, root, skip) == 0 && strcmp(at->file + skip, at->path) == 0) {
            return at;
        }
    }
    return NULL;
}

static void follow(struct nar_follower *follower, struct nar_reading *reading) {
    follower->reading = reading;
    follower->next = reading->followers;
    reading->followers = follower;
}

void nar_reading_join(struct nar_readings *all, const char *root, const struct path_info *info,
                      unsigned forms, struct nar_follower *follower) {
    struct nar_reading *reading = find_reading(all, root, info, forms);
    if (reading == NULL) {
        reading = reading_new(all, root, info->path);
        snprintf(reading->nar_hash, sizeof(reading->nar_hash), "%s", info->nar_hash);
        reading->nar_size = info->nar_size;
        reading->forms = forms;
        serve_put_add(&reading->header, info);
    }
    follow(follower, reading);
}

/* A reading that nobody follows is kept for its blocks if it is whole, else it is over. */
void nar_reading_leave(struct nar_readings *all, struct nar_follower *follower) {
    struct nar_reading *reading = follower->reading;
    struct nar_follower **slot = &reading->followers;
    while (*slot != follower) {
        slot = &(*slot)->next;
    }
    *slot = follower->next;
    bool whole = reading->over && reading->error.code == FLEET_OK && reading->first == 0;
    if (reading->followers == NULL && !reading->busy && !whole) {
        nar_reading_free(all, reading);
    }
}

/* ---- the window ---- */

/* Blocks before this one are needed by nobody who is there. */
static size_t slowest(const struct nar_reading *reading) {
    size_t cursor = reading->count;
    for (const struct nar_follower *at = reading->followers; at != NULL; at = at->next) {
        cursor = at->cursor < cursor ? at->cursor : cursor;
    }
    return cursor;
}

static void drop_until(struct nar_readings *all, struct nar_reading *reading, size_t cursor) {
    while (reading->first < cursor && all->kept_bytes > WINDOW_BYTES) {
        drop_block(all, &reading->blocks[reading->first++]);
    }
}

/* The follower that hangs back most in this reading, if another is further on. */
static struct nar_follower *straggler(const struct nar_reading *reading) {
    struct nar_follower *last = NULL;
    uint64_t furthest = 0;
    for (struct nar_follower *at = reading->followers; at != NULL; at = at->next) {
        last = last == NULL || at->position < last->position ? at : last;
        furthest = at->position > furthest ? at->position : furthest;
    }
    return last != NULL && furthest - last->position > NAR_AHEAD_BYTES ? last : NULL;
}

/* It goes on alone: the path is read again from its beginning, for this follower only. */
static void detach(struct nar_readings *all, struct nar_follower *follower) {
    struct nar_reading *from = follower->reading;
    size_t root = strlen(from->file) - strlen(from->path);
    AUTO_FREE char *prefix = xstrndup(from->file, root);
    struct nar_reading *own = reading_new(all, prefix, from->path);
    snprintf(own->nar_hash, sizeof(own->nar_hash), "%s", from->nar_hash);
    own->nar_size = from->nar_size;
    own->forms = from->forms;
    own->alone = true;
    buf_add(&own->header, from->header.data, from->header.len);
    nar_reading_leave(all, follower);
    follow(follower, own);
}

void nar_readings_trim(struct nar_readings *all) {
    struct nar_reading *at = all->oldest;
    assert(at == NULL || at->prev == NULL);
    while (at != NULL && all->count > REMEMBERED) {
        struct nar_reading *next = at->next;
        if (at->followers == NULL && !at->busy) {
            nar_reading_free(all, at);
        }
        at = next;
    }
    at = all->oldest;
    while (at != NULL && all->kept_bytes > WINDOW_BYTES) {
        struct nar_reading *next = at->next;
        drop_until(all, at, slowest(at));
        struct nar_follower *behind = all->kept_bytes > WINDOW_BYTES ? straggler(at) : NULL;
        if (behind != NULL) {
            detach(all, behind);
            drop_until(all, at, slowest(at));
        }
        if (at->followers == NULL && !at->busy && at->first == at->count) {
            nar_reading_free(all, at);
        }
        at = next;
    }
}

/* ---- making blocks ---- */

static int wrong(struct nar_reading *reading, struct error *error, const char *what) {
    return error_set(error, FLEET_ERR_PROTOCOL, "source-corrupt",
                     "the local store: %s is damaged: %s differs from what was registered. Repair "
                     "it: nix-store --repair-path %s",
                     reading->path, what, reading->path);
}

/* All of the NAR has been read: is it over, and the right one? */
static int check_whole(struct nar_reading *reading, struct error *error) {
    char extra;
    size_t more = 0;
    bool end = false;
    int err = nar_dump_read(reading->dump, &extra, 1, &more, &end, error);
    if (err != 0) {
        return err;
    }
    if (more > 0 || !end) {
        return wrong(reading, error, "its size");
    }
    unsigned char hash[32];
    char hex[65];
    EVP_DigestFinal_ex(reading->digest, hash, NULL);
    for (size_t i = 0; i < sizeof(hash); i++) {
        snprintf(hex + 2 * i, 3, "%02x", hash[i]);
    }
    return strcmp(hex, reading->nar_hash) == 0 ? 0 : wrong(reading, error, "its SHA-256");
}

static void begin_reading(struct nar_reading *reading) {
    reading->dump = nar_dump_new(reading->file);
    reading->digest = EVP_MD_CTX_new();
    if (reading->digest == NULL || EVP_DigestInit_ex(reading->digest, EVP_sha256(), NULL) != 1) {
        abort(); /* out of memory is fatal, as in xalloc */
    }
}

int nar_reading_make(struct nar_reading *reading, struct zstd_packer *packer, bool skip,
                     struct nar_kept *ret_block, struct error *error) {
    size_t head = reading->nar_read == 0 ? reading->header.len : 0;
    uint64_t left = reading->nar_size - reading->nar_read;
    size_t want = left < BLOCK_BYTES ? (size_t)left : BLOCK_BYTES;
    size_t got = 0;
    bool end = false;
    if (reading->dump == NULL) {
        begin_reading(reading);
    }
    struct chunk *chunk = chunk_new(head + want);
    memcpy(chunk->data, buf_text(&reading->header), head);
    int err = nar_dump_read(reading->dump, chunk->data + head, want, &got, &end, error);
    if (err == 0 && got < want) {
        err = wrong(reading, error, "its size");
    }
    if (err == 0) {
        EVP_DigestUpdate(reading->digest, chunk->data + head, got);
        reading->nar_read += got;
        err = reading->nar_read == reading->nar_size ? check_whole(reading, error) : 0;
    }
    if (err != 0) {
        chunk_unref(chunk);
        return err;
    }
    *ret_block =
        (struct nar_kept){.nar_bytes = got, .last = reading->nar_read == reading->nar_size};
    if (!skip && (reading->forms & NAR_PACKED) != 0) {
        ret_block->packed = zstd_pack(packer, chunk->data, chunk->len);
    }
    ret_block->end = reading->end + chunk->len;
    if (!skip && (reading->forms & NAR_RAW) != 0) {
        ret_block->raw = chunk;
    } else {
        chunk_unref(chunk);
    }
    return 0;
}

/* No descriptor is held for what is only remembered. */
static void end_reading(struct nar_reading *reading) {
    reading->over = true;
    nar_dump_free(reading->dump);
    reading->dump = NULL;
}

void nar_reading_add(struct nar_readings *all, struct nar_reading *reading,
                     const struct nar_kept *block) {
    if (reading->count == reading->room) {
        reading->room = reading->room > 0 ? 2 * reading->room : 4;
        reading->blocks = xrealloc(reading->blocks, reading->room * sizeof(*reading->blocks));
    }
    reading->blocks[reading->count++] = *block;
    reading->end = block->end;
    all->kept_bytes += (block->raw != NULL ? block->raw->len : 0) +
                       (block->packed != NULL ? block->packed->len : 0);
    if (block->last) {
        end_reading(reading);
    }
}

void nar_reading_fail(struct nar_reading *reading, const struct error *error) {
    reading->error = *error;
    end_reading(reading);
}
