/* known_hosts files: parsing and matching, without any policy.
 *
 * Source: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT". Lines that can't be parsed are skipped, as ssh
 * does. Hashed names ("|1|salt|hash", HMAC-SHA1), patterns with * ? and !, [host]:port, markers.
 *
 * A parsed file is immutable. The cache belongs to one loop and reads a file again when it has
 * changed.
 */
#ifndef FLEET_TRANSPORT_KNOWN_HOSTS_H
#define FLEET_TRANSPORT_KNOWN_HOSTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum known_host_mark {
    KNOWN_HOST_KEY,
    KNOWN_HOST_REVOKED,
    KNOWN_HOST_AUTHORITY
};

struct known_host {
    const char *file; /* the path as it was given; owned by the file */
    unsigned line;    /* from 1 */
    enum known_host_mark mark;
    char *patterns; /* comma separated, lower case unless hashed */
    uint8_t *blob;
    size_t blob_len;
};

struct known_hosts_index;
struct known_hosts {
    char *path;
    char *fault; /* why a file that is there could not be read; NULL: all of it was */
    struct known_host *entries;
    size_t count;
    struct known_hosts_index *index; /* for known_hosts_find */
};

/* Parses a file's bytes. Never fails. */
struct known_hosts *known_hosts_parse(const char *path, const char *text, size_t len);
void known_hosts_free(struct known_hosts *hosts);
/* Does the line speak of `name` ("db1", "10.0.0.1", "[10.0.0.1]:2222", in lower case)? */
bool known_host_matches(const struct known_host *entry, const char *name);
/* The entries that speak of `name`, in the file's order: the same that known_host_matches finds,
 * without looking at each line that names other hosts. Returns their number; the array is the
 * caller's to free, NULL where there are none. */
size_t known_hosts_find(const struct known_hosts *hosts, const char *name,
                        const struct known_host ***ret_entries);

/* As known_hosts writes an address: lower case, "[host]:port" unless the port is 22. Caller
 * frees. */
char *known_hosts_name(const char *host, uint16_t port);

struct known_hosts_cache;
struct known_hosts_cache *known_hosts_cache_new(void);
void known_hosts_cache_free(struct known_hosts_cache *cache);
/* A file that isn't there is an empty one, and so is one with a `fault`. Valid until the next call of
 * this function for the same path. */
const struct known_hosts *known_hosts_cache_get(struct known_hosts_cache *cache, const char *path);
/* As known_hosts_find, and remembered while the file stays as it is: a hashed name costs an HMAC a
 * line. The array is the cache's; valid as long as what known_hosts_cache_get returns. */
size_t known_hosts_cache_find(struct known_hosts_cache *cache, const char *path, const char *name,
                              const struct known_host *const **ret_entries);

#endif
