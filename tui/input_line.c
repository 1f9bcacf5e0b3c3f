#include "tui/input_line.h"

#include <string.h>

#include "tui/key_input.h"

static void append_character(char *input, int code) {
    size_t len = strlen(input);
    char one[5];
    size_t count = 0;
    if (code < 0x80) {
        one[count++] = (char)code;
    } else if (code < 0x800) {
        one[count++] = (char)(0xC0 | code >> 6);
    } else if (code < 0x10000) {
        one[count++] = (char)(0xE0 | code >> 12);
        one[count++] = (char)(0x80 | (code >> 6 & 0x3F));
    } else {
        one[count++] = (char)(0xF0 | code >> 18);
        one[count++] = (char)(0x80 | (code >> 12 & 0x3F));
        one[count++] = (char)(0x80 | (code >> 6 & 0x3F));
    }
    if (code >= 0x80) {
        one[count++] = (char)(0x80 | (code & 0x3F));
    }
    if (len + count < INPUT_LINE_SIZE) {
        memcpy(input + len, one, count);
        input[len + count] = '\0';
    }
}

bool input_line_type(char input[INPUT_LINE_SIZE], int key) {
    if (key == KEY_BACKSPACE) {
        size_t len = strlen(input);
        while (len > 0 && ((unsigned char)input[--len] & 0xC0) == 0x80) {
        }
        input[len] = '\0';
        return true;
    }
    if (key >= ' ' && key < KEY_ARROW_UP && (key < 0x7F || key >= 0xA0)) {
        append_character(input, key);
        return true;
    }
    return false;
}
