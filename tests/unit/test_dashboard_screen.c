/* Cells, keys and the difference that is painted: the dashboard without a terminal or a run. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "tui/key_input.h"
#include "tui/screen.h"

static struct screen screen;

static void make_screen(void) {
    screen = (struct screen){0};
    screen_resize(&screen, 3, 12);
}
static void free_screen(void) {
    screen_release(&screen);
}
TestSuite(screen, .init = make_screen, .fini = free_screen);

static void expect_row(int row, const char *want) {
    struct buf text = BUF_INIT;
    screen_row_text(&screen, row, &text);
    cr_expect_str_eq(buf_text(&text), want, "row %d is '%s', not '%s'", row, buf_text(&text), want);
    buf_free(&text);
}

Test(screen, cuts_at_the_end_and_marks_it) {
    cr_expect_eq(screen_put(&screen, 0, 2, 9, TONE_PLAIN, "abcdefghij"), 9);
    expect_row(0, "  abcdef…");
    cr_expect_eq(screen_put(&screen, 1, 0, 99, TONE_PLAIN, "abcdefghijkl"), 12);
    expect_row(1, "abcdefghijkl");
    screen_put(&screen, 2, 0, 3, TONE_PLAIN, "abcdef");
    expect_row(2, "abc");
}

Test(screen, ignores_what_is_outside) {
    screen_put(&screen, -1, 0, 12, TONE_PLAIN, "no");
    screen_put(&screen, 3, 0, 12, TONE_PLAIN, "no");
    screen_put(&screen, 0, 12, 20, TONE_PLAIN, "no");
    screen_put(&screen, 0, 5, 5, TONE_PLAIN, "no");
    screen_fill(&screen, 5, 0, 12, TONE_PLAIN, "x");
    screen_mark(&screen, -1, 0, 12, STYLE_BOLD);
    for (int row = 0; row < 3; row++) {
        expect_row(row, "");
    }
}

Test(screen, wide_characters_take_two_cells_and_are_never_halved) {
    cr_expect_eq(screen_put(&screen, 0, 0, 12, TONE_PLAIN, "日本"), 4);
    cr_expect_eq(screen.cells[1].len, 0);
    screen_put(&screen, 0, 1, 12, TONE_PLAIN, "x");
    expect_row(0, " x本");
    screen_put(&screen, 1, 0, 3, TONE_PLAIN, "日本");
    expect_row(1, "日");
}

Test(screen, marks_join_the_character_before) {
    cr_expect_eq(screen_put(&screen, 0, 0, 12, TONE_PLAIN, "e\xCC\x81x"), 2);
    cr_expect_eq(screen.cells[0].len, 3);
    expect_row(0, "e\xCC\x81x");
    /* More marks than a cell holds are dropped, and none begins a text. */
    struct buf many = BUF_INIT;
    buf_add_text(&many, "\xCC\x81"
                        "a");
    for (int i = 0; i < 50; i++) {
        buf_add_text(&many, "\xCC\x81");
    }
    cr_expect_eq(screen_put(&screen, 1, 0, 12, TONE_PLAIN, buf_text(&many)), 1);
    cr_expect_leq(screen.cells[12].len, SCREEN_CELL_BYTES);
    buf_free(&many);
}

Test(screen, hostile_bytes_become_replacement_characters) {
    screen_put(&screen, 0, 0, 12, TONE_PLAIN, "a\033[2Jb\xFF\r");
    expect_row(0, "a\xEF\xBF\xBD[2Jb\xEF\xBF\xBD\xEF\xBF\xBD");
}

Test(screen, ascii_has_pairs_for_our_signs) {
    screen.ascii = true;
    screen_put(&screen, 0, 0, 12, TONE_PLAIN, "✓↺✗●▸→é日");
    expect_row(0, "ok<-x*>->??");
    cr_expect_eq(screen_width(&screen, "✓→é"), 5);
}

Test(screen, survives_any_size) {
    screen_resize(&screen, 0, 0);
    screen_put(&screen, 0, 0, 5, TONE_PLAIN, "日本");
    screen_fill(&screen, 0, 0, 5, TONE_PLAIN, "─");
    cr_expect_eq(screen.rows * screen.cols, 1);
    screen_resize(&screen, 100000, 100000);
    cr_expect_eq(screen.rows, SCREEN_MAX);
}

/* ---- keys ---- */

static struct key_press read_key(const char *data, size_t len, bool complete, size_t want_used) {
    struct key_press press;
    size_t used = key_input_read(data, len, complete, &press);
    cr_expect_eq(used, want_used, "%zu bytes of '%s' were taken, not %zu", used, data, want_used);
    return press;
}

Test(key_input, reads_characters_and_sequences) {
    static const struct {
        const char *bytes;
        int key;
    } cases[] = {
        {"q", 'q'},
        {"\r", KEY_ENTER},
        {"\n", KEY_ENTER},
        {"\b", KEY_BACKSPACE},
        {"\x7F", KEY_BACKSPACE},
        {"é", 0xE9},
        {"日", 0x65E5},
        {"\033[A", KEY_ARROW_UP},
        {"\033OB", KEY_ARROW_DOWN},
        {"\033[5~", KEY_PAGE_UP},
        {"\033[6~", KEY_PAGE_DOWN},
        {"\033[1~", KEY_START},
        {"\033[F", KEY_FINISH},
        {"\033[1;5A", KEY_ARROW_UP},
        {"\033[200~", KEY_NONE},
        {"\033[?1;2c", KEY_NONE},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t len = strlen(cases[i].bytes);
        struct key_press press = read_key(cases[i].bytes, len, false, len);
        cr_expect_eq(press.key, cases[i].key, "case %zu", i);
    }
}

Test(key_input, waits_for_the_rest_of_a_sequence) {
    read_key("\033", 1, false, 0);
    read_key("\033[", 2, false, 0);
    read_key("\033[5", 3, false, 0);
    read_key("\xE6\x97", 2, false, 0);
    cr_expect_eq(read_key("\033", 1, true, 1).key, KEY_ESCAPE);
    cr_expect_eq(read_key("\xE6\x97", 2, true, 1).key, KEY_NONE);
    cr_expect_eq(read_key("\033q", 2, false, 1).key, KEY_ESCAPE);
}

Test(key_input, reads_the_mouse) {
    struct key_press press = read_key("\033[<0;12;5M", 10, false, 10);
    cr_expect_eq(press.key, KEY_MOUSE_PRESS);
    cr_expect_eq(press.col, 11);
    cr_expect_eq(press.row, 4);
    cr_expect_eq(read_key("\033[<65;1;1M", 10, false, 10).key, KEY_WHEEL_DOWN);
    cr_expect_eq(read_key("\033[<0;12;5m", 10, false, 10).key, KEY_NONE);
}

Test(key_input, any_bytes_are_taken_in_the_end) {
    unsigned seed = 7;
    for (int round = 0; round < 20000; round++) {
        char data[8];
        size_t len = 1 + (unsigned)round % sizeof(data);
        for (size_t i = 0; i < len; i++) {
            seed = seed * 1103515245u + 12345u;
            data[i] = (char)(seed >> 16);
            data[i] = i == 0 && round % 3 == 0 ? '\033' : data[i];
        }
        struct key_press press;
        size_t used = key_input_read(data, len, true, &press);
        cr_assert(used > 0 && used <= len);
    }
}
