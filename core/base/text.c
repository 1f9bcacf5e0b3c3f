#include "core/base/text.h"

#include <locale.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <wchar.h>

#include "core/base/xalloc.h"

#define ESC 0x1B
#define BEL 0x07

/* Decodes one character of UTF-8 (RFC 3629: no overlong form, no surrogate, at most U+10FFFF).
 * Returns its length, or 0 where the bytes are none. */
static size_t decode(const unsigned char *at, size_t len, uint32_t *ret) {
    if (at[0] < 0x80) {
        *ret = at[0];
        return 1;
    }
    size_t need = at[0] >= 0xF0 ? 4 : at[0] >= 0xE0 ? 3 : 2;
    if (at[0] < 0xC2 || at[0] > 0xF4 || len < need) {
        return 0;
    }
    uint32_t code = at[0] & (0x7FU >> need);
    for (size_t i = 1; i < need; i++) {
        if ((at[i] & 0xC0) != 0x80) {
            return 0;
        }
        code = code << 6 | (at[i] & 0x3F);
    }
    static const uint32_t smallest[] = {[2] = 0x80, [3] = 0x800, [4] = 0x10000};
    if (code < smallest[need] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) {
        return 0;
    }
    *ret = code;
    return need;
}

size_t text_utf8_length(const char *at, size_t len) {
    uint32_t code;
    return decode((const unsigned char *)at, len, &code);
}

struct range {
    uint32_t first, last;
};

/* Unicode's format characters (category Cf) and line separators: invisible, or able to reorder
 * what is seen. */
static const struct range format_controls[] = {
    {0x00AD, 0x00AD},   {0x0600, 0x0605},   {0x061C, 0x061C},   {0x06DD, 0x06DD},
    {0x070F, 0x070F},   {0x08E2, 0x08E2},   {0x180E, 0x180E},   {0x200B, 0x200F},
    {0x2028, 0x202E},   {0x2060, 0x206F},   {0xFEFF, 0xFEFF},   {0xFFF9, 0xFFFB},
    {0x110BD, 0x110BD}, {0x110CD, 0x110CD}, {0x1BCA0, 0x1BCA3}, {0x1D173, 0x1D17A},
    {0xE0001, 0xE0001}, {0xE0020, 0xE007F},
};

static bool is_format_control(uint32_t code) {
    if (code < format_controls[0].first) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_LEN(format_controls); i++) {
        if (code >= format_controls[i].first && code <= format_controls[i].last) {
            return true;
        }
    }
    return false;
}

/* The length of a control sequence's parameters and final byte (ECMA-48, 5.4). */
static size_t csi_length(const unsigned char *at, size_t len) {
    size_t i = 0;
    while (i < len && at[i] >= 0x20 && at[i] <= 0x3F) {
        i++;
    }
    return i < len && at[i] >= 0x40 && at[i] <= 0x7E ? i + 1 : i;
}

/* The length of a control string with its end (BEL, ESC \ or U+009C). Where none ends it on the
 * line, 0: then only the opening is dropped, so that an unended one can't hide what follows. */
static size_t string_length(const unsigned char *at, size_t len) {
    for (size_t i = 0; i < len && at[i] != '\n'; i++) {
        if (at[i] == BEL) {
            return i + 1;
        }
        if (i + 1 < len &&
            ((at[i] == ESC && at[i + 1] == '\\') || (at[i] == 0xC2 && at[i + 1] == 0x9C))) {
            return i + 2;
        }
    }
    return 0;
}

/* The length of what belongs to the introducer `kind`, named by the 7-bit form's second byte. */
static size_t sequence_length(unsigned char kind, const unsigned char *at, size_t len) {
    switch (kind) {
    case '[':
        return csi_length(at, len);
    case ']':
    case 'P':
    case 'X':
    case '^':
    case '_':
        return string_length(at, len);
    default:
        return 0;
    }
}

/* The length of an escape sequence that begins with ESC at `at` (ECMA-35, 13.2). */
static size_t escape_length(const unsigned char *at, size_t len) {
    size_t i = 1;
    while (i < len && at[i] >= 0x20 && at[i] <= 0x2F) {
        i++;
    }
    if (i == len || at[i] < 0x30 || at[i] > 0x7E) {
        return i;
    }
    unsigned char final = at[i++];
    return i == 2 ? i + sequence_length(final, at + i, len - i) : i;
}

void text_clean(struct buf *out, const char *data, size_t len, bool keep_newlines) {
    const unsigned char *bytes = (const unsigned char *)data;
    size_t plain = 0; /* start of a run that is copied as it is */
    size_t i = 0;
    while (i < len) {
        if (bytes[i] >= 0x20 && bytes[i] < 0x7F) {
            i++;
            continue;
        }
        uint32_t code = 0;
        size_t size = decode(bytes + i, len - i, &code);
        if (size > 1 && code >= 0xA0 && !is_format_control(code)) {
            i += size;
            continue;
        }
        buf_add(out, data + plain, i - plain);
        if (size == 0) {
            buf_add_text(out, "\xEF\xBF\xBD");
            size = 1;
        } else if (code == '\t' || code == '\n' || code == 0x2028 || code == 0x2029) {
            buf_add_char(out, code == '\n' && keep_newlines ? '\n' : ' ');
        } else if (code == ESC) {
            size = escape_length(bytes + i, len - i);
        } else if (code >= 0x80 && code <= 0x9F) {
            size += sequence_length((unsigned char)(code - 0x40), bytes + i + size, len - i - size);
        }
        i += size;
        plain = i;
    }
    buf_add(out, data + plain, len - plain);
}

char *text_cleaned(const char *data, size_t len) {
    struct buf out = BUF_INIT;
    text_clean(&out, data, len, false);
    return buf_take(&out);
}

void text_shell_quote(struct buf *out, const char *text) {
    buf_add_char(out, '\'');
    for (const char *quote; (quote = strchr(text, '\'')) != NULL; text = quote + 1) {
        buf_add(out, text, (size_t)(quote - text));
        buf_add_text(out, "'\\''");
    }
    buf_add_text(out, text);
    buf_add_char(out, '\'');
}

bool text_is_plain_name(const char *text) {
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                  "0123456789._:@%[]-";
    return text[0] != '\0' && text[0] != '-' && text[strspn(text, allowed)] == '\0';
}

/* Longer words are no misspelling of a name, and the distance takes time in the square. */
#define NEAREST_MAX 64

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

static char fold(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c == '_' ? '-' : c;
}

/* Edits (insert, delete, replace, swap of neighbours) between two words of at most NEAREST_MAX
 * bytes; case, and '_' for '-', count nothing. */
static size_t distance(const char *a, size_t a_len, const char *b, size_t b_len) {
    size_t rows[3][NEAREST_MAX + 1];
    size_t *before = rows[0];
    size_t *last = rows[1];
    size_t *row = rows[2];
    for (size_t j = 0; j <= b_len; j++) {
        before[j] = j;
        last[j] = j;
    }
    for (size_t i = 1; i <= a_len; i++) {
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t replaced = last[j - 1] + (fold(a[i - 1]) != fold(b[j - 1]) ? 1 : 0);
            row[j] = smaller(replaced, smaller(last[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && fold(a[i - 1]) == fold(b[j - 2]) &&
                fold(a[i - 2]) == fold(b[j - 1])) {
                row[j] = smaller(row[j], before[j - 2] + 1);
            }
        }
        size_t *spare = before;
        before = last;
        last = row;
        row = spare;
    }
    return last[b_len];
}

const char *text_nearest(const char *word, const char *const *names, size_t count) {
    size_t len = strnlen(word, NEAREST_MAX + 1);
    if (len == 0 || len > NEAREST_MAX) {
        return NULL;
    }
    size_t limit = len / 3 > 2 ? len / 3 : 2;
    /* A short word must share something with the name that it was meant to be. */
    limit = smaller(limit, len - 1);
    const char *best = NULL;
    size_t best_distance = limit + 1;
    for (size_t i = 0; i < count; i++) {
        size_t name_len = strnlen(names[i], NEAREST_MAX + 1);
        size_t apart = name_len > len ? name_len - len : len - name_len;
        if (name_len > NEAREST_MAX || apart >= best_distance) {
            continue;
        }
        size_t edits = distance(word, len, names[i], name_len);
        if (edits < best_distance) {
            best = names[i];
            best_distance = edits;
        }
    }
    return best;
}

static pthread_once_t width_once = PTHREAD_ONCE_INIT;
static locale_t width_locale;

static void open_width_locale(void) {
    width_locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
}

size_t text_width(const char *text) {
    /* wcwidth(3) asks the thread's locale, which may be "C" and know nothing beyond ASCII. */
    pthread_once(&width_once, open_width_locale);
    locale_t old = width_locale != (locale_t)0 ? uselocale(width_locale) : (locale_t)0;
    size_t width = 0;
    size_t len = strlen(text);
    for (size_t i = 0; i < len;) {
        uint32_t code = 0xFFFD;
        size_t size = decode((const unsigned char *)text + i, len - i, &code);
        int columns = code < 0x7F ? code >= 0x20 : wcwidth((wchar_t)code);
        if (columns < 0) {
            columns = code >= 0xA0; /* Unknown to this libc, or no such locale. */
        }
        width += (size_t)columns;
        i += size > 0 ? size : 1;
    }
    if (old != (locale_t)0) {
        uselocale(old);
    }
    return width;
}

void text_add_bytes(struct buf *out, unsigned long long bytes) {
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB", "PB", "EB"};
    if (bytes < 1000) {
        buf_printf(out, "%llu B", bytes);
        return;
    }
    size_t unit = 0;
    double value = (double)bytes;
    /* 999.5 would be printed as 1000. */
    while (value >= 999.5 && unit + 1 < ARRAY_LEN(units)) {
        value /= 1000;
        unit++;
    }
    buf_printf(out, value < 9.95 ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

void text_add_duration(struct buf *out, unsigned long long ms) {
    if (ms < 1000) {
        buf_printf(out, "%llu ms", ms);
    } else if (ms < 60000) {
        buf_printf(out, "%llu.%llu s", ms / 1000, ms % 1000 / 100);
    } else if (ms < 3600000) {
        buf_printf(out, "%02llu:%02llu", ms / 60000, ms / 1000 % 60);
    } else {
        buf_printf(out, "%llu:%02llu:%02llu", ms / 3600000, ms / 60000 % 60, ms / 1000 % 60);
    }
}
