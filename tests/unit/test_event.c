#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "core/base/xalloc.h"
#include "core/event.h"
#include "core/event_fields.h"

static struct event *event_of(enum event_type type) {
    struct event *event = event_new(type);
    event->seq = 7;
    event->ts_ms = INT64_C(1795367071123);
    event->run = xstrdup("20261122-170400-x7k2q9");
    return event;
}

/* Formats and frees; the caller frees the line, which is without its newline. */
static char *line_of(struct event *event) {
    struct buf out = BUF_INIT;
    event_format(event, &out);
    cr_assert_eq(out.data[out.len - 1], '\n');
    out.data[--out.len] = '\0';
    cr_assert_null(strchr(out.data, '\n'), "one line an event");
    event_free(event);
    return buf_take(&out);
}

static void assert_line(struct event *event, const char *rest) {
    char *line = line_of(event);
    char *want = xasprintf("{\"v\":1,\"seq\":7,\"ts\":\"2026-11-22T17:04:31.123Z\","
                           "\"run\":\"20261122-170400-x7k2q9\",%s}",
                           rest);
    cr_assert_str_eq(line, want);
    struct event *again = NULL;
    cr_assert_eq(event_parse(line, strlen(line), &again, NULL), 0);
    char *second = line_of(again);
    cr_assert_str_eq(second, want, "reading and writing again gives the same line");
    free(line);
    free(want);
    free(second);
}

Test(event, run_start_names_hosts_by_wave) {
    struct event *event = event_of(EVENT_RUN_START);
    event->fleet = xstrdup("demo");
    event->rev = xstrdup("a1b2c3d");
    event->dirty = true;
    event->action = ACTION_TEST;
    event->policy = xstrdup("{ \"max_failed\": 0 }");
    event->max_failed = 1;
    event->healthy_ms = 10000;
    event->wave_count = 2;
    event->host_count = 3;
    event->hosts = xcalloc(3, sizeof(*event->hosts));
    event->hosts[0] = (struct event_host){.name = xstrdup("a"), .wave = 2};
    event->hosts[1] = (struct event_host){
        .name = xstrdup("b"), .wave = 1, .address = xstrdup("root@10.0.0.1:2222")};
    event->hosts[2] = (struct event_host){.name = xstrdup("c"), .wave = 2};
    assert_line(event, "\"type\":\"run_start\",\"fleet\":\"demo\",\"action\":\"test\","
                       "\"git\":{\"rev\":\"a1b2c3d\",\"dirty\":true},\"hosts\":[\"a\",\"b\",\"c\"],"
                       "\"waves\":[[\"b\"],[\"a\",\"c\"]],\"policy\":{\"max_failed\":0},"
                       "\"addresses\":{\"b\":\"root@10.0.0.1:2222\"},"
                       "\"max_failed\":1,\"healthy_ms\":10000");
}

Test(event, first_host_state_comes_from_null) {
    struct event *event = event_of(EVENT_HOST_STATE);
    event->host = xstrdup("db1");
    event->wave = 2;
    event->to = HOST_CONNECTING;
    assert_line(event, "\"type\":\"host_state\",\"host\":\"db1\",\"wave\":2,\"from\":null,"
                       "\"to\":\"connecting\",\"reason\":null,\"message\":null,\"duration_ms\":0");
}

Test(event, host_state_carries_reason_and_generation) {
    struct event *event = event_of(EVENT_HOST_STATE);
    event->host = xstrdup("db1");
    event->has_from = true;
    event->from = HOST_PROBING;
    event->to = HOST_ROLLING_BACK;
    event->reason = xstrdup("probe-failed");
    event->message = xstrdup("web: \"refused\"\n3 times \\o/");
    event->duration_ms = 1234;
    event->generation = 147;
    assert_line(event,
                "\"type\":\"host_state\",\"host\":\"db1\",\"from\":\"probing\","
                "\"to\":\"rolling_back\",\"reason\":\"probe-failed\",\"message\":\"web: "
                "\\\"refused\\\"\\n3 times \\\\o/\",\"duration_ms\":1234,\"generation\":147");
}

Test(event, reason_that_says_nothing_is_null) {
    struct event *event = event_of(EVENT_HOST_STATE);
    event->host = xstrdup("a");
    event->to = HOST_STAGED;
    event->reason = xstrdup("");
    event->message = xstrdup("");
    event->desired = xstrdup("");
    assert_line(event, "\"type\":\"host_state\",\"host\":\"a\",\"from\":null,\"to\":\"staged\","
                       "\"reason\":null,\"message\":null,\"duration_ms\":0");
}

Test(event, other_types) {
    struct event *event = event_of(EVENT_COPY);
    event->host = xstrdup("a");
    event->bytes_done = 1;
    event->bytes_total = UINT64_C(9007199254740991);
    event->paths_total = 4;
    assert_line(event, "\"type\":\"copy\",\"host\":\"a\",\"bytes_done\":1,"
                       "\"bytes_total\":9007199254740991,\"paths_done\":0,\"paths_total\":4");
    event = event_of(EVENT_PROBE);
    event->host = xstrdup("a");
    event->name = xstrdup("web");
    event->ok = true;
    event->detail = xstrdup("200");
    event->duration_ms = 12;
    assert_line(event, "\"type\":\"probe\",\"host\":\"a\",\"name\":\"web\",\"ok\":true,"
                       "\"detail\":\"200\",\"duration_ms\":12");
    event = event_of(EVENT_GRANT);
    event->host = xstrdup("a");
    event->act = ACT_ACTIVATE;
    event->path = xstrdup("/nix/store/x");
    event->nonce = xstrdup("n1");
    assert_line(event, "\"type\":\"grant\",\"host\":\"a\",\"act\":\"activate\","
                       "\"path\":\"/nix/store/x\",\"nonce\":\"n1\"");
    event = event_of(EVENT_WAVE_START);
    event->wave = 1;
    assert_line(event, "\"type\":\"wave_start\",\"wave\":1");
    event = event_of(EVENT_PAUSE);
    event->reason = xstrdup("promote");
    assert_line(event, "\"type\":\"pause\",\"reason\":\"promote\"");
    event = event_of(EVENT_BUILD);
    event->state = xstrdup("built");
    event->path = xstrdup("/nix/store/x");
    assert_line(event, "\"type\":\"build\",\"state\":\"built\",\"path\":\"/nix/store/x\","
                       "\"drv\":null");
}

Test(event, run_end_counts_every_end) {
    struct event *event = event_of(EVENT_RUN_END);
    event->result = xstrdup("failed");
    event->exit = 3;
    event->counts[HOST_HEALTHY] = 5;
    event->counts[HOST_ROLLED_BACK] = 1;
    assert_line(event, "\"type\":\"run_end\",\"result\":\"failed\",\"exit\":3,\"counts\":{"
                       "\"healthy\":5,\"unchanged\":0,\"failed\":0,\"rolled_back\":1,"
                       "\"rollback_failed\":0,\"unreachable\":0,\"skipped\":0,"
                       "\"reboot_required\":0,\"unknown\":0}");
}

Test(event, hostile_bytes_are_cleaned) {
    struct event *event = event_of(EVENT_LOG);
    event->host = xstrdup("a");
    event->stream = xstrdup("activation");
    event->line = xstrdup("\033[2Jred\r\001 \xff \xe2\x80\xae end");
    assert_line(event, "\"type\":\"log\",\"host\":\"a\",\"stream\":\"activation\","
                       "\"line\":\"red \xEF\xBF\xBD  end\"");
}

static const char *refused(const char *line) {
    static struct error error;
    struct event *event = NULL;
    cr_assert_eq(event_parse(line, strlen(line), &event, &error), FLEET_ERR_PROTOCOL, "%s", line);
    cr_assert_null(event);
    return error.reason;
}

#define HEAD "{\"v\":1,\"seq\":1,\"ts\":\"2026-11-22T17:04:31.123Z\",\"run\":\"r\","

Test(event, what_is_torn_or_no_event_is_refused) {
    cr_assert_str_eq(refused(""), "bad-event");
    cr_assert_str_eq(refused("{"), "bad-event");
    cr_assert_str_eq(refused("[]"), "bad-event");
    cr_assert_str_eq(refused(HEAD "\"type\":\"log\""), "bad-event");
    cr_assert_str_eq(refused(HEAD "\"type\":\"log\"} x"), "bad-event");
    cr_assert_str_eq(refused("{\"v\":1,\"seq\":1,\"ts\":\"soon\",\"type\":\"log\"}"), "bad-event");
    cr_assert_str_eq(refused("{\"V\":1,\"SEQ\":1,\"TS\":\"2026-11-22T17:04:31.123Z\",\"Type\":"
                             "\"log\"}"),
                     "bad-event");
    struct event *event = NULL;
    cr_assert_eq(event_parse("{}\0", 3, &event, NULL), FLEET_ERR_PROTOCOL);
}

Test(event, what_a_newer_version_wrote_is_told_apart) {
    cr_assert_str_eq(refused(HEAD "\"type\":\"tea\"}"), "unknown-event");
    cr_assert_str_eq(refused(HEAD "\"type\":\"host_state\",\"to\":\"dreaming\"}"), "unknown-event");
    cr_assert_str_eq(refused(HEAD "\"type\":\"grant\",\"act\":\"sing\"}"), "unknown-event");
    cr_assert_str_eq(refused("{\"v\":2,\"seq\":1,\"ts\":\"2026-11-22T17:04:31.123Z\",\"type\":"
                             "\"log\"}"),
                     "newer-version");
    struct event *event = NULL;
    const char *more = HEAD "\"type\":\"log\",\"stream\":5,\"line\":\"x\",\"mood\":\"good\"}";
    cr_assert_eq(event_parse(more, strlen(more), &event, NULL), 0);
    cr_assert_null(event->stream);
    cr_assert_str_eq(event->line, "x");
    event_free(event);
}

Test(event, numbers_out_of_range_do_no_harm) {
    const char *line = HEAD "\"type\":\"copy\",\"bytes_done\":-1,\"bytes_total\":1e300,"
                            "\"paths_done\":1.5,\"paths_total\":\"7\"}";
    struct event *event = NULL;
    cr_assert_eq(event_parse(line, strlen(line), &event, NULL), 0);
    cr_assert_eq(event->bytes_done, 0);
    cr_assert_eq(event->bytes_total, 0);
    cr_assert_eq(event->paths_done, 1);
    cr_assert_eq(event->paths_total, 0);
    event_free(event);
}

Test(event, ten_thousand_hosts_take_no_square) {
    struct event *event = event_of(EVENT_RUN_START);
    event->host_count = 10000;
    event->wave_count = 10000;
    event->hosts = xcalloc(event->host_count, sizeof(*event->hosts));
    for (size_t i = 0; i < event->host_count; i++) {
        event->hosts[i].name = xasprintf("host-%zu", i);
        event->hosts[i].wave = (uint32_t)(event->host_count - i);
    }
    char *line = line_of(event);
    struct event *again = NULL;
    cr_assert_eq(event_parse(line, strlen(line), &again, NULL), 0);
    cr_assert_eq(again->hosts[9999].wave, 1);
    cr_assert_eq(again->hosts[0].wave, 10000);
    event_free(again);
    free(line);
}

/* ---- the schema that ships with the program ---- */

static cJSON *load_schema(void) {
    FILE *file = fopen("fleet.events.schema.json", "r");
    cr_assert_not_null(file, "run the tests from the repository's root");
    static char text[65536];
    size_t len = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[len] = '\0';
    cJSON *schema = cJSON_Parse(text);
    cr_assert_not_null(schema);
    return schema;
}

static cJSON *get(const cJSON *object, const char *name) {
    cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    cr_assert_not_null(item, "the schema has no %s", name);
    return item;
}

static void assert_enum(const cJSON *list, const char *(*name_of)(int), int count) {
    cr_assert_eq(cJSON_GetArraySize(list), count);
    for (int i = 0; i < count; i++) {
        cr_assert_str_eq(cJSON_GetArrayItem(list, i)->valuestring, name_of(i));
    }
}

static const char *state_at(int i) {
    return host_state_name((enum host_state)i);
}
static const char *act_at(int i) {
    return act_name((enum act)i);
}
static const char *action_at(int i) {
    return run_action_name((enum run_action)i);
}

Test(event, schema_has_the_same_names_and_fields) {
    cJSON *schema = load_schema();
    const cJSON *defs = get(schema, "$defs");
    assert_enum(get(get(defs, "state"), "enum"), state_at, HOST_STATE_COUNT);
    assert_enum(get(get(defs, "act"), "enum"), act_at, ACT_COUNT);
    assert_enum(get(get(defs, "action"), "enum"), action_at, ACTION_COUNT);
    for (int type = 0; type < EVENT_TYPE_COUNT; type++) {
        const struct event_layout *layout = event_layout((enum event_type)type);
        const cJSON *def = get(defs, layout->name);
        const cJSON *properties = get(def, "properties");
        const cJSON *required = get(def, "required");
        int fields = 0;
        int needed = 0;
        for (const struct event_field *field = layout->fields; field->name != NULL; field++) {
            get(properties, field->name);
            fields++;
            needed += !field->optional;
        }
        /* Beside its own fields each names its type. */
        cr_assert_eq(cJSON_GetArraySize(properties), fields + 1, "%s", layout->name);
        cr_assert_eq(cJSON_GetArraySize(required), needed, "%s", layout->name);
    }
    cJSON_Delete(schema);
}
