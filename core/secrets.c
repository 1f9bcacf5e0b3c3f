/* Secrets, read here and put into their place there (see secrets.h). */
#include "core/secrets.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "core/base/clock.h"
#include "core/base/xalloc.h"
#include "core/target_call.h"
#include "target_script.h"

#define COMMAND_MS     60000u
#define PUT_TIMEOUT_MS 60000u
#define WORDS_MAX      64u

static const char *const state_names[] = {[SECRET_CURRENT] = "current",
                                          [SECRET_MISSING] = "missing",
                                          [SECRET_STALE] = "stale",
                                          [SECRET_MODE] = "mode"};

const char *secret_state_name(enum secret_state state) {
    return state_names[state];
}

/* ---- reading ---- */

/* Into `room` of SECRET_MAX_BYTES + 1, until the end. False: the deadline passed, or it broke. */
static bool read_all(int fd, uint64_t until_ms, unsigned char *room, size_t *ret_len) {
    *ret_len = 0;
    while (*ret_len <= SECRET_MAX_BYTES) {
        uint64_t now = clock_now_ms(&clock_system);
        struct pollfd polled = {.fd = fd, .events = POLLIN};
        if (now >= until_ms || (poll(&polled, 1, (int)(until_ms - now)) < 0 && errno != EINTR)) {
            return false;
        }
        if (polled.revents == 0) {
            continue;
        }
        ssize_t n = read(fd, room + *ret_len, SECRET_MAX_BYTES + 1 - *ret_len);
        if (n == 0) {
            return true;
        }
        if (n < 0 && errno != EINTR) {
            return false;
        }
        *ret_len += n > 0 ? (size_t)n : 0;
    }
    return true; /* too large: the caller sees that */
}

static int start(char *const *argv, const char *dir, int output, pid_t *ret) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t defaults;
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addchdir_np(&actions, dir);
    posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    int err = posix_spawnp(ret, argv[0], &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return err;
}

/* The exit status; ended at once where its output was not whole. */
static int finish(pid_t pid, bool whole) {
    int status = 0;
    if (!whole) {
        kill(pid, SIGKILL);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int run_command(char *const *argv, const char *dir, unsigned char *room, size_t *ret_len,
                       struct error *error) {
    int fds[2];
    pid_t pid = 0;
    if (pipe2(fds, O_CLOEXEC) != 0) {
        return error_errno(error, errno, "making a pipe to %s", argv[0]);
    }
    int failed = start(argv, dir, fds[1], &pid);
    close(fds[1]);
    if (failed != 0) {
        close(fds[0]);
        return error_errno(error, failed, "%s cannot be run in %s", argv[0], dir);
    }
    bool whole = read_all(fds[0], clock_now_ms(&clock_system) + COMMAND_MS, room, ret_len) &&
                 *ret_len <= SECRET_MAX_BYTES;
    close(fds[0]);
    int status = finish(pid, whole);
    if (!whole && *ret_len <= SECRET_MAX_BYTES) {
        return error_set(error, FLEET_ERR_SYSTEM, "secret-command", "%s did not end within %u s",
                         argv[0], COMMAND_MS / 1000);
    }
    if (whole && status != 0) {
        return error_set(error, FLEET_ERR_SYSTEM, "secret-command",
                         "%s failed (exit status %d); run it by hand to see why", argv[0], status);
    }
    return 0;
}

static int read_file(const char *file, unsigned char *room, size_t *ret_len, struct error *error) {
    AUTO_CLOSE int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return error_errno(error, errno, "%s can't be opened", file);
    }
    if (!read_all(fd, clock_now_ms(&clock_system) + COMMAND_MS, room, ret_len)) {
        return error_errno(error, errno, "%s can't be read", file);
    }
    return 0;
}

static int read_source(const struct inv_host *host, const struct inv_secret *what, const char *dir,
                       unsigned char *room, size_t *ret_len, struct error *error) {
    char *argv[WORDS_MAX + 1] = {NULL};
    const char *const age[] = {"age", "--decrypt", "--identity", what->identity, what->file};
    bool is_age = what->source == INV_SECRET_AGE;
    const char *const *words = is_age ? age : what->command.items;
    size_t count = is_age ? ARRAY_LEN(age) : what->command.count;
    if (what->source == INV_SECRET_FILE) {
        AUTO_FREE char *file = inv_expand(what->file, host, NULL);
        return read_file(file, room, ret_len, error);
    }
    if (count > WORDS_MAX) {
        return error_set(error, FLEET_ERR_SYSTEM, "secret-command",
                         "its command has more than %u words; put it into a script", WORDS_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        argv[i] = inv_expand(words[i], host, NULL);
    }
    int err = run_command(argv, dir, room, ret_len, error);
    for (size_t i = 0; i < count; i++) {
        free(argv[i]);
    }
    return err;
}

static void encode(const unsigned char *bytes, size_t len, struct secret *ret) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    EVP_Digest(bytes, len, digest, &size, EVP_sha256(), NULL);
    for (unsigned int i = 0; i < size && i < (SECRET_HASH_SIZE - 1) / 2; i++) {
        snprintf(ret->hash + i * 2, 3, "%02x", digest[i]);
    }
    ret->encoded = xcalloc(1, (len + 2) / 3 * 4 + 1);
    EVP_EncodeBlock((unsigned char *)ret->encoded, bytes, (int)len);
}

int secret_read(const struct inv_host *host, const struct inv_secret *what, const char *dir,
                struct secret *ret, struct error *error) {
    unsigned char *room = xmalloc(SECRET_MAX_BYTES + 1);
    size_t len = 0;
    *ret = (struct secret){0};
    int err = read_source(host, what, dir, room, &len, error);
    if (err == 0 && (len == 0 || len > SECRET_MAX_BYTES)) {
        err = error_set(error, FLEET_ERR_SYSTEM, "secret-size", "it is %s",
                        len == 0 ? "empty" : "larger than 1 MiB");
    }
    if (err == 0) {
        encode(room, len, ret);
    } else {
        error_wrap(error, "%s: the secret \"%s\"", host->name, what->name);
    }
    secret_wipe(room, SECRET_MAX_BYTES + 1);
    free(room);
    return err;
}

void secret_release(struct secret *secret) {
    if (secret->encoded != NULL) {
        secret_wipe(secret->encoded, strlen(secret->encoded));
    }
    free(secret->encoded);
    secret_wipe(secret->hash, sizeof(secret->hash));
    *secret = (struct secret){0};
}

/* ---- the target ---- */

void secret_look(struct shell *shell, const struct inv_host *host, target_done done, void *arg) {
    struct target_call call = {.what = "the look at the secrets",
                               .parts = {target_script_secret_look},
                               .timeout_ms = PUT_TIMEOUT_MS,
                               .done = done,
                               .arg = arg};
    struct buf paths = BUF_INIT;
    for (size_t i = 0; i < host->secret_count; i++) {
        buf_printf(&paths, "%s%s", i > 0 ? "\n" : "", host->secrets[i].path);
    }
    target_call_set(&call, "PATHS", buf_text(&paths));
    target_call_send(&call, shell);
    buf_free(&paths);
}

enum secret_state secret_judge(const struct target_reply *reply, const struct inv_secret *what,
                               const struct secret *secret) {
    AUTO_FREE char *rights = xasprintf(" %s %s %o ", what->owner, what->group, what->mode);
    const char *line;
    size_t at = 0;
    while ((line = target_reply_next(reply, "secret", &at)) != NULL) {
        size_t len = strlen(line);
        size_t path_len = strlen(what->path);
        if (len <= path_len || line[len - path_len - 1] != ' ' ||
            strcmp(line + len - path_len, what->path) != 0) {
            continue;
        }
        if (strncmp(line, secret->hash, SECRET_HASH_SIZE - 1) != 0) {
            return SECRET_STALE;
        }
        return strncmp(line + SECRET_HASH_SIZE - 1, rights, strlen(rights)) == 0 ? SECRET_CURRENT
                                                                                 : SECRET_MODE;
    }
    return SECRET_MISSING;
}

void secret_put(struct shell *shell, const struct inv_secret *what, const struct secret *secret,
                target_done done, void *arg) {
    struct target_call call = {.what = "putting the secret into its place",
                               .parts = {target_script_secret_put},
                               .timeout_ms = PUT_TIMEOUT_MS,
                               .done = done,
                               .arg = arg};
    char mode[16];
    snprintf(mode, sizeof(mode), "%04o", what->mode);
    target_call_set(&call, "SECRET_PATH", what->path);
    target_call_set(&call, "OWNER", what->owner);
    target_call_set(&call, "GROUP", what->group);
    target_call_set(&call, "MODE", mode);
    target_call_set(&call, "CONTENT", secret->encoded);
    target_call_send(&call, shell);
}
