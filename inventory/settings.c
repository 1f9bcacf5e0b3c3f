#include "inventory/settings.h"

#include <string.h>

#include "core/base/xalloc.h"
#include "inventory/address.h"

static const char *const layer_names[LAYER_COUNT] = {
    "defaults", "a tag", "a host", "--policy", "a build host",
};

#define SETTINGS   (LAYER_DEFAULTS | LAYER_TAG | LAYER_HOST)
#define CONNECTION (SETTINGS | LAYER_BUILDER)

static const struct field_choice host_key_checks[] = {
    {"ask", INV_HOST_KEY_ASK, false},
    {"strict", INV_HOST_KEY_STRICT, false},
    {"accept-new", INV_HOST_KEY_ACCEPT_NEW, false},
    {"off", INV_HOST_KEY_OFF, false},
    {NULL, 0, false},
};

static const struct field_choice compressions[] = {
    {"auto", INV_COMPRESS_AUTO, false},
    {"none", INV_COMPRESS_NONE, false},
    {"zstd", INV_COMPRESS_ZSTD, false},
    {NULL, 0, false},
};

static const struct field_choice substitutions[] = {
    {"auto", INV_SUBSTITUTE_AUTO, false},
    {"true", INV_SUBSTITUTE_YES, true},
    {"false", INV_SUBSTITUTE_NO, true},
    {NULL, 0, false},
};

static const struct field cache_fields[] = {
    {.name = "push",
     .kind = FIELD_TEXT,
     .format = &format_url,
     FIELD_AT(struct inv_copy, cache_push),
     .about = "Where built paths are pushed, once."},
    {.name = "substituter",
     .kind = FIELD_TEXT,
     .format = &format_url,
     FIELD_AT(struct inv_copy, cache_substituter),
     .about = "Where targets fetch from."},
    {.name = "public_key",
     .kind = FIELD_TEXT,
     .format = &format_cache_key,
     FIELD_AT(struct inv_copy, cache_public_key),
     .about = "The key that the cache's paths are signed with."},
};

static const struct table cache_table = {
    .name = "cache", .fields = cache_fields, .count = ARRAY_LEN(cache_fields)};

static const struct field copy_fields[] = {
    {.name = "compress",
     .kind = FIELD_CHOICE,
     .choices = compressions,
     FIELD_AT(struct inv_copy, compress),
     .about = "Compression of what is sent."},
    {.name = "substitute",
     .kind = FIELD_CHOICE,
     .choices = substitutions,
     FIELD_AT(struct inv_copy, substitute),
     .about = "Whether the target first fetches what its substituters have."},
    {.name = "max_rate",
     .kind = FIELD_SIZE,
     .format = &format_size,
     FIELD_AT(struct inv_copy, max_rate),
     .about = "Bytes a second."},
    {.name = "cache",
     .kind = FIELD_TABLE,
     .table = &cache_table,
     .size = sizeof(struct inv_copy),
     .about = "A binary cache that is filled once and that targets fetch from."},
};

static const struct table copy_table = {
    .name = "copy", .fields = copy_fields, .count = ARRAY_LEN(copy_fields)};

static const struct field build_fields[] = {
    {.name = "on",
     .kind = FIELD_CUSTOM,
     .read = settings_read_builders,
     .schema = "{\"anyOf\": [{\"$ref\": \"#/definitions/builder\"}, {\"type\": \"array\", "
               "\"minItems\": 1, \"maxItems\": 1000, "
               "\"items\": {\"$ref\": \"#/definitions/builder\"}}]}",
     .about = "local, target, an inventory host or an address; a list shares the builds out."},
};

static const struct table build_table = {
    .name = "build", .fields = build_fields, .count = ARRAY_LEN(build_fields)};

static const struct field settings_fields[] = {
    {.name = "address",
     .kind = FIELD_CUSTOM,
     .where = CONNECTION,
     .required = LAYER_BUILDER,
     .read = settings_read_addresses,
     .schema = "{\"anyOf\": [{\"$ref\": \"#/definitions/address\"}, {\"type\": \"array\", "
               "\"minItems\": 1, \"items\": {\"allOf\": [{\"$ref\": "
               "\"#/definitions/address\"}, {\"not\": {\"const\": \"local\"}}]}}]}",
     .about = "One or several, tried in order; \"local\" is this machine. Default: the name."},
    {.name = "tags",
     .kind = FIELD_TEXTS,
     .where = LAYER_HOST,
     .format = &format_tag,
     .max = FIELD_LIST_MAX,
     FIELD_AT(struct draft, host.tags),
     .about = "Any words; those that the top-level \"tags\" names bring settings along.",
     .scope = "tags are given to hosts"},
    {.name = "user",
     .kind = FIELD_TEXT,
     .nullable = true,
     .where = CONNECTION,
     .format = &format_name,
     FIELD_AT(struct draft, host.user),
     .about = "Default: as ssh_config says, else the operator's own name."},
    {.name = "port",
     .kind = FIELD_COUNT,
     .nullable = true,
     .where = CONNECTION,
     .min = 1,
     .max = UINT16_MAX,
     FIELD_AT(struct draft, host.port),
     .about = "Default: as ssh_config says, else 22."},
    {.name = "identity_file",
     .kind = FIELD_ONE_OR_TEXTS,
     .nullable = true,
     .where = CONNECTION,
     .format = &format_file,
     FIELD_AT(struct draft, host.identity_files),
     .about = "One or several; the agent is tried first."},
    {.name = "known_hosts",
     .kind = FIELD_TEXT,
     .nullable = true,
     .where = CONNECTION,
     .format = &format_file,
     FIELD_AT(struct draft, host.known_hosts),
     .about = "Default: as ssh_config says."},
    {.name = "host_key",
     .kind = FIELD_CUSTOM,
     .where = CONNECTION,
     .read = settings_read_host_keys,
     .schema = "{\"anyOf\": [{\"$ref\": \"#/definitions/host_key\"}, {\"type\": \"array\", "
               "\"minItems\": 1, \"items\": {\"$ref\": \"#/definitions/host_key\"}}]}",
     .about = "One or several public keys; then known_hosts is not read."},
    {.name = "host_key_check",
     .kind = FIELD_CHOICE,
     .where = CONNECTION,
     .choices = host_key_checks,
     FIELD_AT(struct draft, host.host_key_check),
     .about = "Default: ask."},
    {.name = "jump",
     .kind = FIELD_CUSTOM,
     .where = CONNECTION,
     .format = &format_name,
     .read = settings_read_jump,
     .schema = "{\"anyOf\": [{\"type\": \"null\"}, {\"$ref\": \"#/definitions/name\"}]}",
     .about = "An inventory host or user@host:port."},
    {.name = "connect_timeout",
     .kind = FIELD_DURATION,
     .where = CONNECTION,
     .format = &format_positive,
     FIELD_AT(struct draft, host.connect_timeout_ms),
     .about = "Default: 10s."},
    {.name = "sudo",
     .kind = FIELD_BOOL,
     .where = CONNECTION,
     FIELD_AT(struct draft, host.sudo),
     .about = "Run what needs root through sudo."},
    {.name = "password_command",
     .kind = FIELD_TEXTS,
     .nullable = true,
     .where = CONNECTION,
     .min = 1,
     .format = &format_argument,
     FIELD_AT(struct draft, host.password_command),
     .about = "Prints the password for sudo; without it sudo -n."},
    {.name = "optional",
     .kind = FIELD_BOOL,
     .where = SETTINGS,
     FIELD_AT(struct draft, host.optional),
     .about = "Not reached at the start is skipped, and counted nowhere."},
    {.name = "profile",
     .kind = FIELD_TEXT,
     .where = SETTINGS,
     .format = &format_target_path,
     FIELD_AT(struct draft, host.profile),
     .about = "Default: /nix/var/nix/profiles/system."},
    {.name = "system",
     .kind = FIELD_CUSTOM,
     .where = SETTINGS,
     .read = settings_read_system,
     .schema = "{\"$ref\": \"#/definitions/system\"}",
     .about = "What to build. Default: the flake beside the inventory."},
    {.name = "nix_options",
     .kind = FIELD_OPTIONS,
     .where = SETTINGS,
     FIELD_AT(struct draft, host.system.nix_options),
     .about = "Options of nix.conf for evaluation and build."},
    {.name = "nix_bin",
     .kind = FIELD_TEXT,
     .where = SETTINGS,
     .format = &format_file,
     FIELD_AT(struct draft, host.system.nix_bin),
     .about = "The folder of the Nix tools. Default: PATH."},
    {.name = "build",
     .kind = FIELD_TABLE,
     .where = SETTINGS,
     .table = &build_table,
     .size = sizeof(struct draft),
     .about = "Where to build. Default: local."},
    {.name = "copy",
     .kind = FIELD_CUSTOM,
     .where = SETTINGS,
     .read = settings_read_cache,
     .table = &copy_table,
     .about = "How closures get to the target."},
    {.name = "policy",
     .kind = FIELD_CUSTOM,
     .where = SETTINGS,
     .read = settings_read_policy,
     .schema = "@policy",
     .about = "How the rollout goes."},
    {.name = "health",
     .kind = FIELD_CUSTOM,
     .where = SETTINGS,
     .read = settings_read_health,
     .schema = "{\"anyOf\": [{\"const\": false}, {\"type\": \"array\", \"maxItems\": 1000, "
               "\"items\": {\"$ref\": \"#/definitions/health\"}}]}",
     .about = "Probes, merged by name; false turns all off."},
    {.name = "secrets",
     .kind = FIELD_CUSTOM,
     .where = SETTINGS,
     .read = settings_read_secrets,
     .schema = "{\"type\": \"array\", \"maxItems\": 1000, "
               "\"items\": {\"$ref\": \"#/definitions/secret\"}}",
     .about = "Files for the target, merged by name."},
};

const struct table settings_table = {
    .name = "settings",
    .fields = settings_fields,
    .count = ARRAY_LEN(settings_fields),
    .places = layer_names,
    .place_count = LAYER_COUNT,
};

void settings_start(struct draft *draft) {
    static const struct inv_build_on build_local = {.kind = INV_BUILD_LOCAL};
    *draft = (struct draft){
        .host =
            {
                .host_key_check = INV_HOST_KEY_ASK,
                .connect_timeout_ms = 10000,
                .profile = "/nix/var/nix/profiles/system",
                .build_on = &build_local,
                .build_on_count = 1,
                .copy = {.compress = INV_COMPRESS_AUTO, .substitute = INV_SUBSTITUTE_AUTO},
                .policy =
                    {
                        .activate_timeout_ms = 600000,
                        .confirm_timeout_ms = 60000,
                        .startup_grace_ms = 5000,
                        .min_healthy_time_ms = 10000,
                        .healthy_deadline_ms = 300000,
                        .tolerate_preexisting = true,
                        .rollback = true,
                        .reboot = INV_REBOOT_NEVER,
                    },
            },
    };
}

bool settings_read(struct reader *reader, uint32_t layer, const struct json_node *node,
                   struct draft *draft) {
    draft->layer = layer;
    return table_read(reader, &settings_table, layer, node, draft);
}

bool settings_read_host_keys(struct reader *reader, const struct field *field,
                             const struct json_node *node, void *base) {
    struct draft *draft = base;
    struct inv_strings keys;
    (void)field;
    if (!reader_texts(reader, node, &format_host_key, 1, true, &keys)) {
        return false;
    }
    /* What stands behind the key is a comment. */
    const char **items = arena_alloc(reader->arena, keys.count, sizeof(*items));
    for (size_t i = 0; i < keys.count; i++) {
        const char *key = strchr(keys.items[i], ' ') + 1;
        size_t len = (size_t)(key - keys.items[i]) + strcspn(key, " ");
        items[i] = arena_text(reader->arena, keys.items[i], len);
    }
    draft->host.host_keys = (struct inv_strings){.items = items, .count = keys.count};
    return true;
}

bool settings_read_cache(struct reader *reader, const struct field *field,
                         const struct json_node *node, void *base) {
    struct draft *draft = base;
    if (json_member(node, "cache") != NULL) {
        draft->cache_node = json_member(node, "cache");
    }
    return table_read(reader, field->table, LAYERS_ALL, node, &draft->host.copy);
}
