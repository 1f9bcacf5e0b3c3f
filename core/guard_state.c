/* The guard's state line, `PHASE NONCE KEY=VALUE...`, as target/guard.sh writes it. */
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "core/target.h"

static const char *const phase_names[] = {
    [GUARD_NONE] = "none",           [GUARD_ACTIVATING] = "activating",
    [GUARD_ACTIVE] = "active",       [GUARD_COMMITTING] = "committing",
    [GUARD_COMMITTED] = "committed", [GUARD_REVERTING] = "reverting",
    [GUARD_REVERTED] = "reverted",   [GUARD_REVERT_FAILED] = "revert-failed",
    [GUARD_INERT] = "inert",
};
_Static_assert(ARRAY_LEN(phase_names) == GUARD_INERT + 1, "one name a phase");

const char *guard_phase_name(enum guard_phase phase) {
    return phase_names[phase];
}

const char *guard_stuck_words(const struct guard_state *state) {
    static const struct {
        const char *word, *meaning;
    } words[] = {
        {"room", "/run or a disk is full there"},
        {"lock", "another switch-to-configuration holds NixOS's lock there"},
        {"systemd", "systemd does not answer there"},
    };
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (strcmp(state->stuck, words[i].word) == 0) {
            return words[i].meaning;
        }
    }
    return NULL;
}

void guard_state_words(const struct guard_state *state, struct buf *out) {
    buf_add_text(out, guard_phase_name(state->phase));
    if (state->phase == GUARD_REVERTING && state->tries > 1) {
        const char *stuck = guard_stuck_words(state);
        buf_printf(out, ", try %d%s%s", state->tries, stuck != NULL ? ": " : "",
                   stuck != NULL ? stuck : "");
    }
}

/* Copies one word, cut to the room there is. */
static void copy_word(char *to, size_t room, const char *word, size_t len) {
    if (len >= room) {
        len = room - 1;
    }
    memcpy(to, word, len);
    to[len] = '\0';
}

static bool word_is(const char *word, size_t len, const char *name) {
    return strlen(name) == len && memcmp(word, name, len) == 0;
}

static int read_number(const char *word, size_t len) {
    char digits[12];
    copy_word(digits, sizeof(digits), word, len);
    return (int)strtol(digits, NULL, 10);
}

static void read_field(struct guard_state *state, const char *word, size_t len) {
    const char *equals = memchr(word, '=', len);
    if (equals == NULL) {
        return;
    }
    size_t name_len = (size_t)(equals - word);
    const char *value = equals + 1;
    size_t value_len = len - name_len - 1;
    if (word_is(word, name_len, "rc")) {
        state->rc = read_number(value, value_len);
    } else if (word_is(word, name_len, "back_rc")) {
        state->back_rc = read_number(value, value_len);
    } else if (word_is(word, name_len, "try")) {
        state->tries = read_number(value, value_len);
    } else if (word_is(word, name_len, "stuck")) {
        copy_word(state->stuck, sizeof(state->stuck), value, value_len);
    } else if (word_is(word, name_len, "why")) {
        copy_word(state->why, sizeof(state->why), value, value_len);
    } else if (word_is(word, name_len, "fault")) {
        copy_word(state->fault, sizeof(state->fault), value, value_len);
    } else if (word_is(word, name_len, "failed")) {
        copy_word(state->failed, sizeof(state->failed), value, value_len);
    }
}

static enum guard_phase phase_of(const char *word, size_t len) {
    for (size_t i = GUARD_ACTIVATING; i < ARRAY_LEN(phase_names); i++) {
        if (word_is(word, len, phase_names[i])) {
            return (enum guard_phase)i;
        }
    }
    return GUARD_NONE;
}

void guard_state_parse(const char *line, struct guard_state *ret) {
    struct guard_state state = {.phase = GUARD_NONE, .rc = -1, .back_rc = -1, .tries = 1};
    *ret = state;
    if (line == NULL) {
        return;
    }
    size_t len = strcspn(line, " ");
    state.phase = phase_of(line, len);
    const char *at = line + len + strspn(line + len, " ");
    len = strcspn(at, " ");
    if (state.phase == GUARD_NONE || len == 0 || len >= sizeof(state.nonce)) {
        return;
    }
    copy_word(state.nonce, sizeof(state.nonce), at, len);
    for (at += len; *at != '\0'; at += len) {
        at += strspn(at, " ");
        len = strcspn(at, " ");
        read_field(&state, at, len);
    }
    *ret = state;
}
