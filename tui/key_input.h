/* What a terminal sends, as keys. Pure: bytes in, keys out.
 *
 * Read are the sequences of ECMA-48 and of xterm's function keys, which every terminal of today
 * sends ("CSI A" and "SS3 A" alike), and SGR mouse reports (xterm's mode 1006). What isn't known
 * is dropped whole, so that no half of a sequence is taken for a key.
 */
#ifndef FLEET_TUI_KEY_INPUT_H
#define FLEET_TUI_KEY_INPUT_H

#include <stdbool.h>
#include <stddef.h>

/* A character is its own key (Unicode); these lie beyond. */
enum key {
    KEY_NONE = 0,
    KEY_TAB = '\t',
    KEY_ENTER = '\r',
    KEY_ESCAPE = 0x1B,
    KEY_BACKSPACE = 0x7F,
    KEY_ARROW_UP = 0x110000,
    KEY_ARROW_DOWN,
    KEY_ARROW_LEFT,
    KEY_ARROW_RIGHT,
    KEY_PAGE_UP,
    KEY_PAGE_DOWN,
    KEY_START,
    KEY_FINISH,
    KEY_MOUSE_PRESS, /* at `row`, `col` */
    KEY_WHEEL_UP,
    KEY_WHEEL_DOWN
};

struct key_press {
    int key;
    int row, col; /* of the mouse, from 0 */
};

/* Reads one key off the front of `data`. Returns the bytes it took; 0 where the rest of a sequence
 * is still to come (never with `complete`: nothing more comes, a lone ESC is the key). `ret->key`
 * is KEY_NONE for what is dropped. `len` is at least 1. */
size_t key_input_read(const char *data, size_t len, bool complete, struct key_press *ret);

#endif
