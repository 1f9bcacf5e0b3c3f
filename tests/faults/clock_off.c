/* A clock that is a day ahead, for every program of one testbed host that starts with this library
 * in /etc/ld.so.preload: containers share the kernel's clock, and time namespaces leave
 * CLOCK_REALTIME out. The monotonic clocks stay true, as they do on a machine whose date is wrong.
 */
#include <stddef.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define DAY_S 86400

int clock_gettime(clockid_t id, struct timespec *ret_time) {
    int result = (int)syscall(SYS_clock_gettime, id, ret_time);
    if (result == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        ret_time->tv_sec += DAY_S;
    }
    return result;
}

int gettimeofday(struct timeval *restrict ret_time, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    ret_time->tv_sec = now.tv_sec;
    ret_time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *ret_time) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (ret_time != NULL) {
        *ret_time = now.tv_sec;
    }
    return now.tv_sec;
}
