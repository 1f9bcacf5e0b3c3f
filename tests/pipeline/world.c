/* A pipeline's surroundings, played (see world.h). */
#include "tests/pipeline/world.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "tests/pipeline/virtual_time.h"

#define GIVE_UP_MS (100u * 3600u * 1000u)

const char *const blow_names[BLOW_COUNT] = {
    [BLOW_NONE] = "none",
    [BLOW_FAIL] = "fail",
    [BLOW_HANG] = "hang",
    [BLOW_CUT] = "cut",
    [BLOW_CUT_AFTER] = "cut-after",
    [BLOW_GONE] = "gone",
    [BLOW_GONE_AFTER] = "gone-after",
    [BLOW_POWER] = "power",
    [BLOW_STOLEN] = "stolen",
    [BLOW_CANCEL] = "cancel",
    [BLOW_RELEASE] = "release",
};

/* ---- blows ---- */

static void strike_outside(struct world *world) {
    struct error error = ERROR_INIT;
    switch (world->blow) {
    case BLOW_CUT:
        machine_cut(&world->machine);
        break;
    case BLOW_GONE:
        machine_gone(&world->machine);
        break;
    case BLOW_POWER:
        world->powered = true;
        machine_power_cut(&world->machine, 20000);
        break;
    case BLOW_STOLEN:
        snprintf(world->machine.lock_id, sizeof(world->machine.lock_id), "thief");
        snprintf(world->machine.lock_run, sizeof(world->machine.lock_run), "other-run");
        break;
    case BLOW_CANCEL:
        error_set(&error, FLEET_ERR_CANCELLED, "stopped", "not started: the run was stopped");
        host_end(world->host, HOST_SKIPPED, &error);
        break;
    case BLOW_RELEASE:
        world->released = true;
        host_release(world->host);
        break;
    case BLOW_NONE:
    case BLOW_FAIL:
    case BLOW_HANG:
    case BLOW_CUT_AFTER:
    case BLOW_GONE_AFTER:
    case BLOW_COUNT:
        break;
    }
}

/* An act needs its grant; what is not listed needs none. */
static void check_grant(const struct world *world, const char *name) {
    static const struct {
        const char *name;
        enum act act;
    } needs[] = {
        {"stage", ACT_COPY},          {"serve", ACT_COPY},     {"guard_start", ACT_ACTIVATE},
        {"commit_now", ACT_ACTIVATE}, {"renew", ACT_ACTIVATE}, {"commit", ACT_COMMIT},
        {"abort", ACT_ROLLBACK},      {"reboot", ACT_REBOOT},  {"secret_put", ACT_SECRET}};
    for (size_t i = 0; i < ARRAY_LEN(needs); i++) {
        if (strcmp(needs[i].name, name) == 0) {
            cr_expect(world->granted[needs[i].act] || world->took_back, "%s without a grant: %s",
                      name, buf_text(&world->story));
        }
    }
}

static enum fault on_script(struct machine *machine, const char *name, void *arg) {
    struct world *world = arg;
    (void)machine;
    if (world->host == NULL) {
        return FAULT_NONE;
    }
    check_grant(world, name);
    if (strcmp(name, "lock_take") == 0) {
        cr_expect(world->granted[ACT_COPY] || world->granted[ACT_SECRET] || world->took_back,
                  "a lock without a grant: %s", buf_text(&world->story));
    }
    world->steps |= UINT64_C(1) << world->host->step;
    world->scripts++;
    enum fault fault = world->on_script != NULL ? world->on_script(world, name) : FAULT_NONE;
    /* The lease is renewed by the clock, in whatever step that falls. */
    bool lease = world->host->renewing && strcmp(name, "lock_take") == 0;
    if (fault != FAULT_NONE || world->struck || world->blow == BLOW_NONE || lease ||
        world->host->step != world->at) {
        return fault;
    }
    world->struck = true;
    if ((int)world->blow < (int)FAULT_COUNT) {
        return (enum fault)world->blow;
    }
    strike_outside(world);
    return FAULT_NONE;
}

/* Steps that send no script of their own. */
#define STANDING                                                                                   \
    ((UINT64_C(1) << STEP_CONNECT) | (UINT64_C(1) << STEP_AWAIT_BUILD) |                           \
     (UINT64_C(1) << STEP_AWAIT_COPY) | (UINT64_C(1) << STEP_AWAIT_ACTIVATE) |                     \
     (UINT64_C(1) << STEP_AWAIT_COMMIT) | (UINT64_C(1) << STEP_AWAIT_REBOOT) |                     \
     (UINT64_C(1) << STEP_AWAIT_SECRET) | (UINT64_C(1) << STEP_AWAIT_ROLLBACK) |                   \
     (UINT64_C(1) << STEP_HOLD))

static void look(struct world *world) {
    if (world->host == NULL) {
        return;
    }
    world->steps |= UINT64_C(1) << world->host->step;
    bool stands = (STANDING & (UINT64_C(1) << world->host->step)) != 0;
    if (stands && !world->struck && world->host->step == world->at && world->blow != BLOW_NONE) {
        world->struck = true;
        strike_outside(world);
    }
    if (world->host != NULL && world->on_turn != NULL) {
        world->on_turn(world);
    }
}

/* ---- the coordinator ---- */

static void answer_soon(struct world *world);

static void answer_wish(struct world *world, enum act act) {
    world->grant_due[act] = false;
    world->granted[act] = true;
    if (act == ACT_ROLLBACK && world->leave) {
        host_leave(world->host);
    } else {
        host_grant(world->host, act);
    }
}

/* One answer at a time, as they come through a mailbox. */
static void on_turn(uv_timer_t *timer) {
    struct world *world = timer->data;
    if (world->host == NULL || world->released) {
        return;
    }
    answer_soon(world);
    if (world->build_due) {
        world->build_due = false;
        struct host_source source = {.kind =
                                         world->copies ? HOST_SOURCE_LOCAL : HOST_SOURCE_TARGET};
        if (world->desired != NULL) {
            host_desired(world->host, world->desired, &source);
        }
        return;
    }
    for (int act = 0; act < ACT_COUNT; act++) {
        if (world->grant_due[act]) {
            answer_wish(world, (enum act)act);
            return;
        }
    }
    if (!world->over_due) {
        uv_timer_stop(&world->turn);
    } else {
        world->over_due = false;
        if (world->reprobe) {
            world->reprobe = false;
            host_reprobe(world->host);
        } else if (world->take_back && world->end == HOST_HEALTHY) {
            world->take_back = false;
            world->took_back = true;
            struct error why = ERROR_INIT;
            error_set(&why, FLEET_ERR_CANCELLED, "taken-back", "taken back, as asked");
            host_take_back(world->host, &why);
        } else {
            world->released = true;
            host_release(world->host);
        }
    }
}

static void answer_soon(struct world *world) {
    uv_timer_start(&world->turn, on_turn, world->answer_ms, 0);
}

/* What may follow a public state (CONTRACT, Host states). */
#define M(state) (1u << HOST_##state)
static const unsigned legal[HOST_STATE_COUNT] = {
    [HOST_CONNECTING] = M(BUILDING) | M(FAILED) | M(UNREACHABLE) | M(SKIPPED),
    [HOST_REBOOTING] = M(PROBING) | M(FAILED) | M(UNKNOWN),
    [HOST_BUILDING] = M(STAGING) | M(STAGED) | M(UNCHANGED) | M(FAILED) | M(SKIPPED),
    [HOST_STAGING] = M(STAGED) | M(FAILED) | M(SKIPPED),
    [HOST_STAGED] =
        M(STAGED) | M(UNCHANGED) | M(ACTIVATING) | M(COMMITTING) | M(FAILED) | M(SKIPPED),
    [HOST_ACTIVATING] =
        M(CONFIRMING) | M(ROLLING_BACK) | M(FAILED) | M(SKIPPED) | M(REBOOT_REQUIRED) | M(UNKNOWN),
    [HOST_CONFIRMING] = M(PROBING) | M(ROLLING_BACK) | M(FAILED) | M(UNKNOWN),
    [HOST_PROBING] = M(COMMITTING) | M(ROLLING_BACK) | M(HEALTHY) | M(FAILED) | M(UNKNOWN),
    [HOST_COMMITTING] = M(ACTIVATING) | M(REBOOTING) | M(HEALTHY) | M(REBOOT_REQUIRED) |
                        M(ROLLING_BACK) | M(FAILED) | M(SKIPPED) | M(UNKNOWN),
    [HOST_ROLLING_BACK] = M(ROLLED_BACK) | M(ROLLBACK_FAILED) | M(UNKNOWN),
    [HOST_HEALTHY] = M(ROLLING_BACK),
};

/* Under dry-activate a host is staged twice: before its try, and at the end (core/rollout.c). */
static bool is_end(const struct world *world, const struct event *event) {
    bool stages = world->run.action == ACTION_PUSH ||
                  (world->run.action == ACTION_DRY_ACTIVATE && event->from == HOST_STAGED);
    return host_state_is_end(event->to) || (stages && event->to == HOST_STAGED);
}

static void on_event(struct event *event, void *arg) {
    struct world *world = arg;
    if (event->type == EVENT_LOG) {
        buf_printf(&world->log, "%s: %s\n", event->stream, event->line);
    }
    if (event->type == EVENT_CHANGE) {
        world->changes++;
        cr_expect_str_eq(event->current, OLD);
        cr_expect_str_eq(event->desired, NEW);
        cr_expect_not_null(event->packages);
    }
    if (event->type == EVENT_HOST_STATE) {
        buf_printf(&world->story, "%s%s", event->has_from ? " " : "", host_state_name(event->to));
        if (event->reason[0] != '\0') {
            buf_printf(&world->story, "(%s)", event->reason);
        }
        bool adopted =
            world->resume.ask && (event->from == HOST_CONNECTING || event->to == HOST_CONNECTING);
        cr_expect(!event->has_from || adopted || (legal[event->from] & (1u << event->to)) != 0,
                  "%s after %s: %s", host_state_name(event->to), host_state_name(event->from),
                  buf_text(&world->story));
        if (event->to == HOST_BUILDING) {
            world->build_due = true;
            answer_soon(world);
        }
        if (is_end(world, event)) {
            world->end = event->to;
            world->ends++;
            snprintf(world->reason, sizeof(world->reason), "%s", event->reason);
            snprintf(world->message, sizeof(world->message), "%s", event->message);
            machine_settle(&world->machine);
            cr_expect(!world->machine.guard.alive || event->to == HOST_UNKNOWN ||
                          world->machine.activations == 0,
                      "an end while its guard is at work: [%s at %s] %s: %s",
                      blow_names[world->blow],
                      world->at < STEP_COUNT ? host_steps[world->at].name : "-",
                      buf_text(&world->story), world->message);
            world->over_due = !world->lingers;
            answer_soon(world);
        }
    }
    event_free(event);
}

static void on_wants(size_t host, enum act act, const char *path, const char *nonce, void *arg) {
    struct world *world = arg;
    (void)host;
    (void)path;
    (void)nonce;
    if (!world->withhold[act]) {
        world->grant_due[act] = true;
        answer_soon(world);
    }
}

static void on_unhealthy_before(size_t host, void *arg) {
    (void)host;
    (void)arg;
}

static void on_reprobed(size_t host, bool ok, void *arg) {
    struct world *world = arg;
    (void)host;
    world->reprobed = ok;
    world->over_due = true;
    answer_soon(world);
}

static void on_closed(size_t host, void *arg) {
    struct world *world = arg;
    (void)host;
    host_free(world->host);
    world->host = NULL;
}

/* ---- the host's environment ---- */

static struct copier *get_copier(const struct host_source *source, struct error *error, void *arg) {
    struct world *world = arg;
    (void)source;
    (void)error;
    return world->copier;
}

static void on_secret_late(uv_timer_t *timer) {
    struct world *world = timer->data;
    if (world->host != NULL) {
        host_poke(world->host);
    }
}

static const struct secret *get_secret(const struct inv_host *inv, const struct inv_secret *what,
                                       struct error *error, void *arg) {
    static struct secret secret;
    static char encoded[8];
    struct world *world = arg;
    (void)inv;
    (void)what;
    if (world->secret_late > 0) {
        world->secret_late--;
        uv_timer_start(&world->secret_timer, on_secret_late, 3000, 0);
        return NULL;
    }
    if (world->secret_fails != NULL) {
        error_set(error, FLEET_ERR_SYSTEM, "secret-command", "%s", world->secret_fails);
        return NULL;
    }
    encoded[0] = world->secret_mark;
    memset(secret.hash, world->secret_mark, sizeof(secret.hash) - 1);
    secret.encoded = encoded;
    return &secret;
}

static bool connect_begin(struct host *host, void *arg) {
    (void)host;
    (void)arg;
    return true;
}

static void connect_end(struct host *host, void *arg) {
    (void)host;
    (void)arg;
}

static void next_nonce(char ret_nonce[33], void *arg) {
    struct world *world = arg;
    snprintf(ret_nonce, 33, "%032x", ++world->nonces);
}

static void on_store_ready(const char *address, void *arg) {
    struct world *world = arg;
    (void)address;
    world->copier =
        copier_new(&world->loop, world->store_conn, "nix-store --serve", "the local store");
    if (world->host != NULL) {
        host_poke(world->host);
    }
}

static void on_store_lost(const struct error *error, void *arg) {
    (void)arg;
    cr_assert_fail("the store is lost: %s", error->message);
}

/* ---- from the test ---- */

void world_begin(struct world *world) {
    static const struct inv_address address = {.host = "127.0.0.1", .port = 22};
    static const char *const units[] = {"web.service"};
    *world = (struct world){
        .desired = NEW, .answer_ms = 50, .end = HOST_STATE_COUNT, .reprobed = -1, .at = STEP_COUNT};
    virtual_time_begin();
    cr_assert_eq(uv_loop_init(&world->loop), 0);
    uv_timer_init(&world->loop, &world->turn);
    world->turn.data = world;
    uv_timer_init(&world->loop, &world->secret_timer);
    world->secret_timer.data = world;
    machine_init(&world->machine, &world->loop);
    machine_init(&world->store, &world->loop);
    world->machine.on_script = on_script;
    world->machine.arg = world;
    world->run = (struct host_run){.run = "run-1",
                                   .who = "me@here pid 1",
                                   .rev = "abc",
                                   .action = ACTION_SWITCH,
                                   .lease_ms = 120000};
    world->probe = (struct inv_health){.name = "units",
                                       .type = INV_HEALTH_SYSTEMD,
                                       .from_target = true,
                                       .interval_ms = 5000,
                                       .timeout_ms = 3000,
                                       .successes = 1,
                                       .failures = 3};
    world->inv = (struct inv_host){.name = "db1",
                                   .addresses = &address,
                                   .address_count = 1,
                                   .connect_timeout_ms = 10000,
                                   .profile = "/nix/var/nix/profiles/system",
                                   .health = &world->probe,
                                   .health_count = 1,
                                   .policy = {.activate_timeout_ms = 600000,
                                              .confirm_timeout_ms = 60000,
                                              .startup_grace_ms = 5000,
                                              .min_healthy_time_ms = 10000,
                                              .healthy_deadline_ms = 300000,
                                              .rollback = true}};
    world->spec = (struct conn_spec){.name = "db1"};
    world->secret_mark = 'a';
    world->secrets[0] = (struct inv_secret){.name = "token",
                                            .path = "/run/fleet/secrets/token",
                                            .owner = "root",
                                            .group = "root",
                                            .mode = 0400,
                                            .restart = {.items = units, .count = 1}};
    world->secrets[1] = world->secrets[0];
    world->secrets[1].name = "late";
    world->secrets[1].path = "/run/fleet/secrets/late";
    world->secrets[1].after = true;
    world->secrets[1].restart.count = 0;
}

void world_resume(struct world *world, uint64_t guard_left_ms) {
    struct machine *machine = &world->machine;
    struct machine_guard *guard = &machine->guard;
    *guard = (struct machine_guard){.alive = true,
                                    .record = true,
                                    .folder = true,
                                    .phase = GUARD_ACTIVE,
                                    .phase_on_disk = GUARD_ACTIVATING,
                                    .link_generation = 7,
                                    .confirm_ms = 60000,
                                    .next_ms = virtual_time_ms() + guard_left_ms};
    snprintf(guard->nonce, sizeof(guard->nonce), "of-the-dead-operator");
    snprintf(guard->run, sizeof(guard->run), "run-1");
    snprintf(guard->action, sizeof(guard->action), "switch");
    snprintf(guard->new, sizeof(guard->new), "%s", NEW);
    snprintf(guard->old, sizeof(guard->old), "%s", OLD);
    snprintf(guard->link, sizeof(guard->link), "%s", OLD);
    snprintf(guard->state, sizeof(guard->state), "active %s rc=0 deadline=%llu.%llu", guard->nonce,
             (unsigned long long)(guard->next_ms / 1000),
             (unsigned long long)(guard->next_ms % 1000 / 100));
    snprintf(machine->running, sizeof(machine->running), "%s", NEW);
    snprintf(machine->lock_id, sizeof(machine->lock_id), "lock-of-the-dead");
    snprintf(machine->lock_run, sizeof(machine->lock_run), "run-1");
    world->run.resumed = true;
    world->resume = (struct host_resume){.ask = true,
                                         .nonce = "of-the-dead-operator",
                                         .desired = NEW,
                                         .old = OLD,
                                         .old_generation = 7};
    world->granted[ACT_COPY] = true;
    world->granted[ACT_ACTIVATE] = true;
}

static void open_store(struct world *world) {
    static const struct conn_handlers handlers = {.on_ready = on_store_ready,
                                                  .on_lost = on_store_lost};
    if (world->copies) {
        world->store_conn = transport_open(&world->store.transport, &world->spec, &handlers, world);
    }
}

static void give_up(const struct world *world) {
    const char *step = host_steps[world->host->step].name;
    cr_assert_fail("it stands still in \"%s\" (blow %s): %s", step, blow_names[world->blow],
                   buf_text(&world->story));
}

void world_go(struct world *world) {
    struct host_plan plan = {.inv = &world->inv,
                             .spec = &world->spec,
                             .wave = 1,
                             .run = &world->run,
                             .resume = world->resume,
                             .to_generation = world->run.action == ACTION_ROLLBACK ? 0 : -1};
    struct host_env env = {.loop = &world->loop,
                           .transport = &world->machine.transport,
                           .clock = &virtual_clock,
                           .copier = get_copier,
                           .secret = get_secret,
                           .connect_begin = connect_begin,
                           .connect_end = connect_end,
                           .nonce = next_nonce,
                           .arg = world};
    struct host_sink sink = {.event = on_event,
                             .wants = on_wants,
                             .unhealthy_before = on_unhealthy_before,
                             .reprobed = on_reprobed,
                             .closed = on_closed,
                             .arg = world};
    uint64_t began = virtual_time_ms();
    if (world->has_secrets) {
        world->inv.secrets = world->secrets;
        world->inv.secret_count = ARRAY_LEN(world->secrets);
    }
    open_store(world);
    world->host = host_new(&plan, &env, &sink);
    if (world->compare) {
        host_compare(world->host);
    }
    host_begin(world->host);
    look(world);
    while (world->host != NULL) {
        bool more = virtual_time_turn(&world->loop);
        look(world);
        if (world->host != NULL && (!more || virtual_time_ms() - began > GIVE_UP_MS)) {
            give_up(world);
        }
    }
}

/* ---- what must hold in the end ---- */

static void on_late(uv_timer_t *timer) {
    (void)timer;
}

/* An hour later the guard has done what it does alone. */
static void let_guard_finish(struct world *world) {
    uv_timer_start(&world->turn, on_late, 3600000, 0);
    while (virtual_time_turn(&world->loop)) {
    }
    machine_settle(&world->machine);
}

static const char *label(const struct world *world) {
    static char text[1500];
    snprintf(text, sizeof(text), "[%s at %s] %s: %.600s | %.400s", blow_names[world->blow],
             world->at < STEP_COUNT ? host_steps[world->at].name : "-", buf_text(&world->story),
             world->message, buf_text(&world->machine.trace));
    return text;
}

static bool runs(const struct world *world, const char *system) {
    return strcmp(world->machine.running, system) == 0;
}

static bool boots(const struct world *world, const char *system) {
    return strcmp(world->machine.profile, system) == 0;
}

/* What an end claims is true of the target. */
static void check_claim(const struct world *world, const char *before, const char *profile_before) {
    const struct machine *machine = &world->machine;
    bool test = world->run.action == ACTION_TEST;
    const char *want = world->took_back ? OLD : world->desired != NULL ? world->desired : NEW;
    cr_expect(!machine->guard.alive, "a guard for ever: %s", label(world));
    switch (world->end) {
    case HOST_HEALTHY:
        cr_expect(runs(world, want) && (test ? boots(world, profile_before) : boots(world, want)) &&
                      !machine->guard.record,
                  "not healthy: %s", label(world));
        break;
    case HOST_UNCHANGED:
        cr_expect(runs(world, before) && boots(world, before), "changed: %s", label(world));
        break;
    case HOST_ROLLED_BACK:
        cr_expect(runs(world, before) && boots(world, profile_before) && !machine->guard.record &&
                      !machine->boot_default_stuck,
                  "not rolled back: %s", label(world));
        break;
    case HOST_FAILED:
    case HOST_SKIPPED:
    case HOST_UNREACHABLE:
    case HOST_STAGED:
        if (strcmp(world->reason, "booted-another") == 0) {
            cr_expect(!runs(world, want), "it has booted what it was to boot: %s", label(world));
        } else if (strcmp(world->reason, "changed-since") == 0) {
            cr_expect(!runs(world, want) || !boots(world, want), "as it was: %s", label(world));
        } else if (world->inv.policy.reboot != INV_REBOOT_NEVER && world->granted[ACT_COMMIT]) {
            cr_expect(runs(world, want) && boots(world, want), "not as committed: %s",
                      label(world));
        } else if (strstr(world->message, "left running") == NULL &&
                   strstr(world->message, "left as it is") == NULL) {
            cr_expect(runs(world, before) && boots(world, profile_before) &&
                          (!machine->guard.record || world->at == STEP_REPAIR),
                      "touched: %s", label(world));
        } else if (world->inv.policy.rollback) {
            cr_expect(runs(world, want) && boots(world, profile_before), "not left: %s",
                      label(world));
        }
        break;
    case HOST_REBOOT_REQUIRED:
        cr_expect(runs(world, before) &&
                      boots(world, world->run.action == ACTION_BOOT ? want : profile_before),
                  "no reboot: %s", label(world));
        break;
    case HOST_ROLLBACK_FAILED:
    case HOST_UNKNOWN:
    case HOST_STATE_COUNT:
    case HOST_PENDING:
    case HOST_CONNECTING:
    case HOST_BUILDING:
    case HOST_STAGING:
    case HOST_ACTIVATING:
    case HOST_CONFIRMING:
    case HOST_PROBING:
    case HOST_COMMITTING:
    case HOST_REBOOTING:
    case HOST_ROLLING_BACK:
        break;
    }
}

/* Who went well has its secrets, and nothing is still to be restarted. */
static void check_secrets(const struct world *world) {
    const struct machine *machine = &world->machine;
    bool well = world->end == HOST_HEALTHY || world->end == HOST_UNCHANGED;
    if (!world->has_secrets || !well || world->took_back || world->powered) {
        return;
    }
    cr_expect_eq(machine->secret_count, 2, "secrets are missing: %s", label(world));
    cr_expect_not(machine->restart_due, "a unit waits for its restart: %s", label(world));
}

static void check_let_go(const struct world *world) {
    const struct machine *machine = &world->machine;
    bool reachable = machine->reachable_at_ms <= virtual_time_ms();
    if (!reachable || world->end == HOST_UNKNOWN || world->ends == 0 || world->at == STEP_UNLOCK ||
        world->at == STEP_HOLD || world->powered) {
        return;
    }
    cr_expect(strncmp(machine->lock_id, "000", 3) != 0, "the lock is kept: %s", label(world));
    cr_expect(machine->staged == (world->run.action == ACTION_PUSH) || world->blow == BLOW_STOLEN ||
                  machine->lock_id[0] != '\0',
              "the root: %s", label(world));
}

static void close_all(struct world *world) {
    uv_close((uv_handle_t *)&world->turn, NULL);
    uv_close((uv_handle_t *)&world->secret_timer, NULL);
    if (world->copier != NULL) {
        copier_free(world->copier);
    }
    if (world->store_conn != NULL) {
        conn_close(world->store_conn);
    }
    while (virtual_time_turn(&world->loop)) {
    }
    cr_expect_eq(world->machine.conns_open, 0, "connections are open: %s", label(world));
    cr_expect_eq(world->machine.streams_open, 0, "streams are open: %s", label(world));
    cr_expect_eq(uv_loop_close(&world->loop), 0, "handles are open: %s", label(world));
}

void world_end(struct world *world) {
    unsigned ends = world->took_back ? 2 : 1;
    if (world->blow == BLOW_RELEASE) {
        cr_expect_leq(world->ends, ends, "ends: %s", label(world));
    } else {
        cr_expect_eq(world->ends, ends, "ends: %s", label(world));
    }
    let_guard_finish(world);
    close_all(world);
    machine_free(&world->machine);
    machine_free(&world->store);
    buf_free(&world->story);
    buf_free(&world->log);
}

void world_run(struct world *world) {
    char before[256];
    char profile_before[256];
    snprintf(before, sizeof(before), "%s", world->machine.running);
    snprintf(profile_before, sizeof(profile_before), "%s", world->machine.profile);
    if (strcmp(before, NEW) == 0) {
        snprintf(before, sizeof(before), "%s", profile_before);
    }
    world_go(world);
    let_guard_finish(world);
    check_claim(world, before, profile_before);
    check_secrets(world);
    check_let_go(world);
}
