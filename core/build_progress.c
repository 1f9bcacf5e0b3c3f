/* Reading Nix's internal-json log (see build_progress.h). */
#include "core/build_progress.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"
#include "core/name_index.h"
#include "transport/closure.h"

#define MARK "@nix "
/* More derivations than that are told without what needs them: reading them takes too long. */
#define TREE_MAX 512
/* Activities and derivations that are told apart; a build that has more is told in part. */
#define ACTIVITIES_MAX 256
#define STEPS_MAX      4000
#define DRV_BYTES_MAX  (1u << 20)
#define PHASE_MAX      60
#define LINE_MAX_BYTES 4096u
#define INFO_LEVEL     3

/* logging.hh */
enum {
    ACTIVITY_COPY_PATH = 100,
    ACTIVITY_BUILD = 105,
    RESULT_LINE = 101,
    RESULT_PHASE = 104,
    RESULT_POST_BUILD_LINE = 107
};

struct activity {
    uint64_t id; /* 0: free */
    int type;
    char *drv, *machine;
    bool failed;
};

struct build_progress {
    struct build_progress_handlers handlers;
    void *arg;
    struct activity activities[ACTIVITIES_MAX];
    size_t steps; /* that were told */
    bool refused;
    bool listing; /* lines of "these 3 derivations will be built:" follow */
    char **waiting;
    size_t waiting_count;
};

static char *copied(const char *text) {
    return text != NULL ? xstrdup(text) : NULL;
}

void build_step_tell(const struct build_step *step, struct event *ret_event) {
    static const char *const names[] = {
        [BUILD_STEP_WAITING] = "waiting",   [BUILD_STEP_BUILDING] = "building",
        [BUILD_STEP_BUILT] = "built",       [BUILD_STEP_FAILED] = "failed",
        [BUILD_STEP_FETCHING] = "fetching", [BUILD_STEP_FETCHED] = "fetched",
    };
    ret_event->state = xstrdup(names[step->state]);
    ret_event->drv = copied(step->drv);
    ret_event->parent = copied(step->parent);
    ret_event->phase = copied(step->phase);
    ret_event->machine = copied(step->machine);
}

struct build_progress *build_progress_new(const struct build_progress_handlers *handlers,
                                          void *arg) {
    struct build_progress *progress = xcalloc(1, sizeof(*progress));
    progress->handlers = *handlers;
    progress->arg = arg;
    return progress;
}

static void clear_activity(struct activity *activity) {
    auto_free(&activity->drv);
    auto_free(&activity->machine);
    *activity = (struct activity){0};
}

static void clear_waiting(struct build_progress *progress) {
    for (size_t i = 0; i < progress->waiting_count; i++) {
        auto_free(&progress->waiting[i]);
    }
    auto_free(&progress->waiting);
    progress->waiting = NULL;
    progress->waiting_count = 0;
    progress->listing = false;
}

void build_progress_free(struct build_progress *progress) {
    if (progress == NULL) {
        return;
    }
    for (size_t i = 0; i < ACTIVITIES_MAX; i++) {
        clear_activity(&progress->activities[i]);
    }
    clear_waiting(progress);
    auto_free(&progress);
}

bool build_progress_is_refused(const struct build_progress *progress) {
    return progress->refused;
}

static void tell_step(struct build_progress *progress, const struct build_step *step) {
    if (progress->steps < STEPS_MAX && progress->handlers.on_step != NULL) {
        progress->steps++;
        progress->handlers.on_step(step, progress->arg);
    }
}

static void tell_text(struct build_progress *progress, const char *text, const char *drv) {
    do {
        size_t len = strcspn(text, "\n");
        bool whole = len <= LINE_MAX_BYTES;
        len = whole ? len : LINE_MAX_BYTES;
        progress->handlers.on_line(text, len, drv, progress->arg);
        text += len + (whole && text[len] == '\n' ? 1 : 0);
    } while (*text != '\0');
}

/* ---- which derivation needs which ---- */

/* The .drv file as text, or NULL. The caller frees. */
static char *read_drv(const char *path) {
    FILE *file = store_path_is_valid(path) ? fopen(path, "re") : NULL;
    if (file == NULL) {
        return NULL;
    }
    char *text = xcalloc(1, DRV_BYTES_MAX + 1);
    size_t len = fread(text, 1, DRV_BYTES_MAX, file);
    text[len] = '\0';
    fclose(file);
    return text;
}

/* Calls `each` with every input of `Derive([outputs],[("/nix/store/x.drv",["out"]),...],...`: the
 * strings that end in .drv, up to the end of the second list. Store paths hold no escapes. */
static void each_input(const char *text, void (*each)(const char *drv, size_t len, void *arg),
                       void *arg) {
    int lists = 0;
    int depth = 0;
    for (const char *at = strchr(text, '('); at != NULL && *at != '\0'; at++) {
        if (*at == '"') {
            const char *begin = at + 1;
            for (at = begin; *at != '\0' && *at != '"';
                 at += *at == '\\' && at[1] != '\0' ? 2 : 1) {
            }
            size_t len = (size_t)(at - begin);
            if (lists == 1 && len > 4 && memcmp(begin + len - 4, ".drv", 4) == 0) {
                each(begin, len, arg);
            }
            if (*at == '\0') {
                return;
            }
        } else if (*at == '[') {
            depth++;
        } else if (*at == ']' && --depth == 0 && ++lists == 2) {
            return;
        }
    }
}

struct tree {
    struct name_index *index; /* of the waiting ones */
    size_t *parents;          /* SIZE_MAX: none known */
    size_t at;
};

static void take_input(const char *drv, size_t len, void *arg) {
    struct tree *tree = arg;
    AUTO_FREE char *name = xstrndup(drv, len);
    size_t found = name_index_find(tree->index, name);
    if (found != NAME_INDEX_NONE && found != tree->at && tree->parents[found] == SIZE_MAX) {
        tree->parents[found] = tree->at;
    }
}

/* Nix lists them in the order of their needs, what was asked for last: from there on down, each gets
 * for parent the first that needs it. */
static void find_parents(const struct build_progress *progress, size_t *parents) {
    struct tree tree = {.index = name_index_new(), .parents = parents};
    for (size_t i = 0; i < progress->waiting_count; i++) {
        parents[i] = SIZE_MAX;
        name_index_add(tree.index, progress->waiting[i], i);
    }
    for (size_t i = progress->waiting_count; i > 0 && progress->waiting_count <= TREE_MAX; i--) {
        char *text = read_drv(progress->waiting[i - 1]);
        tree.at = i - 1;
        if (text != NULL) {
            each_input(text, take_input, &tree);
        }
        auto_free(&text);
    }
    name_index_free(tree.index);
}

/* The list is complete: what is to be built, from what was asked for down. */
static void tell_waiting(struct build_progress *progress) {
    size_t *parents = xcalloc(progress->waiting_count + 1, sizeof(*parents));
    find_parents(progress, parents);
    for (size_t i = progress->waiting_count; i > 0; i--) {
        struct build_step step = {.state = BUILD_STEP_WAITING, .drv = progress->waiting[i - 1]};
        if (parents[i - 1] != SIZE_MAX) {
            step.parent = progress->waiting[parents[i - 1]];
        }
        tell_step(progress, &step);
    }
    auto_free(&parents);
    clear_waiting(progress);
}

static bool ends(const char *text, const char *with) {
    size_t len = strlen(text);
    size_t tail = strlen(with);
    return len >= tail && strcmp(text + len - tail, with) == 0;
}

/* A message that may begin, continue or end the list of what will be built. */
static void take_list(struct build_progress *progress, const char *message) {
    if (progress->listing && strncmp(message, "  /", 3) == 0 && ends(message, ".drv")) {
        if (progress->waiting_count < STEPS_MAX) {
            progress->waiting =
                xrealloc(progress->waiting, (progress->waiting_count + 1) * sizeof(char *));
            progress->waiting[progress->waiting_count++] = xstrdup(message + 2);
        }
        return;
    }
    if (progress->listing) {
        tell_waiting(progress);
    }
    progress->listing = ends(message, "will be built:");
}

/* ---- activities ---- */

static const cJSON *member(const cJSON *object, const char *name) {
    return cJSON_GetObjectItemCaseSensitive(object, name);
}

static const char *text_of(const cJSON *item) {
    return cJSON_IsString(item) ? item->valuestring : "";
}

static int number_of(const cJSON *item) {
    return cJSON_IsNumber(item) ? item->valueint : -1;
}

/* Ids fit into a double's whole numbers: a process's number and a count. */
static uint64_t id_of(const cJSON *object) {
    const cJSON *id = member(object, "id");
    bool fits = cJSON_IsNumber(id) && id->valuedouble >= 1 && id->valuedouble < 9e15;
    return fits ? (uint64_t)id->valuedouble : 0;
}

static struct activity *find(struct build_progress *progress, uint64_t id) {
    for (size_t i = 0; i < ACTIVITIES_MAX; i++) {
        if (progress->activities[i].id == id) {
            return &progress->activities[i];
        }
    }
    return NULL;
}

static void tell_activity(struct build_progress *progress, const struct activity *activity,
                          enum build_step_state state, const char *phase) {
    struct build_step step = {
        .state = state, .drv = activity->drv, .phase = phase, .machine = activity->machine};
    tell_step(progress, &step);
}

static void start(struct build_progress *progress, const cJSON *object) {
    int type = number_of(member(object, "type"));
    const cJSON *fields = member(object, "fields");
    const char *what = text_of(cJSON_GetArrayItem(fields, 0));
    uint64_t id = id_of(object);
    const char *text = text_of(member(object, "text"));
    if (number_of(member(object, "level")) <= INFO_LEVEL && text[0] != '\0') {
        AUTO_FREE char *line = xasprintf("%s...", text);
        tell_text(progress, line, type == ACTIVITY_BUILD ? what : NULL);
    }
    struct activity *activity = find(progress, 0);
    if ((type != ACTIVITY_BUILD && type != ACTIVITY_COPY_PATH) || what[0] == '\0' || id == 0 ||
        activity == NULL) {
        return;
    }
    const char *machine = type == ACTIVITY_BUILD ? text_of(cJSON_GetArrayItem(fields, 1)) : "";
    *activity = (struct activity){.id = id,
                                  .type = type,
                                  .drv = xstrdup(what),
                                  .machine = machine[0] != '\0' ? xstrdup(machine) : NULL};
    tell_activity(progress, activity,
                  type == ACTIVITY_BUILD ? BUILD_STEP_BUILDING : BUILD_STEP_FETCHING, NULL);
}

static void stop(struct build_progress *progress, const cJSON *object) {
    uint64_t id = id_of(object);
    struct activity *activity = id != 0 ? find(progress, id) : NULL;
    if (activity != NULL) {
        tell_activity(progress, activity,
                      activity->failed                   ? BUILD_STEP_FAILED
                      : activity->type == ACTIVITY_BUILD ? BUILD_STEP_BUILT
                                                         : BUILD_STEP_FETCHED,
                      NULL);
        clear_activity(activity);
    }
}

static void result(struct build_progress *progress, const cJSON *object) {
    int type = number_of(member(object, "type"));
    const char *text = text_of(cJSON_GetArrayItem(member(object, "fields"), 0));
    uint64_t id = id_of(object);
    const struct activity *activity = id != 0 ? find(progress, id) : NULL;
    if (type == RESULT_LINE || type == RESULT_POST_BUILD_LINE) {
        tell_text(progress, text, activity != NULL ? activity->drv : NULL);
    } else if (type == RESULT_PHASE && activity != NULL) {
        AUTO_FREE char *phase = xstrndup(text, PHASE_MAX);
        tell_activity(progress, activity, BUILD_STEP_BUILDING, phase);
    }
}

/* "builder for '/nix/store/...drv' failed with exit code 1": said before that build stops. */
static void note_failure(struct build_progress *progress, const char *message) {
    for (size_t i = 0; i < ACTIVITIES_MAX && strstr(message, "fail") != NULL; i++) {
        struct activity *activity = &progress->activities[i];
        if (activity->id != 0 && strstr(message, activity->drv) != NULL) {
            activity->failed = true;
        }
    }
}

static void message(struct build_progress *progress, const cJSON *object) {
    int level = number_of(member(object, "level"));
    const char *text = text_of(member(object, "msg"));
    if (level > INFO_LEVEL || text[0] == '\0') {
        return;
    }
    take_list(progress, text);
    if (level == 0) {
        note_failure(progress, text);
    }
    tell_text(progress, text, NULL);
}

static bool take_object(struct build_progress *progress, const char *text, size_t len) {
    cJSON *object = cJSON_ParseWithLength(text, len);
    if (!cJSON_IsObject(object)) {
        cJSON_Delete(object);
        return false;
    }
    const char *action = text_of(member(object, "action"));
    if (strcmp(action, "msg") == 0) {
        message(progress, object);
    } else {
        if (progress->listing) {
            tell_waiting(progress);
        }
        if (strcmp(action, "start") == 0) {
            start(progress, object);
        } else if (strcmp(action, "stop") == 0) {
            stop(progress, object);
        } else if (strcmp(action, "result") == 0) {
            result(progress, object);
        }
    }
    cJSON_Delete(object);
    return true;
}

void build_progress_line(struct build_progress *progress, const char *line, size_t len) {
    size_t mark = sizeof(MARK) - 1;
    if (len > mark && memcmp(line, MARK, mark) == 0 &&
        take_object(progress, line + mark, len - mark)) {
        return;
    }
    /* Nix 2.3: "unknown flag"; later ones: "unrecognised flag". */
    static const char unknown[] = " flag '--log-format'";
    progress->refused = progress->refused || (len >= sizeof(unknown) - 1 &&
                                              memmem(line, len, unknown, sizeof(unknown) - 1));
    progress->handlers.on_line(line, len, NULL, progress->arg);
}
