/* Building with the real Nix of this machine, into its own store; skipped where there is none. The
 * derivations are new in each run, so that each is really built.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"
#include "core/build.h"
#include "core/build_command.h"
#include "core/build_log.h"
#include "inventory/name_table.h"
#include "transport/closure.h"

enum {
    HOSTS = 6
};

struct world {
    char dir[64];
    char *run_dir;
    uv_loop_t loop;
    uv_timer_t limit;
    struct inventory inventory;
    struct name_table names;
    struct inv_host hosts[HOSTS];
    struct inv_build_on on[HOSTS];
    const struct inv_host *selected[HOSTS];
    size_t count;
    struct transport *transport;
    struct conn_spec spec;
    struct build_options options;
    struct build *build;
    bool cancel_at_first_line;
    /* What came. */
    struct buf states; /* "0 building\n" */
    struct buf steps;  /* "built dep.drv < tree.drv\n" */
    struct buf logs[HOSTS + 1];
    char *paths[HOSTS];
    enum build_source sources[HOSTS];
    struct error errors[HOSTS];
    bool ended[HOSTS];
    bool done;
};

static void on_state(size_t host, enum build_state state, const char *path, const char *drv,
                     void *arg) {
    static const char *const names[] = {"evaluating", "building", "built", "failed"};
    struct world *world = arg;
    (void)path;
    (void)drv;
    buf_printf(&world->states, "%zu %s\n", host, names[state]);
}

static void on_log(size_t host, const char *line, size_t len, const char *drv, void *arg) {
    struct world *world = arg;
    (void)drv;
    struct buf *log = &world->logs[host == SIZE_MAX ? HOSTS : host];
    buf_add(log, line, len);
    buf_add_char(log, '\n');
    if (world->cancel_at_first_line) {
        world->cancel_at_first_line = false;
        build_cancel(world->build);
    }
}

static const char *drv_name(const char *drv) {
    return drv != NULL ? strchr(drv, '-') + 1 : "";
}

static void on_step(size_t host, const struct build_step *step, void *arg) {
    struct world *world = arg;
    (void)host;
    struct event *event = event_new(EVENT_DERIVATION);
    build_step_tell(step, event);
    buf_printf(&world->steps, "%s %s < %s\n", event->state, drv_name(event->drv),
               drv_name(event->parent));
    event_free(event);
}

static void on_built(size_t host, const struct build_result *result, void *arg) {
    struct world *world = arg;
    cr_assert_not(world->ended[host], "ended twice");
    world->ended[host] = true;
    world->paths[host] = xstrdup(result->path);
    world->sources[host] = result->source;
    cr_assert_eq(result->source == BUILD_SOURCE_REMOTE, result->remote != NULL);
}

static void on_failed(size_t host, const struct error *error, void *arg) {
    struct world *world = arg;
    cr_assert_not(world->ended[host], "ended twice");
    world->ended[host] = true;
    world->errors[host] = *error;
}

static void on_done(void *arg) {
    struct world *world = arg;
    for (size_t i = 0; i < world->count; i++) {
        cr_assert(world->ended[i], "host %zu has no end", i);
    }
    world->done = true;
    uv_stop(&world->loop);
}

static void write_file(const struct world *world, const char *name, const char *text) {
    char *path = xasprintf("%s/%s", world->dir, name);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
    auto_free(&path);
}

static const struct conn_spec *spec_of(const struct inv_host *host, void *arg) {
    struct world *world = arg;
    (void)host;
    return &world->spec;
}

static bool has_nix(void) {
    return system("nix --version >/dev/null 2>&1") == 0;
}

/* A derivation NAME whose builder runs SCRIPT; `salt` is new in each run. */
static void world_init(struct world *world) {
    static char salt[64];
    snprintf(salt, sizeof(salt), "%ld-%d", (long)time(NULL), (int)getpid());
    setenv("NIX_CONFIG", "sandbox = false\nsubstituters =\nbuild-users-group =\n", 1);
    *world = (struct world){0};
    strcpy(world->dir, "/tmp/fleet-build-XXXXXX");
    cr_assert_not_null(mkdtemp(world->dir));
    setenv("HOME", world->dir, 1);
    world->run_dir = xasprintf("%s/run", world->dir);
    mkdir(world->run_dir, 0700);
    char *common = xasprintf(
        "rec { mk = name: script: builtins.derivation { inherit name; system = "
        "builtins.currentSystem or \"x86_64-linux\"; builder = \"/bin/sh\"; args = [ \"-c\" "
        "\"PATH=/usr/bin:/bin:/run/current-system/sw/bin\\n: %s\\n${script}\" ]; };\n"
        "good = n: mk \"good-${n}\" \"echo building ${n}; echo ${n} > $out\";\n"
        "bad = n: mk \"bad-${n}\" \"for i in 1 2 3; do echo step $i; done; echo no such "
        "header: x.h; exit 3\"; }\n",
        salt);
    write_file(world, "lib.nix", common);
    auto_free(&common);
    uv_loop_init(&world->loop);
    uv_timer_init(&world->loop, &world->limit);
    world->transport = transport_new(&world->loop, NULL);
    world->spec = (struct conn_spec){.name = "builder", .local = true};
    world->inventory.dir = world->dir;
    world->inventory.hosts = world->hosts;
    world->inventory.host_names = &world->names;
    world->options = (struct build_options){.run_dir = world->run_dir,
                                            .transport = world->transport,
                                            .spec = spec_of,
                                            .spec_arg = world};
}

static struct inv_system *add_host(struct world *world, const char *name,
                                   enum inv_system_kind kind) {
    struct inv_host *host = &world->hosts[world->count];
    *host = (struct inv_host){.index = world->count, .name = name};
    host->system.kind = kind;
    name_table_add(&world->names, name, strlen(name), world->count, NULL);
    host->build_on = &world->on[world->count];
    host->build_on_count = 1;
    world->selected[world->count++] = host;
    world->inventory.host_count = world->count;
    return &host->system;
}

static void on_limit(uv_timer_t *timer) {
    uv_stop(timer->loop);
}

static void run(struct world *world) {
    static const struct build_handlers handlers = {.on_state = on_state,
                                                   .on_log = on_log,
                                                   .on_step = on_step,
                                                   .on_built = on_built,
                                                   .on_failed = on_failed,
                                                   .on_done = on_done};
    world->build = build_start(&world->loop, &world->inventory, world->selected, world->count,
                               &world->options, &handlers, world);
    cr_assert_eq(world->states.len, 0, "nothing fires inside build_start");
    uv_timer_start(&world->limit, on_limit, 60000, 0);
    uv_run(&world->loop, UV_RUN_DEFAULT);
    uv_timer_stop(&world->limit);
    cr_assert(world->done, "it did not end");
}

static void end(struct world *world) {
    build_free(world->build);
    uv_close((uv_handle_t *)&world->limit, NULL);
    uv_run(&world->loop, UV_RUN_DEFAULT);
    transport_free(world->transport);
    uv_run(&world->loop, UV_RUN_DEFAULT);
    cr_assert_eq(uv_loop_close(&world->loop), 0, "a handle is left open");
    for (size_t i = 0; i < HOSTS; i++) {
        buf_free(&world->logs[i]);
        auto_free(&world->paths[i]);
    }
    buf_free(&world->logs[HOSTS]);
    buf_free(&world->states);
    buf_free(&world->steps);
    name_table_release(&world->names);
    char *command = xasprintf("rm -rf %s", world->dir);
    cr_assert_eq(system(command), 0);
    auto_free(&command);
    auto_free(&world->run_dir);
}

#define ASSERT_HAS(text, words)                                                                    \
    cr_assert(strstr(text, words) != NULL, "wanted \"%s\" in:\n%s", words, text)

#define WORLD(name)                                                                                \
    if (!has_nix()) {                                                                              \
        cr_skip_test("there is no Nix here");                                                      \
    }                                                                                              \
    struct world name;                                                                             \
    world_init(&(name))

/* --- Files --- */

static void add_file_host(struct world *world, const char *name, const char *attr) {
    static char file[128];
    static const struct inv_pair args[] = {{"suffix", "a b"}};
    snprintf(file, sizeof(file), "%s/default.nix", world->dir);
    struct inv_system *system = add_host(world, name, INV_SYSTEM_FILE);
    system->file = file;
    system->attr = attr;
    system->args = (struct inv_pairs){args, 1};
}

static const char default_nix[] =
    "{ suffix ? \"\" }: with import ./lib.nix; { one = good \"one\"; two = good \"two\";\n"
    " bad = bad \"x\"; throws = throw \"the ${suffix} option is gone\"; }\n";

Test(build, a_file_is_evaluated_and_built_with_its_log) {
    WORLD(world);
    write_file(&world, "default.nix", default_nix);
    add_file_host(&world, "db1", "one");
    run(&world);
    cr_assert_not_null(world.paths[0], "%s", world.errors[0].message);
    cr_assert(store_path_is_valid(world.paths[0]));
    cr_assert_eq(world.sources[0], BUILD_SOURCE_LOCAL);
    cr_assert_str_eq(buf_text(&world.states), "0 evaluating\n0 building\n0 built\n");
    ASSERT_HAS(buf_text(&world.logs[0]), "building one\n");
    char *root = xasprintf("%s/roots/db1", world.run_dir);
    char target[256] = "";
    cr_assert_gt(readlink(root, target, sizeof(target) - 1), 0);
    cr_assert_str_eq(target, world.paths[0]);
    auto_free(&root);
    char *check = xasprintf("grep -q '^building one$' %s/build/db1.log", world.run_dir);
    cr_assert_eq(system(check), 0, "the whole log is on disk");
    auto_free(&check);
    end(&world);
}

Test(build, the_tree_of_what_is_built_is_told_as_it_grows) {
    WORLD(world);
    write_file(&world, "default.nix",
               "{ suffix ? \"\" }: with import ./lib.nix; { tree = mk \"tree\" \"cat ${good "
               "\"dep\"} > $out\"; }\n");
    add_file_host(&world, "db1", "tree");
    run(&world);
    cr_assert_not_null(world.paths[0], "%s", world.errors[0].message);
    cr_assert_str_eq(buf_text(&world.steps),
                     "waiting tree.drv < \nwaiting good-dep.drv < tree.drv\n"
                     "building good-dep.drv < \nbuilt good-dep.drv < \n"
                     "building tree.drv < \nbuilt tree.drv < \n");
    end(&world);
}

Test(build, one_that_fails_takes_no_other_down_and_its_log_is_in_the_message) {
    WORLD(world);
    write_file(&world, "default.nix", default_nix);
    add_file_host(&world, "db1", "bad");
    add_file_host(&world, "db2", "two");
    add_file_host(&world, "db3", "throws");
    run(&world);
    cr_assert_not_null(world.paths[1], "%s", world.errors[1].message);
    cr_assert_eq(world.errors[0].code, FLEET_ERR_BUILD);
    cr_assert_str_eq(world.errors[0].reason, "build-failed");
    ASSERT_HAS(world.errors[0].message, "-bad-x.drv");
    ASSERT_HAS(world.errors[0].message, "no such header: x.h");
    ASSERT_HAS(world.errors[0].message, "/build/db1.log");
    cr_assert_str_eq(world.errors[2].reason, "eval-failed");
    ASSERT_HAS(world.errors[2].message, "the a b option is gone");
    end(&world);
}

/* --- What hosts share --- */

static size_t count_of(const char *text, const char *words) {
    size_t count = 0;
    while ((text = strstr(text, words)) != NULL) {
        count++;
        text += strlen(words);
    }
    return count;
}

static size_t links_of(const struct world *world, const char *glob) {
    char *command = xasprintf("exit $(ls -d %s/roots/%s | wc -l)", world->run_dir, glob);
    int status = system(command);
    auto_free(&command);
    return (size_t)WEXITSTATUS(status);
}

static const char shared_nix[] =
    "{ suffix ? \"\" }: with import ./lib.nix; builtins.trace \"seen once\" {\n"
    " one = good \"one\"; two = good \"two\"; bad = bad \"x\"; none = { };\n"
    " several = { a = good \"a\"; b = good \"b\"; }; }\n";

Test(build, hosts_of_one_file_are_evaluated_together_and_rooted_together_once_built) {
    WORLD(world);
    write_file(&world, "default.nix", shared_nix);
    add_file_host(&world, "db1", "one");
    add_file_host(&world, "db2", "two");
    add_file_host(&world, "db3", "one");
    run(&world);
    cr_assert_eq(count_of(buf_text(&world.logs[HOSTS]), "trace: seen once"), 1);
    for (size_t i = 0; i < world.count; i++) {
        cr_assert_eq(count_of(buf_text(&world.logs[i]), "trace: seen once"), 0);
    }
    char *one = xstrdup(world.paths[0]);
    ASSERT_HAS(one, "-good-one");
    ASSERT_HAS(world.paths[1], "-good-two");
    cr_assert_str_eq(world.paths[2], one);
    /* db3 waited for db1's build, and both were built once. */
    cr_assert_eq(count_of(buf_text(&world.logs[0]), "building one\n"), 1);
    cr_assert_eq(world.logs[2].len, 0, "%s", buf_text(&world.logs[2]));
    build_free(world.build);
    uv_run(&world.loop, UV_RUN_DEFAULT);
    for (size_t i = 0; i < world.count; i++) {
        auto_free(&world.paths[i]);
        world.ended[i] = false;
    }
    buf_clear(&world.states);
    world.done = false;
    cr_assert_eq(links_of(&world, "+present*"), 0);

    run(&world);
    cr_assert_str_eq(world.paths[0], one);
    cr_assert_str_eq(world.paths[2], one);
    ASSERT_HAS(world.paths[1], "-good-two");
    cr_assert_eq(links_of(&world, "+present*"), 2, "one nix-store, two paths");
    char *held = xasprintf("nix-store -q --roots %s 2>/dev/null | grep -q +present", one);
    cr_assert_eq(system(held), 0, "what it found is held against garbage collection");
    auto_free(&held);
    auto_free(&one);
    end(&world);
}

Test(build, an_attribute_that_is_not_one_derivation_gives_no_host_anothers_system) {
    WORLD(world);
    write_file(&world, "default.nix", shared_nix);
    add_file_host(&world, "db1", "one");
    add_file_host(&world, "db2", "several");
    add_file_host(&world, "db3", "none");
    add_file_host(&world, "db4", "two");
    run(&world);
    ASSERT_HAS(world.paths[0], "-good-one");
    ASSERT_HAS(world.paths[3], "-good-two");
    cr_assert_null(world.paths[2], "%s", world.paths[2]);
    ASSERT_HAS(world.errors[2].message, "the evaluation printed no store path");
    end(&world);
}

/* What nix-instantiate does with a file's arguments by itself, whichever way the file is written. */
Test(build, sharing_an_evaluation_changes_no_arguments) {
    static const char *const heads[] = {
        "{ suffix ? \"\" }: let s = suffix; in",
        "{ suffix, ... }@args: let s = args.suffix; in",
        "{ ... }@args: let s = args.suffix or \"none\"; in",
        "{ other ? \"none\" }: let s = other; in",
        "let s = \"none\"; in",
    };
    for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
        WORLD(world);
        char *text = xasprintf("%s with import ./lib.nix; rec { one = mk \"one-${if s == \"a b\" "
                               "then \"given\" else s}\" \"echo > $out\"; two = one; "
                               "three = { by ? \"three\" }: mk by \"echo > $out\"; }\n",
                               heads[i]);
        write_file(&world, "default.nix", text);
        auto_free(&text);
        add_file_host(&world, "db1", "one");
        add_file_host(&world, "db2", "two");
        if (i == ARRAY_LEN(heads) - 1) {
            add_file_host(&world, "db3", "three");
        }
        run(&world);
        const char *wanted = i < 3 ? "-one-given" : "-one-none";
        cr_assert_not_null(world.paths[0], "%s", world.errors[0].message);
        ASSERT_HAS(world.paths[0], wanted);
        cr_assert_not_null(world.paths[1], "%s", world.errors[1].message);
        cr_assert_str_eq(world.paths[1], world.paths[0]);
        if (i == ARRAY_LEN(heads) - 1) {
            ASSERT_HAS(world.paths[2], "-three");
        }
        end(&world);
    }
}

Test(build, a_build_that_several_hosts_want_fails_once_and_for_all_of_them) {
    WORLD(world);
    write_file(&world, "default.nix", shared_nix);
    add_file_host(&world, "db1", "bad");
    add_file_host(&world, "db2", "two");
    add_file_host(&world, "db3", "bad");
    run(&world);
    ASSERT_HAS(world.paths[1], "-good-two");
    for (size_t i = 0; i < 3; i += 2) {
        cr_assert_str_eq(world.errors[i].reason, "build-failed");
        ASSERT_HAS(world.errors[i].message, "no such header: x.h");
        ASSERT_HAS(world.errors[i].message, "/build/db1.log");
    }
    cr_assert_eq(count_of(buf_text(&world.logs[0]), "step 3"), 1);
    cr_assert_eq(world.logs[2].len, 0);
    end(&world);
}

Test(build, a_path_that_only_seems_to_be_there_is_asked_for_by_itself) {
    WORLD(world);
    write_file(&world, "default.nix", shared_nix);
    add_file_host(&world, "db1", "one");
    run(&world);
    char *path = xstrdup(world.paths[0]);
    end(&world);

    static const char ghost[] = "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab-fleet-test-ghost";
    world_init(&world);
    rmdir(ghost); /* left by a run that was cut off */
    if (mkdir(ghost, 0755) != 0) {
        cr_skip_test("the store's folder is not this user's to write");
    }
    add_host(&world, "db1", INV_SYSTEM_PATH)->path = path;
    add_host(&world, "db2", INV_SYSTEM_PATH)->path = ghost;
    run(&world);
    rmdir(ghost);
    cr_assert_str_eq(world.paths[0], path);
    /* Nix's own words about that very path: each version has its own. */
    ASSERT_HAS(world.errors[1].message, "the build failed: ");
    ASSERT_HAS(world.errors[1].message, ghost);
    end(&world);
    auto_free(&path);
}

Test(build, only_one_plain_output_is_known_beforehand) {
    char file[] = "/tmp/fleet-drv-XXXXXX";
    int fd = mkstemp(file);
    static const struct {
        const char *text;
        const char *path;
    } cases[] = {
        {"Derive([(\"out\",\"/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-x\",\"\",\"\")],[],",
         "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-x"},
        {"Derive([(\"dev\",\"/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-x\",\"\",\"\")],[],",
         NULL},
        {"Derive([(\"out\",\"/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-x\",\"\",\"\"),(", NULL},
        {"Derive([(\"out\",\"\",\"r:sha256\",\"\")],[],", NULL},
        {"Derive([(\"out\",\"/etc/passwd\",\"\",\"\")],[],", NULL},
        {"", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t len = strlen(cases[i].text);
        cr_assert_eq(ftruncate(fd, 0), 0);
        cr_assert_eq(pwrite(fd, cases[i].text, len, 0), (ssize_t)len);
        char *path = build_output_of(file);
        cr_assert_eq(path == NULL, cases[i].path == NULL, "case %zu", i);
        cr_assert(path == NULL || strcmp(path, cases[i].path) == 0);
        auto_free(&path);
    }
    close(fd);
    unlink(file);
    cr_assert_null(build_output_of("/nonexistent.drv"));
}

/* --- Flakes --- */

static void add_flake_host(struct world *world, const char *name, const char *attr) {
    static char ref[128];
    snprintf(ref, sizeof(ref), "path:%s", world->dir);
    struct inv_system *system = add_host(world, name, INV_SYSTEM_FLAKE);
    system->flake_ref = ref;
    system->flake_attr = attr;
}

static const char flake_nix[] =
    "{ outputs = { self }: with import ./lib.nix; { hosts.\"web.1\" = good \"web1\";\n"
    " hosts.db = builtins.trace \"seen once\" (good \"db\"); hosts.gone = throw \"it is gone\"; "
    "}; }\n";

Test(build, hosts_of_one_flake_are_evaluated_together) {
    WORLD(world);
    write_file(&world, "flake.nix", flake_nix);
    add_flake_host(&world, "web1", "hosts.\"web.1\"");
    add_flake_host(&world, "db1", "hosts.db");
    add_flake_host(&world, "db2", "hosts.db");
    run(&world);
    for (size_t i = 0; i < 3; i++) {
        cr_assert_not_null(world.paths[i], "%s", world.errors[i].message);
    }
    ASSERT_HAS(world.paths[0], "-good-web1");
    ASSERT_HAS(world.paths[1], "-good-db");
    cr_assert_str_eq(world.paths[1], world.paths[2]);
    cr_assert_eq(count_of(buf_text(&world.logs[HOSTS]), "trace: seen once"), 1, "%s",
                 buf_text(&world.logs[HOSTS]));
    end(&world);
}

Test(build, one_broken_attribute_of_a_flake_is_its_own_hosts_failure) {
    WORLD(world);
    write_file(&world, "flake.nix", flake_nix);
    add_flake_host(&world, "web1", "hosts.\"web.1\"");
    add_flake_host(&world, "gone", "hosts.gone");
    add_flake_host(&world, "db1", "hosts.db");
    run(&world);
    cr_assert_not_null(world.paths[0], "%s", world.errors[0].message);
    cr_assert_not_null(world.paths[2], "%s", world.errors[2].message);
    cr_assert_str_eq(world.errors[1].reason, "eval-failed");
    ASSERT_HAS(world.errors[1].message, "the evaluation failed: it is gone");
    end(&world);
}

Test(build, an_error_that_nix_cannot_catch_is_its_own_hosts_failure_as_well) {
    WORLD(world);
    write_file(&world, "flake.nix", flake_nix);
    add_flake_host(&world, "web1", "hosts.\"web.1\"");
    add_flake_host(&world, "typo", "hosts.typo");
    run(&world);
    cr_assert_not_null(world.paths[0], "%s", world.errors[0].message);
    cr_assert_str_eq(world.errors[1].reason, "eval-failed");
    ASSERT_HAS(world.errors[1].message, "typo");
    end(&world);
}

/* --- Paths and commands --- */

Test(build, a_path_is_taken_as_it_is_and_one_that_is_not_there_is_said) {
    WORLD(world);
    write_file(&world, "default.nix", default_nix);
    add_file_host(&world, "db1", "one");
    run(&world);
    char *path = xstrdup(world.paths[0]);
    end(&world);

    world_init(&world);
    add_host(&world, "db1", INV_SYSTEM_PATH)->path = path;
    add_host(&world, "db2", INV_SYSTEM_PATH)->path =
        "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-nothing";
    run(&world);
    cr_assert_str_eq(world.paths[0], path);
    ASSERT_HAS(world.errors[1].message, "is not in this machine's store, and no substituter has");
    end(&world);
    auto_free(&path);
}

Test(build, a_command_prints_one_store_path) {
    static const char *const prints[] = {"./build-it", "one two; false"};
    static const char *const lies[] = {"/bin/sh", "-c", "echo 'not a path'"};
    static const char *const fails[] = {"/bin/sh", "-c", "echo the cause >&2; exit 9"};
    static const char *const missing[] = {"./not-there"};
    WORLD(world);
    write_file(&world, "default.nix", default_nix);
    write_file(&world, "build-it",
               "#!/bin/sh\n[ \"$1\" = 'one two; false' ] || exit 1\n"
               "exec nix-build --no-out-link ./default.nix -A one\n");
    char *script = xasprintf("%s/build-it", world.dir);
    chmod(script, 0755);
    auto_free(&script);
    add_host(&world, "a", INV_SYSTEM_COMMAND)->command = (struct inv_strings){prints, 2};
    add_host(&world, "b", INV_SYSTEM_COMMAND)->command = (struct inv_strings){lies, 3};
    add_host(&world, "c", INV_SYSTEM_COMMAND)->command = (struct inv_strings){fails, 3};
    add_host(&world, "d", INV_SYSTEM_COMMAND)->command = (struct inv_strings){missing, 1};
    run(&world);
    cr_assert_not_null(world.paths[0], "%s", world.errors[0].message);
    ASSERT_HAS(world.paths[0], "-good-one");
    ASSERT_HAS(world.errors[1].message, "/bin/sh printed no store path but \"not a path\"");
    ASSERT_HAS(world.errors[2].message, "the build command failed: the cause");
    ASSERT_HAS(world.errors[3].message, "cannot run ./not-there");
    end(&world);
}

/* --- Time and cancelling --- */

Test(build, silence_has_a_deadline_and_cancel_ends_everything) {
    static const char *const hangs[] = {"/bin/sh", "-c", "trap '' TERM; echo here >&2; sleep 60"};
    WORLD(world);
    add_host(&world, "a", INV_SYSTEM_COMMAND)->command = (struct inv_strings){hangs, 3};
    world.options.silence_ms = 300;
    uint64_t began = uv_hrtime();
    run(&world);
    ASSERT_HAS(world.errors[0].message, "no output for");
    ASSERT_HAS(world.errors[0].message, "here");
    cr_assert_lt((uv_hrtime() - began) / 1000000, 10000);
    end(&world);

    world_init(&world);
    add_host(&world, "a", INV_SYSTEM_COMMAND)->command = (struct inv_strings){hangs, 3};
    for (size_t i = 1; i < HOSTS; i++) {
        add_host(&world, "more", INV_SYSTEM_COMMAND)->command = (struct inv_strings){hangs, 3};
    }
    world.cancel_at_first_line = true;
    run(&world);
    for (size_t i = 0; i < HOSTS; i++) {
        cr_assert_eq(world.errors[i].code, FLEET_ERR_CANCELLED);
    }
    end(&world);
}

Test(build, what_prints_for_ever_has_a_deadline_too) {
    static const char *const prints[] = {"/bin/sh", "-c",
                                         "while :; do echo going on >&2; sleep 0.05; done"};
    WORLD(world);
    add_host(&world, "a", INV_SYSTEM_COMMAND)->command = (struct inv_strings){prints, 3};
    world.options.silence_ms = 30000;
    world.options.build_ms = 500;
    run(&world);
    ASSERT_HAS(world.errors[0].message, "not done after");
    ASSERT_HAS(world.errors[0].message, "going on");
    end(&world);
}

/* --- Build hosts (here: this machine again, over the local carrier) --- */

Test(build, a_build_host_builds_and_keeps_the_output) {
    WORLD(world);
    write_file(&world, "default.nix", default_nix);
    add_file_host(&world, "fleet-test-1", "one");
    add_file_host(&world, "fleet-test-2", "bad");
    add_file_host(&world, "fleet-test-3", "two");
    add_host(&world, "builder", INV_SYSTEM_PATH)->path = "/unused";
    world.on[0].kind = world.on[1].kind = INV_BUILD_HOST;
    world.on[0].host = world.on[1].host = "builder";
    world.on[2].kind = INV_BUILD_TARGET;
    world.count = 3;
    run(&world);
    cr_assert_not_null(world.paths[0], "%s", world.errors[0].message);
    ASSERT_HAS(world.paths[0], "-good-one");
    cr_assert_eq(world.sources[0], BUILD_SOURCE_REMOTE);
    ASSERT_HAS(buf_text(&world.logs[0]), "building one\n");
    ASSERT_HAS(world.errors[1].message, "build host builder: the build failed: ");
    ASSERT_HAS(world.errors[1].message, "no such header: x.h");
    cr_assert_eq(world.sources[2], BUILD_SOURCE_TARGET);
    ASSERT_HAS(world.paths[2], "-good-two");
    if (geteuid() == 0) {
        /* What keeps the outputs on the build host, which here is this machine. An ordinary user's
         * are in HOME and go with it. */
        cr_assert_eq(unlink("/nix/var/nix/gcroots/fleet/build-fleet-test-1"), 0);
        cr_assert_eq(unlink("/nix/var/nix/gcroots/fleet/build-fleet-test-3"), 0);
    }
    end(&world);
}

/* --- The log's last words, without Nix --- */

static void excerpt(const char *const *lines, size_t count, size_t max, struct buf *out) {
    struct build_log log;
    build_log_init(&log, NULL, "x");
    for (size_t i = 0; i < count; i++) {
        build_log_add(&log, lines[i], strlen(lines[i]));
    }
    buf_clear(out);
    build_log_excerpt(&log, max, out);
    build_log_free(&log);
}

Test(build, the_log_is_its_owner_s_alone_whatever_the_umask) {
    char dir[] = "/tmp/fleet-build-log-XXXXXX";
    cr_assert_not_null(mkdtemp(dir));
    struct build_log log;
    build_log_init(&log, dir, "x");
    mode_t before = umask(0);
    build_log_add(&log, "token=abc", 9);
    umask(before);
    struct stat info;
    cr_assert_eq(stat(log.path, &info), 0);
    cr_assert_eq(info.st_mode & 0777, 0600);
    cr_assert_eq(info.st_size, 10);
    build_log_free(&log);
    AUTO_FREE char *remove = xasprintf("rm -r %s", dir);
    cr_assert_eq(system(remove), 0);
}

Test(build, the_excerpt_holds_the_error_and_the_last_lines_of_the_log) {
    static const char *const nix28[] = {"building '/nix/store/x.drv'...", "gcc: \033[31mno input",
                                        "error: builder for '/nix/store/x.drv' failed"};
    static const char *const newer[] = {"these 2 derivations will be built:",
                                        "error: Cannot build '/nix/store/x.drv'.",
                                        "       Reason: builder failed with exit code 1.",
                                        "       Last 2 log lines:",
                                        "       > gcc: no input",
                                        "       For full logs, run:",
                                        "         nix log /nix/store/x.drv"};
    struct buf out = BUF_INIT;
    excerpt(nix28, ARRAY_LEN(nix28), 800, &out);
    cr_assert_str_eq(buf_text(&out), "builder for '/nix/store/x.drv' failed\n"
                                     "gcc: no input");
    excerpt(newer, ARRAY_LEN(newer), 800, &out);
    cr_assert_str_eq(buf_text(&out), "Cannot build '/nix/store/x.drv'.\n"
                                     "       Reason: builder failed with exit code 1.\n"
                                     "       Last 2 log lines:\n       > gcc: no input");
    excerpt(newer, ARRAY_LEN(newer), 70, &out);
    cr_assert_str_eq(buf_text(&out),
                     "Cannot build '/nix/store/x.drv'.\n...\n       > gcc: no input");
    excerpt(NULL, 0, 800, &out);
    cr_assert_eq(out.len, 0);
    buf_free(&out);
}

Test(build, answers_that_are_no_store_paths_are_refused) {
    static const char drv[] = "[\"/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-x.drv\", null]";
    char *drvs[2] = {NULL, NULL};
    cr_assert(build_read_flake(drv, 2, drvs));
    cr_assert_null(drvs[1]);
    auto_free(&drvs[0]);
    cr_assert_not(build_read_flake(drv, 1, drvs));
    cr_assert_not(build_read_flake("[\"/etc/passwd\"]", 1, drvs));
    cr_assert_not(build_read_flake("{}", 1, drvs));
    /* What was read before the fault is given back, and nothing of it is left to be freed twice. */
    char *paths[2] = {NULL, NULL};
    cr_assert_not(build_read_paths("/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-x\n?\n", 2, paths));
    cr_assert(paths[0] == NULL && paths[1] == NULL);
    cr_assert_not(build_read_files("/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-x\n", 1, paths));
    cr_assert_null(paths[0]);
    cr_assert_null(build_read_path("/etc/passwd\n"));
    cr_assert_null(build_read_path(""));
    char *path = build_read_path("/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-x.drv!out\nmore");
    cr_assert_str_eq(path, "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-x.drv");
    auto_free(&path);
}
