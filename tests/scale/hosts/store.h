/* A played Nix store behind `nix-store --serve`: one closure, known to every store of the run.
 *
 * The closure is the pipeline tests' NEW with `package_count` packages of `package_bytes` each, all
 * of the same contents. A target's store lacks packages until they have been added; the source's
 * has them all. Protocol: NIX-PROTOCOL 2. What a request does is decided when it is there whole; a
 * NAR that comes in is counted and thrown away.
 */
#ifndef FLEET_TESTS_SCALE_STORE_H
#define FLEET_TESTS_SCALE_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "transport/serve.h"

struct store_contents {
    uint32_t package_count;
    uint64_t package_bytes;
};

/* Sets what every store knows, once, before the first store is made. */
void store_contents_set(const struct store_contents *wanted);

struct store {
    bool *lacks; /* by package; NULL: it lacks nothing */
    bool lacks_top;
};

void store_init(struct store *store, bool lacks_all);
void store_free(struct store *store);

/* One serve connection to a store. Zero-initialised but for `store`. */
struct store_talk {
    struct store *store;
    struct serve_reader reader;
    uint64_t nar_left;  /* of the path that comes in */
    int64_t adding;     /* its package, -1 the top */
    uint64_t nar_bytes; /* of all that came in */
};

/* Answers all requests that are whole. False: it was no request of this protocol. */
bool store_answer(struct store_talk *talk, struct buf *out);
void store_talk_free(struct store_talk *talk);

/* Serves on stdin and stdout until the end of stdin. Returns an exit status. */
int store_serve_stdio(void);

#endif
