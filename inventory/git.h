/* The Git state of the folder that an inventory lies in, through libgit2.
 */
#ifndef FLEET_INVENTORY_GIT_H
#define FLEET_INVENTORY_GIT_H

#include <stdbool.h>

#include "core/base/error.h"

struct git_state {
    bool in_repository;
    char rev[41];  /* full hex, "" before the first commit */
    bool dirty;    /* tracked files changed, staged or not, or untracked files not ignored */
    char tree[41]; /* id of HEAD's tree */
};

/* 0 (in_repository false outside one), or FLEET_ERR_SYSTEM. Reads only. */
int git_state_read(const char *dir, struct git_state *ret, struct error *error);

/* What the working tree around `dir` holds, as one id: HEAD's tree with every file that isn't as HEAD
 * has it, ignored ones left out. True with the id and the working tree's folder, which ends in '/' (a
 * new string); false outside a repository, and where more has changed than is worth reading. */
bool git_tree_identity(const char *dir, char ret_id[41], char **ret_root);

#endif
