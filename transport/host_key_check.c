#include "transport/host_key_check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "transport/known_hosts.h"
#include "transport/ssh_wire.h"

/* In order of preference where nothing is known: the cheapest to verify first (measured with
 * OpenSSL 3.0: ECDSA P-256 0.1 ms, Ed25519 0.15 ms, RSA-3072 0.05 ms but hosts sign it slowly). No
 * SHA-1, no DSA, no certificates. */
static const struct {
    const char *algorithm;
    const char *key_type; /* of the blob; several algorithms may use one type */
} algorithms[] = {
    {"ssh-ed25519", "ssh-ed25519"},
    {"ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256"},
    {"ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384"},
    {"ecdsa-sha2-nistp521", "ecdsa-sha2-nistp521"},
    {"rsa-sha2-512", "ssh-rsa"},
    {"rsa-sha2-256", "ssh-rsa"},
};

enum {
    ALGORITHMS = ARRAY_LEN(algorithms)
};

static struct ssh_bytes key_type(const uint8_t *blob, size_t len) {
    struct ssh_reader reader = {blob, len, false};
    return ssh_read_string(&reader);
}

/* The blob of "ssh-ed25519 AAAA... comment", or NULL. Caller frees. */
static uint8_t *inventory_key(const char *text, size_t *ret_len) {
    const char *base64 = strchr(text, ' ');
    if (base64 == NULL) {
        return NULL;
    }
    base64 += strspn(base64, " ");
    size_t len = strcspn(base64, " \t\r\n");
    uint8_t *blob = xmalloc(len / 4 * 3 + 3);
    long decoded = ssh_base64_decode(base64, len, blob);
    if (decoded <= 0) {
        free(blob);
        return NULL;
    }
    *ret_len = (size_t)decoded;
    return blob;
}

static char *lookup_name(const struct conn_spec *spec, const struct conn_address *address) {
    if (spec->host_key_alias != NULL) {
        return known_hosts_name(spec->host_key_alias, 22);
    }
    return known_hosts_name(address->host, address->port);
}

/* What the known_hosts files say about one name. */
struct findings {
    bool match;
    const struct known_host *changed;   /* a key of this host that differs, same type preferred */
    const struct known_host *revoked;   /* the offered key, revoked */
    const struct known_host *authority; /* an authority for this host */
    const struct known_hosts *unread;   /* a file that may say something, and can't be read */
};

static void look_up(struct known_hosts_cache *cache, const struct conn_spec *spec, const char *name,
                    const uint8_t *blob, size_t blob_len, struct findings *ret) {
    struct ssh_bytes offered = {blob, blob_len};
    struct ssh_bytes type = key_type(blob, blob_len);
    *ret = (struct findings){0};
    for (size_t f = 0; f < spec->known_hosts_count; f++) {
        const struct known_host *const *entries;
        size_t count = known_hosts_cache_find(cache, spec->known_hosts[f], name, &entries);
        const struct known_hosts *file = known_hosts_cache_get(cache, spec->known_hosts[f]);
        ret->unread = file->fault != NULL ? file : ret->unread;
        for (size_t i = 0; i < count; i++) {
            const struct known_host *entry = entries[i];
            struct ssh_bytes known = {entry->blob, entry->blob_len};
            bool same = ssh_bytes_equal(known, offered);
            if (entry->mark == KNOWN_HOST_REVOKED) {
                ret->revoked = same ? entry : ret->revoked;
            } else if (entry->mark == KNOWN_HOST_AUTHORITY) {
                ret->authority = entry;
            } else if (same) {
                ret->match = true;
            } else if (ret->changed == NULL ||
                       ssh_bytes_equal(key_type(entry->blob, entry->blob_len), type)) {
                ret->changed = entry;
            }
        }
    }
}

/* Marks the algorithms of keys that are known for `name`. */
static void mark_known(struct known_hosts_cache *cache, const struct conn_spec *spec,
                       const char *name, bool known[ALGORITHMS]) {
    for (size_t f = 0; f < spec->known_hosts_count; f++) {
        const struct known_host *const *entries;
        size_t count = known_hosts_cache_find(cache, spec->known_hosts[f], name, &entries);
        for (size_t i = 0; i < count; i++) {
            const struct known_host *entry = entries[i];
            if (entry->mark != KNOWN_HOST_KEY) {
                continue;
            }
            struct ssh_bytes type = key_type(entry->blob, entry->blob_len);
            for (size_t a = 0; a < ALGORITHMS; a++) {
                known[a] = known[a] || ssh_bytes_are(type, algorithms[a].key_type);
            }
        }
    }
}

static void mark_inventory(const struct conn_spec *spec, bool known[ALGORITHMS]) {
    for (size_t i = 0; i < spec->host_key_count; i++) {
        size_t len = strcspn(spec->host_keys[i], " ");
        for (size_t a = 0; a < ALGORITHMS; a++) {
            known[a] = known[a] || (strlen(algorithms[a].key_type) == len &&
                                    memcmp(spec->host_keys[i], algorithms[a].key_type, len) == 0);
        }
    }
}

void host_key_algorithms(struct known_hosts_cache *cache, const struct conn_spec *spec,
                         const struct conn_address *address, struct buf *out) {
    bool known[ALGORITHMS] = {false};
    if (spec->host_key_count > 0) {
        mark_inventory(spec, known);
    } else if (spec->host_key_check != HOST_KEY_OFF) {
        AUTO_FREE char *name = lookup_name(spec, address);
        mark_known(cache, spec, name, known);
        if (name[0] == '[') {
            AUTO_FREE char *bare = known_hosts_name(address->host, 22);
            mark_known(cache, spec, bare, known);
        }
    }
    for (int pass = 0; pass < 2; pass++) {
        for (size_t a = 0; a < ALGORITHMS; a++) {
            if (known[a] == (pass == 0)) {
                buf_printf(out, "%s%s", out->len > 0 ? "," : "", algorithms[a].algorithm);
            }
        }
    }
}

char *host_key_line(const struct conn_spec *spec, const struct conn_address *address,
                    const uint8_t *blob, size_t blob_len) {
    AUTO_FREE char *name = lookup_name(spec, address);
    struct ssh_bytes type = key_type(blob, blob_len);
    struct buf line = BUF_INIT;
    buf_printf(&line, "%s %.*s ", name, (int)type.len, (const char *)type.data);
    ssh_base64_add(&line, blob, blob_len);
    return buf_take(&line);
}

static int verify_inventory(const struct conn_spec *spec, const struct conn_address *address,
                            const uint8_t *blob, size_t blob_len, struct error *error) {
    struct ssh_bytes offered = {blob, blob_len};
    for (size_t i = 0; i < spec->host_key_count; i++) {
        size_t len = 0;
        AUTO_FREE uint8_t *known = inventory_key(spec->host_keys[i], &len);
        if (known != NULL && ssh_bytes_equal((struct ssh_bytes){known, len}, offered)) {
            return 0;
        }
    }
    AUTO_FREE char *fingerprint = ssh_fingerprint(blob, blob_len);
    AUTO_FREE char *line = host_key_line(spec, address, blob, blob_len);
    const char *key = strchr(line, ' ') + 1;
    return error_set(error, FLEET_ERR_UNREACHABLE, "host-key-changed",
                     "%s offers the %s key %s, which is none of the inventory's `host_key`s of %s: "
                     "somebody may be in between. If the host was set up anew, the inventory "
                     "needs: %s",
                     address->host, ssh_key_type_name(blob, blob_len), fingerprint, spec->name,
                     key);
}

static int set_changed(const struct conn_address *address, const struct known_host *known,
                       const uint8_t *blob, size_t blob_len, struct error *error) {
    AUTO_FREE char *was = ssh_fingerprint(known->blob, known->blob_len);
    AUTO_FREE char *now = ssh_fingerprint(blob, blob_len);
    return error_set(error, FLEET_ERR_UNREACHABLE, "host-key-changed",
                     "the host key of %s has changed: %s:%u knows %s %s, the host offers %s %s. "
                     "Somebody may be in between. If the host was set up anew, remove that line",
                     address->host, known->file, known->line,
                     ssh_key_type_name(known->blob, known->blob_len), was,
                     ssh_key_type_name(blob, blob_len), now);
}

static int set_unknown(const struct conn_spec *spec, const struct conn_address *address,
                       const struct known_host *authority, const uint8_t *blob, size_t blob_len,
                       struct error *error) {
    AUTO_FREE char *line = host_key_line(spec, address, blob, blob_len);
    if (authority != NULL) {
        return error_set(error, FLEET_ERR_UNREACHABLE, "host-key-unsupported",
                         "%s is known only through the certificate authority at %s:%u, and host "
                         "certificates are not supported: add its own key to known_hosts: %s",
                         address->host, authority->file, authority->line, line);
    }
    AUTO_FREE char *fingerprint = ssh_fingerprint(blob, blob_len);
    const char *file = spec->known_hosts_count > 0 ? spec->known_hosts[0] : "known_hosts";
    return error_set(error, FLEET_ERR_UNREACHABLE, "host-key-unknown",
                     "the host key of %s is unknown (%s %s): compare it, then add this line to %s: "
                     "%s",
                     address->host, ssh_key_type_name(blob, blob_len), fingerprint, file, line);
}

static int accept_new(const struct conn_spec *spec, const struct conn_address *address,
                      const uint8_t *blob, size_t blob_len, struct error *error) {
    if (spec->known_hosts_count == 0) {
        return 0;
    }
    AUTO_FREE char *line = host_key_line(spec, address, blob, blob_len);
    return known_hosts_append(spec->known_hosts[0], line, error);
}

int host_key_verify(struct known_hosts_cache *cache, const struct conn_spec *spec,
                    const struct conn_address *address, const uint8_t *blob, size_t blob_len,
                    struct error *error) {
    if (spec->host_key_count > 0) {
        return verify_inventory(spec, address, blob, blob_len, error);
    }
    if (spec->host_key_check == HOST_KEY_OFF) {
        return 0;
    }
    AUTO_FREE char *name = lookup_name(spec, address);
    struct findings found;
    look_up(cache, spec, name, blob, blob_len, &found);
    struct findings bare = {0};
    if (name[0] == '[') {
        AUTO_FREE char *bare_name = known_hosts_name(address->host, 22);
        look_up(cache, spec, bare_name, blob, blob_len, &bare);
    }
    if (found.revoked != NULL || bare.revoked != NULL) {
        const struct known_host *line = found.revoked != NULL ? found.revoked : bare.revoked;
        AUTO_FREE char *fingerprint = ssh_fingerprint(blob, blob_len);
        return error_set(error, FLEET_ERR_UNREACHABLE, "host-key-revoked",
                         "%s offers a host key that %s:%u revokes (%s): do not use this host until "
                         "its key has been replaced",
                         address->host, line->file, line->line, fingerprint);
    }
    if (found.match) {
        return 0;
    }
    if (found.changed != NULL) {
        return set_changed(address, found.changed, blob, blob_len, error);
    }
    if (found.unread != NULL) {
        return error_set(
            error, FLEET_ERR_UNREACHABLE, "system",
            "%s can't be read (%s), so nobody knows whether %s offers its own host key",
            found.unread->path, found.unread->fault, address->host);
    }
    if (bare.match) {
        return 0;
    }
    if (spec->host_key_check == HOST_KEY_ACCEPT_NEW) {
        return accept_new(spec, address, blob, blob_len, error);
    }
    const struct known_host *authority = found.authority != NULL ? found.authority : bare.authority;
    return set_unknown(spec, address, authority, blob, blob_len, error);
}

/* Makes the folders of `path`, 0700. Errors show when the file is opened. */
static void make_folders(const char *path) {
    AUTO_FREE char *folder = xstrdup(path);
    for (char *slash = strchr(folder + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(folder, 0700);
        *slash = '/';
    }
}

int known_hosts_append(const char *path, const char *line, struct error *error) {
    make_folders(path);
    AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || flock(fd, LOCK_EX) != 0) {
        return error_errno(error, errno, "writing the new host key to %s", path);
    }
    struct stat status;
    char last = '\n';
    if (fstat(fd, &status) == 0 && status.st_size > 0 &&
        pread(fd, &last, 1, status.st_size - 1) != 1) {
        last = '\n';
    }
    AUTO_FREE char *text = xasprintf("%s%s\n", last != '\n' ? "\n" : "", line);
    size_t len = strlen(text);
    if (write(fd, text, len) != (ssize_t)len) {
        return error_errno(error, errno, "writing the new host key to %s", path);
    }
    return 0;
}
