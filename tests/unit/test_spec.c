/* Connection specs, with a resolver of the test's own in place of `ssh -G`: what this machine's
 * ssh_config says must not matter. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "core/spec.h"
#include "inventory/ssh_config.h"

/* What the stand-in answers besides the defaults, by destination's host. */
static struct { const char *host, *hostname, *proxy_jump, *proxy_command; } answers[4];
static size_t asked;

int ssh_config_resolve(const char *const *destinations, size_t count, struct ssh_config *ret,
                       struct error *error) {
    (void)error;
    asked += count;
    for (size_t i = 0; i < count; i++) {
        const char *at = strrchr(destinations[i], '@');
        const char *host = at != NULL ? at + 1 : destinations[i];
        ret[i] = (struct ssh_config){.hostname = xstrdup(host), .user = xstrdup("me"), .port = 22};
        ret[i].known_hosts = xcalloc(1, sizeof(char *));
        ret[i].known_hosts[0] = xstrdup("/home/me/.ssh/known_hosts");
        ret[i].known_hosts_count = 1;
        for (size_t j = 0; j < ARRAY_LEN(answers) && answers[j].host != NULL; j++) {
            if (strcmp(answers[j].host, host) != 0) {
                continue;
            }
            if (answers[j].hostname != NULL) {
                free(ret[i].hostname);
                ret[i].hostname = xstrdup(answers[j].hostname);
            }
            ret[i].proxy_jump = answers[j].proxy_jump ? xstrdup(answers[j].proxy_jump) : NULL;
            ret[i].proxy_command =
                answers[j].proxy_command ? xstrdup(answers[j].proxy_command) : NULL;
        }
    }
    return 0;
}

void ssh_config_release(struct ssh_config *config) {
    free(config->hostname);
    free(config->user);
    for (size_t i = 0; i < config->known_hosts_count; i++) {
        free(config->known_hosts[i]);
    }
    free(config->known_hosts);
    free(config->proxy_jump);
    free(config->proxy_command);
}

static struct inventory *inventory;
static struct spec_set *set;
static struct error error;

static int open_set(const char *hosts_json) {
    char path[] = "/tmp/fleet-spec-XXXXXX";
    struct inv_errors errors = {0};
    int fd = mkstemp(path);
    FILE *file = fdopen(fd, "w");
    fprintf(file,
            "{\"version\": 1, \"defaults\": {\"system\": {\"path\": "
            "\"/nix/store/3k7xjq1c0v9r8l2p5n4m6a0z1y2w3v4s-system\"}}, \"hosts\": %s}",
            hosts_json);
    fclose(file);
    error = (struct error)ERROR_INIT;
    int err = inventory_load(path, NULL, 0, &inventory, &errors, &error);
    unlink(path);
    cr_assert_eq(err, 0, "%s", errors.count > 0 ? errors.items[0].message : error.message);
    inv_errors_free(&errors);
    const struct inv_host *first = &inventory->hosts[0];
    return spec_set_new(inventory, &first, 1, &set, &error);
}

static const struct conn_spec *first_spec(void) {
    return spec_of(set, &inventory->hosts[0]);
}

static void close_set(void) {
    spec_set_free(set);
    inventory_free(inventory);
}

TestSuite(spec, .fini = close_set, .timeout = 60);

Test(spec, the_inventory_wins_and_ssh_config_fills_in) {
    answers[0].host = "alias";
    answers[0].hostname = "10.1.1.1";
    cr_assert_eq(open_set("{\"a\": {\"address\": [\"alias\", \"10.0.0.2:2222\"], \"user\": "
                          "\"root\", \"known_hosts\": \"/k\"}}"),
                 0, "%s", error.message);
    const struct conn_spec *spec = first_spec();
    cr_assert_str_eq(spec->name, "a");
    cr_assert_str_eq(spec->user, "root");
    cr_assert_eq(spec->address_count, 2);
    cr_assert_str_eq(spec->addresses[0].host, "10.1.1.1");
    cr_assert_eq(spec->addresses[0].port, 22);
    cr_assert_eq(spec->addresses[1].port, 2222);
    cr_assert_eq(spec->known_hosts_count, 1);
    cr_assert_str_eq(spec->known_hosts[0], "/k");
    cr_assert_eq(asked, 2);
}

Test(spec, what_is_unsaid_comes_from_ssh_config) {
    cr_assert_eq(open_set("{\"a\": {}}"), 0, "%s", error.message);
    cr_assert_str_eq(first_spec()->user, "me");
    cr_assert_str_eq(first_spec()->known_hosts[0], "/home/me/.ssh/known_hosts");
    cr_assert_null(first_spec()->jump);
}

Test(spec, a_jump_may_be_a_host_with_a_jump_of_its_own) {
    cr_assert_eq(open_set("{\"a\": {\"jump\": \"b\"}, \"b\": {\"jump\": \"ops@gate:2200\", "
                          "\"user\": \"bob\", \"known_hosts\": \"/bobs\", "
                          "\"identity_file\": \"/bobs-key\", "
                          "\"host_key_check\": \"accept-new\"}, \"c\": {}}"),
                 0, "%s", error.message);
    const struct conn_spec *b = first_spec()->jump;
    cr_assert_str_eq(b->name, "b");
    cr_assert_str_eq(b->user, "bob");
    cr_assert_eq(b, spec_of(set, &inventory->hosts[1]));
    cr_assert_str_eq(b->jump->addresses[0].host, "gate");
    cr_assert_str_eq(b->jump->user, "ops");
    cr_assert_eq(b->jump->addresses[0].port, 2200);
    cr_assert_null(b->jump->jump);
    /* It is trusted as the host is that names it. */
    cr_assert_str_eq(b->jump->known_hosts[0], "/bobs");
    cr_assert_str_eq(b->jump->known_hosts[1], "/home/me/.ssh/known_hosts");
    cr_assert_str_eq(b->jump->identity_files[0], "/bobs-key");
    cr_assert_eq(b->jump->host_key_check, HOST_KEY_ACCEPT_NEW);
    cr_assert_null(spec_of(set, &inventory->hosts[2]), "only what is on the way is resolved");
}

Test(spec, a_list_of_jumps_is_gone_through_in_order) {
    answers[0].host = "a";
    answers[0].proxy_jump = "one,ops@[fd00::2]:23";
    cr_assert_eq(open_set("{\"a\": {}}"), 0, "%s", error.message);
    const struct conn_spec *last = first_spec()->jump;
    cr_assert_str_eq(last->addresses[0].host, "fd00::2");
    cr_assert_eq(last->addresses[0].port, 23);
    cr_assert_str_eq(last->jump->addresses[0].host, "one");
    cr_assert_null(last->jump->jump);
}

Test(spec, a_jump_for_all_hosts_does_not_go_through_itself) {
    answers[0].host = "a";
    answers[0].proxy_jump = "gate";
    answers[1].host = "gate";
    answers[1].proxy_jump = "gate";
    cr_assert_eq(open_set("{\"a\": {}}"), 0, "%s", error.message);
    cr_assert_str_eq(first_spec()->jump->addresses[0].host, "gate");
    cr_assert_null(first_spec()->jump->jump);
}

Test(spec, jumps_in_a_circle_are_refused) {
    answers[0].host = "one";
    answers[0].proxy_jump = "two";
    answers[1].host = "two";
    answers[1].proxy_jump = "one";
    cr_assert_eq(open_set("{\"a\": {\"jump\": \"x@one:22\"}}"), FLEET_ERR_USAGE);
    cr_assert_not_null(strstr(error.message, "circle"));
}

Test(spec, a_proxy_command_is_its_own_hosts_refusal_with_a_way_out) {
    answers[0].host = "a";
    answers[0].proxy_command = "nc %h %p";
    cr_assert_eq(open_set("{\"a\": {\"jump\": \"b\"}, \"b\": {\"address\": \"a\"}}"), 0, "%s",
                 error.message);
    cr_assert_null(first_spec()->unsupported, "its way is the inventory's");
    cr_assert_not_null(strstr(first_spec()->jump->unsupported, "ProxyJump"));
}

Test(spec, build_hosts_are_resolved_too) {
    cr_assert_eq(open_set("{\"a\": {\"build\": {\"on\": [\"b\", {\"address\": \"10.0.0.9\", "
                          "\"user\": \"nix\"}]}}, \"b\": {}}"),
                 0, "%s", error.message);
    cr_assert_not_null(spec_of(set, &inventory->hosts[1]));
    const struct inv_host *by_address = inventory->hosts[0].build_on[1].spec;
    cr_assert_str_eq(spec_of(set, by_address)->addresses[0].host, "10.0.0.9");
    cr_assert_str_eq(spec_of(set, by_address)->user, "nix");
}

Test(spec, key_files_are_listed_once) {
    cr_assert_eq(open_set("{\"a\": {\"identity_file\": [\"/k2\", \"/k1\"], \"jump\": \"b\"}, "
                          "\"b\": {\"identity_file\": \"/k1\"}}"),
                 0, "%s", error.message);
    size_t count;
    const char *const *files = spec_key_files(set, &count);
    cr_assert_eq(count, 2);
    cr_assert_str_eq(files[0], "/k1");
    cr_assert_str_eq(files[1], "/k2");
}

Test(spec, root_needs_no_sudo_and_others_do) {
    struct elevation how;
    cr_assert_eq(open_set("{\"a\": {\"user\": \"root\", \"sudo\": true}}"), 0);
    cr_assert_eq(spec_elevation(set, &inventory->hosts[0], &how, &error), 0);
    cr_assert_eq(how.how, ELEVATE_NONE);
    close_set();
    cr_assert_eq(open_set("{\"a\": {\"user\": \"ops\", \"sudo\": true}}"), 0);
    cr_assert_eq(spec_elevation(set, &inventory->hosts[0], &how, &error), 0);
    cr_assert_eq(how.how, ELEVATE_SUDO);
}

Test(spec, a_password_command_runs_once_and_its_first_line_counts) {
    struct elevation how;
    struct elevation again;
    char count[] = "/tmp/fleet-spec-count-XXXXXX";
    char hosts[512];
    close(mkstemp(count));
    snprintf(hosts, sizeof(hosts),
             "{\"a\": {\"user\": \"ops\", \"sudo\": true, \"password_command\": [\"sh\", \"-c\", "
             "\"echo x >>%s; echo se cret; echo more\"]}}",
             count);
    cr_assert_eq(open_set(hosts), 0, "%s", error.message);
    cr_assert_eq(spec_elevation(set, &inventory->hosts[0], &how, &error), 0, "%s", error.message);
    cr_assert_eq(spec_elevation(set, &inventory->hosts[0], &again, &error), 0);
    cr_assert_eq(how.how, ELEVATE_SUDO_PASSWORD);
    cr_assert_str_eq(how.password, "se cret");
    cr_assert_eq(how.password, again.password);
    FILE *file = fopen(count, "r");
    cr_assert_eq(fgetc(file), 'x');
    cr_assert_eq(fgetc(file), '\n');
    cr_assert_eq(fgetc(file), EOF);
    fclose(file);
    unlink(count);
}

Test(spec, a_password_command_that_fails_is_named) {
    struct elevation how;
    cr_assert_eq(open_set("{\"a\": {\"user\": \"ops\", \"sudo\": true, \"password_command\": "
                          "[\"sh\", \"-c\", \"echo x; exit 3\"]}}"),
                 0);
    cr_assert_eq(spec_elevation(set, &inventory->hosts[0], &how, &error), FLEET_ERR_SYSTEM);
    cr_assert_not_null(strstr(error.message, "a: password_command sh failed (exit status 3)"));
}
