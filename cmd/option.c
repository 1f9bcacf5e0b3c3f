/* The option table and the parser of command lines (see option.h).
 *
 * Options and words may be mixed; "--" ends the options. A value may stand behind "=" or as the
 * next argument, and right behind a letter; letters may be joined (-vv). Names are never
 * abbreviated: what a script says today must not change its meaning when an option is added.
 */
#include "cmd/option.h"

#include <stdlib.h>
#include <string.h>

#include "cmd/command.h"
#include "core/base/text.h"
#include "core/base/units.h"
#include "core/base/xalloc.h"

static const char *const choices_color[] = {"auto", "always", "never", NULL};
static const char *const choices_action[] = {"switch", "boot", "test", "dry-activate", NULL};
static const char *const choices_reboot[] = {"never", "if-needed", "always", NULL};

const struct option_def option_defs[OPTION_COUNT] = {
    [OPTION_INVENTORY] = {"inventory", 'i', OPTION_OF_FLEET, OPTION_IS_FILE, "FILE", NULL,
                          "the inventory; default: $FLEET_INVENTORY, else the nearest fleet.json "
                          "from the working folder upward"},
    [OPTION_TAG] = {"tag", 0, OPTION_OF_SELECTION, OPTION_IS_TAGS, "EXPR", NULL,
                    "only hosts with the tag; a,b: a or b; a+b: a and b; !a: not a; repeat to "
                    "narrow"},
    [OPTION_ON] = {"on", 0, OPTION_OF_SELECTION, OPTION_IS_SELECTOR, "SEL", NULL,
                   "only hosts by name glob or @tag, comma separated, ! excludes; repeat to "
                   "narrow"},
    [OPTION_EXCLUDE] = {"exclude", 0, OPTION_OF_SELECTION, OPTION_IS_SELECTOR, "SEL", NULL,
                        "not these hosts"},
    [OPTION_JSON] = {"json", 0, OPTION_OF_FLEET, OPTION_IS_FLAG, NULL, NULL,
                     "JSON Lines on stdout, text for people on stderr"},
    [OPTION_PLAIN] = {"plain", 0, OPTION_OF_FLEET, OPTION_IS_FLAG, NULL, NULL, "lines of text"},
    [OPTION_TUI] = {"tui", 0, OPTION_OF_FLEET, OPTION_IS_FLAG, NULL, NULL, "the dashboard"},
    [OPTION_ASCII] = {"ascii", 0, OPTION_OF_FLEET, OPTION_IS_FLAG, NULL, NULL,
                      "the dashboard in plain ASCII"},
    [OPTION_LOCK_TIMEOUT] = {"lock-timeout", 0, OPTION_OF_ROLLOUT, OPTION_IS_DURATION, "DUR", NULL,
                             "wait so long for a host that another run holds; default 0s: refuse"},
    [OPTION_POLICY] = {"policy", 0, OPTION_OF_ROLLOUT, OPTION_IS_TEXT, "KEY=JSON", NULL,
                       "override a policy field for this run; repeatable"},
    [OPTION_PARALLEL] = {"parallel", 0, OPTION_OF_ROLLOUT, OPTION_IS_NUMBER, "N", NULL,
                         "so many hosts at once (policy max_parallel)"},
    [OPTION_WAVES] = {"waves", 0, OPTION_OF_ROLLOUT, OPTION_IS_TEXT, "LIST", NULL,
                      "sizes such as 1,10%,100%, or @tag for a named wave"},
    [OPTION_NO_ROLLBACK] = {"no-rollback", 0, OPTION_OF_ROLLOUT, OPTION_IS_FLAG, NULL, NULL,
                            "commit before activating and never take back"},
    [OPTION_NOW] = {"now", 0, OPTION_OF_ROLLOUT, OPTION_IS_FLAG, NULL, NULL,
                    "one wave and no healthy time; guard and confirmation stay"},
    [OPTION_YES] = {"yes", 'y', OPTION_OF_FLEET, OPTION_IS_FLAG, NULL, NULL,
                    "answer yes to confirmations, and never ask"},
    [OPTION_NO_INPUT] = {"no-input", 0, OPTION_OF_FLEET, OPTION_IS_FLAG, NULL, NULL, "never ask"},
    [OPTION_STATE_DIR] = {"state-dir", 0, OPTION_OF_FLEET, OPTION_IS_FILE, "DIR", NULL,
                          "where runs are recorded; default: $XDG_STATE_HOME/fleet, else "
                          "~/.local/state/fleet"},
    [OPTION_COLOR] = {"color", 0, OPTION_OF_FLEET, OPTION_IS_CHOICE, "WHEN", choices_color,
                      "auto (default), always or never; NO_COLOR is obeyed"},
    [OPTION_QUIET] = {"quiet", 'q', OPTION_OF_FLEET, OPTION_IS_FLAG, NULL, NULL,
                      "failures and results only"},
    [OPTION_VERBOSE] = {"verbose", 'v', OPTION_OF_FLEET, OPTION_IS_FLAG, NULL, NULL,
                        "say more; twice: everything"},
    [OPTION_HELP] = {"help", 'h', OPTION_OF_FLEET, OPTION_IS_FLAG, NULL, NULL, "this help"},
    [OPTION_VERSION] = {"version", 0, OPTION_OF_FLEET, OPTION_IS_FLAG, NULL, NULL,
                        "the program's version"},
    [OPTION_REACH] = {"reach", 0, OPTION_OF_COMMAND, OPTION_IS_FLAG, NULL, NULL,
                      "connect to each host, too"},
    [OPTION_OUT_LINK] = {"out-link", 0, OPTION_OF_COMMAND, OPTION_IS_FILE, "DIR", NULL,
                         "leave a link DIR/HOST to each system"},
    [OPTION_ACTION] = {"action", 0, OPTION_OF_COMMAND, OPTION_IS_CHOICE, "ACTION", choices_action,
                       "switch (default): activate, prove, then make it the profile's new "
                       "generation and the boot default; boot: only the latter; test: without the "
                       "latter; dry-activate: only say what would happen"},
    [OPTION_REBOOT] = {"reboot", 0, OPTION_OF_COMMAND, OPTION_IS_CHOICE, "WHEN", choices_reboot,
                       "never, if-needed (kernel, initrd or init changed) or always; default: the "
                       "policy's"},
    [OPTION_TO] = {"to", 0, OPTION_OF_COMMAND, OPTION_IS_TEXT, "N|PATH", NULL,
                   "this generation, or this system; default: the previous generation"},
    [OPTION_TIMEOUT] = {"timeout", 0, OPTION_OF_COMMAND, OPTION_IS_DURATION, "DUR", NULL,
                        "give up on a host after so long; default 1h"},
    [OPTION_ID] = {"id", 0, OPTION_OF_COMMAND, OPTION_IS_TEXT, "ID", NULL,
                   "the lock's id, as the refusal and `fleet status` print it"},
    [OPTION_LIMIT] = {"limit", 0, OPTION_OF_COMMAND, OPTION_IS_NUMBER, "N", NULL,
                      "so many, the latest ones; default 20"},
    [OPTION_MAN] = {"man", 0, OPTION_OF_COMMAND, OPTION_IS_FLAG, NULL, NULL,
                    "the manual page, as roff"},
    [OPTION_OUT] = {"out", 0, OPTION_OF_COMMAND, OPTION_IS_FILE, "FILE", NULL,
                    "save the plan, for `fleet update --plan FILE`"},
    [OPTION_DRY_RUN] = {"dry-run", 0, OPTION_OF_COMMAND, OPTION_IS_FLAG, NULL, NULL,
                        "only say what would be done"},
    [OPTION_PLAN] = {"plan", 0, OPTION_OF_COMMAND, OPTION_IS_FILE, "FILE", NULL,
                     "do exactly what `fleet plan --out FILE` has planned, or refuse it as stale"},
    [OPTION_KEEP] = {"keep", 0, OPTION_OF_COMMAND, OPTION_IS_NUMBER, "N", NULL,
                     "keep so many generations, the latest ones"},
    [OPTION_OLDER_THAN] = {"older-than", 0, OPTION_OF_COMMAND, OPTION_IS_DURATION, "DUR", NULL,
                           "remove only generations older than this, such as 30d"},
    [OPTION_SPEED] = {"speed", 0, OPTION_OF_COMMAND, OPTION_IS_NUMBER, "N", NULL,
                      "play the run back from its start, N times as fast"},
    [OPTION_EVAL] = {"eval", 0, OPTION_OF_COMMAND, OPTION_IS_FLAG, NULL, NULL,
                     "evaluate what each host shall run, where that isn't known; builds nothing"},
    [OPTION_PROBE] = {"probe", 0, OPTION_OF_COMMAND, OPTION_IS_FLAG, NULL, NULL,
                      "run each host's health probes once, too"},
    [OPTION_WATCH] = {"watch", 0, OPTION_OF_COMMAND, OPTION_IS_FLAG, NULL, NULL,
                      "stay, and ask again and again: a dashboard of the fleet at rest"},
    [OPTION_RUN] = {"run", 0, OPTION_OF_COMMAND, OPTION_IS_RUN, "RUN", NULL,
                    "undo that run: each of its hosts back to what it ran before it"},
    [OPTION_JUNIT] = {"junit", 0, OPTION_OF_ROLLOUT, OPTION_IS_FILE, "FILE", NULL,
                      "write the result as JUnit XML: a suite a wave, a case a host"},
    [OPTION_METRICS] = {"metrics", 0, OPTION_OF_ROLLOUT, OPTION_IS_FILE, "FILE", NULL,
                        "write the result for Prometheus' textfile collector, by rename"},
};

const char *option_group_title(enum option_group group) {
    static const char *const titles[OPTION_GROUP_COUNT] = {
        [OPTION_OF_COMMAND] = "Options",
        [OPTION_OF_SELECTION] = "Selection",
        [OPTION_OF_ROLLOUT] = "Rollout",
        [OPTION_OF_FLEET] = "Common options",
    };
    return titles[group];
}

/* True if `command` (NULL: none yet) takes the option. */
static bool is_allowed(const struct command *command, enum option_id id) {
    return option_defs[id].group != OPTION_OF_COMMAND ||
           (command != NULL && command_has_option(command, id));
}

static enum option_id find_name(const struct command *command, const char *name, size_t len) {
    for (enum option_id id = 0; id < OPTION_COUNT; id++) {
        const char *known = option_defs[id].name;
        if (is_allowed(command, id) && strlen(known) == len && memcmp(known, name, len) == 0) {
            return id;
        }
    }
    return OPTION_COUNT;
}

static enum option_id find_letter(const struct command *command, char letter) {
    for (enum option_id id = 0; id < OPTION_COUNT; id++) {
        if (option_defs[id].letter == letter && is_allowed(command, id)) {
            return id;
        }
    }
    return OPTION_COUNT;
}

static int unknown_name(const struct command *command, const char *name, struct error *error) {
    const char *names[OPTION_COUNT];
    size_t count = 0;
    for (enum option_id id = 0; id < OPTION_COUNT; id++) {
        if (is_allowed(command, id)) {
            names[count++] = option_defs[id].name;
        }
    }
    AUTO_FREE char *shown = text_cleaned(name, strlen(name));
    const char *nearest = text_nearest(name, names, count);
    if (nearest != NULL) {
        return error_set(error, FLEET_ERR_USAGE, "usage", "unknown option --%s; did you mean --%s?",
                         shown, nearest);
    }
    return error_set(error, FLEET_ERR_USAGE, "usage", "unknown option --%s", shown);
}

static int wrong_choice(const struct option_def *def, const char *value, struct error *error) {
    struct buf list = BUF_INIT;
    size_t count = 0;
    for (; def->choices[count] != NULL; count++) {
        buf_printf(&list, "%s%s", count > 0 ? ", " : "", def->choices[count]);
    }
    AUTO_FREE char *shown = text_cleaned(value, strlen(value));
    const char *nearest = text_nearest(value, def->choices, count);
    int code =
        error_set(error, FLEET_ERR_USAGE, "usage", "--%s '%s' is none of %s%s%s%s", def->name,
                  shown, buf_text(&list), nearest != NULL ? "; did you mean " : "",
                  nearest != NULL ? nearest : "", nearest != NULL ? "?" : "");
    buf_free(&list);
    return code;
}

static int parse_number(const char *text, uint32_t *ret) {
    uint64_t number = 0;
    if (*text == '\0') {
        return FLEET_ERR_USAGE;
    }
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9') {
            return FLEET_ERR_USAGE;
        }
        number = number * 10 + (uint64_t)(*text - '0');
        if (number > UINT32_MAX) {
            return FLEET_ERR_USAGE;
        }
    }
    *ret = (uint32_t)number;
    return number > 0 ? 0 : FLEET_ERR_USAGE;
}

static int check_value(const struct option_def *def, const char *value, struct error *error) {
    uint32_t number;
    uint64_t duration_ms;
    AUTO_FREE char *shown = text_cleaned(value, strlen(value));
    switch (def->kind) {
    case OPTION_IS_NUMBER:
        if (parse_number(value, &number) != 0) {
            return error_set(error, FLEET_ERR_USAGE, "usage",
                             "--%s '%s' is not a whole number from 1", def->name, shown);
        }
        return 0;
    case OPTION_IS_DURATION:
        if (units_parse_duration(value, &duration_ms) != 0) {
            return error_set(error, FLEET_ERR_USAGE, "usage",
                             "--%s '%s' is not a duration such as 500ms, 30s, 5m or 1h", def->name,
                             shown);
        }
        return 0;
    case OPTION_IS_CHOICE:
        for (size_t i = 0; def->choices[i] != NULL; i++) {
            if (strcmp(def->choices[i], value) == 0) {
                return 0;
            }
        }
        return wrong_choice(def, value, error);
    case OPTION_IS_FILE:
        if (value[0] == '\0') {
            return error_set(error, FLEET_ERR_USAGE, "usage", "--%s needs a %s, not nothing",
                             def->name, def->value);
        }
        return 0;
    case OPTION_IS_FLAG:
    case OPTION_IS_TEXT:
    case OPTION_IS_TAGS:
    case OPTION_IS_SELECTOR:
    case OPTION_IS_RUN:
        return 0;
    }
    return 0;
}

static void add_option(struct args *args, enum option_id id, const char *value) {
    args->options = xrealloc(args->options, (args->option_count + 1) * sizeof(*args->options));
    args->options[args->option_count].id = id;
    args->options[args->option_count].value = value;
    args->option_count++;
}

static void add_word(const char ***words, size_t *count, const char *word) {
    *words = xrealloc(*words, (*count + 1) * sizeof(**words));
    (*words)[(*count)++] = word;
}

/* The arguments that are left to read. */
struct reader {
    char **argv;
    int argc;
    int at;
};

/* Takes the option's value from `attached` or else from the next argument, and notes both. */
static int take_value(struct args *args, struct reader *reader, enum option_id id,
                      const char *attached, struct error *error) {
    const struct option_def *def = &option_defs[id];
    const char *value = attached;
    if (value == NULL) {
        if (reader->at >= reader->argc) {
            return error_set(error, FLEET_ERR_USAGE, "usage", "--%s needs a value: --%s %s",
                             def->name, def->name, def->value);
        }
        value = reader->argv[reader->at++];
    }
    int err = check_value(def, value, error);
    if (err == 0) {
        add_option(args, id, value);
    }
    return err;
}

static int read_long(struct args *args, struct reader *reader, const char *name,
                     struct error *error) {
    size_t len = strcspn(name, "=");
    enum option_id id = find_name(args->command, name, len);
    if (id == OPTION_COUNT) {
        AUTO_FREE char *bare = xstrndup(name, len);
        return unknown_name(args->command, bare, error);
    }
    const char *attached = name[len] == '=' ? name + len + 1 : NULL;
    if (option_defs[id].kind != OPTION_IS_FLAG) {
        return take_value(args, reader, id, attached, error);
    }
    if (attached != NULL) {
        return error_set(error, FLEET_ERR_USAGE, "usage", "--%s takes no value",
                         option_defs[id].name);
    }
    add_option(args, id, "");
    return 0;
}

static int read_letters(struct args *args, struct reader *reader, const char *letters,
                        struct error *error) {
    for (; *letters != '\0'; letters++) {
        enum option_id id = find_letter(args->command, *letters);
        if (id == OPTION_COUNT) {
            AUTO_FREE char *shown = text_cleaned(letters, 1);
            return error_set(error, FLEET_ERR_USAGE, "usage", "unknown option -%s", shown);
        }
        if (option_defs[id].kind != OPTION_IS_FLAG) {
            return take_value(args, reader, id, letters[1] != '\0' ? letters + 1 : NULL, error);
        }
        add_option(args, id, "");
    }
    return 0;
}

/* The first word is the command. */
static int read_command(struct args *args, const char *word, struct error *error) {
    args->command = command_find(word);
    return args->command != NULL ? 0 : command_refuse(word, error);
}

static int read_one(struct args *args, struct reader *reader, struct error *error) {
    const char *arg = reader->argv[reader->at++];
    if (arg[0] == '-' && arg[1] == '-' && arg[2] != '\0') {
        return read_long(args, reader, arg + 2, error);
    }
    if (arg[0] == '-' && arg[1] != '-' && arg[1] != '\0') {
        return read_letters(args, reader, arg + 1, error);
    }
    if (strcmp(arg, "--") == 0 && args->command != NULL) {
        args->has_rest = true;
        while (reader->at < reader->argc) {
            add_word(&args->rest, &args->rest_count, reader->argv[reader->at++]);
        }
        return 0;
    }
    if (args->command == NULL) {
        return read_command(args, arg, error);
    }
    add_word(&args->words, &args->word_count, arg);
    return 0;
}

int args_parse(int argc, char **argv, struct args *ret, struct error *error) {
    *ret = (struct args){0};
    struct reader reader = {.argv = argv, .argc = argc, .at = 1};
    while (reader.at < argc) {
        int err = read_one(ret, &reader, error);
        if (err != 0) {
            return err;
        }
    }
    return 0;
}

void args_release(struct args *args) {
    free(args->options);
    free(args->words);
    free(args->rest);
    *args = (struct args){0};
}

size_t args_count(const struct args *args, enum option_id id) {
    size_t count = 0;
    for (size_t i = 0; i < args->option_count; i++) {
        count += args->options[i].id == id;
    }
    return count;
}

const char *args_value(const struct args *args, enum option_id id) {
    for (size_t i = args->option_count; i > 0; i--) {
        if (args->options[i - 1].id == id) {
            return args->options[i - 1].value;
        }
    }
    return NULL;
}

uint32_t args_number(const struct args *args, enum option_id id, uint32_t missing) {
    const char *value = args_value(args, id);
    uint32_t number = missing;
    return value != NULL && parse_number(value, &number) == 0 ? number : missing;
}

uint64_t args_duration_ms(const struct args *args, enum option_id id, uint64_t missing) {
    const char *value = args_value(args, id);
    uint64_t duration_ms = missing;
    return value != NULL && units_parse_duration(value, &duration_ms) == 0 ? duration_ms : missing;
}

const char **args_values(const struct args *args, enum option_id id, size_t *ret_count) {
    const char **values = NULL;
    *ret_count = 0;
    for (size_t i = 0; i < args->option_count; i++) {
        if (args->options[i].id == id) {
            add_word(&values, ret_count, args->options[i].value);
        }
    }
    return values;
}
