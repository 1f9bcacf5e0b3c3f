/* bcrypt_pbkdf: how OpenSSH turns a passphrase into a key (PROTOCOL.key; bcrypt_pbkdf(3)).
 *
 * Written here since OpenSSL has no such function and libssh2 doesn't export its own; needed to
 * decrypt a key file once a run instead of once a connection.
 */
#ifndef FLEET_TRANSPORT_BCRYPT_PBKDF_H
#define FLEET_TRANSPORT_BCRYPT_PBKDF_H

#include <stddef.h>
#include <stdint.h>

/* Fills `key_len` bytes (at most 1024). `salt_len` is at most 64. Takes tens of milliseconds for
 * ssh-keygen's 16 to 24 rounds, on purpose. */
void bcrypt_pbkdf(const char *passphrase, size_t passphrase_len, const uint8_t *salt,
                  size_t salt_len, uint32_t rounds, uint8_t *key, size_t key_len);

#endif
