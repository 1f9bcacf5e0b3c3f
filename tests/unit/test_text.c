#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"

static void expect_clean(const char *in, const char *wanted) {
    char *out = text_cleaned(in, strlen(in));
    cr_assert_str_eq(out, wanted, "\"%s\" instead of \"%s\"", out, wanted);
    free(out);
}

Test(text, keeps_what_is_plain) {
    expect_clean("grüße ✓ 日本", "grüße ✓ 日本");
    expect_clean("", "");
}

Test(text, removes_controls_and_escape_sequences_whole) {
    expect_clean("a\x07"
                 "b\r\tc\nd\x7f",
                 "ab c d");
    expect_clean("a\x1b[31;1mred\x1b[0m", "ared");
    expect_clean("a\x1b]0;title\x07z", "az");
    expect_clean("a\x1b]8;;http://x\x1b\\z", "az");
    expect_clean("a\x1bP1$r\x1b\\z\x1b(Bq\x1b=r", "azqr");
    expect_clean("a\xc2\x9b"
                 "31mz\xc2\x9dtitle\xc2\x9cq",
                 "azq");
}

Test(text, does_not_let_an_open_sequence_hide_what_follows) {
    expect_clean("a\x1b]0;shown", "a0;shown");
    expect_clean("\x1b[", "");
    expect_clean("\x1b", "");
    expect_clean("\x1b[31\x1b[32mz", "z");
}

Test(text, removes_bidirectional_and_invisible_characters) {
    expect_clean("a\xe2\x80\xae"
                 "b\xe2\x81\xa6"
                 "c\xe2\x80\x8b"
                 "d\xef\xbb\xbf"
                 "e\xd8\x9c"
                 "f",
                 "abcdef");
}

Test(text, replaces_what_is_not_utf8) {
    expect_clean("a\xff"
                 "b\xc0\xaf"
                 "c\xed\xa0\x80",
                 "a\xef\xbf\xbd"
                 "b\xef\xbf\xbd\xef\xbf\xbd"
                 "c\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    expect_clean("\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd");
    expect_clean("\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
}

Test(text, keeps_newlines_where_asked) {
    struct buf out = BUF_INIT;
    text_clean(&out, "a\nb\r\nc", 6, true);
    cr_assert_str_eq(buf_text(&out), "a\nb\nc");
    buf_free(&out);
}

Test(text, quotes_for_a_shell) {
    struct buf out = BUF_INIT;
    text_shell_quote(&out, "it's $(rm) `x`\n");
    cr_assert_str_eq(buf_text(&out), "'it'\\''s $(rm) `x`\n'");
    buf_clear(&out);
    text_shell_quote(&out, "");
    cr_assert_str_eq(buf_text(&out), "''");
    buf_free(&out);
}

Test(text, knows_plain_names) {
    cr_assert(text_is_plain_name("root@[fe80::1%eth0]:22"));
    cr_assert(text_is_plain_name("a"));
    cr_assert_not(text_is_plain_name(""));
    cr_assert_not(text_is_plain_name("-oProxyCommand=x"));
    cr_assert_not(text_is_plain_name("a b"));
    cr_assert_not(text_is_plain_name("a\n"));
    cr_assert_not(text_is_plain_name("a;b"));
    cr_assert_not(text_is_plain_name("\xc3\xbc"));
}

Test(text, finds_the_nearest_name) {
    static const char *const names[] = {"waves", "max_parallel", "copy_parallel", "bake", "db1"};
    cr_assert_str_eq(text_nearest("max-paralel", names, ARRAY_LEN(names)), "max_parallel");
    cr_assert_str_eq(text_nearest("wvaes", names, ARRAY_LEN(names)), "waves");
    cr_assert_str_eq(text_nearest("Bake", names, ARRAY_LEN(names)), "bake");
    cr_assert_str_eq(text_nearest("db2", names, ARRAY_LEN(names)), "db1");
    cr_assert_null(text_nearest("zzzzzzzz", names, ARRAY_LEN(names)));
    cr_assert_null(text_nearest("", names, ARRAY_LEN(names)));
    cr_assert_null(text_nearest("x", names, ARRAY_LEN(names)));
}

Test(text, gives_up_on_a_word_too_long_for_a_name) {
    static const char *const names[] = {"name"};
    char *word = xcalloc(1, 1000001);
    memset(word, 'n', 1000000);
    cr_assert_null(text_nearest(word, names, 1));
    free(word);
}

Test(text, counts_columns_in_any_locale) {
    cr_assert_eq(text_width("abc"), 3);
    cr_assert_eq(text_width("grüße"), 5);
    cr_assert_eq(text_width("e\xcc\x81"), 1);
    cr_assert_eq(text_width("日本"), 4);
    cr_assert_eq(text_width(""), 0);
}

static void expect_bytes(unsigned long long bytes, const char *wanted) {
    struct buf out = BUF_INIT;
    text_add_bytes(&out, bytes);
    cr_assert_str_eq(buf_text(&out), wanted);
    buf_free(&out);
}

Test(text, writes_bytes) {
    expect_bytes(0, "0 B");
    expect_bytes(512, "512 B");
    expect_bytes(1500, "1.5 KB");
    expect_bytes(41000000, "41 MB");
    expect_bytes(5100000000, "5.1 GB");
    expect_bytes(999999, "1.0 MB");
    expect_bytes(9960, "10 KB");
    expect_bytes(~0ULL, "18 EB");
}

static void expect_duration(unsigned long long ms, const char *wanted) {
    struct buf out = BUF_INIT;
    text_add_duration(&out, ms);
    cr_assert_str_eq(buf_text(&out), wanted);
    buf_free(&out);
}

Test(text, writes_durations) {
    expect_duration(350, "350 ms");
    expect_duration(4299, "4.2 s");
    expect_duration(59999, "59.9 s");
    expect_duration(70000, "01:10");
    expect_duration(3723000, "1:02:03");
}
