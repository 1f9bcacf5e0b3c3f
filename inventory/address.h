/* Addresses as they are written in the inventory: HOST, HOST:PORT, an IPv6 address, [IPv6]:PORT.
 */
#ifndef FLEET_INVENTORY_ADDRESS_H
#define FLEET_INVENTORY_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct address_parts {
    const char *host; /* points into the text, not terminated */
    size_t host_len;
    uint16_t port; /* 0: none */
};

/* False where `text` is none. Without ret it only checks. */
bool address_split(const char *text, struct address_parts *ret);

/* The user of "user@host:port", or NULL; *ret_rest is what follows it. Not terminated. */
const char *address_user(const char *text, size_t *ret_len, const char **ret_rest);

#endif
