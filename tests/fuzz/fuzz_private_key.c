/* A damaged or foreign key file, without a passphrase and with one: a key that is taken has a
 * public half and signs, one that is not leaves nothing. A passphrase goes to PEM only: OpenSSH's
 * own format is slow by design, as many rounds as the file asks for. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "transport/private_key.h"
#include "transport/ssh_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void sign(const struct private_key *key) {
    static const char *const algorithms[] = {"ssh-ed25519",         "ecdsa-sha2-nistp256",
                                             "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
                                             "rsa-sha2-256",        "rsa-sha2-512"};
    static const uint8_t question[] = "question";
    for (size_t i = 0; i < ARRAY_LEN(algorithms); i++) {
        uint8_t *signature = NULL;
        size_t len = 0;
        if (private_key_sign(key->key, (const uint8_t *)algorithms[i], strlen(algorithms[i]),
                             question, sizeof(question), &signature, &len) == 0) {
            free(signature);
        }
    }
}

static void try(const char *text, size_t len, const char *passphrase) {
    struct private_key key;
    enum private_key_result result = private_key_parse(text, len, passphrase, &key);
    if ((result == PRIVATE_KEY_OK) != (key.key != NULL) ||
        (result == PRIVATE_KEY_OK && key.blob == NULL)) {
        abort();
    }
    if (result == PRIVATE_KEY_OK) {
        free(ssh_fingerprint(key.blob, key.blob_len));
        sign(&key);
    }
    private_key_release(&key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    AUTO_FREE char *text = xstrndup((const char *)data, size);
    try(text, strlen(text), NULL);
    if (strstr(text, "BEGIN OPENSSH") == NULL) {
        try(text, strlen(text), "secret");
    }
    return 0;
}
