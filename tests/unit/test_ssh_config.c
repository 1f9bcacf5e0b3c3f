/* Against the real ssh, with a configuration file of the test's own. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "inventory/ssh_config.h"

static char folder[] = "/tmp/fleet-ssh-XXXXXX";
static char *config;

static void make_folder(void) {
    cr_assert_not_null(mkdtemp(folder));
    config = xasprintf("%s/config", folder);
}

static void remove_folder(void) {
    AUTO_FREE char *command = xasprintf("/bin/rm -rf %s", folder);
    cr_assert_eq(system(command), 0);
    free(config);
}

TestSuite(ssh_config, .init = make_folder, .fini = remove_folder);

static void write_file(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
}

static void resolve(const char *const *names, size_t count, struct ssh_config *ret) {
    struct error error = ERROR_INIT;
    cr_assert_eq(ssh_config_resolve_from(config, names, count, ret, &error), 0, "%s",
                 error.message);
}

Test(ssh_config, answers_what_the_file_says_of_each_host) {
    AUTO_FREE char *key = xasprintf("%s/key", folder);
    AUTO_FREE char *text = xasprintf("Host web\n  HostName web.lan\n  User deploy\n  Port 2222\n"
                                     "  IdentityFile %s\n  IdentityFile /nonexistent\n"
                                     "  IdentitiesOnly yes\n  ProxyJump u@gate:23\n"
                                     "  UserKnownHostsFile %s/a ~/b\n  HostKeyAlias alias\n"
                                     "  IdentityAgent ~/agent\n"
                                     "Host odd\n  ProxyCommand nc %%h %%p\n",
                                     key, folder);
    write_file(config, text);
    write_file(key, "");
    static const char *const names[] = {"web", "root@10.0.0.1", "fd00::1", "odd"};
    struct ssh_config got[4];
    resolve(names, 4, got);
    cr_assert_str_eq(got[0].hostname, "web.lan");
    cr_assert_str_eq(got[0].user, "deploy");
    cr_assert_eq(got[0].port, 2222);
    cr_assert_eq(got[0].identity_count, 1);
    cr_assert_str_eq(got[0].identity_files[0], key);
    cr_assert(got[0].identities_only);
    cr_assert_str_eq(got[0].proxy_jump, "u@gate:23");
    cr_assert_str_eq(got[0].host_key_alias, "alias");
    cr_assert_geq(got[0].known_hosts_count, 2);
    /* New keys are written to the first one: never the system's. */
    cr_assert(strstr(got[0].known_hosts[0], "/etc/ssh/") == NULL, "%s", got[0].known_hosts[0]);
    size_t last = got[0].known_hosts_count - 1;
    cr_assert(strstr(got[0].known_hosts[last], "/etc/ssh/") != NULL, "%s",
              got[0].known_hosts[last]);
    cr_assert_eq(got[0].known_hosts[1][0], '/', "%s", got[0].known_hosts[1]);
    cr_assert_eq(got[0].identity_agent[0], '/');
    cr_assert_str_eq(got[1].hostname, "10.0.0.1");
    cr_assert_str_eq(got[1].user, "root");
    cr_assert_eq(got[1].port, 22);
    cr_assert_null(got[1].proxy_jump);
    cr_assert_null(got[1].identity_agent);
    cr_assert_str_eq(got[2].hostname, "fd00::1");
    cr_assert_not_null(strstr(got[3].proxy_command, "nc"));
    for (size_t i = 0; i < 4; i++) {
        ssh_config_release(&got[i]);
    }
}

/* Resolves many hosts; returns how often ssh ran, by a wrapper in PATH that counts. */
static size_t processes_for(const char *text, size_t count) {
    AUTO_FREE char *wrapper = xasprintf("%s/ssh", folder);
    AUTO_FREE char *tally = xasprintf("%s/tally", folder);
    AUTO_FREE char *script =
        xasprintf("#!/bin/sh\necho x >> %s\nexec /usr/bin/ssh \"$@\"\n", tally);
    AUTO_FREE char *path = xasprintf("%s:%s", folder, getenv("PATH"));
    write_file(config, text);
    write_file(wrapper, script);
    write_file(tally, "");
    cr_assert_eq(chmod(wrapper, 0755), 0);
    setenv("PATH", path, 1);
    char names[20][64];
    const char *pointers[20];
    struct ssh_config got[20];
    for (size_t i = 0; i < count; i++) {
        snprintf(names[i], sizeof(names[i]), "u%zu@host%zu", i, i);
        pointers[i] = names[i];
    }
    resolve(pointers, count, got);
    for (size_t i = 0; i < count; i++) {
        char wanted[64];
        snprintf(wanted, sizeof(wanted), "host%zu", i);
        cr_assert_str_eq(got[i].hostname, wanted);
        snprintf(wanted, sizeof(wanted), "u%zu", i);
        cr_assert_str_eq(got[i].user, wanted);
        cr_assert_eq(got[i].port, 2200);
        ssh_config_release(&got[i]);
    }
    FILE *file = fopen(tally, "r");
    size_t lines = 0;
    for (int c; (c = fgetc(file)) != EOF;) {
        lines += c == '\n' ? 1 : 0;
    }
    fclose(file);
    return lines;
}

Test(ssh_config, asks_once_where_the_file_says_the_same_of_all) {
    cr_assert_eq(processes_for("# a comment\nPort 2200\nHost *\n  Compression yes\n", 20), 1);
}

Test(ssh_config, asks_for_each_where_the_file_tells_hosts_apart) {
    cr_assert_eq(processes_for("Port 2200\nHost other\n  User x\n", 20), 20);
    cr_assert_eq(processes_for("Port 2200\nMatch host other\n  User x\n", 3), 3);
    cr_assert_eq(processes_for("Port 2200\nIdentityFile /keys/%h\n", 3), 3);
}

Test(ssh_config, follows_includes_when_it_looks_for_hosts) {
    AUTO_FREE char *included = xasprintf("%s/included", folder);
    AUTO_FREE char *text = xasprintf("Include %s\nPort 2200\n", included);
    write_file(included, "Host special\n  User x\n");
    cr_assert_eq(processes_for(text, 3), 3);
    write_file(included, "Compression yes\n");
    cr_assert_eq(processes_for(text, 3), 1);
}

Test(ssh_config, gives_sshs_own_words_for_a_broken_file) {
    static const char *const names[] = {"a"};
    struct ssh_config got;
    struct error error = ERROR_INIT;
    write_file(config, "Nonsense yes\n");
    cr_assert_eq(ssh_config_resolve_from(config, names, 1, &got, &error), FLEET_ERR_USAGE);
    cr_assert_not_null(strstr(error.message, "nonsense"), "%s", error.message);
}

Test(ssh_config, says_when_ssh_is_missing) {
    static const char *const names[] = {"a"};
    struct ssh_config got;
    struct error error = ERROR_INIT;
    setenv("PATH", folder, 1);
    cr_assert_eq(ssh_config_resolve_from(NULL, names, 1, &got, &error), FLEET_ERR_SYSTEM);
    cr_assert_not_null(strstr(error.message, "install OpenSSH"), "%s", error.message);
}

Test(ssh_config, ends_an_ssh_that_hangs_at_the_deadline) {
    static const char *const names[] = {"a", "b"};
    struct ssh_config got[2];
    struct error error = ERROR_INIT;
    AUTO_FREE char *wrapper = xasprintf("%s/ssh", folder);
    write_file(config, "Host x\n");
    write_file(wrapper, "#!/bin/sh\nsleep 600\n");
    cr_assert_eq(chmod(wrapper, 0755), 0);
    AUTO_FREE char *path = xasprintf("%s:%s", folder, getenv("PATH"));
    setenv("PATH", path, 1);
    time_t start = time(NULL);
    cr_assert_eq(ssh_config_resolve_from(config, names, 2, got, &error), FLEET_ERR_TIMEOUT);
    cr_assert_leq(time(NULL) - start, 14);
    cr_assert_not_null(strstr(error.message, "no answer in 10 s"));
}
