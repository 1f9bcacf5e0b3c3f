/* What ~/.ssh/config says of a host, through OpenSSH's own resolver `ssh -G`.
 *
 * One ssh process a host that has something unsaid; run many side by side, before the rollout.
 */
#ifndef FLEET_INVENTORY_SSH_CONFIG_H
#define FLEET_INVENTORY_SSH_CONFIG_H

#include "inventory/inventory.h"

struct ssh_config {
    char *hostname; /* what to connect to; never NULL */
    char *user;
    uint16_t port;
    char **identity_files; /* existing files only, ~ expanded */
    size_t identity_count;
    char **known_hosts; /* user and global files, ~ expanded */
    size_t known_hosts_count;
    char *proxy_jump;     /* or NULL */
    char *proxy_command;  /* or NULL; fleet can't run one, so that a message can name it */
    char *identity_agent; /* or NULL: $SSH_AUTH_SOCK; "none": no agent */
    bool identities_only;
    char *host_key_alias; /* or NULL */
};

/* Resolves `count` destinations ([user@]host, each a plain name) at once; results in order, each to be released with
 * ssh_config_release. At most 8 processes at a time, 10 s for each. Synchronous (before any lane
 * runs). 0, or FLEET_ERR_SYSTEM when ssh is missing, FLEET_ERR_USAGE when ~/.ssh/config is wrong
 * (ssh's own words in the message). Destinations that don't occur in any ssh_config Host block may
 * be answered without a process: if neither ~/.ssh/config nor /etc/ssh/ssh_config(.d) says
 * anything but comments and global defaults, one process answers for all. */
int ssh_config_resolve(const char *const *destinations, size_t count, struct ssh_config *ret,
                       struct error *error);
/* The same from one file instead of the user's and the system's (`ssh -F`); NULL: those. */
int ssh_config_resolve_from(const char *file, const char *const *destinations, size_t count,
                            struct ssh_config *ret, struct error *error);
void ssh_config_release(struct ssh_config *config);

#endif
