/* STATE/runs/ID: made, listed and found by a part of the id. */
#include "core/journal_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"

int state_dir_default(char **ret, struct error *error) {
    /* The XDG Base Directory Specification: a relative path is to be ignored. */
    const char *xdg = getenv("XDG_STATE_HOME");
    if (xdg != NULL && xdg[0] == '/') {
        *ret = xasprintf("%s/fleet", xdg);
        return 0;
    }
    const char *home = getenv("HOME");
    if (home == NULL || home[0] != '/') {
        const struct passwd *user = getpwuid(getuid());
        home = user != NULL ? user->pw_dir : NULL;
    }
    if (home == NULL || home[0] != '/') {
        return error_set(error, FLEET_ERR_SYSTEM, "no-home",
                         "there is no home folder to keep runs in: set HOME, or name a folder with "
                         "--state-dir DIR");
    }
    *ret = xasprintf("%s/.local/state/fleet", home);
    return 0;
}

char *journal_dir_path(const char *state_dir, const char *run_id, const char *file) {
    return file != NULL ? xasprintf("%s/runs/%s/%s", state_dir, run_id, file)
                        : xasprintf("%s/runs/%s", state_dir, run_id);
}

/* Makes a folder that may be there already. */
static int make_folder(const char *path, struct error *error) {
    if (mkdir(path, 0700) == 0 || errno == EEXIST) {
        return 0;
    }
    return error_errno(error, errno,
                       "the state folder %s can't be made (make it writable or name another with "
                       "--state-dir DIR)",
                       path);
}

/* Makes `path` and what is missing above it. */
static int make_folders(const char *path, struct error *error) {
    AUTO_FREE char *copy = xstrdup(path);
    for (char *slash = strchr(copy + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        struct stat status;
        /* A parent may be read-only and there; only a missing one is made. */
        int err = stat(copy, &status) != 0 ? make_folder(copy, error) : 0;
        *slash = '/';
        if (err != 0) {
            return err;
        }
    }
    return make_folder(copy, error);
}

int journal_dir_make(const char *state_dir, const char *run_id, struct error *error) {
    AUTO_FREE char *runs = xasprintf("%s/runs", state_dir);
    AUTO_FREE char *dir = journal_dir_path(state_dir, run_id, NULL);
    int err = make_folders(runs, error);
    if (err != 0) {
        return err;
    }
    if (mkdir(dir, 0700) != 0) {
        return error_errno(error, errno,
                           "the run's folder %s can't be made (free space there, make it writable, "
                           "or name another with --state-dir DIR)",
                           dir);
    }
    return journal_dir_sync(runs, error);
}

int journal_dir_sync(const char *path, struct error *error) {
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* Some file systems know no sync of a folder, and need none. */
    if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL)) {
        return error_errno(error, errno, "the folder %s can't be put on disk", path);
    }
    return 0;
}

/* A run on disk. Its id says the second it began in; the first event, down to a millisecond. */
struct listed_run {
    char *id;
    char began[32]; /* the `ts` of its first event, which sorts as text; "": none yet */
};

#define ID_SECOND_SIZE (sizeof("20261122-170400") - 1)

static void read_began(const char *journal, char ret_began[32]) {
    char line[128] = "";
    AUTO_CLOSE int fd = open(journal, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    ssize_t got = fd >= 0 ? pread(fd, line, sizeof(line) - 1, 0) : -1;
    line[got > 0 ? got : 0] = '\0';
    const char *ts = strstr(line, "\"ts\":\"");
    (void)snprintf(ret_began, 32, "%.31s", ts != NULL ? ts + strlen("\"ts\":\"") : "");
}

static int compare_newest_first(const void *a, const void *b) {
    const struct listed_run *left = a;
    const struct listed_run *right = b;
    int order = strncmp(right->id, left->id, ID_SECOND_SIZE);
    order = order != 0 ? order : strcmp(right->began, left->began);
    return order != 0 ? order : strcmp(right->id, left->id);
}

int journal_list(const char *state_dir, char ***ret, size_t *ret_count, struct error *error) {
    AUTO_FREE char *runs = xasprintf("%s/runs", state_dir);
    struct listed_run *listed = NULL;
    size_t count = 0;
    DIR *folder = opendir(runs);
    if (folder == NULL && errno != ENOENT) {
        return error_errno(error, errno, "the runs in %s can't be read", runs);
    }
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        AUTO_FREE char *journal = journal_dir_path(state_dir, entry->d_name, "journal.jsonl");
        if (run_id_is_valid(entry->d_name) && access(journal, F_OK) == 0) {
            listed = xrealloc(listed, (count + 1) * sizeof(*listed));
            listed[count].id = xstrdup(entry->d_name);
            read_began(journal, listed[count++].began);
        }
    }
    if (folder != NULL) {
        closedir(folder);
    }
    if (count > 1) {
        qsort(listed, count, sizeof(*listed), compare_newest_first);
    }
    char **ids = count > 0 ? xcalloc(count, sizeof(*ids)) : NULL;
    for (size_t i = 0; i < count; i++) {
        ids[i] = listed[i].id;
    }
    free(listed);
    *ret = ids;
    *ret_count = count;
    return 0;
}

static bool ends_with(const char *text, const char *end) {
    size_t len = strlen(text);
    size_t end_len = strlen(end);
    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

/* How well an id is meant by `part`: the whole id before an end of it before any part of it. An empty
 * word, as of a script's variable that is not set, means none. */
static int match(const char *id, const char *part) {
    if (part[0] == '\0') {
        return 0;
    }
    return strcmp(id, part) == 0 ? 3 : ends_with(id, part) ? 2 : strstr(id, part) != NULL ? 1 : 0;
}

/* The ids that match `part` best, for a message. */
static int refuse(char *const *ids, size_t count, const char *part, int best, const char *dir,
                  struct error *error) {
    if (count == 0) {
        return error_set(error, FLEET_ERR_USAGE, "no-run", "there is no run yet in %s/runs", dir);
    }
    if (best == 0) {
        return error_set(error, FLEET_ERR_USAGE, "no-run",
                         "no run in %s/runs is called %s; the latest is %s (see fleet history)",
                         dir, part[0] != '\0' ? part : "''", ids[0]);
    }
    struct buf names = BUF_INIT;
    for (size_t i = 0, shown = 0; i < count && shown < 5; i++) {
        if (match(ids[i], part) == best) {
            buf_printf(&names, "%s%s", shown++ > 0 ? ", " : "", ids[i]);
        }
    }
    error_set(error, FLEET_ERR_USAGE, "several-runs",
              "%s may be any of several runs: %s; write more of it", part, buf_text(&names));
    buf_free(&names);
    return FLEET_ERR_USAGE;
}

int journal_dir_find(const char *state_dir, const char *part, char **ret_id, struct error *error) {
    char **ids = NULL;
    size_t count = 0;
    int err = journal_list(state_dir, &ids, &count, error);
    if (err != 0) {
        return err;
    }
    int best = 0;
    size_t found = 0;
    size_t times = 0;
    for (size_t i = 0; i < count; i++) {
        int how = part != NULL ? match(ids[i], part) : i == 0;
        if (how > best) {
            best = how;
            found = i;
            times = 0;
        }
        times += how > 0 && how == best;
    }
    if (times == 1) {
        *ret_id = xstrdup(ids[found]);
    } else {
        err = refuse(ids, count, part, best, state_dir, error);
    }
    for (size_t i = 0; i < count; i++) {
        free(ids[i]);
    }
    free(ids);
    return err;
}
