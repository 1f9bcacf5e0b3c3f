/* known_hosts files come from outside; so do the names that they are asked for. */
#include <stdint.h>

#include "transport/known_hosts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct known_hosts *hosts = known_hosts_parse("known_hosts", (const char *)data, size);
    for (size_t i = 0; i < hosts->count; i++) {
        known_host_matches(&hosts->entries[i], "db1");
        known_host_matches(&hosts->entries[i], "[10.0.0.1]:2222");
    }
    known_hosts_free(hosts);
    return 0;
}
