/* Text from and for the outside: what is cleaned can be printed and stays as it is when cleaned
 * again; what is quoted is one word of a shell, byte for byte; a template says what it was given;
 * whatever a terminal sends becomes keys. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/units.h"
#include "core/base/xalloc.h"
#include "inventory/inventory.h"
#include "tui/key_input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int holds) {
    if (!holds) {
        abort();
    }
}

static void check_clean(const char *data, size_t size, int keep_newlines) {
    struct buf once = BUF_INIT;
    struct buf twice = BUF_INIT;
    text_clean(&once, data, size, keep_newlines != 0);
    for (size_t at = 0; at < once.len;) {
        unsigned char c = (unsigned char)once.data[at];
        size_t len = text_utf8_length(once.data + at, once.len - at);
        must(len > 0 && c != 0x7F && (c >= 0x20 || (c == '\n' && keep_newlines != 0)));
        at += len;
    }
    text_width(buf_text(&once));
    text_clean(&twice, buf_text(&once), once.len, keep_newlines != 0);
    must(once.len == twice.len && memcmp(buf_text(&once), buf_text(&twice), once.len) == 0);
    buf_free(&once);
    buf_free(&twice);
}

/* Reads the word as a POSIX shell does (XCU 2.2): all in single quotes but for \' between them. */
static void check_quote(const char *text) {
    struct buf quoted = BUF_INIT;
    text_shell_quote(&quoted, text);
    const char *at = buf_text(&quoted);
    const char *want = text;
    while (*at != '\0') {
        if (*at == '\\') {
            must(at[1] == '\'' && *want++ == '\'');
            at += 2;
            continue;
        }
        must(*at++ == '\'');
        while (*at != '\'') {
            must(*at != '\0' && *at++ == *want++);
        }
        at++;
    }
    must(*want == '\0');
    buf_free(&quoted);
}

static void check_template(const char *text) {
    struct inv_host host = {.name = "${address}"};
    AUTO_FREE char *filled = inv_expand(text, &host, "${name}");
    /* What was put in is not looked at again, so nothing grows without end. */
    must(strlen(filled) <= 2 * strlen(text) + 1);
    must(strstr(text, "${") != NULL || strcmp(filled, text) == 0);
}

static void check_units(const char *text) {
    uint64_t amount;
    uint32_t percent;
    units_parse_duration(text, &amount);
    units_parse_size(text, &amount);
    must(units_parse_percent(text, &percent) != 0 || percent <= 100);
    text_is_plain_name(text);
}

static void check_keys(const char *data, size_t size) {
    for (int complete = 0; complete <= 1; complete++) {
        for (size_t at = 0; at < size;) {
            struct key_press key;
            size_t taken = key_input_read(data + at, size - at, complete != 0, &key);
            must(taken <= size - at && (taken > 0 || complete == 0));
            if (taken == 0) {
                break;
            }
            at += taken;
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    AUTO_FREE char *text = xstrndup((const char *)data, size);
    check_clean((const char *)data, size, 0);
    check_clean((const char *)data, size, 1);
    check_quote(text);
    check_template(text);
    check_units(text);
    check_keys((const char *)data, size);
    return 0;
}
