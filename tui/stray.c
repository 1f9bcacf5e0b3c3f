#include "tui/stray.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* So much is kept at least, and at most KEPT_MAX. */
#define KEPT_BYTES 16384
#define KEPT_MAX   262144

/* Written before `taken` is set. */
static struct {
    volatile sig_atomic_t taken;
    int real, kept;
} stray;

void stray_begin(int terminal_fd) {
    struct stat error;
    struct stat terminal;
    if (stray.taken || fstat(STDERR_FILENO, &error) != 0 || fstat(terminal_fd, &terminal) != 0 ||
        !S_ISCHR(error.st_mode) || error.st_rdev != terminal.st_rdev) {
        return;
    }
    int real = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    int kept = memfd_create("fleet-stderr", MFD_CLOEXEC);
    if (real < 0 || kept < 0 || fcntl(kept, F_SETFL, O_APPEND) != 0 ||
        dup2(kept, STDERR_FILENO) < 0) {
        if (real >= 0) {
            close(real);
        }
        if (kept >= 0) {
            close(kept);
        }
        return;
    }
    stray.real = real;
    stray.kept = kept;
    stray.taken = 1;
}

void stray_trim(void) {
    struct stat kept;
    if (stray.taken && fstat(stray.kept, &kept) == 0 && kept.st_size > KEPT_MAX &&
        ftruncate(stray.kept, KEPT_BYTES) != 0) {
        /* It stays as long as it is; the next frame tries again. */
        errno = 0;
    }
}

void stray_end(void) {
    if (!stray.taken) {
        return;
    }
    stray.taken = 0;
    dup2(stray.real, STDERR_FILENO);
    close(stray.real);
    char data[1024];
    off_t at = 0;
    ssize_t n;
    while ((n = pread(stray.kept, data, sizeof(data), at)) > 0 && at < 2 * KEPT_MAX) {
        at += n;
        ssize_t ignored = write(STDERR_FILENO, data, (size_t)n);
        (void)ignored;
    }
    close(stray.kept);
}
