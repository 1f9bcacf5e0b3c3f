/* Encoder and decoder of the serve protocol (see serve.h).
 *
 * A reply is taken item by item: where an item is not complete, the position goes back to the
 * item's first byte and the next call tries again. The largest item is a path's info, a few
 * kilobytes in practice and bounded by ENTRY_MAX, so trying again costs little: strings are
 * skipped by their length, not scanned.
 */
#include "transport/serve.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"

#define MAGIC_CLIENT 0x390c9debu
#define MAGIC_SERVER 0x5452eecbu
#define ENTRY_MAX    (16u * 1024u * 1024u)
#define NOISE_SHOWN  200u
#define NAR_SIZE_MAX (UINT64_MAX / 4)

enum serve_command {
    SERVE_QUERY_VALID = 1,
    SERVE_QUERY_INFOS = 2,
    SERVE_DUMP = 3,
    SERVE_QUERY_CLOSURE = 7,
    SERVE_ADD = 9,
};

void serve_put_int(struct buf *out, uint64_t value) {
    unsigned char bytes[8];
    for (unsigned i = 0; i < 8; i++) {
        bytes[i] = (unsigned char)(value >> (8 * i));
    }
    buf_add(out, bytes, sizeof(bytes));
}

void serve_put_text(struct buf *out, const char *text) {
    static const char zero[8] = {0};
    size_t len = strlen(text);
    serve_put_int(out, len);
    buf_add(out, text, len);
    buf_add(out, zero, -len & 7);
}

static void put_texts(struct buf *out, const char *const *texts, size_t count) {
    serve_put_int(out, count);
    for (size_t i = 0; i < count; i++) {
        serve_put_text(out, texts[i]);
    }
}

void serve_put_hello(struct buf *out) {
    serve_put_int(out, MAGIC_CLIENT);
    serve_put_int(out, SERVE_CLIENT_VERSION);
}

void serve_put_query_valid(struct buf *out, bool lock, bool substitute, size_t count) {
    serve_put_int(out, SERVE_QUERY_VALID);
    serve_put_int(out, lock ? 1 : 0);
    serve_put_int(out, substitute ? 1 : 0);
    serve_put_int(out, count);
}

void serve_put_query_closure(struct buf *out, const char *path) {
    serve_put_int(out, SERVE_QUERY_CLOSURE);
    serve_put_int(out, 0);
    put_texts(out, &path, 1);
}

void serve_put_query_infos(struct buf *out, size_t count) {
    serve_put_int(out, SERVE_QUERY_INFOS);
    serve_put_int(out, count);
}

void serve_put_dump(struct buf *out, const char *path) {
    serve_put_int(out, SERVE_DUMP);
    serve_put_text(out, path);
}

void serve_put_add(struct buf *out, const struct path_info *info) {
    serve_put_int(out, SERVE_ADD);
    serve_put_text(out, info->path);
    serve_put_text(out, info->deriver);
    serve_put_text(out, info->nar_hash);
    put_texts(out, info->refs, info->ref_count);
    serve_put_int(out, 0); /* registration time: the target's own now */
    serve_put_int(out, info->nar_size);
    serve_put_int(out, 0); /* ultimate: it was not built there */
    put_texts(out, info->sigs, info->sig_count);
    serve_put_text(out, info->ca);
}

void serve_reader_feed(struct serve_reader *reader, const char *data, size_t len) {
    if (reader->at > 0) {
        buf_consume(&reader->in, reader->at);
        reader->at = 0;
    }
    buf_add(&reader->in, data, len);
}

const char *serve_reader_rest(const struct serve_reader *reader, size_t *ret_len) {
    *ret_len = reader->in.len - reader->at;
    return buf_text(&reader->in) + reader->at;
}

void serve_reader_skip(struct serve_reader *reader, size_t len) {
    reader->at += len;
}

void serve_reader_free(struct serve_reader *reader) {
    buf_free(&reader->in);
    reader->at = 0;
}

static uint64_t decode_int(const char *bytes) {
    uint64_t value = 0;
    for (unsigned i = 0; i < 8; i++) {
        value |= (uint64_t)(unsigned char)bytes[i] << (8 * i);
    }
    return value;
}

int serve_take_int(struct serve_reader *reader, uint64_t *ret_value) {
    size_t len;
    const char *rest = serve_reader_rest(reader, &len);
    if (len < 8) {
        return 0;
    }
    *ret_value = decode_int(rest);
    reader->at += 8;
    return 1;
}

/* A string where it lies; valid until the next feed. */
struct slice {
    const char *data;
    size_t len;
};

static int take_slice(struct serve_reader *reader, struct slice *ret_slice, struct error *error) {
    *ret_slice = (struct slice){"", 0};
    size_t len;
    const char *rest = serve_reader_rest(reader, &len);
    if (len < 8) {
        return 0;
    }
    uint64_t want = decode_int(rest);
    if (want > SERVE_TEXT_MAX) {
        return error_set(error, FLEET_ERR_PROTOCOL, "copy-failed",
                         "nix-store sent a string of %llu bytes where at most %u are allowed",
                         (unsigned long long)want, SERVE_TEXT_MAX);
    }
    size_t padded = ((size_t)want + 7) & ~(size_t)7;
    if (len - 8 < padded) {
        return 0;
    }
    for (size_t i = (size_t)want; i < padded; i++) {
        if (rest[8 + i] != '\0') {
            return error_set(error, FLEET_ERR_PROTOCOL, "copy-failed",
                             "nix-store sent a string whose padding is not zero");
        }
    }
    if (memchr(rest + 8, '\0', (size_t)want) != NULL) {
        return error_set(error, FLEET_ERR_PROTOCOL, "copy-failed",
                         "nix-store sent a string with a zero byte inside");
    }
    *ret_slice = (struct slice){rest + 8, (size_t)want};
    reader->at += 8 + padded;
    return 1;
}

int serve_take_text(struct serve_reader *reader, char **ret_text, struct error *error) {
    struct slice slice;
    int got = take_slice(reader, &slice, error);
    if (got == 1) {
        *ret_text = xstrndup(slice.data, slice.len);
    }
    return got;
}

int serve_take_path(struct serve_reader *reader, char **ret_path, struct error *error) {
    char *path;
    int got = serve_take_text(reader, &path, error);
    if (got != 1) {
        return got;
    }
    if (!store_path_is_valid(path)) {
        AUTO_FREE char *clean = text_cleaned(path, strlen(path));
        free(path);
        return error_set(error, FLEET_ERR_PROTOCOL, "copy-failed",
                         "nix-store sent \"%.200s\" where a store path belongs", clean);
    }
    *ret_path = path;
    return 1;
}

int serve_take_count(struct serve_reader *reader, uint64_t max, uint64_t *ret_count,
                     struct error *error) {
    uint64_t count;
    if (serve_take_int(reader, &count) == 0) {
        return 0;
    }
    if (count > max) {
        return error_set(error, FLEET_ERR_PROTOCOL, "copy-failed",
                         "nix-store announced a list of %llu entries where at most %llu are "
                         "possible",
                         (unsigned long long)count, (unsigned long long)max);
    }
    *ret_count = count;
    return 1;
}

/* As soon as the bytes differ from the magic nobody needs to wait for the eighth. */
static bool begins_like_magic(const char *data, size_t len) {
    static const char magic[8] = {'\xcb', '\xee', '\x52', '\x54', 0, 0, 0, 0};
    _Static_assert(MAGIC_SERVER == 0x5452eecbu, "the bytes above are the magic's");
    return memcmp(data, magic, len < 8 ? len : 8) == 0;
}

int serve_take_hello(struct serve_reader *reader, uint32_t *ret_version, struct error *error) {
    size_t len;
    const char *rest = serve_reader_rest(reader, &len);
    if (!begins_like_magic(rest, len)) {
        AUTO_FREE char *clean = text_cleaned(rest, len < NOISE_SHOWN ? len : NOISE_SHOWN);
        return error_set(error, FLEET_ERR_PROTOCOL, "copy-failed",
                         "the far side is no nix-store, it printed: \"%s\"", clean);
    }
    if (len < 16) {
        return 0;
    }
    uint64_t version = decode_int(rest + 8);
    reader->at += 16;
    if ((version & ~(uint64_t)0xff) != 0x200) {
        return error_set(error, FLEET_ERR_PROTOCOL, "copy-failed",
                         "nix-store speaks serve protocol 0x%llx, which is unknown here; 2.x is "
                         "needed (Nix 2.1 or newer, or Lix)",
                         (unsigned long long)version);
    }
    if (version < SERVE_VERSION_MIN) {
        return error_set(error, FLEET_ERR_PROTOCOL, "nix-too-old",
                         "nix-store speaks serve protocol 2.%llu, 2.5 is needed: install Nix 2.1 "
                         "or newer there",
                         (unsigned long long)(version & 0xff));
    }
    *ret_version = (uint32_t)version;
    return 1;
}

/* A path's info as it lies in the reader's buffer, before it is known to be whole. */
struct info_draft {
    struct slice path, deriver, hash, ca;
    size_t refs_at, sigs_at; /* positions of their first string */
    uint64_t ref_count, sig_count, nar_size;
    size_t text_bytes; /* of all strings, each with a NUL */
};

static int draft_text(struct serve_reader *reader, struct info_draft *draft,
                      struct slice *ret_slice, struct error *error) {
    int got = take_slice(reader, ret_slice, error);
    if (got == 1) {
        draft->text_bytes += ret_slice->len + 1;
    }
    return got;
}

static int draft_list(struct serve_reader *reader, struct info_draft *draft, uint64_t max,
                      uint64_t *ret_count, size_t *ret_at, struct error *error) {
    int got = serve_take_count(reader, max, ret_count, error);
    *ret_at = reader->at;
    for (uint64_t i = 0; got == 1 && i < *ret_count; i++) {
        struct slice slice;
        got = draft_text(reader, draft, &slice, error);
    }
    return got;
}

static int take_draft(struct serve_reader *reader, struct info_draft *draft, struct error *error) {
    uint64_t download_size;
    int got = draft_text(reader, draft, &draft->path, error);
    if (got != 1 || draft->path.len == 0) {
        return got;
    }
    if ((got = draft_text(reader, draft, &draft->deriver, error)) != 1 ||
        (got = draft_list(reader, draft, SERVE_REFS_MAX, &draft->ref_count, &draft->refs_at,
                          error)) != 1 ||
        (got = serve_take_int(reader, &download_size)) != 1 ||
        (got = serve_take_int(reader, &draft->nar_size)) != 1 ||
        (got = draft_text(reader, draft, &draft->hash, error)) != 1 ||
        (got = draft_text(reader, draft, &draft->ca, error)) != 1) {
        return got;
    }
    return draft_list(reader, draft, SERVE_SIGS_MAX, &draft->sig_count, &draft->sigs_at, error);
}

/* "sha256:" and 52 nix32 digits to 64 hex digits. Digit k from the end holds bits 5k..5k+4 of the
 * hash read as a little-endian number. */
static bool hash_to_hex(const struct slice *text, char ret_hex[65]) {
    static const char digits[] = "0123456789abcdfghijklmnpqrsvwxyz";
    static const char hex[] = "0123456789abcdef";
    unsigned char hash[33] = {0};
    if (text->len != 7 + 52 || memcmp(text->data, "sha256:", 7) != 0) {
        return false;
    }
    for (unsigned k = 0; k < 52; k++) {
        const char *digit = strchr(digits, text->data[7 + 51 - k]);
        if (digit == NULL) {
            return false;
        }
        unsigned shifted = (unsigned)(digit - digits) << (5 * k % 8);
        hash[5 * k / 8] |= (unsigned char)(shifted & 0xff);
        hash[5 * k / 8 + 1] |= (unsigned char)(shifted >> 8);
    }
    for (unsigned i = 0; i < 32; i++) {
        ret_hex[2 * i] = hex[hash[i] >> 4];
        ret_hex[2 * i + 1] = hex[hash[i] & 15];
    }
    ret_hex[64] = '\0';
    return hash[32] == 0;
}

static const char *copy_slice(const struct slice *slice, char **room) {
    char *text = *room;
    memcpy(text, slice->data, slice->len);
    text[slice->len] = '\0';
    *room += slice->len + 1;
    return text;
}

static void copy_list(const struct serve_reader *reader, size_t at, size_t count, const char **list,
                      char **room) {
    struct serve_reader again = {.in = reader->in, .at = at};
    for (size_t i = 0; i < count; i++) {
        struct slice slice = {0};
        take_slice(&again, &slice, NULL);
        list[i] = copy_slice(&slice, room);
    }
}

static struct path_info *info_from_draft(const struct serve_reader *reader,
                                         const struct info_draft *draft) {
    size_t refs = (size_t)draft->ref_count;
    size_t sigs = (size_t)draft->sig_count;
    size_t lists = (refs + sigs) * sizeof(char *);
    struct path_info *info = xcalloc(1, sizeof(*info) + lists + draft->text_bytes);
    const char **list = (const char **)(void *)(info + 1);
    char *room = (char *)(void *)(info + 1) + lists;
    info->path = copy_slice(&draft->path, &room);
    info->deriver = copy_slice(&draft->deriver, &room);
    info->ca = copy_slice(&draft->ca, &room);
    info->nar_size = draft->nar_size;
    info->refs = list;
    info->ref_count = refs;
    copy_list(reader, draft->refs_at, refs, list, &room);
    info->sigs = list + refs;
    info->sig_count = sigs;
    copy_list(reader, draft->sigs_at, sigs, list + refs, &room);
    return info;
}

static int check_info(const struct path_info *info, const struct info_draft *draft,
                      struct error *error) {
    bool good = store_path_is_valid(info->path) && info->nar_size > 0 &&
                info->nar_size <= NAR_SIZE_MAX &&
                (info->deriver[0] == '\0' || store_path_is_valid(info->deriver));
    for (size_t i = 0; good && i < info->ref_count; i++) {
        good = store_path_is_valid(info->refs[i]);
    }
    if (good) {
        return 0;
    }
    AUTO_FREE char *clean = text_cleaned(draft->path.data, draft->path.len);
    return error_set(error, FLEET_ERR_PROTOCOL, "copy-failed",
                     "nix-store sent an info of \"%.200s\" that makes no sense", clean);
}

int serve_take_info(struct serve_reader *reader, struct path_info **ret_info, struct error *error) {
    size_t begin = reader->at;
    struct info_draft draft = {0};
    int got = take_draft(reader, &draft, error);
    if (got == 0 && reader->in.len - begin > ENTRY_MAX) {
        error_set(error, FLEET_ERR_PROTOCOL, "copy-failed",
                  "nix-store sent an info of more than %u bytes", ENTRY_MAX);
        got = FLEET_ERR_PROTOCOL;
    }
    if (got != 1) {
        reader->at = begin;
        return got;
    }
    if (draft.path.len == 0) {
        *ret_info = NULL;
        return 1;
    }
    struct path_info *info = info_from_draft(reader, &draft);
    int err = check_info(info, &draft, error);
    if (err == 0 && !hash_to_hex(&draft.hash, info->nar_hash)) {
        err = error_set(error, FLEET_ERR_PROTOCOL, "copy-failed",
                        "nix-store sent no SHA-256 for %s", info->path);
    }
    if (err != 0) {
        free(info);
        return err;
    }
    *ret_info = info;
    return 1;
}
