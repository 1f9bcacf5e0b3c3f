/* Which generations a collection may remove. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/gc.h"
#include "core/target_reply.h"

static const char six[] = "gen 1 2026-01-01T00:00:00.123456789Z /nix/store/a\n"
                          "gen 2 2026-02-01T00:00:00.1Z /nix/store/b\n"
                          "gen 10 2026-03-01T00:00:00.1Z /nix/store/c\n"
                          "gen 3 2026-02-10T00:00:00Z /nix/store/d\n"
                          "gen x 2026-02-10T00:00:00Z /nix/store/d\n"
                          "gen 11 2026-03-10T00:00:00.1Z /nix/store/e\n"
                          "gen 12 2026-03-20T00:00:00.1Z /nix/store/f\n";

static void assert_chosen(struct gc_facts facts, struct gc_rules rules, const char *want) {
    struct target_reply *reply = target_reply_parse(six, sizeof(six) - 1);
    struct buf text = BUF_INIT;
    size_t count = 0;
    facts.generations = reply;
    clock_parse_rfc3339("2026-03-31T00:00:00.000Z", &rules.now_ms);
    int64_t *chosen = gc_choose(&facts, &rules, &count);
    for (size_t i = 0; i < count; i++) {
        buf_printf(&text, "%s%lld", i > 0 ? " " : "", (long long)chosen[i]);
    }
    cr_assert_str_eq(buf_text(&text), want);
    free(chosen);
    buf_free(&text);
    target_reply_free(reply);
}

#define DAY_MS (24ull * 3600 * 1000)

Test(gc, removes_nothing_without_a_rule) {
    assert_chosen((struct gc_facts){.generation = 12, .current = "", .booted = ""},
                  (struct gc_rules){0}, "");
}

Test(gc, keeps_the_latest_the_current_the_booted_and_what_a_rollback_goes_to) {
    struct gc_facts facts = {.generation = 12, .current = "/nix/store/f", .booted = "/nix/store/b"};
    assert_chosen(facts, (struct gc_rules){.keep = 1}, "1 3 10");
    assert_chosen(facts, (struct gc_rules){.keep = 4}, "1");
    assert_chosen(facts, (struct gc_rules){.keep = 100}, "");
    /* After a rollback to 3 the way back from there leads to 2. */
    facts = (struct gc_facts){.generation = 3, .current = "/nix/store/d", .booted = ""};
    assert_chosen(facts, (struct gc_rules){.keep = 1}, "1 10 11");
    /* Running, and no longer the profile's. */
    facts.current = "/nix/store/c";
    assert_chosen(facts, (struct gc_rules){.keep = 1}, "1 11");
}

Test(gc, counts_the_age_and_both_rules_together) {
    struct gc_facts facts = {.generation = 12, .current = "/nix/store/f", .booted = ""};
    assert_chosen(facts, (struct gc_rules){.older_than_ms = 40 * DAY_MS}, "1 2 3");
    assert_chosen(facts, (struct gc_rules){.older_than_ms = 40 * DAY_MS, .keep = 5}, "1");
    assert_chosen(facts, (struct gc_rules){.older_than_ms = 4000 * DAY_MS}, "");
}

Test(gc, touches_nothing_where_the_profile_is_no_generation) {
    assert_chosen((struct gc_facts){.generation = 0, .current = "", .booted = ""},
                  (struct gc_rules){.keep = 1}, "");
}

Test(gc, reads_what_nix_says) {
    uint64_t paths = 0;
    uint64_t bytes = 0;
    cr_assert(gc_read_words("12 store paths deleted, 3.50 MiB freed", &paths, &bytes));
    cr_assert_eq(paths, 12);
    cr_assert_eq(bytes, 3670016);
    cr_assert(gc_read_words("2 store paths deleted, 1.5 KiB freed", &paths, &bytes));
    cr_assert_eq(bytes, 1536);
    cr_assert(gc_read_words("2 store paths deleted, 2.0 GiB freed", &paths, &bytes));
    cr_assert_eq(bytes, 2147483648u);
    cr_assert_not(gc_read_words("2 store paths deleted, 2.0 MB freed", &paths, &bytes));
    cr_assert_not(gc_read_words("12 store paths deleted, nan MiB freed", &paths, &bytes));
    cr_assert_not(gc_read_words("", &paths, &bytes));
    cr_assert_not(gc_read_words("no", &paths, &bytes));
}
