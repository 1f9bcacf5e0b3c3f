/* Writes the journal.
 *
 * A line is written whole or not at all: what a full disk cuts short is taken away again, so that
 * the next line is not glued to it. A sync that failed once has lost something for good (the
 * kernel forgets the pages and reports success the next time), hence no later sync is believed.
 *
 * The writer holds a lock on the open file for its life (fcntl(2), open file description locks).
 * Unlike flock(2), others can ask whether it is held without taking it, so that no onlooker ever
 * stands in the way of a resume. Close-on-exec keeps it from living on in a child.
 */
#include "core/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "core/journal_dir.h"

/* Room that is taken before the first effect, so that a rollout of usual size can't end for want
 * of it. */
#define JOURNAL_RESERVE_BYTES (256 * 1024)

struct journal {
    int fd;
    char *dir;
    char *path;
    char *run_id;
    off_t size; /* up to the last whole line */
    bool begun; /* the file is there, ours, and has room */
    bool sync_failed;
    struct buf line; /* reused */
    struct journal_cost cost;
};

static int fail(const struct journal *journal, int errnum, struct error *error) {
    const char *remedy = errnum == ENOSPC || errnum == EDQUOT
                             ? "free space there"
                             : "see to the disk or the folder's permissions";
    if (journal->begun) {
        error_errno(error, errnum,
                    "the run's journal %s can't be written (no host is given anything more to do; "
                    "%s, then: fleet resume %s)",
                    journal->path, remedy, journal->run_id);
    } else {
        error_errno(error, errnum,
                    "the run's journal %s can't be written (nothing was started; %s, or name "
                    "another folder with --state-dir DIR)",
                    journal->path, remedy);
    }
    if (errnum == ENOSPC || errnum == EDQUOT) {
        error->code = FLEET_ERR_SYSTEM;
        memcpy(error->reason, "disk-full", sizeof("disk-full"));
    }
    return FLEET_ERR_SYSTEM;
}

static struct journal *journal_alloc(const char *state_dir, const char *run_id) {
    struct journal *journal = xcalloc(1, sizeof(*journal));
    journal->fd = -1;
    journal->dir = journal_dir_path(state_dir, run_id, NULL);
    journal->path = journal_dir_path(state_dir, run_id, "journal.jsonl");
    journal->run_id = xstrdup(run_id);
    return journal;
}

void journal_close(struct journal *journal) {
    if (journal == NULL) {
        return;
    }
    if (journal->fd >= 0) {
        close(journal->fd);
    }
    free(journal->dir);
    free(journal->path);
    free(journal->run_id);
    buf_free(&journal->line);
    free(journal);
}

/* Takes the lock, or FLEET_ERR_LOCKED. */
static int hold(const struct journal *journal, struct error *error) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(journal->fd, F_OFD_SETLK, &lock) == 0) {
        return 0;
    }
    if (errno == EAGAIN || errno == EACCES) {
        return error_set(error, FLEET_ERR_LOCKED, "run-alive",
                         "run %s is going on in another process here: look at it with fleet watch "
                         "%s",
                         journal->run_id, journal->run_id);
    }
    return error_errno(error, errno, "the run's journal %s can't be locked", journal->path);
}

/* Refuses early where there is no room. File systems that can't take room ahead say so. */
static int reserve(const struct journal *journal, struct error *error) {
    if (fallocate(journal->fd, FALLOC_FL_KEEP_SIZE, journal->size, JOURNAL_RESERVE_BYTES) != 0 &&
        (errno == ENOSPC || errno == EDQUOT || errno == EROFS || errno == EIO)) {
        return fail(journal, errno, error);
    }
    return 0;
}

int journal_create(const char *state_dir, const char *run_id, struct journal **ret,
                   struct error *error) {
    int err = journal_dir_make(state_dir, run_id, error);
    if (err != 0) {
        return err;
    }
    struct journal *journal = journal_alloc(state_dir, run_id);
    journal->fd = open(journal->path, O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
    if (journal->fd < 0) {
        err = fail(journal, errno, error);
        goto fail_close;
    }
    if ((err = hold(journal, error)) != 0 || (err = reserve(journal, error)) != 0 ||
        (err = journal_dir_sync(journal->dir, error)) != 0) {
        goto fail_remove;
    }
    journal->begun = true;
    *ret = journal;
    return 0;
fail_remove: /* a run that never began is none that `history` should list */
    unlink(journal->path);
    rmdir(journal->dir);
fail_close:
    journal_close(journal);
    return err;
}

/* Sets `size` behind the last newline and cuts off what stands after it. */
static int cut_torn_line(struct journal *journal, struct error *error) {
    struct stat status;
    if (fstat(journal->fd, &status) != 0) {
        return fail(journal, errno, error);
    }
    off_t end = status.st_size;
    char block[4096];
    while (end > 0) {
        size_t want = end < (off_t)sizeof(block) ? (size_t)end : sizeof(block);
        ssize_t got = pread(journal->fd, block, want, end - (off_t)want);
        if (got != (ssize_t)want) {
            return fail(journal, got < 0 ? errno : EIO, error);
        }
        const char *newline = memrchr(block, '\n', want);
        if (newline != NULL) {
            end -= (off_t)want - (newline + 1 - block);
            break;
        }
        end -= (off_t)want;
    }
    journal->size = end;
    return end == status.st_size || ftruncate(journal->fd, end) == 0 ? 0
                                                                     : fail(journal, errno, error);
}

int journal_reopen(const char *state_dir, const char *run_id, struct journal **ret,
                   struct error *error) {
    struct journal *journal = journal_alloc(state_dir, run_id);
    journal->fd = open(journal->path, O_RDWR | O_APPEND | O_CLOEXEC);
    int err;
    if (journal->fd < 0) {
        err = error_errno(error, errno, "the run's journal %s can't be opened", journal->path);
        goto fail_close;
    }
    if ((err = hold(journal, error)) != 0 || (err = cut_torn_line(journal, error)) != 0 ||
        (err = reserve(journal, error)) != 0) {
        goto fail_close;
    }
    journal->begun = true;
    *ret = journal;
    return 0;
fail_close:
    journal_close(journal);
    return err;
}

/* Returns 0 or an errno. */
static int write_whole(int fd, const char *data, size_t len) {
    while (len > 0) {
        ssize_t done = write(fd, data, len);
        if (done < 0 && errno != EINTR) {
            return errno;
        }
        if (done > 0) {
            data += done;
            len -= (size_t)done;
        }
    }
    return 0;
}

int journal_check(const struct journal *journal, struct error *error) {
    struct stat status;
    if (fstat(journal->fd, &status) != 0 || status.st_nlink > 0) {
        return 0; /* what else may be wrong shows when it is written */
    }
    return error_set(error, FLEET_ERR_SYSTEM, "journal-gone",
                     "the run's journal %s was removed while the run goes on: no host is given "
                     "anything more to do, and hosts under way go back. There is nothing left to "
                     "resume: look at the fleet with `fleet status`, then begin a new run",
                     journal->path);
}

struct journal_cost journal_cost(const struct journal *journal) {
    return journal->cost;
}

static uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

/* Returns 0 or an errno. */
static int sync_timed(struct journal *journal) {
    uint64_t begin_us = now_us();
    int errnum = fdatasync(journal->fd) != 0 ? errno : 0;
    uint64_t took = now_us() - begin_us;
    journal->cost.syncs++;
    journal->cost.total_us += took;
    journal->cost.longest_us = took > journal->cost.longest_us ? took : journal->cost.longest_us;
    return errnum;
}

int journal_append(struct journal *journal, const struct event *event, bool sync,
                   struct error *error) {
    buf_clear(&journal->line);
    event_format(event, &journal->line);
    int errnum = write_whole(journal->fd, journal->line.data, journal->line.len);
    if (errnum != 0) {
        if (ftruncate(journal->fd, journal->size) != 0) {
            journal->sync_failed = true; /* A torn line stays, and nothing may follow it. */
        }
        return fail(journal, errnum, error);
    }
    journal->size += (off_t)journal->line.len;
    if (!sync) {
        return 0;
    }
    int err = journal_check(journal, error);
    if (err != 0) {
        return err;
    }
    errnum = journal->sync_failed ? EIO : sync_timed(journal);
    if (errnum != 0) {
        journal->sync_failed = true;
        return fail(journal, errnum, error);
    }
    return 0;
}

const char *journal_dir(const struct journal *journal) {
    return journal->dir;
}
