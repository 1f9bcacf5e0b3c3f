/* What all SSH connections of one loop share: the list of sessions that have work to do, the
 * cache of known_hosts files, the sessions of jump hosts, a buffer to read into.
 *
 * Callers' requests (write, exec, close) never call back at once: they kick the session, and an
 * idle handle drives every kicked session once in the loop's next turn. So writes of one turn
 * gather, and no callback fires inside the call that caused it.
 *
 * Freed by reference: the owner's transport_free and each session hold one.
 */
#ifndef FLEET_TRANSPORT_SSH_ENGINE_H
#define FLEET_TRANSPORT_SSH_ENGINE_H

#include <stddef.h>
#include <uv.h>

#include "transport/transport.h"

enum {
    SSH_READ_BYTES = 64 * 1024
};

struct keyring;
struct known_hosts_cache;
struct ssh_session;
struct ssh_jump;
struct ssh_signature;

struct ssh_engine {
    uv_loop_t *loop;
    struct keyring *keyring;
    struct known_hosts_cache *known_hosts;
    struct ssh_session *kicked;  /* linked by session->next_kicked */
    struct ssh_session *driving; /* those of this turn that are still to be driven */
    struct ssh_jump *jumps;
    uv_idle_t idle;
    uv_async_t signed_async; /* the agent's thread has answers */
    uv_mutex_t signed_mutex;
    struct ssh_signature *signed_list; /* under signed_mutex */
    unsigned refs;
    unsigned signatures; /* asked of the agent and not yet come back */
    unsigned open_handles;
    int nonblocking_fd; /* libssh2 wants a descriptor to look at, also where there is no socket */
    char read_buffer[SSH_READ_BYTES];
};

/* Initialises libssh2, once a process. */
void ssh_library_init(void);

struct ssh_engine *ssh_engine_new(uv_loop_t *loop, struct keyring *keyring);
void ssh_engine_ref(struct ssh_engine *engine);
void ssh_engine_unref(struct ssh_engine *engine);
/* A signature has been asked for: the loop stays until its answer has come. */
void ssh_engine_await_signature(struct ssh_engine *engine);
/* Drives the session in the loop's next turn. */
void ssh_engine_kick(struct ssh_engine *engine, struct ssh_session *session);
void ssh_engine_forget(struct ssh_engine *engine, struct ssh_session *session);

#endif
