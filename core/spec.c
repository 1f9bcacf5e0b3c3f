/* Connection specs from the inventory and ~/.ssh/config (see spec.h).
 *
 * The end points form a graph: hosts, their jumps, the jumps' jumps, build hosts. It is filled in
 * rounds: all end points that are new are asked of `ssh -G` together, and what their answers name
 * are the next round's. A jump that is no inventory host is known by its text; "a,b" is b through
 * a, as OpenSSH means it.
 *
 * Everything lives in one arena; only passwords are allocated apart, since they are wiped.
 */
#include "core/spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/password.h"
#include "core/spec_internal.h"
#include "inventory/ssh_config.h"

/* ---- the nodes ---- */

static struct spec_node *add_node(struct spec_set *set) {
    struct spec_node *node = arena_alloc(set->arena, 1, sizeof(*node));
    set->nodes = xrealloc(set->nodes, (set->count + 1) * sizeof(struct spec_node *));
    set->nodes[set->count++] = node;
    return node;
}

static bool is_listed(const struct spec_set *set, const struct inv_host *host) {
    return host->index < set->inventory->host_count && host == &set->inventory->hosts[host->index];
}

static struct spec_node *find_host(const struct spec_set *set, const struct inv_host *host) {
    if (is_listed(set, host)) {
        return set->by_index[host->index];
    }
    for (size_t i = 0; i < set->count; i++) {
        if (set->nodes[i]->inv == host) {
            return set->nodes[i];
        }
    }
    return NULL;
}

static struct spec_node *add_host(struct spec_set *set, const struct inv_host *host) {
    struct spec_node *node = find_host(set, host);
    if (node == NULL) {
        node = add_node(set);
        node->inv = host;
        if (is_listed(set, host)) {
            set->by_index[host->index] = node;
        }
    }
    return node;
}

static void add_build_hosts(struct spec_set *set, const struct inv_host *host) {
    for (size_t i = 0; i < host->build_on_count; i++) {
        const struct inv_build_on *on = &host->build_on[i];
        const struct inv_host *builder = NULL;
        if (on->kind == INV_BUILD_HOST) {
            builder = inventory_host(set->inventory, on->host);
        } else if (on->kind == INV_BUILD_ADDRESS) {
            builder = on->spec;
        }
        if (builder != NULL) {
            add_host(set, builder)->builds = true;
        }
    }
}

static int refuse_jump(const char *text, struct error *error) {
    AUTO_FREE char *shown = text_cleaned(text, strlen(text));
    return error_set(error, FLEET_ERR_USAGE, "usage",
                     "the jump \"%s\" cannot be read; write an inventory host or user@host:port",
                     shown);
}

/* "user@host:port", "host", "user@[fd00::1]:22". */
static int read_jump(struct spec_set *set, struct spec_node *node, const char *text, size_t len,
                     struct error *error) {
    static const char scheme[] = "ssh://";
    const char *at = arena_text(set->arena, text, len);
    if (strncmp(at, scheme, strlen(scheme)) == 0) {
        at += strlen(scheme);
    }
    const char *sign = strrchr(at, '@');
    if (sign != NULL) {
        node->user = arena_text(set->arena, at, (size_t)(sign - at));
        at = sign + 1;
    }
    const char *colon = strrchr(at, ':');
    if (at[0] == '[' && strchr(at, ']') != NULL) {
        const char *end = strchr(at, ']');
        node->host = arena_text(set->arena, at + 1, (size_t)(end - at - 1));
        colon = end[1] == ':' ? end + 1 : NULL;
    } else if (colon != NULL && strchr(at, ':') == colon) {
        node->host = arena_text(set->arena, at, (size_t)(colon - at));
    } else {
        node->host = at;
        colon = NULL;
    }
    if (colon != NULL) {
        char *end;
        unsigned long port = strtoul(colon + 1, &end, 10);
        if (*end != '\0' || port == 0 || port > UINT16_MAX) {
            return refuse_jump(text, error);
        }
        node->port = (uint16_t)port;
    }
    bool plain =
        text_is_plain_name(node->host) && (node->user == NULL || text_is_plain_name(node->user));
    return plain ? 0 : refuse_jump(text, error);
}

static struct spec_node *find_jump(const struct spec_set *set, const char *text, size_t len) {
    for (size_t i = 0; i < set->count; i++) {
        const char *known = set->nodes[i]->jump_text;
        if (known != NULL && strlen(known) == len && memcmp(known, text, len) == 0) {
            return set->nodes[i];
        }
    }
    return NULL;
}

/* The end point that a jump's text means; made where it is new. A list's earlier parts are the way
 * to its last one. */
static int add_jump(struct spec_set *set, const char *text, const struct inv_host *by,
                    struct spec_node **ret, struct error *error) {
    struct spec_node *before = NULL;
    for (const char *part = text;; part++) {
        size_t len = strcspn(part, ",");
        size_t whole = (size_t)(part - text) + len;
        struct spec_node *node = find_jump(set, text, whole);
        if (node == NULL) {
            node = add_node(set);
            node->jump_text = arena_text(set->arena, text, whole);
            node->by = by;
            node->spec.jump = before != NULL ? &before->spec : NULL;
            int err = read_jump(set, node, part, len, error);
            if (err != 0) {
                return err;
            }
        }
        before = node;
        part += len;
        if (*part == '\0') {
            *ret = node;
            return 0;
        }
    }
}

/* ---- a round: what ssh_config says ---- */

static size_t destination_count(const struct spec_node *node) {
    if (node->inv == NULL) {
        return 1;
    }
    return node->inv->local ? 0 : node->inv->address_count;
}

static const char *destination(struct spec_set *set, const struct spec_node *node, size_t i) {
    const char *user = node->inv != NULL ? node->inv->user : node->user;
    const char *host = node->inv != NULL ? node->inv->addresses[i].host : node->host;
    return user != NULL ? arena_printf(set->arena, "%s@%s", user, host) : host;
}

static const char *copied(struct spec_set *set, const char *text) {
    return text != NULL ? arena_text(set->arena, text, strlen(text)) : NULL;
}

/* `first`, then what ssh_config says. */
static const char *const *joined(struct spec_set *set, const char *const *first, size_t first_count,
                                 char **items, size_t count) {
    const char **list = arena_alloc(set->arena, first_count + count + 1, sizeof(*list));
    for (size_t i = 0; i < first_count; i++) {
        list[i] = first[i];
    }
    for (size_t i = 0; i < count; i++) {
        list[first_count + i] = copied(set, items[i]);
    }
    return list;
}

static void fill_addresses(struct spec_set *set, struct spec_node *node,
                           const struct ssh_config *configs) {
    size_t count = destination_count(node);
    struct conn_address *addresses = arena_alloc(set->arena, count, sizeof(*addresses));
    for (size_t i = 0; i < count; i++) {
        uint16_t port = node->inv != NULL ? node->inv->addresses[i].port : node->port;
        if (port == 0 && node->inv != NULL) {
            port = node->inv->port;
        }
        addresses[i].host = copied(set, configs[i].hostname);
        addresses[i].port = port != 0 ? port : configs[i].port;
    }
    node->spec.addresses = addresses;
    node->spec.address_count = count;
}

/* A jump that a host of the inventory names is trusted as that host is; ssh_config, which may know
 * more of it, has its say, too. */
static void fill_from_namer(struct spec_set *set, struct spec_node *node,
                            const struct ssh_config *config) {
    const struct inv_host *by = node->by;
    struct conn_spec *spec = &node->spec;
    spec->identity_files = joined(set, by->identity_files.items, by->identity_files.count,
                                  config->identity_files, config->identity_count);
    spec->identity_count = by->identity_files.count + config->identity_count;
    size_t own = by->known_hosts != NULL;
    spec->known_hosts =
        joined(set, &by->known_hosts, own, config->known_hosts, config->known_hosts_count);
    spec->known_hosts_count = own + config->known_hosts_count;
    spec->connect_timeout_ms = by->connect_timeout_ms;
}

/* What the inventory says, and the rest from ssh_config. */
static void fill_identity(struct spec_set *set, struct spec_node *node,
                          const struct ssh_config *config) {
    const struct inv_host *inv = node->inv;
    struct conn_spec *spec = &node->spec;
    const char *user = inv != NULL ? inv->user : node->user;
    spec->user = user != NULL ? user : copied(set, config->user);
    if (inv != NULL && inv->identity_files.count > 0) {
        spec->identity_files = inv->identity_files.items;
        spec->identity_count = inv->identity_files.count;
    } else {
        spec->identity_files = joined(set, NULL, 0, config->identity_files, config->identity_count);
        spec->identity_count = config->identity_count;
    }
    spec->identities_only = config->identities_only;
    if (inv != NULL && inv->known_hosts != NULL) {
        const char **only = arena_alloc(set->arena, 1, sizeof(*only));
        only[0] = inv->known_hosts;
        spec->known_hosts = only;
        spec->known_hosts_count = 1;
    } else {
        spec->known_hosts = joined(set, NULL, 0, config->known_hosts, config->known_hosts_count);
        spec->known_hosts_count = config->known_hosts_count;
    }
    spec->host_key_alias = copied(set, config->host_key_alias);
    if (set->agent == NULL && config->identity_agent != NULL) {
        set->agent = copied(set, config->identity_agent);
    }
}

static void fill_host_keys(struct spec_node *node) {
    struct conn_spec *spec = &node->spec;
    const struct inv_host *says = node->inv != NULL ? node->inv : node->by;
    enum inv_host_key_check check = says != NULL ? says->host_key_check : INV_HOST_KEY_ASK;
    switch (check) {
    case INV_HOST_KEY_ASK:
        node->ask = true;
        spec->host_key_check = HOST_KEY_STRICT;
        break;
    case INV_HOST_KEY_STRICT:
        spec->host_key_check = HOST_KEY_STRICT;
        break;
    case INV_HOST_KEY_ACCEPT_NEW:
        spec->host_key_check = HOST_KEY_ACCEPT_NEW;
        break;
    case INV_HOST_KEY_OFF:
        spec->host_key_check = HOST_KEY_OFF;
        break;
    }
    if (node->inv != NULL) {
        spec->host_keys = node->inv->host_keys.items;
        spec->host_key_count = node->inv->host_keys.count;
    }
}

/* `Host *` with a ProxyJump names the jump itself, too: OpenSSH goes there directly. */
static bool is_itself(const struct spec_node *node, const struct spec_node *jump) {
    return node->inv == NULL && jump->host != NULL && strcasecmp(node->host, jump->host) == 0;
}

static int fill_jump(struct spec_set *set, struct spec_node *node, const struct ssh_config *config,
                     struct error *error) {
    struct spec_node *jump = NULL;
    if (node->spec.jump != NULL) {
        return 0;
    }
    if (node->inv != NULL && node->inv->jump_host != NULL) {
        node->spec.jump = &add_host(set, node->inv->jump_host)->spec;
        return 0;
    }
    bool by_inventory = node->inv != NULL && node->inv->jump != NULL;
    const char *text = by_inventory ? node->inv->jump : config->proxy_jump;
    if (text != NULL) {
        int err = add_jump(set, text, by_inventory ? node->inv : NULL, &jump, error);
        if (err != 0) {
            return error_wrap(error, "%s", node->spec.name);
        }
        node->spec.jump = is_itself(node, jump) ? NULL : &jump->spec;
        return 0;
    }
    if (config->proxy_command != NULL) {
        node->spec.unsupported =
            "ssh_config gives it a ProxyCommand, which fleet does not run: use a "
            "ProxyJump there, or \"jump\" in the inventory";
    }
    return 0;
}

static int fill(struct spec_set *set, struct spec_node *node, const struct ssh_config *configs,
                struct error *error) {
    struct conn_spec *spec = &node->spec;
    const struct inv_host *inv = node->inv;
    spec->name = node->jump_text;
    if (inv != NULL) {
        bool named = inv->name != NULL && inv->name[0] != '\0';
        spec->name = named ? inv->name : inv->address_count > 0 ? inv->addresses[0].host : "local";
        spec->local = inv->local;
        spec->connect_timeout_ms = inv->connect_timeout_ms;
    } else {
        spec->connect_timeout_ms = 10000;
    }
    if (spec->local) {
        return 0;
    }
    fill_addresses(set, node, configs);
    fill_identity(set, node, configs);
    if (node->by != NULL) {
        fill_from_namer(set, node, configs);
    }
    fill_host_keys(node);
    return fill_jump(set, node, configs, error);
}

/* Resolves the nodes from `first` on; those that they name are added behind. */
static int resolve_round(struct spec_set *set, size_t first, struct error *error) {
    size_t last = set->count;
    size_t asked = 0;
    for (size_t i = first; i < last; i++) {
        set->nodes[i]->first_config = asked;
        asked += destination_count(set->nodes[i]);
    }
    AUTO_FREE const char **destinations = xcalloc(asked + 1, sizeof(*destinations));
    AUTO_FREE struct ssh_config *configs = xcalloc(asked + 1, sizeof(*configs));
    for (size_t i = first; i < last; i++) {
        struct spec_node *node = set->nodes[i];
        for (size_t j = 0; j < destination_count(node); j++) {
            destinations[node->first_config + j] = destination(set, node, j);
        }
    }
    int err = asked > 0 ? ssh_config_resolve(destinations, asked, configs, error) : 0;
    if (err != 0) {
        return err;
    }
    for (size_t i = first; i < last && err == 0; i++) {
        struct spec_node *node = set->nodes[i];
        err = fill(set, node, &configs[node->first_config], error);
    }
    for (size_t i = 0; i < asked; i++) {
        ssh_config_release(&configs[i]);
    }
    return err;
}

static int check_jumps(const struct spec_set *set, struct error *error) {
    for (size_t i = 0; i < set->count; i++) {
        size_t depth = 0;
        for (const struct conn_spec *at = set->nodes[i]->spec.jump; at != NULL; at = at->jump) {
            if (++depth > SPEC_JUMPS_MAX) {
                return error_set(error, FLEET_ERR_USAGE, "usage",
                                 "%s: more than %d jumps, or they lead in a circle; look at "
                                 "\"jump\" in the inventory and ProxyJump in ~/.ssh/config",
                                 set->nodes[i]->spec.name, SPEC_JUMPS_MAX);
            }
        }
    }
    return 0;
}

static int by_text(const void *a, const void *b) {
    const char *const *left = a;
    const char *const *right = b;
    return strcmp(*left, *right);
}

static void collect_key_files(struct spec_set *set) {
    size_t total = 0;
    for (size_t i = 0; i < set->count; i++) {
        total += set->nodes[i]->spec.identity_count;
    }
    const char **files = arena_alloc(set->arena, total + 1, sizeof(*files));
    size_t count = 0;
    for (size_t i = 0; i < set->count; i++) {
        const struct conn_spec *spec = &set->nodes[i]->spec;
        for (size_t j = 0; j < spec->identity_count; j++) {
            files[count++] = spec->identity_files[j];
        }
    }
    qsort(files, count, sizeof(*files), by_text);
    set->key_files = files;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || strcmp(files[i], files[i - 1]) != 0) {
            files[set->key_file_count++] = files[i];
        }
    }
}

int spec_set_new(const struct inventory *inventory, const struct inv_host *const *hosts,
                 size_t count, struct spec_set **ret, struct error *error) {
    struct spec_set *set = xcalloc(1, sizeof(*set));
    set->inventory = inventory;
    set->arena = arena_new();
    set->by_index = xcalloc(inventory->host_count + 1, sizeof(struct spec_node *));
    for (size_t i = 0; i < count; i++) {
        add_host(set, hosts[i]);
        add_build_hosts(set, hosts[i]);
    }
    int err = 0;
    for (size_t done = 0; done < set->count && err == 0;) {
        size_t first = done;
        done = set->count;
        err = resolve_round(set, first, error);
    }
    if (err == 0) {
        err = check_jumps(set, error);
    }
    if (err != 0) {
        spec_set_free(set);
        return err;
    }
    collect_key_files(set);
    if (set->agent == NULL) {
        set->agent = copied(set, getenv("SSH_AUTH_SOCK"));
    }
    *ret = set;
    return 0;
}

void spec_set_free(struct spec_set *set) {
    if (set == NULL) {
        return;
    }
    while (set->passwords != NULL) {
        struct spec_password *password = set->passwords;
        set->passwords = password->next;
        secret_wipe(password->text, strlen(password->text));
        free(password->text);
        free(password);
    }
    free(set->nodes);
    free(set->by_index);
    arena_free(set->arena);
    free(set);
}

const struct conn_spec *spec_of(const struct spec_set *set, const struct inv_host *host) {
    const struct spec_node *node = find_host(set, host);
    return node != NULL ? &node->spec : NULL;
}

char *spec_login(const struct conn_spec *spec) {
    if (spec == NULL || spec->local || spec->address_count == 0) {
        return xstrdup("");
    }
    struct buf text = BUF_INIT;
    const struct conn_address *address = &spec->addresses[0];
    bool bracket = strchr(address->host, ':') != NULL && address->port != 22;
    if (spec->user != NULL) {
        buf_printf(&text, "%s@", spec->user);
    }
    buf_printf(&text, bracket ? "[%s]" : "%s", address->host);
    if (address->port != 0 && address->port != 22) {
        buf_printf(&text, ":%u", (unsigned)address->port);
    }
    return buf_take(&text);
}

const char *const *spec_key_files(const struct spec_set *set, size_t *ret_count) {
    *ret_count = set->key_file_count;
    return set->key_files;
}

const char *spec_agent_socket(const struct spec_set *set) {
    bool none = set->agent == NULL || set->agent[0] == '\0' || strcmp(set->agent, "none") == 0;
    return none ? NULL : set->agent;
}

/* ---- root on the host ---- */

static bool same_command(const struct inv_host *a, const struct inv_host *b) {
    if (a->password_command.count != b->password_command.count) {
        return false;
    }
    for (size_t i = 0; i < a->password_command.count; i++) {
        AUTO_FREE char *left = inv_expand(a->password_command.items[i], a, NULL);
        AUTO_FREE char *right = inv_expand(b->password_command.items[i], b, NULL);
        if (strcmp(left, right) != 0) {
            return false;
        }
    }
    return true;
}

static int read_password(struct spec_set *set, const struct inv_host *host, const char **ret,
                         struct error *error) {
    for (struct spec_password *at = set->passwords; at != NULL; at = at->next) {
        if (same_command(at->owner, host)) {
            *ret = at->text;
            return 0;
        }
    }
    size_t count = host->password_command.count;
    AUTO_FREE char **argv = xcalloc(count + 1, sizeof(char *));
    for (size_t i = 0; i < count; i++) {
        argv[i] = inv_expand(host->password_command.items[i], host, NULL);
    }
    char *text = NULL;
    int err = password_run(argv, set->inventory->dir, &text, error);
    for (size_t i = 0; i < count; i++) {
        free(argv[i]);
    }
    if (err != 0) {
        return error_wrap(error, "%s", host->name);
    }
    struct spec_password *password = xcalloc(1, sizeof(*password));
    *password = (struct spec_password){.next = set->passwords, .owner = host, .text = text};
    set->passwords = password;
    *ret = text;
    return 0;
}

int spec_elevation(struct spec_set *set, const struct inv_host *host, struct elevation *ret,
                   struct error *error) {
    *ret = (struct elevation){.how = ELEVATE_NONE};
    const struct conn_spec *spec = spec_of(set, host);
    bool is_root =
        spec != NULL &&
        (spec->local ? geteuid() == 0 : spec->user != NULL && strcmp(spec->user, "root") == 0);
    if (!host->sudo || is_root) {
        return 0;
    }
    if (host->password_command.count == 0) {
        ret->how = ELEVATE_SUDO;
        return 0;
    }
    const char *password = NULL;
    int err = read_password(set, host, &password, error);
    if (err == 0) {
        *ret = (struct elevation){.how = ELEVATE_SUDO_PASSWORD, .password = password};
    }
    return err;
}

int spec_build_elevations(struct spec_set *set, struct error *error) {
    int err = 0;
    for (size_t i = 0; i < set->count && err == 0; i++) {
        struct elevation elevation;
        if (set->nodes[i]->builds && set->nodes[i]->inv != NULL) {
            err = spec_elevation(set, set->nodes[i]->inv, &elevation, error);
        }
    }
    return err == 0 ? 0 : error_wrap(error, "a build host");
}
