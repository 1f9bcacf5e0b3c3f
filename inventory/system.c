/* `system`: what to build for a host. A layer that names another form than a lower layer replaces it
 * whole; one that only adds `attr` or `args` completes it.
 */
#include <string.h>

#include "core/base/xalloc.h"
#include "inventory/settings.h"

#define DEFAULT_ATTR "nixosConfigurations.\"%s\".config.system.build.toplevel"

static const struct field system_fields[] = {
    {.name = "flake",
     .kind = FIELD_TEXT,
     .format = &format_line,
     FIELD_AT(struct inv_system, flake_ref),
     .about = "REF#ATTR; without #ATTR the host's own nixosConfigurations entry."},
    {.name = "file",
     .kind = FIELD_TEXT,
     .format = &format_file,
     FIELD_AT(struct inv_system, file),
     .about = "A Nix file."},
    {.name = "attr",
     .kind = FIELD_TEXT,
     .format = &format_line,
     FIELD_AT(struct inv_system, attr),
     .about = "An attribute of the file."},
    {.name = "args",
     .kind = FIELD_PAIRS,
     .format = &format_free,
     FIELD_AT(struct inv_system, args),
     .about = "Arguments of the file, as texts (--argstr)."},
    {.name = "path",
     .kind = FIELD_TEXT,
     .format = &format_store_path,
     FIELD_AT(struct inv_system, path),
     .about = "A store path that is built already."},
    {.name = "command",
     .kind = FIELD_TEXTS,
     .min = 1,
     .format = &format_argument,
     FIELD_AT(struct inv_system, command),
     .about = "A command that prints one store path."},
    {.name = "nix_options",
     .kind = FIELD_OPTIONS,
     FIELD_AT(struct inv_system, nix_options),
     .about = "Options of nix.conf for evaluation and build."},
    {.name = "nix_bin",
     .kind = FIELD_TEXT,
     .format = &format_file,
     FIELD_AT(struct inv_system, nix_bin),
     .about = "The folder of the Nix tools. Default: PATH."},
};

const struct table system_table = {
    .name = "system", .fields = system_fields, .count = ARRAY_LEN(system_fields)};

const struct exclusive_pair system_exclusive[] = {
    {"flake", "file"},   {"flake", "path"},   {"flake", "command"}, {"file", "path"},
    {"file", "command"}, {"path", "command"}, {"flake", "attr"},    {"flake", "args"},
    {"path", "attr"},    {"path", "args"},    {"command", "attr"},  {"command", "args"},
};
const size_t system_exclusive_count = ARRAY_LEN(system_exclusive);

static const char *const kind_keys[] = {
    [INV_SYSTEM_FLAKE] = "flake",
    [INV_SYSTEM_FILE] = "file",
    [INV_SYSTEM_PATH] = "path",
    [INV_SYSTEM_COMMAND] = "command",
};

static bool check_exclusive(struct reader *reader, const struct json_node *node) {
    for (size_t i = 0; i < system_exclusive_count; i++) {
        const struct json_node *second = json_member(node, system_exclusive[i].second);
        if (second != NULL && json_member(node, system_exclusive[i].first) != NULL) {
            report_key(reader->report, second,
                       "\"%s\" and \"%s\" exclude each other; allowed: exactly one of flake, file "
                       "(with attr, args), path, command",
                       system_exclusive[i].first, system_exclusive[i].second);
            return false;
        }
    }
    return true;
}

bool settings_read_system(struct reader *reader, const struct field *field,
                          const struct json_node *node, void *base) {
    struct draft *draft = base;
    struct inv_system *system = &draft->host.system;
    (void)field;
    if (node->type == JSON_OBJECT) {
        if (!check_exclusive(reader, node)) {
            /* What is wrong besides is told all the same. */
            struct inv_system ignored = {0};
            table_read(reader, &system_table, LAYERS_ALL, node, &ignored);
            draft->system_given = true;
            return false;
        }
        for (size_t i = 0; i < ARRAY_LEN(kind_keys); i++) {
            if (json_member(node, kind_keys[i]) == NULL) {
                continue;
            }
            if (!draft->system_given || system->kind != (enum inv_system_kind)i) {
                *system = (struct inv_system){.nix_options = system->nix_options,
                                              .nix_bin = system->nix_bin};
            }
            system->kind = (enum inv_system_kind)i;
            draft->system_given = true;
        }
    }
    draft->system_node = node;
    return table_read(reader, &system_table, LAYERS_ALL, node, system);
}

/* A flake reference whose relative path is meant from the inventory's folder. "nixpkgs" and
 * "github:o/r" are names of another kind and stay. */
static const char *absolute_ref(struct reader *reader, const char *ref, size_t len) {
    static const char *const schemes[] = {"", "path:", "git+file:"};
    for (size_t i = ARRAY_LEN(schemes); i-- > 0;) {
        size_t scheme = strlen(schemes[i]);
        if (len < scheme || strncmp(ref, schemes[i], scheme) != 0) {
            continue;
        }
        const char *path = ref + scheme;
        size_t path_len = len - scheme;
        bool relative = path_len == 0 || path[0] == '.' || (scheme > 0 && path[0] != '/');
        if (!relative) {
            break;
        }
        if (path_len > 0 && path[0] == '.' && (path_len == 1 || path[1] == '/' || path[1] == '?')) {
            path++;
            path_len--;
        }
        bool slash = path_len > 0 && path[0] != '/' && path[0] != '?';
        bool bare = path_len == 1 && path[0] == '/';
        return arena_printf(reader->arena, "%s%s%s%.*s", schemes[i], reader->dir, slash ? "/" : "",
                            bare ? 0 : (int)path_len, path);
    }
    return arena_text(reader->arena, ref, len);
}

/* Splits REF#ATTR, and gives the host's own attribute where none stands. */
static void finish_flake(struct reader *reader, struct draft *draft, const char *flake) {
    struct inv_system *system = &draft->host.system;
    const char *hash = strchr(flake, '#');
    size_t len = hash != NULL ? (size_t)(hash - flake) : strlen(flake);
    system->flake_ref = absolute_ref(reader, flake, len);
    system->flake_attr = hash != NULL && hash[1] != '\0'
                             ? hash + 1
                             : arena_printf(reader->arena, DEFAULT_ATTR, draft->host.name);
}

bool system_finish(struct reader *reader, const struct json_node *node, bool has_flake,
                   struct draft *draft) {
    struct inv_system *system = &draft->host.system;
    const struct json_node *at = draft->system_node != NULL ? draft->system_node : node;
    bool file_keys = system->attr != NULL || system->args.count > 0;
    if (draft->system_given) {
        if (file_keys && system->kind != INV_SYSTEM_FILE) {
            report_key(reader->report, at,
                       "host %s: \"attr\" and \"args\" belong to \"file\", but "
                       "its system is a %s",
                       draft->host.name, kind_keys[system->kind]);
            return false;
        }
        /* A reference that was refused is told already. */
        if (system->kind == INV_SYSTEM_FLAKE && system->flake_ref != NULL) {
            finish_flake(reader, draft, system->flake_ref);
        }
        return true;
    }
    if (!has_flake || file_keys) {
        report_key(reader->report, at,
                   "host %s has no system%s; allowed: {\"flake\": \"REF#ATTR\"}, {\"file\": ...}, "
                   "{\"path\": ...} or {\"command\": [...]}",
                   draft->host.name,
                   file_keys ? ": \"attr\" and \"args\" want a \"file\""
                             : " and no flake.nix lies beside the inventory");
        return false;
    }
    system->kind = INV_SYSTEM_FLAKE;
    finish_flake(reader, draft, "");
    return true;
}
