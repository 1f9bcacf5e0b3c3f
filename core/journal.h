/* The journal: every event of a run as a line of STATE/runs/ID/journal.jsonl, the truth on disk.
 *
 * Grants are synced (fdatasync) before they take effect; other events are written at once and
 * synced with the next grant or the end. One writer thread: the coordinator.
 */
#ifndef FLEET_CORE_JOURNAL_H
#define FLEET_CORE_JOURNAL_H

#include "core/event.h"

struct journal;

/* "20261122-170400-x7k2q9": UTC time and six random characters; at most 32, [a-z0-9-]. */
#define RUN_ID_SIZE 33
void run_id_new(int64_t wall_ms, char ret_id[RUN_ID_SIZE]);
bool run_id_is_valid(const char *text);

/* $XDG_STATE_HOME/fleet or ~/.local/state/fleet; caller frees. */
int state_dir_default(char **ret, struct error *error);

/* Makes STATE/runs/ID (0700) and the journal, holds it by a lock for the life of the run (so that
 * others see it is alive), and checks that there is room. FLEET_ERR_SYSTEM says what to do. */
int journal_create(const char *state_dir, const char *run_id, struct journal **ret,
                   struct error *error);
/* Takes up an existing one, by its whole id, for appending (resume): FLEET_ERR_LOCKED when the run
 * is alive. Truncates a torn last line. */
int journal_reopen(const char *state_dir, const char *run_id, struct journal **ret,
                   struct error *error);
/* Appends; with `sync` returns only when it is on disk. After an error nothing may be granted any
 * more: the message says what to do. A line that could not be written whole is taken away again. */
int journal_append(struct journal *journal, const struct event *event, bool sync,
                   struct error *error);
/* What its syncs have cost so far. */
struct journal_cost {
    uint64_t syncs;
    uint64_t total_us, longest_us;
};
struct journal_cost journal_cost(const struct journal *journal);
/* FLEET_ERR_SYSTEM, "journal-gone": the file was removed, so that nothing that is written remains.
 * Each synced append looks, too. */
int journal_check(const struct journal *journal, struct error *error);
/* The run's folder, for full command output. */
const char *journal_dir(const struct journal *journal);
void journal_close(struct journal *journal);

struct journal_reader;
/* Opens a run's journal for reading; `run_id` may be any unique end or part of an id, or NULL: the
 * latest run. *ret_id (caller frees) is the whole id. */
int journal_open(const char *state_dir, const char *run_id, struct journal_reader **ret,
                 char **ret_id, struct error *error);
/* The next event, which the caller frees. 1: one; 0: none now (the end, or a torn line that may
 * still be completed); negative: an error ("journal-damaged"; "journal-newer": from here on a fleet
 * wrote it whose events this one can't read). Kinds of event that it doesn't know are passed over. */
int journal_next(struct journal_reader *reader, struct event **ret, struct error *error);
/* True while the process that runs it lives. */
bool journal_is_live(const struct journal_reader *reader);
void journal_reader_close(struct journal_reader *reader);

/* All runs' ids, newest first; caller frees each and the array. */
int journal_list(const char *state_dir, char ***ret, size_t *ret_count, struct error *error);

#endif
