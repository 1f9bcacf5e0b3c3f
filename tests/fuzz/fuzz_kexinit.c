/* The first bytes of whatever listens on an SSH port, whole and byte by byte: both ways see the
 * same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "transport/ssh_kexinit.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct ssh_kexinit whole = {0};
    struct ssh_kexinit cut = {0};
    ssh_kexinit_feed(&whole, data, size);
    for (size_t at = 0; at < size; at++) {
        ssh_kexinit_feed(&cut, data + at, 1);
    }
    if (whole.parsed != cut.parsed) {
        abort();
    }
    ssh_kexinit_is_ssh(&whole);
    for (size_t i = 0; whole.parsed && i < SSH_KEX_LISTS; i++) {
        if (strcmp(whole.lists[i], cut.lists[i]) != 0 || strchr(whole.lists[i], '\033') != NULL) {
            abort();
        }
        ssh_kexinit_agrees(&whole, (enum ssh_kex_list)i, "aes128-ctr,aes256-ctr");
    }
    ssh_kexinit_release(&whole);
    ssh_kexinit_release(&cut);
    return 0;
}
