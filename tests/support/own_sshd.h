/* An sshd of the caller's own on 127.0.0.1, with fresh keys, for measurements over a real one. Needs
 * root. Whatever goes wrong ends the program with a word on stderr.
 */
#ifndef FLEET_TESTS_OWN_SSHD_H
#define FLEET_TESTS_OWN_SSHD_H

#include <stddef.h>
#include <stdint.h>

#include "transport/transport.h"

struct own_sshd {
    char *folder; /* borrowed; a subfolder is made in it and removed again */
    uint16_t port;
    char *key; /* the private key that it lets in */
    struct conn_address address;
    struct keyring *keyring;
    struct conn_spec spec; /* for transport_open */
};

/* `ciphers` is what it allows (sshd_config's Ciphers). */
void own_sshd_start(struct own_sshd *sshd, char *folder, const char *ciphers);
void own_sshd_stop(struct own_sshd *sshd);
/* OpenSSH's client runs `command` there, its input read from the shell words `from`; `options` are
 * more words for ssh. Returns system()'s status. */
int own_sshd_client(const struct own_sshd *sshd, const char *from, const char *options,
                    const char *command);

#endif
