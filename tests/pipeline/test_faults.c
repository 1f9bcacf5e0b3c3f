/* Every step of the table under every fault: a walk over core/host_steps.c's own table.
 *
 * Each case takes a route on which the host comes by the step, lets one blow fall there, and runs
 * on to the end. world_run then checks what must hold whatever happened (tests/pipeline/world.h),
 * above all that what the end claims is true of the target. The expected ends and reasons stand in
 * faults.expected, each judged by a person, so that a change of behaviour is seen as one. Run from
 * the repository's folder.
 */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "tests/pipeline/world.h"

static struct world world;

/* ---- routes: how to come by a step ---- */

static void route_repair(void) {
    struct machine_guard *guard = &world.machine.guard;
    *guard = (struct machine_guard){
        .record = true, .phase_on_disk = GUARD_ACTIVATING, .link_generation = 7};
    snprintf(guard->nonce, sizeof(guard->nonce), "dead");
    snprintf(guard->new, sizeof(guard->new), "%s", NEW);
    snprintf(guard->old, sizeof(guard->old), "%s", OLD);
    snprintf(guard->link, sizeof(guard->link), "%s", OLD);
}

static void route_choose(void) {
    world.run.action = ACTION_ROLLBACK;
    world.desired = NULL;
    world.machine.gens = "gen 6 2026-11-01T00:00:00Z " NEW "\ngen 7 2026-11-02T00:00:00Z " OLD "\n";
}

static void route_look(void) {
    world.inv.policy.tolerate_preexisting = true;
}

static void route_copy(void) {
    world.copies = true;
}

static void route_dry_run(void) {
    world.run.action = ACTION_DRY_ACTIVATE;
}

static void route_boot(void) {
    world.run.action = ACTION_BOOT;
}

static void route_back(void) {
    world.machine.breaks_unit = "web.service";
}

static void route_leave(void) {
    world.run.action = ACTION_TEST;
}

static void route_adopt(void) {
    world_resume(&world, 40000);
}

static void route_reboot(void) {
    world.inv.policy.reboot = INV_REBOOT_ALWAYS;
}

static void route_fail(void) {
    world.machine.refuse_connections = 1;
}

static void route_reprobe(void) {
    world.reprobe = true;
}

static void route_secrets(void) {
    world.has_secrets = true;
}

/* Its system runs already. */
static void route_secrets_alone(void) {
    snprintf(world.machine.running, sizeof(world.machine.running), "%s", NEW);
    snprintf(world.machine.profile, sizeof(world.machine.profile), "%s", NEW);
    world.has_secrets = true;
}

static void route_secrets_boot(void) {
    route_reboot();
    world.has_secrets = true;
}

static void (*const routes[STEP_COUNT])(void) = {
    [STEP_REPAIR] = route_repair,
    [STEP_CHOOSE] = route_choose,
    [STEP_LOOK] = route_look,
    [STEP_COPY] = route_copy,
    [STEP_DRY_RUN] = route_dry_run,
    [STEP_COMMIT_NOW] = route_boot,
    [STEP_AWAIT_ROLLBACK] = route_back,
    [STEP_ABORT] = route_back,
    [STEP_REVERT] = route_back,
    [STEP_VERIFY_BACK] = route_back,
    [STEP_PROBE_BACK] = route_back,
    [STEP_LEAVE] = route_leave,
    [STEP_FAIL] = route_fail,
    [STEP_REPROBE] = route_reprobe,
    [STEP_ADOPT] = route_adopt,
    [STEP_AWAIT_REBOOT] = route_reboot,
    [STEP_REBOOT] = route_reboot,
    [STEP_BOOT] = route_reboot,
    [STEP_PROBE_BOOT] = route_reboot,
    [STEP_VERIFY_BOOT] = route_reboot,
    [STEP_SECRETS] = route_secrets_alone,
    [STEP_AWAIT_SECRET] = route_secrets_alone,
    [STEP_UPLOAD] = route_secrets_alone,
    [STEP_SECRETS_BEFORE] = route_secrets,
    [STEP_SECRETS_AFTER] = route_secrets,
    [STEP_SECRETS_BOOT] = route_secrets_boot,
};

/* Passed without standing still, so that nothing can happen there. */
static bool is_passed(enum step step) {
    return step == STEP_FAIL || step == STEP_END || step == STEP_CLOSE || step == STEP_CLOSED;
}

static bool stands(enum step step) {
    return step == STEP_CONNECT || step == STEP_AWAIT_BUILD || step == STEP_AWAIT_COPY ||
           step == STEP_AWAIT_ACTIVATE || step == STEP_AWAIT_REBOOT || step == STEP_AWAIT_COMMIT ||
           step == STEP_AWAIT_ROLLBACK || step == STEP_AWAIT_SECRET || step == STEP_HOLD;
}

/* Where no script is sent, one can't fail; only before the activation can a host be cancelled. */
static bool applies(enum step step, enum blow blow) {
    if (stands(step) && (blow == BLOW_FAIL || blow == BLOW_HANG || blow == BLOW_CUT_AFTER ||
                         blow == BLOW_GONE_AFTER)) {
        return false;
    }
    if (step == STEP_CONNECT && (blow == BLOW_CUT || blow == BLOW_STOLEN)) {
        return false;
    }
    if (blow == BLOW_CANCEL) {
        return step < STEP_COMMIT_NOW;
    }
    return !is_passed(step);
}

/* Compares with the line of this case in faults.expected; with FLEET_SHOW set prints what it would be,
 * and the story with FLEET_SHOW=2. */
static void check_expected(enum step step, enum blow blow) {
    char name[64];
    char line[256];
    char expected[256] = "";
    char is[256];
    size_t len =
        (size_t)snprintf(name, sizeof(name), "%s %s ", host_steps[step].name, blow_names[blow]);
    snprintf(is, sizeof(is), "%s%s%s%s", name, world.ends > 0 ? host_state_name(world.end) : "-",
             world.reason[0] != '\0' ? " " : "", world.reason);
    FILE *file = fopen("tests/pipeline/faults.expected", "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, name, len) == 0) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(expected, sizeof(expected), "%s", line);
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    const char *show = getenv("FLEET_SHOW");
    if (show == NULL) {
        cr_expect_str_eq(is, expected, "\"%s\" where \"%s\" is expected: %s", is, expected,
                         world.message);
        return;
    }
    fprintf(stderr, "%s\n", is);
    if (strcmp(show, "2") == 0) {
        fprintf(stderr, "    %s\n    %s\n    %s\n", world.message, buf_text(&world.story),
                buf_text(&world.machine.trace));
    }
}

static void run_case(enum step step, enum blow blow) {
    world_begin(&world);
    if (routes[step] != NULL) {
        routes[step]();
    }
    world.at = step;
    world.blow = blow;
    world_run(&world);
    cr_expect(world.struck, "the blow \"%s\" found no \"%s\": %s", blow_names[blow],
              host_steps[step].name, buf_text(&world.story));
    check_expected(step, blow);
    world_end(&world);
}

static int steps[STEP_COUNT];

ParameterizedTestParameters(faults, every_step_under_every_fault) {
    for (int i = 0; i < STEP_COUNT; i++) {
        steps[i] = i;
    }
    return cr_make_param_array(int, steps, STEP_COUNT);
}

ParameterizedTest(const int *step, faults, every_step_under_every_fault) {
    for (int blow = BLOW_FAIL; blow < BLOW_COUNT; blow++) {
        if (applies((enum step) * step, (enum blow)blow)) {
            run_case((enum step) * step, (enum blow)blow);
        }
    }
}
