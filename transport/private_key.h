/* Private keys: reading OpenSSH's own format and PEM, and signing for SSH.
 *
 * Source: OpenSSH's PROTOCOL.key ("openssh-key-v1"); PEM (PKCS#1, SEC1, PKCS#8) is OpenSSL's to
 * read. Signatures as in RFC 8709 (Ed25519), RFC 5656 (ECDSA) and RFC 8332 (RSA with SHA-2; never
 * SHA-1). Secrets are wiped as soon as OpenSSL holds them.
 */
#ifndef FLEET_TRANSPORT_PRIVATE_KEY_H
#define FLEET_TRANSPORT_PRIVATE_KEY_H

#include <openssl/evp.h>
#include <stddef.h>
#include <stdint.h>

enum private_key_result {
    PRIVATE_KEY_OK,
    PRIVATE_KEY_ENCRYPTED,        /* a passphrase is needed; the public half may be known */
    PRIVATE_KEY_WRONG_PASSPHRASE, /* or a damaged file */
    PRIVATE_KEY_UNSUPPORTED       /* not a private key, or of a kind that we don't have */
};

struct private_key {
    EVP_PKEY *key; /* NULL unless PRIVATE_KEY_OK */
    uint8_t *blob; /* the public half as on the wire, or NULL where the file doesn't tell */
    size_t blob_len;
};

/* Reads a key; `passphrase` may be NULL. The caller releases what `ret` holds, whatever the
 * result, with private_key_release. */
enum private_key_result private_key_parse(const char *text, size_t len, const char *passphrase,
                                          struct private_key *ret);
void private_key_release(struct private_key *key);

/* Signs with `algorithm` ("ssh-ed25519", "rsa-sha2-512", ...). The result is the inner signature,
 * without the algorithm's name, from malloc. 0 or -1 where the key can't do that algorithm. */
int private_key_sign(EVP_PKEY *key, const uint8_t *algorithm, size_t algorithm_len,
                     const uint8_t *data, size_t len, uint8_t **ret, size_t *ret_len);

#endif
