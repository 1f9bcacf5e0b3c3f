/* libgit2 runs nothing that a repository names (no hooks, no fsmonitor, no external filters), so
 * reading one that belongs to somebody else is safe, and usual: root deploys from a person's
 * checkout. Its check of the owner is therefore turned off; Git itself, when Nix runs it, keeps its
 * own.
 */
#include "inventory/git.h"

#include <git2.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"

#define CHANGED_MAX       2000u
#define CHANGED_BYTES_MAX (32u * 1024u * 1024u)

/* Records libgit2's own words. */
static int refuse(struct error *error, const char *dir, const char *what) {
    const git_error *last = git_error_last();
    return error_set(error, FLEET_ERR_SYSTEM, "git", "cannot %s of %s: %s", what, dir,
                     last != NULL && last->message != NULL ? last->message
                                                           : "libgit2 says no more");
}

static int on_status(const char *path, unsigned flags, void *payload) {
    bool *dirty = payload;
    (void)path;
    (void)flags;
    *dirty = true;
    return GIT_EUSER;
}

/* 0, or libgit2's code. Stops at the first file that isn't as HEAD has it. */
static int read_dirty(git_repository *repository, bool *ret) {
    git_status_options options;
    git_status_options_init(&options, GIT_STATUS_OPTIONS_VERSION);
    options.show = GIT_STATUS_SHOW_INDEX_AND_WORKDIR;
    options.flags = GIT_STATUS_OPT_INCLUDE_UNTRACKED;
    if (git_repository_is_bare(repository)) {
        return 0;
    }
    int code = git_status_foreach_ext(repository, &options, on_status, ret);
    return code == GIT_EUSER ? 0 : code;
}

/* HEAD's commit and its tree. 0 also before the first commit. */
static int read_head(git_repository *repository, struct git_state *ret) {
    git_reference *head = NULL;
    git_object *commit = NULL;
    int code = git_repository_head(&head, repository);
    if (code == GIT_EUNBORNBRANCH || code == GIT_ENOTFOUND) {
        return 0;
    }
    if (code == 0) {
        code = git_reference_peel(&commit, head, GIT_OBJECT_COMMIT);
    }
    if (code == 0) {
        git_oid_tostr(ret->rev, sizeof(ret->rev), git_object_id(commit));
        /* A git_commit is a git_object; libgit2 has no accessor from the one to the other. */
        git_oid_tostr(ret->tree, sizeof(ret->tree),
                      git_commit_tree_id((const git_commit *)(const void *)commit));
    }
    git_object_free(commit);
    git_reference_free(head);
    return code;
}

int git_state_read(const char *dir, struct git_state *ret, struct error *error) {
    struct git_state state = {0};
    git_repository *repository = NULL;
    if (git_libgit2_init() < 0) {
        return refuse(error, dir, "start libgit2 to read the Git state");
    }
    git_libgit2_opts(GIT_OPT_SET_OWNER_VALIDATION, 0);
    int code = git_repository_open_ext(&repository, dir, 0, NULL);
    if (code == GIT_ENOTFOUND) {
        code = 0;
    } else if (code != 0) {
        code = refuse(error, dir, "open the Git repository");
    } else {
        state.in_repository = true;
        if (read_head(repository, &state) != 0) {
            code = refuse(error, dir, "read the Git revision");
        } else if (read_dirty(repository, &state.dirty) != 0) {
            code = refuse(error, dir, "read the Git status");
        }
    }
    git_repository_free(repository);
    git_libgit2_shutdown();
    if (code == 0) {
        *ret = state;
    }
    return code;
}

/* Appends what the file is now: type, mode and the id of its content. False: not worth reading. */
static bool add_file(struct buf *out, const char *root, const char *path, size_t *bytes) {
    char *full = xasprintf("%s%s", root, path);
    char text[PATH_MAX] = "gone";
    struct stat info;
    git_oid oid;
    bool ok = true;
    if (lstat(full, &info) != 0) {
        info.st_mode = 0;
    } else if (S_ISLNK(info.st_mode)) {
        ssize_t got = readlink(full, text, sizeof(text) - 1);
        text[got > 0 ? got : 0] = '\0';
    } else {
        ok = S_ISREG(info.st_mode) && (size_t)info.st_size <= CHANGED_BYTES_MAX - *bytes &&
             git_odb_hashfile(&oid, full, GIT_OBJECT_BLOB) == 0;
        if (ok) {
            *bytes += (size_t)info.st_size;
            git_oid_tostr(text, GIT_OID_HEXSZ + 1, &oid);
        }
    }
    buf_printf(out, "%o %s %s\n", (unsigned)info.st_mode, text, path);
    auto_free(&full);
    return ok;
}

static bool add_changes(git_repository *repository, const char *root, struct buf *out) {
    git_status_options options;
    git_status_options_init(&options, GIT_STATUS_OPTIONS_VERSION);
    options.show = GIT_STATUS_SHOW_INDEX_AND_WORKDIR;
    options.flags = GIT_STATUS_OPT_INCLUDE_UNTRACKED | GIT_STATUS_OPT_RECURSE_UNTRACKED_DIRS;
    git_status_list *list = NULL;
    if (git_status_list_new(&list, repository, &options) != 0) {
        return false;
    }
    size_t count = git_status_list_entrycount(list);
    size_t bytes = 0;
    bool ok = count <= CHANGED_MAX;
    for (size_t i = 0; ok && i < count; i++) {
        const git_status_entry *entry = git_status_byindex(list, i);
        const git_diff_delta *delta =
            entry->index_to_workdir != NULL ? entry->index_to_workdir : entry->head_to_index;
        ok = add_file(out, root, delta->new_file.path, &bytes);
    }
    git_status_list_free(list);
    return ok;
}

bool git_tree_identity(const char *dir, char ret_id[41], char **ret_root) {
    git_repository *repository = NULL;
    struct git_state state = {0};
    struct buf text = BUF_INIT;
    git_oid oid;
    if (git_libgit2_init() < 0) {
        return false;
    }
    git_libgit2_opts(GIT_OPT_SET_OWNER_VALIDATION, 0);
    bool ok = git_repository_open_ext(&repository, dir, 0, NULL) == 0;
    const char *root = ok ? git_repository_workdir(repository) : NULL;
    ok = root != NULL && read_head(repository, &state) == 0;
    if (ok) {
        buf_printf(&text, "%s\n", state.tree);
        ok = add_changes(repository, root, &text) &&
             git_odb_hash(&oid, buf_text(&text), text.len, GIT_OBJECT_BLOB) == 0;
    }
    if (ok) {
        git_oid_tostr(ret_id, GIT_OID_HEXSZ + 1, &oid);
        *ret_root = xstrdup(root);
    }
    buf_free(&text);
    git_repository_free(repository);
    git_libgit2_shutdown();
    return ok;
}
