#include <criterion/criterion.h>
#include <string.h>

#include "cmd/command.h"
#include "cmd/help.h"

static struct args args;
static struct error error;

static int parse(int argc, const char *const *words) {
    error = (struct error)ERROR_INIT;
    /* argv is not written to; its type is main's. */
    return args_parse(argc, (char **)(uintptr_t)words, &args, &error);
}
#define PARSE(...)                                                                                 \
    parse((int)(sizeof((const char *[]){"fleet", __VA_ARGS__}) / sizeof(char *)),                  \
          (const char *const[]){"fleet", __VA_ARGS__})

static void release(void) {
    args_release(&args);
}

TestSuite(cmd_option, .fini = release, .timeout = 10);

Test(cmd_option, reads_options_before_and_behind_the_command) {
    cr_assert_eq(PARSE("-i", "a.json", "update", "web1", "--tag=db", "--tag", "!old", "@x"), 0);
    cr_assert_str_eq(args.command->name, "update");
    cr_assert_str_eq(args_value(&args, OPTION_INVENTORY), "a.json");
    cr_assert_eq(args.word_count, 2);
    cr_assert_str_eq(args.words[1], "@x");
    size_t count;
    const char **tags = args_values(&args, OPTION_TAG, &count);
    cr_assert_eq(count, 2);
    cr_assert_str_eq(tags[0], "db");
    cr_assert_str_eq(tags[1], "!old");
    free(tags);
}

Test(cmd_option, joins_letters_and_takes_attached_values) {
    cr_assert_eq(PARSE("list", "-vvqia.json"), 0);
    cr_assert_eq(args_count(&args, OPTION_VERBOSE), 2);
    cr_assert_eq(args_count(&args, OPTION_QUIET), 1);
    cr_assert_str_eq(args_value(&args, OPTION_INVENTORY), "a.json");
}

Test(cmd_option, keeps_what_stands_behind_two_dashes_as_it_is) {
    cr_assert_eq(PARSE("exec", "@db", "--", "ls", "--tag", "-v"), 0);
    cr_assert_eq(args.word_count, 1);
    cr_assert_eq(args.rest_count, 3);
    cr_assert_str_eq(args.rest[1], "--tag");
    cr_assert_eq(args_count(&args, OPTION_VERBOSE), 0);
}

Test(cmd_option, the_last_value_wins) {
    cr_assert_eq(PARSE("update", "--parallel", "3", "--parallel=7", "--lock-timeout", "2m"), 0);
    cr_assert_eq(args_number(&args, OPTION_PARALLEL, 0), 7);
    cr_assert_eq(args_duration_ms(&args, OPTION_LOCK_TIMEOUT, 0), 120000);
    cr_assert_eq(args_number(&args, OPTION_LIMIT, 9), 9);
}

static void refuses(int code, const char *words) {
    cr_assert_eq(code, FLEET_ERR_USAGE);
    cr_assert(strstr(error.message, words) != NULL, "'%s' lacks '%s'", error.message, words);
    args_release(&args);
}

Test(cmd_option, names_the_nearest_spelling) {
    refuses(PARSE("updaet"), "did you mean 'update'?");
    refuses(PARSE("update", "--paralel", "3"), "did you mean --parallel?");
    refuses(PARSE("update", "--action=swich"), "did you mean switch?");
    refuses(PARSE("list", "--reach"), "unknown option --reach");
}

Test(cmd_option, refuses_values_that_are_none) {
    refuses(PARSE("update", "--parallel", "0"), "whole number");
    refuses(PARSE("update", "--parallel", "99999999999"), "whole number");
    refuses(PARSE("update", "--lock-timeout", "soon"), "duration");
    refuses(PARSE("update", "--tag"), "needs a value");
    refuses(PARSE("update", "--yes=no"), "takes no value");
    refuses(PARSE("list", "-x"), "unknown option -x");
}

Test(cmd_option, cleans_what_it_repeats) {
    refuses(PARSE("up\x1b[31mdate"), "unknown command 'update'");
}

/* Every option has a help text, a name of its own, and values described where it takes one. */
Test(cmd_option, the_table_is_whole) {
    for (enum option_id id = 0; id < OPTION_COUNT; id++) {
        const struct option_def *def = &option_defs[id];
        cr_assert_not_null(def->name, "option %d", id);
        cr_assert_not_null(def->help, "--%s", def->name);
        cr_assert_eq(def->kind == OPTION_IS_FLAG, def->value == NULL, "--%s", def->name);
        cr_assert_eq(def->kind == OPTION_IS_CHOICE, def->choices != NULL, "--%s", def->name);
        for (enum option_id other = 0; other < id; other++) {
            cr_assert_str_neq(def->name, option_defs[other].name);
            cr_assert(def->letter == 0 || def->letter != option_defs[other].letter);
        }
    }
}

Test(cmd_option, help_is_made_for_every_command_and_fits_80_columns) {
    for (size_t i = 0; i < command_count; i++) {
        struct buf out = BUF_INIT;
        help_command(&commands[i], &out);
        cr_assert_not_null(strstr(buf_text(&out), "Usage: fleet "));
        for (const char *line = buf_text(&out); *line != '\0';) {
            size_t len = strcspn(line, "\n");
            cr_assert_leq(len, 80, "%s: %.*s", commands[i].name, (int)len, line);
            line += len + (line[len] == '\n');
        }
        buf_free(&out);
    }
}
