/* What most commands begin with: inventory, selection, state folder, colours, keys.
 *
 * Each step prints what is wrong itself and returns the exit code to leave with, 0 to go on; so a
 * command reads as a list of steps. Release in any case.
 */
#ifndef FLEET_CMD_CONTEXT_H
#define FLEET_CMD_CONTEXT_H

#include "cmd/command.h"
#include "cmd/override.h"
#include "core/spec.h"
#include "inventory/git.h"
#include "transport/keyring.h"

struct context {
    const struct args *args;
    bool json;
    bool asks;     /* a person is there and may be asked */
    int verbosity; /* -1 quiet, 0, 1, 2 */
    bool color_out, color_err;
    struct override_set overrides;
    struct inventory *inventory;
    const struct inv_host **hosts; /* selected, in the inventory's order */
    size_t host_count;
    bool all_hosts; /* no selector was given */
    char *state_dir;
    struct git_state git;
    struct spec_set *specs;
    struct keyring *keyring;
};

/* Output settings only. */
void context_init(struct context *context, const struct args *args);
/* Finds and loads the inventory; prints all its errors. */
int context_load(struct context *context);
/* The same, of that file and with the overrides that are set already (a resumed run's). */
int context_load_file(struct context *context, const char *path);
/* Resolves the selection of the command line. */
int context_select(struct context *context);
/* The one host that the command line names (ssh, unlock); it becomes the selection. */
int context_select_one(struct context *context);
/* State folder and Git state. */
int context_surroundings(struct context *context);
/* Connection specs, passphrases and host keys: all questions that connecting may bring. Without
 * `targets` only build hosts are spoken to. */
int context_connect(struct context *context, bool targets);
/* Asks for the passwords of build hosts, before anything is built. */
int context_build_access(const struct context *context);
void context_release(struct context *context);

/* Prints "fleet: MESSAGE" on stderr and returns the exit code that goes with the error. */
int context_fail(const struct error *error);
/* Prints "fleet: ..." and a pointer to the command's help; EXIT_USAGE. */
int context_usage(const struct args *args, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Refuses words or a "--" that the command does not take: at most `words` words. */
int context_words(const struct args *args, size_t words);

#endif
