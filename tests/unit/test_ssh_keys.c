/* Key files of every kind that ssh-keygen writes, and an ssh-agent of our own. Whether sshd takes
 * the signatures is for tests/e2e/ssh.bats. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "transport/agent.h"
#include "transport/bcrypt_pbkdf.h"
#include "transport/keyring_keys.h"
#include "transport/private_key.h"
#include "transport/ssh_wire.h"

static char folder[] = "/tmp/fleet-ssh-keys-XXXXXX";

static void set_up(void) {
    cr_assert_not_null(mkdtemp(folder));
}

static void tear_down(void) {
    AUTO_FREE char *command = xasprintf("rm -r %s", folder);
    cr_assert_eq(system(command), 0);
}

TestSuite(ssh_keys, .init = set_up, .fini = tear_down);

static void run(const char *format, const char *argument) {
    AUTO_FREE char *tail = xasprintf("%s", argument);
    AUTO_FREE char *command = xasprintf("cd %s && %s %s >/dev/null 2>&1", folder, format, tail);
    cr_assert_eq(system(command), 0, "%s", command);
}

static char *make_key(const char *name, const char *options) {
    AUTO_FREE char *arguments = xasprintf("-f %s %s", name, options);
    run("ssh-keygen -q", arguments);
    return xasprintf("%s/%s", folder, name);
}

static char *read_text(const char *path) {
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file, "%s", path);
    char *text = xcalloc(1, 65536);
    cr_assert_gt(fread(text, 1, 65535, file), 0);
    fclose(file);
    return text;
}

static uint8_t *public_blob(const char *path, size_t *ret_len) {
    AUTO_FREE char *name = xasprintf("%s.pub", path);
    AUTO_FREE char *text = read_text(name);
    char *base64 = strchr(text, ' ') + 1;
    uint8_t *blob = xmalloc(strlen(base64));
    long len = ssh_base64_decode(base64, strcspn(base64, " \n"), blob);
    cr_assert_gt(len, 0);
    *ret_len = (size_t)len;
    return blob;
}

static const struct kind {
    const char *options; /* of ssh-keygen, without -N */
    const char *algorithm;
} kinds[] = {
    {"-t ed25519", "ssh-ed25519"},
    {"-t ecdsa -b 256", "ecdsa-sha2-nistp256"},
    {"-t ecdsa -b 384", "ecdsa-sha2-nistp384"},
    {"-t ecdsa -b 521", "ecdsa-sha2-nistp521"},
    {"-t rsa -b 2048", "rsa-sha2-512"},
    {"-t rsa -b 2048 -m PEM", "rsa-sha2-256"},
    {"-t ecdsa -m PEM", "ecdsa-sha2-nistp256"},
    {"-t rsa -b 2048 -m PKCS8", "rsa-sha2-512"},
    {"-t ed25519 -Z aes128-cbc", "ssh-ed25519"},
};

static void expect_signs(const struct private_key *key, const struct kind *kind) {
    uint8_t *signature = NULL;
    size_t len = 0;
    cr_assert_eq(private_key_sign(key->key, (const uint8_t *)kind->algorithm,
                                  strlen(kind->algorithm), (const uint8_t *)"data", 4, &signature,
                                  &len),
                 0, "%s", kind->options);
    cr_expect_gt(len, 60);
    free(signature);
    cr_expect_neq(private_key_sign(key->key, (const uint8_t *)"ssh-rsa", 7, (const uint8_t *)"data",
                                   4, &signature, &len),
                  0, "SHA-1 must not be used");
}

Test(ssh_keys, reads_every_kind_of_plain_key) {
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        AUTO_FREE char *name = xasprintf("plain%zu", i);
        AUTO_FREE char *options = xasprintf("%s -N ''", kinds[i].options);
        AUTO_FREE char *path = make_key(name, options);
        AUTO_FREE char *text = read_text(path);
        size_t len;
        AUTO_FREE uint8_t *blob = public_blob(path, &len);
        struct private_key key;
        cr_assert_eq(private_key_parse(text, strlen(text), NULL, &key), PRIVATE_KEY_OK, "%s",
                     kinds[i].options);
        cr_expect_eq(key.blob_len, len);
        cr_expect_arr_eq(key.blob, blob, len);
        expect_signs(&key, &kinds[i]);
        private_key_release(&key);
    }
}

Test(ssh_keys, decrypts_every_kind_with_the_right_passphrase_only) {
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        AUTO_FREE char *name = xasprintf("locked%zu", i);
        AUTO_FREE char *options = xasprintf("%s -N 'a passphrase'", kinds[i].options);
        AUTO_FREE char *path = make_key(name, options);
        AUTO_FREE char *text = read_text(path);
        struct private_key key;
        cr_expect_eq(private_key_parse(text, strlen(text), NULL, &key), PRIVATE_KEY_ENCRYPTED);
        private_key_release(&key);
        cr_expect_eq(private_key_parse(text, strlen(text), "another", &key),
                     PRIVATE_KEY_WRONG_PASSPHRASE);
        private_key_release(&key);
        cr_assert_eq(private_key_parse(text, strlen(text), "a passphrase", &key), PRIVATE_KEY_OK,
                     "%s", kinds[i].options);
        expect_signs(&key, &kinds[i]);
        private_key_release(&key);
    }
}

/* Damage anywhere ends in a verdict, never outside the bytes. */
Test(ssh_keys, survives_damaged_files) {
    AUTO_FREE char *path = make_key("damaged", "-t ecdsa -N ''");
    AUTO_FREE char *text = read_text(path);
    size_t len = strlen(text);
    for (size_t i = 0; i < len; i++) {
        char was = text[i];
        text[i] = was == 'A' ? '/' : 'A';
        struct private_key key;
        private_key_parse(text, len, NULL, &key);
        private_key_release(&key);
        text[i] = was;
    }
    /* Without its last newline alone it is whole. */
    for (size_t cut = 0; cut < len - 1; cut += 7) {
        char was = text[cut];
        text[cut] = '\0';
        struct private_key key;
        cr_expect_neq(private_key_parse(text, cut, NULL, &key), PRIVATE_KEY_OK);
        private_key_release(&key);
        text[cut] = was;
    }
}

static int asked;

static char *answer(const char *file, int attempt, void *arg) {
    (void)file;
    asked++;
    return attempt == 2 ? xstrdup(arg) : xstrdup("wrong");
}

Test(ssh_keys, keyring_asks_for_encrypted_files_and_offers_named_ones_only) {
    AUTO_FREE char *plain = make_key("plain", "-t ed25519 -N ''");
    AUTO_FREE char *locked = make_key("locked", "-t ed25519 -N pass");
    const char *files[] = {plain, locked, "/nonexistent/key"};
    struct error error = ERROR_INIT;
    struct keyring *keyring = keyring_new(NULL);
    asked = 0;
    cr_assert_eq(keyring_prepare(keyring, files, 3, answer, (char[]){"pass"}, &error), 0);
    cr_expect_eq(asked, 2);
    struct conn_spec missing = {.identity_files = files + 2, .identity_count = 1};
    struct conn_spec spec = {.identity_files = files + 1, .identity_count = 1};
    struct buf notes = BUF_INIT;
    keyring_notes(keyring, &spec, &notes);
    cr_expect_str_eq(buf_text(&notes), "", "another host's key says nothing of this one");
    keyring_notes(keyring, &missing, &notes);
    cr_expect_str_eq(buf_text(&notes), "; key file /nonexistent/key: No such file or directory");
    buf_free(&notes);
    size_t count;
    const struct identity **list = keyring_identities(keyring, &spec, &count);
    cr_assert_eq(count, 1);
    cr_expect_str_eq(list[0]->path, locked);
    free(list);
    keyring_free(keyring);
}

Test(ssh_keys, keyring_gives_up_an_encrypted_file_without_a_person) {
    AUTO_FREE char *locked = make_key("locked", "-t ed25519 -N pass");
    const char *files[] = {locked};
    struct error error = ERROR_INIT;
    struct keyring *keyring = keyring_new(NULL);
    cr_assert_eq(keyring_prepare(keyring, files, 1, NULL, NULL, &error), 0);
    struct conn_spec spec = {.identity_files = files, .identity_count = 1};
    struct buf notes = BUF_INIT;
    keyring_notes(keyring, &spec, &notes);
    cr_expect_not_null(strstr(buf_text(&notes), "is encrypted"));
    buf_free(&notes);
    keyring_free(keyring);
}

static pid_t start_agent(const char *socket_path) {
    pid_t pid = fork();
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 1);
        execlp("ssh-agent", "ssh-agent", "-D", "-a", socket_path, (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 200 && access(socket_path, F_OK) != 0; i++) {
        usleep(10000);
    }
    return pid;
}

Test(ssh_keys, agent_keys_named_by_a_file_come_first_and_are_not_asked_for) {
    AUTO_FREE char *socket_path = xasprintf("%s/agent", folder);
    AUTO_FREE char *named = make_key("named", "-t ecdsa -N ''");
    free(make_key("other", "-t ed25519 -N ''"));
    AUTO_FREE char *only_file = make_key("file", "-t ed25519 -N ''");
    pid_t pid = start_agent(socket_path);
    AUTO_FREE char *add = xasprintf("SSH_AUTH_SOCK=%s ssh-add", socket_path);
    run(add, "other");
    run(add, "named");
    run("ssh-keygen -q -p -P '' -N locked-now -f", "named");
    const char *files[] = {only_file, named};
    struct error error = ERROR_INIT;
    struct keyring *keyring = keyring_new(socket_path);
    asked = 0;
    cr_assert_eq(keyring_prepare(keyring, files, 2, answer, NULL, &error), 0);
    cr_expect_eq(asked, 0, "the agent holds that key");
    struct conn_spec spec = {.identity_files = files, .identity_count = 2};
    size_t count;
    const struct identity **list = keyring_identities(keyring, &spec, &count);
    cr_assert_eq(count, 3);
    cr_expect_str_eq(list[0]->path, named);
    cr_expect(list[0]->in_agent && list[0]->key == NULL);
    cr_expect_str_eq(list[1]->path, only_file);
    cr_expect_null(list[2]->path);
    free(list);
    spec.identities_only = true;
    list = keyring_identities(keyring, &spec, &count);
    cr_expect_eq(count, 2);
    free(list);
    keyring_free(keyring);
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
}

/* What stays on a laptop whose keys are in a token: the public half. */
Test(ssh_keys, a_public_half_names_the_agents_key) {
    AUTO_FREE char *socket_path = xasprintf("%s/agent", folder);
    AUTO_FREE char *named = make_key("token", "-t ed25519 -N ''");
    AUTO_FREE char *other = make_key("apart", "-t ed25519 -N ''");
    pid_t pid = start_agent(socket_path);
    AUTO_FREE char *add = xasprintf("SSH_AUTH_SOCK=%s ssh-add", socket_path);
    run(add, "token");
    AUTO_FREE char *public_half = xasprintf("%s.pub", named);
    AUTO_FREE char *lonely = xasprintf("%s.pub", other);
    const char *files[] = {public_half, lonely};
    struct error error = ERROR_INIT;
    struct keyring *keyring = keyring_new(socket_path);
    cr_assert_eq(keyring_prepare(keyring, files, 2, NULL, NULL, &error), 0);
    struct conn_spec spec = {.identity_files = files, .identity_count = 2, .identities_only = true};
    size_t count;
    const struct identity **list = keyring_identities(keyring, &spec, &count);
    cr_assert_eq(count, 1);
    cr_expect(list[0]->in_agent && strcmp(list[0]->path, public_half) == 0);
    free(list);
    struct buf notes = BUF_INIT;
    keyring_notes(keyring, &spec, &notes);
    cr_expect_not_null(strstr(buf_text(&notes), "apart.pub: is a public key, and no agent holds"),
                       "%s", buf_text(&notes));
    buf_free(&notes);
    keyring_free(keyring);
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
}

static uv_sem_t done;

static void on_signed(struct ssh_signature *signature) {
    (void)signature;
    uv_sem_post(&done);
}

Test(ssh_keys, agent_that_does_not_answer_can_be_cancelled) {
    free(make_key("plain", "-t ed25519 -N ''"));
    AUTO_FREE char *socket_path = xasprintf("%s/agent", folder);
    pid_t pid = start_agent(socket_path);
    AUTO_FREE char *add = xasprintf("SSH_AUTH_SOCK=%s ssh-add", socket_path);
    run(add, "plain");
    struct error error = ERROR_INIT;
    struct keyring *keyring = keyring_new(socket_path);
    keyring_prepare(keyring, NULL, 0, NULL, NULL, &error);
    kill(pid, SIGSTOP);
    struct conn_spec spec = {0};
    size_t count;
    const struct identity **list = keyring_identities(keyring, &spec, &count);
    cr_assert_eq(count, 1);
    uv_sem_init(&done, 0);
    struct ssh_signature *signature = xcalloc(1, sizeof(*signature));
    signature->identity = list[0];
    signature->algorithm = xmemdup("ssh-ed25519", 11);
    signature->algorithm_len = 11;
    signature->data = xmemdup("data", 4);
    signature->data_len = 4;
    signature->timeout_ms = 60000;
    signature->on_signed = on_signed;
    keyring_sign(keyring, signature);
    usleep(50000);
    keyring_cancel(keyring, signature);
    uv_sem_wait(&done);
    cr_expect_null(signature->result);
    ssh_signature_free(signature);
    free(list);
    keyring_free(keyring);
    uv_sem_destroy(&done);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

Test(ssh_keys, agent_answers_that_lie_are_refused) {
    static const uint8_t huge_count[] = {12, 0xff, 0xff, 0xff, 0xff};
    static const uint8_t short_list[] = {12, 0, 0, 0, 1, 0, 0, 0, 9, 1};
    static const uint8_t other[] = {14, 0, 0, 0, 11, 0, 0, 0, 3, 'r', 's', 'a', 0, 0, 0, 0};
    struct agent_key *keys;
    size_t count;
    uint8_t *signature;
    size_t len;
    cr_expect_eq(agent_parse_keys(huge_count, sizeof(huge_count), &keys, &count),
                 FLEET_ERR_PROTOCOL);
    cr_expect_eq(agent_parse_keys(short_list, sizeof(short_list), &keys, &count),
                 FLEET_ERR_PROTOCOL);
    cr_expect_eq(agent_parse_signature(other, sizeof(other), (const uint8_t *)"ssh-ed25519", 11,
                                       &signature, &len),
                 FLEET_ERR_PROTOCOL);
}
