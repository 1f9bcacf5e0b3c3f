/* What a target's nix-store says on stderr, and what its end means.
 *
 * The serve protocol has no errors of its own: the process prints a line and ends (NIX-PROTOCOL
 * 2.5). Lines come plain or, where the caller asked for --log-format internal-json, as "@nix {...}".
 */
#ifndef FLEET_TRANSPORT_COPY_WORDS_H
#define FLEET_TRANSPORT_COPY_WORDS_H

#include <stdbool.h>

#include "core/base/buf.h"
#include "core/base/error.h"

/* Zero-initialised is valid. */
struct copy_words {
    struct buf line;  /* not ended yet */
    struct buf error; /* from the last error line on, else the last lines */
    bool has_error;
    bool waits_for_gc; /* said last that it waits for the garbage collector; reset by the owner */
};

typedef void (*copy_words_line)(const char *line, size_t len, void *arg);

/* `on_line` gets each line worth showing to a person; it may be NULL. */
void copy_words_feed(struct copy_words *words, const char *data, size_t len,
                     copy_words_line on_line, void *arg);
void copy_words_clear(struct copy_words *words);
void copy_words_free(struct copy_words *words);

/* Records why the process ended with `status` (-1: by a signal), while it dealt with `path` (NULL:
 * before any). `greeted`: it was a nix-store. */
void copy_words_explain(struct copy_words *words, const char *command, bool greeted, int status,
                        const char *path, struct error *error);

#endif
