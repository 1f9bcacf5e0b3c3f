#include <criterion/criterion.h>
#include <string.h>

#include "transport/copy_words.h"

static struct buf lines;

static void on_line(const char *line, size_t len, void *arg) {
    (void)arg;
    buf_add(&lines, line, len);
    buf_add_char(&lines, '|');
}

/* What is made of `said`, fed in pieces of three bytes. */
static struct error explain(const char *said, bool greeted, int status) {
    struct copy_words words = {0};
    struct error error = ERROR_INIT;
    size_t len = strlen(said);
    for (size_t at = 0; at < len; at += 3) {
        copy_words_feed(&words, said + at, len - at < 3 ? len - at : 3, on_line, NULL);
    }
    copy_words_explain(&words, "nix-store --serve --write", greeted, status, "/nix/store/x",
                       &error);
    copy_words_free(&words);
    return error;
}

static void teardown(void) {
    buf_free(&lines);
}

TestSuite(copy_words, .fini = teardown);

Test(copy_words, names_both_remedies_for_an_untrusted_user) {
    static const char *const said[] = {
        "error: cannot add path '/nix/store/x' because it lacks a valid signature\n",
        "error: cannot add path '/nix/store/x' because it lacks a signature by a trusted key",
        "@nix {\"action\":\"msg\",\"level\":0,\"msg\":\"\\u001b[31merror:\\u001b[0m it lacks a "
        "signature by a trusted key\"}\n"};
    for (size_t i = 0; i < 3; i++) {
        struct error error = explain(said[i], true, 1);
        cr_expect_str_eq(error.reason, "untrusted-user", "%s", error.message);
        cr_expect(strstr(error.message, "trusted-users") != NULL);
        cr_expect(strstr(error.message, "sudo") != NULL);
    }
}

Test(copy_words, knows_a_full_disk) {
    struct error error =
        explain("warning: x\nerror: writing to file: No space left on device\n", true, 1);
    cr_expect_eq(error.code, FLEET_ERR_SPACE);
    cr_expect(strstr(error.message, "/nix/store/x") != NULL);
    cr_expect_null(strstr(error.message, "warning: x"));
}

Test(copy_words, keeps_an_error_of_several_lines) {
    struct error error = explain("noise\nerror: first\n   second\n", true, 1);
    cr_expect(strstr(error.message, "first") != NULL && strstr(error.message, "second") != NULL);
    cr_expect_null(strstr(error.message, "noise"));
}

Test(copy_words, cleans_hostile_words) {
    struct error error = explain("error: \x1b]0;title\x07 \x1b[2J gone\n", true, 1);
    cr_expect_null(strchr(error.message, '\x1b'));
    cr_expect(strstr(error.message, "gone") != NULL);
}

Test(copy_words, tells_missing_old_and_killed_apart) {
    cr_expect_str_eq(explain("sh: 1: exec: nix-store: not found\n", false, 127).reason, "no-nix");
    cr_expect_str_eq(explain("error: unknown flag '--log-format'\n", false, 1).reason,
                     "nix-too-old");
    cr_expect(strstr(explain("", true, -1).message, "killed") != NULL);
    cr_expect(strstr(explain("", true, 137).message, "killed") != NULL);
}

Test(copy_words, shows_what_json_lines_say) {
    explain("@nix {\"action\":\"start\",\"id\":1,\"level\":3,\"type\":100,\"text\":\"copying\"}\n"
            "@nix {\"action\":\"start\",\"id\":2,\"level\":5,\"text\":\"chatter\"}\n"
            "@nix {\"action\":\"msg\",\"level\":1,\"raw_msg\":\"careful\",\"msg\":\"x\"}\n"
            "@nix {broken\n@nix []\nplain\n",
            true, 0);
    cr_expect_str_eq(buf_text(&lines), "copying|careful|plain|");
}

Test(copy_words, notices_the_wait_for_a_collection) {
    struct copy_words words = {0};
    static const char said[] = "waiting for the big garbage collector lock...\n";
    copy_words_feed(&words, said, sizeof(said) - 1, NULL, NULL);
    cr_expect(words.waits_for_gc);
    copy_words_free(&words);
}

Test(copy_words, bounds_a_line_without_an_end) {
    struct copy_words words = {0};
    char block[4096];
    memset(block, 'x', sizeof(block));
    for (int i = 0; i < 100; i++) {
        copy_words_feed(&words, block, sizeof(block), NULL, NULL);
    }
    cr_expect_leq(words.line.len, 65536u);
    copy_words_free(&words);
}
