/* Builds as a tree, and what an update changes in packages (see dashboard_model_build.h).
 *
 * A step's parent stands before it in the array, as Nix's list is told from what was asked for
 * down; what several hosts need stands under the first that named it. A derivation that is built at
 * two places, for hosts with build hosts of their own, is two steps.
 */
#include "tui/dashboard_model_build.h"

#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/name_index.h"

#define NAME_BYTES    300
#define LINE_BYTES    400
#define WAY_LINES     600
#define VERSION_BYTES 34u
#define STATES_LEN    STEP_STATE_COUNT

static char *cleaned(const char *text, size_t max) {
    return text != NULL && text[0] != '\0' ? text_cleaned(text, strnlen(text, max)) : NULL;
}

static void replace(char **slot, const char *text, size_t max) {
    free(*slot);
    *slot = cleaned(text, max);
}

/* ---- builds ---- */

static enum model_step_state step_state(const char *name) {
    static const char *const names[STATES_LEN] = {
        [STEP_IS_WAITING] = "waiting",   [STEP_IS_BUILDING] = "building",
        [STEP_IS_FETCHING] = "fetching", [STEP_IS_FAILED] = "failed",
        [STEP_IS_BUILT] = "built",       [STEP_IS_FETCHED] = "fetched",
    };
    int state = 0;
    while (state < STEP_STATE_COUNT && (name == NULL || strcmp(names[state], name) != 0)) {
        state++;
    }
    return (enum model_step_state)state;
}

static size_t find_step(const struct model *model, const char *drv) {
    if (model->step_index == NULL || drv == NULL) {
        return MODEL_NONE;
    }
    AUTO_FREE char *name = cleaned(drv, NAME_BYTES);
    size_t at = name != NULL ? name_index_find(model->step_index, name) : NAME_INDEX_NONE;
    return at != NAME_INDEX_NONE ? at : MODEL_NONE;
}

/* The one that this host's build has named, where there are several; else the first. */
static size_t find_step_of(const struct model *model, size_t host, const char *drv) {
    size_t first = find_step(model, drv);
    for (size_t at = first; at != MODEL_NONE; at = model->steps[at].same) {
        if (model->steps[at].host == host) {
            return at;
        }
    }
    return first;
}

/* Where it is built or fetched is known of both and differs: another host's build at another place. */
static bool is_elsewhere(const struct model_step *step, size_t host, const char *machine) {
    return step->machine != NULL && machine != NULL && step->host != host &&
           strcmp(step->machine, machine) != 0;
}

/* The step of that derivation at that place, made where it is new; NULL where there are too many. */
static struct model_step *obtain_step(struct model *model, size_t host, const struct event *event) {
    size_t first = find_step(model, event->drv);
    size_t last = MODEL_NONE;
    for (size_t at = first; at != MODEL_NONE; at = model->steps[at].same) {
        if (!is_elsewhere(&model->steps[at], host, event->machine)) {
            return &model->steps[at];
        }
        last = at;
    }
    if (model->step_count == MODEL_STEPS || event->drv == NULL || event->drv[0] == '\0') {
        return NULL;
    }
    if (model->steps == NULL) {
        model->steps = xcalloc(MODEL_STEPS, sizeof(*model->steps));
        model->step_index = name_index_new();
    }
    size_t parent = find_step_of(model, host, event->parent);
    struct model_step *step = &model->steps[model->step_count];
    *step = (struct model_step){.drv = cleaned(event->drv, NAME_BYTES),
                                .machine = cleaned(event->machine, NAME_BYTES),
                                .parent = parent,
                                .same = MODEL_NONE,
                                .host = host};
    if (last != MODEL_NONE) {
        model->steps[last].same = model->step_count++;
    } else {
        name_index_add(model->step_index, step->drv, model->step_count++);
    }
    return step;
}

static void apply_step(struct model *model, size_t host, const struct event *event) {
    enum model_step_state state = step_state(event->state);
    struct model_step *step = state != STEP_STATE_COUNT ? obtain_step(model, host, event) : NULL;
    /* Another host's list says again that it is waited for. */
    if (step == NULL || (state == STEP_IS_WAITING && step->state != STEP_IS_WAITING)) {
        return;
    }
    bool runs = state == STEP_IS_BUILDING || state == STEP_IS_FETCHING;
    if (runs && (step->began_ms == 0 || step->state != state)) {
        step->began_ms = event->ts_ms;
        step->ended_ms = 0;
        replace(&step->last_line, NULL, 0);
    }
    if (!runs && state != STEP_IS_WAITING) {
        step->ended_ms = event->ts_ms;
    }
    step->state = state;
    replace(&step->phase, event->phase, NAME_BYTES);
    if (event->machine != NULL) {
        replace(&step->machine, event->machine, NAME_BYTES);
    }
}

static bool is_below(const struct model *model, size_t at, size_t top) {
    while (at != MODEL_NONE && at != top) {
        at = model->steps[at].parent;
    }
    return at == top;
}

/* A host's system is built: what it still waited for was built for another, or came from a cache. */
static void apply_built(struct model *model, size_t host, const struct event *event) {
    size_t top = find_step_of(model, host, event->drv);
    for (size_t i = 0; top != MODEL_NONE && i < model->step_count; i++) {
        struct model_step *step = &model->steps[i];
        if (step->state < STEP_IS_FAILED && is_below(model, i, top)) {
            step->state = STEP_IS_BUILT;
            step->ended_ms = step->began_ms > 0 ? event->ts_ms : 0;
        }
    }
}

void model_apply_build(struct model *model, size_t number, const struct event *event) {
    if (event->type == EVENT_DERIVATION) {
        apply_step(model, number, event);
    } else if (event->type == EVENT_LOG && event->drv != NULL) {
        size_t at = find_step_of(model, number, event->drv);
        if (at != MODEL_NONE) {
            replace(&model->steps[at].last_line, event->line, LINE_BYTES);
        }
    } else if (event->type == EVENT_BUILD && event->state != NULL &&
               strcmp(event->state, "built") == 0) {
        apply_built(model, number, event);
    }
}

void model_release_builds(struct model *model) {
    for (size_t i = 0; i < model->step_count; i++) {
        free(model->steps[i].drv);
        free(model->steps[i].phase);
        free(model->steps[i].machine);
        free(model->steps[i].last_line);
    }
    free(model->steps);
    name_index_free(model->step_index);
}

/* ---- packages ---- */

static const cJSON *member(const cJSON *object, const char *name) {
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

static void add_clean(struct buf *out, const char *text) {
    text_clean(out, text, strnlen(text, NAME_BYTES), false);
}

static const char *text_of(const cJSON *item) {
    return cJSON_IsString(item) ? item->valuestring : "?";
}

static size_t add_names(const cJSON *list, const char *sign, struct buf *out) {
    const cJSON *item;
    size_t count = 0;
    cJSON_ArrayForEach(item, list) {
        if (count++ < WAY_LINES) {
            buf_printf(out, "%s ", sign);
            add_clean(out, text_of(item));
            buf_add_char(out, '\n');
        }
    }
    return count;
}

/* A package that is there in many versions names them all: its line shall still show both sides. */
static void add_version(struct buf *out, const char *text) {
    size_t len = strnlen(text, VERSION_BYTES + 1);
    if (len <= VERSION_BYTES) {
        add_clean(out, text);
    } else {
        text_clean(out, text, VERSION_BYTES - 3, false);
        buf_add_text(out, "…");
    }
}

static size_t add_changed(const cJSON *list, struct buf *out) {
    const cJSON *item;
    size_t count = 0;
    cJSON_ArrayForEach(item, list) {
        if (count++ < WAY_LINES) {
            add_clean(out, text_of(member(item, "name")));
            buf_add_char(out, ' ');
            add_version(out, text_of(member(item, "from")));
            buf_add_text(out, " → ");
            add_version(out, text_of(member(item, "to")));
            buf_add_char(out, '\n');
        }
    }
    return count;
}

static uint64_t size_of(const cJSON *item) {
    bool fits = cJSON_IsNumber(item) && item->valuedouble >= 0 && item->valuedouble < 9e15;
    return fits ? (uint64_t)item->valuedouble : 0;
}

void model_apply_way(struct model *model, const struct event *event) {
    cJSON *packages = event->packages != NULL ? cJSON_Parse(event->packages) : NULL;
    cJSON *bytes = event->closure_bytes != NULL ? cJSON_Parse(event->closure_bytes) : NULL;
    if (packages != NULL && model->way_count < MODEL_WAYS && event->current != NULL &&
        event->desired != NULL) {
        struct model_way *way = &model->ways[model->way_count++];
        struct buf lines = BUF_INIT;
        *way = (struct model_way){.current = cleaned(event->current, NAME_BYTES),
                                  .desired = cleaned(event->desired, NAME_BYTES)};
        way->changed = add_changed(member(packages, "changed"), &lines);
        way->added = add_names(member(packages, "added"), "+", &lines);
        way->removed = add_names(member(packages, "removed"), "-", &lines);
        way->left_out = size_of(member(packages, "more"));
        way->packages = buf_take(&lines);
        way->bytes_from = size_of(member(bytes, "from"));
        way->bytes_to = size_of(member(bytes, "to"));
    }
    cJSON_Delete(packages);
    cJSON_Delete(bytes);
}

const struct model_way *model_way_of(const struct model *model, const struct view_host *host) {
    for (size_t i = 0; i < model->way_count; i++) {
        const struct model_way *way = &model->ways[i];
        if (host->first_current != NULL && host->desired != NULL && way->current != NULL &&
            way->desired != NULL && strcmp(way->current, host->first_current) == 0 &&
            strcmp(way->desired, host->desired) == 0) {
            return way;
        }
    }
    return NULL;
}

void model_release_ways(struct model *model) {
    for (size_t i = 0; i < model->way_count; i++) {
        free(model->ways[i].current);
        free(model->ways[i].desired);
        free(model->ways[i].packages);
    }
}
