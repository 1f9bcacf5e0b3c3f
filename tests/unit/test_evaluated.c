/* Evaluations that are remembered for as long as the tree is the one that they were made of. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "core/evaluated.h"

#define SYSTEM "/nix/store/7z7y2q0b1n5d3l8x9v4k6s2h1m0c3w5r-system"
#define OTHER  "/nix/store/0z7y2q0b1n5d3l8x9v4k6s2h1m0c3w5r-system"

static char folder[] = "/tmp/fleet-evaluated-XXXXXX";
static char *state_dir;
static struct inventory *inventory;

/* Runs a shell line in the folder, with an identity of its own. */
static void run(const char *line) {
    AUTO_FREE char *command =
        xasprintf("cd %s && export HOME=%s GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a "
                  "GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b && { %s; } "
                  ">/dev/null 2>&1",
                  folder, folder, line);
    cr_assert_eq(system(command), 0, "%s", line);
}

static void load(void) {
    AUTO_FREE char *path = xasprintf("%s/repo/fleet.json", folder);
    struct inv_errors errors;
    struct error error = ERROR_INIT;
    inventory_free(inventory);
    inventory = NULL;
    cr_assert_eq(inventory_load(path, NULL, 0, &inventory, &errors, &error), 0);
}

/* A repository with a host whose system it decides, one of a file beside it, one of a path. */
static void init(void) {
    cr_assert_not_null(mkdtemp(folder));
    state_dir = xasprintf("%s/state", folder);
    run("mkdir state && git init -q repo && cd repo && echo 1 >default.nix && cat >fleet.json "
        "<<'E'\n"
        "{\"version\":1,\"hosts\":{\n"
        "\"inside\":{\"system\":{\"file\":\"default.nix\",\"attr\":\"a\"}},\n"
        "\"outside\":{\"system\":{\"file\":\"../other.nix\",\"attr\":\"a\"}},\n"
        "\"fixed\":{\"system\":{\"path\":\"" SYSTEM "\"}}}}\nE\n"
        "git add . && git commit -q -m x");
    load();
}

static void fini(void) {
    AUTO_FREE char *command = xasprintf("rm -rf %s", folder);
    cr_expect_eq(system(command), 0);
    inventory_free(inventory);
    auto_free(&state_dir);
}
TestSuite(evaluated, .init = init, .fini = fini);

static void note(const char *host, const char *path) {
    struct evaluated *evaluated = evaluated_open(state_dir, inventory);
    cr_assert_not_null(evaluated);
    evaluated_note(evaluated, inventory_host(inventory, host), path);
    evaluated_close(evaluated);
}

static void expect(const char *host, const char *path) {
    struct evaluated *evaluated = evaluated_open(state_dir, inventory);
    cr_assert_not_null(evaluated);
    const char *found = evaluated_path(evaluated, inventory_host(inventory, host));
    cr_expect_eq(found == NULL, path == NULL, "%s: %s", host, found != NULL ? found : "none");
    if (found != NULL && path != NULL) {
        cr_expect_str_eq(found, path);
    }
    evaluated_close(evaluated);
}

Test(evaluated, is_remembered_until_the_tree_changes) {
    expect("inside", NULL);
    note("inside", SYSTEM);
    expect("inside", SYSTEM);
    note("inside", OTHER);
    expect("inside", OTHER);
    run("cd repo && echo 2 >default.nix");
    expect("inside", NULL);
    run("cd repo && echo 1 >default.nix");
    expect("inside", OTHER);
}

Test(evaluated, another_text_of_the_inventory_is_another_tree) {
    note("inside", SYSTEM);
    run("cd repo && echo '// new' >>fleet.json");
    load();
    expect("inside", NULL);
}

Test(evaluated, what_the_tree_does_not_decide_is_not_remembered) {
    note("outside", SYSTEM);
    expect("outside", NULL);
    note("fixed", SYSTEM);
    expect("fixed", NULL);
    note("inside", "/etc/passwd");
    expect("inside", NULL);
}

Test(evaluated, a_damaged_file_is_no_answer) {
    note("inside", SYSTEM);
    run("for f in state/evaluated/*; do printf 'inside\\ninside /etc\\nnobody " SYSTEM
        "\\n\\377\\n' >$f; done");
    expect("inside", NULL);
}

Test(evaluated, without_a_repository_there_is_nothing_to_go_by) {
    run("mv repo/.git gone");
    cr_expect_null(evaluated_open(state_dir, inventory));
    evaluated_note(NULL, inventory_host(inventory, "inside"), SYSTEM);
    evaluated_close(NULL);
}
