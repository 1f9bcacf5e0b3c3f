/* `secrets`: files that are uploaded to the target; where each comes from and where it goes. */
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "inventory/settings.h"

static const struct field_choice whens[] = {
    {"before", false, false}, {"after", true, false}, {NULL, 0, false}};

static field_read_fn read_mode;

/* `age` is an age file: it goes where `file` does, and read_entry tells them apart. */
static const struct field secret_fields[] = {
    {.name = "name",
     .kind = FIELD_TEXT,
     .required = LAYERS_ALL,
     .format = &format_secret_name,
     FIELD_AT(struct inv_secret, name),
     .about = "A later entry of the same name replaces this one."},
    {.name = "file",
     .kind = FIELD_TEXT,
     .format = &format_file,
     FIELD_AT(struct inv_secret, file),
     .about = "A file that is the secret."},
    {.name = "command",
     .kind = FIELD_TEXTS,
     .min = 1,
     .format = &format_argument,
     FIELD_AT(struct inv_secret, command),
     .about = "A command whose output is the secret."},
    {.name = "age",
     .kind = FIELD_TEXT,
     .format = &format_file,
     FIELD_AT(struct inv_secret, file),
     .about = "A file that age decrypts with `identity`."},
    {.name = "identity",
     .kind = FIELD_TEXT,
     .format = &format_file,
     FIELD_AT(struct inv_secret, identity),
     .about = "The age identity file."},
    {.name = "path",
     .kind = FIELD_TEXT,
     .format = &format_target_path,
     FIELD_AT(struct inv_secret, path),
     .about = "Default: /run/fleet/secrets/NAME."},
    {.name = "owner",
     .kind = FIELD_TEXT,
     .format = &format_name,
     FIELD_AT(struct inv_secret, owner),
     .about = "Default: root."},
    {.name = "group",
     .kind = FIELD_TEXT,
     .format = &format_name,
     FIELD_AT(struct inv_secret, group),
     .about = "Default: root."},
    {.name = "mode",
     .kind = FIELD_CUSTOM,
     .read = read_mode,
     .schema = "{\"$ref\": \"#/definitions/mode\"}",
     .about = "Default: 0400."},
    {.name = "when",
     .kind = FIELD_CHOICE,
     .choices = whens,
     FIELD_AT(struct inv_secret, after),
     .about = "Before or after activation. Default: before."},
    {.name = "restart",
     .kind = FIELD_TEXTS,
     .format = &format_line,
     FIELD_AT(struct inv_secret, restart),
     .about = "Units to restart when the secret has changed."},
};

const struct table secret_table = {
    .name = "secret", .fields = secret_fields, .count = ARRAY_LEN(secret_fields)};

const char *const secret_sources[] = {"file", "command", "age"};
const size_t secret_source_count = ARRAY_LEN(secret_sources);

static bool read_mode(struct reader *reader, const struct field *field,
                      const struct json_node *node, void *base) {
    struct inv_secret *secret = base;
    (void)field;
    const char *text = reader_text(reader, node, &format_mode);
    if (text == NULL) {
        return false;
    }
    secret->mode = (uint32_t)strtoul(text, NULL, 8);
    return true;
}

/* Exactly one source, and an identity with `age` only. */
static bool check_source(struct reader *reader, const struct json_node *node,
                         struct inv_secret *secret) {
    static const enum inv_secret_source sources[] = {INV_SECRET_FILE, INV_SECRET_COMMAND,
                                                     INV_SECRET_AGE};
    size_t found = 0;
    for (size_t i = 0; i < secret_source_count; i++) {
        if (json_member(node, secret_sources[i]) != NULL) {
            secret->source = sources[i];
            found++;
        }
    }
    if (found != 1) {
        report_value(reader->report, node,
                     "%s; allowed: exactly one of \"file\", \"command\", "
                     "\"age\"",
                     found == 0 ? "nothing says where the secret comes from"
                                : "more than one says where the secret comes from");
        return false;
    }
    bool age = secret->source == INV_SECRET_AGE;
    if ((json_member(node, "identity") != NULL) != age) {
        report_value(reader->report, node,
                     age ? "\"age\" needs \"identity\", the file of the key that decrypts it"
                         : "\"identity\" is allowed beside \"age\" only");
        return false;
    }
    return true;
}

static bool read_entry(struct reader *reader, const struct json_node *node,
                       struct inv_secret *ret) {
    *ret = (struct inv_secret){.owner = "root", .group = "root", .mode = 0400};
    bool good = table_read(reader, &secret_table, LAYERS_ALL, node, ret);
    if (node->type == JSON_OBJECT) {
        good = check_source(reader, node, ret) && good;
    }
    if (good && ret->path == NULL) {
        ret->path = arena_printf(reader->arena, "/run/fleet/secrets/%s", ret->name);
    }
    return good;
}

static size_t find_name(const struct inv_secret *items, size_t count, const char *name) {
    size_t i = 0;
    while (i < count && strcmp(items[i].name, name) != 0) {
        i++;
    }
    return i;
}

bool settings_read_secrets(struct reader *reader, const struct field *field,
                           const struct json_node *node, void *base) {
    struct draft *draft = base;
    (void)field;
    if (node->type != JSON_ARRAY || node->count > FIELD_LIST_MAX) {
        return reader_refuse(reader, node, "a list of at most 1000 secrets");
    }
    size_t merged = draft->host.secret_count;
    struct inv_secret *items = arena_alloc(reader->arena, merged + node->count, sizeof(*items));
    if (merged > 0) {
        memcpy(items, draft->host.secrets, merged * sizeof(*items));
    }
    size_t count = merged;
    bool good = true;
    for (const struct json_node *item = json_child(node); item != NULL; item = item->next) {
        struct inv_secret entry;
        if (!read_entry(reader, item, &entry)) {
            good = false;
            continue;
        }
        if (find_name(items + merged, count - merged, entry.name) < count - merged) {
            report_value(reader->report, item, "a second secret named \"%s\" in this list",
                         entry.name);
            good = false;
            continue;
        }
        size_t at = find_name(items, merged, entry.name);
        items[at < merged ? at : count++] = entry;
    }
    draft->host.secrets = items;
    draft->host.secret_count = count;
    return good;
}
