/* Folds events into the state of a run. Text is cleaned on the way in, as it is on the way to the
 * journal: so the view of a live run and that of its journal are the same. */
#include "core/view.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/name_index.h"

/* Replaces *slot by a cleaned copy of `text`, or by NULL where it says nothing. */
static void set_text(char **slot, const char *text) {
    free(*slot);
    *slot = NULL;
    if (text != NULL && text[0] != '\0') {
        struct buf clean = BUF_INIT;
        text_clean(&clean, text, strlen(text), true);
        *slot = buf_take(&clean);
    }
}

/* As set_text, but keeps what is known where the event says nothing. */
static void update_text(char **slot, const char *text) {
    if (text != NULL && text[0] != '\0') {
        set_text(slot, text);
    }
}

struct view *view_new(void) {
    struct view *view = xcalloc(1, sizeof(*view));
    view->index = name_index_new();
    return view;
}

void view_free(struct view *view) {
    if (view == NULL) {
        return;
    }
    for (size_t i = 0; i < view->host_count; i++) {
        struct view_host *host = &view->hosts[i];
        char *const owned[] = {host->name,          host->address,      host->reason,
                               host->message,       host->current,      host->desired,
                               host->last_probe,    host->nonce,        host->verdict,
                               host->built,         host->granted_path, host->first_current,
                               host->failed_before, host->boot_id,      host->units_before};
        for (size_t j = 0; j < ARRAY_LEN(owned); j++) {
            free(owned[j]);
        }
    }
    char *const owned[] = {view->run,    view->fleet,  view->rev,    view->inventory,
                           view->policy, view->target, view->paused, view->result};
    for (size_t i = 0; i < ARRAY_LEN(owned); i++) {
        free(owned[i]);
    }
    name_index_free(view->index);
    free(view->hosts);
    free(view);
}

struct view_host *view_host(const struct view *view, const char *name) {
    size_t at = name_index_find(view->index, name);
    if (at == NAME_INDEX_NONE) {
        /* A name that was cleaned when its host was made is given here as the event has it. */
        AUTO_FREE char *clean = text_cleaned(name, strlen(name));
        at = name_index_find(view->index, clean);
    }
    return at != NAME_INDEX_NONE ? &view->hosts[at] : NULL;
}

size_t view_count(const struct view *view, enum host_state state) {
    return view->counts[state];
}

/* The host of that name, made where it is new. */
static struct view_host *obtain_host(struct view *view, const char *name) {
    AUTO_FREE char *clean = text_cleaned(name, strlen(name));
    struct view_host *host = view_host(view, clean);
    if (host != NULL) {
        return host;
    }
    if (view->hosts == NULL || view->host_count == view->host_cap) {
        view->host_cap = view->host_cap > 0 ? view->host_cap * 2 : 16;
        view->hosts = xrealloc(view->hosts, view->host_cap * sizeof(*view->hosts));
    }
    host = &view->hosts[view->host_count];
    *host = (struct view_host){.name = xstrdup(clean), .state = HOST_PENDING};
    view->counts[HOST_PENDING]++;
    name_index_add(view->index, host->name, view->host_count++);
    return host;
}

static void apply_run_start(struct view *view, const struct event *event) {
    set_text(&view->run, event->run);
    set_text(&view->fleet, event->fleet);
    set_text(&view->rev, event->rev);
    set_text(&view->inventory, event->inventory);
    set_text(&view->policy, event->policy);
    set_text(&view->target, event->target);
    view->dirty = event->dirty;
    view->action = event->action;
    view->wave_count = event->wave_count;
    view->max_failed = event->max_failed;
    view->healthy_ms = (int64_t)event->healthy_ms;
    if (view->started_ms == 0) {
        view->started_ms = event->ts_ms;
    }
    for (size_t i = 0; i < event->host_count; i++) {
        struct view_host *host = obtain_host(view, event->hosts[i].name);
        host->wave = event->hosts[i].wave;
        update_text(&host->address, event->hosts[i].address);
    }
}

/* It is tried again: what the try before came to is over. */
static void begin_anew(struct view_host *host) {
    memset(host->state_at_ms, 0, sizeof(host->state_at_ms));
    memset(host->granted, 0, sizeof(host->granted));
    host->verdict_rollback = false;
    host->probe_failed = false;
    set_text(&host->last_probe, NULL);
    set_text(&host->verdict, NULL);
    set_text(&host->nonce, NULL);
    set_text(&host->granted_path, NULL);
    host->bytes_done = host->bytes_total = host->paths_done = host->paths_total = 0;
}

static void apply_host_state(struct view *view, struct view_host *host, const struct event *event) {
    if (event->to == HOST_PENDING) {
        begin_anew(host);
    }
    view->counts[host->state]--;
    view->counts[event->to]++;
    host->state = event->to;
    host->seen = true;
    host->since_ms = event->ts_ms;
    if (host->state_at_ms[event->to] == 0) {
        host->state_at_ms[event->to] = event->ts_ms;
    }
    set_text(&host->reason, event->reason);
    set_text(&host->message, event->message);
    update_text(&host->current, event->current);
    if (host->first_current == NULL) {
        update_text(&host->first_current, event->current);
    }
    update_text(&host->desired, event->desired);
    if (event->generation != 0) {
        if (host->first_generation == 0) {
            host->first_generation = event->generation;
        }
        host->generation = event->generation;
    }
    if (event->to == HOST_ROLLING_BACK) {
        host->verdict_rollback = true;
        set_text(&host->verdict, event->message);
    }
}

#define FAILED_BEFORE_MAX 2000

bool view_host_is_before(const struct view_host *host) {
    return host->state == HOST_CONNECTING || host->state == HOST_BUILDING;
}

/* True where `name` is one of "web, units". */
static bool is_listed(const char *list, const char *name) {
    size_t len = strlen(name);
    for (const char *at = list; (at = strstr(at, name)) != NULL; at += len) {
        if ((at == list || at[-1] == ' ') && (at[len] == ',' || at[len] == '\0')) {
            return true;
        }
    }
    return false;
}

/* A probe before anything was done to the host: what fails is no work of this run. */
static void note_before(struct view_host *host, const struct event *event) {
    const char *known = host->failed_before != NULL ? host->failed_before : "";
    if (event->ok || !view_host_is_before(host) || event->name == NULL || event->name[0] == '\0' ||
        is_listed(known, event->name) || strlen(known) > FAILED_BEFORE_MAX) {
        return;
    }
    char *list = xasprintf("%s%s%s", known, known[0] != '\0' ? ", " : "", event->name);
    set_text(&host->failed_before, list);
    free(list);
}

static void apply_probe(struct view_host *host, const struct event *event) {
    note_before(host, event);
    if (event->ok && host->probe_failed) {
        return;
    }
    host->probe_failed = !event->ok;
    char *text = xasprintf("%s: %s", event->name != NULL ? event->name : "probe",
                           event->detail != NULL ? event->detail
                           : event->ok           ? "ok"
                                                 : "failed");
    set_text(&host->last_probe, text);
    free(text);
}

static void apply_grant(struct view_host *host, const struct event *event) {
    if (event->act == ACT_ACTIVATE) {
        /* A new try: what the one before came to is over. */
        host->granted[ACT_COMMIT] = false;
        host->granted[ACT_ROLLBACK] = false;
        host->granted[ACT_REBOOT] = false;
        set_text(&host->boot_id, NULL);
        host->verdict_rollback = false;
        host->probe_failed = false;
        set_text(&host->last_probe, NULL);
        set_text(&host->verdict, NULL);
        set_text(&host->nonce, event->nonce);
        set_text(&host->granted_path, event->path);
    }
    if (event->act == ACT_REBOOT) {
        set_text(&host->boot_id, event->boot_id);
        set_text(&host->granted_path, event->path);
    }
    if (event->act == ACT_ROLLBACK) {
        host->verdict_rollback = true;
    }
    host->granted[event->act] = true;
}

static void apply_host(struct view *view, const struct event *event) {
    struct view_host *host = obtain_host(view, event->host);
    if (event->wave > 0) {
        host->wave = event->wave;
    }
    if (event->type == EVENT_HOST_STATE) {
        apply_host_state(view, host, event);
    } else if (event->type == EVENT_COPY) {
        host->bytes_done = event->bytes_done;
        host->bytes_total = event->bytes_total;
        host->paths_done = event->paths_done;
        host->paths_total = event->paths_total;
    } else if (event->type == EVENT_PROBE) {
        apply_probe(host, event);
    } else if (event->type == EVENT_GRANT) {
        apply_grant(host, event);
    } else if (event->type == EVENT_LOG && event->stream != NULL && event->line != NULL &&
               strcmp(event->stream, STREAM_UNITS_BEFORE) == 0) {
        set_text(&host->units_before, event->line);
    } else if (event->type == EVENT_BUILD && event->path != NULL && event->state != NULL &&
               strcmp(event->state, "built") == 0) {
        set_text(&host->built, event->path);
    }
}

static void apply_run(struct view *view, const struct event *event) {
    if (event->type == EVENT_RUN_START) {
        apply_run_start(view, event);
    } else if (event->type == EVENT_WAVE_START || event->type == EVENT_WAVE_END) {
        view->wave = event->wave;
        if (event->type == EVENT_WAVE_END && event->wave > view->waves_ended) {
            view->waves_ended = event->wave;
        }
        set_text(&view->paused, NULL);
    } else if (event->type == EVENT_PAUSE) {
        bool said = event->reason != NULL && event->reason[0] != '\0';
        set_text(&view->paused, said ? event->reason : "paused");
    } else if (event->type == EVENT_PROMOTE) {
        set_text(&view->paused, NULL);
    } else if (event->type == EVENT_RUN_END) {
        view->ended_ms = event->ts_ms;
        set_text(&view->result, event->result);
        view->exit = event->exit;
    }
}

void view_apply(struct view *view, const struct event *event) {
    if (event->seq > view->last_seq) {
        view->last_seq = event->seq;
    }
    if (event->host != NULL) {
        apply_host(view, event);
    } else {
        apply_run(view, event);
    }
    /* A run that was interrupted, or waited for promotion, and was taken up again goes on. */
    view->ended = event->type == EVENT_RUN_END || (view->ended && event->type == EVENT_LOG);
    if (!view->ended) {
        view->ended_ms = 0;
    }
}
