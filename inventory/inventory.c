#include "inventory/inventory.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "inventory/address.h"
#include "inventory/json_doc.h"
#include "inventory/merge.h"
#include "inventory/name_table.h"
#include "inventory/report.h"
#include "inventory/settings.h"

#define FILE_NAME       "fleet.json"
#define FILE_SIZE_MAX   ((size_t)100 * 1000 * 1000)
#define READ_TIMEOUT_MS 10000

/* What the top of the file may hold. */
struct top {
    const struct json_node *defaults, *tags, *hosts;
    const char *name;
};

static field_read_fn read_version;
static field_read_fn keep_node;

static const struct field top_fields[] = {
    {.name = "$schema",
     .kind = FIELD_CUSTOM,
     .read = keep_node,
     .schema = "{}",
     .about = "For editors; not read."},
    {.name = "version",
     .kind = FIELD_CUSTOM,
     .read = read_version,
     .schema = "{\"const\": 1}",
     .about = "Of this format: 1."},
    {.name = "name",
     .kind = FIELD_TEXT,
     .format = &format_line,
     FIELD_AT(struct top, name),
     .about = "Of the fleet. Default: the folder's name."},
    {.name = "defaults",
     .kind = FIELD_CUSTOM,
     .read = keep_node,
     .schema = "{\"$ref\": \"#/definitions/settings-defaults\"}",
     FIELD_AT(struct top, defaults),
     .about = "Settings of all hosts."},
    {.name = "tags",
     .kind = FIELD_CUSTOM,
     .read = keep_node,
     .schema = "{\"type\": \"object\", \"propertyNames\": {\"$ref\": \"#/definitions/tag\"}, "
               "\"additionalProperties\": {\"$ref\": \"#/definitions/settings-tag\"}}",
     FIELD_AT(struct top, tags),
     .about = "Settings of the hosts with a tag, merged in this order."},
    {.name = "hosts",
     .kind = FIELD_CUSTOM,
     .required = LAYERS_ALL,
     .read = keep_node,
     .schema = "{\"type\": \"object\", \"propertyNames\": {\"$ref\": \"#/definitions/host_name\"}, "
               "\"additionalProperties\": {\"$ref\": \"#/definitions/settings-host\"}}",
     FIELD_AT(struct top, hosts),
     .about = "The hosts by name."},
};

static const struct table top_table = {
    .name = "inventory", .fields = top_fields, .count = ARRAY_LEN(top_fields)};

const struct table *inventory_table(void) {
    return &top_table;
}

static bool read_version(struct reader *reader, const struct field *field,
                         const struct json_node *node, void *base) {
    (void)field;
    (void)base;
    if (node->type == JSON_NUMBER && node->number == 1.0) {
        return true;
    }
    return reader_refuse(reader, node, "1, the only version there is");
}

/* For what is read later, or never where the field has no place. */
static bool keep_node(struct reader *reader, const struct field *field,
                      const struct json_node *node, void *base) {
    (void)reader;
    if (field->size > 0) {
        memcpy((char *)base + field->offset, &node, sizeof(node));
    }
    return true;
}

/* True when there is something to read, or the end. A pipe (`-i <(make-inventory)`) may have no
 * writer yet, or one that says nothing for ever. */
static bool wait_for_bytes(int fd) {
    struct pollfd input = {.fd = fd, .events = POLLIN};
    int ready;
    do {
        ready = poll(&input, 1, READ_TIMEOUT_MS);
    } while (ready < 0 && errno == EINTR);
    return ready > 0;
}

static int read_file(const char *path, struct buf *ret, struct error *error) {
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return error_set(error, FLEET_ERR_USAGE, "inventory", "cannot open the inventory %s: %s",
                         path, strerror(errno));
    }
    for (;;) {
        if (!wait_for_bytes(fd)) {
            return error_set(
                error, FLEET_ERR_USAGE, "inventory",
                "nothing came from the inventory %s for %d s; is it a pipe that nobody "
                "writes to?",
                path, READ_TIMEOUT_MS / 1000);
        }
        ssize_t size = read(fd, buf_reserve(ret, 65536), 65536);
        if (size < 0 && (errno == EINTR || errno == EAGAIN)) {
            continue;
        }
        if (size < 0) {
            return error_set(error, FLEET_ERR_USAGE, "inventory",
                             "cannot read the inventory %s: %s", path, strerror(errno));
        }
        if (size == 0) {
            return 0;
        }
        ret->len += (size_t)size;
        if (ret->len > FILE_SIZE_MAX) {
            return error_set(error, FLEET_ERR_USAGE, "inventory",
                             "the inventory %s is larger than 100 MB; that is no inventory, or one "
                             "that wants to be split",
                             path);
        }
    }
}

/* The folder of `path`, absolute and without links, and the file's name in it. */
static int locate(const char *path, struct inventory *inventory, struct error *error) {
    AUTO_FREE char *for_dir = xstrdup(path);
    AUTO_FREE char *for_base = xstrdup(path);
    char dir[PATH_MAX];
    if (realpath(dirname(for_dir), dir) == NULL) {
        return error_set(error, FLEET_ERR_USAGE, "inventory",
                         "cannot find the folder of the inventory %s: %s", path, strerror(errno));
    }
    inventory->dir = arena_text(inventory->arena, dir, strlen(dir));
    inventory->path = arena_printf(inventory->arena, "%s/%s", strcmp(dir, "/") == 0 ? "" : dir,
                                   basename(for_base));
    return 0;
}

static void on_fault(void *arg, size_t offset, const struct json_node *node, const char *message) {
    report_fault(arg, offset, node, message);
}

/* A --policy of the command line. The documents are kept in `docs` until the load is done. */
static bool read_override(struct reader *reader, const struct inv_override *given,
                          struct json_doc **doc, struct merge_override *ret) {
    const char *source = arena_printf(reader->arena, "--policy %s", given->key);
    report_source(reader->report, source);
    const struct field *field = table_find(&policy_table, given->key);
    if (field == NULL) {
        const char *near = table_nearest(&policy_table, LAYER_OVERRIDE, given->key);
        AUTO_FREE char *message =
            xasprintf("unknown policy%s%s%s",
                      near != NULL ? "; did you mean \"" : "; fleet.schema.json lists them",
                      near != NULL ? near : "", near != NULL ? "\"?" : "");
        report_fault(reader->report, 0, NULL, message);
    }
    *doc = json_doc_parse(given->json, strlen(given->json), on_fault, reader->report);
    if (*doc == NULL) {
        report_fault(reader->report, 0, NULL,
                     "the value is JSON: a text takes quotes, as in --policy 'bake=\"5m\"'");
    }
    report_source(reader->report, NULL);
    *ret = (struct merge_override){
        .field = field, .node = *doc != NULL ? json_doc_root(*doc) : NULL, .source = source};
    return field != NULL && *doc != NULL;
}

static bool flake_lies_beside(const struct inventory *inventory) {
    AUTO_FREE char *flake = xasprintf("%s/flake.nix", inventory->dir);
    return access(flake, F_OK) == 0;
}

static void build(struct reader *reader, const struct json_node *root,
                  const struct merge_override *overrides, size_t override_count,
                  struct inventory *inventory) {
    struct top top = {0};
    table_read(reader, &top_table, LAYERS_ALL, root, &top);
    const char *slash = strrchr(inventory->dir, '/');
    inventory->name = top.name != NULL ? top.name : slash[1] != '\0' ? slash + 1 : "fleet";
    struct name_table names = NAME_TABLE_INIT;
    struct merge_input input = {
        .defaults = top.defaults,
        .tags = top.tags,
        .hosts = top.hosts,
        .overrides = overrides,
        .override_count = override_count,
        .has_flake = flake_lies_beside(inventory),
    };
    merge(reader, &input, inventory, &names);
    /* The table moves into the arena, so that all of an inventory goes at once. */
    struct name_table *kept = arena_copy(inventory->arena, &names, 1, sizeof(names));
    kept->slots = arena_copy(inventory->arena, names.slots, names.cap, sizeof(*names.slots));
    inventory->host_names = kept;
    name_table_release(&names);
}

/* Parses and merges. What is wrong goes to the report. */
static void parse(struct inventory *inventory, const struct buf *text,
                  const struct inv_override *overrides, size_t override_count,
                  struct report *report) {
    struct reader reader = {
        .arena = inventory->arena, .report = report, .dir = inventory->dir, .home = getenv("HOME")};
    struct merge_override *read = xcalloc(override_count, sizeof(*read));
    struct json_doc **docs = xcalloc(override_count, sizeof(struct json_doc *));
    size_t usable = 0;
    for (size_t i = 0; i < override_count; i++) {
        usable += read_override(&reader, &overrides[i], &docs[i], &read[usable]) ? 1 : 0;
    }
    struct json_doc *doc = json_doc_parse(buf_text(text), text->len, on_fault, report);
    if (doc != NULL) {
        build(&reader, json_doc_root(doc), read, usable, inventory);
    }
    json_doc_free(doc);
    for (size_t i = 0; i < override_count; i++) {
        json_doc_free(docs[i]);
    }
    free(docs);
    free(read);
}

int inventory_load(const char *path, const struct inv_override *overrides, size_t override_count,
                   struct inventory **ret, struct inv_errors *errors, struct error *error) {
    struct buf text = BUF_INIT;
    struct inventory *inventory = xcalloc(1, sizeof(*inventory));
    struct report *report = report_new();
    inventory->arena = arena_new();
    *errors = (struct inv_errors){0};
    int code = read_file(path, &text, error);
    if (code == 0) {
        code = locate(path, inventory, error);
    }
    if (code == 0) {
        inventory->text = arena_text(inventory->arena, buf_text(&text), text.len);
        inventory->text_len = text.len;
        parse(inventory, &text, overrides, override_count, report);
        if (!report_is_empty(report)) {
            report_finish(report, buf_text(&text), text.len, errors);
            code =
                error_set(error, FLEET_ERR_USAGE, "inventory", "the inventory %s has %zu error%s",
                          path, errors->count, errors->count == 1 ? "" : "s");
        }
    }
    report_free(report);
    buf_free(&text);
    if (code != 0) {
        inventory_free(inventory);
        return code;
    }
    *ret = inventory;
    return 0;
}

void inventory_free(struct inventory *inventory) {
    if (inventory != NULL) {
        arena_free(inventory->arena);
        free(inventory);
    }
}

void inv_errors_free(struct inv_errors *errors) {
    arena_free(errors->arena);
    *errors = (struct inv_errors){0};
}

void inv_errors_print(const struct inv_errors *errors, const char *file, struct buf *out) {
    AUTO_FREE char *shown = text_cleaned(file, strlen(file));
    for (size_t i = 0; i < errors->count; i++) {
        const struct inv_error *error = &errors->items[i];
        if (error->line > 0) {
            buf_printf(out, "%s:%zu:%zu: ", shown, error->line, error->column);
        }
        buf_printf(out, "%s%s%s\n", error->path, error->path[0] != '\0' ? ": " : "",
                   error->message);
    }
}

int inventory_find(char **ret, struct error *error) {
    const char *named = getenv("FLEET_INVENTORY");
    if (named != NULL && named[0] != '\0') {
        *ret = xstrdup(named);
        return 0;
    }
    char dir[PATH_MAX];
    if (getcwd(dir, sizeof(dir)) == NULL) {
        return error_errno(error, errno, "cannot tell the working folder");
    }
    AUTO_FREE char *start = xstrdup(dir);
    for (;;) {
        char *path = xasprintf("%s/" FILE_NAME, strcmp(dir, "/") == 0 ? "" : dir);
        if (access(path, F_OK) == 0) {
            *ret = path;
            return 0;
        }
        free(path);
        char *slash = strrchr(dir, '/');
        if (slash == NULL || dir[1] == '\0') {
            break;
        }
        slash[slash == dir ? 1 : 0] = '\0';
    }
    return error_set(error, FLEET_ERR_USAGE, "inventory",
                     "no " FILE_NAME " in %s or a folder above it; name one with -i FILE or in "
                     "$FLEET_INVENTORY",
                     start);
}

const struct inv_host *inventory_host(const struct inventory *inventory, const char *name) {
    size_t at;
    return name_table_find(inventory->host_names, name, strlen(name), &at) ? &inventory->hosts[at]
                                                                           : NULL;
}

bool inv_host_has_tag(const struct inv_host *host, const char *tag) {
    for (size_t i = 0; i < host->tags.count; i++) {
        if (strcmp(host->tags.items[i], tag) == 0) {
            return true;
        }
    }
    return false;
}

char *inv_expand(const char *text, const struct inv_host *host, const char *address) {
    struct buf out = BUF_INIT;
    bool brackets = address != NULL && strchr(address, ':') != NULL && address[0] != '[';
    for (const char *ref; (ref = strstr(text, "${")) != NULL;) {
        buf_add(&out, text, (size_t)(ref - text));
        if (strncmp(ref, "${name}", 7) == 0) {
            buf_add_text(&out, host->name);
            text = ref + 7;
        } else if (address != NULL && strncmp(ref, "${address}", 10) == 0) {
            buf_printf(&out, brackets ? "[%s]" : "%s", address);
            text = ref + 10;
        } else {
            buf_add_text(&out, "${");
            text = ref + 2;
        }
    }
    buf_add_text(&out, text);
    return buf_take(&out);
}
