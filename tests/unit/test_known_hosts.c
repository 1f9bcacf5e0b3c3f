#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "transport/host_key_check.h"
#include "transport/host_keys.h"
#include "transport/known_hosts.h"
#include "transport/ssh_wire.h"

#define ED25519_A "AAAAC3NzaC1lZDI1NTE5AAAAIInao6gEV8NFK2mL3ch3VlbDBvZaWIZCJ67MOaZEzIKD"
#define ED25519_B "AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"
/* "db1", hashed by ssh-keygen -H. */
#define HASHED_DB1 "|1|OYrybKG79WQSBd7CLuHiiwV/VzI=|l20B5xr0sxrpiIDfwV6ASbj07Vw="

static char folder[] = "/tmp/fleet-known-hosts-XXXXXX";
static char *path;
static struct known_hosts_cache *cache;

static void set_up(void) {
    cr_assert_not_null(mkdtemp(folder));
    path = xasprintf("%s/known_hosts", folder);
    cache = known_hosts_cache_new();
}

static void tear_down(void) {
    known_hosts_cache_free(cache);
    unlink(path);
    rmdir(folder);
    free(path);
}

TestSuite(known_hosts, .init = set_up, .fini = tear_down);

static void write_file(const char *text) {
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
}

static uint8_t *decode(const char *base64, size_t *ret_len) {
    uint8_t *blob = xmalloc(strlen(base64));
    long len = ssh_base64_decode(base64, strlen(base64), blob);
    cr_assert_gt(len, 0);
    *ret_len = (size_t)len;
    return blob;
}

/* The verdict on a host's key: "" where it is good, else the reason. */
static char *verdict(const struct conn_spec *spec, const char *host, uint16_t port,
                     const char *base64, struct error *error) {
    struct conn_address address = {host, port};
    size_t len;
    uint8_t *blob = decode(base64, &len);
    *error = (struct error)ERROR_INIT;
    host_key_verify(cache, spec, &address, blob, len, error);
    free(blob);
    return error->reason;
}

static struct conn_spec strict_spec(void) {
    static const char *files[1];
    files[0] = path;
    return (struct conn_spec){.name = "db1",
                              .known_hosts = files,
                              .known_hosts_count = 1,
                              .host_key_check = HOST_KEY_STRICT};
}

static void expect(const char *host, uint16_t port, const char *base64, const char *reason) {
    struct conn_spec spec = strict_spec();
    struct error error;
    cr_expect_str_eq(verdict(&spec, host, port, base64, &error), reason, "%s:%u: %s", host, port,
                     error.message);
}

Test(known_hosts, knows_names_addresses_and_ports) {
    write_file("# a comment\n\n"
               "DB1,10.0.0.1,fd00::1 ssh-ed25519 " ED25519_A " comment\n"
               "[db2]:2222\tssh-ed25519 \t" ED25519_A "\r\n");
    expect("db1", 22, ED25519_A, "");
    expect("Db1", 22, ED25519_A, "");
    expect("10.0.0.1", 22, ED25519_A, "");
    expect("fd00::1", 22, ED25519_A, "");
    expect("db2", 2222, ED25519_A, "");
    expect("db2", 22, ED25519_A, "host-key-unknown");
    expect("db3", 22, ED25519_A, "host-key-unknown");
}

Test(known_hosts, takes_a_key_of_the_bare_name_for_another_port) {
    write_file("db1 ssh-ed25519 " ED25519_A "\n");
    expect("db1", 2222, ED25519_A, "");
    /* As in ssh: another key there is unknown, not changed. */
    expect("db1", 2222, ED25519_B, "host-key-unknown");
}

Test(known_hosts, reads_hashed_names) {
    write_file(HASHED_DB1 " ssh-ed25519 " ED25519_A "\n");
    expect("db1", 22, ED25519_A, "");
    expect("db1", 22, ED25519_B, "host-key-changed");
    expect("db2", 22, ED25519_A, "host-key-unknown");
}

Test(known_hosts, matches_patterns_and_their_exceptions) {
    write_file("*.example.com,!bad.example.com,web? ssh-ed25519 " ED25519_A "\n");
    expect("a.example.com", 22, ED25519_A, "");
    expect("bad.example.com", 22, ED25519_A, "host-key-unknown");
    expect("web1", 22, ED25519_A, "");
    expect("web12", 22, ED25519_A, "host-key-unknown");
    expect("wen1", 22, ED25519_A, "host-key-unknown");
    expect("a.example.org", 22, ED25519_A, "host-key-unknown");
    expect("a.ex.example.com", 22, ED25519_A, "");
    expect("a.ex.ample.com", 22, ED25519_A, "host-key-unknown");
}

Test(known_hosts, a_line_that_is_commented_out_knows_nobody) {
    write_file("#db2,db1 ssh-ed25519 " ED25519_A "\n");
    expect("db1", 22, ED25519_A, "host-key-unknown");
}

/* Hosts may have files of their own, which are kept apart. */
Test(known_hosts, a_file_knows_nothing_of_another_ones_hosts) {
    char *const first = path;
    AUTO_FREE char *another = xasprintf("%s/another", folder);
    write_file("db1 ssh-ed25519 " ED25519_A "\n");
    path = another;
    write_file("db2 ssh-ed25519 " ED25519_B "\n");
    for (int turn = 0; turn < 2; turn++) {
        path = another;
        expect("db1", 22, ED25519_A, "host-key-unknown");
        expect("db2", 22, ED25519_B, "");
        path = first;
        expect("db1", 22, ED25519_A, "");
        expect("db2", 22, ED25519_B, "host-key-unknown");
    }
    unlink(another);
    path = first;
}

Test(known_hosts, names_the_line_and_both_fingerprints_of_a_changed_key) {
    write_file("\ndb1 ssh-ed25519 " ED25519_B "\n");
    struct conn_spec spec = strict_spec();
    struct error error;
    cr_assert_str_eq(verdict(&spec, "db1", 22, ED25519_A, &error), "host-key-changed");
    cr_expect_eq(error.code, FLEET_ERR_UNREACHABLE);
    AUTO_FREE char *line = xasprintf("%s:2 knows ED25519 SHA256:", path);
    cr_expect_not_null(strstr(error.message, line), "%s", error.message);
    cr_expect_not_null(strstr(error.message, "SHA256:isORI8/+/RCXI9MC9SRQ+ADRvd5xY+rGv1nP797rO7Q"),
                       "%s", error.message);
}

Test(known_hosts, refuses_a_revoked_key_even_if_it_is_also_known) {
    write_file("db1 ssh-ed25519 " ED25519_A "\n@revoked * ssh-ed25519 " ED25519_A "\n");
    expect("db1", 22, ED25519_A, "host-key-revoked");
}

Test(known_hosts, says_that_authorities_are_not_supported) {
    write_file("@cert-authority *.corp ssh-ed25519 " ED25519_B "\n");
    expect("db1.corp", 22, ED25519_A, "host-key-unsupported");
    expect("db1", 22, ED25519_A, "host-key-unknown");
    expect("db1.corp", 22, ED25519_B, "host-key-unsupported");
}

Test(known_hosts, prints_the_line_to_paste_for_an_unknown_key) {
    write_file("");
    struct conn_spec spec = strict_spec();
    struct error error;
    verdict(&spec, "10.0.0.9", 2222, ED25519_A, &error);
    cr_expect_not_null(strstr(error.message, "[10.0.0.9]:2222 ssh-ed25519 " ED25519_A), "%s",
                       error.message);
    cr_expect_not_null(strstr(error.message, path), "%s", error.message);
}

Test(known_hosts, skips_lines_that_are_broken) {
    write_file("db1\ndb1 ssh-ed25519\ndb1 ssh-ed25519 %%%\ndb1 ssh-rsa " ED25519_A "\n"
               "@what db1 ssh-ed25519 " ED25519_A "\n|1|x|y ssh-ed25519 " ED25519_A "\n"
               "|1|AAAAAAAAAAAAAAAAAAAAAAAAAAA= ssh-ed25519 " ED25519_A "\n"
               "|1|AAAA|AAAAAAAAAAAAAAAAAAAAAAAAAAA= ssh-ed25519 " ED25519_A "\n"
               "|1|AAAAAAAAAAAAAAAAAAAAAAAAAAA=|AAAA ssh-ed25519 " ED25519_A "\n");
    expect("db1", 22, ED25519_A, "host-key-unknown");
}

/* An empty file would be as good as none to somebody in between, where new keys are accepted. */
Test(known_hosts, refuses_new_keys_where_a_file_cannot_be_read) {
    cr_assert_eq(mkdir(path, 0700), 0);
    struct conn_spec spec = strict_spec();
    spec.host_key_check = HOST_KEY_ACCEPT_NEW;
    struct error error;
    cr_expect_str_eq(verdict(&spec, "db1", 22, ED25519_A, &error), "system");
    cr_expect_not_null(strstr(error.message, "can't be read"), "%s", error.message);
    rmdir(path);
    write_file("db1 ssh-ed25519 " ED25519_B "\n");
    cr_expect_str_eq(verdict(&spec, "db1", 22, ED25519_A, &error), "host-key-changed");
}

Test(known_hosts, works_without_a_file_and_sees_when_it_changes) {
    expect("db1", 22, ED25519_A, "host-key-unknown");
    write_file("db1 ssh-ed25519 " ED25519_A "\n");
    expect("db1", 22, ED25519_A, "");
    write_file("db1 ssh-ed25519 " ED25519_B "\n# longer\n");
    expect("db1", 22, ED25519_A, "host-key-changed");
}

Test(known_hosts, counts_only_the_inventorys_keys_where_there_are_any) {
    write_file("db1 ssh-ed25519 " ED25519_A "\n");
    static const char *const keys[] = {"ssh-ed25519 " ED25519_B " comment"};
    struct conn_spec spec = strict_spec();
    spec.host_keys = keys;
    spec.host_key_count = 1;
    struct error error;
    cr_expect_str_eq(verdict(&spec, "db1", 22, ED25519_B, &error), "");
    cr_expect_str_eq(verdict(&spec, "db1", 22, ED25519_A, &error), "host-key-changed");
}

Test(known_hosts, looks_up_the_alias) {
    write_file("alias ssh-ed25519 " ED25519_A "\n");
    struct conn_spec spec = strict_spec();
    spec.host_key_alias = "alias";
    struct error error;
    cr_expect_str_eq(verdict(&spec, "10.0.0.1", 2222, ED25519_A, &error), "");
}

Test(known_hosts, accept_new_writes_an_unknown_key_and_refuses_a_changed_one) {
    write_file("other ssh-ed25519 " ED25519_B); /* no newline at the end */
    struct conn_spec spec = strict_spec();
    spec.host_key_check = HOST_KEY_ACCEPT_NEW;
    struct error error;
    cr_expect_str_eq(verdict(&spec, "db1", 22, ED25519_A, &error), "");
    spec.host_key_check = HOST_KEY_STRICT;
    cr_expect_str_eq(verdict(&spec, "db1", 22, ED25519_A, &error), "");
    cr_expect_str_eq(verdict(&spec, "other", 22, ED25519_B, &error), "");
    spec.host_key_check = HOST_KEY_ACCEPT_NEW;
    cr_expect_str_eq(verdict(&spec, "db1", 22, ED25519_B, &error), "host-key-changed");
    spec.host_key_check = HOST_KEY_OFF;
    cr_expect_str_eq(verdict(&spec, "db1", 22, ED25519_B, &error), "");
}

Test(known_hosts, asks_for_the_algorithms_of_known_keys_first) {
    write_file("db1 ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQ=\n"
               "db2 ssh-rsa AAAAB3NzaC1yc2E=\n");
    struct conn_spec spec = strict_spec();
    static const struct {
        const char *host;
        const char *first;
    } cases[] = {{"db1", "ecdsa-sha2-nistp384,ssh-ed25519,"},
                 {"db2", "rsa-sha2-512,rsa-sha2-256,ssh-ed25519,"},
                 {"db3", "ssh-ed25519,"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf order = BUF_INIT;
        struct conn_address address = {cases[i].host, 22};
        host_key_algorithms(cache, &spec, &address, &order);
        cr_expect_eq(strncmp(buf_text(&order), cases[i].first, strlen(cases[i].first)), 0, "%s",
                     buf_text(&order));
        cr_expect_null(strstr(buf_text(&order), "ssh-rsa"));
        buf_free(&order);
    }
}

Test(known_hosts, appends_accepted_offers) {
    struct conn_spec spec = strict_spec();
    struct host_key_offer offers[1] = {
        {.spec = &spec, .line = xstrdup("db1 ssh-ed25519 " ED25519_A)}};
    struct error error = ERROR_INIT;
    cr_assert_eq(host_keys_accept(offers, 1, &error), 0, "%s", error.message);
    expect("db1", 22, ED25519_A, "");
    free(offers[0].line);
}

/* Every line is tried by itself, and looked up through the index. */
static void expect_same_findings(const struct known_hosts *hosts, const char *name) {
    const struct known_host **entries = NULL;
    size_t count = known_hosts_find(hosts, name, &entries);
    size_t next = 0;
    for (size_t i = 0; i < hosts->count; i++) {
        if (known_host_matches(&hosts->entries[i], name)) {
            cr_assert_lt(next, count, "line %u is not found for %s", hosts->entries[i].line, name);
            cr_expect_eq(entries[next], &hosts->entries[i], "%s", name);
            next++;
        }
    }
    cr_expect_eq(next, count, "%s finds too much", name);
    free(entries);
}

Test(known_hosts, a_name_is_found_in_the_same_lines_through_the_index) {
    static const char text[] =
        "db1,10.0.0.1 ssh-ed25519 " ED25519_A "\n"
        "*.example.org,!bad.example.org ssh-ed25519 " ED25519_A "\n"
        "db10,db1,db1 ssh-ed25519 " ED25519_B "\n" HASHED_DB1 " ssh-ed25519 " ED25519_A "\n"
        "@revoked db1 ssh-ed25519 " ED25519_B "\n"
        "[db1]:2222,d?1 ssh-ed25519 " ED25519_A "\n";
    static const char *const names[] = {
        "db1",          "db10", "db", "10.0.0.1", "[db1]:2222", "a.example.org", "bad.example.org",
        "10.0.0.1,db1", ""};
    struct known_hosts *hosts = known_hosts_parse("known_hosts", text, strlen(text));
    cr_assert_eq(hosts->count, 6);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        expect_same_findings(hosts, names[i]);
    }
    known_hosts_free(hosts);
}

Test(known_hosts, an_answer_that_is_remembered_ends_with_the_file) {
    const struct known_host *const *entries = NULL;
    write_file("db1 ssh-ed25519 " ED25519_A "\n");
    cr_expect_eq(known_hosts_cache_find(cache, path, "db1", &entries), 1);
    cr_expect_eq(known_hosts_cache_find(cache, path, "db1", &entries), 1);
    cr_expect_eq(entries[0]->line, 1);
    write_file("# moved\ndb2 ssh-ed25519 " ED25519_A "\ndb1 ssh-ed25519 " ED25519_B "\n");
    cr_expect_eq(known_hosts_cache_find(cache, path, "db1", &entries), 1);
    cr_expect_eq(entries[0]->line, 3);
    cr_expect_eq(known_hosts_cache_find(cache, path, "db3", &entries), 0);
}
