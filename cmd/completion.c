/* Completion for bash, zsh and fish (see completion.h).
 *
 * Names of hosts and tags are asked of `fleet list --json` while completing, with the inventory
 * that stands on the command line; a fleet that can't load it completes nothing. An inventory may be
 * somebody else's, and a tag be called `$(reboot)`: only names of letters, digits and ._:@%- are offered,
 * and nothing of it meets a part of the shell that expands words (in bash `compgen -W` does).
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

static void add_names(enum option_id id, bool first, struct buf *out) {
    buf_printf(out, "%s--%s", first ? "" : "|", option_defs[id].name);
    if (option_defs[id].letter != 0) {
        buf_printf(out, "|-%c", option_defs[id].letter);
    }
}

/* A case pattern of all options of a kind: "--inventory|-i|--state-dir". */
static void add_pattern(enum option_kind kind, struct buf *out) {
    bool first = true;
    for (enum option_id id = 0; id < OPTION_COUNT; id++) {
        if (option_defs[id].kind == kind) {
            add_names(id, first, out);
            first = false;
        }
    }
}

/* A case pattern of all options that take a value. */
static void add_valued_pattern(struct buf *out) {
    bool first = true;
    for (enum option_id id = 0; id < OPTION_COUNT; id++) {
        if (option_defs[id].kind != OPTION_IS_FLAG) {
            add_names(id, first, out);
            first = false;
        }
    }
}

/* The words that one is to be chosen from. */
static void add_choices(const struct option_def *def, struct buf *out) {
    for (const char *const *choice = def->choices; *choice != NULL; choice++) {
        buf_printf(out, "%s%s", choice == def->choices ? "" : " ", *choice);
    }
}

static void add_choice_cases(struct buf *out) {
    for (enum option_id id = 0; id < OPTION_COUNT; id++) {
        if (option_defs[id].kind == OPTION_IS_CHOICE) {
            buf_printf(out, "    --%s) _fleet_offer \"$(printf '%%s\\n' ", option_defs[id].name);
            add_choices(&option_defs[id], out);
            buf_add_text(out, ")\"; return ;;\n");
        }
    }
}

/* What a command's words are, as an argument of _fleet_names; or NULL. */
static const char *names_of(const struct command *command) {
    switch (command->words) {
    case WORDS_SELECTORS:
        return "selectors";
    case WORDS_HOST:
        return "hosts";
    case WORDS_RUN:
        return "runs";
    case WORDS_SHELL:
    case WORDS_COMMAND:
    case WORDS_NONE:
        return NULL;
    }
    return NULL;
}

/* Prints hosts, tags or runs by asking fleet; shared by bash and zsh. _fleet_line are the words before
 * the cursor; in bash they are as typed, hence the tilde. */
static const char names_function[] =
    "_fleet_names() {\n"
    "    local inventory=() i file\n"
    "    local name='[[:alnum:]._:@%-]'\n"
    "    for ((i = 1; i < ${#_fleet_line[@]}; i++)); do\n"
    "        case ${_fleet_line[i]} in\n"
    "        -i | --inventory) file=${_fleet_line[i + 1]} ;;\n"
    "        --inventory=*) file=${_fleet_line[i]#*=} ;;\n"
    "        *) continue ;;\n"
    "        esac\n"
    "        case $file in '~/'*) file=$HOME/${file#*/} ;; esac\n"
    "        inventory=(-i \"$file\")\n"
    "    done\n"
    "    case $1 in\n"
    "    hosts) command fleet \"${inventory[@]}\" list --json 2>/dev/null |\n"
    "        sed -n \"s/^{\\\"host\\\":\\\"\\($name*\\)\\\".*/\\1/p\" ;;\n"
    "    tags) command fleet \"${inventory[@]}\" list --json 2>/dev/null |\n"
    "        sed -n 's/.*\"tags\":\\[\\([^]]*\\)\\].*/\\1/p' | tr ',' '\\n' | sort -u |\n"
    "        sed -n \"s/^\\\"\\($name*\\)\\\"$/\\1/p\" ;;\n"
    "    selectors) printf '%s\\n' @all; _fleet_names tags | sed 's/^/@/'; _fleet_names hosts ;;\n"
    "    runs) command fleet history --json 2>/dev/null |\n"
    "        sed -n \"s/^{\\\"run\\\":\\\"\\($name*\\)\\\".*/\\1/p\" ;;\n"
    "    esac\n"
    "}\n";

/* bash parts words at : and = and @ as well, and replaces only what is behind the last of them ($2
 * of the function); here a word ends at a blank, and what stands before that part is taken off again.
 * Of a list ("db,web") the last part is completed. */
static const char bash_functions[] = "_fleet_offer() {\n"
                                     "    local word head=$_fleet_head value=$_fleet_value\n"
                                     "    if [[ ${2-} && $value == *[,+!]* ]]; then\n"
                                     "        head+=${value%\"${value##*[,+!]}\"}\n"
                                     "        value=${value##*[,+!]}\n"
                                     "    fi\n"
                                     "    while IFS= read -r word; do\n"
                                     "        [[ $word == \"$value\"* && $word ]] || continue\n"
                                     "        word=$head$word\n"
                                     "        COMPREPLY+=(\"${word#\"$_fleet_before\"}\")\n"
                                     "    done <<<\"$1\"\n"
                                     "}\n";

static void add_bash_value(enum option_kind kind, const char *action, struct buf *out) {
    buf_add_text(out, "    ");
    add_pattern(kind, out);
    buf_printf(out, ") %s ;;\n", action);
}

static void add_bash_values(struct buf *out) {
    add_bash_value(OPTION_IS_FILE,
                   "compopt -o filenames 2>/dev/null; "
                   "_fleet_offer \"$(compgen -f -- \"$_fleet_value\")\"; return",
                   out);
    add_bash_value(OPTION_IS_TAGS, "_fleet_offer \"$(_fleet_names tags)\" list; return", out);
    add_bash_value(OPTION_IS_SELECTOR, "_fleet_offer \"$(_fleet_names selectors)\" list; return",
                   out);
    add_bash_value(OPTION_IS_RUN, "_fleet_offer \"$(_fleet_names runs)\"; return", out);
    add_bash_value(OPTION_IS_TEXT, "return", out);
    add_bash_value(OPTION_IS_NUMBER, "return", out);
    add_bash_value(OPTION_IS_DURATION, "return", out);
    add_choice_cases(out);
}

static void add_bash_command(const struct command *command, struct buf *out) {
    buf_printf(out, "    %s)\n        [[ $cur != -* ]] || offers='", command->name);
    add_option_names(command, out);
    buf_add_text(out, "'\n");
    const char *names = names_of(command);
    if (names != NULL) {
        buf_printf(out, "        [[ $cur == -* ]] || _fleet_offer \"$(_fleet_names %s)\" ;;\n",
                   names);
    } else if (command->words == WORDS_NONE) {
        buf_add_text(out, "        ;;\n");
    } else {
        buf_printf(out, "        [[ $cur == -* ]] || offers=%s ;;\n",
                   command->words == WORDS_SHELL ? "'bash zsh fish'" : "$commands");
    }
}

static void add_bash_body(struct buf *out) {
    buf_add_text(out,
                 "_fleet() {\n"
                 "    local line=${COMP_LINE:0:COMP_POINT} command='' offers='' i\n"
                 "    local -a _fleet_line\n"
                 "    read -ra _fleet_line <<<\"$line\"\n"
                 "    [[ $line != *[[:blank:]] ]] || _fleet_line+=('')\n"
                 "    local last=$((${#_fleet_line[@]} - 1))\n"
                 "    local cur=${_fleet_line[last]} prev=${_fleet_line[last - 1]}\n"
                 "    local _fleet_head='' _fleet_value=$cur _fleet_before=''\n"
                 "    [[ $cur != *\"$2\" ]] || _fleet_before=${cur%\"$2\"}\n"
                 "    COMPREPLY=()\n"
                 "    case $cur in\n"
                 "    --*=*) prev=${cur%%=*} _fleet_head=${cur%%=*}= _fleet_value=${cur#*=} ;;\n"
                 "    esac\n"
                 "    local commands='");
    add_command_names(out);
    buf_add_text(out, "'\n    case $prev in\n");
    add_bash_values(out);
    buf_add_text(out, "    esac\n"
                      "    for ((i = 1; i < last; i++)); do\n"
                      "        case ${_fleet_line[i]} in\n"
                      "        --) return ;;\n"
                      "        ");
    add_valued_pattern(out);
    buf_add_text(
        out,
        ") ((i++)) ;;\n"
        "        -*) ;;\n"
        "        *) [[ $command ]] || command=${_fleet_line[i]} ;;\n"
        "        esac\n"
        "    done\n"
        "    case $command in\n    '') offers=$commands\n        [[ $cur != -* ]] || offers='");
    add_option_names(NULL, out);
    buf_add_text(out, "' ;;\n");
    for (size_t i = 0; i < command_count; i++) {
        add_bash_command(&commands[i], out);
    }
    buf_add_text(out, "    esac\n"
                      "    [[ -z $offers ]] || _fleet_offer \"${offers// /$'\\n'}\"\n"
                      "}\n");
}

static void script_bash(struct buf *out) {
    buf_add_text(out, "# bash completion for fleet; made by `fleet completion bash`.\n");
    buf_add_text(out, names_function);
    buf_add_text(out, bash_functions);
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
    } else if (def->kind == OPTION_IS_TAGS) {
        buf_add_text(out, "{_fleet_offer tags}");
    } else if (def->kind == OPTION_IS_SELECTOR) {
        buf_add_text(out, "{_fleet_offer selectors}");
    } else if (def->kind == OPTION_IS_RUN) {
        buf_add_text(out, "{_fleet_offer runs}");
    } else if (def->kind == OPTION_IS_CHOICE) {
        buf_add_char(out, '(');
        add_choices(def, out);
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
        return "'*:selector:{_fleet_offer selectors}'";
    case WORDS_HOST:
        return "'1:host:{_fleet_offer hosts}'";
    case WORDS_RUN:
        return "'1:run:{_fleet_offer runs}'";
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
    buf_add_text(out, "_fleet_offer() {\n"
                      "    compset -P '*[,+!]'\n"
                      "    compadd -- ${(f)\"$(_fleet_names $1)\"}\n"
                      "}\n"
                      "_fleet() {\n"
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
    } else if (def->kind == OPTION_IS_TAGS) {
        buf_add_text(out, " -x -a '(__fleet_tags | __fleet_list)'");
    } else if (def->kind == OPTION_IS_SELECTOR) {
        buf_add_text(out, " -x -a '(__fleet_selectors | __fleet_list)'");
    } else if (def->kind == OPTION_IS_RUN) {
        buf_add_text(out, " -x -a '(__fleet_runs)'");
    } else if (def->kind == OPTION_IS_CHOICE) {
        buf_add_text(out, " -x -a '");
        add_choices(def, out);
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
        return "(__fleet_selectors)";
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

/* Each prints one name a line, of which fish expands none. __fleet_list puts the parts of a list that
 * are there already before each. */
static const char fish_functions[] =
    "function __fleet_json\n"
    "    set -l words (commandline -opc)\n"
    "    set -l inventory\n"
    "    for i in (seq (count $words))\n"
    "        switch $words[$i]\n"
    "            case -i --inventory\n"
    "                set -l next (math $i + 1)\n"
    "                set -q words[$next]; and set inventory -i (string replace -r '^~/' $HOME/ -- "
    "$words[$next])\n"
    "            case '--inventory=*'\n"
    "                set inventory -i (string replace -r '^[^=]*=' '' -- $words[$i])\n"
    "        end\n"
    "    end\n"
    "    command fleet $inventory list --json 2>/dev/null\n"
    "end\n"
    "function __fleet_hosts\n"
    "    __fleet_json | string replace -rf '^\\{\"host\":\"([\\\\w.:@%-]*)\".*' '$1'\n"
    "end\n"
    "function __fleet_tags\n"
    "    __fleet_json | string replace -rf '.*\"tags\":\\[([^]]*)\\].*' '$1' | string split , | "
    "string replace -rf '^\"([\\\\w.:@%-]*)\"$' '$1' | sort -u\n"
    "end\n"
    "function __fleet_selectors\n"
    "    echo @all\n"
    "    __fleet_tags | string replace -r '^' @\n"
    "    __fleet_hosts\n"
    "end\n"
    "function __fleet_list\n"
    "    set -l value (commandline -ct | string replace -r '^--[a-z-]+=' '')\n"
    "    set -l head (string match -r '^.*[,+!]' -- \"$value\")\n"
    "    while read -l name\n"
    "        printf '%s\\n' \"$head$name\"\n"
    "    end\n"
    "end\n"
    "function __fleet_runs\n"
    "    command fleet history --json 2>/dev/null | "
    "string replace -rf '^\\{\"run\":\"([\\\\w.:@%-]*)\".*' '$1'\n"
    "end\n";

static void script_fish(struct buf *out) {
    buf_add_text(out, "# fish completion for fleet; made by `fleet completion fish`.\n");
    buf_add_text(out, fish_functions);
    buf_add_text(out, "complete -c fleet -f\n");
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
