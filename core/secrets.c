/* Secrets, read here and put into their place there (see secrets.h). */
#include "core/secrets.h"

#include <assert.h>
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

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/target_call.h"
#include "target_script.h"

#define COMMAND_MS     60000u
#define PUT_TIMEOUT_MS 60000u
#define WORDS_MAX      64u
#define WORDS_SHOWN    700u /* of a tool that failed */
#define SOON_MS        5
#define LOOK_MS        100 /* at whether it is to stop */

static const char *const state_names[] = {[SECRET_CURRENT] = "current",
                                          [SECRET_MISSING] = "missing",
                                          [SECRET_STALE] = "stale",
                                          [SECRET_MODE] = "mode"};

const char *secret_state_name(enum secret_state state) {
    return state_names[state];
}

/* ---- reading ---- */

/* What a source gives: the secret, and a tool's own words. */
struct draught {
    unsigned char *room; /* SECRET_MAX_BYTES + 1 */
    size_t len;
    char words[WORDS_SHOWN]; /* the end of stderr */
    size_t words_len;
};

/* Keeps the end. */
static void add_words(struct draught *draught, const char *data, size_t len) {
    if (len > sizeof(draught->words)) {
        data += len - sizeof(draught->words);
        len = sizeof(draught->words);
    }
    if (draught->words_len + len > sizeof(draught->words)) {
        size_t drop = draught->words_len + len - sizeof(draught->words);
        memmove(draught->words, draught->words + drop, draught->words_len - drop);
        draught->words_len -= drop;
    }
    memcpy(draught->words + draught->words_len, data, len);
    draught->words_len += len;
}

/* One read of `fd`: 1, 0 at its end, -1 where it broke. */
static int read_some(int fd, bool is_words, struct draught *draught) {
    char words[512];
    ssize_t n = is_words
                    ? read(fd, words, sizeof(words))
                    : read(fd, draught->room + draught->len, SECRET_MAX_BYTES + 1 - draught->len);
    if (n < 0) {
        return errno == EINTR || errno == EAGAIN ? 1 : -1;
    }
    if (is_words) {
        add_words(draught, words, (size_t)n);
    } else {
        draught->len += (size_t)n;
    }
    return n > 0 ? 1 : 0;
}

static bool is_over(const struct secret_reading *reading, uint64_t until_ms) {
    return clock_now_ms(&clock_system) >= until_ms ||
           (reading->stop != NULL && atomic_load(reading->stop));
}

/* Until fds[0] has ended, with what comes from fds[1] (-1: nothing does) meanwhile. False: its time is
 * over, or it broke. One that is too large is left off: the caller sees that. */
static bool read_all(const int fds[2], const struct secret_reading *reading, uint64_t until_ms,
                     struct draught *draught) {
    struct pollfd polled[2] = {{.fd = fds[0], .events = POLLIN}, {.fd = fds[1], .events = POLLIN}};
    while (polled[0].fd >= 0 && draught->len <= SECRET_MAX_BYTES) {
        if (is_over(reading, until_ms) || (poll(polled, 2, LOOK_MS) < 0 && errno != EINTR)) {
            return false;
        }
        for (int i = 0; i < 2; i++) {
            int got = polled[i].revents != 0 ? read_some(polled[i].fd, i == 1, draught) : 1;
            if (got < 0) {
                return false;
            }
            polled[i].fd = got > 0 ? polled[i].fd : -1;
            polled[i].revents = 0;
        }
    }
    return true;
}

static int start(char *const *argv, const struct secret_reading *reading, const int outputs[2],
                 pid_t *ret) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t defaults;
    short flags = POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK;
    sigemptyset(&defaults);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &defaults);
    sigaddset(&defaults, SIGPIPE);
    sigaddset(&defaults, SIGXFSZ);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawn_file_actions_addchdir_np(&actions, reading->dir);
    posix_spawn_file_actions_adddup2(&actions, outputs[0], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, outputs[1], STDERR_FILENO);
    if (reading->unattended) {
        flags |= POSIX_SPAWN_SETSID;
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    }
    posix_spawnattr_setflags(&attributes, flags);
    int err = posix_spawnp(ret, argv[0], &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return err;
}

/* What is there of its words by now, or comes within `wait_ms`; false once there are no more. */
static bool read_words(int fd, int wait_ms, struct draught *draught) {
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    if (poll(&polled, 1, wait_ms) <= 0) {
        return wait_ms > 0;
    }
    return read_some(fd, true, draught) > 0;
}

/* The exit status. A tool whose output was not whole, or that doesn't end, is ended, and its children
 * with it where it has a session of its own. What it has started in the background is not waited
 * for, though it may hold on to stderr. */
static int finish(pid_t pid, int words, const struct secret_reading *reading, uint64_t until_ms,
                  bool *whole, struct draught *draught) {
    int status = 0;
    bool more = true;
    for (;;) {
        if (!*whole) {
            kill(reading->unattended ? -pid : pid, SIGKILL);
        }
        pid_t ended = waitpid(pid, &status, *whole ? WNOHANG : 0);
        if (ended == pid || (ended < 0 && errno != EINTR)) {
            break;
        }
        if (more) {
            more = read_words(words, LOOK_MS, draught);
        } else {
            poll(NULL, 0, SOON_MS);
        }
        *whole = *whole && !is_over(reading, until_ms);
    }
    while (more && read_words(words, 0, draught)) {
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int explain(const char *tool, const struct draught *draught, bool whole, int status,
                   struct error *error) {
    AUTO_FREE char *words = text_cleaned(draught->words, draught->words_len);
    const char *between = words[0] != '\0' ? ": " : "";
    if (whole && status != 0) {
        return error_set(error, FLEET_ERR_SYSTEM, "secret-command",
                         "%s failed (exit status %d)%s%s", tool, status, between,
                         words[0] != '\0' ? words : "; it said nothing, run it by hand");
    }
    if (!whole && draught->len <= SECRET_MAX_BYTES) {
        return error_set(error, FLEET_ERR_SYSTEM, "secret-command",
                         "%s did not end within %u s, or was stopped%s%s", tool, COMMAND_MS / 1000,
                         between, words);
    }
    return 0;
}

static int run_command(char *const *argv, const struct secret_reading *reading,
                       struct draught *draught, struct error *error) {
    int out[2];
    int err[2];
    pid_t pid = 0;
    if (pipe2(out, O_CLOEXEC) != 0) {
        return error_errno(error, errno, "making a pipe to %s", argv[0]);
    }
    if (pipe2(err, O_CLOEXEC) != 0) {
        int why = errno;
        close(out[0]);
        close(out[1]);
        return error_errno(error, why, "making a pipe to %s", argv[0]);
    }
    int failed = start(argv, reading, (const int[]){out[1], err[1]}, &pid);
    close(out[1]);
    close(err[1]);
    bool whole = false;
    int status = 0;
    if (failed == 0) {
        uint64_t until_ms = clock_now_ms(&clock_system) + COMMAND_MS;
        whole = read_all((const int[]){out[0], err[0]}, reading, until_ms, draught) &&
                draught->len <= SECRET_MAX_BYTES;
        status = finish(pid, err[0], reading, until_ms, &whole, draught);
    }
    close(out[0]);
    close(err[0]);
    if (failed != 0) {
        return error_errno(error, failed, "%s cannot be run in %s", argv[0], reading->dir);
    }
    return explain(argv[0], draught, whole, status, error);
}

static int read_file(const char *file, const struct secret_reading *reading,
                     struct draught *draught, struct error *error) {
    AUTO_CLOSE int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return error_errno(error, errno, "%s can't be opened", file);
    }
    errno = ETIMEDOUT;
    if (!read_all((const int[]){fd, -1}, reading, clock_now_ms(&clock_system) + COMMAND_MS,
                  draught)) {
        return error_errno(error, errno, "%s can't be read", file);
    }
    return 0;
}

/* The words of its command, or for a file the file alone; how many there are. */
static size_t source_words(const struct inv_host *host, const struct inv_secret *what,
                           char *ret[WORDS_MAX]) {
    const char *const age[] = {"age", "--decrypt", "--identity", what->identity, what->file};
    const char *const *words = what->command.items;
    size_t count = what->command.count;
    if (what->source == INV_SECRET_AGE) {
        words = age;
        count = ARRAY_LEN(age);
    } else if (what->source == INV_SECRET_FILE) {
        words = &what->file;
        count = 1;
    }
    assert(count > 0); /* an inventory with an empty command does not load */
    for (size_t i = 0; i < count && i < WORDS_MAX; i++) {
        ret[i] = inv_expand(words[i], host, NULL);
    }
    return count;
}

static void free_words(char *words[WORDS_MAX], size_t count) {
    for (size_t i = 0; i < count && i < WORDS_MAX; i++) {
        free(words[i]);
    }
}

char *secret_key(const struct inv_host *host, const struct inv_secret *what) {
    char *words[WORDS_MAX + 1] = {NULL};
    struct buf key = BUF_INIT;
    size_t count = source_words(host, what, words);
    buf_printf(&key, "%d", (int)what->source);
    for (size_t i = 0; i < count && i < WORDS_MAX; i++) {
        buf_printf(&key, " %zu:%s", strlen(words[i]), words[i]);
    }
    free_words(words, count);
    return buf_take(&key);
}

static int read_source(const struct inv_host *host, const struct inv_secret *what,
                       const struct secret_reading *reading, struct draught *draught,
                       struct error *error) {
    char *words[WORDS_MAX + 1] = {NULL};
    size_t count = source_words(host, what, words);
    int err = 0;
    if (count > WORDS_MAX) {
        err = error_set(error, FLEET_ERR_SYSTEM, "secret-command",
                        "its command has more than %u words; put it into a script", WORDS_MAX);
    } else if (what->source == INV_SECRET_FILE) {
        err = read_file(words[0], reading, draught, error);
    } else {
        err = run_command(words, reading, draught, error);
    }
    free_words(words, count);
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

int secret_read(const struct inv_host *host, const struct inv_secret *what,
                const struct secret_reading *reading, struct secret *ret, struct error *error) {
    struct draught draught = {.room = xmalloc(SECRET_MAX_BYTES + 1)};
    *ret = (struct secret){0};
    int err = read_source(host, what, reading, &draught, error);
    if (err == 0 && (draught.len == 0 || draught.len > SECRET_MAX_BYTES)) {
        err = error_set(error, FLEET_ERR_SYSTEM, "secret-size", "it is %s",
                        draught.len == 0 ? "empty" : "larger than 1 MiB");
    }
    if (err == 0) {
        encode(draught.room, draught.len, ret);
    } else {
        error_wrap(error, "the secret \"%s\"", what->name);
    }
    secret_wipe(draught.room, SECRET_MAX_BYTES + 1);
    free(draught.room);
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
                const char *lock_id, target_done done, void *arg) {
    struct target_call call = {.what = "putting the secret into its place",
                               .parts = {target_script_lock, target_script_secret_put},
                               .timeout_ms = PUT_TIMEOUT_MS,
                               .done = done,
                               .arg = arg};
    char mode[16];
    struct buf units = BUF_INIT;
    snprintf(mode, sizeof(mode), "%04o", what->mode);
    for (size_t i = 0; i < what->restart.count; i++) {
        buf_printf(&units, "%s%s", i > 0 ? "\n" : "", what->restart.items[i]);
    }
    target_call_set(&call, "LOCK_ID", lock_id);
    target_call_set(&call, "SECRET_PATH", what->path);
    target_call_set(&call, "OWNER", what->owner);
    target_call_set(&call, "GROUP", what->group);
    target_call_set(&call, "MODE", mode);
    target_call_set(&call, "CONTENT", secret->encoded);
    target_call_set(&call, "UNITS", buf_text(&units));
    target_call_send(&call, shell);
    buf_free(&units);
}

void secret_restart(struct shell *shell, uint64_t timeout_ms, target_done done, void *arg) {
    struct target_call call = {.what = "restarting the units of the secrets",
                               .parts = {target_script_secret_restart},
                               .timeout_ms = timeout_ms + PUT_TIMEOUT_MS,
                               .done = done,
                               .arg = arg};
    target_call_seconds(&call, "SECONDS_MAX", timeout_ms);
    target_call_send(&call, shell);
}
