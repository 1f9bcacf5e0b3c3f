/* Building: from each host's `system` to a store path, and where that path can be read from.
 *
 * Runs on the coordinator's loop. Nix's own tools evaluate and build (spawned by argv, never
 * through a shell); hosts that share an evaluation are evaluated together. A failure is the
 * host's own, the others go on. Logs: every line as it comes, and whole in RUN_DIR/build/.
 */
#ifndef FLEET_CORE_BUILD_H
#define FLEET_CORE_BUILD_H

#include <uv.h>

#include "core/build_progress.h"
#include "inventory/inventory.h"
#include "transport/elevate.h"
#include "transport/transport.h"

struct build;

enum build_state {
    BUILD_EVALUATING,
    BUILD_BUILDING,
    BUILD_BUILT,
    BUILD_FAILED
};

/* Where a built path lies. */
enum build_source {
    BUILD_SOURCE_LOCAL,  /* this machine's store */
    BUILD_SOURCE_REMOTE, /* the store of `remote` */
    BUILD_SOURCE_TARGET  /* on the host itself already */
};

struct build_result {
    const char *path;
    const char *drv; /* "" where unknown */
    enum build_source source;
    const struct conn_spec *remote; /* REMOTE; lives as long as the build */
    const char *remote_command;     /* REMOTE: serves its store, "nix-store --serve" */
};

struct build_handlers {
    void (*on_state)(size_t host, enum build_state state, const char *path, const char *drv,
                     void *arg);
    /* A line of Nix's output, uncleaned; `host` SIZE_MAX: of an evaluation or derivation that several
     * share; `drv`: the derivation whose builder said it, or NULL. */
    void (*on_log)(size_t host, const char *line, size_t len, const char *drv, void *arg);
    /* A derivation that the host's build needs is waited for, built, done; optional. */
    void (*on_step)(size_t host, const struct build_step *step, void *arg);
    /* What a person has to do for a build host (struct conn_handlers' on_person). NULL is allowed. */
    void (*on_person)(const char *text, void *arg);
    void (*on_built)(size_t host, const struct build_result *result, void *arg);
    /* FLEET_ERR_BUILD, reason "eval-failed" or "build-failed": the failing derivation and its log's last
     * lines are in the message (several lines). "build-host": it was lost or not there,
     * and so were the others of a list. A target that builds for itself: its connection's own error. */
    void (*on_failed)(size_t host, const struct error *error, void *arg);
    /* All hosts have had on_built or on_failed. */
    void (*on_done)(void *arg);
};

struct build_options {
    const char *run_dir;         /* for logs and GC roots (RUN_DIR/roots/HOST), or NULL: no roots */
    const char *out_link;        /* `build --out-link DIR`, or NULL */
    struct transport *transport; /* for build hosts; borrowed */
    /* The connection's spec of an inventory host, from the caller (core/spec.h). */
    const struct conn_spec *(*spec)(const struct inv_host *host, void *arg);
    /* How its root is reached (core/spec.h); NULL: as its user, or by `sudo -n`. */
    int (*elevation)(const struct inv_host *host, struct elevation *ret, struct error *error,
                     void *arg);
    void *spec_arg; /* of both */
    /* Builds and fetches nothing: on_built gets the path that a build would have. Fails for a
     * `command`, and for what only a build can tell. */
    bool evaluate_only;
    /* Of one evaluation or build. 0: 30 min without any output; 1 h in all for an evaluation, a day
     * for a build. (Nix has limits of its own for each derivation, as nix_options: max-silent-time and
     * timeout.) */
    uint64_t silence_ms;
    uint64_t evaluate_ms;
    uint64_t build_ms;
};

/* hosts[i] is "host i" in the callbacks. Nothing fires before this returns. */
struct build *build_start(uv_loop_t *loop, const struct inventory *inventory,
                          const struct inv_host *const *hosts, size_t count,
                          const struct build_options *options,
                          const struct build_handlers *handlers, void *arg);
/* Ends what runs (SIGTERM, then SIGKILL after 2 s); hosts not done get on_failed(FLEET_ERR_CANCELLED). */
void build_cancel(struct build *build);
/* After on_done; frees when its last handle has closed. */
void build_free(struct build *build);

#endif
