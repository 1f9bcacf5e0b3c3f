/* The command lines of Nix's tools, and what they answer. Pure.
 */
#ifndef FLEET_CORE_BUILD_COMMAND_H
#define FLEET_CORE_BUILD_COMMAND_H

#include "inventory/inventory.h"

/* A growing argv of its own strings, always ended by NULL. Zero-initialised is valid. */
struct build_argv {
    char **items;
    size_t count;
};
void build_argv_add(struct build_argv *argv, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void build_argv_free(struct build_argv *argv);

/* True if two systems can be evaluated by one process: attributes below the same attribute of the
 * same flake ("nixosConfigurations"), or of the same file with the same arguments; with the same
 * options. */
bool build_shares_evaluation(const struct inv_system *a, const struct inv_system *b);

/* Evaluates such attributes to derivations in one evaluation (Nix before 2.20 evaluates a flake anew
 * for each one named on the command line, so they go into one expression); the answer is
 * build_read_flake's. */
void build_flake_argv(const struct inv_system *const *systems, size_t count,
                      struct build_argv *ret_argv);
/* One derivation path for each, in the same order, as new strings in ret_drvs; NULL for one whose
 * evaluation threw. False where the answer isn't that. */
bool build_read_flake(const char *out, size_t count, char **ret_drvs);

/* Evaluates attributes of one file to derivations in one evaluation, with the roots ROOT, ROOT-2 ...
 * (NULL: none); the answer is build_read_files'. */
void build_files_argv(const struct inv_system *const *systems, size_t count, const char *root,
                      struct build_argv *ret_argv);
/* One derivation path for each, as new strings in ret_drvs. False where an attribute isn't exactly
 * one derivation. */
bool build_read_files(const char *out, size_t count, char **ret_drvs);

/* Evaluates one system of kind FLAKE or FILE; the answer is one line, build_read_path's. A FILE's
 * derivation gets the root `root` (NULL: none). */
void build_evaluate_argv(const struct inv_system *system, const char *root,
                         struct build_argv *ret_argv);

/* Builds or fetches `path`, a derivation or an output. The answer is its output's path, or `root`
 * where one is asked for (NULL: none). */
void build_realise_argv(const struct inv_system *system, const char *path, const char *root,
                        struct build_argv *ret_argv);

/* True if two systems can be realised by one process: the same tools and options. */
bool build_shares_realisation(const struct inv_system *a, const struct inv_system *b);
/* The same for several at once, none named twice, with the roots ROOT, ROOT-2 ... (NULL: none); the
 * answer is build_read_paths'. */
void build_realise_all_argv(const struct inv_system *system, const char *const *paths, size_t count,
                            const char *root, struct build_argv *ret_argv);
/* Copies closures into the binary cache `url`, with the tools and options of `system`. */
void build_cache_argv(const struct inv_system *system, const char *url, const char *const *paths,
                      size_t count, struct build_argv *ret_argv);
/* One store path a line for each, as new strings in ret_paths. False where the answer isn't that. */
bool build_read_paths(const char *out, size_t count, char **ret_paths);

/* Where the output of the derivation in the file `drv` will lie: a new string, or NULL where that
 * isn't known beforehand or there is more than the one output "out". */
char *build_output_of(const char *drv);

/* The store path in the first line of `out` ("!out" cut off), or where that is a link the one that
 * it leads to; a new string, or NULL. */
char *build_read_path(const char *out);

/* The same for a build host: a script for its /bin/sh. It leaves a root called `name`, says the
 * output's path on stdout and Nix's log on stderr. */
char *build_realise_script(const struct inv_system *system, const char *path, const char *name);

#endif
