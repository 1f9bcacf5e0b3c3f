/* One played host: what it is (tests/pipeline/machine.h), what its store lacks, and what is wrong
 * with it. Its connections are threads of their own; `mutex` guards all that follows it.
 */
#ifndef FLEET_TESTS_SCALE_HOST_H
#define FLEET_TESTS_SCALE_HOST_H

#include <libssh/libssh.h>
#include <libssh/server.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "tests/pipeline/machine.h"
#include "tests/scale/hosts/store.h"

enum host_fault {
    FAULTLESS,
    REFUSES,           /* nothing listens */
    SILENT,            /* accepts, and never says a word */
    GARBAGE,           /* talks, but not SSH */
    DROPS_IN_KEX,      /* closes after the other side's key exchange has begun */
    SLOW,              /* each answer takes 300 ms more */
    DIES_IN_COPY,      /* the first connection breaks in the middle of a path, the next is fine */
    CUT_IN_ACTIVATION, /* the connection breaks while the activation runs */
    FAILS_ACTIVATION,  /* the new system's activation exits 2 */
    BREAKS_UNIT,       /* the new system has a unit that fails */
    FULL,              /* `stage` fails for want of room */
    HOST_FAULT_COUNT
};

struct played_host {
    unsigned number; /* from 1 */
    enum host_fault fault;
    pthread_mutex_t mutex;
    struct machine machine;
    struct store store;
    unsigned handshakes;
    bool has_died;
};

/* Serves one connection until it ends; `fd` is closed. On the calling thread. */
void session_serve(struct played_host *host, ssh_bind bind, int fd);

#endif
