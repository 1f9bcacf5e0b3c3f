/* Secrets as they are read on this machine, and the store that reads each once. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "core/secret_store.h"

static char folder[] = "/tmp/fleet-secrets-XXXXXX";
static struct inv_host hosts[3];
static const char *words[4];
static struct inv_secret what;

static void setup(void) {
    cr_assert_not_null(mkdtemp(folder));
    for (size_t i = 0; i < 3; i++) {
        static const char *const names[] = {"h1", "h2", "h3"};
        hosts[i] = (struct inv_host){.name = names[i]};
    }
    what = (struct inv_secret){
        .name = "token", .source = INV_SECRET_COMMAND, .command = {.items = words, .count = 3}};
    words[0] = "sh";
    words[1] = "-c";
}

static void teardown(void) {
    char command[128];
    snprintf(command, sizeof(command), "rm -r %s", folder);
    cr_assert_eq(system(command), 0);
}

TestSuite(secrets, .init = setup, .fini = teardown, .timeout = 60);

static int read_it(const char *line, struct secret *ret, struct error *error) {
    struct secret_reading reading = {.dir = folder, .unattended = true};
    words[2] = line;
    return secret_read(&hosts[0], &what, &reading, ret, error);
}

Test(secrets, are_the_bytes_that_the_command_prints) {
    struct secret secret;
    struct error error = ERROR_INIT;
    cr_assert_eq(read_it("printf 'a\\000b'", &secret, &error), 0, "%s", error.message);
    cr_assert_str_eq(secret.encoded, "YQBi");
    secret_release(&secret);
    cr_assert_null(secret.encoded);
}

Test(secrets, say_what_the_tool_said) {
    struct secret secret;
    struct error error = ERROR_INIT;
    cr_assert_eq(read_it("echo 'no key for \033[1myou' >&2; exit 3", &secret, &error),
                 FLEET_ERR_SYSTEM);
    cr_assert_str_eq(error.reason, "secret-command");
    cr_assert_not_null(strstr(error.message, "\"token\": sh failed (exit status 3): no key for"));
    cr_assert_null(strchr(error.message, '\033'));
}

Test(secrets, are_neither_empty_nor_endless) {
    struct secret secret;
    struct error error = ERROR_INIT;
    cr_assert_eq(read_it("true", &secret, &error), FLEET_ERR_SYSTEM);
    cr_assert_not_null(strstr(error.message, "empty"));
    cr_assert_eq(read_it("while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done", &secret, &error),
                 FLEET_ERR_SYSTEM);
    cr_assert_not_null(strstr(error.message, "larger"));
}

/* Its time would be over, and it with it. */
Test(secrets, do_not_wait_for_what_the_tool_leaves_behind) {
    struct secret secret;
    struct error error = ERROR_INIT;
    char command[128];
    cr_assert_eq(read_it("sleep 300 >/dev/null & echo $! >left; printf x", &secret, &error), 0,
                 "%s", error.message);
    secret_release(&secret);
    snprintf(command, sizeof(command), "kill $(cat %s/left)", folder);
    cr_assert_eq(system(command), 0);
}

Test(secrets, of_one_source_have_one_key) {
    struct inv_secret other = what;
    other.name = "another";
    words[2] = "a";
    char *one = secret_key(&hosts[0], &what);
    char *two = secret_key(&hosts[1], &other);
    cr_assert_str_eq(one, two);
    free(two);
    words[2] = "a ${name}";
    two = secret_key(&hosts[0], &what);
    char *three = secret_key(&hosts[1], &what);
    cr_assert_str_neq(one, two);
    cr_assert_str_neq(two, three);
    free(one);
    free(two);
    free(three);
}

/* ---- the store ---- */

static uv_sem_t woken;
static atomic_uint tags;

static void on_wake(void *arg, size_t tag) {
    (void)arg;
    atomic_fetch_or(&tags, 1u << tag);
    uv_sem_post(&woken);
}

/* How often the command has run. */
static size_t runs(void) {
    char path[128];
    snprintf(path, sizeof(path), "%s/runs", folder);
    FILE *file = fopen(path, "re");
    size_t count = 0;
    for (int c; file != NULL && (c = fgetc(file)) != EOF;) {
        count++;
    }
    if (file != NULL) {
        fclose(file);
    }
    return count;
}

static const struct secret *get(struct secret_store *store, size_t host, struct error *error) {
    return secret_store_get(store, &hosts[host], &what, on_wake, NULL, host, error);
}

Test(secrets, are_read_once_for_all_hosts) {
    struct error error = ERROR_INIT;
    uv_sem_init(&woken, 0);
    words[2] = "printf x >>runs; printf secret";
    struct secret_store *store = secret_store_new(folder);
    for (size_t i = 0; i < 3; i++) {
        const struct secret *secret = get(store, i, &error);
        if (secret == NULL) {
            cr_assert_eq(error.code, 0);
            uv_sem_wait(&woken);
        }
    }
    for (size_t i = 0; i < 3; i++) {
        const struct secret *secret = NULL;
        while ((secret = get(store, i, &error)) == NULL) {
            cr_assert_eq(error.code, 0, "%s", error.message);
            uv_sem_wait(&woken);
        }
        cr_assert_str_eq(secret->encoded, "c2VjcmV0");
    }
    cr_assert_eq(runs(), 1);
    cr_assert(atomic_load(&tags) & 1u);
    secret_store_free(store);
    uv_sem_destroy(&woken);
}

Test(secrets, that_fail_say_so_to_everybody) {
    struct error error = ERROR_INIT;
    uv_sem_init(&woken, 0);
    words[2] = "echo locked >&2; exit 1";
    struct secret_store *store = secret_store_new(folder);
    cr_assert_null(get(store, 1, &error));
    uv_sem_wait(&woken);
    cr_assert_null(get(store, 1, &error));
    cr_assert_not_null(strstr(error.message, "locked"));
    secret_store_free(store);
    uv_sem_destroy(&woken);
}

Test(secrets, that_are_being_read_end_with_the_run) {
    struct error error = ERROR_INIT;
    uv_sem_init(&woken, 0);
    words[2] = "printf x >>runs; sleep 300; printf late";
    struct secret_store *store = secret_store_new(folder);
    cr_assert_null(get(store, 0, &error));
    while (runs() == 0) {
        usleep(10000);
    }
    secret_store_free(store);
    cr_assert_eq(atomic_load(&tags), 0);
    uv_sem_destroy(&woken);
}
