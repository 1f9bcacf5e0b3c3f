/* A POSIX shell on the far side that stays open: each script costs one round trip.
 *
 * `/bin/sh -s` (as root, see elevate.h) reads scripts from its stdin, one after the other. A
 * script is sent as one compound command in a subshell, so that one cut short by a lost connection
 * is a syntax error and does nothing, and a random end marker with the exit status tells where its
 * output ends. Scripts are queued and run in order.
 */
#ifndef FLEET_TRANSPORT_SHELL_H
#define FLEET_TRANSPORT_SHELL_H

#include <uv.h>

#include "transport/elevate.h"

struct shell;

struct shell_result {
    int err;    /* 0: the script ran; FLEET_ERR_TIMEOUT, _LOST, _REMOTE (the shell itself ended) */
    int status; /* its exit status */
    const char *out; /* stdout, NUL-terminated; at most SHELL_OUTPUT_MAX, the rest is dropped */
    size_t out_len;
    const char *err_text; /* stderr, the last 8 KB, uncleaned */
    struct error error;   /* filled when err != 0 */
};

#define SHELL_OUTPUT_MAX (4u * 1024u * 1024u)

/* Exactly once a script; the result is valid during the call. Not called after shell_close. */
typedef void (*shell_done)(const struct shell_result *result, void *arg);

/* Opens the shell; `conn` must be ready and outlive it. Scripts may be queued at once. */
struct shell *shell_open(uv_loop_t *loop, struct conn *conn, const struct elevation *how);

struct shell_var {
    const char *name;  /* [A-Za-z_][A-Za-z0-9_]* */
    const char *value; /* any bytes but NUL; quoted here */
};

/* Runs `script` with `vars` set. `timeout_ms` counts from the moment it is sent; on time-out the
 * shell is ended, as nothing is known of it any more, and all later scripts fail. */
void shell_run(struct shell *shell, const char *script, const struct shell_var *vars,
               size_t var_count, uint64_t timeout_ms, shell_done done, void *arg);
/* As shell_run; where the shell is closed before the script was reported, `drop` gets `arg` to free
 * it, and `done` is not called. */
void shell_run_owned(struct shell *shell, const char *script, const struct shell_var *vars,
                     size_t var_count, uint64_t timeout_ms, shell_done done,
                     void (*drop)(void *arg), void *arg);
/* True once it has ended, or was given up: another one is needed. */
bool shell_has_ended(const struct shell *shell);
/* No callback follows. */
void shell_close(struct shell *shell);

#endif
