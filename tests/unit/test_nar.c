#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"
#include "transport/nar.h"

#define CORPUS "tests/fuzz/corpus/nar/"
/* From sha256sum. */
#define MIXED_HASH "385b86f9df81a00afb26822cf9cd63f47221e8f033bb02aa8f0165484d212d68"

static struct buf read_file(const char *name) {
    AUTO_FREE char *path = xasprintf(CORPUS "%s", name);
    FILE *file = fopen(path, "rb");
    cr_assert_not_null(file, "%s", path);
    struct buf bytes = BUF_INIT;
    for (int c; (c = fgetc(file)) != EOF;) {
        buf_add_char(&bytes, (char)c);
    }
    fclose(file);
    return bytes;
}

/* Reads `bytes` in pieces of `piece`; returns the last answer. */
static int read_in_pieces(struct nar_reader *reader, const struct buf *bytes, size_t piece,
                          size_t *ret_used, struct error *error) {
    int state = NAR_MORE;
    *ret_used = 0;
    for (size_t at = 0; at < bytes->len && state == NAR_MORE; at += piece) {
        size_t len = bytes->len - at < piece ? bytes->len - at : piece;
        /* An exact copy, so that AddressSanitizer sees a read beyond it. */
        AUTO_FREE char *copy = xmemdup(bytes->data + at, len);
        size_t used = 0;
        state = nar_read(reader, copy, len, &used, error);
        *ret_used += used;
    }
    return state;
}

static void expect_refused(const char *name, const char *words) {
    struct buf bytes = read_file(name);
    struct nar_reader *reader = nar_reader_new();
    struct error error = ERROR_INIT;
    size_t used;
    for (size_t piece = 1; piece < 70; piece += 23) {
        nar_reader_reset(reader);
        cr_expect_eq(read_in_pieces(reader, &bytes, piece, &used, &error), FLEET_ERR_PROTOCOL, "%s",
                     name);
        cr_expect(strstr(error.message, words) != NULL, "%s: %s", name, error.message);
    }
    nar_reader_free(reader);
    buf_free(&bytes);
}

Test(nar, finds_the_end_and_the_hash_however_it_is_cut) {
    struct buf bytes = read_file("mixed");
    size_t nar_len = bytes.len;
    buf_add_text(&bytes, "what follows is not the NAR's");
    struct nar_reader *reader = nar_reader_new();
    for (size_t piece = 1; piece < 300; piece++) {
        size_t used;
        char hash[65];
        nar_reader_reset(reader);
        cr_assert_eq(read_in_pieces(reader, &bytes, piece, &used, NULL), NAR_END);
        cr_expect_eq(used, nar_len);
        cr_expect_eq(nar_size(reader), nar_len);
        nar_hash(reader, hash);
        cr_expect_str_eq(hash, MIXED_HASH);
    }
    nar_reader_free(reader);
    buf_free(&bytes);
}

Test(nar, takes_every_kind_of_node) {
    static const char *const names[] = {"file",    "empty-file",   "executable",
                                        "symlink", "empty-folder", "depth-64"};
    struct nar_reader *reader = nar_reader_new();
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct buf bytes = read_file(names[i]);
        struct error error = ERROR_INIT;
        size_t used;
        nar_reader_reset(reader);
        cr_expect_eq(read_in_pieces(reader, &bytes, 5, &used, &error), NAR_END, "%s: %s", names[i],
                     error.message);
        cr_expect_eq(used, bytes.len);
        buf_free(&bytes);
    }
    nar_reader_free(reader);
}

Test(nar, wants_more_where_it_is_cut_short) {
    struct buf bytes = read_file("file");
    struct nar_reader *reader = nar_reader_new();
    for (size_t len = 0; len < bytes.len; len++) {
        struct buf part = {bytes.data, len, 0};
        size_t used;
        nar_reader_reset(reader);
        cr_expect_eq(read_in_pieces(reader, &part, 3, &used, NULL), NAR_MORE, "%zu", len);
    }
    nar_reader_free(reader);
    buf_free(&bytes);
}

Test(nar, refuses_what_nix_would_not_write) {
    expect_refused("unsorted", "order");
    expect_refused("twice", "order");
    expect_refused("dotdot", "not allowed");
    expect_refused("slash", "not allowed");
    expect_refused("depth-65", "deeply");
    expect_refused("padding", "padding");
    expect_refused("endless", "too long");
    expect_refused("long-token", "too long");
}
