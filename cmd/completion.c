/* Completion for bash, zsh and fish (see completion.h).
 *
 * Names of hosts and tags are asked of `fleet list --json` while completing, with the inventory
 * that stands on the command line; a fleet that can't load it completes nothing.
 */
#include "cmd/completion.h"

#include <stdio.h>
#include <string.h>

#include "cmd/command.h"
#include "core/base/text.h"

static const char *const shells[] = {"bash", "zsh", "fish"};

static void add_command_names(struct buf *out) {
    for (size_t i = 0; i < command_count; i++) {
        buf_printf(out, "%s%s", i > 0 ? " " : "", commands[i].name);
    }
}

static bool applies(const struct command *command, enum option_id id) {
    return option_defs[id].group != OPTION_OF_COMMAND || command_has_option(command, id);
}

static void add_option_names(const struct command *command, struct buf *out) {
    for (enum option_id id = 0; id < OPTION_COUNT; id++) {
        if (command == NULL ? option_defs[id].group != OPTION_OF_COMMAND : applies(command, id)) {
            buf_printf(out, "--%s ", option_defs[id].name);
            if (option_defs[id].letter != 0) {
                buf_printf(out, "-%c ", option_defs[id].letter);
            }
        }
    }
}

/* A case pattern of all options of a kind: "--inventory|-i|--state-dir"; NULL kinds end the list. */
static void add_pattern(enum option_kind kind, struct buf *out) {
    bool first = true;
    for (enum option_id id = 0; id < OPTION_COUNT; id++) {
        if (option_defs[id].kind != kind) {
            continue;
        }
        buf_printf(out, "%s--%s", first ? "" : "|", option_defs[id].name);
        if (option_defs[id].letter != 0) {
            buf_printf(out, "|-%c", option_defs[id].letter);
        }
        first = false;
    }
}

static void add_choice_cases(struct buf *out) {
    for (enum option_id id = 0; id < OPTION_COUNT; id++) {
        if (option_defs[id].kind != OPTION_IS_CHOICE) {
            continue;
        }
        buf_printf(out, "    --%s) COMPREPLY=($(compgen -W '", option_defs[id].name);
        for (const char *const *choice = option_defs[id].choices; *choice != NULL; choice++) {
            buf_printf(out, "%s%s", choice == option_defs[id].choices ? "" : " ", *choice);
        }
        buf_add_text(out, "' -- \"$cur\")); return ;;\n");
    }
}

static void add_bash_words(const struct command *command, struct buf *out) {
    switch (command->words) {
    case WORDS_SELECTORS:
        buf_add_text(out, "words=\"@all $(_fleet_names tags) $(_fleet_names hosts)\"");
        break;
    case WORDS_HOST:
        buf_add_text(out, "words=$(_fleet_names hosts)");
        break;
    case WORDS_RUN:
        buf_add_text(out, "words=$(_fleet_names runs)");
        break;
    case WORDS_SHELL:
        buf_add_text(out, "words='bash zsh fish'");
        break;
    case WORDS_COMMAND:
        buf_add_text(out, "words=$commands");
        break;
    case WORDS_NONE:
        buf_add_text(out, "words=");
        break;
    }
}

/* Prints hosts, tags or runs by asking fleet; shared by bash and zsh. */
static const char names_function[] =
    "_fleet_names() {\n"
    "    local inventory=() i\n"
    "    for ((i = 1; i < ${#_fleet_line[@]}; i++)); do\n"
    "        case ${_fleet_line[i]} in\n"
    "        -i | --inventory) inventory=(-i \"${_fleet_line[i + 1]}\") ;;\n"
    "        --inventory=*) inventory=(-i \"${_fleet_line[i]#*=}\") ;;\n"
    "        esac\n"
    "    done\n"
    "    case $1 in\n"
    "    hosts) command fleet \"${inventory[@]}\" list --json 2>/dev/null |\n"
    "        sed -n 's/^{\"host\":\"\\([^\"]*\\)\".*/\\1/p' ;;\n"
    "    tags) command fleet \"${inventory[@]}\" list --json 2>/dev/null |\n"
    "        sed -n 's/.*\"tags\":\\[\\([^]]*\\)\\].*/\\1/p' | tr ',' '\\n' |\n"
    "        sed -n 's/^\"\\(.*\\)\"$/@\\1/p' | sort -u ;;\n"
    "    runs) command fleet history --json 2>/dev/null |\n"
    "        sed -n 's/^{\"run\":\"\\([^\"]*\\)\".*/\\1/p' ;;\n"
    "    esac\n"
    "}\n";

static void add_bash_body(struct buf *out) {
    buf_add_text(out, "_fleet() {\n"
                      "    local cur=$2 prev=$3 command='' words='' options='' i\n"
                      "    local _fleet_line=(\"${COMP_WORDS[@]}\")\n"
                      "    local commands='");
    add_command_names(out);
    buf_add_text(out, "'\n    COMPREPLY=()\n    case $prev in\n    ");
    add_pattern(OPTION_IS_FILE, out);
    buf_add_text(out,
                 ") compopt -o filenames; COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n    ");
    add_pattern(OPTION_IS_TEXT, out);
    buf_add_char(out, '|');
    add_pattern(OPTION_IS_NUMBER, out);
    buf_add_char(out, '|');
    add_pattern(OPTION_IS_DURATION, out);
    buf_add_text(out, ") return ;;\n");
    add_choice_cases(out);
    buf_add_text(out, "    esac\n"
                      "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
                      "        case ${COMP_WORDS[i]} in\n"
                      "        -i | --inventory | --state-dir | --color) ((i++)) ;;\n"
                      "        --) return ;;\n"
                      "        -*) ;;\n"
                      "        *) command=${COMP_WORDS[i]}; break ;;\n"
                      "        esac\n"
                      "    done\n"
                      "    case $command in\n    '') words=$commands options='");
    add_option_names(NULL, out);
    buf_add_text(out, "' ;;\n");
    for (size_t i = 0; i < command_count; i++) {
        buf_printf(out, "    %s) options='", commands[i].name);
        add_option_names(&commands[i], out);
        buf_add_text(out, "'\n        [[ $cur == -* ]] || ");
        add_bash_words(&commands[i], out);
        buf_add_text(out, " ;;\n");
    }
    buf_add_text(out, "    esac\n"
                      "    [[ $cur != -* ]] || words=$options\n"
                      "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
                      "}\n");
}

static void script_bash(struct buf *out) {
    buf_add_text(out, "# bash completion for fleet; made by `fleet completion bash`.\n");
    buf_add_text(out, names_function);
    add_bash_body(out);
    buf_add_text(out, "complete -F _fleet fleet\n");
}

/* Text within single quotes for zsh's _arguments: brackets and colons have a meaning there. */
static void add_zsh_text(struct buf *out, const char *text) {
    for (; *text != '\0'; text++) {
        if (*text == '\'') {
            buf_add_text(out, "'\\''");
        } else if (strchr("[]:\\", *text) != NULL) {
            buf_add_char(out, '\\');
            buf_add_char(out, *text);
        } else {
            buf_add_char(out, *text);
        }
    }
}

static void add_zsh_action(const struct option_def *def, struct buf *out) {
    if (def->kind == OPTION_IS_FLAG) {
        return;
    }
    buf_printf(out, ":%s:", def->value);
    if (def->kind == OPTION_IS_FILE) {
        buf_add_text(out, "_files");
    } else if (def->kind == OPTION_IS_CHOICE) {
        buf_add_char(out, '(');
        for (const char *const *choice = def->choices; *choice != NULL; choice++) {
            buf_printf(out, "%s%s", choice == def->choices ? "" : " ", *choice);
        }
        buf_add_char(out, ')');
    }
}

static void add_zsh_options(const struct command *command, struct buf *out) {
    for (enum option_id id = 0; id < OPTION_COUNT; id++) {
        const struct option_def *def = &option_defs[id];
        if (!applies(command, id)) {
            continue;
        }
        buf_printf(out, "            '*--%s%s[", def->name, def->kind == OPTION_IS_FLAG ? "" : "=");
        add_zsh_text(out, def->help);
        buf_add_char(out, ']');
        add_zsh_action(def, out);
        buf_add_text(out, "' \\\n");
    }
}

static const char *zsh_words(const struct command *command) {
    switch (command->words) {
    case WORDS_SELECTORS:
        return "'*:selector:{compadd -- @all $(_fleet_names tags) $(_fleet_names hosts)}'";
    case WORDS_HOST:
        return "'1:host:{compadd -- $(_fleet_names hosts)}'";
    case WORDS_RUN:
        return "'1:run:{compadd -- $(_fleet_names runs)}'";
    case WORDS_SHELL:
        return "'1:shell:(bash zsh fish)'";
    case WORDS_COMMAND:
        return "'1:command:{compadd -- ${commands%%:*}}'";
    case WORDS_NONE:
        return "";
    }
    return "";
}

static void script_zsh(struct buf *out) {
    buf_add_text(out,
                 "#compdef fleet\n# zsh completion for fleet; made by `fleet completion zsh`.\n");
    buf_add_text(out, names_function);
    buf_add_text(out, "_fleet() {\n"
                      "    local -a _fleet_line commands\n"
                      "    _fleet_line=(\"${words[@]}\")\n"
                      "    commands=(\n");
    for (size_t i = 0; i < command_count; i++) {
        buf_printf(out, "        '%s:", commands[i].name);
        add_zsh_text(out, commands[i].summary);
        buf_add_text(out, "'\n");
    }
    buf_add_text(
        out, "    )\n"
             "    local context state line\n"
             "    _arguments -C '(-i --inventory)'{-i,--inventory}'[the inventory]:FILE:_files' "
             "'1:command:->command' '*::argument:->arguments'\n"
             "    case $state in\n"
             "    command) _describe command commands ;;\n"
             "    arguments)\n"
             "        case $words[1] in\n");
    for (size_t i = 0; i < command_count; i++) {
        buf_printf(out, "        %s) _arguments \\\n", commands[i].name);
        add_zsh_options(&commands[i], out);
        buf_printf(out, "            %s ;;\n", zsh_words(&commands[i]));
    }
    buf_add_text(
        out,
        "        esac ;;\n    esac\n}\n"
        "if [ \"$funcstack[1]\" = _fleet ]; then _fleet \"$@\"; else compdef _fleet fleet; fi\n");
}

static void add_fish_text(struct buf *out, const char *text) {
    buf_add_char(out, '\'');
    for (; *text != '\0'; text++) {
        if (*text == '\'' || *text == '\\') {
            buf_add_char(out, '\\');
        }
        buf_add_char(out, *text);
    }
    buf_add_char(out, '\'');
}

static void add_fish_option(const char *condition, const struct option_def *def, struct buf *out) {
    buf_printf(out, "complete -c fleet%s -l %s", condition, def->name);
    if (def->letter != 0) {
        buf_printf(out, " -s %c", def->letter);
    }
    if (def->kind == OPTION_IS_FILE) {
        buf_add_text(out, " -r -F");
    } else if (def->kind == OPTION_IS_CHOICE) {
        buf_add_text(out, " -x -a '");
        for (const char *const *choice = def->choices; *choice != NULL; choice++) {
            buf_printf(out, "%s%s", choice == def->choices ? "" : " ", *choice);
        }
        buf_add_char(out, '\'');
    } else if (def->kind != OPTION_IS_FLAG) {
        buf_add_text(out, " -x");
    }
    buf_add_text(out, " -d ");
    add_fish_text(out, def->help);
    buf_add_char(out, '\n');
}

static const char *fish_words(const struct command *command) {
    switch (command->words) {
    case WORDS_SELECTORS:
        return "(__fleet_hosts) (__fleet_tags) @all";
    case WORDS_HOST:
        return "(__fleet_hosts)";
    case WORDS_RUN:
        return "(__fleet_runs)";
    case WORDS_SHELL:
        return "bash zsh fish";
    case WORDS_COMMAND:
    case WORDS_NONE:
        return "";
    }
    return "";
}

static void add_fish_command(const struct command *command, struct buf *out) {
    buf_printf(out, "complete -c fleet -n __fish_use_subcommand -a %s -d ", command->name);
    add_fish_text(out, command->summary);
    buf_add_char(out, '\n');
    struct buf condition = BUF_INIT;
    buf_printf(&condition, " -n '__fish_seen_subcommand_from %s'", command->name);
    for (size_t i = 0; i < command->option_count; i++) {
        add_fish_option(buf_text(&condition), &option_defs[command->options[i]], out);
    }
    const char *words = fish_words(command);
    if (words[0] != '\0') {
        buf_printf(out, "complete -c fleet%s -a '%s'\n", buf_text(&condition), words);
    }
    buf_free(&condition);
}

static void script_fish(struct buf *out) {
    buf_add_text(out, "# fish completion for fleet; made by `fleet completion fish`.\n"
                      "function __fleet_hosts\n"
                      "    fleet list --json 2>/dev/null | "
                      "string replace -rf '^\\{\"host\":\"([^\"]*)\".*' '$1'\n"
                      "end\n"
                      "function __fleet_tags\n"
                      "    fleet list --json 2>/dev/null | "
                      "string replace -rf '.*\"tags\":\\[([^]]*)\\].*' '$1' | "
                      "string split , | string replace -rf '\"(.*)\"' '@$1' | sort -u\n"
                      "end\n"
                      "function __fleet_runs\n"
                      "    fleet history --json 2>/dev/null | "
                      "string replace -rf '^\\{\"run\":\"([^\"]*)\".*' '$1'\n"
                      "end\n"
                      "complete -c fleet -f\n");
    for (enum option_id id = 0; id < OPTION_COUNT; id++) {
        if (option_defs[id].group != OPTION_OF_COMMAND) {
            add_fish_option("", &option_defs[id], out);
        }
    }
    for (size_t i = 0; i < command_count; i++) {
        add_fish_command(&commands[i], out);
    }
}

bool completion_script(const char *shell, struct buf *out) {
    if (strcmp(shell, "bash") == 0) {
        script_bash(out);
    } else if (strcmp(shell, "zsh") == 0) {
        script_zsh(out);
    } else if (strcmp(shell, "fish") == 0) {
        script_fish(out);
    } else {
        return false;
    }
    return true;
}

int cmd_completion(const struct args *args) {
    struct buf out = BUF_INIT;
    if (args->word_count != 1 || !completion_script(args->words[0], &out)) {
        const char *nearest =
            args->word_count == 1 ? text_nearest(args->words[0], shells, 3) : NULL;
        fprintf(stderr, "fleet: completion needs a shell: bash, zsh or fish%s%s%s\n",
                nearest != NULL ? "; did you mean " : "", nearest != NULL ? nearest : "",
                nearest != NULL ? "?" : "");
        return EXIT_USAGE;
    }
    fputs(buf_text(&out), stdout);
    buf_free(&out);
    return EXIT_DONE;
}
