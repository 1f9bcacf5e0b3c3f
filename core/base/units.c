#include "core/base/units.h"

#include <limits.h>
#include <stddef.h>
#include <string.h>

#include "core/base/error.h"
#include "core/base/xalloc.h"

struct unit {
    const char *suffix;
    uint64_t factor;
};

static const struct unit duration_units[] = {
    {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000},
};

static const struct unit size_units[] = {
    {"B", 1},
    {"KB", 1000},
    {"MB", 1000000},
    {"GB", 1000000000},
    {"TB", 1000000000000},
    {"KiB", UINT64_C(1) << 10},
    {"MiB", UINT64_C(1) << 20},
    {"GiB", UINT64_C(1) << 30},
    {"TiB", UINT64_C(1) << 40},
};

/* Reads digits at *text and moves past them; 0, or FLEET_ERR_USAGE without a digit or beyond 64
 * bits. */
static int read_whole(const char **text, uint64_t *ret) {
    const char *at = *text;
    uint64_t value = 0;
    for (; *at >= '0' && *at <= '9'; at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (value > (UINT64_MAX - digit) / 10) {
            return FLEET_ERR_USAGE;
        }
        value = value * 10 + digit;
    }
    if (at == *text) {
        return FLEET_ERR_USAGE;
    }
    *text = at;
    *ret = value;
    return 0;
}

static const struct unit *find_unit(const struct unit *units, size_t count, const char *suffix) {
    for (size_t i = 0; i < count; i++) {
        if (strcmp(units[i].suffix, suffix) == 0) {
            return &units[i];
        }
    }
    return NULL;
}

int units_parse_duration(const char *text, uint64_t *ret_ms) {
    uint64_t value;
    if (read_whole(&text, &value) != 0) {
        return FLEET_ERR_USAGE;
    }
    const struct unit *unit = find_unit(duration_units, ARRAY_LEN(duration_units), text);
    if (unit == NULL || value > UINT64_MAX / unit->factor) {
        return FLEET_ERR_USAGE;
    }
    *ret_ms = value * unit->factor;
    return 0;
}

int units_parse_size(const char *text, uint64_t *ret_bytes) {
    uint64_t whole;
    if (read_whole(&text, &whole) != 0) {
        return FLEET_ERR_USAGE;
    }
    /* Thousandths are as fine as a size is ever written. */
    uint64_t thousandths = 0;
    if (*text == '.') {
        text++;
        const char *start = text;
        uint64_t weight = 100;
        for (; *text >= '0' && *text <= '9'; text++) {
            thousandths += weight * (uint64_t)(*text - '0');
            weight /= 10;
        }
        if (text == start || text - start > 3) {
            return FLEET_ERR_USAGE;
        }
    }
    const struct unit *unit = find_unit(size_units, ARRAY_LEN(size_units), text);
    if (unit == NULL || whole >= UINT64_MAX / unit->factor) {
        return FLEET_ERR_USAGE;
    }
    *ret_bytes = whole * unit->factor + thousandths * unit->factor / 1000;
    return 0;
}

int units_parse_percent(const char *text, uint32_t *ret_percent) {
    uint64_t value;
    if (read_whole(&text, &value) != 0 || strcmp(text, "%") != 0 || value > 100) {
        return FLEET_ERR_USAGE;
    }
    *ret_percent = (uint32_t)value;
    return 0;
}
