/* Reads a journal, also one that is being written.
 *
 * A torn last line is not kept: its start is remembered and it is read anew the next time, because
 * the writer may complete it, or cut it off and write another. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "core/journal.h"
#include "core/journal_dir.h"

#define READ_SIZE (64 * 1024)
/* The longest event names all hosts of a run, some hundred bytes each. */
#define LINE_MAX_BYTES (64u * 1024 * 1024)

struct journal_reader {
    int fd;
    char *path;
    off_t offset;     /* of the file, where `block` ends */
    struct buf block; /* what was read; from `at` on not yet handed out */
    size_t at;
    uint64_t line; /* lines handed out, for messages */
};

int journal_open(const char *state_dir, const char *run_id, struct journal_reader **ret,
                 char **ret_id, struct error *error) {
    char *id = NULL;
    int err = journal_dir_find(state_dir, run_id, &id, error);
    if (err != 0) {
        return err;
    }
    struct journal_reader *reader = xcalloc(1, sizeof(*reader));
    reader->path = journal_dir_path(state_dir, id, "journal.jsonl");
    /* A FIFO that lies there is not waited for; reading it is an error. */
    reader->fd = open(reader->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (reader->fd < 0) {
        err = error_errno(error, errno, "the run's journal %s can't be read", reader->path);
        journal_reader_close(reader);
        free(id);
        return err;
    }
    *ret = reader;
    *ret_id = id;
    return 0;
}

void journal_reader_close(struct journal_reader *reader) {
    if (reader == NULL) {
        return;
    }
    if (reader->fd >= 0) {
        close(reader->fd);
    }
    free(reader->path);
    buf_free(&reader->block);
    free(reader);
}

/* Reads on until `block` holds a whole line from `at` on. 1: it does; 0: the file ends before;
 * negative: an error. */
static int fill(struct journal_reader *reader, struct error *error) {
    size_t searched = reader->at;
    for (;;) {
        const char *data = buf_text(&reader->block);
        if (memchr(data + searched, '\n', reader->block.len - searched) != NULL) {
            return 1;
        }
        buf_consume(&reader->block, reader->at);
        reader->at = 0;
        searched = reader->block.len;
        if (searched > LINE_MAX_BYTES) {
            return error_set(error, FLEET_ERR_PROTOCOL, "journal-damaged",
                             "%s:%llu: a line of more than 64 MB is no event", reader->path,
                             (unsigned long long)reader->line + 1);
        }
        char *room = buf_reserve(&reader->block, READ_SIZE);
        ssize_t got = pread(reader->fd, room, READ_SIZE, reader->offset);
        if (got < 0 && errno == EINTR) {
            got = 0;
        } else if (got < 0) {
            return error_errno(error, errno, "the run's journal %s can't be read", reader->path);
        } else if (got == 0) {
            reader->offset -= (off_t)reader->block.len;
            buf_clear(&reader->block);
            return 0;
        }
        reader->block.len += (size_t)got;
        reader->block.data[reader->block.len] = '\0';
        reader->offset += got;
    }
}

/* The line that was handed out last is no event that can be passed over. */
static int refuse_line(const struct journal_reader *reader, const struct error *wrong,
                       struct error *error) {
    bool newer = strcmp(wrong->reason, "newer-version") == 0;
    return error_set(error, FLEET_ERR_PROTOCOL, newer ? "journal-newer" : "journal-damaged",
                     "%s:%llu: %s%s", reader->path, (unsigned long long)reader->line,
                     wrong->message, newer ? ". Take that fleet for this run" : "");
}

int journal_next(struct journal_reader *reader, struct event **ret, struct error *error) {
    for (;;) {
        int filled = fill(reader, error);
        if (filled <= 0) {
            return filled;
        }
        const char *line = reader->block.data + reader->at;
        const char *end = memchr(line, '\n', reader->block.len - reader->at);
        reader->at += (size_t)(end + 1 - line);
        reader->line++;
        struct error wrong = ERROR_INIT;
        if (event_parse(line, (size_t)(end - line), ret, &wrong) == 0) {
            return 1;
        }
        if (strcmp(wrong.reason, "unknown-event") != 0) {
            return refuse_line(reader, &wrong, error);
        }
    }
}

bool journal_is_live(const struct journal_reader *reader) {
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    return fcntl(reader->fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}
