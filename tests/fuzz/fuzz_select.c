/* Selectors and tag expressions as people, scripts and CI variables hand them over: each line of the
 * input is one, in turns a selector, a --tag, an --on and an --exclude. Hosts come in the
 * inventory's order and each once, or there is an error that can be printed. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "inventory/inventory.h"
#include "inventory/select.h"

#define WORDS_MAX 8u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char fleet_json[] =
    "{\"version\":1,\"tags\":{\"db\":{},\"web\":{},\"prod\":{}},\"hosts\":{"
    "\"db1\":{\"tags\":[\"db\",\"prod\"],\"system\":{\"path\":\"/nix/store/"
    "7z7y2q0b1n5d3l8x9v4k6s2h1m0c3w5r-a\"}},"
    "\"db2\":{\"tags\":[\"db\"],\"system\":{\"path\":\"/nix/store/"
    "7z7y2q0b1n5d3l8x9v4k6s2h1m0c3w5r-a\"}},"
    "\"web1\":{\"tags\":[\"web\",\"prod\"],\"system\":{\"path\":\"/nix/store/"
    "7z7y2q0b1n5d3l8x9v4k6s2h1m0c3w5r-a\"}}}}";

/* Loaded once: it never changes. */
static const struct inventory *fleet(void) {
    static struct inventory *inventory;
    if (inventory != NULL) {
        return inventory;
    }
    int fd = memfd_create("inventory", MFD_CLOEXEC);
    ssize_t len = (ssize_t)sizeof(fleet_json) - 1;
    AUTO_FREE char *path = xasprintf("/proc/self/fd/%d", fd);
    struct inv_errors errors;
    struct error error = ERROR_INIT;
    if (fd < 0 || write(fd, fleet_json, (size_t)len) != len ||
        inventory_load(path, NULL, 0, &inventory, &errors, &error) != 0) {
        abort();
    }
    close(fd);
    return inventory;
}

static void check(const struct inventory *inventory, const struct selection_args *args) {
    const struct inv_host **hosts = NULL;
    size_t count = 0;
    struct error error = ERROR_INIT;
    if (selection_resolve(inventory, args, &hosts, &count, &error) != 0) {
        if (error.message[0] == '\0' || strchr(error.message, '\033') != NULL) {
            abort();
        }
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && hosts[i] <= hosts[i - 1]) {
            abort();
        }
    }
    free(hosts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    AUTO_FREE char *text = xstrndup((const char *)data, size);
    const char *words[4][WORDS_MAX];
    size_t counts[4] = {0};
    char *rest = text;
    char *word;
    for (size_t i = 0; (word = strsep(&rest, "\n")) != NULL; i++) {
        if (counts[i % 4] < WORDS_MAX) {
            words[i % 4][counts[i % 4]++] = word;
        }
    }
    struct selection_args args = {.selectors = {words[0], counts[0]},
                                  .tags = {words[1], counts[1]},
                                  .on = {words[2], counts[2]},
                                  .exclude = {words[3], counts[3]}};
    check(fleet(), &args);
    return 0;
}
