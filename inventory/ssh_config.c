/* OpenSSH's file format has Host, Match, Include, tokens and twenty years of details: `ssh -G`
 * knows them all. It costs a process a host, so where the files say the same of every host, one
 * process answers for all.
 */
#include "inventory/ssh_config.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"

#define PROCESSES_MAX  8
#define DEADLINE_MS    10000
#define OUTPUT_MAX     ((size_t)1024 * 1024)
#define INCLUDES_MAX   4
#define SYSTEM_CONFIG  "/etc/ssh/ssh_config"
#define SYSTEM_INCLUDE "/etc/ssh"

/* One ssh that runs. */
struct query {
    pid_t pid;  /* 0: none */
    int fds[2]; /* its stdout and stderr, -1 once ended */
    struct buf output[2];
    uint64_t deadline_ms;
    size_t index;
};

/* OpenSSH looks in the password database, never at $HOME. */
static char *home_folder(void) {
    struct passwd entry;
    struct passwd *found = NULL;
    char room[4096];
    if (getpwuid_r(getuid(), &entry, room, sizeof(room), &found) == 0 && found != NULL) {
        return xstrdup(found->pw_dir);
    }
    const char *home = getenv("HOME");
    return xstrdup(home != NULL ? home : "/");
}

/* Expands ~ and the tokens of ssh_config(5) that file names use. */
static char *expand_path(const char *path, const struct ssh_config *config, const char *home) {
    struct buf out = BUF_INIT;
    if (path[0] == '~' && path[1] == '/') {
        buf_add_text(&out, home);
        path++;
    }
    for (; *path != '\0'; path++) {
        if (path[0] != '%' || path[1] == '\0') {
            buf_add_char(&out, *path);
            continue;
        }
        switch (*++path) {
        case 'd':
            buf_add_text(&out, home);
            break;
        case 'h':
        case 'n':
            buf_add_text(&out, config->hostname != NULL ? config->hostname : "");
            break;
        case 'r':
            buf_add_text(&out, config->user != NULL ? config->user : "");
            break;
        case 'p':
            buf_printf(&out, "%u", (unsigned)config->port);
            break;
        case '%':
            buf_add_char(&out, '%');
            break;
        default:
            buf_add(&out, path - 1, 2);
            break;
        }
    }
    return buf_take(&out);
}

static void append(char ***items, size_t *count, char *item) {
    *items = xrealloc(*items, (*count + 1) * sizeof(char *));
    (*items)[(*count)++] = item;
}

static void replace(char **slot, const char *value) {
    free(*slot);
    *slot = xstrdup(value);
}

/* The user's files come before the system's, in whatever order ssh prints them: new keys are
 * written to the first. */
static void add_known_hosts(struct ssh_config *config, char *files, bool of_user,
                            const char *home) {
    char *rest = files;
    size_t first = 0;
    for (char *file; (file = strsep(&rest, " ")) != NULL;) {
        if (file[0] == '\0' || strcmp(file, "none") == 0) {
            continue;
        }
        char *path = expand_path(file, config, home);
        append(&config->known_hosts, &config->known_hosts_count, path);
        if (of_user) {
            char **at = config->known_hosts + first++;
            memmove(at + 1, at, (config->known_hosts_count - first) * sizeof(*at));
            *at = path;
        }
    }
}

static void add_identity(struct ssh_config *config, const char *file, const char *home) {
    char *path = expand_path(file, config, home);
    if (access(path, F_OK) == 0) {
        append(&config->identity_files, &config->identity_count, path);
    } else {
        free(path);
    }
}

static void take_agent(struct ssh_config *config, const char *value, const char *home) {
    const char *named = value[0] == '$' ? getenv(value + 1) : value;
    if (strcmp(value, "SSH_AUTH_SOCK") == 0 || named == NULL) {
        return;
    }
    free(config->identity_agent);
    config->identity_agent = expand_path(named, config, home);
}

/* One line of `ssh -G`: a keyword in lower case, a space, the value. */
static void take_line(struct ssh_config *config, char *line, const char *home) {
    char *value = strchr(line, ' ');
    if (value == NULL) {
        return;
    }
    *value++ = '\0';
    if (strcmp(line, "hostname") == 0) {
        replace(&config->hostname, value);
    } else if (strcmp(line, "user") == 0) {
        replace(&config->user, value);
    } else if (strcmp(line, "port") == 0) {
        config->port = (uint16_t)strtoul(value, NULL, 10);
    } else if (strcmp(line, "identityfile") == 0) {
        add_identity(config, value, home);
    } else if (strcmp(line, "userknownhostsfile") == 0) {
        add_known_hosts(config, value, true, home);
    } else if (strcmp(line, "globalknownhostsfile") == 0) {
        add_known_hosts(config, value, false, home);
    } else if (strcmp(line, "proxyjump") == 0 && strcmp(value, "none") != 0) {
        replace(&config->proxy_jump, value);
    } else if (strcmp(line, "proxycommand") == 0 && strcmp(value, "none") != 0) {
        replace(&config->proxy_command, value);
    } else if (strcmp(line, "identityagent") == 0) {
        take_agent(config, value, home);
    } else if (strcmp(line, "identitiesonly") == 0) {
        config->identities_only = strcmp(value, "yes") == 0;
    } else if (strcmp(line, "hostkeyalias") == 0) {
        replace(&config->host_key_alias, value);
    }
}

/* Known hosts before identities would expand %h too early: hostname, user and port come first in
 * what ssh prints, so one pass is enough. */
static void parse_output(struct ssh_config *config, const struct buf *output,
                         const char *destination, const char *home) {
    AUTO_FREE char *copy = xstrdup(buf_text(output));
    char *rest = copy;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
        take_line(config, line, home);
    }
    if (config->hostname == NULL) {
        const char *at = strrchr(destination, '@');
        config->hostname = xstrdup(at != NULL ? at + 1 : destination);
    }
    if (config->port == 0) {
        config->port = 22;
    }
}

/* Starts `ssh -G -- DESTINATION` in a process group of its own, so that what a Match exec started
 * ends with it. 0, or an errno. */
static int spawn_ssh(const char *file, const char *destination, int output, int errors,
                     pid_t *ret) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t defaults;
    sigset_t none;
    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, errors, STDERR_FILENO);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF |
                                              POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setsigmask(&attributes, &none);
    AUTO_FREE char *target = xstrdup(destination);
    AUTO_FREE char *config = xstrdup(file != NULL ? file : "");
    char ssh[] = "ssh";
    char resolve[] = "-G";
    char from[] = "-F";
    char end[] = "--";
    char *with_file[] = {ssh, from, config, resolve, end, target, NULL};
    char *without[] = {ssh, resolve, end, target, NULL};
    int code = posix_spawnp(ret, "ssh", &actions, &attributes, file != NULL ? with_file : without,
                            environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return code;
}

static int query_start(struct query *query, const char *file, const char *destination, size_t index,
                       struct error *error) {
    int out[2];
    int err[2];
    if (pipe2(out, O_CLOEXEC) != 0) {
        return error_errno(error, errno, "cannot make a pipe to ssh");
    }
    if (pipe2(err, O_CLOEXEC) != 0) {
        int code = error_errno(error, errno, "cannot make a pipe to ssh");
        close(out[0]);
        close(out[1]);
        return code;
    }
    *query = (struct query){.fds = {out[0], err[0]},
                            .deadline_ms = clock_now_ms(&clock_system) + DEADLINE_MS,
                            .index = index};
    int failed = spawn_ssh(file, destination, out[1], err[1], &query->pid);
    close(out[1]);
    close(err[1]);
    if (failed != 0) {
        close(out[0]);
        close(err[0]);
        query->pid = 0;
        return error_errno(error, failed, "cannot run ssh, which reads ~/.ssh/config; %s",
                           failed == EAGAIN ? "the account may have no more processes (`ulimit -u`)"
                                            : "install OpenSSH's client");
    }
    return 0;
}

/* Takes what has come; closes at the end. */
static void query_read(struct query *query, int which) {
    char *room = buf_reserve(&query->output[which], 16384);
    ssize_t size = read(query->fds[which], room, 16384);
    if (size > 0 && query->output[which].len < OUTPUT_MAX) {
        query->output[which].len += (size_t)size;
        query->output[which].data[query->output[which].len] = '\0';
    } else if (size == 0 || (size < 0 && errno != EINTR)) {
        close(query->fds[which]);
        query->fds[which] = -1;
    }
}

/* Ends the process if it still runs, and gives everything back. */
static void query_stop(struct query *query) {
    if (query->pid > 0) {
        kill(-query->pid, SIGKILL);
        while (waitpid(query->pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    for (int i = 0; i < 2; i++) {
        if (query->pid > 0 && query->fds[i] >= 0) {
            close(query->fds[i]);
        }
        buf_free(&query->output[i]);
    }
    *query = (struct query){0};
}

/* The exit status once the process has ended, waiting at most until its deadline; -1: it had to be
 * ended. */
static int query_status(struct query *query) {
    int status = 0;
    for (;;) {
        pid_t ended = waitpid(query->pid, &status, WNOHANG);
        if (ended == query->pid || (ended < 0 && errno != EINTR)) {
            query->pid = 0;
            return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
        }
        if (clock_now_ms(&clock_system) >= query->deadline_ms) {
            return -1;
        }
        poll(NULL, 0, 5);
    }
}

static int refuse_late(const char *destination, struct error *error) {
    return error_set(error, FLEET_ERR_TIMEOUT, "ssh-config",
                     "`ssh -G %s` gave no answer in %d s; look for a Match exec in ~/.ssh/config "
                     "that hangs",
                     destination, DEADLINE_MS / 1000);
}

static int query_finish(struct query *query, const char *destination, const char *home,
                        struct ssh_config *ret, struct error *error) {
    int status = query_status(query);
    int code = 0;
    if (status < 0) {
        code = refuse_late(destination, error);
    } else if (status != 0) {
        AUTO_FREE char *words = text_cleaned(buf_text(&query->output[1]), query->output[1].len);
        code = error_set(error, FLEET_ERR_USAGE, "ssh-config",
                         "OpenSSH cannot resolve \"%s\" (`ssh -G %s`): %s", destination,
                         destination, words);
    } else {
        parse_output(ret, &query->output[0], destination, home);
    }
    query_stop(query);
    return code;
}

/* Waits for output of any query, or for the first deadline. */
static int queries_wait(struct query *queries, const char *const *destinations,
                        struct error *error) {
    struct pollfd polled[PROCESSES_MAX * 2];
    uint64_t now = clock_now_ms(&clock_system);
    uint64_t first = UINT64_MAX;
    for (size_t i = 0; i < PROCESSES_MAX; i++) {
        bool runs = queries[i].pid > 0;
        for (size_t j = 0; j < 2; j++) {
            polled[i * 2 + j] =
                (struct pollfd){.fd = runs ? queries[i].fds[j] : -1, .events = POLLIN};
        }
        if (runs && queries[i].deadline_ms <= now) {
            return refuse_late(destinations[queries[i].index], error);
        }
        if (runs && queries[i].deadline_ms < first) {
            first = queries[i].deadline_ms;
        }
    }
    int timeout = first == UINT64_MAX ? 0 : (int)(first - now);
    if (poll(polled, PROCESSES_MAX * 2, timeout) < 0 && errno != EINTR) {
        return error_errno(error, errno, "cannot wait for ssh");
    }
    for (size_t i = 0; i < PROCESSES_MAX * 2; i++) {
        if (polled[i].fd >= 0 && polled[i].revents != 0) {
            query_read(&queries[i / 2], (int)(i % 2));
        }
    }
    return 0;
}

static int resolve_each(const char *file, const char *const *destinations, size_t count,
                        const char *home, struct ssh_config *ret, struct error *error) {
    struct query queries[PROCESSES_MAX] = {0};
    size_t started = 0;
    size_t finished = 0;
    int code = 0;
    while (finished < count && code == 0) {
        for (size_t i = 0; i < PROCESSES_MAX && started < count && code == 0; i++) {
            if (queries[i].pid == 0) {
                code = query_start(&queries[i], file, destinations[started], started, error);
                started += code == 0 ? 1 : 0;
            }
        }
        if (code == 0) {
            code = queries_wait(queries, destinations, error);
        }
        for (size_t i = 0; i < PROCESSES_MAX && code == 0; i++) {
            struct query *query = &queries[i];
            if (query->pid > 0 && query->fds[0] < 0 && query->fds[1] < 0) {
                size_t index = query->index;
                code = query_finish(query, destinations[index], home, &ret[index], error);
                finished++;
            }
        }
    }
    for (size_t i = 0; i < PROCESSES_MAX; i++) {
        query_stop(&queries[i]);
    }
    return code;
}

static bool is_uniform(const char *path, const char *include_dir, const char *home, unsigned depth);

/* True if everything that an Include names says the same of all hosts. */
// NOLINTNEXTLINE(misc-no-recursion)
static bool include_is_uniform(const char *pattern, const char *include_dir, const char *home,
                               unsigned depth) {
    AUTO_FREE char *path = pattern[0] == '/' ? xstrdup(pattern)
                           : strncmp(pattern, "~/", 2) == 0
                               ? xasprintf("%s/%s", home, pattern + 2)
                               : xasprintf("%s/%s", include_dir, pattern);
    glob_t found;
    if (depth >= INCLUDES_MAX || strpbrk(pattern, "\"'%$") != NULL) {
        return false;
    }
    if (glob(path, 0, NULL, &found) != 0) {
        globfree(&found);
        return true;
    }
    bool uniform = true;
    for (size_t i = 0; i < found.gl_pathc && uniform; i++) {
        uniform = is_uniform(found.gl_pathv[i], include_dir, home, depth + 1);
    }
    globfree(&found);
    return uniform;
}

/* True if a line says the same of every host: no Host but `*`, no Match, no token, nothing that asks
 * DNS for another name. */
// NOLINTNEXTLINE(misc-no-recursion)
static bool line_is_uniform(char *line, const char *include_dir, const char *home, unsigned depth) {
    line += strspn(line, " \t\r\f");
    size_t keyword = strcspn(line, " \t=\r\n\f");
    char *value = line + keyword;
    value += strspn(value, " \t=");
    value[strcspn(value, "\r\n\f")] = '\0';
    for (size_t end = strlen(value); end > 0 && strchr(" \t", value[end - 1]) != NULL; end--) {
        value[end - 1] = '\0';
    }
    if (keyword == 0 || line[0] == '#') {
        return true;
    }
    if (keyword == 4 && strncasecmp(line, "host", 4) == 0) {
        return strcmp(value, "*") == 0;
    }
    if (keyword == 7 && strncasecmp(line, "include", 7) == 0) {
        char *rest = value;
        for (char *pattern; (pattern = strsep(&rest, " \t")) != NULL;) {
            if (pattern[0] != '\0' && !include_is_uniform(pattern, include_dir, home, depth)) {
                return false;
            }
        }
        return true;
    }
    return strncasecmp(line, "match", 5) != 0 && strncasecmp(line, "hostname", 8) != 0 &&
           strncasecmp(line, "canonical", 9) != 0 && strchr(value, '%') == NULL;
}

/* True if the file says the same of every host, or isn't there. */
// NOLINTNEXTLINE(misc-no-recursion)
static bool is_uniform(const char *path, const char *include_dir, const char *home,
                       unsigned depth) {
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return errno == ENOENT || errno == ENOTDIR;
    }
    char *line = NULL;
    size_t room = 0;
    bool uniform = true;
    while (uniform && getline(&line, &room, file) >= 0) {
        uniform = line_is_uniform(line, include_dir, home, depth);
    }
    free(line);
    fclose(file);
    return uniform;
}

static bool files_are_uniform(const char *file, const char *home) {
    AUTO_FREE char *user_dir = xasprintf("%s/.ssh", home);
    AUTO_FREE char *user_file = xasprintf("%s/config", user_dir);
    if (file != NULL) {
        return is_uniform(file, user_dir, home, 0);
    }
    return is_uniform(user_file, user_dir, home, 0) &&
           is_uniform(SYSTEM_CONFIG, SYSTEM_INCLUDE, home, 0);
}

static char *copy_or_null(const char *text) {
    return text != NULL ? xstrdup(text) : NULL;
}

static char **copy_list(char *const *items, size_t count) {
    char **copy = xcalloc(count, sizeof(char *));
    for (size_t i = 0; i < count; i++) {
        copy[i] = xstrdup(items[i]);
    }
    return copy;
}

/* What was answered for one destination, for another. `own_user` is what ssh takes where nothing
 * names a user. */
static struct ssh_config copy_for(const struct ssh_config *from, const char *destination,
                                  const char *own_user) {
    const char *at = strrchr(destination, '@');
    return (struct ssh_config){
        .hostname = xstrdup(at != NULL ? at + 1 : destination),
        .user =
            at != NULL ? xstrndup(destination, (size_t)(at - destination)) : copy_or_null(own_user),
        .port = from->port,
        .identity_files = copy_list(from->identity_files, from->identity_count),
        .identity_count = from->identity_count,
        .known_hosts = copy_list(from->known_hosts, from->known_hosts_count),
        .known_hosts_count = from->known_hosts_count,
        .proxy_jump = copy_or_null(from->proxy_jump),
        .proxy_command = copy_or_null(from->proxy_command),
        .identity_agent = copy_or_null(from->identity_agent),
        .identities_only = from->identities_only,
        .host_key_alias = copy_or_null(from->host_key_alias),
    };
}

/* One process for a name that no file knows; its answer holds for all. */
static int resolve_at_once(const char *file, const char *const *destinations, size_t count,
                           const char *home, struct ssh_config *ret, struct error *error) {
    static const char *const nobody[] = {"fleet.invalid"};
    struct ssh_config answer = {0};
    int code = resolve_each(file, nobody, 1, home, &answer, error);
    for (size_t i = 0; i < count && code == 0; i++) {
        ret[i] = copy_for(&answer, destinations[i], answer.user);
    }
    ssh_config_release(&answer);
    return code;
}

int ssh_config_resolve_from(const char *file, const char *const *destinations, size_t count,
                            struct ssh_config *ret, struct error *error) {
    AUTO_FREE char *home = home_folder();
    struct ssh_config *results = xcalloc(count, sizeof(*results));
    bool at_once = count > 1 && files_are_uniform(file, home);
    int code = 0;
    if (count > 0) {
        code = at_once ? resolve_at_once(file, destinations, count, home, results, error)
                       : resolve_each(file, destinations, count, home, results, error);
    }
    for (size_t i = 0; i < count; i++) {
        if (code == 0) {
            ret[i] = results[i];
        } else {
            ssh_config_release(&results[i]);
        }
    }
    free(results);
    return code;
}

int ssh_config_resolve(const char *const *destinations, size_t count, struct ssh_config *ret,
                       struct error *error) {
    return ssh_config_resolve_from(NULL, destinations, count, ret, error);
}

static void free_list(char **items, size_t count) {
    for (size_t i = 0; i < count; i++) {
        free(items[i]);
    }
    free(items);
}

void ssh_config_release(struct ssh_config *config) {
    free(config->hostname);
    free(config->user);
    free_list(config->identity_files, config->identity_count);
    free_list(config->known_hosts, config->known_hosts_count);
    free(config->proxy_jump);
    free(config->proxy_command);
    free(config->identity_agent);
    free(config->host_key_alias);
    *config = (struct ssh_config){0};
}
