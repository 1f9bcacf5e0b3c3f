/* What a hostile SSH agent answers: its list of keys, and a signature. */
#include <stdint.h>
#include <stdlib.h>

#include "transport/agent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t algorithm[] = {'s', 's', 'h', '-', 'e', 'd', '2', '5', '5', '1', '9'};
    struct agent_key *keys = NULL;
    size_t count = 0;
    if (agent_parse_keys(data, size, &keys, &count) == 0) {
        for (size_t i = 0; i < count; i++) {
            struct buf request = BUF_INIT;
            agent_add_sign_request(&request, keys[i].blob, keys[i].blob_len, data, size, algorithm,
                                   sizeof(algorithm));
            buf_free(&request);
        }
        agent_keys_free(keys, count);
    }
    uint8_t *signature = NULL;
    size_t len = 0;
    if (agent_parse_signature(data, size, algorithm, sizeof(algorithm), &signature, &len) == 0) {
        if (len > size) {
            abort();
        }
        free(signature);
    }
    return 0;
}
