/* The loader against CONTRACT, "Inventory": what merges how, what is refused, and where. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"
#include "inventory/inventory.h"

#define STORE_PATH "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-system"
#define SYSTEM     "\"system\": {\"path\": \"" STORE_PATH "\"}"

static char folder[] = "/tmp/fleet-inventory-XXXXXX";
static char *file_path;

static void make_folder(void) {
    cr_assert_not_null(mkdtemp(folder));
    file_path = xasprintf("%s/fleet.json", folder);
}

static void remove_folder(void) {
    char *flake = xasprintf("%s/flake.nix", folder);
    unlink(flake);
    unlink(file_path);
    rmdir(folder);
    free(flake);
    free(file_path);
}

TestSuite(inventory, .init = make_folder, .fini = remove_folder);

static void write_bytes(const char *path, const char *text, size_t len) {
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(text, 1, len, file), len);
    fclose(file);
}

static void add_flake(void) {
    char *flake = xasprintf("%s/flake.nix", folder);
    write_bytes(flake, "{}", 2);
    free(flake);
}

static struct inventory *load_with(const char *text, const struct inv_override *overrides,
                                   size_t count) {
    struct inventory *inventory = NULL;
    struct inv_errors errors;
    struct error error = ERROR_INIT;
    struct buf out = BUF_INIT;
    write_bytes(file_path, text, strlen(text));
    int code = inventory_load(file_path, overrides, count, &inventory, &errors, &error);
    inv_errors_print(&errors, "fleet.json", &out);
    cr_assert_eq(code, 0, "%s\n%s", error.message, buf_text(&out));
    cr_assert_eq(errors.count, 0);
    inv_errors_free(&errors);
    buf_free(&out);
    return inventory;
}

static struct inventory *load(const char *text) {
    return load_with(text, NULL, 0);
}

/* The errors of `text` as they are printed; the caller frees. */
static char *refused_with(const char *text, const struct inv_override *overrides, size_t count) {
    struct inventory *inventory = NULL;
    struct inv_errors errors;
    struct error error = ERROR_INIT;
    struct buf out = BUF_INIT;
    write_bytes(file_path, text, strlen(text));
    int code = inventory_load(file_path, overrides, count, &inventory, &errors, &error);
    cr_assert_eq(code, FLEET_ERR_USAGE, "accepted: %s", text);
    cr_assert_null(inventory);
    inv_errors_print(&errors, "f", &out);
    inv_errors_free(&errors);
    return buf_take(&out);
}

/* `text` gives exactly one error, at this place, with these words. */
static void expect_refused(const char *text, const char *place, const char *words) {
    char *out = refused_with(text, NULL, 0);
    cr_assert(strncmp(out, place, strlen(place)) == 0, "%s instead of %s for %s", out, place, text);
    cr_assert_not_null(strstr(out, words), "%s lacks: %s", out, words);
    cr_assert_eq(strchr(out, '\n')[1], '\0', "more than one error: %s", out);
    free(out);
}

/* One host "a" with `settings`, and a system. */
static void expect_host_refused(const char *settings, const char *words) {
    char *text = xasprintf("{\"hosts\": {\"a\": {" SYSTEM ", %s}}}", settings);
    expect_refused(text, "f:1:", words);
    free(text);
}

Test(inventory, loads_the_contracts_example) {
    struct inventory *inventory =
        load("{\"version\": 1, \"name\": \"demo\",\n"
             " \"defaults\": {\"user\": \"root\", \"port\": 22, \"identity_file\": "
             "\"~/.ssh/id_ed25519\","
             "  \"known_hosts\": \"~/.ssh/known_hosts\", \"host_key_check\": \"strict\","
             "  \"sudo\": false, \"jump\": null, \"connect_timeout\": \"10s\","
             "  \"build\": {\"on\": \"local\"},"
             "  \"copy\": {\"compress\": \"auto\", \"substitute\": false},"
             "  \"policy\": {}, \"health\": []},\n"
             " \"tags\": {\"db\": {\"policy\": {\"max_parallel\": 1}}},\n"
             " \"hosts\": {\"db1\": {\"address\": [\"10.0.0.11\", \"fd00::11\"],"
             "  \"tags\": [\"db\", \"prod\"],"
             "  \"system\": {\"flake\": "
             "\".#nixosConfigurations.db1.config.system.build.toplevel\"},"
             "  \"health\": [{\"name\": \"pg\", \"type\": \"tcp\", \"port\": 5432}]}}}");
    const struct inv_host *host = inventory_host(inventory, "db1");
    cr_assert_not_null(host);
    cr_assert_str_eq(inventory->name, "demo");
    cr_assert_str_eq(host->user, "root");
    cr_assert_eq(host->port, 22);
    cr_assert_eq(host->host_key_check, INV_HOST_KEY_STRICT);
    cr_assert_eq(host->copy.substitute, INV_SUBSTITUTE_NO);
    cr_assert_eq(host->address_count, 2);
    cr_assert_str_eq(host->addresses[1].host, "fd00::11");
    cr_assert_str_eq(host->system.flake_ref, inventory->dir);
    cr_assert_str_eq(host->system.flake_attr,
                     "nixosConfigurations.db1.config.system.build.toplevel");
    cr_assert_eq(host->health_count, 2);
    cr_assert_str_eq(host->health[0].name, "units");
    cr_assert_eq(host->health[0].interval_ms, 5000);
    cr_assert_eq(host->health[0].type, INV_HEALTH_SYSTEMD);
    cr_assert_str_eq(host->health[1].name, "pg");
    cr_assert_eq(inventory->policy.limit_count, 1);
    cr_assert_str_eq(inventory->policy.limits[0].tag, "db");
    cr_assert_eq(inventory->policy.limits[0].max_parallel, 1);
    cr_assert_not(inventory->policy.limits[0].has_copy_parallel);
    cr_assert_eq(inventory->tags.count, 2);
    cr_assert_str_eq(inventory->tags.items[1], "prod");
    inventory_free(inventory);
}

Test(inventory, loads_the_example_of_the_repository) {
    struct inventory *inventory = NULL;
    struct inv_errors errors;
    struct error error = ERROR_INIT;
    struct buf out = BUF_INIT;
    int code = inventory_load("fleet.example.json", NULL, 0, &inventory, &errors, &error);
    inv_errors_print(&errors, "fleet.example.json", &out);
    cr_assert_eq(code, 0, "%s\n%s", error.message, buf_text(&out));
    cr_assert_eq(inventory->host_count, 6);
    const struct inv_host *web = inventory_host(inventory, "web1");
    cr_assert_str_eq(web->addresses[0].host, "web1.example.org");
    cr_assert_eq(web->jump_host, inventory_host(inventory, "gate"));
    inventory_free(inventory);
    buf_free(&out);
}

Test(inventory, gives_an_empty_host_the_flake_beside_it) {
    add_flake();
    struct inventory *inventory = load("{\"hosts\": {\"web\": {}}}");
    const struct inv_host *host = &inventory->hosts[0];
    cr_assert_eq(host->system.kind, INV_SYSTEM_FLAKE);
    cr_assert_str_eq(host->system.flake_ref, inventory->dir);
    cr_assert_str_eq(host->system.flake_attr,
                     "nixosConfigurations.\"web\".config.system.build.toplevel");
    cr_assert_str_eq(host->addresses[0].host, "web");
    cr_assert_eq(host->port, 0);
    cr_assert_null(host->user);
    cr_assert_str_eq(host->profile, "/nix/var/nix/profiles/system");
    cr_assert_eq(host->build_on_count, 1);
    cr_assert_eq(host->build_on[0].kind, INV_BUILD_LOCAL);
    cr_assert_eq(host->host_key_check, INV_HOST_KEY_ASK);
    cr_assert_eq(host->copy.substitute, INV_SUBSTITUTE_AUTO);
    inventory_free(inventory);
}

Test(inventory, wants_a_system_where_no_flake_lies_beside_it) {
    expect_refused("{\"hosts\": {\"a\": {}}}", "f:1:12: hosts.a: ", "no flake.nix lies beside");
}

Test(inventory, has_the_policy_of_the_contract_by_default) {
    struct inventory *inventory = load("{\"hosts\": {\"a\": {" SYSTEM "}}}");
    const struct inv_run_policy *run = &inventory->policy;
    const struct inv_host_policy *policy = &inventory->hosts[0].policy;
    cr_assert_eq(run->wave_count, 3);
    cr_assert_eq(run->waves[0].size.value, 1);
    cr_assert_not(run->waves[0].size.percent);
    cr_assert(run->waves[1].size.percent);
    cr_assert_eq(run->waves[1].size.value, 10);
    cr_assert_eq(run->waves[2].size.value, 100);
    cr_assert_eq(run->limit_count, 0);
    cr_assert_eq(run->prestage, INV_PRESTAGE_WAVE);
    cr_assert_eq(run->order, INV_ORDER_UNHEALTHY_FIRST);
    cr_assert_eq(run->bake_ms, 0);
    cr_assert_eq(run->max_failed.value, 0);
    cr_assert_eq(run->on_failure, INV_ON_FAILURE_ROLLBACK_HOST);
    cr_assert_not(run->promote_manual);
    cr_assert_eq(policy->activate_timeout_ms, 600000);
    cr_assert_eq(policy->confirm_timeout_ms, 60000);
    cr_assert_eq(policy->startup_grace_ms, 5000);
    cr_assert_eq(policy->min_healthy_time_ms, 10000);
    cr_assert_eq(policy->healthy_deadline_ms, 300000);
    cr_assert_not(policy->fail_fast);
    cr_assert(policy->tolerate_preexisting);
    cr_assert(policy->rollback);
    cr_assert_eq(policy->reboot, INV_REBOOT_NEVER);
    cr_assert_null(policy->exclusive);
    inventory_free(inventory);
}

Test(inventory, reads_every_policy) {
    struct inventory *inventory = load(
        "{\"defaults\": {" SYSTEM ", \"policy\": {\"waves\": [{\"tag\": \"c\"}, 3, \"50%\"],"
        " \"max_parallel\": 7, \"copy_parallel\": 9, \"prestage\": \"all\", \"order\": \"shuffle\","
        " \"bake\": \"2m\", \"max_failed\": \"10%\", \"max_unreachable\": 2,"
        " \"on_failure\": \"rollback-all\", \"promote\": \"manual\"}},"
        " \"hosts\": {\"a\": {\"tags\": [\"c\"], \"policy\": {\"exclusive\": \"g\","
        " \"activate_timeout\": \"1m\", \"confirm_timeout\": \"2m\", \"startup_grace\": \"0s\","
        " \"min_healthy_time\": \"3s\", \"healthy_deadline\": \"4m\", \"fail_fast\": true,"
        " \"tolerate_preexisting\": false, \"rollback\": false, \"reboot\": \"always\"}}}}");
    const struct inv_run_policy *run = &inventory->policy;
    const struct inv_host_policy *policy = &inventory->hosts[0].policy;
    cr_assert_str_eq(run->waves[0].tag, "c");
    cr_assert_eq(run->waves[1].size.value, 3);
    cr_assert_eq(run->limit_count, 1);
    cr_assert_null(run->limits[0].tag);
    cr_assert_eq(run->limits[0].max_parallel, 7);
    cr_assert_eq(run->limits[0].copy_parallel, 9);
    cr_assert_eq(run->prestage, INV_PRESTAGE_ALL);
    cr_assert_eq(run->order, INV_ORDER_SHUFFLE);
    cr_assert_eq(run->bake_ms, 120000);
    cr_assert(run->max_failed.percent);
    cr_assert_eq(run->max_unreachable.value, 2);
    cr_assert_eq(run->on_failure, INV_ON_FAILURE_ROLLBACK_ALL);
    cr_assert(run->promote_manual);
    cr_assert_str_eq(policy->exclusive, "g");
    cr_assert_eq(policy->activate_timeout_ms, 60000);
    cr_assert_eq(policy->confirm_timeout_ms, 120000);
    cr_assert_eq(policy->startup_grace_ms, 0);
    cr_assert(policy->fail_fast);
    cr_assert_not(policy->rollback);
    cr_assert_eq(policy->reboot, INV_REBOOT_ALWAYS);
    inventory_free(inventory);
}

Test(inventory, holds_each_policy_to_its_scope) {
    expect_host_refused("\"policy\": {\"waves\": [1]}", "holds for the whole run; allowed in: "
                                                        "defaults, --policy");
    expect_host_refused("\"policy\": {\"max_parallel\": 1}",
                        "not allowed in a host: it bounds a group of hosts; allowed in: defaults, "
                        "a tag, --policy");
    expect_refused("{\"tags\": {\"t\": {\"policy\": {\"bake\": \"1s\"}}}, \"hosts\": {}}",
                   "f:1:28: tags.t.policy.bake: ", "not allowed in a tag");
}

Test(inventory, merges_tags_in_the_files_order_and_the_host_last) {
    struct inventory *inventory =
        load("{\"defaults\": {" SYSTEM ", \"user\": \"d\", \"port\": 1, \"policy\": {\"reboot\": "
             "\"always\", \"fail_fast\": true}},"
             " \"tags\": {\"x\": {\"user\": \"x\", \"port\": 2, \"sudo\": true},"
             "            \"y\": {\"user\": \"y\", \"port\": 3}},"
             " \"hosts\": {\"a\": {\"tags\": [\"y\", \"x\", \"y\"], \"port\": 4},"
             "             \"b\": {\"tags\": [\"x\"], \"policy\": {\"fail_fast\": false}},"
             "             \"c\": {}}}");
    const struct inv_host *a = inventory_host(inventory, "a");
    cr_assert_str_eq(a->user, "y");
    cr_assert_eq(a->port, 4);
    cr_assert(a->sudo);
    cr_assert_eq(a->tags.count, 2);
    const struct inv_host *b = inventory_host(inventory, "b");
    cr_assert_str_eq(b->user, "x");
    cr_assert_eq(b->port, 2);
    cr_assert_not(b->policy.fail_fast);
    cr_assert_eq(b->policy.reboot, INV_REBOOT_ALWAYS);
    const struct inv_host *c = inventory_host(inventory, "c");
    cr_assert_str_eq(c->user, "d");
    cr_assert(c->policy.fail_fast);
    inventory_free(inventory);
}

static const char merging_health[] =
    "{\"defaults\": {" SYSTEM ", \"health\": [{\"name\": \"p\", \"type\": \"tcp\", \"port\": 1},"
    "   {\"name\": \"q\", \"type\": \"tcp\", \"port\": 2}],"
    "   \"secrets\": [{\"name\": \"s\", \"file\": \"s1\"}, {\"name\": \"t\", \"file\": \"t1\"}]},"
    " \"tags\": {\"off\": {\"health\": false}, \"sys\": {\"health\": [{\"name\": \"mine\","
    "   \"type\": \"systemd\", \"units\": [\"a.service\"]}]}},"
    " \"hosts\": {\"a\": {\"health\": [{\"name\": \"p\", \"type\": \"http\", \"url\": "
    "\"http://x\"}],"
    "   \"secrets\": [{\"name\": \"t\", \"file\": \"/t2\"}]},"
    "  \"b\": {}, \"c\": {\"tags\": [\"off\"]}, \"d\": {\"health\": false},"
    "  \"e\": {\"tags\": [\"sys\"]},"
    "  \"f\": {\"tags\": [\"off\"], \"health\": [{\"name\": \"z\", \"type\": \"tcp\", \"port\": "
    "9}]}}}";

Test(inventory, merges_health_by_name) {
    struct inventory *inventory = load(merging_health);
    const struct inv_host *a = inventory_host(inventory, "a");
    cr_assert_eq(a->health_count, 3);
    cr_assert_str_eq(a->health[0].name, "units");
    cr_assert_str_eq(a->health[1].name, "p");
    cr_assert_eq(a->health[1].type, INV_HEALTH_HTTP);
    cr_assert_eq(a->health[1].status_max, 399);
    cr_assert_eq(a->health[2].port, 2);
    const struct inv_host *b = inventory_host(inventory, "b");
    cr_assert_eq(b->health_count, 3);
    cr_assert_eq(b->health[1].type, INV_HEALTH_TCP);
    cr_assert_eq(inventory_host(inventory, "c")->health_count, 0);
    cr_assert_eq(inventory_host(inventory, "d")->health_count, 0);
    const struct inv_host *e = inventory_host(inventory, "e");
    cr_assert_eq(e->health_count, 3);
    cr_assert_str_eq(e->health[2].name, "mine");
    const struct inv_host *f = inventory_host(inventory, "f");
    cr_assert_eq(f->health_count, 2);
    cr_assert_str_eq(f->health[1].name, "z");
    inventory_free(inventory);
}

Test(inventory, merges_secrets_by_name) {
    struct inventory *inventory = load(merging_health);
    const struct inv_host *a = inventory_host(inventory, "a");
    cr_assert_eq(a->secret_count, 2);
    cr_assert_str_eq(a->secrets[1].name, "t");
    cr_assert_str_eq(a->secrets[1].file, "/t2");
    cr_assert_str_eq(a->secrets[1].path, "/run/fleet/secrets/t");
    cr_assert_eq(a->secrets[1].mode, 0400);
    cr_assert_str_eq(a->secrets[1].owner, "root");
    cr_assert_not(a->secrets[1].after);
    char *s1 = xasprintf("%s/s1", inventory->dir);
    cr_assert_str_eq(a->secrets[0].file, s1);
    free(s1);
    inventory_free(inventory);
}

Test(inventory, shares_what_hosts_with_the_same_tags_have_in_common) {
    struct inventory *inventory = load(
        "{\"defaults\": {" SYSTEM ", \"health\": [{\"name\": \"p\", \"type\": \"tcp\", \"port\": "
        "1}]}, \"hosts\": {\"a\": {}, \"b\": {}}}");
    cr_assert_eq(inventory->hosts[0].health, inventory->hosts[1].health);
    inventory_free(inventory);
}

Test(inventory, expands_the_hosts_name_in_any_string) {
    struct inventory *inventory =
        load("{\"defaults\": {\"address\": \"${name}.lan:2222\", \"user\": \"u-${name}\","
             " \"identity_file\": [\"/k/${name}\", \"b\"], \"nix_options\": {\"x\": \"${name}\"},"
             " \"system\": {\"file\": \"n.nix\", \"attr\": \"${name}.top\", \"args\": {\"n\": "
             "\"${name}${other}\"}},"
             " \"health\": [{\"name\": \"h\", \"type\": \"http\", \"url\": "
             "\"http://${address}/${name}\"}],"
             " \"secrets\": [{\"name\": \"${name}-s\", \"file\": \"${name}\"}]},"
             " \"hosts\": {\"a\": {}, \"b\": {\"policy\": {\"exclusive\": \"${name}\"}}}}");
    const struct inv_host *a = inventory_host(inventory, "a");
    const struct inv_host *b = inventory_host(inventory, "b");
    cr_assert_str_eq(a->addresses[0].host, "a.lan");
    cr_assert_eq(a->addresses[0].port, 2222);
    cr_assert_str_eq(b->addresses[0].host, "b.lan");
    cr_assert_str_eq(b->user, "u-b");
    cr_assert_str_eq(b->identity_files.items[0], "/k/b");
    cr_assert_str_eq(b->system.attr, "b.top");
    cr_assert_str_eq(b->system.args.items[0].value, "b${other}");
    cr_assert_str_eq(b->system.nix_options.items[0].value, "b");
    cr_assert_str_eq(b->health[1].url, "http://${address}/b");
    cr_assert_str_eq(a->secrets[0].path, "/run/fleet/secrets/a-s");
    cr_assert_str_eq(b->policy.exclusive, "b");
    inventory_free(inventory);
}

Test(inventory, reads_addresses_with_and_without_ports) {
    struct inventory *inventory =
        load("{\"defaults\": {" SYSTEM "}, \"hosts\": {\"a\": {\"address\": [\"10.0.0.1:23\", "
             "\"[fd00::1]:24\", \"fd00::2\", \"[fd00::3]\", \"fe80::1%eth0\", \"n.lan\"]},"
             " \"me\": {\"address\": \"local\"}, \"10.0.0.9:2222\": {}}}");
    const struct inv_address *got = inventory->hosts[0].addresses;
    cr_assert_eq(inventory->hosts[0].address_count, 6);
    cr_assert_str_eq(got[0].host, "10.0.0.1");
    cr_assert_eq(got[0].port, 23);
    cr_assert_str_eq(got[1].host, "fd00::1");
    cr_assert_eq(got[1].port, 24);
    cr_assert_str_eq(got[2].host, "fd00::2");
    cr_assert_eq(got[2].port, 0);
    cr_assert_str_eq(got[3].host, "fd00::3");
    cr_assert_str_eq(got[4].host, "fe80::1%eth0");
    cr_assert(inventory->hosts[1].local);
    cr_assert_eq(inventory->hosts[1].address_count, 0);
    cr_assert_str_eq(inventory->hosts[2].addresses[0].host, "10.0.0.9");
    cr_assert_eq(inventory->hosts[2].addresses[0].port, 2222);
    inventory_free(inventory);
}

Test(inventory, refuses_what_is_no_address) {
    static const char *const bad[] = {
        "\"\"",        "\"-a\"",        "\"a b\"",     "\"a:0\"",    "\"a:65536\"", "\"a:x\"",
        "\"[::1\"",    "\"[1.2.3.4]\"", "\"1:2:3\"",   "\"root@a\"", "\"a;b\"",     "[]",
        "5",           "null",          "\"[::1]22\"", "\"a/b\"",    "\"a:022\"",   "\"::1%a/b\"",
        "[\"a\", {}]", "[\"local\"]",   "\"a:22x\"",   "\"[]\"",     "\"[%e]\"",    "\"[::1%]\""};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char *settings = xasprintf("\"address\": %s", bad[i]);
        expect_host_refused(settings, "hosts.a.address");
        free(settings);
    }
}

Test(inventory, refuses_names_that_a_program_could_misread) {
    expect_refused("{\"hosts\": {\"-a\": {" SYSTEM "}}}", "f:1:12: hosts.-a: ", "not a host name");
    expect_refused("{\"hosts\": {\"a b\": {" SYSTEM "}}}",
                   "f:1:12: hosts.\"a b\": ", "not a host name");
    expect_refused("{\"hosts\": {\".\": {" SYSTEM "}}}",
                   "f:1:12: hosts.\".\": ", "not a host name");
    expect_refused("{\"hosts\": {\"..\": {" SYSTEM "}}}",
                   "f:1:12: hosts.\"..\": ", "not a host name");
    expect_host_refused("\"user\": \"-oProxyCommand=x\"", "hosts.a.user");
    expect_host_refused("\"user\": \"a$(x)\"", "hosts.a.user");
    expect_host_refused("\"jump\": \"-J\"", "hosts.a.jump");
    expect_host_refused("\"tags\": [\"a,b\"]", "hosts.a.tags[0]");
    expect_refused("{\"hosts\": {\"root@a\": {" SYSTEM "}}}",
                   "f:1:12: hosts.\"root@a\": ", "give \"address\"");
}

Test(inventory, resolves_jumps_and_build_hosts) {
    struct inventory *inventory =
        load("{\"defaults\": {" SYSTEM ", \"user\": \"fleet\", \"identity_file\": \"/k\"},"
             " \"hosts\": {\"a\": {\"jump\": \"b\"}, \"b\": {\"jump\": \"u@c:22\"},"
             " \"d\": {\"jump\": \"gate.lan\", \"build\": {\"on\": [\"local\", \"target\", \"b\","
             " {\"address\": \"e:9\", \"port\": 7, \"jump\": \"b\"}]}}}}");
    const struct inv_host *a = inventory_host(inventory, "a");
    const struct inv_host *b = inventory_host(inventory, "b");
    const struct inv_host *d = inventory_host(inventory, "d");
    cr_assert_eq(a->jump_host, b);
    cr_assert_null(b->jump_host);
    cr_assert_str_eq(b->jump, "u@c:22");
    cr_assert_str_eq(d->jump, "gate.lan");
    cr_assert_eq(d->build_on_count, 4);
    cr_assert_eq(d->build_on[1].kind, INV_BUILD_TARGET);
    cr_assert_eq(d->build_on[2].kind, INV_BUILD_HOST);
    cr_assert_str_eq(d->build_on[2].host, "b");
    const struct inv_host *spec = d->build_on[3].spec;
    cr_assert_eq(d->build_on[3].kind, INV_BUILD_ADDRESS);
    cr_assert_str_eq(spec->addresses[0].host, "e");
    cr_assert_eq(spec->addresses[0].port, 9);
    cr_assert_eq(spec->port, 7);
    cr_assert_str_eq(spec->user, "fleet");
    cr_assert_str_eq(spec->identity_files.items[0], "/k");
    cr_assert_eq(spec->jump_host, b);
    inventory_free(inventory);
}

Test(inventory, refuses_jumps_that_lead_nowhere) {
    expect_refused("{\"defaults\": {" SYSTEM "}, \"hosts\": {\"gate1\": {}, \"a\": {\"jump\": "
                   "\"gate\"}}}",
                   "f:1:", "did you mean \"gate1\"?");
    expect_refused("{\"defaults\": {" SYSTEM "}, \"hosts\": {\"a\": {\"jump\": \"b\"}, \"b\": "
                   "{\"jump\": \"c\"}, \"c\": {\"jump\": \"b\"}}}",
                   "f:1:", "in a circle: b -> c -> b");
    expect_refused("{\"defaults\": {" SYSTEM ", \"jump\": \"a\"}, \"hosts\": {\"a\": {}}}",
                   "f:1:", "in a circle: a -> a");
    expect_refused("{\"defaults\": {" SYSTEM "}, \"hosts\": {\"me\": {\"address\": \"local\"}, "
                   "\"a\": {\"jump\": \"me\"}}}",
                   "f:1:", "is this machine");
    expect_refused("{\"defaults\": {" SYSTEM ", \"build\": {\"on\": \"builder\"}}, \"hosts\": "
                   "{\"a\": {}, \"b\": {}}}",
                   "f:1:", "no host of the inventory is named \"builder\"");
}

Test(inventory, takes_one_form_of_system_and_lets_a_layer_replace_it) {
    struct inventory *inventory = load(
        "{\"defaults\": {\"system\": {\"file\": \"d.nix\", \"args\": {\"a\": \"1\", \"b\": \"2\"},"
        " \"nix_options\": {\"cores\": 4, \"sandbox\": false, \"l\": [\"x\", \"y\"]}}},"
        " \"hosts\": {\"a\": {\"system\": {\"attr\": \"a\", \"args\": {\"b\": \"3\"}}},"
        " \"b\": {" SYSTEM ", \"nix_options\": {\"cores\": 8}},"
        " \"c\": {\"system\": {\"command\": [\"./build\", \"${name}\"]}},"
        " \"d\": {\"system\": {\"flake\": \"./sub?x=1\"}},"
        " \"e\": {\"system\": {\"flake\": \"github:o/r#x\"}},"
        " \"f\": {\"system\": {\"flake\": \"path:sub#x\"}}}}");
    const struct inv_system *a = &inventory_host(inventory, "a")->system;
    cr_assert_eq(a->kind, INV_SYSTEM_FILE);
    cr_assert_str_eq(a->attr, "a");
    cr_assert_eq(a->args.count, 2);
    cr_assert_str_eq(a->args.items[0].value, "1");
    cr_assert_str_eq(a->args.items[1].value, "3");
    cr_assert_str_eq(a->nix_options.items[0].value, "4");
    cr_assert_str_eq(a->nix_options.items[1].value, "false");
    cr_assert_str_eq(a->nix_options.items[2].value, "x y");
    const struct inv_system *b = &inventory_host(inventory, "b")->system;
    cr_assert_eq(b->kind, INV_SYSTEM_PATH);
    cr_assert_null(b->file);
    cr_assert_eq(b->args.count, 0);
    cr_assert_str_eq(b->nix_options.items[0].value, "8");
    cr_assert_str_eq(inventory_host(inventory, "c")->system.command.items[1], "c");
    char *sub = xasprintf("%s/sub?x=1", inventory->dir);
    cr_assert_str_eq(inventory_host(inventory, "d")->system.flake_ref, sub);
    char *path = xasprintf("path:%s/sub", inventory->dir);
    cr_assert_str_eq(inventory_host(inventory, "f")->system.flake_ref, path);
    cr_assert_str_eq(inventory_host(inventory, "e")->system.flake_ref, "github:o/r");
    cr_assert_str_eq(inventory_host(inventory, "e")->system.flake_attr, "x");
    free(sub);
    free(path);
    inventory_free(inventory);
}

Test(inventory, refuses_two_forms_of_system_at_once) {
    expect_refused("{\"hosts\": {\"a\": {\"system\": {\"flake\": \".\", \"file\": \"x\"}}}}",
                   "f:1:43: hosts.a.system.file: ", "exclude each other");
    expect_refused("{\"hosts\": {\"a\": {\"system\": {\"path\": \"/nix/store/x\"}}}}",
                   "f:1:", "a store path");
    expect_refused("{\"hosts\": {\"a\": {\"system\": {\"attr\": \"x\"}}}}",
                   "f:1:", "want a \"file\"");
    expect_refused("{\"defaults\": {\"system\": {\"flake\": \".\"}}, \"hosts\": {\"a\": "
                   "{\"system\": {\"attr\": \"x\"}}}}",
                   "f:1:", "belong to \"file\"");
}

Test(inventory, tells_all_errors_at_once_in_the_files_order) {
    char *out =
        refused_with("{\n"
                     "  // ü\n"
                     "  \"defaults\": { \"usr\": \"root\", \"port\": 0 },\n"
                     "  \"tags\": { \"db\": { \"policy\": { \"max_paralel\": 1 } } },\n"
                     "  \"hosts\": {\n"
                     "    \"ü\": {},\n"
                     "    \"a\": { \"health\": [ { \"name\": \"x\", \"type\": \"tcp\" } ] }\n"
                     "  },\n"
                     "  \"extra\": 1,\n"
                     "}\n",
                     NULL, 0);
    cr_assert_not_null(strstr(out, "f:3:17: defaults.usr: unknown key; did you mean \"user\"?"));
    cr_assert_not_null(strstr(out, "f:3:40: defaults.port: 0 is not allowed here; allowed: a whole "
                                   "number from 1 to 65535"));
    cr_assert_not_null(strstr(
        out, "f:4:33: tags.db.policy.max_paralel: unknown key; did you mean \"max_parallel\"?"));
    cr_assert_not_null(strstr(out, "f:6:5: hosts.\"ü\": not a host name"));
    cr_assert_not_null(strstr(out, "f:7:24: hosts.a.health[0]: \"port\" is missing"), "%s", out);
    cr_assert_not_null(strstr(out, "f:9:3: extra: unknown key"));
    cr_assert_lt(strstr(out, "f:3:17"), strstr(out, "f:9:3"));
    free(out);
}

Test(inventory, tells_a_syntax_error_and_duplicate_keys_with_their_place) {
    expect_refused("{\"hosts\": {\n \"a\": {},\n \"ü\": 1 2}}", "f:3:9: ", "\",\" or \"}\"");
    expect_refused("\xef\xbb\xbf{\"hosts\": {\"a\": {" SYSTEM "},\n \"a\": {}}}",
                   "f:2:2: hosts.a: ", "a second time");
    expect_refused("[]", "f:1:1: ", "an object");
    expect_refused("{}", "f:1:1: ", "\"hosts\" is missing");
    expect_refused("", "f:1:1: ", "the file ends");
    expect_refused("{\"hosts\": {}, \"version\": 2}", "f:1:26: version: ", "1");
}

Test(inventory, tells_what_else_is_wrong_beside_a_duplicate_key) {
    char *out = refused_with("{\"hosts\": {\"a\": {" SYSTEM ", \"port\": 22,\n"
                             "\"port\": 0,\n\"usr\": 1},\n\"b\": 1}}",
                             NULL, 0);
    cr_expect_not_null(strstr(out, "f:2:1: hosts.a.port: this key stands here a second"), "%s",
                       out);
    cr_expect_not_null(strstr(out, "f:3:1: hosts.a.usr: unknown key"), "%s", out);
    cr_expect_not_null(strstr(out, "f:4:6: hosts.b: "), "%s", out);
    free(out);
}

Test(inventory, refuses_wrong_probes) {
    static const struct {
        const char *probe, *words;
    } bad[] = {
        {"{\"name\": \"x\"}", "\"type\" is missing; allowed: systemd, tcp"},
        {"{\"name\": \"x\", \"type\": \"tpc\"}", "nearest: \"tcp\""},
        {"{\"type\": \"tcp\", \"port\": 1}", "\"name\" is missing"},
        {"{\"name\": \"x\", \"type\": \"tcp\", \"port\": 70000}", "1 to 65535"},
        {"{\"name\": \"x\", \"type\": \"tcp\", \"port\": 1, \"url\": \"http://x\"}",
         "not allowed in type tcp; allowed in: type http, type metric"},
        {"{\"name\": \"x\", \"type\": \"http\", \"url\": \"ftp://x\"}", "http:// or https://"},
        {"{\"name\": \"x\", \"type\": \"http\", \"url\": \"http://x\", \"status\": \"300..200\"}",
         "smaller status"},
        {"{\"name\": \"x\", \"type\": \"http\", \"url\": \"http://x\", \"body_regex\": \"(\"}",
         "regular expression"},
        {"{\"name\": \"x\", \"type\": \"http\", \"url\": \"http://x\", \"headers\": {\"a\": "
         "\"b\\r\\nc\"}}",
         "a text on one line"},
        {"{\"name\": \"x\", \"type\": \"metric\", \"url\": \"http://x\", \"query\": \"q\"}",
         "\"above\" or \"below\""},
        {"{\"name\": \"x\", \"type\": \"command\", \"run\": []}", "not empty"},
        {"{\"name\": \"x\", \"type\": \"systemd\", \"from\": \"operator\"}",
         "not allowed in type systemd"},
        {"{\"name\": \"x\", \"type\": \"systemd\", \"interval\": \"0s\"}", "above 0"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char *settings = xasprintf("\"health\": [%s]", bad[i].probe);
        expect_host_refused(settings, bad[i].words);
        free(settings);
    }
    expect_host_refused("\"health\": true", "false, or a list");
    expect_host_refused("\"health\": [{\"name\": \"x\", \"type\": \"systemd\"}, {\"name\": \"x\", "
                        "\"type\": \"systemd\"}]",
                        "a second probe named \"x\"");
}

Test(inventory, refuses_wrong_secrets) {
    expect_host_refused("\"secrets\": [{\"name\": \"x\"}]", "exactly one of");
    expect_host_refused("\"secrets\": [{\"name\": \"x\", \"file\": \"a\", \"command\": [\"b\"]}]",
                        "exactly one of");
    expect_host_refused("\"secrets\": [{\"name\": \"x\", \"age\": \"a\"}]", "needs \"identity\"");
    expect_host_refused("\"secrets\": [{\"name\": \"..\", \"file\": \"a\"}]", "a file name");
    expect_host_refused("\"secrets\": [{\"name\": \"x\", \"file\": \"a\", \"path\": \"a\"}]",
                        "an absolute path");
    expect_host_refused("\"secrets\": [{\"name\": \"x\", \"file\": \"a\", \"path\": "
                        "\"/nix/store/x\"}]",
                        "not in the Nix store");
    expect_host_refused("\"secrets\": [{\"name\": \"x\", \"file\": \"a\", \"path\": "
                        "\"/run/../etc/shadow\"}]",
                        "without \"..\"");
    expect_host_refused("\"secrets\": [{\"name\": \"x\", \"file\": \"a\", \"mode\": \"0999\"}]",
                        "octal mode");
}

Test(inventory, lets_overrides_win) {
    static const struct inv_override overrides[] = {
        {"waves", "[{\"tag\": \"t\"}]"},
        {"max_parallel", "3"},
        {"min_healthy_time", "\"0s\""},
        {"rollback", "false"},
    };
    struct inventory *inventory = load_with(
        "{\"defaults\": {" SYSTEM ", \"policy\": {\"max_parallel\": 9, \"copy_parallel\": 5}},"
        " \"tags\": {\"t\": {\"policy\": {\"max_parallel\": 1}}},"
        " \"hosts\": {\"a\": {\"policy\": {\"min_healthy_time\": \"9s\"}}}}",
        overrides, ARRAY_LEN(overrides));
    cr_assert_eq(inventory->policy.wave_count, 1);
    cr_assert_str_eq(inventory->policy.waves[0].tag, "t");
    cr_assert_eq(inventory->policy.limit_count, 2);
    cr_assert_eq(inventory->policy.limits[0].max_parallel, 3);
    cr_assert_eq(inventory->policy.limits[0].copy_parallel, 5);
    cr_assert_eq(inventory->policy.limits[1].max_parallel, 1);
    cr_assert_eq(inventory->hosts[0].policy.min_healthy_time_ms, 0);
    cr_assert_not(inventory->hosts[0].policy.rollback);
    inventory_free(inventory);
}

Test(inventory, refuses_wrong_overrides_by_their_name) {
    static const struct inv_override overrides[] = {
        {"wave", "1"},
        {"bake", "5m"},
        {"startup_grace", "\"x\""},
        {"waves", "[{\"tag\": \"no\"}]"},
    };
    char *out = refused_with("{\"hosts\": {\"a\": {" SYSTEM "}}}", overrides, ARRAY_LEN(overrides));
    cr_assert_not_null(strstr(out, "--policy wave: unknown policy; did you mean \"waves\"?"));
    cr_assert_not_null(strstr(out, "--policy bake: "));
    cr_assert_not_null(strstr(out, "--policy startup_grace: \"x\" is not allowed here"), "%s", out);
    cr_assert_not_null(strstr(out, "no host has the tag \"no\""));
    free(out);
}

Test(inventory, cleans_hostile_bytes_in_messages) {
    char *out = refused_with("{\"hosts\": {}, \"\\u001b[2J\\u202ex\": 1}", NULL, 0);
    cr_assert_null(strchr(out, 0x1b));
    cr_assert_null(strstr(out, "\xe2\x80\xae"));
    free(out);
}

Test(inventory, refuses_a_file_that_cannot_be_one) {
    struct inventory *inventory = NULL;
    struct inv_errors errors;
    struct error error = ERROR_INIT;
    cr_assert_eq(inventory_load("/nonexistent/fleet.json", NULL, 0, &inventory, &errors, &error),
                 FLEET_ERR_USAGE);
    cr_assert_not_null(strstr(error.message, "cannot open"));
    cr_assert_eq(errors.count, 0);
    cr_assert_eq(inventory_load(folder, NULL, 0, &inventory, &errors, &error), FLEET_ERR_USAGE);
    write_bytes(file_path, "{}\0", 3);
    cr_assert_eq(inventory_load(file_path, NULL, 0, &inventory, &errors, &error), FLEET_ERR_USAGE);
    cr_assert_not_null(strstr(errors.items[0].message, "NUL"));
    inv_errors_free(&errors);
    cr_assert_eq(truncate(file_path, 100000001), 0);
    cr_assert_eq(inventory_load(file_path, NULL, 0, &inventory, &errors, &error), FLEET_ERR_USAGE);
    cr_assert_not_null(strstr(error.message, "larger than 100 MB"));
}

Test(inventory, tells_a_thousand_errors_and_that_there_are_more) {
    struct buf text = BUF_INIT;
    buf_add_text(&text, "{\"defaults\": {" SYSTEM "}, \"hosts\": {");
    for (int i = 0; i < 3000; i++) {
        buf_printf(&text, "\"h%d\": {\"prt\": 1},\n", i);
    }
    buf_add_text(&text, "}}");
    char *out = refused_with(buf_text(&text), NULL, 0);
    cr_assert_not_null(strstr(out, "there are more errors"));
    free(out);
    buf_free(&text);
}

Test(inventory, finds_the_nearest_file_upward) {
    char *deep = xasprintf("%s/x", folder);
    char *found = NULL;
    struct error error = ERROR_INIT;
    write_bytes(file_path, "{}", 2);
    mkdir(deep, 0700);
    unsetenv("FLEET_INVENTORY");
    cr_assert_eq(chdir(deep), 0);
    cr_assert_eq(inventory_find(&found, &error), 0, "%s", error.message);
    cr_assert_str_eq(found, file_path);
    free(found);
    setenv("FLEET_INVENTORY", "/else.json", 1);
    cr_assert_eq(inventory_find(&found, &error), 0);
    cr_assert_str_eq(found, "/else.json");
    free(found);
    unsetenv("FLEET_INVENTORY");
    cr_assert_eq(chdir("/proc"), 0);
    cr_assert_eq(inventory_find(&found, &error), FLEET_ERR_USAGE);
    rmdir(deep);
    free(deep);
}

Test(inventory, expands_name_and_address) {
    struct inv_host host = {.name = "web"};
    char *text = inv_expand("http://${address}:80/${name}${x}${", &host, "fd00::1");
    cr_assert_str_eq(text, "http://[fd00::1]:80/web${x}${");
    free(text);
    text = inv_expand("${address}", &host, NULL);
    cr_assert_str_eq(text, "${address}");
    free(text);
    text = inv_expand("${address}", &host, "10.0.0.1");
    cr_assert_str_eq(text, "10.0.0.1");
    free(text);
}
