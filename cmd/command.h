/* The commands: one const table that the parser, help, completion and the manual page read.
 *
 * A command's function gets its parsed command line and returns the exit code (CONTRACT, Exit
 * codes). Each lives in a file cmd_<name>.c of its own, or shares one with its like.
 */
#ifndef FLEET_CMD_COMMAND_H
#define FLEET_CMD_COMMAND_H

#include <stdbool.h>
#include <stddef.h>

#include "cmd/option.h"

/* Exit codes of CONTRACT, as far as commands give them themselves. */
enum exit_code {
    EXIT_DONE = 0,
    EXIT_SYSTEM = 1,
    EXIT_USAGE = 2,
    EXIT_HOSTS_FAILED = 3,
    EXIT_UNREACHABLE = 5,
    EXIT_LOCKED = 7,
    EXIT_STALE = 8,
    EXIT_BUILD_FAILED = 9
};

/* What a command's words are, for completion. */
enum command_words {
    WORDS_NONE,
    WORDS_SELECTORS,
    WORDS_HOST, /* exactly one host */
    WORDS_RUN,
    WORDS_SHELL,  /* bash, zsh, fish */
    WORDS_COMMAND /* a command's name */
};

struct command {
    const char *name;
    const char *summary;     /* half a sentence, for the list */
    const char *usage;       /* what follows the options */
    const char *description; /* paragraphs, parted by an empty line */
    enum command_words words;
    bool rollout; /* help lists the rollout's options */
    enum option_id options[6];
    size_t option_count;
    int (*run)(const struct args *args);
};

extern const struct command commands[];
extern const size_t command_count;

/* The command of that name, or NULL. */
const struct command *command_find(const char *name);
/* FLEET_ERR_USAGE: there is no such command; names the nearest one. */
int command_refuse(const char *name, struct error *error);
bool command_has_option(const struct command *command, enum option_id id);

int cmd_build(const struct args *args);
int cmd_check(const struct args *args);
int cmd_completion(const struct args *args);
int cmd_exec(const struct args *args);
int cmd_gc(const struct args *args);
int cmd_generations(const struct args *args);
int cmd_help(const struct args *args);
int cmd_history(const struct args *args);
int cmd_list(const struct args *args);
int cmd_plan(const struct args *args);
int cmd_push(const struct args *args);
int cmd_promote(const struct args *args);
int cmd_resume(const struct args *args);
int cmd_reboot(const struct args *args);
int cmd_rollback(const struct args *args);
int cmd_secrets(const struct args *args);
int cmd_show(const struct args *args);
int cmd_ssh(const struct args *args);
int cmd_status(const struct args *args);
int cmd_unlock(const struct args *args);
int cmd_update(const struct args *args);
int cmd_watch(const struct args *args);

#endif
