/* Most hosts of a large fleet say little themselves, so the layers below a host (defaults and tags)
 * are merged once for each set of tags that occurs and copied: a host costs what it says itself.
 * Only where one of those layers uses ${name} must they be read again for each host.
 */
#include "inventory/merge.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "inventory/address.h"
#include "inventory/settings.h"

/* A tag that the file's "tags" lists. */
struct declared {
    const char *name;
    const struct json_node *node;
    bool saw_name;
};

/* The merged layers of one set of tags. `finished` has the default probe too, for the many hosts
 * that add none of their own. */
struct base {
    struct draft draft;
    const struct inv_health *finished;
    size_t finished_count;
};

/* Where a host says what only the whole inventory can prove right. */
struct late {
    const struct json_node *jump, *builders;
};

struct merger {
    struct reader *reader;
    const struct merge_input *input;
    bool defaults_saw_name;
    struct declared *declared;
    size_t declared_count;
    struct name_table declared_names;
    struct inv_host fleet;        /* the connection settings of `defaults` */
    struct name_table base_names; /* sets of tags */
    struct base **bases;
    size_t base_count, base_cap;
    struct name_table tag_names; /* all tags */
    const char **tags;
    size_t tag_count, tag_cap;
    struct inv_host *hosts;
    struct late *late; /* one a host */
    size_t host_count;
    struct name_table *host_names;
    const char **all_names; /* of the hosts, for the nearest one; made when it is needed */
};

/* The one copy of a tag's name. */
static const char *intern_tag(struct merger *merger, const char *name) {
    size_t at;
    size_t len = strlen(name);
    if (name_table_find(&merger->tag_names, name, len, &at)) {
        assert(at < merger->tag_count);
        return merger->tags[at];
    }
    if (merger->tag_count == merger->tag_cap) {
        merger->tag_cap = merger->tag_cap > 0 ? merger->tag_cap * 2 : 16;
        merger->tags = xrealloc(merger->tags, merger->tag_cap * sizeof(*merger->tags));
    }
    const char *copy = arena_text(merger->reader->arena, name, len);
    name_table_add(&merger->tag_names, copy, len, merger->tag_count, NULL);
    merger->tags[merger->tag_count++] = copy;
    return copy;
}

/* Reads `defaults` for itself: what is wrong is told even where no host is. */
static void read_defaults(struct merger *merger, struct inv_run_policy *run,
                          struct inv_group_limit *limit) {
    struct draft draft;
    settings_start(&draft);
    draft.run = run;
    draft.limit = limit;
    if (merger->input->defaults != NULL) {
        merger->reader->saw_name = false;
        settings_read(merger->reader, LAYER_DEFAULTS, merger->input->defaults, &draft);
        merger->defaults_saw_name = merger->reader->saw_name;
    }
    merger->fleet = draft.host;
}

static void read_tag(struct merger *merger, const struct json_node *node,
                     struct inv_group_limit *ret_limit) {
    struct declared *declared = &merger->declared[merger->declared_count];
    if (!format_tag.check(node->key)) {
        report_key(merger->reader->report, node, "not a tag; allowed: %s", format_tag.allowed);
    }
    struct draft draft;
    settings_start(&draft);
    draft.limit = ret_limit;
    draft.builder_base = &merger->fleet;
    merger->reader->saw_name = false;
    settings_read(merger->reader, LAYER_TAG, node, &draft);
    *declared = (struct declared){
        .name = intern_tag(merger, node->key), .node = node, .saw_name = merger->reader->saw_name};
    name_table_add(&merger->declared_names, declared->name, strlen(declared->name),
                   merger->declared_count++, NULL);
    ret_limit->tag = declared->name;
}

static void read_tags(struct merger *merger, struct inv_group_limit *limits, size_t *count) {
    const struct json_node *tags = merger->input->tags;
    if (tags == NULL) {
        return;
    }
    if (tags->type != JSON_OBJECT) {
        reader_refuse(merger->reader, tags, "an object of tags and their settings");
        return;
    }
    merger->declared = xcalloc(tags->count, sizeof(*merger->declared));
    for (const struct json_node *node = json_child(tags); node != NULL; node = node->next) {
        struct inv_group_limit limit = {0};
        read_tag(merger, node, &limit);
        if (limit.has_max_parallel || limit.has_copy_parallel) {
            limits[(*count)++] = limit;
        }
    }
}

/* Run and group scope of --policy; those of host scope are applied to each host. */
static void read_run_overrides(struct merger *merger, struct inv_run_policy *run,
                               struct inv_group_limit *limit) {
    struct draft scratch;
    settings_start(&scratch);
    scratch.run = run;
    scratch.limit = limit;
    for (size_t i = 0; i < merger->input->override_count; i++) {
        const struct merge_override *override = &merger->input->overrides[i];
        report_source(merger->reader->report, override->source);
        field_read(merger->reader, override->field, override->node,
                   policy_table.place(&scratch, override->field));
    }
    report_source(merger->reader->report, NULL);
}

static void apply_overrides(struct merger *merger, struct draft *draft) {
    draft->run = NULL;
    draft->limit = NULL;
    for (size_t i = 0; i < merger->input->override_count; i++) {
        const struct merge_override *override = &merger->input->overrides[i];
        void *place = policy_table.place(draft, override->field);
        if (place != NULL) {
            report_source(merger->reader->report, override->source);
            field_read(merger->reader, override->field, override->node, place);
            report_source(merger->reader->report, NULL);
        }
    }
}

static int compare_positions(const void *left, const void *right) {
    size_t a = *(const size_t *)left;
    size_t b = *(const size_t *)right;
    return a < b ? -1 : a > b;
}

/* Positions of the host's declared tags, in the file's order. */
static size_t declared_of(const struct merger *merger, const struct inv_strings *tags,
                          size_t *ret) {
    size_t count = 0;
    for (size_t i = 0; i < tags->count; i++) {
        if (name_table_find(&merger->declared_names, tags->items[i], strlen(tags->items[i]),
                            &ret[count])) {
            count++;
        }
    }
    if (count > 1) {
        qsort(ret, count, sizeof(*ret), compare_positions);
    }
    return count;
}

static void apply_layers(struct merger *merger, const size_t *set, size_t count,
                         struct draft *draft) {
    settings_start(draft);
    draft->builder_base = &merger->fleet;
    if (merger->input->defaults != NULL) {
        settings_read(merger->reader, LAYER_DEFAULTS, merger->input->defaults, draft);
    }
    for (size_t i = 0; i < count; i++) {
        settings_read(merger->reader, LAYER_TAG, merger->declared[set[i]].node, draft);
    }
}

/* The shared result for a set of tags, made where it is met first. */
static const struct base *shared_base(struct merger *merger, const size_t *set, size_t count) {
    size_t at;
    if (name_table_find(&merger->base_names, set, count * sizeof(*set), &at)) {
        assert(at < merger->base_count);
        return merger->bases[at];
    }
    if (merger->base_count == merger->base_cap) {
        merger->base_cap = merger->base_cap > 0 ? merger->base_cap * 2 : 16;
        merger->bases = xrealloc(merger->bases, merger->base_cap * sizeof(struct base *));
    }
    struct base *base = arena_alloc(merger->reader->arena, 1, sizeof(*base));
    size_t *key = arena_copy(merger->reader->arena, set, count, sizeof(*set));
    apply_layers(merger, set, count, &base->draft);
    struct draft finished = base->draft;
    health_add_default(merger->reader, &finished);
    base->finished = finished.host.health;
    base->finished_count = finished.host.health_count;
    name_table_add(&merger->base_names, key, count * sizeof(*set), merger->base_count, NULL);
    merger->bases[merger->base_count++] = base;
    return base;
}

/* The host's tags, each once and interned. Misread ones are told when the host's layer is read. */
static struct inv_strings read_host_tags(struct merger *merger, const struct json_node *node) {
    const struct json_node *list = json_member(node, "tags");
    if (list == NULL || list->type != JSON_ARRAY) {
        return (struct inv_strings){0};
    }
    if (list->count > FIELD_LIST_MAX) {
        reader_refuse(merger->reader, list, "a list of at most 1000 tags");
        return (struct inv_strings){0};
    }
    const char **items = arena_alloc(merger->reader->arena, list->count, sizeof(*items));
    size_t count = 0;
    for (const struct json_node *item = json_child(list); item != NULL; item = item->next) {
        if (item->type != JSON_STRING || !format_tag.check(item->text)) {
            continue;
        }
        const char *tag = intern_tag(merger, item->text);
        size_t i = 0;
        while (i < count && items[i] != tag) {
            i++;
        }
        items[i] = tag;
        count += i == count ? 1 : 0;
    }
    return (struct inv_strings){.items = items, .count = count};
}

/* Everything below the host's own layer. */
static void start_host(struct merger *merger, const struct inv_strings *tags,
                       const struct json_node *node, struct draft *draft) {
    size_t set[FIELD_LIST_MAX];
    size_t count = declared_of(merger, tags, set);
    bool own = merger->defaults_saw_name;
    for (size_t i = 0; i < count; i++) {
        own = own || merger->declared[set[i]].saw_name;
    }
    if (own) {
        apply_layers(merger, set, count, draft);
        return;
    }
    const struct base *base = shared_base(merger, set, count);
    *draft = base->draft;
    if (json_member(node, "health") == NULL) {
        draft->host.health = base->finished;
        draft->host.health_count = base->finished_count;
    }
}

static void finish_address(struct merger *merger, const struct json_node *node,
                           struct draft *draft) {
    struct inv_host *host = &draft->host;
    if (host->local || host->address_count > 0) {
        return;
    }
    struct address_parts parts;
    if (!address_split(host->name, &parts)) {
        report_key(merger->reader->report, node,
                   "this name is no address that could be connected to; give \"address\"");
        return;
    }
    struct inv_address *address = arena_alloc(merger->reader->arena, 1, sizeof(*address));
    address->host = parts.host_len == strlen(host->name)
                        ? host->name
                        : arena_text(merger->reader->arena, parts.host, parts.host_len);
    address->port = parts.port;
    host->addresses = address;
    host->address_count = 1;
}

static void finish_cache(struct merger *merger, const struct json_node *node,
                         const struct draft *draft) {
    const struct inv_copy *copy = &draft->host.copy;
    int given = (copy->cache_push != NULL) + (copy->cache_substituter != NULL) +
                (copy->cache_public_key != NULL);
    if (given != 0 && given != 3) {
        report_key(merger->reader->report, draft->cache_node != NULL ? draft->cache_node : node,
                   "host %s: a cache needs \"push\", \"substituter\" and \"public_key\"",
                   draft->host.name);
    }
}

static void merge_host(struct merger *merger, const struct json_node *node, struct draft *draft) {
    struct reader *reader = merger->reader;
    const char *name = arena_text(reader->arena, node->key, strlen(node->key));
    /* Files are named after hosts: these two would be folders. */
    bool named = format_name.check(name) && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
    if (!named) {
        report_key(reader->report, node, "not a host name; allowed: %s, and not . or ..",
                   format_name.allowed);
        /* What is expanded from it would be refused in many places. */
        name = "name";
    }
    struct inv_strings tags = read_host_tags(merger, node);
    reader->host_name = name;
    start_host(merger, &tags, node, draft);
    draft->host.name = name;
    settings_read(reader, LAYER_HOST, node, draft);
    draft->host.tags = tags;
    health_add_default(reader, draft);
    apply_overrides(merger, draft);
    finish_address(merger, node, draft);
    finish_cache(merger, node, draft);
    if (named) {
        system_finish(reader, node, merger->input->has_flake, draft);
    }
    reader->host_name = NULL;
}

static void merge_hosts(struct merger *merger) {
    const struct json_node *hosts = merger->input->hosts;
    if (hosts == NULL) {
        return;
    }
    if (hosts->type != JSON_OBJECT) {
        reader_refuse(merger->reader, hosts, "an object of host names and their settings");
        return;
    }
    merger->hosts = arena_alloc(merger->reader->arena, hosts->count, sizeof(*merger->hosts));
    merger->late = xcalloc(hosts->count, sizeof(*merger->late));
    for (const struct json_node *node = json_child(hosts); node != NULL; node = node->next) {
        struct draft draft;
        size_t index = merger->host_count;
        merge_host(merger, node, &draft);
        draft.host.index = index;
        merger->hosts[index] = draft.host;
        merger->late[index] =
            (struct late){.jump = draft.jump_node, .builders = draft.builders_node};
        name_table_add(merger->host_names, draft.host.name, strlen(draft.host.name), index, NULL);
        merger->host_count++;
    }
}

static const struct inv_host *find_host(const struct merger *merger, const char *name) {
    size_t at;
    return name_table_find(merger->host_names, name, strlen(name), &at) ? &merger->hosts[at] : NULL;
}

static const char *nearest_host(struct merger *merger, const char *name) {
    if (merger->all_names == NULL) {
        merger->all_names = xcalloc(merger->host_count, sizeof(*merger->all_names));
        for (size_t i = 0; i < merger->host_count; i++) {
            merger->all_names[i] = merger->hosts[i].name;
        }
    }
    return text_nearest(name, merger->all_names, merger->host_count);
}

/* Says that `name` is no host of the inventory. */
static void report_no_host(struct merger *merger, const struct json_node *node, const char *name,
                           const char *allowed) {
    const char *near = nearest_host(merger, name);
    report_value(merger->reader->report, node,
                 "no host of the inventory is named \"%s\"%s%s%s; "
                 "allowed: %s",
                 name, near != NULL ? "; did you mean \"" : "", near != NULL ? near : "",
                 near != NULL ? "\"?" : "", allowed);
}

/* True if `jump` is of the form [user@]host[:port] of a machine outside the inventory. A single
 * word is none: it is more likely a host's name misspelt. */
static bool is_outside_jump(const char *jump) {
    size_t user_len;
    const char *rest;
    const char *user = address_user(jump, &user_len, &rest);
    return address_split(rest, NULL) && (user == NULL || user_len > 0) &&
           (user != NULL || strpbrk(rest, ".:") != NULL);
}

static void resolve_jump(struct merger *merger, struct inv_host *host,
                         const struct json_node *node) {
    if (host->jump == NULL || node == NULL) {
        return;
    }
    host->jump_host = find_host(merger, host->jump);
    if (host->jump_host != NULL) {
        if (host->jump_host->local) {
            report_value(merger->reader->report, node,
                         "\"%s\" is this machine: a jump through it "
                         "leads nowhere; say null",
                         host->jump);
            host->jump_host = NULL;
        }
        return;
    }
    if (!is_outside_jump(host->jump)) {
        report_no_host(merger, node, host->jump, "a host of the inventory, user@host:port, null");
    }
}

static void resolve_jumps(struct merger *merger) {
    const struct json_node *bad = NULL;
    for (size_t i = 0; i < merger->host_count; i++) {
        const struct json_node *node = merger->late[i].jump;
        /* A node that many hosts share is told once, and looked up for the nearest name once. */
        if (node != NULL && node == bad) {
            continue;
        }
        bool clean = report_is_empty(merger->reader->report);
        resolve_jump(merger, &merger->hosts[i], node);
        if (clean != report_is_empty(merger->reader->report) || !clean) {
            bad = merger->hosts[i].jump_host == NULL ? node : bad;
        }
    }
    for (struct draft *spec = merger->reader->specs; spec != NULL; spec = spec->next_spec) {
        resolve_jump(merger, &spec->host, spec->jump_node);
    }
}

/* Follows each host's jumps; a host that is met again on the same way closes a cycle. */
static void check_jump_cycles(struct merger *merger) {
    size_t *seen_from = xcalloc(merger->host_count, sizeof(*seen_from));
    for (size_t i = 0; i < merger->host_count; i++) {
        const struct inv_host *at = &merger->hosts[i];
        while (at != NULL && seen_from[at->index] == 0) {
            seen_from[at->index] = i + 1;
            at = at->jump_host;
        }
        if (at == NULL || seen_from[at->index] != i + 1) {
            continue;
        }
        struct buf way = BUF_INIT;
        const struct inv_host *step = at;
        do {
            buf_printf(&way, "%s -> ", step->name);
            step = step->jump_host;
        } while (step != at && way.len < 200);
        report_value(merger->reader->report, merger->late[at->index].jump,
                     "the jumps go in a circle: %s%s; say \"jump\": null for one of them",
                     buf_text(&way), step == at ? at->name : "...");
        buf_free(&way);
    }
    free(seen_from);
}

static void check_builders(struct merger *merger) {
    static const char allowed[] =
        "\"local\", \"target\", a host of the inventory, {\"address\": ...}";
    const struct json_node *done = NULL;
    for (size_t i = 0; i < merger->host_count; i++) {
        const struct inv_host *host = &merger->hosts[i];
        const struct json_node *node = merger->late[i].builders;
        if (node == NULL || node == done) {
            continue;
        }
        done = node;
        const struct json_node *item = node->type == JSON_ARRAY ? json_child(node) : node;
        for (size_t j = 0; j < host->build_on_count && item != NULL; j++, item = item->next) {
            const struct inv_build_on *on = &host->build_on[j];
            if (on->kind == INV_BUILD_HOST && find_host(merger, on->host) == NULL) {
                report_no_host(merger, item, on->host, allowed);
            }
        }
    }
}

/* Tags that waves name must exist; a misspelt one would be an empty wave. */
static void check_wave_tags(struct merger *merger, const struct inv_run_policy *run) {
    struct report *report = merger->reader->report;
    const struct json_node *defaults = merger->input->defaults;
    const struct json_node *policy = defaults != NULL ? json_member(defaults, "policy") : NULL;
    const struct json_node *waves = policy != NULL ? json_member(policy, "waves") : NULL;
    for (size_t i = 0; i < merger->input->override_count; i++) {
        if (strcmp(merger->input->overrides[i].field->name, "waves") == 0) {
            report_source(report, merger->input->overrides[i].source);
            waves = merger->input->overrides[i].node;
        }
    }
    const struct json_node *node = waves != NULL ? json_child(waves) : NULL;
    for (size_t i = 0; i < run->wave_count && node != NULL; i++, node = node->next) {
        const char *tag = run->waves[i].tag;
        size_t ignored;
        if (tag == NULL || name_table_find(&merger->tag_names, tag, strlen(tag), &ignored)) {
            continue;
        }
        const char *near = text_nearest(tag, merger->tags, merger->tag_count);
        report_value(report, node,
                     "no host has the tag \"%s\"%s%s%s; allowed: a tag of the "
                     "inventory",
                     tag, near != NULL ? "; did you mean \"" : "", near != NULL ? near : "",
                     near != NULL ? "\"?" : "");
    }
    report_source(report, NULL);
}

static void release(struct merger *merger) {
    name_table_release(&merger->declared_names);
    name_table_release(&merger->base_names);
    name_table_release(&merger->tag_names);
    free(merger->declared);
    free(merger->bases);
    free(merger->tags);
    free(merger->late);
    free(merger->all_names);
}

void merge(struct reader *reader, const struct merge_input *input, struct inventory *inventory,
           struct name_table *ret_names) {
    struct merger merger = {.reader = reader, .input = input, .host_names = ret_names};
    size_t tag_count = input->tags != NULL ? input->tags->count : 0;
    struct inv_group_limit *limits = arena_alloc(reader->arena, tag_count + 1, sizeof(*limits));
    size_t limit_count = 1;
    policy_start(&inventory->policy);
    read_defaults(&merger, &inventory->policy, &limits[0]);
    read_run_overrides(&merger, &inventory->policy, &limits[0]);
    read_tags(&merger, limits, &limit_count);
    merge_hosts(&merger);
    resolve_jumps(&merger);
    check_jump_cycles(&merger);
    check_builders(&merger);
    check_wave_tags(&merger, &inventory->policy);
    /* The first one bounds all hosts, and is left out where nothing was said. */
    bool whole = limits[0].has_max_parallel || limits[0].has_copy_parallel;
    inventory->policy.limits = whole ? limits : limits + 1;
    inventory->policy.limit_count = limit_count - (whole ? 0 : 1);
    inventory->hosts = merger.hosts;
    inventory->host_count = merger.host_count;
    inventory->tags = (struct inv_strings){
        .items = arena_copy(reader->arena, merger.tags, merger.tag_count, sizeof(*merger.tags)),
        .count = merger.tag_count};
    release(&merger);
}
