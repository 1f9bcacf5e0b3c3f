#include <criterion/criterion.h>

#include "cmd/json_line.h"

TestSuite(cmd_json_line, .timeout = 10);

Test(cmd_json_line, writes_objects_lists_and_plain_values) {
    struct buf out = BUF_INIT;
    json_open(&out, NULL);
    json_text(&out, "host", "db1");
    json_list_open(&out, "tags");
    json_text(&out, NULL, "a");
    json_text(&out, NULL, "b");
    json_list_close(&out);
    json_number(&out, "n", -3);
    json_open(&out, "lock");
    json_bool(&out, "x", true);
    json_close(&out);
    json_text(&out, "none", NULL);
    json_close(&out);
    cr_assert_str_eq(buf_text(&out), "{\"host\":\"db1\",\"tags\":[\"a\",\"b\"],\"n\":-3,"
                                     "\"lock\":{\"x\":true},\"none\":null}");
    buf_free(&out);
}

Test(cmd_json_line, any_bytes_make_a_valid_string) {
    static const char bytes[] = "a\"\\\n\x1b\x7f\xff\xc3\xa4\0z";
    struct buf out = BUF_INIT;
    json_bytes(&out, NULL, bytes, sizeof(bytes) - 1);
    cr_assert_str_eq(buf_text(&out), "\"a\\\"\\\\\\n\\u001b\\u007f\xEF\xBF\xBD\xc3\xa4\\u0000z\"");
    buf_free(&out);
}
