#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "inventory/select.h"

static struct inventory *inventory;

static void load(const char *text) {
    char path[] = "/tmp/fleet-select-XXXXXX";
    struct inv_errors errors;
    struct error error = ERROR_INIT;
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    cr_assert_eq(inventory_load(path, NULL, 0, &inventory, &errors, &error), 0, "%s",
                 error.message);
    unlink(path);
}

static void load_fleet(void) {
    load("{\"defaults\": {\"system\": {\"flake\": \".\"}}, \"tags\": {\"idle\": {}}, \"hosts\": {"
         "\"db1\": {\"tags\": [\"db\", \"prod\"]}, \"db2\": {\"tags\": [\"db\", \"canary\"]},"
         "\"web1\": {\"tags\": [\"web\", \"prod\"]}, \"web2\": {\"tags\": [\"web\", \"canary\"]},"
         "\"lone\": {}}}");
}

static void unload(void) {
    inventory_free(inventory);
}

TestSuite(select, .init = load_fleet, .fini = unload);

/* A NULL-terminated list of words as strings; each test has few. */
static struct inv_strings words(const char *const *items) {
    size_t count = 0;
    while (items != NULL && items[count] != NULL) {
        count++;
    }
    return (struct inv_strings){.items = items, .count = count};
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

struct given {
    const char *const *selectors, *const *tags, *const *on, *const *exclude;
};

static int resolve(const struct given *given, char *ret_names, size_t size, struct error *error) {
    struct selection_args args = {.selectors = words(given->selectors),
                                  .tags = words(given->tags),
                                  .on = words(given->on),
                                  .exclude = words(given->exclude)};
    const struct inv_host **hosts = NULL;
    size_t count = 0;
    int code = selection_resolve(inventory, &args, &hosts, &count, error);
    ret_names[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(ret_names);
        snprintf(ret_names + len, size - len, "%s%s", i > 0 ? " " : "", hosts[i]->name);
    }
    free(hosts);
    return code;
}

static void expect(struct given given, const char *wanted) {
    char names[200];
    struct error error = ERROR_INIT;
    cr_assert_eq(resolve(&given, names, sizeof(names), &error), 0, "%s", error.message);
    cr_assert_str_eq(names, wanted);
}

static void expect_refused(struct given given, const char *wanted) {
    char names[200];
    struct error error = ERROR_INIT;
    cr_assert_eq(resolve(&given, names, sizeof(names), &error), FLEET_ERR_USAGE, "selected: %s",
                 names);
    cr_assert_not_null(strstr(error.message, wanted), "%s", error.message);
}

Test(select, means_all_hosts_without_a_word) {
    expect((struct given){0}, "db1 db2 web1 web2 lone");
    expect((struct given){.selectors = WORDS("@all")}, "db1 db2 web1 web2 lone");
}

Test(select, adds_selectors_up_in_the_inventorys_order) {
    expect((struct given){.selectors = WORDS("web1", "@db")}, "db1 db2 web1");
    expect((struct given){.selectors = WORDS("*2")}, "db2 web2");
    expect((struct given){.selectors = WORDS("[dw]*1", "lone")}, "db1 web1 lone");
}

Test(select, understands_tag_expressions) {
    expect((struct given){.tags = WORDS("db,web")}, "db1 db2 web1 web2");
    expect((struct given){.tags = WORDS("db+prod")}, "db1");
    expect((struct given){.tags = WORDS("!canary")}, "db1 web1 lone");
    expect((struct given){.tags = WORDS("db+!canary,web+canary")}, "db1 web2");
    expect((struct given){.tags = WORDS("db,web", "!canary")}, "db1 web1");
    expect((struct given){.tags = WORDS("!idle")}, "db1 db2 web1 web2 lone");
}

Test(select, narrows_with_on_and_takes_away_with_exclude) {
    expect((struct given){.on = WORDS("@db,web1,!db2")}, "db1 web1");
    expect((struct given){.on = WORDS("!@canary")}, "db1 web1 lone");
    expect((struct given){.on = WORDS("@db", "*1")}, "db1");
    expect((struct given){.selectors = WORDS("@db", "@web"),
                          .tags = WORDS("prod"),
                          .exclude = WORDS("web*")},
           "db1");
    expect((struct given){.exclude = WORDS("@canary,!db2")}, "db1 db2 web1 lone");
}

Test(select, refuses_what_matches_nothing_with_the_nearest_name) {
    expect_refused((struct given){.selectors = WORDS("bd1")}, "did you mean \"db1\"?");
    expect_refused((struct given){.selectors = WORDS("@wbe")}, "did you mean \"web\"?");
    expect_refused((struct given){.tags = WORDS("porduct")}, "no tag \"porduct\"");
    expect_refused((struct given){.tags = WORDS("!canray")}, "did you mean \"canary\"?");
    expect_refused((struct given){.on = WORDS("!bd1")}, "did you mean \"db1\"?");
    expect_refused((struct given){.exclude = WORDS("@cnary")}, "did you mean \"canary\"?");
    expect_refused((struct given){.selectors = WORDS("x*")}, "no host matches");
    expect_refused((struct given){.selectors = WORDS("@idle")}, "no host has the tag");
    expect_refused((struct given){.selectors = WORDS("db")}, "the tag is \"@db\"");
}

Test(select, refuses_what_leaves_no_host) {
    expect_refused((struct given){.tags = WORDS("db+web")}, "no host has these tags together");
    expect_refused((struct given){.selectors = WORDS("@db"), .on = WORDS("@web")},
                   "no host is left by: @db --on @web");
    expect_refused((struct given){.exclude = WORDS("*")}, "--exclude *");
}

Test(select, refuses_empty_words) {
    expect_refused((struct given){.selectors = WORDS("")}, "empty selector");
    expect_refused((struct given){.on = WORDS("db1,")}, "empty selector");
    expect_refused((struct given){.tags = WORDS("db+")}, "empty part");
    expect_refused((struct given){.tags = WORDS("")}, "empty part");
    expect_refused((struct given){.selectors = WORDS("@")}, "no tag");
}

Test(select, shows_no_hostile_bytes) {
    expect_refused((struct given){.selectors = WORDS("\x1b[2Jx")}, "\"x\"");
}

Test(select_empty, selects_nothing_of_an_empty_inventory) {
    load("{\"hosts\": {}}");
    expect((struct given){0}, "");
    expect((struct given){.selectors = WORDS("@all")}, "");
    expect_refused((struct given){.selectors = WORDS("db1")}, "no host matches");
    unload();
}
