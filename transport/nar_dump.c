/* The NAR writer: a walk over a tree with an explicit stack (see nar_dump.h).
 *
 * Tokens are put into `pending` and copied out of it; a file's contents are read straight into
 * the caller's memory. A level of the stack is an open folder with its names in byte order, which
 * is the order that Nix wants.
 */
#include "transport/nar_dump.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"
#include "transport/nar.h"
#include "transport/serve.h"

struct folder {
    int fd;
    char **names;
    size_t count, next;
};

struct nar_dump {
    char *path;
    bool begun;
    bool over;
    struct buf pending;
    size_t pending_at; /* copied out already */
    int file;          /* whose contents are due, or -1 */
    uint64_t file_size, file_left;
    struct folder folders[NAR_DEPTH_MAX];
    unsigned depth;
};

struct nar_dump *nar_dump_new(const char *path) {
    struct nar_dump *dump = xcalloc(1, sizeof(*dump));
    dump->path = xstrdup(path);
    dump->file = -1;
    return dump;
}

static void folder_close(struct folder *folder) {
    for (size_t i = 0; i < folder->count; i++) {
        free(folder->names[i]);
    }
    free(folder->names);
    close(folder->fd);
}

void nar_dump_free(struct nar_dump *dump) {
    if (dump == NULL) {
        return;
    }
    while (dump->depth > 0) {
        folder_close(&dump->folders[--dump->depth]);
    }
    if (dump->file >= 0) {
        close(dump->file);
    }
    buf_free(&dump->pending);
    free(dump->path);
    free(dump);
}

/* `name` is NULL for the path itself. */
static int unreadable(const struct nar_dump *dump, const char *name, int errnum,
                      struct error *error) {
    return error_set(error, FLEET_ERR_SYSTEM, "source-unreadable", "reading %s%s%s: %s", dump->path,
                     name != NULL ? ", its file " : "", name != NULL ? name : "", strerror(errnum));
}

static int impossible(const struct nar_dump *dump, const char *name, const char *what,
                      struct error *error) {
    return error_set(error, FLEET_ERR_PROTOCOL, "source-corrupt", "%s is damaged: %s%s%s",
                     dump->path, name != NULL ? name : "it", " ", what);
}

static int compare_names(const void *left, const void *right) {
    return strcmp(*(char *const *)left, *(char *const *)right);
}

/* All names of the folder, sorted. Takes `fd` over. */
static int read_names(struct folder *folder, int fd) {
    *folder = (struct folder){.fd = fd};
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    DIR *stream = copy >= 0 ? fdopendir(copy) : NULL;
    if (stream == NULL) {
        int errnum = errno;
        if (copy >= 0) {
            close(copy);
        }
        return errnum;
    }
    size_t room = 0;
    const struct dirent *entry;
    while (errno = 0, (entry = readdir(stream)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        if (folder->count == room) {
            room = room > 0 ? 2 * room : 16;
            folder->names = xrealloc(folder->names, room * sizeof(char *));
        }
        folder->names[folder->count++] = xstrdup(entry->d_name);
    }
    int errnum = errno;
    closedir(stream);
    if (folder->count > 0) {
        qsort(folder->names, folder->count, sizeof(char *), compare_names);
    }
    return errnum;
}

static int begin_folder(struct nar_dump *dump, int fd, const char *name, struct error *error) {
    if (dump->depth == NAR_DEPTH_MAX) {
        close(fd);
        return impossible(dump, name, "lies in too many folders", error);
    }
    int errnum = read_names(&dump->folders[dump->depth++], fd);
    if (errnum != 0) {
        return unreadable(dump, name, errnum, error);
    }
    serve_put_text(&dump->pending, "directory");
    return 0;
}

static void begin_file(struct nar_dump *dump, int fd, const struct stat *stat) {
    serve_put_text(&dump->pending, "regular");
    if ((stat->st_mode & S_IXUSR) != 0) {
        serve_put_text(&dump->pending, "executable");
        serve_put_text(&dump->pending, "");
    }
    serve_put_text(&dump->pending, "contents");
    serve_put_int(&dump->pending, (uint64_t)stat->st_size);
    dump->file = fd;
    dump->file_size = (uint64_t)stat->st_size;
    dump->file_left = dump->file_size;
}

static int put_link(struct nar_dump *dump, int at, const char *from, const char *name,
                    struct error *error) {
    char target[NAR_TARGET_MAX + 2];
    ssize_t len = readlinkat(at, from, target, sizeof(target) - 1);
    if (len < 0) {
        return unreadable(dump, name, errno, error);
    }
    if (len == 0 || (size_t)len > NAR_TARGET_MAX) {
        return impossible(dump, name, "is a symlink whose target is too long", error);
    }
    target[len] = '\0';
    serve_put_text(&dump->pending, "symlink");
    serve_put_text(&dump->pending, "target");
    serve_put_text(&dump->pending, target);
    serve_put_text(&dump->pending, ")");
    return 0;
}

/* Begins the node `from` (relative to `at`): its head is put, and what follows is remembered. */
static int begin_node(struct nar_dump *dump, int at, const char *from, const char *name,
                      struct error *error) {
    serve_put_text(&dump->pending, "(");
    serve_put_text(&dump->pending, "type");
    int fd = openat(at, from, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        return errno == ELOOP ? put_link(dump, at, from, name, error)
                              : unreadable(dump, name, errno, error);
    }
    struct stat stat;
    if (fstat(fd, &stat) != 0) {
        int errnum = errno;
        close(fd);
        return unreadable(dump, name, errnum, error);
    }
    if (S_ISDIR(stat.st_mode)) {
        return begin_folder(dump, fd, name, error);
    }
    if (S_ISREG(stat.st_mode)) {
        begin_file(dump, fd, &stat);
        return 0;
    }
    close(fd);
    return impossible(dump, name, "is neither file nor folder nor symlink", error);
}

/* The contents have been handed out: their padding, and the node's end. */
static void end_file(struct nar_dump *dump) {
    static const char zeros[8];
    close(dump->file);
    dump->file = -1;
    buf_add(&dump->pending, zeros, (size_t)(-dump->file_size & 7));
    serve_put_text(&dump->pending, ")");
}

/* A node has ended. The entry around it ends too, unless it was the path itself. */
static int next_entry(struct nar_dump *dump, struct error *error) {
    if (dump->depth == 0) {
        dump->over = true;
        return 0;
    }
    struct folder *folder = &dump->folders[dump->depth - 1];
    if (folder->next > 0) {
        serve_put_text(&dump->pending, ")");
    }
    if (folder->next == folder->count) {
        folder_close(folder);
        dump->depth--;
        serve_put_text(&dump->pending, ")");
        return 0;
    }
    const char *name = folder->names[folder->next++];
    serve_put_text(&dump->pending, "entry");
    serve_put_text(&dump->pending, "(");
    serve_put_text(&dump->pending, "name");
    serve_put_text(&dump->pending, name);
    serve_put_text(&dump->pending, "node");
    return begin_node(dump, folder->fd, name, name, error);
}

/* Nothing is pending: makes what comes next. */
static int advance(struct nar_dump *dump, struct error *error) {
    buf_clear(&dump->pending);
    dump->pending_at = 0;
    if (!dump->begun) {
        dump->begun = true;
        serve_put_text(&dump->pending, "nix-archive-1");
        return begin_node(dump, AT_FDCWD, dump->path, NULL, error);
    }
    if (dump->file >= 0) {
        end_file(dump);
        return 0;
    }
    return next_entry(dump, error);
}

static int read_contents(struct nar_dump *dump, void *out, size_t room, size_t *ret_len,
                         struct error *error) {
    size_t want = room < dump->file_left ? room : (size_t)dump->file_left;
    ssize_t got = read(dump->file, out, want);
    if (got < 0 && errno != EINTR) {
        return unreadable(dump, NULL, errno, error);
    }
    if (got == 0) {
        return impossible(dump, NULL, "changed while it was read", error);
    }
    *ret_len = got > 0 ? (size_t)got : 0;
    dump->file_left -= *ret_len;
    return 0;
}

int nar_dump_read(struct nar_dump *dump, void *out, size_t room, size_t *ret_len, bool *ret_end,
                  struct error *error) {
    size_t done = 0;
    while (done < room && !dump->over) {
        size_t part = dump->pending.len - dump->pending_at;
        int err = 0;
        if (part > 0) {
            part = part < room - done ? part : room - done;
            memcpy((char *)out + done, dump->pending.data + dump->pending_at, part);
            dump->pending_at += part;
        } else if (dump->file >= 0 && dump->file_left > 0) {
            err = read_contents(dump, (char *)out + done, room - done, &part, error);
        } else {
            err = advance(dump, error);
        }
        if (err != 0) {
            return err;
        }
        done += part;
    }
    *ret_len = done;
    *ret_end = dump->over;
    return 0;
}
