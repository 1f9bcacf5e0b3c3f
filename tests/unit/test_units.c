#include <criterion/criterion.h>

#include "core/base/error.h"
#include "core/base/units.h"
#include "core/base/xalloc.h"

Test(units, parses_durations) {
    uint64_t ms = 7;
    cr_assert_eq(units_parse_duration("500ms", &ms), 0);
    cr_assert_eq(ms, 500);
    cr_assert_eq(units_parse_duration("30s", &ms), 0);
    cr_assert_eq(ms, 30000);
    cr_assert_eq(units_parse_duration("5m", &ms), 0);
    cr_assert_eq(ms, 300000);
    cr_assert_eq(units_parse_duration("1h", &ms), 0);
    cr_assert_eq(ms, 3600000);
    cr_assert_eq(units_parse_duration("2d", &ms), 0);
    cr_assert_eq(ms, 172800000);
    cr_assert_eq(units_parse_duration("0s", &ms), 0);
    cr_assert_eq(ms, 0);
}

Test(units, refuses_what_is_no_duration_and_writes_nothing) {
    static const char *const bad[] = {"",    "5",     "s",
                                      "-1s", "+1s",   " 1s",
                                      "1 s", "1s ",   "1.5s",
                                      "1S",  "1min",  "99999999999999999999s",
                                      "1sm", "0x10s", "213503982334602d"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        uint64_t ms = 7;
        cr_assert_eq(units_parse_duration(bad[i], &ms), FLEET_ERR_USAGE, "%s", bad[i]);
        cr_assert_eq(ms, 7, "%s", bad[i]);
    }
}

Test(units, parses_sizes) {
    uint64_t bytes = 7;
    cr_assert_eq(units_parse_size("10MB", &bytes), 0);
    cr_assert_eq(bytes, 10000000);
    cr_assert_eq(units_parse_size("1.5GB", &bytes), 0);
    cr_assert_eq(bytes, 1500000000);
    cr_assert_eq(units_parse_size("1.25KiB", &bytes), 0);
    cr_assert_eq(bytes, 1280);
    cr_assert_eq(units_parse_size("100B", &bytes), 0);
    cr_assert_eq(bytes, 100);
}

Test(units, refuses_what_is_no_size) {
    static const char *const bad[] = {
        "",     "10",   "MB",    "1,5MB",    "1.MB",          ".5MB",
        "-1MB", "10mb", "10 MB", "1.2345MB", "99999999999TB", "1.5.5MB"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        uint64_t bytes = 7;
        cr_assert_eq(units_parse_size(bad[i], &bytes), FLEET_ERR_USAGE, "%s", bad[i]);
        cr_assert_eq(bytes, 7, "%s", bad[i]);
    }
}

Test(units, parses_percentages) {
    uint32_t percent = 7;
    cr_assert_eq(units_parse_percent("0%", &percent), 0);
    cr_assert_eq(percent, 0);
    cr_assert_eq(units_parse_percent("100%", &percent), 0);
    cr_assert_eq(percent, 100);
    static const char *const bad[] = {"", "%", "101%", "-1%", "10", "10%%", "1.5%", " 1%"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        cr_assert_eq(units_parse_percent(bad[i], &percent), FLEET_ERR_USAGE, "%s", bad[i]);
        cr_assert_eq(percent, 100);
    }
}
