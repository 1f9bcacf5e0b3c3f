#include "transport/transport.h"

#include <stdlib.h>

#include "core/base/xalloc.h"
#include "transport/local.h"
#include "transport/ssh_engine.h"
#include "transport/ssh_session.h"

struct conn *transport_open(struct transport *transport, const struct conn_spec *spec,
                            const struct conn_handlers *handlers, void *arg) {
    return transport->ops->open(transport, spec, handlers, arg);
}

void transport_free(struct transport *transport) {
    transport->ops->free(transport);
}

/* The real one: a table's worth of state around the SSH engine. */
struct real_transport {
    struct transport transport;
    uv_loop_t *loop;
    struct ssh_engine *engine;
};

static struct conn *real_open(struct transport *transport, const struct conn_spec *spec,
                              const struct conn_handlers *handlers, void *arg) {
    struct real_transport *real = (struct real_transport *)transport;
    if (spec->local) {
        return local_open(real->loop, spec, handlers, arg);
    }
    return ssh_session_open(real->engine, spec, handlers, arg);
}

static void real_free(struct transport *transport) {
    struct real_transport *real = (struct real_transport *)transport;
    ssh_engine_unref(real->engine);
    free(real);
}

static const struct transport_ops real_ops = {.open = real_open, .free = real_free};

struct transport *transport_new(uv_loop_t *loop, struct keyring *keyring) {
    struct real_transport *real = xcalloc(1, sizeof(*real));
    real->transport.ops = &real_ops;
    real->loop = loop;
    real->engine = ssh_engine_new(loop, keyring);
    return &real->transport;
}
