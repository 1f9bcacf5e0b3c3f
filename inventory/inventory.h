/* The inventory: which hosts there are, how to reach, build, check and roll them out.
 *
 * Loaded from fleet.json (CONTRACT, Inventory) into one arena with everything merged
 * (defaults < tags in file order < host), so a reader never merges. Immutable once loaded, hence
 * free to read from any thread; it outlives everything that points into it. All strings are
 * NUL-terminated and owned by the inventory. A pointer that is documented "or NULL" is absent when
 * the file says nothing.
 */
#ifndef FLEET_INVENTORY_INVENTORY_H
#define FLEET_INVENTORY_INVENTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/buf.h"
#include "core/base/error.h"

struct inv_strings {
    const char *const *items;
    size_t count;
};

struct inv_pair {
    const char *key;
    const char *value;
};

struct inv_pairs {
    const struct inv_pair *items;
    size_t count;
};

enum inv_system_kind {
    INV_SYSTEM_FLAKE,
    INV_SYSTEM_FILE,
    INV_SYSTEM_PATH,
    INV_SYSTEM_COMMAND
};

/* What to build. ${name} is already expanded; ${address} isn't (known only after connecting). */
struct inv_system {
    enum inv_system_kind kind;
    const char *flake_ref;      /* "." made absolute, "github:o/r", ...; FLAKE */
    const char *flake_attr;     /* what stands after '#'; FLAKE */
    const char *file;           /* absolute; FILE */
    const char *attr;           /* or NULL; FILE */
    struct inv_pairs args;      /* --argstr; FILE */
    const char *path;           /* /nix/store/...; PATH */
    struct inv_strings command; /* argv, run in the inventory's folder; COMMAND */
    struct inv_pairs nix_options;
    const char *nix_bin; /* folder of the Nix tools on the operator, or NULL: from PATH */
};

struct inv_address {
    const char *host; /* IPv4, IPv6 without brackets, or a name */
    uint16_t port;    /* 0: the host's `port` */
};

enum inv_host_key_check {
    INV_HOST_KEY_ASK,
    INV_HOST_KEY_STRICT,
    INV_HOST_KEY_ACCEPT_NEW,
    INV_HOST_KEY_OFF
};

struct inv_build_on {
    enum {
        INV_BUILD_LOCAL,
        INV_BUILD_TARGET,
        INV_BUILD_HOST,
        INV_BUILD_ADDRESS
    } kind;
    const char *host; /* inventory host's name; HOST */
    /* The address form, {"address": ..., "user": ..., "port": ..., "identity_file": ...}, is kept
     * as a nameless host of its own; ADDRESS. */
    const struct inv_host *spec;
};

enum inv_compress {
    INV_COMPRESS_AUTO,
    INV_COMPRESS_NONE,
    INV_COMPRESS_ZSTD
};
enum inv_substitute {
    INV_SUBSTITUTE_AUTO,
    INV_SUBSTITUTE_YES,
    INV_SUBSTITUTE_NO
};

struct inv_copy {
    enum inv_compress compress;
    enum inv_substitute substitute;
    uint64_t max_rate; /* bytes a second, 0: no limit */
    const char *cache_push;
    const char *cache_substituter;
    const char *cache_public_key; /* all three or NULL */
};

enum inv_reboot {
    INV_REBOOT_NEVER,
    INV_REBOOT_IF_NEEDED,
    INV_REBOOT_ALWAYS
};

/* The policy fields of scope "host". */
struct inv_host_policy {
    uint64_t activate_timeout_ms;
    uint64_t confirm_timeout_ms;
    uint64_t startup_grace_ms;
    uint64_t min_healthy_time_ms;
    uint64_t healthy_deadline_ms;
    bool fail_fast;
    bool tolerate_preexisting;
    bool rollback;
    enum inv_reboot reboot;
    const char *exclusive; /* a group's name, or NULL */
};

enum inv_health_type {
    INV_HEALTH_SYSTEMD,
    INV_HEALTH_TCP,
    INV_HEALTH_HTTP,
    INV_HEALTH_COMMAND,
    INV_HEALTH_METRIC
};

struct inv_health {
    const char *name;
    enum inv_health_type type;
    bool from_target;
    uint64_t interval_ms;
    uint64_t timeout_ms;
    uint32_t successes;
    uint32_t failures;
    /* systemd */
    struct inv_strings units;  /* globs; empty: the default rule */
    struct inv_strings ignore; /* globs */
    /* tcp */
    const char *host; /* or NULL: the address that answered */
    uint16_t port;
    /* http, metric */
    const char *url; /* ${address} not yet expanded */
    const char *method;
    struct inv_pairs headers;
    uint16_t status_min, status_max;
    const char *body_regex; /* POSIX extended, or NULL */
    bool tls_verify;
    uint32_t tls_min_days; /* 0: not checked */
    /* command */
    struct inv_strings run;
    /* metric */
    const char *query;
    bool has_above, has_below;
    double above, below;
};

enum inv_secret_source {
    INV_SECRET_FILE,
    INV_SECRET_COMMAND,
    INV_SECRET_AGE
};

struct inv_secret {
    const char *name;
    enum inv_secret_source source;
    const char *file;           /* absolute; FILE, AGE */
    const char *identity;       /* absolute; AGE */
    struct inv_strings command; /* COMMAND */
    const char *path;           /* on the target */
    const char *owner, *group;
    uint32_t mode;
    bool after; /* uploaded after activation */
    struct inv_strings restart;
};

struct inv_host {
    size_t index; /* in the inventory's order */
    const char *name;
    struct inv_strings tags;
    const struct inv_address *addresses; /* at least one, unless local */
    size_t address_count;
    bool local;       /* "address": "local" */
    uint16_t port;    /* 0: not said; ssh_config, else 22 */
    const char *user; /* or NULL: not said; ssh_config, else the operator's own name */
    struct inv_strings identity_files; /* absolute, or as ssh_config says when none is said */
    const char *known_hosts;           /* absolute, or NULL: not said */
    struct inv_strings host_keys;      /* "ssh-ed25519 AAAA..."; none: known_hosts */
    enum inv_host_key_check host_key_check;
    bool sudo;
    struct inv_strings password_command; /* for sudo; none: sudo -n */
    const char *jump;                    /* inventory host or user@host:port, or NULL */
    const struct inv_host *jump_host;    /* when `jump` names an inventory host */
    uint64_t connect_timeout_ms;
    bool optional;
    const char *profile;
    struct inv_system system;
    const struct inv_build_on *build_on; /* at least one */
    size_t build_on_count;
    struct inv_copy copy;
    struct inv_host_policy policy;
    const struct inv_health *health; /* the default systemd entry included, unless turned off */
    size_t health_count;
    const struct inv_secret *secrets;
    size_t secret_count;
};

/* A count or a share. */
struct inv_amount {
    bool percent;
    uint32_t value;
};

struct inv_wave {
    const char *tag;        /* a named wave: all hosts with the tag; else NULL and `size` counts */
    struct inv_amount size; /* cumulative */
};

/* A bound over the hosts of a tag among themselves, or over all (tag NULL). */
struct inv_group_limit {
    const char *tag;
    bool has_max_parallel;
    uint32_t max_parallel;
    bool has_copy_parallel;
    uint32_t copy_parallel;
};

enum inv_prestage {
    INV_PRESTAGE_NONE,
    INV_PRESTAGE_WAVE,
    INV_PRESTAGE_ALL
};
enum inv_order {
    INV_ORDER_UNHEALTHY_FIRST,
    INV_ORDER_INVENTORY,
    INV_ORDER_SHUFFLE
};
enum inv_on_failure {
    INV_ON_FAILURE_ROLLBACK_HOST,
    INV_ON_FAILURE_ROLLBACK_WAVE,
    INV_ON_FAILURE_ROLLBACK_ALL,
    INV_ON_FAILURE_LEAVE
};

/* The policy fields of scope "run" and "group". */
struct inv_run_policy {
    const struct inv_wave *waves; /* as written; the default is [1, "10%", "100%"] */
    size_t wave_count;
    const struct inv_group_limit *limits;
    size_t limit_count;
    enum inv_prestage prestage;
    enum inv_order order;
    uint64_t bake_ms;
    struct inv_amount max_failed;
    struct inv_amount max_unreachable;
    enum inv_on_failure on_failure;
    bool promote_manual;
};

struct inventory {
    const char *path; /* of the file, absolute */
    const char *dir;  /* its folder, absolute */
    const char *text; /* the file as it was read: it may be a pipe, or change since */
    size_t text_len;
    const char *name;             /* of the fleet; default: the folder's name */
    const struct inv_host *hosts; /* in the file's order */
    size_t host_count;
    struct inv_strings tags; /* all that exist, in order of first mention */
    struct inv_run_policy policy;
    struct inv_arena *arena;             /* private */
    const struct name_table *host_names; /* private */
};

/* One thing wrong with an inventory. */
struct inv_error {
    size_t line;         /* from 1; 0: not in the file, but in an override */
    size_t column;       /* from 1, in characters */
    const char *path;    /* "hosts.db1.health[0].port", "--policy waves[0]" */
    const char *message; /* what is wrong, what is allowed */
};

struct inv_errors {
    struct inv_error *items;
    size_t count;
    struct inv_arena *arena; /* private */
};

/* A policy override from the command line: `--policy KEY=JSON` and its short forms. */
struct inv_override {
    const char *key;
    const char *json;
};

/* Loads and validates `path`. 0 with the inventory in *ret, or FLEET_ERR_USAGE with every error
 * found in `errors` (empty and `error` set if the file can't be read at all). Reads the file, and
 * looks whether a flake.nix lies beside it; nothing else. Overrides are validated like the file,
 * and win over everything. Free with inventory_free, inv_errors_free. */
int inventory_load(const char *path, const struct inv_override *overrides, size_t override_count,
                   struct inventory **ret, struct inv_errors *errors, struct error *error);
void inventory_free(struct inventory *inventory);
void inv_errors_free(struct inv_errors *errors);
/* Prints all errors as `file:line:column: path: message` lines; those of an override without the
 * file's part. */
void inv_errors_print(const struct inv_errors *errors, const char *file, struct buf *out);

/* The nearest fleet.json from the working folder upward, or $FLEET_INVENTORY; a new string in
 * *ret that the caller frees. FLEET_ERR_USAGE with a message that says where it looked. */
int inventory_find(char **ret, struct error *error);

/* The host of that name, or NULL. */
const struct inv_host *inventory_host(const struct inventory *inventory, const char *name);
bool inv_host_has_tag(const struct inv_host *host, const char *tag);

/* Expands ${name} and ${address} in `text`; any other ${ stays. Caller frees. `address` may be
 * NULL: ${address} then stays. IPv6 addresses are bracketed. */
char *inv_expand(const char *text, const struct inv_host *host, const char *address);

#endif
