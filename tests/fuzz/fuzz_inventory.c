/* Hostile inventories: whatever the bytes, loading ends with hosts or with errors that can be
 * printed, and selecting from what was loaded works. The bytes are tried with an override too, whose
 * JSON they also are.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"
#include "inventory/inventory.h"
#include "inventory/select.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A printed error must hold no byte that moves a cursor. */
static void check_printable(const struct buf *out) {
    for (size_t i = 0; i < out->len; i++) {
        unsigned char c = (unsigned char)out->data[i];
        if ((c < 0x20 && c != '\n') || c == 0x7F) {
            abort();
        }
    }
}

static void use(const struct inventory *inventory) {
    static const char *const everything[] = {"*"};
    struct selection_args args = {.on = {everything, 1}};
    const struct inv_host **hosts = NULL;
    size_t count = 0;
    struct error error = ERROR_INIT;
    if (selection_resolve(inventory, &args, &hosts, &count, &error) == 0) {
        if (count != inventory->host_count) {
            abort();
        }
        free(hosts);
    }
    for (size_t i = 0; i < inventory->host_count; i++) {
        const struct inv_host *host = &inventory->hosts[i];
        if (inventory_host(inventory, host->name) != host || host->build_on_count == 0 ||
            (!host->local && host->address_count == 0)) {
            abort();
        }
        for (size_t j = 0; j < host->health_count; j++) {
            free(inv_expand(host->health[j].name, host, "::1"));
        }
    }
}

static void load(const char *path, const struct inv_override *overrides, size_t count) {
    struct inventory *inventory = NULL;
    struct inv_errors errors;
    struct error error = ERROR_INIT;
    if (inventory_load(path, overrides, count, &inventory, &errors, &error) == 0) {
        use(inventory);
        inventory_free(inventory);
        return;
    }
    struct buf out = BUF_INIT;
    inv_errors_print(&errors, "fleet.json", &out);
    if (errors.count == 0) {
        abort();
    }
    check_printable(&out);
    buf_free(&out);
    inv_errors_free(&errors);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int fd = memfd_create("inventory", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) {
        abort();
    }
    AUTO_FREE char *path = xasprintf("/proc/self/fd/%d", fd);
    AUTO_FREE char *json = xstrndup((const char *)data, size);
    struct inv_override override = {.key = "waves", .json = json};
    load(path, NULL, 0);
    load(path, &override, 1);
    close(fd);
    return 0;
}
