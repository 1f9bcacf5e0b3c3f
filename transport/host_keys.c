#include "transport/host_keys.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "transport/host_key_check.h"
#include "transport/keyring.h"
#include "transport/known_hosts.h"
#include "transport/ssh_session.h"
#include "transport/ssh_wire.h"

enum {
    AT_ONCE = 64
};

struct scan {
    uv_loop_t loop;
    struct ssh_engine *engine;
    const struct conn_spec **specs; /* the caller's and their jump hosts, each once */
    size_t count;
    size_t next;
    size_t running;
    struct host_key_offer *offers;
    size_t offer_count;
};

struct scan_target {
    struct scan *scan;
    struct ssh_session *session;
};

static void add_spec(struct scan *scan, const struct conn_spec *spec) {
    for (size_t i = 0; i < scan->count; i++) {
        if (scan->specs[i] == spec) {
            return;
        }
    }
    scan->specs = xrealloc(scan->specs, (scan->count + 1) * sizeof(void *));
    scan->specs[scan->count++] = spec;
}

static bool same_offer(const struct host_key_offer *offer, const char *line) {
    return strcmp(offer->line, line) == 0;
}

static void add_offer(struct scan *scan, const struct ssh_session *session) {
    const struct conn_spec *spec = session->spec;
    const struct conn_address *address = ssh_session_address(session);
    char *line = host_key_line(spec, address, session->offer, session->offer_len);
    for (size_t i = 0; i < scan->offer_count; i++) {
        if (same_offer(&scan->offers[i], line)) {
            free(line);
            return;
        }
    }
    scan->offers = xrealloc(scan->offers, (scan->offer_count + 1) * sizeof(*scan->offers));
    struct host_key_offer *offer = &scan->offers[scan->offer_count++];
    offer->spec = spec;
    offer->address = known_hosts_name(address->host, address->port);
    offer->fingerprint = ssh_fingerprint(session->offer, session->offer_len);
    offer->type = xstrdup(ssh_key_type_name(session->offer, session->offer_len));
    offer->line = line;
}

static void on_scan_lost(const struct error *error, void *arg) {
    struct scan_target *target = arg;
    if (strcmp(error->reason, "host-key-unknown") == 0 && target->session->offer != NULL) {
        add_offer(target->scan, target->session);
    }
    conn_close(&target->session->conn);
}

static void start_more(struct scan *scan);

static void on_scan_closed(void *arg) {
    struct scan_target *target = arg;
    struct scan *scan = target->scan;
    free(target);
    scan->running--;
    start_more(scan);
}

static const struct conn_handlers scan_handlers = {
    .on_lost = on_scan_lost,
    .on_closed = on_scan_closed,
};

static void start_more(struct scan *scan) {
    while (scan->running < AT_ONCE && scan->next < scan->count) {
        const struct conn_spec *spec = scan->specs[scan->next++];
        if (spec->local || spec->host_key_check != HOST_KEY_STRICT || spec->host_key_count > 0) {
            continue;
        }
        struct scan_target *target = xcalloc(1, sizeof(*target));
        target->scan = scan;
        scan->running++;
        target->session = ssh_session_scan(scan->engine, spec, &scan_handlers, target);
    }
}

int host_keys_scan(const struct conn_spec *const *specs, size_t count, struct host_key_offer **ret,
                   size_t *ret_count, struct error *error) {
    struct scan scan = {0};
    int rc = uv_loop_init(&scan.loop);
    if (rc != 0) {
        return error_set(error, FLEET_ERR_SYSTEM, "system", "making an event loop: %s",
                         uv_strerror(rc));
    }
    for (size_t i = 0; i < count; i++) {
        for (const struct conn_spec *spec = specs[i]; spec != NULL; spec = spec->jump) {
            add_spec(&scan, spec);
        }
    }
    struct keyring *keyring = keyring_new(NULL);
    scan.engine = ssh_engine_new(&scan.loop, keyring);
    start_more(&scan);
    uv_run(&scan.loop, UV_RUN_DEFAULT);
    ssh_engine_unref(scan.engine);
    uv_run(&scan.loop, UV_RUN_DEFAULT);
    uv_loop_close(&scan.loop);
    keyring_free(keyring);
    free(scan.specs);
    *ret = scan.offers;
    *ret_count = scan.offer_count;
    return 0;
}

void host_key_offers_free(struct host_key_offer *offers, size_t count) {
    for (size_t i = 0; i < count; i++) {
        free(offers[i].address);
        free(offers[i].fingerprint);
        free(offers[i].type);
        free(offers[i].line);
    }
    free(offers);
}

int host_keys_accept(const struct host_key_offer *offers, size_t count, struct error *error) {
    for (size_t i = 0; i < count; i++) {
        const struct conn_spec *spec = offers[i].spec;
        if (spec->known_hosts_count == 0) {
            return error_set(error, FLEET_ERR_USAGE, "no-known-hosts",
                             "%s has no known_hosts file to write its key to: set known_hosts in "
                             "the inventory",
                             spec->name);
        }
        int rc = known_hosts_append(spec->known_hosts[0], offers[i].line, error);
        if (rc != 0) {
            return rc;
        }
    }
    return 0;
}
