#include "transport/ssh_engine.h"

#include <libssh2.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "transport/known_hosts.h"
#include "transport/ssh_session.h"

/* Drives each session that was kicked before this turn; what they kick is for the next one. */
static void on_idle(uv_idle_t *idle) {
    struct ssh_engine *engine = container_of(idle, struct ssh_engine, idle);
    struct ssh_session *session = engine->kicked;
    engine->kicked = NULL;
    engine->driving = session;
    while (engine->driving != NULL) {
        session = engine->driving;
        engine->driving = session->next_kicked;
        session->next_kicked = NULL;
        session->kicked = false;
        ssh_session_drive(session);
    }
    if (engine->kicked == NULL) {
        uv_idle_stop(&engine->idle);
    }
}

static void on_signed_async(uv_async_t *async) {
    struct ssh_engine *engine = container_of(async, struct ssh_engine, signed_async);
    uv_mutex_lock(&engine->signed_mutex);
    struct ssh_signature *list = engine->signed_list;
    engine->signed_list = NULL;
    uv_mutex_unlock(&engine->signed_mutex);
    while (list != NULL) {
        struct ssh_signature *signature = list;
        list = signature->next;
        ssh_auth_signed(signature);
        if (--engine->signatures == 0) {
            uv_unref((uv_handle_t *)&engine->signed_async);
        }
        ssh_engine_unref(engine);
    }
}

struct ssh_engine *ssh_engine_new(uv_loop_t *loop, struct keyring *keyring) {
    static uv_once_t once = UV_ONCE_INIT;
    uv_once(&once, ssh_library_init);
    struct ssh_engine *engine = xcalloc(1, sizeof(*engine));
    engine->loop = loop;
    engine->keyring = keyring;
    engine->known_hosts = known_hosts_cache_new();
    engine->refs = 1;
    engine->nonblocking_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    uv_mutex_init(&engine->signed_mutex);
    uv_idle_init(loop, &engine->idle);
    uv_async_init(loop, &engine->signed_async, on_signed_async);
    uv_unref((uv_handle_t *)&engine->signed_async);
    engine->open_handles = 2;
    return engine;
}

static void on_handle_closed(uv_handle_t *handle) {
    struct ssh_engine *engine = handle->data;
    if (--engine->open_handles > 0) {
        return;
    }
    known_hosts_cache_free(engine->known_hosts);
    uv_mutex_destroy(&engine->signed_mutex);
    close(engine->nonblocking_fd);
    free(engine);
}

void ssh_engine_ref(struct ssh_engine *engine) {
    engine->refs++;
}

void ssh_engine_unref(struct ssh_engine *engine) {
    if (--engine->refs > 0) {
        return;
    }
    engine->idle.data = engine;
    engine->signed_async.data = engine;
    uv_close((uv_handle_t *)&engine->idle, on_handle_closed);
    uv_close((uv_handle_t *)&engine->signed_async, on_handle_closed);
}

void ssh_engine_await_signature(struct ssh_engine *engine) {
    ssh_engine_ref(engine);
    engine->signatures++;
    uv_ref((uv_handle_t *)&engine->signed_async);
}

void ssh_engine_kick(struct ssh_engine *engine, struct ssh_session *session) {
    if (session->kicked) {
        return;
    }
    session->kicked = true;
    session->next_kicked = engine->kicked;
    engine->kicked = session;
    if (!uv_is_active((uv_handle_t *)&engine->idle)) {
        uv_idle_start(&engine->idle, on_idle);
    }
}

static void unlink_kicked(struct ssh_session **list, struct ssh_session *session) {
    for (; *list != NULL; list = &(*list)->next_kicked) {
        if (*list == session) {
            *list = session->next_kicked;
            return;
        }
    }
}

void ssh_engine_forget(struct ssh_engine *engine, struct ssh_session *session) {
    if (session->kicked) {
        unlink_kicked(&engine->kicked, session);
        unlink_kicked(&engine->driving, session);
        session->kicked = false;
    }
}
