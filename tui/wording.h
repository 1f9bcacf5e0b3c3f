/* How people's output calls things: states, actions, counts, hosts. Private to tui; no state.
 *
 * Text that came from a host is cleaned here or has been cleaned by the view.
 */
#ifndef FLEET_TUI_WORDING_H
#define FLEET_TUI_WORDING_H

#include "core/base/buf.h"
#include "core/view.h"

/* How much a state is a person's business. */
enum tone {
    TONE_PLAIN,
    TONE_GOOD,
    TONE_WARN,
    TONE_BAD,
    TONE_DIM
};

struct state_words {
    const char *word; /* "rolled back" */
    const char *sign; /* one cell */
    enum tone tone;
    bool attention; /* an end that a person must look at: stands first in the summary */
};
const struct state_words *state_words(enum host_state state);

/* The sequence that begins a tone on a terminal, "" where `color` is false; and what ends it. */
const char *tone_begin(enum tone tone, bool color);
const char *tone_end(enum tone tone, bool color);

/* "2 healthy, 1 rolled back, 3 waiting": all states that occur, in the pipeline's order. */
void wording_counts(const struct view *view, struct buf *out);
/* "a1b2c3d*", or "the new version" where the tree has no revision. */
void wording_revision(const struct view *view, struct buf *out);
/* The last part of a run's id, enough for a person to name it. */
const char *wording_short_run(const char *run);
/* "linux-6.1.55" of "/nix/store/HASH-linux-6.1.55.drv". */
void wording_store_name(const char *path, struct buf *out);
/* "00:58". */
void wording_elapsed(int64_t ms, struct buf *out);
/* The line to look for oneself, "ssh -p 2222 root@10.0.0.13", from `[user@]host[:port]`; nothing
 * where the host has no address. */
void wording_ssh(const struct view_host *host, struct buf *out);
/* The same of the address itself. */
void wording_ssh_line(const char *address, struct buf *out);
/* True where two hosts' words for a failure tell of one and the same: one derivation that was not
 * built, or the same words but for where the whole log is. */
bool wording_is_same_failure(const char *a, const char *b);
/* True where this end is what the run's action was to reach. */
bool wording_is_success(const struct view *view, enum host_state state);

#endif
