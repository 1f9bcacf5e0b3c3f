/* Where runs lie on disk. Private to core/journal*.c.
 */
#ifndef FLEET_CORE_JOURNAL_DIR_H
#define FLEET_CORE_JOURNAL_DIR_H

#include "core/journal.h"

/* STATE/runs/ID, or a file in it; the caller frees. */
char *journal_dir_path(const char *state_dir, const char *run_id, const char *file);
/* Makes STATE and STATE/runs where they are missing (0700), and STATE/runs/ID, which must be new. */
int journal_dir_make(const char *state_dir, const char *run_id, struct error *error);
/* Puts the names in `path` on disk: a file that was synced is lost with its folder's entry. */
int journal_dir_sync(const char *path, struct error *error);
/* The one run that `part` (or, NULL, being the latest) means; the caller frees. */
int journal_dir_find(const char *state_dir, const char *part, char **ret_id, struct error *error);

#endif
