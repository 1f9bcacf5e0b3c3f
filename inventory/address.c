#include "inventory/address.h"

#include <arpa/inet.h>
#include <string.h>

/* 1..65535 in plain digits, up to the end of the text. */
static bool parse_port(const char *text, uint16_t *ret) {
    unsigned value = 0;
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 5 || text[digits] != '\0' || text[0] == '0') {
        return false;
    }
    for (size_t i = 0; i < digits; i++) {
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    *ret = (uint16_t)value;
    return value <= UINT16_MAX;
}

/* An IPv6 address, with a zone ("fe80::1%eth0") if it likes. */
static bool is_ipv6(const char *text, size_t len) {
    char copy[INET6_ADDRSTRLEN];
    struct in6_addr ignored;
    const char *zone = memchr(text, '%', len);
    size_t address_len = zone != NULL ? (size_t)(zone - text) : len;
    if (address_len == 0 || address_len >= sizeof(copy) ||
        (zone != NULL && zone + 1 == text + len)) {
        return false;
    }
    memcpy(copy, text, address_len);
    copy[address_len] = '\0';
    return inet_pton(AF_INET6, copy, &ignored) == 1;
}

static bool is_name_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

static bool are_name_chars(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if (!is_name_char(text[i])) {
            return false;
        }
    }
    return true;
}

bool address_split(const char *text, struct address_parts *ret) {
    struct address_parts parts = {.host = text};
    const char *colon = strchr(text, ':');
    const char *port = NULL;
    if (text[0] == '[') {
        const char *close = strchr(text, ']');
        if (close == NULL || !is_ipv6(text + 1, (size_t)(close - text) - 1)) {
            return false;
        }
        parts.host = text + 1;
        parts.host_len = (size_t)(close - text) - 1;
        port = close[1] != '\0' ? close + 1 : NULL;
    } else if (colon != NULL && strchr(colon + 1, ':') != NULL) {
        parts.host_len = strlen(text);
        if (!is_ipv6(text, parts.host_len)) {
            return false;
        }
    } else {
        port = colon;
        parts.host_len = colon != NULL ? (size_t)(colon - text) : strlen(text);
        if (parts.host_len == 0 || text[0] == '-' || !are_name_chars(text, parts.host_len)) {
            return false;
        }
    }
    const char *zone = memchr(parts.host, '%', parts.host_len);
    if (zone != NULL &&
        !are_name_chars(zone + 1, (size_t)(parts.host + parts.host_len - zone) - 1)) {
        return false;
    }
    if (port != NULL && (port[0] != ':' || !parse_port(port + 1, &parts.port))) {
        return false;
    }
    if (ret != NULL) {
        *ret = parts;
    }
    return true;
}

const char *address_user(const char *text, size_t *ret_len, const char **ret_rest) {
    const char *at = strrchr(text, '@');
    *ret_len = at != NULL ? (size_t)(at - text) : 0;
    *ret_rest = at != NULL ? at + 1 : text;
    return at != NULL ? text : NULL;
}
