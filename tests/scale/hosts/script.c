#include "tests/scale/hosts/script.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "target_script.h"
#include "tests/pipeline/machine.h"

/* Told by their text, the very one that is embedded in the program. Those whose text is a part of
 * another's come after it. */
static struct {
    const char *name;
    const char *text;
    char *lines; /* without what is only a comment, as fleet sends it */
} scripts[] = {{.name = "request", .text = target_script_guard_request},
               {.name = "guard_start", .text = target_script_guard_start},
               {.name = "guard_poll", .text = target_script_guard_poll},
               {.name = "commit_now", .text = target_script_commit_now},
               {.name = "repair", .text = target_script_repair},
               {.name = "inspect", .text = target_script_inspect},
               {.name = "lock_take", .text = target_script_lock_take},
               {.name = "lock_release", .text = target_script_lock_release},
               {.name = "stage", .text = target_script_stage},
               {.name = "unstage", .text = target_script_unstage},
               {.name = "dry_activate", .text = target_script_dry_activate},
               {.name = "units", .text = target_script_units},
               {.name = "generations", .text = target_script_generations}};

static char *without_comments(const char *script) {
    struct buf lines = BUF_INIT;
    while (*script != '\0') {
        size_t len = strcspn(script, "\n");
        size_t blank = strspn(script, " ");
        if (blank < len && script[blank] != '#') {
            buf_add(&lines, script, len);
            buf_add_char(&lines, '\n');
        }
        script += len + (script[len] == '\n');
    }
    return buf_take(&lines);
}

void script_init(void) {
    for (size_t i = 0; i < ARRAY_LEN(scripts); i++) {
        scripts[i].lines = without_comments(scripts[i].text);
    }
}

size_t script_whole(const struct buf *in, char ret_marker[SCRIPT_MARKER_SIZE]) {
    static const char last[] = "$fleet_status >&2\n";
    enum {
        TOKENS_LEN = 34 /* "AAAAAAAAAAAAAAAA BBBBBBBBBBBBBBBB " */
    };
    if (in->len == 0) {
        return 0;
    }
    const char *end = memmem(in->data, in->len, last, strlen(last));
    if (end == NULL || end - in->data < TOKENS_LEN) {
        return 0;
    }
    char first[17] = "";
    char second[17] = "";
    if (sscanf(end - TOKENS_LEN, "%16s %16s", first, second) != 2) {
        return 0;
    }
    snprintf(ret_marker, SCRIPT_MARKER_SIZE, "fleet-%s-%s", first, second);
    return (size_t)(end - in->data) + strlen(last);
}

/* One NAME='value' with quotes as text_shell_quote writes them; NULL if there is none. */
static const char *take_var(const char *at, char **ret_name, char **ret_value) {
    size_t len = strspn(at, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_");
    if (len == 0 || at[len] != '=' || at[len + 1] != '\'') {
        return NULL;
    }
    struct buf value = BUF_INIT;
    const char *text = at + len + 2;
    for (;;) {
        size_t part = strcspn(text, "'");
        buf_add(&value, text, part);
        text += part + (text[part] == '\'');
        if (strncmp(text, "\\''", 3) != 0) {
            break;
        }
        buf_add_char(&value, '\'');
        text += 3;
    }
    *ret_name = xstrndup(at, len);
    *ret_value = buf_take(&value);
    return text + (*text == '\n');
}

void script_parse(const char *text, struct script_vars *ret) {
    const char *at = text + strcspn(text, "\n");
    at += *at == '\n';
    ret->count = 0;
    const char *next = at;
    while (ret->count < ARRAY_LEN(ret->items) &&
           (next = take_var(at, &ret->items[ret->count].name, &ret->items[ret->count].value)) !=
               NULL) {
        ret->count++;
        at = next;
    }
    ret->body = at;
}

void script_free(struct script_vars *vars) {
    for (size_t i = 0; i < vars->count; i++) {
        free(vars->items[i].name);
        free(vars->items[i].value);
    }
    vars->count = 0;
}

const char *script_var(const struct script_vars *vars, const char *name) {
    for (size_t i = 0; i < vars->count; i++) {
        if (strcmp(vars->items[i].name, name) == 0) {
            return vars->items[i].value;
        }
    }
    return "";
}

const char *script_name(const struct script_vars *vars) {
    for (size_t i = 0; i < ARRAY_LEN(scripts); i++) {
        if (strstr(vars->body, scripts[i].lines) != NULL) {
            return i == 0 ? script_var(vars, "REQUEST") : scripts[i].name;
        }
    }
    return NULL;
}
