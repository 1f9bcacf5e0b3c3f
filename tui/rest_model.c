/* Folding looks into what is known of a fleet at rest (see rest_model.h). */
#include "tui/rest_model.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "tui/dashboard_story.h"
#include "tui/screen.h"

#define TEXT_BYTES  400
#define UNITS_SHOWN 12
#define PROBES_MAX  32
#define NAME_MOST   24

static const struct rest_words words[] = {
    [REST_ASKED] = {"asking", "◌", TONE_DIM, false},
    [REST_IN_SYNC] = {"in sync", "✓", TONE_GOOD, false},
    [REST_BUSY] = {"updating", "●", TONE_WARN, false},
    [REST_DRIFTED] = {"drifted", "≠", TONE_WARN, true},
    [REST_UNHEALTHY] = {"unhealthy", "✗", TONE_BAD, true},
    [REST_FAILED] = {"failed", "✗", TONE_BAD, true},
    [REST_UNREACHABLE] = {"unreachable", "?", TONE_BAD, true},
    [REST_OFFLINE] = {"offline", "-", TONE_DIM, false},
};
_Static_assert(ARRAY_LEN(words) == REST_STATE_COUNT, "words for every state");

const struct rest_words *rest_words(enum rest_state state) {
    return &words[state];
}

static char *cleaned(const char *text) {
    return text != NULL && text[0] != '\0' ? text_cleaned(text, strnlen(text, TEXT_BYTES)) : NULL;
}

static void replace(char **slot, const char *text) {
    free(*slot);
    *slot = cleaned(text);
}

void rest_model_init(struct rest_model *model, const struct inv_host *const *hosts,
                     const char *const *logins, size_t count) {
    *model = (struct rest_model){.host_count = count, .story = {.cap = MODEL_STORY}};
    model->hosts = xcalloc(count + 1, sizeof(*model->hosts));
    for (size_t i = 0; i < count; i++) {
        model->hosts[i] = (struct rest_host){.name = hosts[i]->name,
                                             .login = logins[i],
                                             .optional = hosts[i]->optional,
                                             .free_bytes = -1};
        int width = (int)text_width(hosts[i]->name);
        model->name_width = width > model->name_width ? width : model->name_width;
    }
    model->name_width = model->name_width < NAME_MOST ? model->name_width : NAME_MOST;
    model->counts[REST_ASKED] = count;
}

static void release_probes(struct rest_host *host) {
    for (size_t i = 0; i < host->probe_count; i++) {
        free(host->probes[i].name);
        free(host->probes[i].detail);
    }
    free(host->probes);
    host->probes = NULL;
    host->probe_count = 0;
}

void rest_model_release(struct rest_model *model) {
    for (size_t i = 0; i < model->host_count; i++) {
        struct rest_host *host = &model->hosts[i];
        char *const owned[] = {host->current, host->profile, host->desired, host->booted,
                               host->nix,     host->rev,     host->who,     host->when,
                               host->run,     host->notes,   host->units};
        for (size_t j = 0; j < ARRAY_LEN(owned); j++) {
            free(owned[j]);
        }
        release_probes(host);
    }
    free(model->hosts);
    model_ring_release(&model->story);
    *model = (struct rest_model){0};
}

void rest_first_note(const struct rest_host *host, struct buf *out) {
    if (host->notes != NULL) {
        buf_add(out, host->notes, strcspn(host->notes, "\n"));
    }
}

/* ---- what a look says ---- */

static void note(struct buf *notes, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void note(struct buf *notes, const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *text = xvasprintf(format, args);
    va_end(args);
    char *clean = cleaned(text);
    if (clean != NULL) {
        buf_printf(notes, "%s%s", notes->len > 0 ? "\n" : "", clean);
    }
    free(clean);
    free(text);
}

static void take_units(struct rest_host *host, const struct target_reply *reply) {
    struct buf units = BUF_INIT;
    const char *unit;
    size_t count = 0;
    for (; (unit = target_reply_nth(reply, "failed", count)) != NULL; count++) {
        if (count < UNITS_SHOWN) {
            buf_printf(&units, "%s%s", count > 0 ? ", " : "", unit);
        }
    }
    if (count > UNITS_SHOWN) {
        buf_printf(&units, " and %zu more", count - UNITS_SHOWN);
    }
    replace(&host->units, buf_text(&units));
    buf_free(&units);
}

static void take_probes(struct rest_host *host, const struct status_answer *answer) {
    release_probes(host);
    size_t count = answer->probe_count < PROBES_MAX ? answer->probe_count : PROBES_MAX;
    host->probes = xcalloc(count + 1, sizeof(*host->probes));
    for (size_t i = 0; i < count; i++) {
        host->probes[i] = (struct rest_probe){.name = cleaned(answer->probes[i].name),
                                              .detail = cleaned(answer->probes[i].detail),
                                              .ok = answer->probes[i].ok};
    }
    host->probe_count = count;
}

static void take_facts(struct rest_host *host, const struct status_answer *answer, int64_t now_ms) {
    const struct status *status = &answer->status;
    replace(&host->current, status->current);
    replace(&host->profile, status->profile);
    replace(&host->booted, status->booted);
    replace(&host->desired, status->desired);
    replace(&host->nix, status->nix);
    replace(&host->rev, status->deployed.rev);
    replace(&host->who, status->deployed.who);
    replace(&host->when, status->deployed.when);
    replace(&host->run, status->deployed.run);
    host->dirty = status->deployed.dirty;
    host->generation = status->generation;
    host->free_bytes = status->free_bytes;
    host->guard = status->guard;
    host->guard_until_ms =
        status->guard_deadline_s >= 0 ? now_ms + status->guard_deadline_s * 1000 : 0;
    take_units(host, answer->reply);
    take_probes(host, answer);
}

static void write_notes(struct rest_host *host, const struct status_answer *answer) {
    const struct status *status = &answer->status;
    struct buf notes = BUF_INIT;
    if (status->guard != GUARD_NONE) {
        struct buf said = BUF_INIT;
        guard_state_words(&status->guard_says, &said);
        note(&notes, "an update is under way: its guard is %s", buf_text(&said));
        buf_free(&said);
    }
    for (enum drift drift = 0; drift < DRIFT_COUNT; drift++) {
        if (status->drift[drift] && drift != DRIFT_GUARD_ACTIVE) {
            note(&notes, "%s", drift_words(drift));
        }
    }
    for (size_t i = 0; i < answer->probe_count; i++) {
        if (!answer->probes[i].ok) {
            note(&notes, "%s: %s", answer->probes[i].name, answer->probes[i].detail);
        }
    }
    if (host->units != NULL) {
        note(&notes, "failed units: %s", host->units);
    }
    if (status->reboot_needed) {
        note(&notes, "booted another kernel than its profile has: a reboot is due");
    }
    if (status->lock_id != NULL && status->lock_expires_s >= 0) {
        note(&notes, "held by %s, run %s", status->lock_who, status->lock_run);
    }
    free(host->notes);
    host->notes = notes.len > 0 ? buf_take(&notes) : NULL;
    buf_free(&notes);
}

static enum rest_state state_of(const struct rest_host *host, const struct survey_look *look) {
    if (look->answer == NULL) {
        return look->connected ? REST_FAILED : host->optional ? REST_OFFLINE : REST_UNREACHABLE;
    }
    const struct status *status = &look->answer->status;
    return status->guard != GUARD_NONE ? REST_BUSY
           : !status->in_sync          ? REST_DRIFTED
           : !look->answer->healthy    ? REST_UNHEALTHY
                                       : REST_IN_SYNC;
}

/* ---- what has changed ---- */

static void tell(struct rest_model *model, size_t host, int64_t now_ms, unsigned style,
                 char *text) {
    struct model_line *line = model_ring_add(&model->story);
    line->host = host;
    line->at_ms = now_ms;
    line->style = (uint8_t)style;
    line->text = text;
    model->told++;
}

static bool is_away(enum rest_state state) {
    return state == REST_UNREACHABLE || state == REST_OFFLINE || state == REST_FAILED;
}

static void tell_state(struct rest_model *model, size_t number, enum rest_state before,
                       int64_t now_ms) {
    const struct rest_host *host = &model->hosts[number];
    bool away = is_away(before) && !is_away(host->state);
    struct buf text = BUF_INIT;
    buf_printf(&text, "%s%s", away ? "answers again: " : "", words[host->state].word);
    if (host->notes != NULL && host->state != REST_IN_SYNC) {
        buf_add_text(&text, ": ");
        rest_first_note(host, &text);
    }
    enum tone tone = words[host->state].tone;
    tell(model, number, now_ms, tone == TONE_DIM ? TONE_PLAIN : (unsigned)tone, buf_take(&text));
}

static void tell_generation(struct rest_model *model, size_t number, int64_t before,
                            int64_t now_ms) {
    const struct rest_host *host = &model->hosts[number];
    struct buf text = BUF_INIT;
    buf_printf(&text, "generation %lld → %lld", (long long)before, (long long)host->generation);
    if (host->who != NULL) {
        buf_printf(&text, ", by %s", host->who);
    }
    tell(model, number, now_ms, STYLE_BOLD, buf_take(&text));
}

void rest_model_look(struct rest_model *model, const struct survey_look *look, int64_t now_ms) {
    struct rest_host *host = &model->hosts[look->host];
    bool first = host->looked_ms == 0;
    enum rest_state before = host->state;
    int64_t generation = host->generation;
    char *units = host->units != NULL ? xstrdup(host->units) : NULL;
    model->told = 0;
    host->looked_ms = now_ms;
    host->state = state_of(host, look);
    if (look->answer != NULL) {
        take_facts(host, look->answer, now_ms);
        write_notes(host, look->answer);
    } else {
        replace(&host->notes, look->error->message);
        host->guard = GUARD_NONE;
    }
    model->counts[before]--;
    model->counts[host->state]++;
    /* One that is being updated, or may be away, is neither well nor ill. */
    if (host->state != REST_BUSY && host->state != REST_OFFLINE) {
        host->looks.passed = host->looks.passed << 1 | (host->state == REST_IN_SYNC);
        host->looks.count += host->looks.count < MODEL_STRIP;
    }
    if (first || before != host->state) {
        host->since_ms = now_ms;
    }
    if (before != host->state && (!first || host->state != REST_IN_SYNC)) {
        tell_state(model, look->host, before, now_ms);
    }
    if (look->answer != NULL && generation > 0 && host->generation > 0 &&
        generation != host->generation) {
        tell_generation(model, look->host, generation, now_ms);
    }
    bool failed = look->answer != NULL && host->units != NULL &&
                  (units == NULL || strcmp(units, host->units) != 0);
    if (failed && !first) {
        tell(model, look->host, now_ms, TONE_WARN, xasprintf("failed units: %s", host->units));
    } else if (look->answer != NULL && host->units == NULL && units != NULL) {
        tell(model, look->host, now_ms, TONE_PLAIN, xstrdup("no unit has failed any more"));
    }
    free(units);
}
