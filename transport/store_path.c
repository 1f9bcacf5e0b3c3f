/* Store paths: the one place that says what may be a path of the Nix store (NIX-PROTOCOL 1).
 *
 * A path that passes needs no quoting anywhere: no space, no quote, no slash after the prefix.
 */
#include <string.h>

#include "transport/closure.h"

#define STORE_PREFIX   "/nix/store/"
#define STORE_HASH     32u
#define STORE_NAME_MAX 211u

bool store_path_is_valid(const char *text) {
    static const char hash_alphabet[] = "0123456789abcdfghijklmnpqrsvwxyz";
    static const char name_alphabet[] =
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-._?=";
    size_t prefix = strlen(STORE_PREFIX);
    if (strncmp(text, STORE_PREFIX, prefix) != 0) {
        return false;
    }
    text += prefix;
    if (strspn(text, hash_alphabet) < STORE_HASH || text[STORE_HASH] != '-') {
        return false;
    }
    const char *name = text + STORE_HASH + 1;
    size_t len = strspn(name, name_alphabet);
    return len > 0 && len <= STORE_NAME_MAX && name[len] == '\0' && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}
