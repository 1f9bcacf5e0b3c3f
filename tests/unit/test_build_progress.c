/* Nix's internal-json log as lines and steps; what test_build.c doesn't get from the real Nix. */
#include <criterion/criterion.h>
#include <string.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"
#include "core/build_progress.h"

#define DRV "/nix/store/l7vxscggl3askjxgqprsrln5bcs8hr60-liba-1.0.drv"

static struct build_progress *progress;
static struct buf lines, steps;

static void on_line(const char *line, size_t len, const char *drv, void *arg) {
    (void)arg;
    buf_printf(&lines, "%.*s%s\n", (int)len, line, drv != NULL ? " <drv>" : "");
}

static void on_step(const struct build_step *step, void *arg) {
    (void)arg;
    struct event *event = event_new(EVENT_DERIVATION);
    build_step_tell(step, event);
    buf_printf(&steps, "%s %s", event->state, strrchr(event->drv, '-') + 1);
    buf_printf(&steps, "%s%s", event->phase != NULL ? " " : "",
               event->phase != NULL ? event->phase : "");
    buf_printf(&steps, "%s%s\n", event->machine != NULL ? " on " : "",
               event->machine != NULL ? event->machine : "");
    event_free(event);
}

static void init(void) {
    static const struct build_progress_handlers handlers = {.on_line = on_line, .on_step = on_step};
    progress = build_progress_new(&handlers, NULL);
    lines = (struct buf){0};
    steps = (struct buf){0};
}

static void fini(void) {
    build_progress_free(progress);
    buf_free(&lines);
    buf_free(&steps);
}
TestSuite(build_progress, .init = init, .fini = fini);

static void hear(const char *line) {
    build_progress_line(progress, line, strlen(line));
}

static const char begin[] = "@nix {\"action\":\"start\",\"fields\":[\"" DRV
                            "\",\"ssh://big\",1,1],\"id\":7,\"level\":3,\"text\":\"building\","
                            "\"type\":105}";

Test(build_progress, a_build_begins_has_phases_and_lines_and_ends) {
    hear(begin);
    hear("@nix {\"action\":\"result\",\"fields\":[\"buildPhase\"],\"id\":7,\"type\":104}");
    hear("@nix {\"action\":\"result\",\"fields\":[\"cc -c x.c\"],\"id\":7,\"type\":101}");
    hear("@nix {\"action\":\"result\",\"fields\":[1,4,0,0],\"id\":9,\"type\":105}");
    hear("@nix {\"action\":\"stop\",\"id\":7}");
    cr_expect_str_eq(buf_text(&steps), "building 1.0.drv on ssh://big\n"
                                       "building 1.0.drv buildPhase on ssh://big\n"
                                       "built 1.0.drv on ssh://big\n");
    cr_expect_str_eq(buf_text(&lines), "building... <drv>\ncc -c x.c <drv>\n");
}

Test(build_progress, a_failure_is_known_by_the_message_that_names_it) {
    hear(begin);
    hear("@nix {\"action\":\"msg\",\"level\":0,\"msg\":\"error: builder for '" DRV
         "' failed with exit code 3\\nlast line\"}");
    hear("@nix {\"action\":\"stop\",\"id\":7}");
    cr_expect_str_eq(buf_text(&steps), "building 1.0.drv on ssh://big\n"
                                       "failed 1.0.drv on ssh://big\n");
    cr_expect(strstr(buf_text(&lines), "failed with exit code 3\nlast line\n") != NULL);
}

Test(build_progress, what_is_fetched_is_told_and_what_is_listed_waits) {
    hear("@nix {\"action\":\"msg\",\"level\":3,\"msg\":\"this derivation will be built:\"}");
    hear("@nix {\"action\":\"msg\",\"level\":3,\"msg\":\"  " DRV "\"}");
    hear("@nix {\"action\":\"start\",\"fields\":[\"/nix/store/x-data-2\",\"https://c\",\"local\"],"
         "\"id\":8,\"level\":4,\"text\":\"copying\",\"type\":100}");
    hear("@nix {\"action\":\"stop\",\"id\":8}");
    cr_expect_str_eq(buf_text(&steps), "waiting 1.0.drv\nfetching 2\nfetched 2\n");
}

Test(build_progress, other_lines_go_through_as_they_are) {
    hear("warning: ignoring something");
    hear("@nix not an object");
    hear("@nix {\"action\":\"stop\"}");
    hear("@nix {\"action\":\"start\",\"id\":-1,\"type\":105,\"fields\":[]}");
    hear("@nix {\"action\":\"result\",\"id\":1e300,\"type\":104,\"fields\":[7]}");
    hear("@nix {\"action\":\"msg\",\"level\":5,\"msg\":\"chatter\"}");
    cr_expect_str_eq(buf_text(&lines), "warning: ignoring something\n@nix not an object\n");
    cr_expect_eq(steps.len, 0);
    cr_expect_not(build_progress_is_refused(progress));
    hear("error: unknown flag '--log-format'");
    cr_expect(build_progress_is_refused(progress));
}

Test(build_progress, memory_is_bounded_whatever_comes) {
    for (int i = 1; i < 20000; i++) {
        char *line = xasprintf("@nix {\"action\":\"start\",\"fields\":[\"/nix/store/x-a-%d\"],"
                               "\"id\":%d,\"level\":5,\"text\":\"\",\"type\":105}",
                               i, i);
        hear(line);
        free(line);
        buf_clear(&steps);
    }
    hear("@nix {\"action\":\"msg\",\"level\":3,\"msg\":\"these will be built:\"}");
    for (int i = 0; i < 20000; i++) {
        hear("@nix {\"action\":\"msg\",\"level\":3,\"msg\":\"  " DRV "\"}");
        buf_clear(&lines);
    }
    hear("@nix {\"action\":\"stop\",\"id\":1}");
    hear("@nix {\"action\":\"stop\",\"id\":19999}");
    cr_expect_leq(strlen(buf_text(&steps)), 4000 * strlen("waiting 1.0.drv\n"));
}
