#include "transport/keyring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"
#include "transport/agent.h"
#include "transport/keyring_keys.h"
#include "transport/private_key.h"
#include "transport/ssh_wire.h"

enum {
    KEY_FILE_MAX = 64 * 1024,
    ASK_TIMES = 3,
    LIST_TIMEOUT_MS = 5000
};

/* What was left out, and why. */
struct note {
    char *path; /* the key's; NULL: of the agent */
    char *text;
};

struct keyring {
    char *agent_socket;
    struct identity **identities;
    size_t count;
    struct note *notes;
    size_t note_count;
    uv_thread_t thread;
    bool thread_runs;
    bool ending;
    int wake_fd; /* wakes the thread out of a wait for the agent */
    uv_mutex_t mutex;
    uv_cond_t cond;
    struct ssh_signature *head; /* under the mutex */
    struct ssh_signature *tail;
};

struct keyring *keyring_new(const char *agent_socket) {
    struct keyring *keyring = xcalloc(1, sizeof(*keyring));
    keyring->agent_socket = agent_socket != NULL ? xstrdup(agent_socket) : NULL;
    keyring->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    uv_mutex_init(&keyring->mutex);
    uv_cond_init(&keyring->cond);
    return keyring;
}

static void identity_free(struct identity *identity) {
    EVP_PKEY_free(identity->key);
    free(identity->path);
    free(identity->comment);
    free(identity->label);
    free(identity->blob);
    free(identity);
}

void keyring_free(struct keyring *keyring) {
    uv_mutex_lock(&keyring->mutex);
    keyring->ending = true;
    uv_cond_signal(&keyring->cond);
    uv_mutex_unlock(&keyring->mutex);
    if (keyring->thread_runs) {
        uv_thread_join(&keyring->thread);
    }
    for (size_t i = 0; i < keyring->count; i++) {
        identity_free(keyring->identities[i]);
    }
    free(keyring->identities);
    for (size_t i = 0; i < keyring->note_count; i++) {
        free(keyring->notes[i].path);
        free(keyring->notes[i].text);
    }
    free(keyring->notes);
    close(keyring->wake_fd);
    uv_cond_destroy(&keyring->cond);
    uv_mutex_destroy(&keyring->mutex);
    free(keyring->agent_socket);
    free(keyring);
}

static struct identity *add_identity(struct keyring *keyring) {
    struct identity *identity = xcalloc(1, sizeof(*identity));
    keyring->identities = xrealloc(keyring->identities, (keyring->count + 1) * sizeof(void *));
    keyring->identities[keyring->count++] = identity;
    return identity;
}

static struct identity *find_blob(const struct keyring *keyring, const uint8_t *blob, size_t len) {
    for (size_t i = 0; i < keyring->count; i++) {
        struct identity *identity = keyring->identities[i];
        if (identity->blob_len == len && memcmp(identity->blob, blob, len) == 0) {
            return identity;
        }
    }
    return NULL;
}

static const struct identity *find_path(const struct keyring *keyring, const char *path) {
    for (size_t i = 0; i < keyring->count; i++) {
        const char *have = keyring->identities[i]->path;
        if (have != NULL && strcmp(have, path) == 0) {
            return keyring->identities[i];
        }
    }
    return NULL;
}

static void set_label(struct identity *identity) {
    AUTO_FREE char *fingerprint = ssh_fingerprint(identity->blob, identity->blob_len);
    const char *origin = identity->path != NULL ? identity->path : identity->comment;
    free(identity->label);
    identity->label =
        xasprintf("%s %s (%s%s)", ssh_key_type_name(identity->blob, identity->blob_len),
                  fingerprint, identity->in_agent ? "agent, " : "", origin != NULL ? origin : "");
}

static void add_note(struct keyring *keyring, const char *path, const char *what) {
    size_t count = keyring->note_count + 1;
    keyring->notes = xrealloc(keyring->notes, count * sizeof(*keyring->notes));
    keyring->notes[keyring->note_count++] = (struct note){
        .path = path != NULL ? xstrdup(path) : NULL,
        .text = path != NULL ? xasprintf("key file %s: %s", path, what) : xstrdup(what),
    };
}

static void read_agent(struct keyring *keyring) {
    struct agent_key *keys = NULL;
    size_t count = 0;
    struct error error = ERROR_INIT;
    if (agent_list(keyring->agent_socket, LIST_TIMEOUT_MS, &keys, &count, &error) != 0) {
        add_note(keyring, NULL, error.message);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (find_blob(keyring, keys[i].blob, keys[i].blob_len) != NULL) {
            continue;
        }
        struct identity *identity = add_identity(keyring);
        identity->blob = xmemdup(keys[i].blob, keys[i].blob_len);
        identity->blob_len = keys[i].blob_len;
        identity->comment = xstrdup(keys[i].comment);
        identity->in_agent = true;
        set_label(identity);
    }
    agent_keys_free(keys, count);
}

/* A whole small file as a NUL-terminated text that the caller wipes. 0 or an errno. */
static int read_small(const char *path, struct buf *ret) {
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0) {
        return errno;
    }
    if (!S_ISREG(status.st_mode) || status.st_size > KEY_FILE_MAX) {
        return EINVAL;
    }
    buf_reserve(ret, KEY_FILE_MAX + 1);
    while (ret->len < KEY_FILE_MAX) {
        ssize_t got = read(fd, ret->data + ret->len, KEY_FILE_MAX - ret->len);
        if (got < 0) {
            return errno;
        }
        if (got == 0) {
            break;
        }
        ret->len += (size_t)got;
    }
    ret->data[ret->len] = '\0';
    return 0;
}

/* The blob in "ssh-ed25519 BASE64 COMMENT", or NULL. */
static uint8_t *parse_public(const char *line, size_t *ret_len) {
    const char *base64 = strchr(line, ' ');
    if (base64 == NULL) {
        return NULL;
    }
    base64++;
    size_t len = strcspn(base64, " \t\r\n");
    uint8_t *blob = xmalloc(len / 4 * 3 + 3);
    long decoded = ssh_base64_decode(base64, len, blob);
    if (decoded <= 0) {
        free(blob);
        return NULL;
    }
    *ret_len = (size_t)decoded;
    return blob;
}

/* The blob in "PATH.pub", for keys whose file doesn't tell while it is encrypted. */
static uint8_t *read_public(const char *path, size_t *ret_len) {
    AUTO_FREE char *public_path = xasprintf("%s.pub", path);
    struct buf text = BUF_INIT;
    uint8_t *blob =
        read_small(public_path, &text) == 0 ? parse_public(buf_text(&text), ret_len) : NULL;
    buf_free(&text);
    return blob;
}

/* Asks until the file opens or the person gives up. */
static enum private_key_result decrypt_asking(const char *path, const struct buf *text,
                                              keyring_ask ask, void *arg, struct private_key *ret) {
    enum private_key_result result = PRIVATE_KEY_ENCRYPTED;
    for (int attempt = 1; attempt <= ASK_TIMES; attempt++) {
        char *passphrase = ask(path, attempt, arg);
        if (passphrase == NULL) {
            return PRIVATE_KEY_ENCRYPTED;
        }
        private_key_release(ret);
        result = private_key_parse(text->data, text->len, passphrase, ret);
        secret_wipe(passphrase, strlen(passphrase));
        free(passphrase);
        if (result != PRIVATE_KEY_WRONG_PASSPHRASE) {
            break;
        }
    }
    return result;
}

/* The agent's entry for this public half now also has the file's name. True if there is one. */
static bool join_agent(struct keyring *keyring, const char *path, const uint8_t *blob, size_t len) {
    struct identity *identity = blob != NULL ? find_blob(keyring, blob, len) : NULL;
    if (identity == NULL) {
        return false;
    }
    if (identity->path == NULL) {
        identity->path = xstrdup(path);
        set_label(identity);
    }
    return true;
}

static void add_file_key(struct keyring *keyring, const char *path, struct private_key *key) {
    struct identity *identity = add_identity(keyring);
    identity->path = xstrdup(path);
    identity->blob = key->blob;
    identity->blob_len = key->blob_len;
    identity->key = key->key;
    *key = (struct private_key){0};
    set_label(identity);
}

static void note_result(struct keyring *keyring, const char *path, enum private_key_result result) {
    static const char *const notes[] = {
        [PRIVATE_KEY_OK] = "",
        [PRIVATE_KEY_ENCRYPTED] = ("is encrypted and no passphrase was given: add it to the agent "
                                   "(ssh-add), or run fleet at a terminal"),
        [PRIVATE_KEY_WRONG_PASSPHRASE] = "could not be decrypted: the passphrase was wrong",
        [PRIVATE_KEY_UNSUPPORTED] = "is no private key of a kind that fleet can use",
    };
    add_note(keyring, path, notes[result]);
}

/* As in ssh, a file may be the public half of a key that the agent holds. */
static void note_unusable(struct keyring *keyring, const char *path, const struct buf *text,
                          enum private_key_result result) {
    size_t len = 0;
    bool is_pem = strncmp(buf_text(text), "-----", 5) == 0;
    AUTO_FREE uint8_t *blob =
        result == PRIVATE_KEY_UNSUPPORTED && !is_pem ? parse_public(buf_text(text), &len) : NULL;
    if (blob == NULL) {
        note_result(keyring, path, result);
    } else if (!join_agent(keyring, path, blob, len)) {
        add_note(keyring, path, "is a public key, and no agent holds its private half");
    }
}

static void read_key_file(struct keyring *keyring, const char *path, keyring_ask ask, void *arg) {
    struct buf text = BUF_INIT;
    size_t public_len = 0;
    AUTO_FREE uint8_t *public_blob = read_public(path, &public_len);
    if (join_agent(keyring, path, public_blob, public_len)) {
        return;
    }
    int errnum = read_small(path, &text);
    if (errnum != 0) {
        add_note(keyring, path, strerror(errnum));
        buf_wipe(&text);
        return;
    }
    struct private_key key;
    enum private_key_result result = private_key_parse(text.data, text.len, NULL, &key);
    if (!join_agent(keyring, path, key.blob, key.blob_len)) {
        if (result == PRIVATE_KEY_ENCRYPTED && ask != NULL) {
            result = decrypt_asking(path, &text, ask, arg, &key);
        }
        if (result == PRIVATE_KEY_OK && !join_agent(keyring, path, key.blob, key.blob_len)) {
            add_file_key(keyring, path, &key);
        } else if (result != PRIVATE_KEY_OK) {
            note_unusable(keyring, path, &text, result);
        }
    }
    private_key_release(&key);
    buf_wipe(&text);
}

int keyring_prepare(struct keyring *keyring, const char *const *files, size_t count,
                    keyring_ask ask, void *arg, struct error *error) {
    (void)error;
    if (keyring->agent_socket != NULL) {
        read_agent(keyring);
    }
    for (size_t i = 0; i < count; i++) {
        if (find_path(keyring, files[i]) == NULL) {
            read_key_file(keyring, files[i], ask, arg);
        }
    }
    return 0;
}

static bool is_named(const char *path, const struct conn_spec *spec) {
    for (size_t i = 0; i < spec->identity_count; i++) {
        if (path != NULL && strcmp(path, spec->identity_files[i]) == 0) {
            return true;
        }
    }
    return false;
}

void keyring_notes(const struct keyring *keyring, const struct conn_spec *spec, struct buf *out) {
    for (size_t i = 0; i < keyring->note_count; i++) {
        const struct note *note = &keyring->notes[i];
        if (note->path == NULL || is_named(note->path, spec)) {
            buf_printf(out, "; %s", note->text);
        }
    }
}

const struct identity **keyring_identities(const struct keyring *keyring,
                                           const struct conn_spec *spec, size_t *ret_count) {
    const struct identity **list = xcalloc(keyring->count + 1, sizeof(struct identity *));
    size_t count = 0;
    for (int pass = 0; pass < 3; pass++) {
        for (size_t i = 0; i < keyring->count; i++) {
            const struct identity *identity = keyring->identities[i];
            bool named = is_named(identity->path, spec);
            bool wanted = pass == 0   ? named && identity->in_agent
                          : pass == 1 ? named && !identity->in_agent
                                      : !named && identity->in_agent && !spec->identities_only;
            if (wanted) {
                list[count++] = identity;
            }
        }
    }
    *ret_count = count;
    return list;
}

void ssh_signature_free(struct ssh_signature *signature) {
    free(signature->algorithm);
    free(signature->data);
    free(signature->result);
    free(signature);
}

static void sign_by_agent(struct keyring *keyring, struct ssh_signature *signature) {
    struct buf request = BUF_INIT;
    struct buf answer = BUF_INIT;
    agent_add_sign_request(&request, signature->identity->blob, signature->identity->blob_len,
                           signature->data, signature->data_len, signature->algorithm,
                           signature->algorithm_len);
    struct agent_cancel cancel = {keyring->wake_fd, &signature->cancelled};
    int rc = agent_ask(keyring->agent_socket, &request, &cancel, signature->timeout_ms, &answer,
                       &signature->error);
    if (rc == 0 && agent_parse_signature((const uint8_t *)answer.data, answer.len,
                                         signature->algorithm, signature->algorithm_len,
                                         &signature->result, &signature->result_len) != 0) {
        error_set(&signature->error, FLEET_ERR_SYSTEM, "agent-refused",
                  "the SSH agent would not sign with %s: was the request declined, or the agent "
                  "locked?",
                  signature->identity->label);
    }
    buf_free(&request);
    buf_free(&answer);
}

static void agent_thread(void *arg) {
    struct keyring *keyring = arg;
    uv_mutex_lock(&keyring->mutex);
    for (;;) {
        while (keyring->head == NULL && !keyring->ending) {
            uv_cond_wait(&keyring->cond, &keyring->mutex);
        }
        struct ssh_signature *signature = keyring->head;
        if (signature == NULL) {
            break;
        }
        keyring->head = signature->next;
        keyring->tail = keyring->head == NULL ? NULL : keyring->tail;
        uv_mutex_unlock(&keyring->mutex);
        if (!atomic_load(&signature->cancelled)) {
            sign_by_agent(keyring, signature);
        }
        signature->on_signed(signature);
        uv_mutex_lock(&keyring->mutex);
    }
    uv_mutex_unlock(&keyring->mutex);
}

void keyring_sign(struct keyring *keyring, struct ssh_signature *signature) {
    uv_mutex_lock(&keyring->mutex);
    signature->next = NULL;
    if (keyring->tail != NULL) {
        keyring->tail->next = signature;
    } else {
        keyring->head = signature;
    }
    keyring->tail = signature;
    if (!keyring->thread_runs) {
        keyring->thread_runs = uv_thread_create(&keyring->thread, agent_thread, keyring) == 0;
    }
    uv_cond_signal(&keyring->cond);
    uv_mutex_unlock(&keyring->mutex);
}

void keyring_cancel(struct keyring *keyring, struct ssh_signature *signature) {
    uint64_t one = 1;
    atomic_store(&signature->cancelled, true);
    (void)!write(keyring->wake_fd, &one, sizeof(one));
}
