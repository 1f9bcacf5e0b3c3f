#include "core/base/clock.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/base/error.h"

#define MS_A_DAY INT64_C(86400000)

static uint64_t system_now_ms(void *arg) {
    (void)arg;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int64_t system_wall_ms(void *arg) {
    (void)arg;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

const struct clock clock_system = {.now_ms = system_now_ms, .wall_ms = system_wall_ms};

/* Days from 1970-01-01 to a date of the proleptic Gregorian calendar; March counts as the first
 * month, so that the leap day is the year's last. */
static int64_t days_from_civil(int64_t year, int64_t month, int64_t day) {
    if (month <= 2) {
        year--;
        month += 12;
    }
    return year * 365 + year / 4 - year / 100 + year / 400 + (153 * (month - 3) + 2) / 5 + day - 1 -
           719468;
}

static bool is_leap(int64_t year) {
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static int64_t days_in_month(int64_t year, int64_t month) {
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month == 2 && is_leap(year) ? 29 : days[month - 1];
}

void clock_rfc3339(int64_t wall_ms, char ret_text[CLOCK_RFC3339_SIZE]) {
    /* RFC 3339 has years of four digits: what lies outside is shown as the nearest that fits. */
    int64_t first = days_from_civil(0, 3, 1) * MS_A_DAY;
    int64_t last = days_from_civil(10000, 1, 1) * MS_A_DAY - 1;
    wall_ms = wall_ms < first ? first : wall_ms > last ? last : wall_ms;
    int64_t ms = wall_ms % 1000;
    int64_t seconds = wall_ms / 1000;
    if (ms < 0) {
        ms += 1000;
        seconds--;
    }
    time_t when = (time_t)seconds;
    struct tm tm;
    gmtime_r(&when, &tm);
    snprintf(ret_text, CLOCK_RFC3339_SIZE, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ",
             (unsigned)(tm.tm_year + 1900) % 10000, (unsigned)(tm.tm_mon + 1) % 100,
             (unsigned)tm.tm_mday % 100, (unsigned)tm.tm_hour % 100, (unsigned)tm.tm_min % 100,
             (unsigned)tm.tm_sec % 100, (unsigned)ms % 1000);
}

/* Reads exactly `digits` digits at *text, then `after` (nothing where it is NUL). */
static bool read_field(const char **text, int digits, char after, int64_t *ret) {
    int64_t value = 0;
    for (int i = 0; i < digits; i++, (*text)++) {
        if (**text < '0' || **text > '9') {
            return false;
        }
        value = value * 10 + (**text - '0');
    }
    *ret = value;
    if (after != '\0') {
        if (**text != after) {
            return false;
        }
        (*text)++;
    }
    return true;
}

/* A fraction of a second, where one stands; what is finer than a millisecond is dropped. */
static bool read_fraction(const char **text, int64_t *ret_ms) {
    *ret_ms = 0;
    if (**text != '.') {
        return true;
    }
    (*text)++;
    const char *start = *text;
    for (int64_t weight = 100; **text >= '0' && **text <= '9'; (*text)++, weight /= 10) {
        *ret_ms += weight * (**text - '0');
    }
    return *text > start;
}

/* "Z" or "+01:30". */
static bool read_offset(const char **text, int64_t *ret_minutes) {
    char sign = **text;
    if (sign == '\0') {
        return false;
    }
    (*text)++;
    *ret_minutes = 0;
    if (sign == 'Z' || sign == 'z') {
        return true;
    }
    int64_t hours;
    int64_t minutes;
    if ((sign != '+' && sign != '-') || !read_field(text, 2, ':', &hours) ||
        !read_field(text, 2, '\0', &minutes) || hours > 23 || minutes > 59) {
        return false;
    }
    *ret_minutes = (hours * 60 + minutes) * (sign == '-' ? -1 : 1);
    return true;
}

int clock_parse_rfc3339(const char *text, int64_t *ret_wall_ms) {
    int64_t year;
    int64_t month;
    int64_t day;
    int64_t hour;
    int64_t minute;
    int64_t second;
    int64_t ms;
    int64_t offset;
    if (!read_field(&text, 4, '-', &year) || !read_field(&text, 2, '-', &month) ||
        !read_field(&text, 2, '\0', &day) || (*text != 'T' && *text != 't' && *text != ' ')) {
        return FLEET_ERR_PROTOCOL;
    }
    text++;
    if (!read_field(&text, 2, ':', &hour) || !read_field(&text, 2, ':', &minute) ||
        !read_field(&text, 2, '\0', &second) || !read_fraction(&text, &ms) ||
        !read_offset(&text, &offset) || *text != '\0') {
        return FLEET_ERR_PROTOCOL;
    }
    /* 60 is a leap second. */
    if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) || hour > 23 ||
        minute > 59 || second > 60) {
        return FLEET_ERR_PROTOCOL;
    }
    int64_t minutes = (days_from_civil(year, month, day) * 24 + hour) * 60 + minute - offset;
    *ret_wall_ms = (minutes * 60 + second) * 1000 + ms;
    return 0;
}
