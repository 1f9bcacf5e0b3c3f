/* Policy overrides from the command line (see override.h). */
#include "cmd/override.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"

static void add(struct override_set *set, const char *key, const char *json) {
    set->items = xrealloc(set->items, (set->count + 1) * sizeof(*set->items));
    set->items[set->count++] = (struct inv_override){.key = xstrdup(key), .json = xstrdup(json)};
}

static void add_quoted(struct buf *out, const char *text) {
    cJSON *item = cJSON_CreateString(text);
    char *quoted = cJSON_PrintUnformatted(item);
    buf_add_text(out, quoted != NULL ? quoted : "\"\"");
    cJSON_free(quoted);
    cJSON_Delete(item);
}

static bool is_json(const char *text) {
    cJSON *item = cJSON_ParseWithOpts(text, NULL, 1);
    cJSON_Delete(item);
    return item != NULL;
}

/* KEY=JSON. A bare word such as leave, 30s or 10% may stand without its quotes. */
static int read_policy(struct override_set *set, const char *text, struct error *error) {
    const char *equals = strchr(text, '=');
    if (equals == NULL || equals == text) {
        AUTO_FREE char *shown = text_cleaned(text, strlen(text));
        return error_set(error, FLEET_ERR_USAGE, "usage",
                         "--policy '%s' has no KEY=JSON, as in --policy max_failed=2", shown);
    }
    AUTO_FREE char *key = xstrndup(text, (size_t)(equals - text));
    const char *value = equals + 1;
    struct buf json = BUF_INIT;
    if (isalnum((unsigned char)value[0]) && !is_json(value)) {
        add_quoted(&json, value);
    } else {
        buf_add_text(&json, value);
    }
    add(set, key, buf_text(&json));
    buf_free(&json);
    return 0;
}

/* One item of --waves: a count, a percentage, or @tag. */
static int add_wave(struct buf *json, const char *item, size_t len, struct error *error) {
    AUTO_FREE char *text = xstrndup(item, len);
    size_t digits = strspn(text, "0123456789");
    buf_add_text(json, json->len > 1 ? "," : "");
    if (digits > 0 && text[digits] == '\0') {
        buf_add_text(json, text);
    } else if (digits > 0 && strcmp(text + digits, "%") == 0) {
        add_quoted(json, text);
    } else if (text[0] == '@' && text[1] != '\0') {
        buf_add_text(json, "{\"tag\":");
        add_quoted(json, text + 1);
        buf_add_char(json, '}');
    } else {
        AUTO_FREE char *shown = text_cleaned(text, len);
        return error_set(error, FLEET_ERR_USAGE, "usage",
                         "--waves: '%s' is no number, percentage or @tag, as in "
                         "--waves 1,10%%,100%% or --waves @canary,100%%",
                         shown);
    }
    return 0;
}

/* "1,10%,100%", or a JSON list. */
static int read_waves(struct override_set *set, const char *text, struct error *error) {
    if (text[0] == '[') {
        add(set, "waves", text);
        return 0;
    }
    struct buf json = BUF_INIT;
    buf_add_char(&json, '[');
    for (;;) {
        size_t len = strcspn(text, ",");
        int err = add_wave(&json, text, len, error);
        if (err != 0) {
            buf_free(&json);
            return err;
        }
        if (text[len] == '\0') {
            break;
        }
        text += len + 1;
    }
    buf_add_char(&json, ']');
    add(set, "waves", buf_text(&json));
    buf_free(&json);
    return 0;
}

static int read_one(struct override_set *set, enum option_id id, const char *value,
                    struct error *error) {
    if (id == OPTION_POLICY) {
        return read_policy(set, value, error);
    }
    if (id == OPTION_WAVES) {
        return read_waves(set, value, error);
    }
    if (id == OPTION_PARALLEL) {
        add(set, "max_parallel", value);
    } else if (id == OPTION_NO_ROLLBACK) {
        add(set, "rollback", "false");
    } else if (id == OPTION_NOW) {
        add(set, "waves", "[\"100%\"]");
        add(set, "min_healthy_time", "\"0s\"");
    } else if (id == OPTION_REBOOT) {
        struct buf json = BUF_INIT;
        add_quoted(&json, value);
        add(set, "reboot", buf_text(&json));
        buf_free(&json);
    }
    return 0;
}

int override_read(const struct args *args, struct override_set *ret, struct error *error) {
    *ret = (struct override_set){0};
    for (size_t i = 0; i < args->option_count; i++) {
        int err = read_one(ret, args->options[i].id, args->options[i].value, error);
        if (err != 0) {
            return err;
        }
    }
    return 0;
}

int override_parse(const char *json, struct override_set *ret, struct error *error) {
    *ret = (struct override_set){0};
    cJSON *object = cJSON_Parse(json != NULL ? json : "{}");
    if (!cJSON_IsObject(object)) {
        cJSON_Delete(object);
        return error_set(error, FLEET_ERR_PROTOCOL, "journal-damaged",
                         "the policy that the run's journal records is no JSON object");
    }
    for (const cJSON *item = object->child; item != NULL; item = item->next) {
        char *value = cJSON_PrintUnformatted(item);
        add(ret, item->string, value != NULL ? value : "null");
        cJSON_free(value);
    }
    cJSON_Delete(object);
    return 0;
}

void override_release(struct override_set *set) {
    for (size_t i = 0; i < set->count; i++) {
        /* Both were allocated by add(). */
        free((void *)(uintptr_t)set->items[i].key);
        free((void *)(uintptr_t)set->items[i].json);
    }
    free(set->items);
    *set = (struct override_set){0};
}

char *override_json(const struct override_set *set) {
    cJSON *object = cJSON_CreateObject();
    for (size_t i = 0; i < set->count; i++) {
        cJSON *value = cJSON_Parse(set->items[i].json);
        if (value == NULL) {
            continue;
        }
        cJSON_DeleteItemFromObjectCaseSensitive(object, set->items[i].key);
        cJSON_AddItemToObject(object, set->items[i].key, value);
    }
    char *printed = cJSON_PrintUnformatted(object);
    char *text = xstrdup(printed != NULL ? printed : "{}");
    cJSON_free(printed);
    cJSON_Delete(object);
    return text;
}
