/* Patterns and checks side by side, so that a reader sees that they say the same. test_schema holds
 * them to the same verdicts. In a pattern "${name}" may stand for any part of a text; what a host's
 * name then makes of it only the loader can judge.
 */
#include "inventory/format.h"

#include <ctype.h>
#include <regex.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/units.h"
#include "inventory/address.h"

#define NAME_REF "\\$\\{name\\}"
#define PORT_PATTERN                                                                               \
    "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
#define STORE_DIR    "/nix/store/"
#define STORE_HASH   32
#define STORE_CHARS  "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-._?="
#define BASE32_CHARS "0123456789abcdfghijklmnpqrsvwxyz"
#define BASE64_CHARS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
#define REGEX_MAX    512
#define REPEAT_MAX   10000
#define DIGITS_MAX   9

static bool only(const char *text, const char *allowed) {
    return text[strspn(text, allowed)] == '\0';
}

static bool has_control(const char *text, bool lines_allowed) {
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == 0x7F || (c < 0x20 && !(lines_allowed && (c == '\n' || c == '\t')))) {
            return true;
        }
    }
    return false;
}

static bool is_line(const char *text) {
    return text[0] != '\0' && !has_control(text, false);
}

static bool is_free(const char *text) {
    (void)text;
    return true;
}

static bool is_argument(const char *text) {
    return text[0] != '\0' && !has_control(text, true);
}

static bool is_address(const char *text) {
    return address_split(text, NULL);
}

static bool is_probe_host(const char *text) {
    struct address_parts parts;
    return strcmp(text, "${address}") == 0 || (address_split(text, &parts) && parts.port == 0);
}

/* "~user" would need another user's home: it is refused where it is resolved, too. */
static bool is_file(const char *text) {
    return is_line(text) && (text[0] != '~' || text[1] == '/');
}

/* True if `part` is a whole component of the path. */
static bool has_component(const char *path, const char *part) {
    size_t len = strlen(part);
    for (const char *at = path; (at = strstr(at, part)) != NULL; at += len) {
        if ((at == path || at[-1] == '/') && (at[len] == '/' || at[len] == '\0')) {
            return true;
        }
    }
    return false;
}

static bool is_target_path(const char *text) {
    return is_line(text) && text[0] == '/' && text[1] != '\0' && !has_component(text, "..") &&
           strncmp(text, STORE_DIR, strlen(STORE_DIR)) != 0;
}

static bool is_store_path(const char *text) {
    size_t dir = strlen(STORE_DIR);
    return strncmp(text, STORE_DIR, dir) == 0 && strspn(text + dir, BASE32_CHARS) >= STORE_HASH &&
           text[dir + STORE_HASH] == '-' && text[dir + STORE_HASH + 1] != '\0' &&
           only(text + dir + STORE_HASH, STORE_CHARS);
}

static bool is_url(const char *text) {
    size_t scheme = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789+.-");
    return islower((unsigned char)text[0]) && strncmp(text + scheme, "://", 3) == 0 &&
           text[scheme + 3] != '\0' && !has_control(text, false) && strchr(text, ' ') == NULL;
}

static bool is_http_url(const char *text) {
    return is_url(text) && (strncmp(text, "http://", 7) == 0 || strncmp(text, "https://", 8) == 0);
}

static bool is_tag(const char *text) {
    return is_line(text) && text[0] != '-' && text[strcspn(text, " ,+!@")] == '\0';
}

static bool is_secret_name(const char *text) {
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                  "0123456789._-";
    return text[0] != '\0' && text[0] != '.' && text[0] != '-' && only(text, allowed);
}

static bool is_host_key(const char *text) {
    static const char *const types[] = {
        "ssh-ed25519 ",         "ssh-rsa ", "ecdsa-sha2-nistp256 ", "ecdsa-sha2-nistp384 ",
        "ecdsa-sha2-nistp521 ",
    };
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        size_t len = strlen(types[i]);
        if (strncmp(text, types[i], len) == 0) {
            const char *key = text + len;
            size_t size = strspn(key, BASE64_CHARS);
            key += size;
            key += strspn(key, "=");
            return size >= 16 && (*key == '\0' || *key == ' ') && !has_control(key, false);
        }
    }
    return false;
}

static bool is_cache_key(const char *text) {
    size_t name = strcspn(text, ": ");
    const char *key = text + name + 1;
    return name > 0 && text[name] == ':' && !has_control(text, false) &&
           strspn(key, BASE64_CHARS) >= 16 && only(key + strspn(key, BASE64_CHARS), "=");
}

static bool is_method(const char *text) {
    return text[0] != '\0' && only(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
}

static bool is_mode(const char *text) {
    size_t len = strlen(text);
    return only(text, "01234567") && (len == 3 || (len == 4 && text[0] == '0'));
}

/* The product of all repeat counts: (a{1000}){1000} would take a gigabyte to compile. */
static bool repeats_are_modest(const char *text) {
    unsigned long product = 1;
    for (const char *at = text; (at = strchr(at, '{')) != NULL; at++) {
        char *end;
        unsigned long low = strtoul(at + 1, &end, 10);
        unsigned long high = *end == ',' ? strtoul(end + 1, NULL, 10) : 0;
        unsigned long count = high > low ? high : low;
        if (count > REPEAT_MAX || product * (count > 0 ? count : 1) > REPEAT_MAX) {
            return false;
        }
        product *= count > 0 ? count : 1;
    }
    return true;
}

static bool is_regex(const char *text) {
    if (text[0] == '\0' || strlen(text) > REGEX_MAX || !repeats_are_modest(text)) {
        return false;
    }
    regex_t regex;
    if (regcomp(&regex, text, REG_EXTENDED | REG_NOSUB) != 0) {
        return false;
    }
    regfree(&regex);
    return true;
}

static bool is_duration(const char *text) {
    uint64_t ignored;
    return strspn(text, "0123456789") <= DIGITS_MAX && units_parse_duration(text, &ignored) == 0;
}

static bool is_positive(const char *text) {
    uint64_t ms;
    return is_duration(text) && units_parse_duration(text, &ms) == 0 && ms > 0;
}

static bool is_size(const char *text) {
    uint64_t ignored;
    return strspn(text, "0123456789") <= DIGITS_MAX && units_parse_size(text, &ignored) == 0;
}

static bool is_percent(const char *text) {
    uint32_t ignored;
    return units_parse_percent(text, &ignored) == 0;
}

/* One status, or two with ".." between. */
static bool is_status(const char *text) {
    size_t digits = strspn(text, "0123456789");
    if (digits != 3 || text[0] < '1' || text[0] > '5') {
        return false;
    }
    if (text[3] == '\0') {
        return true;
    }
    return strncmp(text + 3, "..", 2) == 0 && strspn(text + 5, "0123456789") == 3 &&
           text[8] == '\0' && text[5] >= '1' && text[5] <= '5';
}

#define LINE_PATTERN "^[^\\u0000-\\u001f\\u007f]+$"

const struct text_format format_line = {
    .check = is_line, .pattern = LINE_PATTERN, .allowed = "a text on one line, not empty"};
const struct text_format format_free = {.check = is_free, .pattern = "^", .allowed = "a text"};
const struct text_format format_argument = {
    .check = is_argument,
    .pattern = "^[^\\u0000-\\u0008\\u000b-\\u001f\\u007f]+$",
    .allowed = "a text without control characters, not empty"};
const struct text_format format_name = {
    .check = text_is_plain_name,
    .pattern = "^(?!-)([A-Za-z0-9._:@%\\[\\]-]|" NAME_REF ")+$",
    .allowed = "letters, digits and . _ : @ % [ ] -, not beginning with -"};
const struct text_format format_address = {
    .check = is_address,
    .pattern = "^(?!-)(\\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?\\](:" PORT_PATTERN ")?"
               "|([A-Za-z0-9._-]|" NAME_REF ")+(:" PORT_PATTERN ")?"
               "|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9._-]+)?)$",
    .allowed = "a name, an IPv4 or an IPv6 address, with :PORT if it likes ([IPv6]:PORT); "
               "the user goes into \"user\""};
const struct text_format format_probe_host = {
    .check = is_probe_host,
    .pattern = "^(?!-)(\\$\\{address\\}|\\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?\\]"
               "|([A-Za-z0-9._-]|" NAME_REF ")+"
               "|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9._-]+)?)$",
    .allowed = "a name, an IPv4 or IPv6 address or ${address}, without a port"};
const struct text_format format_file = {
    .check = is_file,
    .pattern = "^(?!~[^/])(?!~$)[^\\u0000-\\u001f\\u007f]+$",
    .allowed = "a path: absolute, from the inventory's folder, or ~/...",
    .is_file = true};
const struct text_format format_target_path = {
    .check = is_target_path,
    .pattern = "^(?!/nix/store/)(?!.*/\\.\\.(/|$))/[^\\u0000-\\u001f\\u007f]+$",
    .allowed = "an absolute path on the target without \"..\", not in the Nix store"};
const struct text_format format_store_path = {
    .check = is_store_path,
    .pattern = "^/nix/store/[0-9a-df-np-sv-z]{32}-([0-9A-Za-z+._?=-]|" NAME_REF ")+$",
    .allowed = "a store path /nix/store/HASH-NAME"};
const struct text_format format_url = {.check = is_url,
                                       .pattern =
                                           "^[a-z][a-z0-9+.-]*://[^\\u0000-\\u0020\\u007f]+$",
                                       .allowed = "a URL such as \"file:///srv/cache\""};
const struct text_format format_http_url = {.check = is_http_url,
                                            .pattern = "^https?://[^\\u0000-\\u0020\\u007f]+$",
                                            .allowed =
                                                "a URL that begins with http:// or https://"};
const struct text_format format_tag = {
    .check = is_tag,
    .pattern = "^(?!-)[^\\u0000-\\u0020\\u007f,+!@]+$",
    .allowed = "a word without white space and , + ! @, not beginning with -"};
const struct text_format format_secret_name = {
    .check = is_secret_name,
    .pattern = "^([A-Za-z0-9_]|" NAME_REF ")([A-Za-z0-9._-]|" NAME_REF ")*$",
    .allowed = "a file name of letters, digits and . _ -, not beginning with . or -"};
const struct text_format format_host_key = {
    .check = is_host_key,
    .pattern = "^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)) [A-Za-z0-9+/]{16,}=*"
               "( [^\\u0000-\\u001f\\u007f]*)?$",
    .allowed = "a public key as in /etc/ssh/ssh_host_*_key.pub: \"ssh-ed25519 AAAA...\", without "
               "a host's name before it"};
const struct text_format format_cache_key = {
    .check = is_cache_key,
    .pattern = "^[^\\u0000-\\u001f\\u007f: ]+:[A-Za-z0-9+/]{16,}=*$",
    .allowed = "a cache's public key \"name:base64\""};
const struct text_format format_method = {
    .check = is_method, .pattern = "^[A-Z]+$", .allowed = "an HTTP method such as \"GET\""};
const struct text_format format_mode = {
    .check = is_mode, .pattern = "^0?[0-7]{3}$", .allowed = "an octal mode such as \"0400\""};
const struct text_format format_regex = {
    .check = is_regex,
    .pattern = "^[\\s\\S]{1,512}$",
    .allowed = "a POSIX extended regular expression of at most 512 bytes"};
const struct text_format format_duration = {
    .check = is_duration,
    .pattern = "^[0-9]{1,9}(ms|s|m|h|d)$",
    .allowed = "a duration such as \"500ms\", \"30s\", \"5m\" or \"1h\""};
const struct text_format format_positive = {
    .check = is_positive,
    .pattern = "^(?!0+[a-z])[0-9]{1,9}(ms|s|m|h|d)$",
    .allowed = "a duration above 0 such as \"500ms\", \"30s\", \"5m\" or \"1h\""};
const struct text_format format_size = {.check = is_size,
                                        .pattern = "^[0-9]{1,9}(\\.[0-9]{1,3})?(B|[KMGT]i?B)$",
                                        .allowed =
                                            "a size such as \"512KB\", \"10MB\" or \"1.5GB\""};
const struct text_format format_percent = {
    .check = is_percent, .pattern = "^0*(100|[0-9]{1,2})%$", .allowed = "a share such as \"10%\""};
const struct text_format format_status = {
    .check = is_status,
    .pattern = "^[1-5][0-9]{2}(\\.\\.[1-5][0-9]{2})?$",
    .allowed = "a status such as 200, or a range such as \"200..399\""};
