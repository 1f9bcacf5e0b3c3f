/* Events as a story (see dashboard_story.h). */
#include "tui/dashboard_story.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "tui/screen.h"

/* With more hosts only what concerns more than one step of one host is told. */
#define SMALL_FLEET 40

static void add(struct model *model, size_t host, int64_t at_ms, unsigned style, char *text) {
    struct model_line *line = model_ring_add(&model->story);
    line->at_ms = at_ms;
    line->host = host;
    line->style = (uint8_t)style;
    line->text = text;
}

/* The first line of what came from outside. */
static void add_words(struct buf *out, const char *lead, const char *text) {
    if (text != NULL && text[0] != '\0') {
        buf_add_text(out, lead);
        text_clean(out, text, strcspn(text, "\n"), false);
    }
}

static void add_after(const struct view_host *host, enum host_state since, struct buf *out) {
    int64_t start = host->state_at_ms[since];
    if (start > 0 && host->since_ms >= start) {
        buf_add_text(out, " after ");
        text_add_duration(out, (unsigned long long)(host->since_ms - start));
    }
}

static void words_of_end(const struct view_host *host, struct buf *out) {
    if (host->state == HOST_HEALTHY) {
        buf_add_text(out, "healthy");
        add_after(host, HOST_ACTIVATING, out);
        if (host->generation > 0) {
            buf_printf(out, ", generation %lld", (long long)host->generation);
        }
    } else if (host->state == HOST_ROLLED_BACK) {
        buf_add_text(out, "back on what it ran before");
        if (host->first_generation > 0) {
            out->len = 0;
            buf_printf(out, "back on generation %lld", (long long)host->first_generation);
        }
    } else {
        buf_add_text(out, state_words(host->state)->word);
        add_words(out, ": ",
                  host->message != NULL && host->message[0] != '\0' ? host->message : host->reason);
    }
}

/* "" for a move that is no story. */
static void words_of_move(const struct view_host *host, const struct event *event,
                          struct buf *out) {
    if (host_state_is_end(event->to)) {
        words_of_end(host, out);
    } else if (event->to == HOST_ACTIVATING) {
        buf_add_text(out, "is being activated");
    } else if (event->to == HOST_CONFIRMING && event->has_from && event->from == HOST_ACTIVATING) {
        buf_add_text(out, "activated in ");
        text_add_duration(out, event->duration_ms);
    } else if (event->to == HOST_PROBING && event->has_from && event->from == HOST_CONFIRMING) {
        buf_add_text(out, "confirmed over a new connection");
    } else if (event->to == HOST_ROLLING_BACK) {
        buf_add_text(out, "goes back");
        add_words(out, ": ", event->message);
    } else if (event->to == HOST_REBOOTING) {
        buf_add_text(out, "reboots");
    }
}

static bool is_step(enum host_state state) {
    return state == HOST_ACTIVATING || state == HOST_CONFIRMING || state == HOST_PROBING;
}

/* Hosts that end alike in a row share a line. */
static bool merge(struct model *model, const struct event *event) {
    struct model_ring *story = &model->story;
    bool alike =
        event->to == HOST_UNCHANGED || event->to == HOST_SKIPPED || event->to == HOST_UNREACHABLE;
    if (!alike || story->count == 0) {
        return false;
    }
    struct model_line *last = &story->lines[(story->first + story->count - 1) % story->cap];
    if (last->state != event->to) {
        return false;
    }
    last->merged++;
    last->at_ms = event->ts_ms;
    if (last->merged == 1) {
        char *colon = strchr(last->text, ':');
        if (colon != NULL && event->to != HOST_SKIPPED) {
            *colon = '\0';
        }
    }
    return true;
}

static void tell_move(struct model *model, size_t number, const struct event *event,
                      const struct view *view) {
    if (number == MODEL_NONE || (is_step(event->to) && view->host_count > SMALL_FLEET) ||
        merge(model, event)) {
        return;
    }
    struct buf words = BUF_INIT;
    words_of_move(&view->hosts[number], event, &words);
    if (words.len > 0) {
        const struct state_words *state = state_words(event->to);
        unsigned style = host_state_is_end(event->to) || event->to == HOST_ROLLING_BACK
                             ? (unsigned)state->tone
                             : TONE_PLAIN;
        add(model, number, event->ts_ms, style == TONE_DIM ? TONE_PLAIN : style, buf_take(&words));
        struct model_ring *story = &model->story;
        story->lines[(story->first + story->count - 1) % story->cap].state = event->to;
    }
    buf_free(&words);
}

static const struct model_probe *known_probe(const struct model *model, size_t number,
                                             const char *name) {
    const struct model_host *host = &model->hosts[number];
    for (size_t i = 0; i < host->probe_count; i++) {
        if (strcmp(host->probes[i].name, name) == 0) {
            return &host->probes[i];
        }
    }
    return NULL;
}

/* A failure is told; a pass when it is the first, or the first again. */
static void tell_probe(struct model *model, size_t number, const struct event *event,
                       const struct view *view) {
    if (number == MODEL_NONE || event->name == NULL) {
        return;
    }
    const struct model_probe *known = known_probe(model, number, event->name);
    bool again = known != NULL && known->strip.count > 0 && !known->ok;
    bool first = known == NULL && view->host_count <= SMALL_FLEET;
    if (event->ok && !again && !first) {
        return;
    }
    struct buf words = BUF_INIT;
    add_words(&words, "", event->name);
    add_words(&words, ": ", event->detail);
    if (event->ok && again) {
        buf_add_text(&words, ", passes again");
    }
    add(model, number, event->ts_ms, event->ok ? TONE_PLAIN : TONE_WARN, buf_take(&words));
}

static void tell_log(struct model *model, size_t number, const struct event *event,
                     const struct view *view) {
    const char *stream = event->stream != NULL ? event->stream : "";
    bool person = strcmp(stream, "agent") == 0; /* has to do something */
    bool own = person || strcmp(stream, "fleet") == 0;
    bool units = view->host_count <= SMALL_FLEET && event->line != NULL &&
                 strstr(event->line, "ing the following units: ") != NULL;
    if (own || units) {
        struct buf words = BUF_INIT;
        add_words(&words, "", event->line);
        add(model, number, event->ts_ms,
            person ? STYLE_BOLD | TONE_WARN
            : own  ? STYLE_BOLD
                   : TONE_PLAIN,
            buf_take(&words));
    }
}

static void tell_wave(struct model *model, const struct event *event, const struct view *view) {
    size_t size = 0;
    for (size_t i = 0; i < view->host_count; i++) {
        size += view->hosts[i].wave == event->wave;
    }
    if (view->wave_count > 1) {
        add(model, MODEL_NONE, event->ts_ms, STYLE_BOLD,
            event->type == EVENT_WAVE_START
                ? xasprintf("wave %u of %u begins: %zu host%s", event->wave, view->wave_count, size,
                            size == 1 ? "" : "s")
                : xasprintf("wave %u of %u is done", event->wave, view->wave_count));
    }
}

static void tell_pause(struct model *model, const struct event *event) {
    struct buf words = BUF_INIT;
    if (event->reason != NULL && strcmp(event->reason, "bake") == 0) {
        buf_printf(&words, "wave %u bakes before it is probed again", event->wave);
    } else if (event->reason != NULL && strcmp(event->reason, "promote") == 0) {
        buf_add_text(&words, "the next wave waits for promotion");
    } else {
        buf_add_text(&words, "paused");
        add_words(&words, ": ", event->message);
    }
    add(model, MODEL_NONE, event->ts_ms, STYLE_BOLD | TONE_WARN, buf_take(&words));
}

void story_tell(struct model *model, size_t host, const struct event *event,
                const struct view *view) {
    switch (event->type) {
    case EVENT_HOST_STATE:
        tell_move(model, host, event, view);
        break;
    case EVENT_PROBE:
        tell_probe(model, host, event, view);
        break;
    case EVENT_LOG:
        tell_log(model, host, event, view);
        break;
    case EVENT_WAVE_START:
    case EVENT_WAVE_END:
        tell_wave(model, event, view);
        break;
    case EVENT_PAUSE:
        tell_pause(model, event);
        break;
    case EVENT_PROMOTE:
        add(model, MODEL_NONE, event->ts_ms, STYLE_BOLD, xstrdup("goes on"));
        break;
    case EVENT_RUN_START:
    case EVENT_BUILD:
    case EVENT_DERIVATION:
    case EVENT_CHANGE:
    case EVENT_GUARD:
    case EVENT_COPY:
    case EVENT_GRANT:
    case EVENT_RUN_END:
    case EVENT_TYPE_COUNT:
        break;
    }
}

void story_subject(const struct model_line *line, const struct view *view, struct buf *out) {
    if (line->merged > 0) {
        buf_printf(out, "%zu hosts", line->merged + 1);
    } else if (line->host < view->host_count) {
        buf_add_text(out, view->hosts[line->host].name);
    }
}
