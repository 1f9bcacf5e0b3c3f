/* The NAR reader: a push-down automaton over tokens (see nar.h).
 *
 * A token is a length, bytes and zero padding to 8. Short tokens are gathered whole, wherever the
 * data is cut; a file's contents are only counted. What may come next is `expect`; a level of the
 * directory tree is a `struct level` with the last name seen in it, since names must ascend.
 *
 *   MAGIC → OPEN → TYPE_KEY → TYPE ─ regular ──→ CONTENTS_KEY → CONTENTS ──→ CLOSE
 *            ↑                     ├ symlink ──→ TARGET_KEY → TARGET ──────→ CLOSE
 *            │                     └ directory → ENTRY ─ ")" ──→ (node's end)
 *            └──── NODE_KEY ← NAME ← NAME_KEY ← ENTRY_OPEN ←┘ "entry"
 *   A node's end at depth 0 ends the NAR; else ENTRY_CLOSE closes the entry around it.
 */
#include "transport/nar.h"

#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"

enum expect {
    EXPECT_MAGIC,
    EXPECT_OPEN,
    EXPECT_TYPE_KEY,
    EXPECT_TYPE,
    EXPECT_CONTENTS_KEY,
    EXPECT_EXECUTABLE_VALUE,
    EXPECT_CONTENTS_KEY_ONLY,
    EXPECT_CONTENTS,
    EXPECT_CLOSE,
    EXPECT_TARGET_KEY,
    EXPECT_TARGET,
    EXPECT_ENTRY,
    EXPECT_ENTRY_OPEN,
    EXPECT_NAME_KEY,
    EXPECT_NAME,
    EXPECT_NODE_KEY,
    EXPECT_ENTRY_CLOSE,
    EXPECT_NOTHING,
};

struct level {
    uint16_t name_len; /* 0: no entry yet */
    char name[NAR_NAME_MAX + 1];
};

/* The longest token that is gathered: a symlink's target. */
#define TOKEN_MAX (NAR_TARGET_MAX + 8u)

struct nar_reader {
    EVP_MD_CTX *digest;
    unsigned char hash[32];
    uint64_t size;
    enum expect expect;
    unsigned depth; /* of directories around the node at hand */
    struct level levels[NAR_DEPTH_MAX];

    bool in_token; /* the length is known */
    uint64_t left; /* bytes of the token and its padding still to come */
    uint64_t token_len;
    size_t gathered; /* bytes in `token` */
    char token[TOKEN_MAX];
};

/* Most tokens are fixed words; the table says which, and what follows. */
static const struct {
    const char *word;
    enum expect next;
} fixed[] = {
    [EXPECT_MAGIC] = {"nix-archive-1", EXPECT_OPEN},
    [EXPECT_OPEN] = {"(", EXPECT_TYPE_KEY},
    [EXPECT_TYPE_KEY] = {"type", EXPECT_TYPE},
    [EXPECT_EXECUTABLE_VALUE] = {"", EXPECT_CONTENTS_KEY_ONLY},
    [EXPECT_CONTENTS_KEY_ONLY] = {"contents", EXPECT_CONTENTS},
    [EXPECT_TARGET_KEY] = {"target", EXPECT_TARGET},
    [EXPECT_ENTRY_OPEN] = {"(", EXPECT_NAME_KEY},
    [EXPECT_NAME_KEY] = {"name", EXPECT_NAME},
    [EXPECT_NODE_KEY] = {"node", EXPECT_OPEN},
    [EXPECT_NOTHING] = {NULL, EXPECT_NOTHING},
};

struct nar_reader *nar_reader_new(void) {
    struct nar_reader *reader = xcalloc(1, sizeof(*reader));
    reader->digest = EVP_MD_CTX_new();
    if (reader->digest == NULL) {
        abort(); /* out of memory is fatal, as in xalloc */
    }
    nar_reader_reset(reader);
    return reader;
}

void nar_reader_reset(struct nar_reader *reader) {
    if (EVP_DigestInit_ex(reader->digest, EVP_sha256(), NULL) != 1) {
        abort();
    }
    reader->size = 0;
    reader->expect = EXPECT_MAGIC;
    reader->depth = 0;
    reader->in_token = false;
    reader->gathered = 0;
    reader->left = 0;
}

void nar_reader_free(struct nar_reader *reader) {
    if (reader != NULL) {
        EVP_MD_CTX_free(reader->digest);
        free(reader);
    }
}

uint64_t nar_size(const struct nar_reader *reader) {
    return reader->size;
}

void nar_hash(const struct nar_reader *reader, char ret_hex[65]) {
    for (size_t i = 0; i < sizeof(reader->hash); i++) {
        snprintf(ret_hex + 2 * i, 3, "%02x", reader->hash[i]);
    }
}

static int bad(const struct nar_reader *reader, struct error *error, const char *what) {
    return error_set(error, FLEET_ERR_PROTOCOL, "bad-nar",
                     "not a valid NAR: %s, before byte %llu of it", what,
                     (unsigned long long)reader->size);
}

static bool token_is(const struct nar_reader *reader, const char *word) {
    return reader->token_len == strlen(word) && memcmp(reader->token, word, reader->token_len) == 0;
}

/* The node at hand is over: either the whole NAR or the entry around the node. */
static void node_end(struct nar_reader *reader) {
    reader->expect = reader->depth == 0 ? EXPECT_NOTHING : EXPECT_ENTRY_CLOSE;
}

static int take_type(struct nar_reader *reader, struct error *error) {
    if (token_is(reader, "regular")) {
        reader->expect = EXPECT_CONTENTS_KEY;
    } else if (token_is(reader, "symlink")) {
        reader->expect = EXPECT_TARGET_KEY;
    } else if (token_is(reader, "directory")) {
        if (reader->depth == NAR_DEPTH_MAX) {
            return bad(reader, error, "folders are nested too deeply");
        }
        reader->levels[reader->depth++].name_len = 0;
        reader->expect = EXPECT_ENTRY;
    } else {
        return bad(reader, error, "unknown file type");
    }
    return 0;
}

/* Names are compared as unsigned bytes and must ascend strictly, as Nix's own reader demands. */
static int take_name(struct nar_reader *reader, struct error *error) {
    struct level *level = &reader->levels[reader->depth - 1];
    const char *name = reader->token;
    size_t len = (size_t)reader->token_len;
    if (len == 0 || token_is(reader, ".") || token_is(reader, "..") ||
        memchr(name, '/', len) != NULL || memchr(name, '\0', len) != NULL) {
        return bad(reader, error, "a file name that is not allowed");
    }
    size_t shorter = len < level->name_len ? len : level->name_len;
    int order = memcmp(level->name, name, shorter);
    if (level->name_len > 0 && (order > 0 || (order == 0 && level->name_len >= len))) {
        return bad(reader, error, "file names out of order");
    }
    memcpy(level->name, name, len);
    level->name_len = (uint16_t)len;
    reader->expect = EXPECT_NODE_KEY;
    return 0;
}

/* A whole token has come in, padding included. */
static int take_token(struct nar_reader *reader, struct error *error) {
    switch (reader->expect) {
    case EXPECT_TYPE:
        return take_type(reader, error);
    case EXPECT_NAME:
        return take_name(reader, error);
    case EXPECT_CONTENTS:
        reader->expect = EXPECT_CLOSE;
        return 0;
    case EXPECT_TARGET:
        if (reader->token_len == 0 || memchr(reader->token, '\0', reader->token_len) != NULL) {
            return bad(reader, error, "a symlink whose target is not allowed");
        }
        reader->expect = EXPECT_CLOSE;
        return 0;
    case EXPECT_CONTENTS_KEY:
        if (token_is(reader, "executable")) {
            reader->expect = EXPECT_EXECUTABLE_VALUE;
            return 0;
        }
        reader->expect = EXPECT_CONTENTS;
        return token_is(reader, "contents") ? 0 : bad(reader, error, "contents are missing");
    case EXPECT_CLOSE:
        node_end(reader);
        return token_is(reader, ")") ? 0 : bad(reader, error, "a node is not closed");
    case EXPECT_ENTRY:
        if (token_is(reader, "entry")) {
            reader->expect = EXPECT_ENTRY_OPEN;
            return 0;
        }
        reader->depth--;
        node_end(reader);
        return token_is(reader, ")") ? 0 : bad(reader, error, "a folder is not closed");
    case EXPECT_ENTRY_CLOSE:
        reader->expect = EXPECT_ENTRY;
        return token_is(reader, ")") ? 0 : bad(reader, error, "an entry is not closed");
    case EXPECT_MAGIC:
    case EXPECT_OPEN:
    case EXPECT_TYPE_KEY:
    case EXPECT_EXECUTABLE_VALUE:
    case EXPECT_CONTENTS_KEY_ONLY:
    case EXPECT_TARGET_KEY:
    case EXPECT_ENTRY_OPEN:
    case EXPECT_NAME_KEY:
    case EXPECT_NODE_KEY:
        if (!token_is(reader, fixed[reader->expect].word)) {
            return bad(reader, error, "an unexpected word");
        }
        reader->expect = fixed[reader->expect].next;
        return 0;
    case EXPECT_NOTHING:
        break;
    }
    return bad(reader, error, "bytes after the end");
}

static uint64_t token_limit(enum expect expect) {
    if (expect == EXPECT_CONTENTS) {
        return UINT64_MAX - 7; /* the padded length must not wrap */
    }
    if (expect == EXPECT_NAME) {
        return NAR_NAME_MAX;
    }
    return expect == EXPECT_TARGET ? NAR_TARGET_MAX : 16;
}

/* The length's eight bytes are in `token`. */
static int begin_token(struct nar_reader *reader, struct error *error) {
    uint64_t len = 0;
    for (unsigned i = 0; i < 8; i++) {
        len |= (uint64_t)(unsigned char)reader->token[i] << (8 * i);
    }
    if (len > token_limit(reader->expect)) {
        return bad(reader, error, "a token that is too long");
    }
    reader->in_token = true;
    reader->token_len = len;
    reader->left = (len + 7) & ~(uint64_t)7;
    reader->gathered = 0;
    return 0;
}

/* Contents are skipped up to their last eight bytes, which are gathered for the padding's sake. */
static size_t skip_contents(struct nar_reader *reader, size_t len) {
    if (reader->expect != EXPECT_CONTENTS || reader->left <= 8) {
        return 0;
    }
    uint64_t room = reader->left - 8;
    size_t used = len < room ? len : (size_t)room;
    reader->left -= used;
    return used;
}

static size_t gather(struct nar_reader *reader, const char *data, size_t len, uint64_t want) {
    size_t used = len < want ? len : (size_t)want;
    memcpy(reader->token + reader->gathered, data, used);
    reader->gathered += used;
    return used;
}

static bool padding_is_zero(const struct nar_reader *reader) {
    size_t padding = (size_t)(-reader->token_len & 7);
    for (size_t i = reader->gathered - padding; i < reader->gathered; i++) {
        if (reader->token[i] != '\0') {
            return false;
        }
    }
    return true;
}

static int end_token(struct nar_reader *reader, struct error *error) {
    if (!padding_is_zero(reader)) {
        return bad(reader, error, "padding that is not zero");
    }
    reader->in_token = false;
    reader->gathered = 0;
    return take_token(reader, error);
}

/* One step: a length, a piece of a token, or a token's end. */
static int step(struct nar_reader *reader, const char *data, size_t len, size_t *ret_used,
                struct error *error) {
    size_t used;
    if (!reader->in_token) {
        used = gather(reader, data, len, 8 - reader->gathered);
        reader->size += used;
        *ret_used = used;
        if (reader->gathered < 8) {
            return 0;
        }
        int err = begin_token(reader, error);
        return err == 0 && reader->left == 0 ? end_token(reader, error) : err;
    }
    used = skip_contents(reader, len);
    bool skipping = reader->expect == EXPECT_CONTENTS && reader->left > 8;
    size_t more = skipping ? 0 : gather(reader, data + used, len - used, reader->left);
    reader->left -= more;
    used += more;
    reader->size += used;
    *ret_used = used;
    return reader->left == 0 ? end_token(reader, error) : 0;
}

int nar_read(struct nar_reader *reader, const char *data, size_t len, size_t *ret_used,
             struct error *error) {
    size_t used = 0;
    while (used < len && reader->expect != EXPECT_NOTHING) {
        size_t more = 0;
        int err = step(reader, data + used, len - used, &more, error);
        if (err != 0) {
            return err;
        }
        used += more;
    }
    EVP_DigestUpdate(reader->digest, data, used);
    *ret_used = used;
    if (reader->expect != EXPECT_NOTHING) {
        return NAR_MORE;
    }
    EVP_DigestFinal_ex(reader->digest, reader->hash, NULL);
    return NAR_END;
}
