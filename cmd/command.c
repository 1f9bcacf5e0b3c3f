/* The command table (see command.h). */
#include "cmd/command.h"

#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"

const struct command commands[] = {
    {
        .name = "update",
        .summary = "roll a new version out: build, copy, activate, probe, keep or take back",
        .usage = "[SELECTOR...]",
        .description =
            "Builds the selected hosts' systems, copies them, and activates them wave by wave "
            "under "
            "a guard on each host. A host keeps its new system only after a fresh connection and "
            "its health probes have proven it; otherwise it goes back by itself to what it ran.",
        .words = WORDS_SELECTORS,
        .rollout = true,
        .options = {OPTION_ACTION, OPTION_REBOOT, OPTION_DRY_RUN, OPTION_PLAN},
        .option_count = 4,
        .run = cmd_update,
    },
    {
        .name = "plan",
        .summary = "what update would do to each host; touches none",
        .usage = "[SELECTOR...]",
        .description =
            "Builds, compares each host's system with what it shall run, and prints what would "
            "change: packages, closure size, units, kernel. Nothing is copied, nothing is written "
            "on any host. --out saves it for update --plan, which does exactly that, or refuses "
            "with exit code 8 if the inventory or a host is not as it was any more.",
        .words = WORDS_SELECTORS,
        .rollout = true,
        .options = {OPTION_OUT},
        .option_count = 1,
        .run = cmd_plan,
    },
    {
        .name = "status",
        .summary = "what each host runs, and whether that is what it should run",
        .usage = "[SELECTOR...]",
        .description =
            "Asks each host and builds nothing. Exit code 0 only if every host was reached and is "
            "in sync: running system, profile and desired system are the same. Where the desired "
            "one is not known without evaluating, the last one that fleet deployed stands for it. "
            "With --probe every probe of every host has to pass, too. --watch keeps the "
            "connections "
            "and asks each host again every few seconds, until q or Ctrl-C: on a terminal as a "
            "dashboard, elsewhere as a line a change, with --json as an object a look.",
        .words = WORDS_SELECTORS,
        .options = {OPTION_EVAL, OPTION_PROBE, OPTION_WATCH},
        .option_count = 3,
        .run = cmd_status,
    },
    {
        .name = "check",
        .summary = "validate the inventory, and with --reach connect to each host",
        .usage = "[SELECTOR...]",
        .description = "Prints everything that is wrong as file:line:column: path: what is wrong, "
                       "what is allowed. Exit code 2 when invalid, 5 when a host is down.",
        .words = WORDS_SELECTORS,
        .options = {OPTION_REACH},
        .option_count = 1,
        .run = cmd_check,
    },
    {
        .name = "list",
        .summary = "hosts, tags and addresses after merging",
        .usage = "[SELECTOR...]",
        .description = "Reads the inventory only; nothing is connected to.",
        .words = WORDS_SELECTORS,
        .run = cmd_list,
    },
    {
        .name = "build",
        .summary = "build the selected hosts' systems; prints `host path`",
        .usage = "[SELECTOR...]",
        .description = "Touches no target.",
        .words = WORDS_SELECTORS,
        .rollout = true,
        .options = {OPTION_OUT_LINK},
        .option_count = 1,
        .run = cmd_build,
    },
    {
        .name = "push",
        .summary = "build and copy, activate nothing",
        .usage = "[SELECTOR...]",
        .description = "What was copied is kept from garbage collection until the next update.",
        .words = WORDS_SELECTORS,
        .rollout = true,
        .run = cmd_push,
    },
    {
        .name = "rollback",
        .summary = "go back to the previous generation, or to the one named",
        .usage = "[SELECTOR...]",
        .description = "Goes the way of an update: under a guard, confirmed and probed.",
        .words = WORDS_SELECTORS,
        .rollout = true,
        .options = {OPTION_TO, OPTION_RUN},
        .option_count = 2,
        .run = cmd_rollback,
    },
    {
        .name = "reboot",
        .summary = "reboot hosts wave by wave, and probe them when they are back",
        .usage = "[SELECTOR...]",
        .description =
            "Goes in waves and slots as an update does. A host is healthy when it tells a boot id "
            "that it did not have before, its probes pass over time, and it runs its profile's "
            "system. One that does not come back within activate_timeout ends unknown.",
        .words = WORDS_SELECTORS,
        .rollout = true,
        .run = cmd_reboot,
    },
    {
        .name = "generations",
        .summary = "the generations that each host has",
        .usage = "[SELECTOR...]",
        .description = "With date and path; marked are the current, the booted and the pinned ones "
                       "(those that a root of fleet keeps).",
        .words = WORDS_SELECTORS,
        .run = cmd_generations,
    },
    {
        .name = "gc",
        .summary = "remove old generations and collect garbage",
        .usage = "[SELECTOR...]",
        .description =
            "Removes the generations beyond the latest N (--keep) or older than so long "
            "(--older-than; with both, those that are both), never the current or the booted one "
            "nor what a rollback would go to, then collects garbage. Without either no generation "
            "goes. Under the host's lock: exit code 7 where a run holds it.",
        .words = WORDS_SELECTORS,
        .options = {OPTION_KEEP, OPTION_OLDER_THAN, OPTION_DRY_RUN, OPTION_LOCK_TIMEOUT},
        .option_count = 4,
        .run = cmd_gc,
    },
    {
        .name = "secrets",
        .summary = "push the inventory's secrets, or check what the hosts have",
        .usage = "push|check [SELECTOR...]",
        .description =
            "push writes what is missing or differs, in one step and with its owner, group and "
            "mode, under the host's lock, and restarts the units that the inventory names beside "
            "what was written. check changes nothing: exit code 3 if anything is missing or stale.",
        .words = WORDS_SELECTORS,
        .options = {OPTION_LOCK_TIMEOUT},
        .option_count = 1,
        .run = cmd_secrets,
    },
    {
        .name = "exec",
        .summary = "run a command on the selected hosts",
        .usage = "[SELECTOR...] -- COMMAND [ARG...]",
        .description = "Runs the command on all hosts side by side, without a terminal and without "
                       "input; its output is prefixed by the host. The words are passed as they "
                       "are, no shell reads them: for a shell line, -- sh -c 'LINE'. Exit code 3 "
                       "if it failed on any host, 5 if a host was not reached.",
        .words = WORDS_SELECTORS,
        .options = {OPTION_TIMEOUT},
        .option_count = 1,
        .run = cmd_exec,
    },
    {
        .name = "ssh",
        .summary = "a shell on a host, by OpenSSH with the inventory's settings",
        .usage = "HOST [-- COMMAND [ARG...]]",
        .description = "Hands over to ssh with the inventory's address, port, user, keys, known "
                       "hosts and jump hosts.",
        .words = WORDS_HOST,
        .run = cmd_ssh,
    },
    {
        .name = "unlock",
        .summary = "break a stale lock, by its id",
        .usage = "HOST --id ID",
        .description = "Only for a run that is surely dead; the id keeps anybody else's lock safe.",
        .words = WORDS_HOST,
        .options = {OPTION_ID},
        .option_count = 1,
        .run = cmd_unlock,
    },
    {
        .name = "history",
        .summary = "past runs, the latest first",
        .usage = "",
        .description = "From the journals in the state folder; nothing is connected to.",
        .words = WORDS_NONE,
        .options = {OPTION_LIMIT},
        .option_count = 1,
        .run = cmd_history,
    },
    {
        .name = "show",
        .summary = "one run: what happened to each host",
        .usage = "[RUN [HOST]]",
        .description = "RUN is a run's id or a part of it that is unique; default: the latest run. "
                       "With HOST everything that the run tells of it; with --json the events.",
        .words = WORDS_RUN,
        .run = cmd_show,
    },
    {
        .name = "watch",
        .summary = "follow a run from a second terminal",
        .usage = "[RUN]",
        .description = "Read-only. Shows the run from its start, and while it is alive what it "
                       "does next; default: the latest run. On a terminal this is the dashboard, "
                       "otherwise lines; --speed N plays a past run back.",
        .words = WORDS_RUN,
        .options = {OPTION_SPEED},
        .option_count = 1,
        .run = cmd_watch,
    },
    {
        .name = "resume",
        .summary = "take up an interrupted run",
        .usage = "[RUN]",
        .description =
            "Asks every host that was under way what is true, then goes on with the run's own "
            "hosts, "
            "waves and policy. A host whose guard went back because nobody was there begins anew; "
            "one still in its window is taken over; a rollback begun on a verdict stays one. "
            "Default: the latest run; where nothing is left of it, an earlier one that can be "
            "taken "
            "up is named. One that is alive here is left alone (exit code 7).",
        .words = WORDS_RUN,
        .run = cmd_resume,
    },
    {
        .name = "promote",
        .summary = "release a run that waits after a wave",
        .usage = "RUN",
        .description = "Tells the run if it is alive here, else goes on with it in the foreground, "
                       "as resume does.",
        .words = WORDS_RUN,
        .run = cmd_promote,
    },
    {
        .name = "completion",
        .summary = "the completion script for a shell",
        .usage = "bash|zsh|fish",
        .description = "For bash: source <(fleet completion bash)",
        .words = WORDS_SHELL,
        .run = cmd_completion,
    },
    {
        .name = "help",
        .summary = "help on a command",
        .usage = "[COMMAND]",
        .description = "The same as --help behind the command.",
        .words = WORDS_COMMAND,
        .options = {OPTION_MAN},
        .option_count = 1,
        .run = cmd_help,
    },
};
const size_t command_count = ARRAY_LEN(commands);

const struct command *command_find(const char *name) {
    for (size_t i = 0; i < command_count; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

/* What other programs call a command, and what people ask of a run that goes on. */
static const char *instead_of(const char *name) {
    static const struct {
        const char *name, *instead;
    } others[] = {
        {"apply", "`fleet update`"},
        {"deploy", "`fleet update`"},
        {"switch", "`fleet update`"},
        {"upgrade", "`fleet update`"},
        {"diff", "`fleet plan`"},
        {"hosts", "`fleet list`"},
        {"info", "`fleet status`"},
        {"log", "`fleet show RUN HOST`"},
        {"logs", "`fleet show RUN HOST`"},
        {"runs", "`fleet history`"},
        {"run", "`fleet exec`"},
        {"validate", "`fleet check`"},
        {"pause", "the key p in the run's own dashboard"},
        {"retry", "`fleet update HOST` once the run is over, or the key r in its own dashboard"},
        {"skip", "--exclude HOST from the start, or the key x in the run's own dashboard"},
        {"abort", "a second Ctrl-C in the run's own terminal, or the key A in its dashboard"},
        {"cancel", "Ctrl-C in the run's own terminal: what is under way ends well"},
        {"drain", "Ctrl-C in the run's own terminal: what is under way ends well"},
        {"stop", "Ctrl-C in the run's own terminal: what is under way ends well"},
    };
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        if (strcmp(others[i].name, name) == 0) {
            return others[i].instead;
        }
    }
    return NULL;
}

int command_refuse(const char *name, struct error *error) {
    const char *instead = instead_of(name);
    if (instead != NULL) {
        return error_set(error, FLEET_ERR_USAGE, "usage", "there is no command '%s'; it is %s",
                         name, instead);
    }
    const char *names[ARRAY_LEN(commands)];
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        names[i] = commands[i].name;
    }
    AUTO_FREE char *shown = text_cleaned(name, strlen(name));
    const char *nearest = text_nearest(name, names, ARRAY_LEN(names));
    if (nearest != NULL) {
        return error_set(error, FLEET_ERR_USAGE, "usage",
                         "unknown command '%s'; did you mean '%s'?", shown, nearest);
    }
    return error_set(error, FLEET_ERR_USAGE, "usage", "unknown command '%s'", shown);
}

bool command_has_option(const struct command *command, enum option_id id) {
    for (size_t i = 0; i < command->option_count; i++) {
        if (command->options[i] == id) {
            return true;
        }
    }
    return false;
}
