#include "tui/wording.h"

#include <string.h>

#include "core/base/xalloc.h"

static const struct state_words words[] = {
    [HOST_PENDING] = {"waiting", "·", TONE_DIM, false},
    [HOST_CONNECTING] = {"connecting", "◌", TONE_PLAIN, false},
    [HOST_BUILDING] = {"building", "◌", TONE_PLAIN, false},
    [HOST_STAGING] = {"copying", "◌", TONE_PLAIN, false},
    [HOST_STAGED] = {"staged", "◌", TONE_PLAIN, false},
    [HOST_ACTIVATING] = {"activating", "●", TONE_PLAIN, false},
    [HOST_CONFIRMING] = {"confirming", "●", TONE_PLAIN, false},
    [HOST_PROBING] = {"probing", "●", TONE_PLAIN, false},
    [HOST_COMMITTING] = {"committing", "●", TONE_PLAIN, false},
    [HOST_REBOOTING] = {"rebooting", "●", TONE_PLAIN, false},
    [HOST_ROLLING_BACK] = {"rolling back", "↺", TONE_WARN, false},
    [HOST_HEALTHY] = {"healthy", "✓", TONE_GOOD, false},
    [HOST_UNCHANGED] = {"unchanged", "=", TONE_DIM, false},
    [HOST_FAILED] = {"failed", "✗", TONE_BAD, true},
    [HOST_ROLLED_BACK] = {"rolled back", "↺", TONE_WARN, true},
    [HOST_ROLLBACK_FAILED] = {"rollback failed", "✗", TONE_BAD, true},
    [HOST_UNREACHABLE] = {"unreachable", "?", TONE_BAD, true},
    [HOST_SKIPPED] = {"skipped", "-", TONE_DIM, false},
    [HOST_REBOOT_REQUIRED] = {"reboot required", "●", TONE_WARN, true},
    [HOST_UNKNOWN] = {"unknown", "?", TONE_BAD, true},
};
_Static_assert(ARRAY_LEN(words) == HOST_STATE_COUNT, "words for every state");

static const char *const tones[] = {
    [TONE_PLAIN] = "",       [TONE_GOOD] = "\033[32m", [TONE_WARN] = "\033[33m",
    [TONE_BAD] = "\033[31m", [TONE_DIM] = "\033[2m",
};

const struct state_words *state_words(enum host_state state) {
    return &words[state];
}

const char *tone_begin(enum tone tone, bool color) {
    return color ? tones[tone] : "";
}

const char *tone_end(enum tone tone, bool color) {
    return color && tone != TONE_PLAIN ? "\033[0m" : "";
}

void wording_counts(const struct view *view, struct buf *out) {
    size_t start = out->len;
    for (int state = HOST_STATE_COUNT - 1; state >= 0; state--) {
        size_t count = view_count(view, (enum host_state)state);
        if (count > 0) {
            buf_printf(out, "%s%zu %s", out->len > start ? ", " : "", count, words[state].word);
        }
    }
    if (out->len == start) {
        buf_add_text(out, "no hosts");
    }
}

void wording_revision(const struct view *view, struct buf *out) {
    if (view->rev != NULL && view->rev[0] != '\0') {
        buf_printf(out, "%.7s%s", view->rev, view->dirty ? "*" : "");
    } else {
        buf_add_text(out, "the new version");
    }
}

const char *wording_short_run(const char *run) {
    const char *dash = run != NULL ? strrchr(run, '-') : NULL;
    return dash != NULL && dash[1] != '\0' ? dash + 1 : run != NULL ? run : "";
}

void wording_store_name(const char *path, struct buf *out) {
    const char *slash = strrchr(path, '/');
    const char *dash = slash != NULL ? strchr(slash, '-') : NULL;
    const char *name = dash != NULL ? dash + 1 : path;
    size_t len = strlen(name);
    bool is_drv = len > 4 && strcmp(name + len - 4, ".drv") == 0;
    buf_add(out, name, is_drv ? len - 4 : len);
}

void wording_elapsed(int64_t ms, struct buf *out) {
    long long seconds = ms > 0 ? (long long)ms / 1000 : 0;
    if (seconds >= 3600) {
        buf_printf(out, "%lld:", seconds / 3600);
    }
    buf_printf(out, "%02lld:%02lld", seconds / 60 % 60, seconds % 60);
}

void wording_ssh(const struct view_host *host, struct buf *out) {
    wording_ssh_line(host->address, out);
}

void wording_ssh_line(const char *address, struct buf *out) {
    if (address == NULL || address[0] == '\0' || strcmp(address, "local") == 0) {
        return;
    }
    /* A port follows a bracket, or the only colon. */
    const char *bracket = strrchr(address, ']');
    const char *colon = strrchr(bracket != NULL ? bracket : address, ':');
    bool port = colon != NULL && (bracket != NULL || strchr(address, ':') == colon);
    size_t len = port ? (size_t)(colon - address) : strlen(address);
    buf_add_text(out, "ssh ");
    if (port && strcmp(colon + 1, "22") != 0) {
        buf_printf(out, "-p %s ", colon + 1);
    }
    /* ssh takes an IPv6 address without its brackets. */
    for (size_t i = 0; i < len; i++) {
        if (address[i] != '[' && address[i] != ']') {
            buf_add_char(out, address[i]);
        }
    }
}

bool wording_is_success(const struct view *view, enum host_state state) {
    return state == HOST_HEALTHY || state == HOST_UNCHANGED ||
           (state == HOST_REBOOT_REQUIRED && view->action == ACTION_BOOT) ||
           (state == HOST_STAGED &&
            (view->action == ACTION_PUSH || view->action == ACTION_DRY_ACTIVATE));
}

bool wording_is_same_failure(const char *a, const char *b) {
    static const char log_line[] = "\nthe whole log: ";
    size_t first = strcspn(a, "\n");
    if (a[0] == '\0' || strncmp(a, b, first + 1) != 0) {
        return false;
    }
    const char *drv = strstr(a, ".drv'");
    if (drv != NULL && drv < a + first) {
        return true; /* what depends on it is each host's own */
    }
    const char *end_a = strstr(a, log_line);
    const char *end_b = strstr(b, log_line);
    size_t len_a = end_a != NULL ? (size_t)(end_a - a) : strlen(a);
    size_t len_b = end_b != NULL ? (size_t)(end_b - b) : strlen(b);
    return len_a == len_b && memcmp(a, b, len_a) == 0;
}
