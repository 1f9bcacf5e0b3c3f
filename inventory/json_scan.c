#include "inventory/json_scan.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/error.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"

/* cJSON 1.7 copies a number into a buffer of 64 bytes and drops the rest. */
#define NUMBER_LENGTH_MAX 60

struct scanner {
    char *text;
    size_t len;
    size_t at;
    unsigned depth;
    struct json_positions *positions;
    struct json_fault *fault;
};

static int scan_value(struct scanner *scanner, uint32_t key);

__attribute__((format(printf, 3, 4))) static int refuse(struct scanner *scanner, size_t offset,
                                                        const char *format, ...) {
    va_list args;
    va_start(args, format);
    scanner->fault->offset = offset;
    vsnprintf(scanner->fault->message, sizeof(scanner->fault->message), format, args);
    va_end(args);
    return FLEET_ERR_USAGE;
}

/* The byte at the cursor, or -1 at the end. */
static int peek(const struct scanner *scanner) {
    return scanner->at < scanner->len ? (unsigned char)scanner->text[scanner->at] : -1;
}

static bool looking_at(const struct scanner *scanner, const char *word) {
    size_t len = strlen(word);
    return scanner->len - scanner->at >= len && memcmp(scanner->text + scanner->at, word, len) == 0;
}

/* Says what stands where `wanted` should. */
static int refuse_found(struct scanner *scanner, const char *wanted) {
    int found = peek(scanner);
    if (found < 0) {
        return refuse(scanner, scanner->at, "the file ends where %s is expected", wanted);
    }
    if (found == '\'') {
        return refuse(scanner, scanner->at, "strings take double quotes; expected %s", wanted);
    }
    size_t size = text_utf8_length(scanner->text + scanner->at, scanner->len - scanner->at);
    char *shown = text_cleaned(scanner->text + scanner->at, size);
    int code =
        refuse(scanner, scanner->at, "unexpected \"%s\" where %s is expected", shown, wanted);
    free(shown);
    return code;
}

/* Blanks a comment; the cursor stands on its '/'. */
static int skip_comment(struct scanner *scanner) {
    size_t start = scanner->at;
    const char *text = scanner->text;
    size_t end;
    if (looking_at(scanner, "//")) {
        const char *stop = memchr(text + start, '\n', scanner->len - start);
        end = stop != NULL ? (size_t)(stop - text) : scanner->len;
    } else if (looking_at(scanner, "/*")) {
        const char *stop = memmem(text + start + 2, scanner->len - start - 2, "*/", 2);
        if (stop == NULL) {
            return refuse(scanner, start, "a comment begins here and never ends with */");
        }
        end = (size_t)(stop - text) + 2;
    } else {
        return refuse(scanner, start, "a comment begins with // or /*");
    }
    for (size_t i = start; i < end; i++) {
        if (scanner->text[i] != '\n') {
            scanner->text[i] = ' ';
        }
    }
    scanner->at = end;
    return 0;
}

/* To the next byte that means something. */
static int skip_blank(struct scanner *scanner) {
    for (;;) {
        int c = peek(scanner);
        if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
            scanner->at++;
        } else if (c != '/') {
            return 0;
        } else if (skip_comment(scanner) != 0) {
            return FLEET_ERR_USAGE;
        }
    }
}

/* The code unit of the four hexadecimal digits at the cursor; -1 where there are none. */
static int read_hex4(struct scanner *scanner) {
    int value = 0;
    for (int i = 0; i < 4; i++, scanner->at++) {
        int c = peek(scanner);
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) {
            return -1;
        }
        value = value << 4 | digit;
    }
    return value;
}

/* After "\u". */
static int scan_unicode_escape(struct scanner *scanner, size_t start) {
    int unit = read_hex4(scanner);
    if (unit < 0) {
        return refuse(scanner, start, "\\u takes four hexadecimal digits");
    }
    if (unit == 0) {
        return refuse(scanner, start, "a string cannot hold the character NUL");
    }
    if (unit >= 0xD800 && unit <= 0xDBFF && looking_at(scanner, "\\u")) {
        scanner->at += 2;
        int low = read_hex4(scanner);
        unit = low >= 0xDC00 && low <= 0xDFFF ? 0x10000 : unit;
    }
    if (unit >= 0xD800 && unit <= 0xDFFF) {
        return refuse(scanner, start,
                      "half of a surrogate pair: write \\uD83D\\uDE00 or the "
                      "character itself");
    }
    return 0;
}

static int scan_string(struct scanner *scanner) {
    size_t start = scanner->at++;
    for (;;) {
        int c = peek(scanner);
        if (c < 0 || c == '\n') {
            return refuse(scanner, start, "a string begins here and its closing quote is missing");
        }
        scanner->at++;
        if (c == '"') {
            return 0;
        }
        if (c < 0x20) {
            return refuse(scanner, scanner->at - 1,
                          "a control character in a string: write it as \\t or \\u%04x",
                          (unsigned)c);
        }
        if (c != '\\') {
            continue;
        }
        size_t escape = scanner->at - 1;
        int kind = peek(scanner);
        scanner->at += kind >= 0 ? 1 : 0;
        if (kind == 'u') {
            if (scan_unicode_escape(scanner, escape) != 0) {
                return FLEET_ERR_USAGE;
            }
        } else if (kind <= 0 || strchr("\"\\/bfnrt", kind) == NULL) {
            return refuse(scanner, escape,
                          "unknown escape; allowed: \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX");
        }
    }
}

static size_t skip_digits(struct scanner *scanner) {
    size_t start = scanner->at;
    while (peek(scanner) >= '0' && peek(scanner) <= '9') {
        scanner->at++;
    }
    return scanner->at - start;
}

static int scan_number(struct scanner *scanner) {
    size_t start = scanner->at;
    scanner->at += peek(scanner) == '-' ? 1 : 0;
    bool zero = peek(scanner) == '0';
    size_t digits = skip_digits(scanner);
    if (digits == 0) {
        return refuse(scanner, start, "a number needs a digit here");
    }
    if (zero && digits > 1) {
        return refuse(scanner, start,
                      "a number cannot begin with 0; an octal mode is a string "
                      "such as \"0400\"");
    }
    if (peek(scanner) == '.') {
        scanner->at++;
        if (skip_digits(scanner) == 0) {
            return refuse(scanner, start, "a number needs a digit after its point");
        }
    }
    if (peek(scanner) == 'e' || peek(scanner) == 'E') {
        scanner->at++;
        scanner->at += peek(scanner) == '+' || peek(scanner) == '-' ? 1 : 0;
        if (skip_digits(scanner) == 0) {
            return refuse(scanner, start, "a number needs a digit after its e");
        }
    }
    if (scanner->at - start > NUMBER_LENGTH_MAX) {
        return refuse(scanner, start, "a number of more than %d characters", NUMBER_LENGTH_MAX);
    }
    return 0;
}

/* After a member: a comma, which is blanked where nothing but `close` follows, or `close`. Sets
 * *ret_more where another member follows. */
static int scan_separator(struct scanner *scanner, char close, bool *ret_more) {
    if (skip_blank(scanner) != 0) {
        return FLEET_ERR_USAGE;
    }
    size_t comma = scanner->at;
    bool had_comma = peek(scanner) == ',';
    if (had_comma) {
        scanner->at++;
        if (skip_blank(scanner) != 0) {
            return FLEET_ERR_USAGE;
        }
    }
    if (peek(scanner) == close) {
        if (had_comma) {
            scanner->text[comma] = ' ';
        }
        scanner->at++;
        *ret_more = false;
        return 0;
    }
    *ret_more = true;
    if (!had_comma) {
        return refuse_found(scanner, close == '}' ? "\",\" or \"}\"" : "\",\" or \"]\"");
    }
    return 0;
}

static int scan_member(struct scanner *scanner) {
    if (peek(scanner) != '"') {
        return refuse_found(scanner, "a key in double quotes");
    }
    uint32_t key = (uint32_t)scanner->at;
    if (scan_string(scanner) != 0 || skip_blank(scanner) != 0) {
        return FLEET_ERR_USAGE;
    }
    if (peek(scanner) != ':') {
        return refuse_found(scanner, "\":\"");
    }
    scanner->at++;
    return scan_value(scanner, key);
}

/* An object or an array; the cursor stands on its opening. */
static int scan_container(struct scanner *scanner) {
    char close = scanner->text[scanner->at] == '{' ? '}' : ']';
    if (++scanner->depth > JSON_DEPTH_MAX) {
        return refuse(scanner, scanner->at, "nested deeper than %d levels", JSON_DEPTH_MAX);
    }
    scanner->at++;
    if (skip_blank(scanner) != 0) {
        return FLEET_ERR_USAGE;
    }
    bool more = peek(scanner) != close;
    scanner->at += more ? 0 : 1;
    while (more) {
        int failed = close == '}' ? scan_member(scanner) : scan_value(scanner, JSON_NO_KEY);
        if (failed != 0 || scan_separator(scanner, close, &more) != 0) {
            return FLEET_ERR_USAGE;
        }
    }
    scanner->depth--;
    return 0;
}

static int note_position(struct scanner *scanner, uint32_t key) {
    struct json_positions *positions = scanner->positions;
    if (positions->count >= JSON_VALUES_MAX) {
        return refuse(scanner, scanner->at, "more than %zu values", JSON_VALUES_MAX);
    }
    if (positions->count == positions->cap) {
        positions->cap = positions->cap > 0 ? positions->cap * 2 : 256;
        positions->items = xrealloc(positions->items, positions->cap * sizeof(*positions->items));
    }
    positions->items[positions->count++] =
        (struct json_position){.key = key, .value = (uint32_t)scanner->at};
    return 0;
}

static int scan_literal(struct scanner *scanner) {
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (looking_at(scanner, words[i])) {
            scanner->at += strlen(words[i]);
            return 0;
        }
    }
    return refuse_found(scanner, "a value");
}

static int scan_value(struct scanner *scanner, uint32_t key) {
    if (skip_blank(scanner) != 0 || note_position(scanner, key) != 0) {
        return FLEET_ERR_USAGE;
    }
    int c = peek(scanner);
    if (c == '{' || c == '[') {
        return scan_container(scanner);
    }
    if (c == '"') {
        return scan_string(scanner);
    }
    if (c == '-' || (c >= '0' && c <= '9')) {
        return scan_number(scanner);
    }
    return scan_literal(scanner);
}

/* The whole text must be UTF-8 without NUL, comments included. */
static int check_encoding(struct scanner *scanner) {
    for (size_t i = 0; i < scanner->len;) {
        unsigned char c = (unsigned char)scanner->text[i];
        if (c == 0) {
            return refuse(scanner, i, "a NUL byte: this is not a text file");
        }
        size_t size = c < 0x80 ? 1 : text_utf8_length(scanner->text + i, scanner->len - i);
        if (size == 0) {
            return refuse(scanner, i, "byte 0x%02x is not UTF-8; save the file as UTF-8", c);
        }
        i += size;
    }
    return 0;
}

int json_scan(char *text, size_t len, struct json_positions *ret, struct json_fault *fault) {
    struct scanner scanner = {.text = text, .len = len, .positions = ret, .fault = fault};
    if (check_encoding(&scanner) != 0) {
        return FLEET_ERR_USAGE;
    }
    if (looking_at(&scanner, "\xEF\xBB\xBF")) {
        memset(text, ' ', 3);
    }
    if (scan_value(&scanner, JSON_NO_KEY) != 0 || skip_blank(&scanner) != 0) {
        return FLEET_ERR_USAGE;
    }
    if (scanner.at < len) {
        return refuse_found(&scanner, "the end of the file");
    }
    return 0;
}
