/* Decoding of keys and mouse reports (see key_input.h). */
#include "tui/key_input.h"

#include <stdint.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"

#define ESC        '\033'
#define PARAMS_MAX 3

static const struct {
    char final;
    int number; /* of "CSI number ~"; 0: the final says all */
    int key;
} sequences[] = {
    {'A', 0, KEY_ARROW_UP},   {'B', 0, KEY_ARROW_DOWN}, {'C', 0, KEY_ARROW_RIGHT},
    {'D', 0, KEY_ARROW_LEFT}, {'H', 0, KEY_START},      {'F', 0, KEY_FINISH},
    {'M', 0, KEY_ENTER},      {'~', 1, KEY_START},      {'~', 4, KEY_FINISH},
    {'~', 5, KEY_PAGE_UP},    {'~', 6, KEY_PAGE_DOWN},  {'~', 7, KEY_START},
    {'~', 8, KEY_FINISH},
};

static int find_key(char final, int number) {
    for (size_t i = 0; i < ARRAY_LEN(sequences); i++) {
        if (sequences[i].final == final && (final != '~' || sequences[i].number == number)) {
            return sequences[i].key;
        }
    }
    return KEY_NONE;
}

/* "CSI < button ; column ; row M". */
static void read_mouse(const int params[PARAMS_MAX], char final, struct key_press *ret) {
    ret->col = params[1] - 1;
    ret->row = params[2] - 1;
    if (final == 'M' && params[0] == 0) {
        ret->key = KEY_MOUSE_PRESS;
    } else if (final == 'M' && params[0] == 64) {
        ret->key = KEY_WHEEL_UP;
    } else if (final == 'M' && params[0] == 65) {
        ret->key = KEY_WHEEL_DOWN;
    }
}

/* What follows "ESC [" or "ESC O". */
static size_t read_sequence(const char *data, size_t len, bool complete, struct key_press *ret) {
    int params[PARAMS_MAX] = {0};
    size_t param = 0;
    size_t i = 2;
    bool mouse = i < len && data[i] == '<';
    i += mouse;
    for (; i < len && data[i] >= 0x20 && data[i] <= 0x3F; i++) {
        if (data[i] == ';') {
            param++;
        } else if (data[i] >= '0' && data[i] <= '9' && param < PARAMS_MAX &&
                   params[param] < 10000) {
            params[param] = params[param] * 10 + (data[i] - '0');
        }
    }
    if (i == len) {
        return complete ? len : 0;
    }
    if (mouse) {
        read_mouse(params, data[i], ret);
    } else {
        ret->key = find_key(data[i], params[0]);
    }
    return i + 1;
}

static size_t read_escape(const char *data, size_t len, bool complete, struct key_press *ret) {
    if (len == 1) {
        ret->key = complete ? KEY_ESCAPE : KEY_NONE;
        return complete ? 1 : 0;
    }
    if (data[1] == '[' || data[1] == 'O') {
        return read_sequence(data, len, complete, ret);
    }
    /* Escape and then a key, typed fast, or a key with Alt: the Escape alone is told. */
    ret->key = KEY_ESCAPE;
    return 1;
}

static int code_point(const char *data, size_t len) {
    uint32_t code = (unsigned char)data[0];
    code &= len == 1 ? 0x7Fu : 0xFFu >> (len + 1);
    for (size_t i = 1; i < len; i++) {
        code = code << 6 | ((unsigned char)data[i] & 0x3Fu);
    }
    return (int)code;
}

size_t key_input_read(const char *data, size_t len, bool complete, struct key_press *ret) {
    *ret = (struct key_press){.key = KEY_NONE};
    if (data[0] == ESC) {
        return read_escape(data, len, complete, ret);
    }
    unsigned char first = (unsigned char)data[0];
    size_t need = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC0 ? 2 : 1;
    if (need > len && !complete) {
        return 0;
    }
    size_t size = text_utf8_length(data, len);
    if (size == 0) {
        return 1;
    }
    ret->key = code_point(data, size);
    if (ret->key == '\n') {
        ret->key = KEY_ENTER;
    } else if (ret->key == '\b') {
        ret->key = KEY_BACKSPACE;
    }
    return size;
}
