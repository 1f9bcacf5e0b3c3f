#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"
#include "transport/nar.h"
#include "transport/nar_dump.h"

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

/* All of a dump, read in pieces of `piece`. */
static struct buf dump_in_pieces(const char *path, size_t piece) {
    struct nar_dump *dump = nar_dump_new(path);
    struct buf bytes = BUF_INIT;
    bool end = false;
    while (!end) {
        AUTO_FREE char *part = xmalloc(piece); /* so that AddressSanitizer sees its end */
        size_t len = 0;
        struct error error = ERROR_INIT;
        cr_assert_eq(nar_dump_read(dump, part, piece, &len, &end, &error), 0, "%s", error.message);
        buf_add(&bytes, part, len);
    }
    nar_dump_free(dump);
    return bytes;
}

Test(nar, dumps_a_tree_as_nix_does) {
    char folder[] = "/tmp/fleet-nar-XXXXXX";
    cr_assert_not_null(mkdtemp(folder));
    AUTO_FREE char *make = xasprintf(
        "cd %s && mkdir -p t/b/empty t/a.d t/a && printf hello >t/a/one && printf 12345678 "
        ">t/eight "
        "&& : >t/none && head -c 70000 /dev/zero >t/big && printf x >t/a-b && chmod 555 t/big && "
        "ln -s ../nowhere t/a/link && ln -s x t/b/y && touch 't/b/with space' t/B && "
        "ln -s t link && nix-store --dump t >t.nar && nix-store --dump t/big >big.nar && "
        "nix-store --dump link >link.nar",
        folder);
    cr_assert_eq(system(make), 0);
    static const char *const names[][2] = {
        {"t", "t.nar"}, {"t/big", "big.nar"}, {"link", "link.nar"}};
    static const size_t pieces[] = {1, 7, 8, 4096, 100000, 1000000};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        AUTO_FREE char *path = xasprintf("%s/%s", folder, names[i][0]);
        AUTO_FREE char *file = xasprintf("%s/%s", folder, names[i][1]);
        for (size_t p = 0; p < ARRAY_LEN(pieces); p++) {
            struct buf ours = dump_in_pieces(path, pieces[p]);
            FILE *nix = fopen(file, "rb");
            AUTO_FREE char *theirs = xmalloc(ours.len + 1);
            cr_expect_eq(fread(theirs, 1, ours.len + 1, nix), ours.len, "%s", names[i][0]);
            cr_expect_eq(memcmp(theirs, ours.data, ours.len), 0, "%s", names[i][0]);
            fclose(nix);
            buf_free(&ours);
        }
    }
    AUTO_FREE char *clean = xasprintf("chmod -R u+w %s; rm -rf %s", folder, folder);
    cr_expect_eq(system(clean), 0);
}

Test(nar, does_not_dump_what_an_archive_cannot_hold) {
    char folder[] = "/tmp/fleet-nar-XXXXXX";
    cr_assert_not_null(mkdtemp(folder));
    AUTO_FREE char *make = xasprintf("mkfifo %s/pipe", folder);
    cr_assert_eq(system(make), 0);
    AUTO_FREE char *missing = xasprintf("%s/missing", folder);
    char part[1000];
    size_t len;
    bool end;
    struct error error = ERROR_INIT;
    struct nar_dump *dump = nar_dump_new(folder);
    cr_expect_eq(nar_dump_read(dump, part, sizeof(part), &len, &end, &error), FLEET_ERR_PROTOCOL);
    cr_expect_str_eq(error.reason, "source-corrupt");
    cr_expect(strstr(error.message, "pipe") != NULL, "%s", error.message);
    nar_dump_free(dump);
    dump = nar_dump_new(missing);
    cr_expect_eq(nar_dump_read(dump, part, sizeof(part), &len, &end, &error), FLEET_ERR_SYSTEM);
    cr_expect_str_eq(error.reason, "source-unreadable");
    nar_dump_free(dump);
    AUTO_FREE char *clean = xasprintf("rm -rf %s", folder);
    cr_expect_eq(system(clean), 0);
}
