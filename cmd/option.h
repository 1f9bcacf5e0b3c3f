/* The options of every command: one const table, and the parser that reads a command line by it.
 *
 * Help, completion, the manual page and the parser all read the same table, so they cannot differ.
 * An option is known by its number; which of them a command has besides the common ones stands in
 * the command table (cmd/command.h). The parser does not print: what is wrong comes back as an
 * error with the nearest right spelling.
 */
#ifndef FLEET_CMD_OPTION_H
#define FLEET_CMD_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/error.h"
#include "inventory/inventory.h"

struct command;

enum option_id {
    OPTION_INVENTORY,
    OPTION_TAG,
    OPTION_ON,
    OPTION_EXCLUDE,
    OPTION_JSON,
    OPTION_PLAIN,
    OPTION_TUI,
    OPTION_ASCII,
    OPTION_LOCK_TIMEOUT,
    OPTION_POLICY,
    OPTION_PARALLEL,
    OPTION_WAVES,
    OPTION_NO_ROLLBACK,
    OPTION_NOW,
    OPTION_YES,
    OPTION_NO_INPUT,
    OPTION_STATE_DIR,
    OPTION_COLOR,
    OPTION_QUIET,
    OPTION_VERBOSE,
    OPTION_HELP,
    OPTION_VERSION,
    /* of single commands */
    OPTION_REACH,
    OPTION_OUT_LINK,
    OPTION_ACTION,
    OPTION_REBOOT,
    OPTION_TO,
    OPTION_TIMEOUT,
    OPTION_ID,
    OPTION_LIMIT,
    OPTION_MAN,
    OPTION_OUT,
    OPTION_DRY_RUN,
    OPTION_PLAN,
    OPTION_KEEP,
    OPTION_OLDER_THAN,
    OPTION_SPEED,
    OPTION_EVAL,
    OPTION_PROBE,
    OPTION_WATCH,
    OPTION_RUN,
    OPTION_JUNIT,
    OPTION_METRICS,
    OPTION_COUNT
};

/* Under which heading help lists it; all but OPTION_OF_COMMAND are common to every command. */
enum option_group {
    OPTION_OF_COMMAND,
    OPTION_OF_SELECTION,
    OPTION_OF_ROLLOUT,
    OPTION_OF_FLEET,
    OPTION_GROUP_COUNT
};

enum option_kind {
    OPTION_IS_FLAG,
    OPTION_IS_TEXT,
    OPTION_IS_TAGS,     /* a tag expression */
    OPTION_IS_SELECTOR, /* host names and @tags, comma separated */
    OPTION_IS_RUN,      /* a run's id */
    OPTION_IS_FILE,     /* completed as a path */
    OPTION_IS_NUMBER,   /* from 1 */
    OPTION_IS_DURATION, /* "30s" */
    OPTION_IS_CHOICE    /* one of `choices` */
};

struct option_def {
    const char *name; /* without the dashes */
    char letter;      /* or 0 */
    enum option_group group;
    enum option_kind kind;
    const char *value;          /* what stands for the value in help */
    const char *const *choices; /* ends with NULL; CHOICE */
    const char *help;
};

extern const struct option_def option_defs[OPTION_COUNT];
/* "Selection", "Rollout", ... */
const char *option_group_title(enum option_group group);

/* A command line, read. Values and words point into argv. */
struct args {
    const struct command *command; /* NULL when only --help or --version was given */
    struct {
        enum option_id id;
        const char *value; /* "" for a flag */
    } * options;
    size_t option_count;
    const char **words; /* what is no option: selectors, hosts, runs */
    size_t word_count;
    const char **rest; /* what stands after "--" */
    size_t rest_count;
    bool has_rest; /* "--" was given */
};

/* Reads argv[1..argc). 0 or FLEET_ERR_USAGE; `ret` is to be released in both cases, and its command is
 * set as soon as it is known (for "see fleet COMMAND --help"). */
int args_parse(int argc, char **argv, struct args *ret, struct error *error);
void args_release(struct args *args);

/* How often the option was given. */
size_t args_count(const struct args *args, enum option_id id);
/* The last value given, or NULL. */
const char *args_value(const struct args *args, enum option_id id);
/* As numbers; `missing` where it was not given. The parser has checked them. */
uint32_t args_number(const struct args *args, enum option_id id, uint32_t missing);
uint64_t args_duration_ms(const struct args *args, enum option_id id, uint64_t missing);
/* All values, in order; the array is the caller's to free(), the strings are argv's. */
const char **args_values(const struct args *args, enum option_id id, size_t *ret_count);

#endif
