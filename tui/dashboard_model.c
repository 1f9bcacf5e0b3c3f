/* Folding events into the dashboard's memory (see dashboard_model.h). */
#include "tui/dashboard_model.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "tui/dashboard_model_build.h"
#include "tui/dashboard_story.h"

#define LINE_BYTES  1000
#define UNITS_BYTES 4000
/* A rate is measured over so long, so that it doesn't flicker. */
#define RATE_MS 900

static char *cleaned(const char *text) {
    return text_cleaned(text, strnlen(text, LINE_BYTES));
}

static void replace(char **slot, const char *text) {
    free(*slot);
    *slot = text != NULL && text[0] != '\0' ? cleaned(text) : NULL;
}

void model_init(struct model *model) {
    *model = (struct model){.story = {.cap = MODEL_STORY}, .log = {.cap = MODEL_LOG}};
}

static void clear_line(struct model_line *line) {
    free(line->stream);
    free(line->text);
}

struct model_line *model_ring_add(struct model_ring *ring) {
    if (ring->lines == NULL) {
        ring->lines = xcalloc(ring->cap, sizeof(*ring->lines));
    }
    struct model_line *line = &ring->lines[(ring->first + ring->count) % ring->cap];
    if (ring->count == ring->cap) {
        clear_line(line);
        ring->first = (ring->first + 1) % ring->cap;
    } else {
        ring->count++;
    }
    ring->total++;
    *line = (struct model_line){.host = MODEL_NONE, .state = HOST_STATE_COUNT};
    return line;
}

const struct model_line *model_line(const struct model_ring *ring, size_t index) {
    return &ring->lines[(ring->first + index) % ring->cap];
}

void model_ring_release(struct model_ring *ring) {
    for (size_t i = 0; i < ring->count; i++) {
        clear_line(&ring->lines[(ring->first + i) % ring->cap]);
    }
    free(ring->lines);
}

void model_release(struct model *model) {
    for (size_t i = 0; i < model->host_count; i++) {
        struct model_host *host = &model->hosts[i];
        for (size_t j = 0; j < host->probe_count; j++) {
            free(host->probes[j].name);
            free(host->probes[j].detail);
        }
        for (size_t j = 0; j < MODEL_MOVES; j++) {
            free(host->moves[j].message);
        }
        free(host->last_line);
        free(host->units);
        free(host->build_state);
        free(host->drv);
        free(host->guard);
    }
    model_release_builds(model);
    model_release_ways(model);
    free(model->hosts);
    model_ring_release(&model->story);
    model_ring_release(&model->log);
    *model = (struct model){0};
}

static void grow(struct model *model, size_t count) {
    if (count > model->host_count) {
        model->hosts = xrealloc(model->hosts, count * sizeof(*model->hosts));
        memset(model->hosts + model->host_count, 0,
               (count - model->host_count) * sizeof(*model->hosts));
        model->host_count = count;
    }
}

const struct model_move *model_move(const struct model_host *host, size_t index) {
    size_t kept = host->move_count < MODEL_MOVES ? host->move_count : MODEL_MOVES;
    return index < kept ? &host->moves[(host->move_count - kept + index) % MODEL_MOVES] : NULL;
}

static void strip_add(struct model_strip *strip, bool ok) {
    strip->passed = strip->passed << 1 | ok;
    strip->count += strip->count < MODEL_STRIP;
}

/* A round is over when one of its probes answers again. It passes when all of it does. */
static void round_add(struct model_host *host, size_t probe, bool ok) {
    unsigned bit = 1u << probe;
    if (host->round == 0 || (host->round & bit) != 0) {
        strip_add(&host->strip, ok);
        host->round = bit;
    } else {
        host->strip.passed &= ~UINT64_C(1) | ok;
        host->round |= bit;
    }
}

static void apply_move(struct model_host *host, const struct event *event) {
    struct model_move *move = &host->moves[host->move_count++ % MODEL_MOVES];
    move->state = event->to;
    move->at_ms = event->ts_ms;
    replace(&move->message, event->message);
    replace(&host->last_line, NULL);
    if (event->to == HOST_ACTIVATING) {
        /* A new version: what was found out about the old one says nothing of it. */
        host->strip = (struct model_strip){0};
        host->round = 0;
        replace(&host->units, NULL);
        replace(&host->guard, NULL);
        host->guard_until_ms = 0;
    }
    if (event->to == HOST_PROBING) {
        host->passing_since_ms = 0;
    }
}

static struct model_probe *probe_of(struct model_host *host, const char *name) {
    for (size_t i = 0; i < host->probe_count; i++) {
        if (strcmp(host->probes[i].name, name) == 0) {
            return &host->probes[i];
        }
    }
    if (host->probe_count < MODEL_PROBES) {
        struct model_probe *probe = &host->probes[host->probe_count++];
        probe->name = cleaned(name);
        return probe;
    }
    return &host->probes[MODEL_PROBES - 1];
}

static void apply_probe(struct model_host *host, const struct event *event) {
    struct model_probe *probe = probe_of(host, event->name != NULL ? event->name : "probe");
    probe->ok = event->ok;
    probe->failures = event->ok ? 0 : probe->failures + 1;
    probe->at_ms = event->ts_ms;
    replace(&probe->detail, event->detail);
    strip_add(&probe->strip, event->ok);
    round_add(host, (size_t)(probe - host->probes), event->ok);
    bool all = true;
    for (size_t i = 0; i < host->probe_count; i++) {
        all = all && host->probes[i].ok;
    }
    if (!all) {
        host->passing_since_ms = 0;
    } else if (host->passing_since_ms == 0) {
        host->passing_since_ms = event->ts_ms;
    }
}

static void apply_copy(struct model_host *host, const struct event *event) {
    int64_t apart_ms = event->ts_ms - host->rated_ms;
    if (event->bytes_done < host->rated_bytes || host->rated_ms == 0) {
        host->rate = 0;
    } else if (apart_ms < RATE_MS) {
        return;
    } else {
        host->rate = (event->bytes_done - host->rated_bytes) * 1000 / (uint64_t)apart_ms;
    }
    host->rated_bytes = event->bytes_done;
    host->rated_ms = event->ts_ms;
}

static bool is_about_units(const char *line) {
    return strstr(line, " the following units: ") != NULL;
}

static void apply_guard(struct model_host *host, const struct event *event) {
    replace(&host->guard, event->phase);
    host->guard_until_ms = event->deadline_ms > 0 ? event->ts_ms + event->deadline_ms : 0;
}

static void apply_log(struct model *model, struct model_host *host, size_t number,
                      const struct event *event) {
    struct model_line *line = model_ring_add(&model->log);
    line->at_ms = event->ts_ms;
    line->host = number;
    line->stream = cleaned(event->stream != NULL ? event->stream : "");
    line->text = cleaned(event->line != NULL ? event->line : "");
    if (host == NULL) {
        return;
    }
    replace(&host->last_line, line->text);
    if (is_about_units(line->text) && (host->units == NULL || strlen(host->units) < UNITS_BYTES)) {
        char *units = host->units != NULL ? xasprintf("%s\n%s", host->units, line->text)
                                          : xstrdup(line->text);
        free(host->units);
        host->units = units;
    }
}

void model_apply(struct model *model, const struct event *event, const struct view *view) {
    grow(model, view->host_count);
    model->last_ms = event->ts_ms > model->last_ms ? event->ts_ms : model->last_ms;
    const struct view_host *entry = event->host != NULL ? view_host(view, event->host) : NULL;
    size_t number = entry != NULL ? (size_t)(entry - view->hosts) : MODEL_NONE;
    struct model_host *host = entry != NULL ? &model->hosts[number] : NULL;
    /* The story tells a change by what was before. */
    story_tell(model, number, event, view);
    model_apply_build(model, number, event);
    if (event->type == EVENT_LOG) {
        apply_log(model, host, number, event);
    } else if (event->type == EVENT_CHANGE) {
        model_apply_way(model, event);
    } else if (host == NULL) {
        return;
    } else if (event->type == EVENT_GUARD) {
        apply_guard(host, event);
    } else if (event->type == EVENT_HOST_STATE) {
        apply_move(host, event);
    } else if (event->type == EVENT_PROBE) {
        apply_probe(host, event);
    } else if (event->type == EVENT_COPY) {
        apply_copy(host, event);
    } else if (event->type == EVENT_BUILD) {
        replace(&host->build_state, event->state);
        if (event->drv != NULL && event->drv[0] != '\0') {
            replace(&host->drv, event->drv);
        }
    }
}

/* How long a host's change took that went well, on average; 0: none has yet. */
static int64_t usual_ms(const struct view *view, size_t *ret_at_once) {
    int64_t sum = 0;
    int64_t done = 0;
    size_t active = 0;
    for (size_t i = 0; i < view->host_count; i++) {
        const struct view_host *host = &view->hosts[i];
        int64_t start = host->state_at_ms[HOST_ACTIVATING];
        if (host->state == HOST_HEALTHY && start > 0) {
            sum += host->state_at_ms[HOST_HEALTHY] - start;
            done++;
        }
        active += host->state >= HOST_ACTIVATING && host->state <= HOST_ROLLING_BACK;
    }
    *ret_at_once = active > 0 ? active : 1;
    return done > 0 ? sum / done : 0;
}

int64_t model_remaining_ms(const struct view *view, int64_t now_ms) {
    size_t at_once;
    int64_t usual = usual_ms(view, &at_once);
    if (usual <= 0) {
        return -1;
    }
    size_t to_come = 0;
    int64_t longest = 0;
    for (size_t i = 0; i < view->host_count; i++) {
        const struct view_host *host = &view->hosts[i];
        if (host->state < HOST_ACTIVATING) {
            to_come++;
        } else if (host->state <= HOST_ROLLING_BACK) {
            int64_t left = usual - (now_ms - host->state_at_ms[HOST_ACTIVATING]);
            longest = left > longest ? left : longest;
        }
    }
    return longest + (int64_t)((to_come + at_once - 1) / at_once) * usual;
}
