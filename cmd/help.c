/* Help and the manual page, made from the tables of commands and options. 80 columns. */
#include "cmd/help.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"

#define COLUMNS    80u
#define OPTION_COL 26u

static const char intro[] =
    "Takes a Git repository of NixOS machines to running, healthy hosts, and takes them back when "
    "they are not.";
static const char selectors[] =
    "A SELECTOR is a host name or glob, @tag or @all; several add up, --tag and --on narrow. "
    "Without any, all hosts are meant.";

static const struct {
    int code;
    const char *meaning;
} exit_codes[] = {
    {0, "done, or nothing to do"},
    {1, "fleet or its surroundings failed (disk, a bug)"},
    {2, "usage or inventory wrong; nothing was touched"},
    {3, "hosts failed after their build, each on what it ran before unless said otherwise"},
    {4, "a host is neither on the new nor on the old system for sure"},
    {5, "hosts unreachable or skipped"},
    {6, "paused, waiting for promotion"},
    {7, "a lock is held; the message names who, and the line to break it"},
    {8, "plan stale"},
    {9, "build or evaluation failed for some hosts; those were not touched"},
    {130, "interrupted (143: by SIGTERM, or as its terminal closed)"},
};

/* Appends words, wrapped at COLUMNS, each further line indented; the first line begins at `column`. */
static void add_wrapped(struct buf *out, const char *text, size_t indent, size_t column) {
    size_t at = column;
    while (*text != '\0') {
        size_t len = strcspn(text, " ");
        if (at > indent && at + 1 + len > COLUMNS) {
            buf_printf(out, "\n%*s", (int)indent, "");
            at = indent;
        } else if (at > indent) {
            buf_add_char(out, ' ');
            at++;
        }
        buf_add(out, text, len);
        at += len;
        text += len;
        text += strspn(text, " ");
    }
    buf_add_char(out, '\n');
}

static void add_option(const struct option_def *def, struct buf *out) {
    size_t begin = out->len;
    if (def->letter != 0) {
        buf_printf(out, "  -%c, --%s", def->letter, def->name);
    } else {
        buf_printf(out, "      --%s", def->name);
    }
    if (def->value != NULL) {
        buf_printf(out, " %s", def->value);
    }
    size_t width = out->len - begin;
    if (width + 2 > OPTION_COL) {
        buf_printf(out, "\n%*s", (int)OPTION_COL, "");
    } else {
        buf_printf(out, "%*s", (int)(OPTION_COL - width), "");
    }
    add_wrapped(out, def->help, OPTION_COL, OPTION_COL);
}

/* `command` NULL: no command's own options. */
static bool is_listed(const struct command *command, enum option_id id, enum option_group group) {
    if (option_defs[id].group != group) {
        return false;
    }
    switch (group) {
    case OPTION_OF_COMMAND:
        return command != NULL && command_has_option(command, id);
    case OPTION_OF_SELECTION:
        return command == NULL || command->words == WORDS_SELECTORS;
    case OPTION_OF_ROLLOUT:
        return command == NULL || command->rollout || command_has_option(command, id);
    case OPTION_OF_FLEET:
    case OPTION_GROUP_COUNT:
        return true;
    }
    return true;
}

static void add_groups(const struct command *command, struct buf *out) {
    for (enum option_group group = 0; group < OPTION_GROUP_COUNT; group++) {
        bool any = false;
        for (enum option_id id = 0; id < OPTION_COUNT; id++) {
            if (!is_listed(command, id, group)) {
                continue;
            }
            if (!any) {
                buf_printf(out, "\n%s:\n", option_group_title(group));
            }
            any = true;
            add_option(&option_defs[id], out);
        }
    }
}

void help_overview(struct buf *out) {
    buf_add_text(out, "Usage: fleet [-i INVENTORY] COMMAND [OPTIONS] [SELECTOR...]\n\n");
    add_wrapped(out, intro, 0, 0);
    buf_add_text(out, "\nCommands:\n");
    for (size_t i = 0; i < command_count; i++) {
        buf_printf(out, "  %-12s  ", commands[i].name);
        add_wrapped(out, commands[i].summary, 16, 16);
    }
    buf_add_char(out, '\n');
    add_wrapped(out, selectors, 0, 0);
    add_groups(NULL, out);
    buf_add_text(out, "\n`fleet COMMAND --help` says more; `man fleet` lists the exit codes.\n");
}

void help_command(const struct command *command, struct buf *out) {
    buf_printf(out, "Usage: fleet %s [OPTIONS]%s%s\n\n", command->name,
               command->usage[0] != '\0' ? " " : "", command->usage);
    AUTO_FREE char *summary = xstrdup(command->summary);
    if (summary[0] >= 'a' && summary[0] <= 'z') {
        summary[0] = (char)(summary[0] - 'a' + 'A');
    }
    buf_printf(out, "%s.\n\n", summary);
    add_wrapped(out, command->description, 0, 0);
    if (command->words == WORDS_SELECTORS) {
        buf_add_char(out, '\n');
        add_wrapped(out, selectors, 0, 0);
    }
    add_groups(command, out);
}

/* Text for roff: backslashes and minus signs escaped, no line that begins with a request. */
static void add_roff(struct buf *out, const char *text) {
    if (*text == '.' || *text == '\'') {
        buf_add_text(out, "\\&");
    }
    for (; *text != '\0'; text++) {
        if (*text == '\\') {
            buf_add_text(out, "\\e");
        } else if (*text == '-') {
            buf_add_text(out, "\\-");
        } else {
            buf_add_char(out, *text);
        }
    }
}

static void add_roff_option(const struct option_def *def, struct buf *out) {
    buf_add_text(out, ".TP\n");
    if (def->letter != 0) {
        buf_printf(out, "\\fB\\-%c\\fR, ", def->letter);
    }
    buf_add_text(out, "\\fB\\-\\-");
    add_roff(out, def->name);
    buf_add_text(out, "\\fR");
    if (def->value != NULL) {
        buf_printf(out, " \\fI%s\\fR", def->value);
    }
    buf_add_char(out, '\n');
    add_roff(out, def->help);
    buf_add_char(out, '\n');
}

static void add_roff_command(const struct command *command, struct buf *out) {
    buf_printf(out, ".SS fleet %s ", command->name);
    add_roff(out, command->usage);
    buf_add_char(out, '\n');
    add_roff(out, command->summary);
    buf_add_text(out, ".\n.PP\n");
    add_roff(out, command->description);
    buf_add_char(out, '\n');
    for (size_t i = 0; i < command->option_count; i++) {
        add_roff_option(&option_defs[command->options[i]], out);
    }
}

void help_manual(struct buf *out) {
    buf_add_text(out,
                 ".\\\" Made by `fleet help --man` from the tables of commands and options.\n");
    buf_add_text(out, ".TH FLEET 1 \"\" \"fleet " FLEET_VERSION "\" \"User Commands\"\n");
    buf_add_text(out, ".SH NAME\nfleet \\- roll NixOS systems out to many hosts, and back\n");
    buf_add_text(out, ".SH SYNOPSIS\n.B fleet\n[\\fB\\-i\\fR \\fIINVENTORY\\fR] \\fICOMMAND\\fR "
                      "[\\fIOPTIONS\\fR] [\\fISELECTOR\\fR...]\n.SH DESCRIPTION\n");
    add_roff(out, intro);
    buf_add_text(out, "\n.PP\n");
    add_roff(out, selectors);
    buf_add_text(out, "\n.SH COMMANDS\n");
    for (size_t i = 0; i < command_count; i++) {
        add_roff_command(&commands[i], out);
    }
    buf_add_text(out, ".SH OPTIONS\n");
    for (enum option_group group = OPTION_OF_SELECTION; group < OPTION_GROUP_COUNT; group++) {
        buf_printf(out, ".SS %s\n", option_group_title(group));
        for (enum option_id id = 0; id < OPTION_COUNT; id++) {
            if (option_defs[id].group == group) {
                add_roff_option(&option_defs[id], out);
            }
        }
    }
    buf_add_text(out, ".SH EXIT STATUS\n");
    for (size_t i = 0; i < ARRAY_LEN(exit_codes); i++) {
        buf_printf(out, ".TP\n.B %d\n", exit_codes[i].code);
        add_roff(out, exit_codes[i].meaning);
        buf_add_char(out, '\n');
    }
}

int cmd_help(const struct args *args) {
    struct buf out = BUF_INIT;
    int code = EXIT_DONE;
    if (args_count(args, OPTION_MAN) > 0) {
        help_manual(&out);
    } else if (args->word_count == 0) {
        help_overview(&out);
    } else {
        const struct command *command = command_find(args->words[0]);
        if (command == NULL) {
            struct error error = ERROR_INIT;
            command_refuse(args->words[0], &error);
            fprintf(stderr, "fleet: %s\nSee `fleet --help`.\n", error.message);
            return EXIT_USAGE;
        }
        help_command(command, &out);
    }
    fputs(buf_text(&out), stdout);
    buf_free(&out);
    return code;
}
