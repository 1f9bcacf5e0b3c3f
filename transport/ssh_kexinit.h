/* Reads the peer's banner and KEXINIT as they pass by in clear, to say in an error what it is and
 * what it offers: libssh2 says "Unable to exchange encryption keys" and no more.
 *
 * Source: RFC 4253, sections 4.2 and 7.1.
 */
#ifndef FLEET_TRANSPORT_SSH_KEXINIT_H
#define FLEET_TRANSPORT_SSH_KEXINIT_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/buf.h"

enum ssh_kex_list {
    SSH_KEX_METHODS,
    SSH_KEX_HOST_KEYS,
    SSH_KEX_CIPHERS, /* client to server, as all that follow */
    SSH_KEX_CIPHERS_BACK,
    SSH_KEX_MACS,
    SSH_KEX_MACS_BACK,
    SSH_KEX_LISTS
};

struct ssh_kexinit {
    struct buf seen; /* the first bytes from the peer, until the KEXINIT is whole */
    size_t line;     /* of `seen`: where the first line begins that was not looked at */
    size_t packets;  /* of `seen`: behind the line "SSH-...", 0 while it is not whole */
    bool done;       /* parsed, or given up */
    bool parsed;
    char *lists[SSH_KEX_LISTS]; /* the peer's, cleaned for printing; NULL unless parsed */
};

/* Bytes from the peer. Cheap once done. */
void ssh_kexinit_feed(struct ssh_kexinit *kexinit, const void *data, size_t len);
/* True once the peer has begun the line that an SSH server begins with. */
bool ssh_kexinit_is_ssh(const struct ssh_kexinit *kexinit);
/* True if `ours` and the peer's list (both comma separated) have a name in common. */
bool ssh_kexinit_agrees(const struct ssh_kexinit *kexinit, enum ssh_kex_list list,
                        const char *ours);
void ssh_kexinit_release(struct ssh_kexinit *kexinit);

#endif
