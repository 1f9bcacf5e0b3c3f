/* Unknown host keys of a set of specs, settled before anything else (see spec.h).
 *
 * Looking at a key costs a handshake, so hosts that known_hosts says something of are left alone:
 * the connection itself checks those.
 */
#include <stdlib.h>

#include "core/base/xalloc.h"
#include "core/spec_internal.h"
#include "transport/host_keys.h"
#include "transport/known_hosts.h"

#define SSH_PORT 22

static bool files_know(struct known_hosts_cache *cache, const struct conn_spec *spec,
                       const char *name) {
    for (size_t i = 0; i < spec->known_hosts_count; i++) {
        const struct known_host *const *entries;
        if (known_hosts_cache_find(cache, spec->known_hosts[i], name, &entries) > 0) {
            return true;
        }
    }
    return false;
}

/* True if known_hosts says something of every address: looking at the key would only cost a
 * handshake, the connection itself checks it. */
static bool is_known(struct known_hosts_cache *cache, const struct conn_spec *spec) {
    for (size_t i = 0; i < spec->address_count; i++) {
        AUTO_FREE char *name =
            spec->host_key_alias != NULL
                ? known_hosts_name(spec->host_key_alias, SSH_PORT)
                : known_hosts_name(spec->addresses[i].host, spec->addresses[i].port);
        if (!files_know(cache, spec, name)) {
            return false;
        }
    }
    return true;
}

/* The end points whose keys a person is asked about and nothing knows; without `targets` only
 * those of build hosts (the scan adds the jumps on the way). */
static size_t unknown_specs(const struct spec_set *set, bool targets,
                            const struct conn_spec **ret) {
    struct known_hosts_cache *cache = known_hosts_cache_new();
    size_t count = 0;
    for (size_t i = 0; i < set->count; i++) {
        const struct spec_node *node = set->nodes[i];
        bool asked = node->ask && !node->spec.local && node->spec.unsupported == NULL &&
                     node->spec.host_key_count == 0 && (targets || node->builds);
        if (asked && !is_known(cache, &node->spec)) {
            ret[count++] = &node->spec;
        }
    }
    known_hosts_cache_free(cache);
    return count;
}

static void list_offers(const struct host_key_offer *offers, size_t count, struct buf *out) {
    for (size_t i = 0; i < count; i++) {
        buf_printf(out, "  %s (%s)  %s %s\n", offers[i].spec->name, offers[i].address,
                   offers[i].type, offers[i].fingerprint);
    }
}

/* One list, one question. *ret_count: how many were accepted. */
static int settle_once(struct spec_set *set, bool targets, spec_ask_keys ask, void *arg,
                       size_t *ret_count, struct error *error) {
    AUTO_FREE const struct conn_spec **specs =
        xcalloc(set->count + 1, sizeof(const struct conn_spec *));
    size_t count = unknown_specs(set, targets, specs);
    struct host_key_offer *offers = NULL;
    size_t offer_count = 0;
    *ret_count = 0;
    if (count == 0) {
        return 0;
    }
    int err = host_keys_scan(specs, count, &offers, &offer_count, error);
    if (err != 0 || offer_count == 0) {
        host_key_offers_free(offers, offer_count);
        return err;
    }
    struct buf list = BUF_INIT;
    list_offers(offers, offer_count, &list);
    if (ask(buf_text(&list), offer_count, arg)) {
        err = host_keys_accept(offers, offer_count, error);
        *ret_count = offer_count;
    } else {
        err = error_set(error, FLEET_ERR_CANCELLED, "host-key-unknown",
                        "the host keys were not accepted, so nothing was done; \"host_key\" in the "
                        "inventory or a line in known_hosts makes a key known");
    }
    buf_free(&list);
    host_key_offers_free(offers, offer_count);
    return err;
}

int spec_settle_host_keys(struct spec_set *set, const struct inv_host *const *hosts, size_t count,
                          spec_ask_keys ask, void *arg, struct error *error) {
    (void)hosts;
    /* What lies behind an unknown jump shows its key only once the jump's is accepted. */
    size_t accepted = ask != NULL ? 1 : 0;
    int err = 0;
    for (int round = 0; round <= SPEC_JUMPS_MAX && accepted > 0 && err == 0; round++) {
        err = settle_once(set, count > 0, ask, arg, &accepted, error);
    }
    return err;
}
