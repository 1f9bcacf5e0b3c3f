#include <criterion/criterion.h>
#include <time.h>

#include "core/base/clock.h"
#include "core/base/error.h"
#include "core/base/xalloc.h"

Test(clock, runs) {
    uint64_t before = clock_now_ms(&clock_system);
    cr_assert_geq(clock_now_ms(&clock_system), before);
    cr_assert_leq(llabs(clock_wall_ms(&clock_system) / 1000 - (int64_t)time(NULL)), 1);
}

static void expect_stamp(int64_t ms, const char *wanted) {
    char text[CLOCK_RFC3339_SIZE];
    clock_rfc3339(ms, text);
    cr_assert_str_eq(text, wanted);
}

Test(clock, writes_rfc3339) {
    expect_stamp(0, "1970-01-01T00:00:00.000Z");
    expect_stamp(1795367071123, "2026-11-22T17:04:31.123Z");
    expect_stamp(-1, "1969-12-31T23:59:59.999Z");
    expect_stamp(951782400000, "2000-02-29T00:00:00.000Z");
    expect_stamp(INT64_MAX, "9999-12-31T23:59:59.999Z");
}

Test(clock, reads_what_it_writes) {
    for (int64_t ms = 0; ms < INT64_C(4000000000000); ms += INT64_C(86399999777)) {
        char text[CLOCK_RFC3339_SIZE];
        int64_t back = -1;
        clock_rfc3339(ms, text);
        cr_assert_eq(clock_parse_rfc3339(text, &back), 0, "%s", text);
        cr_assert_eq(back, ms, "%s", text);
    }
}

Test(clock, reads_offsets_and_fractions) {
    int64_t ms = 0;
    cr_assert_eq(clock_parse_rfc3339("2026-11-22T18:34:31.5+01:30", &ms), 0);
    cr_assert_eq(ms, INT64_C(1795367071500));
    cr_assert_eq(clock_parse_rfc3339("2026-11-22t17:04:31.123456789z", &ms), 0);
    cr_assert_eq(ms, INT64_C(1795367071123));
}

Test(clock, refuses_what_is_no_stamp) {
    static const char *const bad[] = {
        "",
        "2026-11-22",
        "2026-11-22T17:04:31",
        "2026-13-22T17:04:31Z",
        "2026-02-29T17:04:31Z",
        "2026-00-10T17:04:31Z",
        "2026-11-22T24:04:31Z",
        "2026-11-22T17:04:31.Z",
        "2026-11-22T17:04:31Zx",
        "2026-11-22T17:04:31+0130",
        "2026-1-22T17:04:31Z",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        int64_t ms = 7;
        cr_assert_eq(clock_parse_rfc3339(bad[i], &ms), FLEET_ERR_PROTOCOL, "%s", bad[i]);
        cr_assert_eq(ms, 7);
    }
}
