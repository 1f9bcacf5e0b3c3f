#include "tests/scale/hosts/store.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "tests/pipeline/machine.h"

enum {
    OP_QUERY_VALID = 1,
    OP_QUERY_INFOS = 2,
    OP_DUMP = 3,
    OP_QUERY_CLOSURE = 7,
    OP_ADD = 9,
    TOP = -1,
    UNKNOWN = -2,
    HASH_TEXT = 52,
    PATH_SIZE = 64
};

#define HELLO_CLIENT 0x390c9debu
#define HELLO_SERVER 0x5452eecbu

/* Every package's NAR is the same; so is the top's, that of an empty file. */
struct nar {
    struct buf bytes;
    char hash[HASH_TEXT + 1];
};

static struct store_contents contents;
static struct nar package_nar, top_nar;

static void nar_make(struct nar *nar, uint64_t size) {
    static const char *const head[] = {"nix-archive-1", "(", "type", "regular", "contents"};
    static const char digits[] = "0123456789abcdfghijklmnpqrsvwxyz";
    for (size_t i = 0; i < ARRAY_LEN(head); i++) {
        serve_put_text(&nar->bytes, head[i]);
    }
    serve_put_int(&nar->bytes, size);
    uint64_t noise = 88172645463325252u;
    for (uint64_t i = 0; i < (size + 7) / 8 * 8; i++) {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        buf_add_char(&nar->bytes, i < size ? (char)(noise & 0xff) : '\0');
    }
    serve_put_text(&nar->bytes, ")");
    unsigned char digest[EVP_MAX_MD_SIZE];
    EVP_Digest(nar->bytes.data, nar->bytes.len, digest, NULL, EVP_sha256(), NULL);
    for (int n = 0; n < HASH_TEXT; n++) {
        unsigned bit = (unsigned)(HASH_TEXT - 1 - n) * 5;
        unsigned byte = bit / 8;
        unsigned value = (unsigned)digest[byte] >> (bit % 8);
        if (byte + 1 < 32) {
            value |= (unsigned)digest[byte + 1] << (8 - bit % 8);
        }
        nar->hash[n] = digits[value & 31];
    }
}

void store_contents_set(const struct store_contents *wanted) {
    contents = *wanted;
    nar_make(&package_nar, contents.package_bytes);
    nar_make(&top_nar, 0);
}

static void path_of(int64_t package, char ret_path[PATH_SIZE]) {
    if (package == TOP) {
        snprintf(ret_path, PATH_SIZE, "%s", NEW);
    } else {
        snprintf(ret_path, PATH_SIZE, "/nix/store/%032lld-package", (long long)package);
    }
}

static int64_t package_of(const char *path) {
    char known[PATH_SIZE];
    if (strcmp(path, NEW) == 0) {
        return TOP;
    }
    long long number = atoll(path + strlen("/nix/store/"));
    if (number < 0 || number >= (long long)contents.package_count) {
        return UNKNOWN;
    }
    path_of(number, known);
    return strcmp(path, known) == 0 ? (int64_t)number : UNKNOWN;
}

static const struct nar *nar_of(int64_t package) {
    return package == TOP ? &top_nar : &package_nar;
}

void store_init(struct store *store, bool lacks_all) {
    *store = (struct store){.lacks_top = lacks_all};
    if (lacks_all) {
        store->lacks = xmalloc(contents.package_count + 1);
        memset(store->lacks, true, contents.package_count + 1);
    }
}

void store_free(struct store *store) {
    free(store->lacks);
}

static bool has(const struct store *store, int64_t package) {
    if (package == UNKNOWN) {
        return false;
    }
    return package == TOP ? !store->lacks_top : store->lacks == NULL || !store->lacks[package];
}

/* ---- requests: each takes 1, lacks bytes with 0, or is refused with a negative number ---- */

static int skip_texts(struct serve_reader *reader) {
    struct error error = ERROR_INIT;
    uint64_t count = 0;
    int rc = serve_take_count(reader, SERVE_REFS_MAX, &count, &error);
    for (uint64_t i = 0; rc == 1 && i < count; i++) {
        char *text = NULL;
        rc = serve_take_text(reader, &text, &error);
        free(text);
    }
    return rc;
}

/* A list of paths as packages; freed by the caller. */
static int take_paths(struct serve_reader *reader, int64_t **ret, uint64_t *ret_count) {
    struct error error = ERROR_INIT;
    uint64_t count = 0;
    int rc = serve_take_count(reader, SERVE_LIST_MAX, &count, &error);
    if (rc != 1) {
        return rc;
    }
    int64_t *packages = xmalloc((count + 1) * sizeof(*packages));
    for (uint64_t i = 0; rc == 1 && i < count; i++) {
        char *path = NULL;
        rc = serve_take_path(reader, &path, &error);
        packages[i] = rc == 1 ? package_of(path) : UNKNOWN;
        free(path);
    }
    if (rc != 1) {
        free(packages);
        return rc;
    }
    *ret = packages;
    *ret_count = count;
    return 1;
}

static int query_valid(struct store_talk *talk, struct buf *out) {
    uint64_t flag = 0;
    uint64_t count = 0;
    int64_t *packages = NULL;
    int rc = serve_take_int(&talk->reader, &flag);
    rc = rc == 1 ? serve_take_int(&talk->reader, &flag) : rc;
    rc = rc == 1 ? take_paths(&talk->reader, &packages, &count) : rc;
    if (rc != 1) {
        return rc;
    }
    uint64_t valid = 0;
    for (uint64_t i = 0; i < count; i++) {
        valid += has(talk->store, packages[i]);
    }
    serve_put_int(out, valid);
    for (uint64_t i = 0; i < count; i++) {
        char path[PATH_SIZE];
        if (has(talk->store, packages[i])) {
            path_of(packages[i], path);
            serve_put_text(out, path);
        }
    }
    free(packages);
    return 1;
}

static void put_info(struct buf *out, int64_t package) {
    char path[PATH_SIZE];
    char hash[HASH_TEXT + 8];
    path_of(package, path);
    serve_put_text(out, path);
    serve_put_text(out, ""); /* deriver */
    serve_put_int(out, package == TOP ? contents.package_count : 0);
    for (int64_t i = 0; package == TOP && i < (int64_t)contents.package_count; i++) {
        path_of(i, path);
        serve_put_text(out, path);
    }
    serve_put_int(out, 0); /* download size */
    serve_put_int(out, nar_of(package)->bytes.len);
    snprintf(hash, sizeof(hash), "sha256:%s", nar_of(package)->hash);
    serve_put_text(out, hash);
    serve_put_text(out, ""); /* content address */
    serve_put_int(out, 0);   /* signatures */
}

static int query_infos(struct store_talk *talk, struct buf *out) {
    uint64_t count = 0;
    int64_t *packages = NULL;
    int rc = take_paths(&talk->reader, &packages, &count);
    for (uint64_t i = 0; rc == 1 && i < count; i++) {
        if (has(talk->store, packages[i])) {
            put_info(out, packages[i]);
        }
    }
    if (rc == 1) {
        serve_put_text(out, "");
        free(packages);
    }
    return rc;
}

static int query_closure(struct store_talk *talk, struct buf *out) {
    uint64_t flag = 0;
    uint64_t count = 0;
    int64_t *packages = NULL;
    int rc = serve_take_int(&talk->reader, &flag);
    rc = rc == 1 ? take_paths(&talk->reader, &packages, &count) : rc;
    if (rc != 1) {
        return rc;
    }
    free(packages);
    serve_put_int(out, contents.package_count + 1u);
    for (int64_t i = TOP; i < (int64_t)contents.package_count; i++) {
        char path[PATH_SIZE];
        path_of(i, path);
        serve_put_text(out, path);
    }
    return 1;
}

static int dump(struct store_talk *talk, struct buf *out) {
    struct error error = ERROR_INIT;
    char *path = NULL;
    int rc = serve_take_path(&talk->reader, &path, &error);
    if (rc == 1) {
        int64_t package = package_of(path);
        rc = package != UNKNOWN ? 1 : -1;
        buf_add(out, nar_of(package)->bytes.data, rc == 1 ? nar_of(package)->bytes.len : 0);
        free(path);
    }
    return rc;
}

static int add(struct store_talk *talk) {
    struct serve_reader *reader = &talk->reader;
    struct error error = ERROR_INIT;
    char *path = NULL;
    char *text = NULL;
    uint64_t number = 0;
    uint64_t size = 0;
    int rc = serve_take_path(reader, &path, &error);
    int64_t package = rc == 1 ? package_of(path) : UNKNOWN;
    free(path);
    for (int i = 0; rc == 1 && i < 2; i++) { /* deriver, hash */
        rc = serve_take_text(reader, &text, &error);
        free(text);
        text = NULL;
    }
    rc = rc == 1 ? skip_texts(reader) : rc; /* references */
    rc = rc == 1 ? serve_take_int(reader, &number) : rc;
    rc = rc == 1 ? serve_take_int(reader, &size) : rc;
    rc = rc == 1 ? serve_take_int(reader, &number) : rc;
    rc = rc == 1 ? skip_texts(reader) : rc; /* signatures */
    if (rc == 1) {
        rc = serve_take_text(reader, &text, &error);
        free(text);
    }
    if (rc == 1) {
        rc = package != UNKNOWN && size == nar_of(package)->bytes.len ? 1 : -1;
        talk->adding = package;
        talk->nar_left = size;
    }
    return rc;
}

/* Throws the NAR away that comes in; true when it is over and acknowledged, or there is none. */
static bool drain_nar(struct store_talk *talk, struct buf *out) {
    if (talk->nar_left == 0) {
        return true;
    }
    size_t have = 0;
    serve_reader_rest(&talk->reader, &have);
    size_t part = have < talk->nar_left ? have : (size_t)talk->nar_left;
    serve_reader_skip(&talk->reader, part);
    talk->nar_left -= part;
    talk->nar_bytes += part;
    if (talk->nar_left > 0) {
        return false;
    }
    if (talk->adding == TOP) {
        talk->store->lacks_top = false;
    } else if (talk->store->lacks != NULL) {
        talk->store->lacks[talk->adding] = false;
    }
    serve_put_int(out, 1);
    return true;
}

static int answer_one(struct store_talk *talk, struct buf *out) {
    uint64_t op = 0;
    uint64_t version = 0;
    int rc = serve_take_int(&talk->reader, &op);
    if (rc != 1) {
        return rc;
    }
    switch (op) {
    case HELLO_CLIENT:
        rc = serve_take_int(&talk->reader, &version);
        if (rc == 1) {
            serve_put_int(out, HELLO_SERVER);
            serve_put_int(out, SERVE_CLIENT_VERSION);
        }
        return rc;
    case OP_QUERY_VALID:
        return query_valid(talk, out);
    case OP_QUERY_INFOS:
        return query_infos(talk, out);
    case OP_DUMP:
        return dump(talk, out);
    case OP_QUERY_CLOSURE:
        return query_closure(talk, out);
    case OP_ADD:
        return add(talk);
    default:
        return -1;
    }
}

bool store_answer(struct store_talk *talk, struct buf *out) {
    while (drain_nar(talk, out)) {
        size_t before = talk->reader.at;
        int rc = answer_one(talk, out);
        if (rc == 0) {
            talk->reader.at = before; /* the request is taken again when more has come */
        }
        if (rc != 1) {
            return rc == 0;
        }
    }
    return true;
}

void store_talk_free(struct store_talk *talk) {
    serve_reader_free(&talk->reader);
}

static bool write_all(const char *data, size_t len) {
    while (len > 0) {
        ssize_t sent = write(STDOUT_FILENO, data, len);
        if (sent <= 0) {
            return false;
        }
        data += sent;
        len -= (size_t)sent;
    }
    return true;
}

int store_serve_stdio(void) {
    static char data[65536];
    struct store store;
    store_init(&store, false);
    struct store_talk talk = {.store = &store};
    bool well = true;
    ssize_t got = 0;
    while (well && (got = read(STDIN_FILENO, data, sizeof(data))) > 0) {
        struct buf out = BUF_INIT;
        serve_reader_feed(&talk.reader, data, (size_t)got);
        well = store_answer(&talk, &out) && write_all(out.data, out.len);
        buf_free(&out);
    }
    store_talk_free(&talk);
    store_free(&store);
    return well ? 0 : 1;
}
