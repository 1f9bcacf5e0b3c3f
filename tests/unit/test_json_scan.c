#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"
#include "inventory/json_doc.h"
#include "inventory/json_scan.h"

/* Scans a copy of `text` with `len` bytes; the blanked copy is the caller's. */
static int scan(const char *text, size_t len, char **ret_blanked, struct json_positions *positions,
                struct json_fault *fault) {
    *ret_blanked = xmalloc(len + 1);
    memcpy(*ret_blanked, text, len);
    (*ret_blanked)[len] = '\0';
    return json_scan(*ret_blanked, len, positions, fault);
}

static void expect_blanked(const char *text, const char *wanted) {
    struct json_positions positions = {0};
    struct json_fault fault = {0};
    char *blanked;
    cr_assert_eq(scan(text, strlen(text), &blanked, &positions, &fault), 0, "%s: %s", text,
                 fault.message);
    cr_assert_str_eq(blanked, wanted);
    free(blanked);
    free(positions.items);
}

static void expect_fault_bytes(const char *text, size_t len, size_t offset, const char *words) {
    struct json_positions positions = {0};
    struct json_fault fault = {0};
    char *blanked;
    cr_assert_neq(scan(text, len, &blanked, &positions, &fault), 0, "%s", text);
    cr_assert_eq(fault.offset, offset, "%s: %zu, %s", text, fault.offset, fault.message);
    cr_assert_not_null(strstr(fault.message, words), "%s: %s", text, fault.message);
    free(blanked);
    free(positions.items);
}

static void expect_fault(const char *text, size_t offset, const char *words) {
    expect_fault_bytes(text, strlen(text), offset, words);
}

Test(json_scan, blanks_comments_and_trailing_commas_in_place) {
    expect_blanked("{\"a\":1,}", "{\"a\":1 }");
    expect_blanked("[1, 2 , ] // end", "[1, 2   ]       ");
    expect_blanked("/* ü\n */{}", "     \n   {}");
    expect_blanked("{\"a\": \"// /* no comment\"}", "{\"a\": \"// /* no comment\"}");
    expect_blanked("[1, // one\n /* two */ ]", "[1        \n           ]");
    expect_blanked("\xef\xbb\xbf{}", "   {}");
}

Test(json_scan, notes_positions_in_document_order) {
    struct json_positions positions = {0};
    struct json_fault fault;
    char *blanked;
    static const char text[] = "{\"a\": [1, {\"b\": true}], /**/ \"c\": null}";
    cr_assert_eq(scan(text, strlen(text), &blanked, &positions, &fault), 0);
    static const struct json_position wanted[] = {
        {JSON_NO_KEY, 0}, {1, 6}, {JSON_NO_KEY, 7}, {JSON_NO_KEY, 10}, {11, 16}, {29, 34},
    };
    cr_assert_eq(positions.count, ARRAY_LEN(wanted));
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
        cr_assert_eq(positions.items[i].key, wanted[i].key, "%zu", i);
        cr_assert_eq(positions.items[i].value, wanted[i].value, "%zu", i);
    }
    free(blanked);
    free(positions.items);
}

Test(json_scan, refuses_what_cjson_would_take) {
    expect_fault("{\"a\": 01}", 6, "cannot begin with 0");
    expect_fault("[-012]", 1, "cannot begin with 0");
    expect_fault("{} {}", 3, "the end of the file");
    expect_fault("{} x", 3, "the end of the file");
    expect_fault("[\"\\u0000\"]", 2, "NUL");
    expect_fault("[\"\t\"]", 2, "control character");
    expect_fault_bytes("{}\0", 3, 2, "NUL");
    expect_fault("[1.]", 1, "digit after its point");
    expect_fault("[1e]", 1, "digit after its e");
    expect_fault("[+1]", 1, "unexpected \"+\"");
    expect_fault("[.5]", 1, "a value");
}

Test(json_scan, says_what_is_wrong_with_broken_text) {
    expect_fault("", 0, "the file ends");
    expect_fault("{", 1, "a key in double quotes");
    expect_fault("{\"a\"}", 4, "\":\"");
    expect_fault("{\"a\" 1}", 5, "\":\"");
    expect_fault("{\"a\": }", 6, "a value");
    expect_fault("{\"a\": 1 \"b\": 2}", 8, "\",\" or \"}\"");
    expect_fault("[1 2]", 3, "\",\" or \"]\"");
    expect_fault("[1,,2]", 3, "a value");
    expect_fault("[,]", 1, "a value");
    expect_fault("{,}", 1, "a key");
    expect_fault("{a: 1}", 1, "a key in double quotes");
    expect_fault("['a']", 1, "double quotes");
    expect_fault("[\"a", 1, "closing quote");
    expect_fault("[\"a\n\"]", 1, "closing quote");
    expect_fault("[\"\\x\"]", 2, "unknown escape");
    expect_fault("[\"\\", 2, "unknown escape");
    expect_fault("[\"\\u12g4\"]", 2, "hexadecimal");
    expect_fault("[\"\\ud800\"]", 2, "surrogate");
    expect_fault("[\"\\ud800\\u0041\"]", 2, "surrogate");
    expect_fault("[\"\\udc00\"]", 2, "surrogate");
    expect_fault("{} /* open", 3, "never ends");
    expect_fault("{} / x", 3, "comment");
    expect_fault("/*/", 0, "never ends");
    expect_fault("[tru]", 1, "a value");
}

Test(json_scan, refuses_bad_utf8_wherever_it_stands) {
    expect_fault("[\"a\xff\"]", 3, "UTF-8");
    expect_fault("// \xc0\xaf\n{}", 3, "UTF-8");
    expect_fault("[\"\xed\xa0\x80\"]", 2, "UTF-8");
    expect_fault("[\"\xe2\x82", 2, "UTF-8");
}

Test(json_scan, bounds_the_depth_and_numbers) {
    struct buf deep = BUF_INIT;
    for (int i = 0; i < JSON_DEPTH_MAX; i++) {
        buf_add_text(&deep, "[");
    }
    for (int i = 0; i < JSON_DEPTH_MAX; i++) {
        buf_add_text(&deep, "]");
    }
    expect_blanked(buf_text(&deep), buf_text(&deep));
    buf_clear(&deep);
    for (int i = 0; i < 1000000; i++) {
        buf_add_text(&deep, "{\"a\":");
    }
    expect_fault(buf_text(&deep), (size_t)JSON_DEPTH_MAX * 5, "deeper than");
    buf_clear(&deep);
    buf_add_text(&deep, "[");
    for (int i = 0; i < 70; i++) {
        buf_add_text(&deep, "1");
    }
    buf_add_text(&deep, "]");
    expect_fault(buf_text(&deep), 1, "more than 60");
    buf_free(&deep);
}

struct faults {
    size_t count;
    size_t offsets[8];
};

static void on_fault(void *arg, size_t offset, const struct json_node *node, const char *message) {
    struct faults *faults = arg;
    (void)node;
    (void)message;
    faults->offsets[faults->count++] = offset;
}

Test(json_doc, refuses_every_duplicate_key_and_not_its_twin_in_other_case) {
    struct faults faults = {0};
    static const char text[] = "{\"a\":1,\"b\":{\"c\":1,\"\\u0063\":2},\"a\":2,\"A\":3}";
    struct json_doc *doc = json_doc_parse(text, strlen(text), on_fault, &faults);
    cr_assert_not_null(doc, "a duplicate hides no other error");
    json_doc_free(doc);
    cr_assert_eq(faults.count, 2);
    cr_assert_eq(faults.offsets[0], 18);
    cr_assert_eq(faults.offsets[1], 30);
}

Test(json_doc, refuses_duplicates_among_many_keys) {
    struct buf text = BUF_INIT;
    struct faults faults = {0};
    buf_add_text(&text, "{");
    for (int i = 0; i < 5000; i++) {
        buf_printf(&text, "\"k%d\":1,", i);
    }
    size_t offset = text.len;
    buf_add_text(&text, "\"k17\":2}");
    struct json_doc *doc = json_doc_parse(buf_text(&text), text.len, on_fault, &faults);
    cr_assert_not_null(doc);
    json_doc_free(doc);
    cr_assert_eq(faults.count, 1);
    cr_assert_eq(faults.offsets[0], offset);
    buf_free(&text);
}

Test(json_doc, refuses_numbers_beyond_a_double) {
    struct faults faults = {0};
    cr_assert_null(json_doc_parse("[1e999]", 7, on_fault, &faults));
    cr_assert_eq(faults.count, 1);
    cr_assert_eq(faults.offsets[0], 1);
}

Test(json_doc, gives_the_tree_with_positions) {
    struct faults faults = {0};
    static const char text[] = "// c\n{\"a\": [\"x\", 2.5], \"b\": true}";
    struct json_doc *doc = json_doc_parse(text, strlen(text), on_fault, &faults);
    cr_assert_not_null(doc);
    const struct json_node *root = json_doc_root(doc);
    const struct json_node *a = json_member(root, "a");
    cr_assert_eq(a->type, JSON_ARRAY);
    cr_assert_eq(a->count, 2);
    cr_assert_eq(a->key_offset, 6);
    cr_assert_eq(a->offset, 11);
    cr_assert_str_eq(json_child(a)->text, "x");
    cr_assert_float_eq(json_child(a)->next->number, 2.5, 0);
    cr_assert_eq(json_child(a)->next->index, 1);
    cr_assert(json_member(root, "b")->truth);
    cr_assert_null(json_member(root, "A"));
    json_doc_free(doc);
}
