/* `policy`: the table of CONTRACT, one line a field, with its scope. */
#include <string.h>

#include "core/base/xalloc.h"
#include "inventory/settings.h"

#define SCOPE_RUN   (LAYER_DEFAULTS | LAYER_OVERRIDE)
#define SCOPE_GROUP (LAYER_DEFAULTS | LAYER_TAG | LAYER_OVERRIDE)
#define SCOPE_HOST  (LAYER_DEFAULTS | LAYER_TAG | LAYER_HOST | LAYER_OVERRIDE)

static const char *const layer_names[] = {"defaults", "a tag", "a host", "--policy"};

static const char run_words[] = "it holds for the whole run";
static const char group_words[] = "it bounds a group of hosts";

static const struct field_choice prestages[] = {
    {"all", INV_PRESTAGE_ALL, false},
    {"wave", INV_PRESTAGE_WAVE, false},
    {"none", INV_PRESTAGE_NONE, false},
    {NULL, 0, false},
};

static const struct field_choice orders[] = {
    {"unhealthy-first", INV_ORDER_UNHEALTHY_FIRST, false},
    {"inventory", INV_ORDER_INVENTORY, false},
    {"shuffle", INV_ORDER_SHUFFLE, false},
    {NULL, 0, false},
};

static const struct field_choice on_failures[] = {
    {"rollback-host", INV_ON_FAILURE_ROLLBACK_HOST, false},
    {"rollback-wave", INV_ON_FAILURE_ROLLBACK_WAVE, false},
    {"rollback-all", INV_ON_FAILURE_ROLLBACK_ALL, false},
    {"leave", INV_ON_FAILURE_LEAVE, false},
    {NULL, 0, false},
};

static const struct field_choice promotes[] = {
    {"auto", false, false}, {"manual", true, false}, {NULL, 0, false}};

static const struct field_choice reboots[] = {
    {"never", INV_REBOOT_NEVER, false},
    {"if-needed", INV_REBOOT_IF_NEEDED, false},
    {"always", INV_REBOOT_ALWAYS, false},
    {NULL, 0, false},
};

static field_read_fn read_waves;
static field_read_fn read_limit;

#define RUN_FIELD(member)                                                                          \
    .where = SCOPE_RUN, FIELD_AT(struct inv_run_policy, member), .scope = run_words
#define HOST_FIELD(member) .where = SCOPE_HOST, FIELD_AT(struct inv_host_policy, member)

static const struct field policy_fields[] = {
    {.name = "waves",
     .kind = FIELD_CUSTOM,
     .read = read_waves,
     .schema = "{\"type\": \"array\", \"minItems\": 1, \"maxItems\": 1000, \"items\": {\"anyOf\": ["
               "{\"$ref\": \"#/definitions/wave\"}, {\"type\": \"object\", "
               "\"additionalProperties\": false, \"required\": [\"tag\"], "
               "\"properties\": {\"tag\": {\"$ref\": \"#/definitions/tag\"}}}]}}",
     RUN_FIELD(waves)},
    {.name = "max_parallel",
     .kind = FIELD_CUSTOM,
     .where = SCOPE_GROUP,
     .read = read_limit,
     .schema = "{\"type\": \"integer\", \"minimum\": 1, \"maximum\": 1000000}",
     .scope = group_words,
     FIELD_AT(struct inv_group_limit, max_parallel)},
    {.name = "copy_parallel",
     .kind = FIELD_CUSTOM,
     .where = SCOPE_GROUP,
     .read = read_limit,
     .schema = "{\"type\": \"integer\", \"minimum\": 1, \"maximum\": 1000000}",
     .scope = group_words,
     FIELD_AT(struct inv_group_limit, copy_parallel)},
    {.name = "exclusive",
     .kind = FIELD_TEXT,
     .nullable = true,
     .format = &format_line,
     HOST_FIELD(exclusive)},
    {.name = "prestage", .kind = FIELD_CHOICE, .choices = prestages, RUN_FIELD(prestage)},
    {.name = "order", .kind = FIELD_CHOICE, .choices = orders, RUN_FIELD(order)},
    {.name = "activate_timeout",
     .kind = FIELD_DURATION,
     .format = &format_positive,
     HOST_FIELD(activate_timeout_ms)},
    {.name = "confirm_timeout",
     .kind = FIELD_DURATION,
     .format = &format_positive,
     HOST_FIELD(confirm_timeout_ms)},
    {.name = "startup_grace",
     .kind = FIELD_DURATION,
     .format = &format_duration,
     HOST_FIELD(startup_grace_ms)},
    {.name = "min_healthy_time",
     .kind = FIELD_DURATION,
     .format = &format_duration,
     HOST_FIELD(min_healthy_time_ms)},
    {.name = "healthy_deadline",
     .kind = FIELD_DURATION,
     .format = &format_positive,
     HOST_FIELD(healthy_deadline_ms)},
    {.name = "fail_fast", .kind = FIELD_BOOL, HOST_FIELD(fail_fast)},
    {.name = "bake", .kind = FIELD_DURATION, .format = &format_duration, RUN_FIELD(bake_ms)},
    {.name = "max_failed", .kind = FIELD_AMOUNT, RUN_FIELD(max_failed)},
    {.name = "max_unreachable", .kind = FIELD_AMOUNT, RUN_FIELD(max_unreachable)},
    {.name = "on_failure", .kind = FIELD_CHOICE, .choices = on_failures, RUN_FIELD(on_failure)},
    {.name = "tolerate_preexisting", .kind = FIELD_BOOL, HOST_FIELD(tolerate_preexisting)},
    {.name = "rollback", .kind = FIELD_BOOL, HOST_FIELD(rollback)},
    {.name = "promote", .kind = FIELD_CHOICE, .choices = promotes, RUN_FIELD(promote_manual)},
    {.name = "reboot", .kind = FIELD_CHOICE, .choices = reboots, HOST_FIELD(reboot)},
};

/* Each scope has a struct of its own; run and group are read once, not for every host. */
static void *place(void *base, const struct field *field) {
    struct draft *draft = base;
    if (field->where == SCOPE_RUN) {
        return draft->run;
    }
    return field->where == SCOPE_GROUP ? (void *)draft->limit : &draft->host.policy;
}

const struct table policy_table = {
    .name = "policy",
    .fields = policy_fields,
    .count = ARRAY_LEN(policy_fields),
    .places = layer_names,
    .place_count = ARRAY_LEN(layer_names),
    .place = place,
};

bool settings_read_policy(struct reader *reader, const struct field *field,
                          const struct json_node *node, void *base) {
    struct draft *draft = base;
    (void)field;
    return table_read(reader, &policy_table, draft->layer, node, draft);
}

static bool read_wave(struct reader *reader, const struct json_node *node, struct inv_wave *ret) {
    static const struct field fields[] = {
        {.name = "tag",
         .kind = FIELD_TEXT,
         .required = LAYERS_ALL,
         .format = &format_tag,
         FIELD_AT(struct inv_wave, tag)},
    };
    static const struct table table = {
        .name = "wave", .fields = fields, .count = ARRAY_LEN(fields)};
    if (node->type == JSON_OBJECT) {
        return table_read(reader, &table, LAYERS_ALL, node, ret);
    }
    if (node->type != JSON_NUMBER && node->type != JSON_STRING) {
        return reader_refuse(reader, node,
                             "a number from 1, a share such as \"10%\", {\"tag\": \"canary\"}");
    }
    return reader_amount(reader, node, 1, &ret->size);
}

static bool read_waves(struct reader *reader, const struct field *field,
                       const struct json_node *node, void *base) {
    struct inv_run_policy *run = base;
    (void)field;
    if (node->type != JSON_ARRAY || node->count == 0 || node->count > FIELD_LIST_MAX) {
        return reader_refuse(reader, node,
                             "a list of 1 to 1000 waves such as [1, \"10%\", \"100%\"]");
    }
    struct inv_wave *waves = arena_alloc(reader->arena, node->count, sizeof(*waves));
    bool good = true;
    for (const struct json_node *item = json_child(node); item != NULL; item = item->next) {
        good = read_wave(reader, item, &waves[item->index]) && good;
    }
    if (good) {
        run->waves = waves;
        run->wave_count = node->count;
    }
    return good;
}

static bool read_limit(struct reader *reader, const struct field *field,
                       const struct json_node *node, void *base) {
    struct inv_group_limit *limit = base;
    uint32_t value;
    if (!reader_count(reader, node, 1, 1000000, &value)) {
        return false;
    }
    if (field->offset == offsetof(struct inv_group_limit, max_parallel)) {
        limit->has_max_parallel = true;
        limit->max_parallel = value;
    } else {
        limit->has_copy_parallel = true;
        limit->copy_parallel = value;
    }
    return true;
}

void policy_start(struct inv_run_policy *run) {
    static const struct inv_wave waves[] = {
        {.size = {.percent = false, .value = 1}},
        {.size = {.percent = true, .value = 10}},
        {.size = {.percent = true, .value = 100}},
    };
    *run = (struct inv_run_policy){
        .waves = waves,
        .wave_count = ARRAY_LEN(waves),
        .prestage = INV_PRESTAGE_WAVE,
        .order = INV_ORDER_UNHEALTHY_FIRST,
        .on_failure = INV_ON_FAILURE_ROLLBACK_HOST,
    };
}
