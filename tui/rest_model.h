/* What is known of a fleet at rest: the last look at each host, and what changed since the one
 * before. Private to tui/rest*.c; bounded; text is cleaned on the way in.
 */
#ifndef FLEET_TUI_REST_MODEL_H
#define FLEET_TUI_REST_MODEL_H

#include "core/survey.h"
#include "tui/dashboard_model.h"
#include "tui/wording.h"

enum rest_state {
    REST_ASKED, /* no answer yet */
    REST_IN_SYNC,
    REST_BUSY, /* a guard is at work there: an update is under way */
    REST_DRIFTED,
    REST_UNHEALTHY, /* in sync, but a probe fails */
    REST_FAILED,    /* reached, and could not be asked */
    REST_UNREACHABLE,
    REST_OFFLINE, /* the same of an optional host */
    REST_STATE_COUNT
};

struct rest_words {
    const char *word, *sign;
    enum tone tone;
    bool attention;
};
const struct rest_words *rest_words(enum rest_state state);

struct rest_probe {
    char *name, *detail;
    bool ok;
};

struct rest_host {
    const char *name, *login; /* borrowed */
    bool optional;
    enum rest_state state;
    int64_t since_ms;         /* in this state */
    int64_t looked_ms;        /* 0: never */
    struct model_strip looks; /* a look each: in sync and healthy */
    int64_t generation;       /* 0: not known */
    int64_t free_bytes;       /* negative: not known */
    char *current, *profile, *desired, *booted, *nix;
    char *rev, *who, *when, *run; /* of what was deployed last */
    bool dirty;
    char *notes; /* what is to be said, a line each, what matters most first; or NULL */
    char *units; /* failed ones, "a.service, b.service", or NULL */
    enum guard_phase guard;
    int64_t guard_until_ms; /* 0: it doesn't go back by itself */
    struct rest_probe *probes;
    size_t probe_count;
};

struct rest_model {
    struct rest_host *hosts;
    size_t host_count;
    int name_width; /* columns for a host's name in lines */
    size_t counts[REST_STATE_COUNT];
    struct model_ring story;
    size_t told; /* lines that the last look added to the story */
};

void rest_model_init(struct rest_model *model, const struct inv_host *const *hosts,
                     const char *const *logins, size_t count);
void rest_model_look(struct rest_model *model, const struct survey_look *look, int64_t now_ms);
void rest_model_release(struct rest_model *model);
/* The first line of the notes, or "". */
void rest_first_note(const struct rest_host *host, struct buf *out);

#endif
