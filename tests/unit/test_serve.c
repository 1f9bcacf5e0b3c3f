#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "transport/nar.h"
#include "transport/serve.h"

static const char *const versions[] = {"2.3.7", "2.8.0", "2.26.3", "2.34.8"};

static struct buf read_file(const char *format, const char *version) {
    AUTO_FREE char *path = xasprintf("tests/unit/fixtures/serve-%s-%s", version, format);
    FILE *file = fopen(path, "rb");
    cr_assert_not_null(file, "%s", path);
    struct buf bytes = BUF_INIT;
    for (int c; (c = fgetc(file)) != EOF;) {
        buf_add_char(&bytes, (char)c);
    }
    fclose(file);
    return bytes;
}

/* Feeds `piece` bytes at a time, as much as a take function asks for. */
struct feeder {
    struct serve_reader reader;
    struct buf bytes;
    size_t at;
    size_t piece;
    struct error error;
};

static bool feed(struct feeder *feeder) {
    size_t left = feeder->bytes.len - feeder->at;
    size_t len = left < feeder->piece ? left : feeder->piece;
    serve_reader_feed(&feeder->reader, feeder->bytes.data + feeder->at, len);
    feeder->at += len;
    return len > 0;
}

#define TAKE(feeder, call)                                                                         \
    do {                                                                                           \
        int got_;                                                                                  \
        while ((got_ = (call)) == 0) {                                                             \
            cr_assert(feed(feeder), "the fixture ended early");                                    \
        }                                                                                          \
        cr_assert_eq(got_, 1, "%s", (feeder)->error.message);                                      \
    } while (0)

static uint64_t take_hello_and_count(struct feeder *feeder) {
    uint32_t version;
    uint64_t count;
    TAKE(feeder, serve_take_hello(&feeder->reader, &version, &feeder->error));
    TAKE(feeder, serve_take_count(&feeder->reader, 100, &count, &feeder->error));
    return count;
}

static void take_paths(struct feeder *feeder, uint64_t count) {
    for (uint64_t i = 0; i < count; i++) {
        char *path;
        TAKE(feeder, serve_take_path(&feeder->reader, &path, &feeder->error));
        cr_expect(store_path_is_valid(path));
        free(path);
    }
}

static void read_source(const char *version, size_t piece) {
    struct feeder feeder = {.bytes = read_file("source", version), .piece = piece};
    take_paths(&feeder, take_hello_and_count(&feeder));
    int infos = 0;
    char mixed_hash[65] = "";
    for (struct path_info *info;; infos++) {
        TAKE(&feeder, serve_take_info(&feeder.reader, &info, &feeder.error));
        if (info == NULL) {
            break;
        }
        if (strstr(info->path, "mixed") != NULL) {
            memcpy(mixed_hash, info->nar_hash, sizeof(mixed_hash));
            cr_expect_eq(info->ref_count, 1u);
            cr_expect_str_eq(info->refs[0], info->path);
            cr_expect_str_empty(info->deriver);
        }
        if (strstr(info->path, "top") != NULL) {
            cr_expect_eq(info->ref_count, 4u);
        }
        free(info);
    }
    cr_expect_eq(infos, 5);
    struct nar_reader *nar = nar_reader_new();
    char hash[65];
    while (feed(&feeder)) {
    }
    size_t len;
    size_t used;
    const char *rest = serve_reader_rest(&feeder.reader, &len);
    cr_assert_eq(nar_read(nar, rest, len, &used, &feeder.error), NAR_END);
    cr_expect_eq(used, len);
    nar_hash(nar, hash);
    cr_expect_str_eq(hash, mixed_hash, "the hash in nix32 and the NAR's own differ");
    nar_reader_free(nar);
    serve_reader_free(&feeder.reader);
    buf_free(&feeder.bytes);
}

Test(serve, reads_a_source_of_each_version_however_it_is_cut) {
    for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
        for (size_t piece = 1; piece < 40; piece++) {
            read_source(versions[i], piece);
        }
        read_source(versions[i], 100000);
    }
}

Test(serve, reads_a_target_of_each_version) {
    for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
        struct feeder feeder = {.bytes = read_file("target", versions[i]), .piece = 7};
        cr_expect_eq(take_hello_and_count(&feeder), 0u);
        uint64_t value;
        for (int ack = 0; ack < 5; ack++) {
            TAKE(&feeder, serve_take_int(&feeder.reader, &value));
            cr_expect_eq(value, 1u);
        }
        TAKE(&feeder, serve_take_count(&feeder.reader, 5, &value, &feeder.error));
        cr_expect_eq(value, 5u);
        take_paths(&feeder, value);
        cr_expect_not(feed(&feeder));
        serve_reader_free(&feeder.reader);
        buf_free(&feeder.bytes);
    }
}

static struct error hello_error(const char *bytes, size_t len) {
    struct serve_reader reader = {0};
    struct error error = ERROR_INIT;
    uint32_t version;
    serve_reader_feed(&reader, bytes, len);
    cr_expect_eq(serve_take_hello(&reader, &version, &error), FLEET_ERR_PROTOCOL);
    serve_reader_free(&reader);
    return error;
}

Test(serve, shows_what_is_no_greeting_at_its_first_byte) {
    struct error error = hello_error("W\x1b[31m", 5);
    cr_expect(strstr(error.message, "\"W\"") != NULL, "%s", error.message);
}

Test(serve, names_a_server_that_is_too_old) {
    static const char old[16] = "\xcb\xee\x52\x54\0\0\0\0\x04\x02";
    cr_expect_str_eq(hello_error(old, sizeof(old)).reason, "nix-too-old");
    static const char other[16] = "\xcb\xee\x52\x54\0\0\0\0\x05\x03";
    cr_expect_str_eq(hello_error(other, sizeof(other)).reason, "copy-failed");
}

Test(serve, takes_a_newer_server) {
    static const char newer[16] = "\xcb\xee\x52\x54\0\0\0\0\x08\x02";
    struct serve_reader reader = {0};
    struct error error = ERROR_INIT;
    uint32_t version = 0;
    serve_reader_feed(&reader, newer, sizeof(newer));
    cr_expect_eq(serve_take_hello(&reader, &version, &error), 1, "%s", error.message);
    cr_expect_eq(version, 0x208u);
    serve_reader_free(&reader);
}

Test(serve, writes_the_exchange_of_the_protocol_notes) {
    /* NIX-PROTOCOL 2.7, recorded from Nix 2.8. */
    static const char path[] = "/nix/store/00000000000000000000000000000001-hi";
    struct buf out = BUF_INIT;
    serve_put_hello(&out);
    serve_put_query_valid(&out, true, false, 1);
    serve_put_text(&out, path);
    static const unsigned char head[] = {
        0xeb, 0x9d, 0x0c, 0x39, 0, 0, 0, 0, 0x07, 0x02, 0,    0, 0, 0, 0, 0, 1, 0, 0,
        0,    0,    0,    0,    0, 1, 0, 0, 0,    0,    0,    0, 0, 0, 0, 0, 0, 0, 0,
        0,    0,    1,    0,    0, 0, 0, 0, 0,    0,    0x2e, 0, 0, 0, 0, 0, 0, 0};
    cr_assert_eq(out.len, sizeof(head) + 48);
    cr_expect_eq(memcmp(out.data, head, sizeof(head)), 0);
    cr_expect_eq(memcmp(out.data + sizeof(head), path, 46), 0);
    cr_expect_eq(memcmp(out.data + sizeof(head) + 46, "\0\0", 2), 0);
    buf_free(&out);
}

static int take_text_of(const struct buf *bytes, struct error *error) {
    struct serve_reader reader = {0};
    char *text = NULL;
    serve_reader_feed(&reader, bytes->data, bytes->len);
    int got = serve_take_text(&reader, &text, error);
    free(text);
    serve_reader_free(&reader);
    return got;
}

Test(serve, bounds_what_a_peer_announces) {
    struct error error = ERROR_INIT;
    struct buf bytes = BUF_INIT;
    serve_put_int(&bytes, SERVE_TEXT_MAX + 1);
    cr_expect_eq(take_text_of(&bytes, &error), FLEET_ERR_PROTOCOL);
    buf_clear(&bytes);
    serve_put_int(&bytes, UINT64_MAX);
    cr_expect_eq(take_text_of(&bytes, &error), FLEET_ERR_PROTOCOL);
    struct serve_reader reader = {0};
    uint64_t count;
    serve_reader_feed(&reader, bytes.data, bytes.len);
    cr_expect_eq(serve_take_count(&reader, 10, &count, &error), FLEET_ERR_PROTOCOL);
    serve_reader_free(&reader);
    buf_free(&bytes);
}

Test(serve, refuses_padding_and_zeros_inside) {
    struct error error = ERROR_INIT;
    struct buf bytes = BUF_INIT;
    serve_put_text(&bytes, "abc");
    cr_expect_eq(take_text_of(&bytes, &error), 1);
    bytes.data[15] = 'x';
    cr_expect_eq(take_text_of(&bytes, &error), FLEET_ERR_PROTOCOL);
    bytes.data[15] = '\0';
    bytes.data[9] = '\0';
    cr_expect_eq(take_text_of(&bytes, &error), FLEET_ERR_PROTOCOL);
    buf_free(&bytes);
}
