/* Against repositories that the real git makes. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "inventory/git.h"

static char folder[] = "/tmp/fleet-git-XXXXXX";

static void make_folder(void) {
    cr_assert_not_null(mkdtemp(folder));
}

static void remove_folder(void) {
    AUTO_FREE char *command = xasprintf("/bin/rm -rf %s", folder);
    cr_assert_eq(system(command), 0);
}

TestSuite(git, .init = make_folder, .fini = remove_folder);

/* Runs a shell line in the folder, with an identity of its own. */
static void run(const char *line) {
    AUTO_FREE char *command =
        xasprintf("cd %s && export HOME=%s GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a "
                  "GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b && { %s; } "
                  ">/dev/null 2>&1",
                  folder, folder, line);
    cr_assert_eq(system(command), 0, "%s", line);
}

static struct git_state state_of(const char *sub) {
    AUTO_FREE char *dir = xasprintf("%s/%s", folder, sub);
    struct git_state state;
    struct error error = ERROR_INIT;
    cr_assert_eq(git_state_read(dir, &state, &error), 0, "%s", error.message);
    return state;
}

static void commit_all(void) {
    run("git init -q repo && mkdir repo/sub && echo a > repo/sub/f && echo ignored > "
        "repo/.gitignore "
        "&& cd repo && git add . && git commit -q -m x && git rev-parse HEAD > ../rev && git "
        "rev-parse 'HEAD^{tree}' > ../tree");
}

static void expect_file(const char *name, const char *wanted) {
    AUTO_FREE char *path = xasprintf("%s/%s", folder, name);
    char text[64] = "";
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file);
    cr_assert_not_null(fgets(text, sizeof(text), file));
    fclose(file);
    text[strcspn(text, "\n")] = '\0';
    cr_assert_str_eq(wanted, text);
}

Test(git, says_that_a_folder_is_in_no_repository) {
    struct git_state state = state_of("");
    cr_assert_not(state.in_repository);
    cr_assert_str_eq(state.rev, "");
    cr_assert_not(state.dirty);
}

Test(git, reads_revision_and_tree_from_below_the_root) {
    commit_all();
    struct git_state state = state_of("repo/sub");
    cr_assert(state.in_repository);
    cr_assert_not(state.dirty);
    expect_file("rev", state.rev);
    expect_file("tree", state.tree);
}

Test(git, knows_a_repository_before_its_first_commit) {
    run("git init -q repo");
    struct git_state state = state_of("repo");
    cr_assert(state.in_repository);
    cr_assert_str_eq(state.rev, "");
    cr_assert_not(state.dirty);
}

Test(git, calls_changed_staged_and_new_files_dirty_and_ignored_ones_not) {
    commit_all();
    run("touch repo/ignored");
    cr_assert_not(state_of("repo").dirty);
    run("touch repo/new");
    cr_assert(state_of("repo").dirty);
    run("rm repo/new && echo b > repo/sub/f");
    cr_assert(state_of("repo").dirty);
    run("cd repo && git add sub/f");
    cr_assert(state_of("repo").dirty);
    run("cd repo && git reset -q --hard && git rm -q sub/f");
    cr_assert(state_of("repo").dirty);
}

Test(git, reads_a_detached_head_and_a_linked_work_tree) {
    commit_all();
    run("cd repo && git checkout -q --detach && git worktree add -q ../linked");
    struct git_state state = state_of("linked");
    cr_assert(state.in_repository);
    expect_file("rev", state.rev);
}

Test(git, reads_a_repository_of_another_owner) {
    if (geteuid() != 0) {
        cr_skip_test("needs root to give a folder away");
    }
    commit_all();
    run("chown -R 12345:12345 repo");
    struct git_state state = state_of("repo");
    cr_assert(state.in_repository);
    expect_file("rev", state.rev);
}

Test(git, names_the_folder_of_a_broken_repository) {
    commit_all();
    run("echo nonsense > repo/.git/HEAD");
    AUTO_FREE char *dir = xasprintf("%s/repo", folder);
    struct git_state state = {.rev = "kept"};
    struct error error = ERROR_INIT;
    cr_assert_eq(git_state_read(dir, &state, &error), FLEET_ERR_SYSTEM);
    cr_assert_not_null(strstr(error.message, dir), "%s", error.message);
    cr_assert_str_eq(state.rev, "kept");
}

Test(git, changes_nothing) {
    commit_all();
    run("sleep 0.01; touch repo/sub/f; find repo -type f -newermt 2000-01-01 -printf '%p %T@\\n' | "
        "sort > before");
    state_of("repo");
    run("find repo -type f -newermt 2000-01-01 -printf '%p %T@\\n' | sort | cmp - before");
}
