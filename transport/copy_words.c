/* Reading nix-store's stderr (see copy_words.h). */
#include "transport/copy_words.h"

#include <cjson/cJSON.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"

#define LINE_MAX_BYTES  65536u
#define ERROR_MAX_BYTES 2048u
#define JSON_PREFIX     "@nix "
#define LEVEL_ERROR     0.0
#define LEVEL_SHOWN     3.0

static void note(struct copy_words *words, const char *text, size_t len, bool is_error) {
    if (is_error) {
        buf_clear(&words->error);
        words->has_error = true;
    }
    if (words->has_error && words->error.len + len > ERROR_MAX_BYTES) {
        return; /* the beginning of an error says the most */
    }
    if (words->error.len + len > ERROR_MAX_BYTES) {
        buf_clear(&words->error);
    }
    buf_add(&words->error, text, len < ERROR_MAX_BYTES ? len : ERROR_MAX_BYTES);
    buf_add_char(&words->error, '\n');
}

static void take_text(struct copy_words *words, const char *text, size_t len, bool is_error,
                      copy_words_line on_line, void *arg) {
    static const char gc[] = "waiting for the big garbage collector lock";
    if (memmem(text, len, gc, sizeof(gc) - 1) != NULL) {
        words->waits_for_gc = true;
    }
    note(words, text, len, is_error);
    if (on_line != NULL && len > 0) {
        on_line(text, len, arg);
    }
}

static const char *json_text(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsString(item) ? item->valuestring : NULL;
}

/* "msg" lines carry errors and warnings, "start" lines what is being done. */
static void take_json(struct copy_words *words, const char *text, size_t len,
                      copy_words_line on_line, void *arg) {
    cJSON *object = cJSON_ParseWithLength(text, len);
    const char *action = json_text(object, "action");
    const cJSON *level = cJSON_GetObjectItemCaseSensitive(object, "level");
    double depth = cJSON_IsNumber(level) ? level->valuedouble : LEVEL_SHOWN + 1;
    const char *shown = NULL;
    bool is_error = false;
    if (action != NULL && strcmp(action, "msg") == 0) {
        shown = json_text(object, "raw_msg");
        if (shown == NULL) {
            shown = json_text(object, "msg");
        }
        is_error = depth <= LEVEL_ERROR;
    } else if (action != NULL && strcmp(action, "start") == 0) {
        shown = json_text(object, "text");
    }
    if (shown != NULL && depth <= LEVEL_SHOWN) {
        take_text(words, shown, strlen(shown), is_error, on_line, arg);
    }
    cJSON_Delete(object);
}

static void take_line(struct copy_words *words, copy_words_line on_line, void *arg) {
    const char *text = buf_text(&words->line);
    size_t len = words->line.len;
    size_t prefix = strlen(JSON_PREFIX);
    if (len > prefix && memcmp(text, JSON_PREFIX, prefix) == 0) {
        take_json(words, text + prefix, len - prefix, on_line, arg);
    } else {
        take_text(words, text, len, len >= 6 && memcmp(text, "error:", 6) == 0, on_line, arg);
    }
    buf_clear(&words->line);
}

void copy_words_feed(struct copy_words *words, const char *data, size_t len,
                     copy_words_line on_line, void *arg) {
    while (len > 0) {
        const char *end = memchr(data, '\n', len);
        size_t piece = end != NULL ? (size_t)(end - data) : len;
        size_t room = LINE_MAX_BYTES - words->line.len;
        buf_add(&words->line, data, piece < room ? piece : room);
        if (end == NULL) {
            return;
        }
        take_line(words, on_line, arg);
        data += piece + 1;
        len -= piece + 1;
    }
}

void copy_words_clear(struct copy_words *words) {
    buf_clear(&words->line);
    buf_clear(&words->error);
    words->has_error = false;
    words->waits_for_gc = false;
}

void copy_words_free(struct copy_words *words) {
    buf_free(&words->line);
    buf_free(&words->error);
}

static bool says(const struct copy_words *words, const char *text) {
    return strstr(buf_text(&words->error), text) != NULL;
}

void copy_words_explain(struct copy_words *words, const char *command, bool greeted, int status,
                        const char *path, struct error *error) {
    take_line(words, NULL, NULL); /* a last line without its end */
    AUTO_FREE char *clean = text_cleaned(buf_text(&words->error), words->error.len);
    size_t len = strlen(clean);
    while (len > 0 && clean[len - 1] == ' ') {
        clean[--len] = '\0';
    }
    const char *said = len > 0 ? clean : "it said nothing";
    const char *subject = path != NULL ? path : "the store";
    if (says(words, "No space left on device") || says(words, "database or disk is full") ||
        says(words, "Disk quota exceeded")) {
        error_set(error, FLEET_ERR_SPACE, "disk-full",
                  "the disk of /nix is full, %s was not copied: %s. Make room there (fleet gc), "
                  "then run again: what has arrived stays",
                  subject, said);
    } else if (says(words, "lacks a valid signature") ||
               says(words, "lacks a signature by a trusted key")) {
        error_set(error, FLEET_ERR_REMOTE, "untrusted-user",
                  "the target's Nix does not trust this user's copies: %s. Add the user to "
                  "trusted-users in the target's nix.conf, or set \"sudo\": true so that root "
                  "writes the store",
                  said);
    } else if (!greeted && status == 127) {
        error_set(error, FLEET_ERR_REMOTE, "no-nix",
                  "Nix was not found: \"%s\" said: %s. Install Nix there or set nix_bin", command,
                  said);
    } else if (!greeted && says(words, "unknown flag")) {
        error_set(error, FLEET_ERR_REMOTE, "nix-too-old",
                  "the target's Nix does not understand \"%s\": %s", command, said);
    } else if (status < 0 || status > 128) {
        error_set(error, FLEET_ERR_REMOTE, "copy-killed",
                  "\"%s\" was killed on the target while it took %s: %s. Look there for who "
                  "killed it (journalctl -k for the out-of-memory killer), then run again",
                  command, subject, said);
    } else {
        error_set(error, FLEET_ERR_REMOTE, "copy-failed",
                  "\"%s\" ended with status %d while it took %s: %s", command, status, subject,
                  said);
    }
}
