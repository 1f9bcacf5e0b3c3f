#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/command.h"
#include "cmd/override.h"

/* What the command line's overrides come to, as JSON; or the error's message. */
static char *read_all(int argc, const char *const *words) {
    struct args args;
    struct error error = ERROR_INIT;
    struct override_set set = {0};
    cr_assert_eq(args_parse(argc, (char **)(uintptr_t)words, &args, &error), 0);
    int err = override_read(&args, &set, &error);
    char *text = err == 0 ? override_json(&set) : strdup(error.message);
    override_release(&set);
    args_release(&args);
    return text;
}
#define GIVES(expected, ...)                                                                       \
    do {                                                                                           \
        const char *const words[] = {"fleet", "update", __VA_ARGS__};                              \
        char *text = read_all((int)(sizeof(words) / sizeof(words[0])), words);                     \
        cr_assert_str_eq(text, expected);                                                          \
        free(text);                                                                                \
    } while (0)

TestSuite(cmd_override, .timeout = 10);

Test(cmd_override, short_forms_are_policy_fields) {
    GIVES("{\"max_parallel\":3}", "--parallel", "3");
    GIVES("{\"rollback\":false}", "--no-rollback");
    GIVES("{\"reboot\":\"if-needed\"}", "--reboot", "if-needed");
    GIVES("{\"waves\":[\"100%\"],\"min_healthy_time\":\"0s\"}", "--now");
}

Test(cmd_override, waves_are_counts_shares_and_tags) {
    GIVES("{\"waves\":[1,\"10%\",{\"tag\":\"web\"}]}", "--waves", "1,10%,@web");
    GIVES("{\"waves\":[2,\"50%\"]}", "--waves", "[2, \"50%\"]");
    GIVES("--waves: 'half' is no number, percentage or @tag, as in --waves 1,10%,100% or --waves "
          "@canary,100%",
          "--waves", "half");
}

Test(cmd_override, policy_takes_json_and_bare_words) {
    GIVES("{\"max_failed\":2,\"on_failure\":\"leave\",\"bake\":\"30s\"}", "--policy",
          "max_failed=2", "--policy", "on_failure=leave", "--policy", "bake=\"30s\"");
    GIVES("{\"max_failed\":\"10%\"}", "--policy", "max_failed=10%");
    GIVES("--policy 'bake' has no KEY=JSON, as in --policy max_failed=2", "--policy", "bake");
}

Test(cmd_override, a_later_one_wins) {
    GIVES("{\"min_healthy_time\":\"0s\",\"waves\":[1]}", "--now", "--waves", "1");
}

Test(cmd_override, none_is_an_empty_object) {
    GIVES("{}", "--yes");
}
