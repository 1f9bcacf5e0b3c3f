/* The secrets of one run: read when a host first needs them, each source once however many hosts it
 * is for, and held in memory till the run is over.
 *
 * A few threads of its own read them, as a command may take its time and no loop may wait for it.
 * Any thread may ask. A source that failed is tried again for whoever asks later.
 */
#ifndef FLEET_CORE_SECRET_STORE_H
#define FLEET_CORE_SECRET_STORE_H

#include "core/secrets.h"

struct secret_store;

/* Called from a thread of the store, once something that was asked for with `tag` is there or has
 * failed. */
typedef void (*secret_wake)(void *arg, size_t tag);

/* `dir`: where commands run; borrowed, as every host and secret that is asked for. */
struct secret_store *secret_store_new(const char *dir);
/* The secret, which lives till secret_store_free; or NULL: it is being read, and `wake` follows, or
 * with `error` set it can't be had. */
const struct secret *secret_store_get(struct secret_store *store, const struct inv_host *host,
                                      const struct inv_secret *what, secret_wake wake, void *arg,
                                      size_t tag, struct error *error);
/* Ends what is being read; no `wake` follows. */
void secret_store_stop(struct secret_store *store);
/* Stops, wipes and frees. NULL is allowed. */
void secret_store_free(struct secret_store *store);

#endif
