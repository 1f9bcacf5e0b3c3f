/* How a host is reached: its addresses, the hosts that it is reached through, and build hosts, which
 * are reached in the same way.
 */
#include <string.h>

#include "inventory/address.h"
#include "inventory/settings.h"

static bool read_address(struct reader *reader, const struct json_node *node,
                         struct inv_address *ret) {
    const char *text = reader_text(reader, node, &format_address);
    struct address_parts parts;
    if (text == NULL || !address_split(text, &parts)) {
        return false;
    }
    *ret = (struct inv_address){.host = arena_text(reader->arena, parts.host, parts.host_len),
                                .port = parts.port};
    return true;
}

bool settings_read_addresses(struct reader *reader, const struct field *field,
                             const struct json_node *node, void *base) {
    struct draft *draft = base;
    (void)field;
    if (node->type == JSON_STRING && strcmp(node->text, "local") == 0) {
        if (draft->layer == LAYER_BUILDER) {
            return reader_refuse(reader, node, "an address; to build here say \"on\": \"local\"");
        }
        draft->host.local = true;
        draft->host.addresses = NULL;
        draft->host.address_count = 0;
        return true;
    }
    bool list = node->type == JSON_ARRAY;
    if (!(list && node->count > 0) && node->type != JSON_STRING) {
        return reader_refuse(reader, node, "one address or a list of them, not empty");
    }
    size_t count = list ? node->count : 1;
    struct inv_address *items = arena_alloc(reader->arena, count, sizeof(*items));
    bool good = true;
    const struct json_node *item = list ? json_child(node) : node;
    for (size_t i = 0; i < count; i++, item = item->next) {
        if (list && item->type == JSON_STRING && strcmp(item->text, "local") == 0) {
            good = reader_refuse(reader, item, "\"local\" only by itself, not in a list");
        } else {
            good = read_address(reader, item, &items[i]) && good;
        }
    }
    if (good) {
        draft->host.local = false;
        draft->host.addresses = items;
        draft->host.address_count = count;
    }
    return good;
}

bool settings_read_jump(struct reader *reader, const struct field *field,
                        const struct json_node *node, void *base) {
    struct draft *draft = base;
    draft->jump_node = node;
    if (node->type == JSON_NULL) {
        draft->host.jump = NULL;
        return true;
    }
    const char *text = reader_text(reader, node, field->format);
    if (text != NULL) {
        draft->host.jump = text;
    }
    return text != NULL;
}

/* The address form: a host of its own, which has the fleet's user and keys but for what it says. */
static const struct inv_host *read_builder_spec(struct reader *reader, const struct json_node *node,
                                                const struct inv_host *fleet) {
    struct draft *draft = arena_alloc(reader->arena, 1, sizeof(*draft));
    settings_start(draft);
    if (fleet != NULL) {
        draft->host.user = fleet->user;
        draft->host.identity_files = fleet->identity_files;
        draft->host.known_hosts = fleet->known_hosts;
        draft->host.host_key_check = fleet->host_key_check;
        draft->host.connect_timeout_ms = fleet->connect_timeout_ms;
    }
    if (!settings_read(reader, LAYER_BUILDER, node, draft)) {
        return NULL;
    }
    draft->host.name = draft->host.addresses[0].host;
    draft->next_spec = reader->specs;
    reader->specs = draft;
    return &draft->host;
}

static bool read_builder(struct reader *reader, const struct json_node *node,
                         const struct inv_host *fleet, struct inv_build_on *ret) {
    if (node->type == JSON_OBJECT) {
        *ret = (struct inv_build_on){.kind = INV_BUILD_ADDRESS,
                                     .spec = read_builder_spec(reader, node, fleet)};
        return ret->spec != NULL;
    }
    if (node->type != JSON_STRING) {
        return reader_refuse(reader, node,
                             "\"local\", \"target\", an inventory host, {\"address\": ...}");
    }
    const char *text = reader_text(reader, node, &format_name);
    if (text == NULL) {
        return false;
    }
    bool local = strcmp(text, "local") == 0;
    bool target = strcmp(text, "target") == 0;
    *ret = (struct inv_build_on){
        .kind = local    ? INV_BUILD_LOCAL
                : target ? INV_BUILD_TARGET
                         : INV_BUILD_HOST,
        .host = local || target ? NULL : text,
    };
    return true;
}

bool settings_read_builders(struct reader *reader, const struct field *field,
                            const struct json_node *node, void *base) {
    struct draft *draft = base;
    (void)field;
    bool list = node->type == JSON_ARRAY;
    if (list && (node->count == 0 || node->count > FIELD_LIST_MAX)) {
        return reader_refuse(reader, node, "a list of 1 to 1000 build hosts");
    }
    size_t count = list ? node->count : 1;
    struct inv_build_on *items = arena_alloc(reader->arena, count, sizeof(*items));
    bool good = true;
    const struct json_node *item = list ? json_child(node) : node;
    for (size_t i = 0; i < count; i++, item = item->next) {
        good = read_builder(reader, item, draft->builder_base, &items[i]) && good;
    }
    if (good) {
        draft->host.build_on = items;
        draft->host.build_on_count = count;
        draft->builders_node = node;
    }
    return good;
}
