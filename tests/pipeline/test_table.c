/* The table of steps by itself, and against the diagram at the head of core/host_steps.c. Run from the
 * repository's folder. */
#include <criterion/criterion.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "core/host_internal.h"

#define ARROW "─►"

/* The diagram: the head comment up to its first paragraph of prose, words in brackets blanked. */
static char *read_diagram(void) {
    static char text[8192];
    FILE *file = fopen("core/host_steps.c", "re");
    cr_assert_not_null(file);
    size_t len = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    text[len] = '\0';
    char *end = strstr(text, "* A step is called");
    cr_assert_not_null(end);
    *end = '\0';
    bool inside = false;
    for (char *c = text; *c != '\0'; c++) {
        inside = *c == '(' || (inside && *c != ')' && *c != '\n');
        if (inside || *c == ')') {
            *c = ' ';
        }
    }
    return text;
}

static bool is_name_char(char c) {
    return islower((unsigned char)c) != 0 || c == '_';
}

/* The step of that name, STEP_COUNT if there is none. */
static enum step step_named(const char *name, size_t len) {
    for (int i = 0; i < STEP_COUNT; i++) {
        if (strlen(host_steps[i].name) == len && strncmp(host_steps[i].name, name, len) == 0) {
            return (enum step)i;
        }
    }
    return STEP_COUNT;
}

static size_t name_length(const char *at) {
    size_t len = 0;
    while (is_name_char(at[len])) {
        len++;
    }
    return len;
}

/* The step that the name before an arrow tells; STEP_COUNT where only a line leads to it. */
static enum step step_before(const char *text, const char *arrow) {
    const char *end = arrow;
    while (end > text && end[-1] == ' ') {
        end--;
    }
    const char *begin = end;
    while (begin > text && is_name_char(begin[-1])) {
        begin--;
    }
    return step_named(begin, (size_t)(end - begin));
}

Test(table, has_every_arrow_of_the_diagram) {
    const char *text = read_diagram();
    uint64_t drawn = UINT64_C(1) << STEP_CONNECT;
    int arrows = 0;
    for (const char *at = strstr(text, ARROW); at != NULL; at = strstr(at + 1, ARROW)) {
        const char *name = at + strlen(ARROW);
        name += strspn(name, " ");
        enum step to = step_named(name, name_length(name));
        cr_assert_neq(to, STEP_COUNT, "the diagram names a step that isn't there: %.20s", name);
        drawn |= UINT64_C(1) << to;
        enum step from = step_before(text, at);
        if (from != STEP_COUNT) {
            cr_expect(host_steps[from].next & (UINT64_C(1) << to),
                      "the diagram leads from %s to %s, the table doesn't", host_steps[from].name,
                      host_steps[to].name);
            arrows++;
        }
    }
    cr_expect_geq(arrows, 25, "only %d arrows were found", arrows);
    for (int i = 0; i < STEP_COUNT; i++) {
        /* What begins a line of the diagram has its arrow further up. */
        bool named = (drawn & (UINT64_C(1) << i)) != 0;
        char line[64];
        snprintf(line, sizeof(line), " *   %s ", host_steps[i].name);
        cr_expect(named || strstr(text, line) != NULL, "the diagram doesn't name %s",
                  host_steps[i].name);
    }
}

Test(table, reaches_every_step) {
    uint64_t reached = UINT64_C(1) << STEP_CONNECT;
    for (int round = 0; round < STEP_COUNT; round++) {
        for (int i = 0; i < STEP_COUNT; i++) {
            if (reached & (UINT64_C(1) << i)) {
                reached |= host_steps[i].next;
            }
        }
    }
    for (int i = 0; i < STEP_COUNT; i++) {
        cr_expect(reached & (UINT64_C(1) << i), "nothing leads to %s", host_steps[i].name);
    }
}

Test(table, lets_every_failure_be) {
    for (int i = 0; i < STEP_CLOSED; i++) {
        const struct step_def *step = &host_steps[i];
        cr_assert_not_null(step->run);
        cr_expect(step->next & (UINT64_C(1) << step->on_fail), "%s may not fail", step->name);
        cr_expect_eq(step->next & ~((UINT64_C(1) << STEP_COUNT) - 1), 0);
    }
}

/* The policy in one column: from the activation on a failure goes back first. */
Test(table, goes_back_from_the_activation_on) {
    for (int i = 0; i < STEP_COUNT; i++) {
        bool armed = i >= STEP_ACTIVATE && i <= STEP_COMMIT;
        cr_expect_eq(host_steps[i].on_fail == STEP_AWAIT_ROLLBACK, armed, "%s", host_steps[i].name);
    }
}
