/* Plans: packages by their names, units by the activation's rules, saved plans and staleness. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "core/plan.h"

#define A "/nix/store/00000000000000000000000000000000-"
#define B "/nix/store/11111111111111111111111111111111-"

/* ---- packages ---- */

static void assert_package(const char *path, const char *name, const char *version) {
    char *got_name = NULL;
    char *got_version = NULL;
    cr_assert(plan_package_parse(path, &got_name, &got_version), "%s", path);
    cr_assert_str_eq(got_name, name);
    cr_assert_str_eq(got_version, version);
    free(got_name);
    free(got_version);
}

Test(plan, splits_names_as_nix_does) {
    assert_package(A "openssl-3.0.13", "openssl", "3.0.13");
    assert_package(A "openssl-3.0.13-bin", "openssl", "3.0.13");
    assert_package(A "python3.11-foo-bar-1.2", "python3.11-foo-bar", "1.2");
    assert_package(A "linux-6.6.0-rc1", "linux", "6.6.0-rc1");
    assert_package(A "font-7x14-2.0", "font", "7x14-2.0");
    char *name;
    char *version;
    cr_assert_not(plan_package_parse(A "system-units", &name, &version));
    cr_assert_not(plan_package_parse(A "etc", &name, &version));
    cr_assert_not(plan_package_parse(A "trailing-", &name, &version));
    cr_assert_not(plan_package_parse("/etc/passwd-1.0", &name, &version));
}

static struct plan_list list_of(const char *const *items) {
    struct plan_list list = {0};
    for (; *items != NULL; items++) {
        plan_list_add(&list, *items);
    }
    plan_list_settle(&list);
    return list;
}

#define LIST(...) list_of((const char *const[]){__VA_ARGS__, NULL})

Test(plan, tells_packages_added_removed_and_changed) {
    struct plan_list from = LIST(A "libfoo-1.2.1", A "gone-1.0", A "same-3", A "two-1.0",
                                 B "two-2.0", A "openssl-3.0.1", A "openssl-3.0.1-bin", A "etc");
    struct plan_list to = LIST(B "libfoo-1.2.2", B "new-0.1", B "same-3", A "two-2.0", B "etc",
                               B "openssl-3.0.2", B "openssl-3.0.2-bin");
    struct plan_packages packages;
    plan_packages_compare(&from, &to, &packages);
    cr_assert_eq(packages.added.count, 1);
    cr_assert_str_eq(packages.added.items[0], "new-0.1");
    cr_assert_eq(packages.removed.count, 1);
    cr_assert_str_eq(packages.removed.items[0], "gone-1.0");
    cr_assert_eq(packages.changed_count, 3);
    cr_assert_str_eq(packages.changed[0].name, "libfoo");
    cr_assert_str_eq(packages.changed[0].from, "1.2.1");
    cr_assert_str_eq(packages.changed[0].to, "1.2.2");
    cr_assert_str_eq(packages.changed[1].name, "openssl");
    cr_assert_str_eq(packages.changed[2].from, "1.0, 2.0");
    cr_assert_str_eq(packages.changed[2].to, "2.0");
    plan_packages_free(&packages);
    plan_list_free(&from);
    plan_list_free(&to);
}

Test(plan, lists_hold_each_name_once_and_grow_after_it) {
    struct plan_list list = {0};
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 37; i++) {
            char name[16];
            snprintf(name, sizeof(name), "n%d", (i * 7) % 37);
            plan_list_add(&list, name);
        }
        plan_list_settle(&list);
        cr_assert_eq(list.count, 37);
    }
    cr_assert(plan_list_has(&list, "n36"));
    cr_assert_not(plan_list_has(&list, "n37"));
    plan_list_free(&list);
}

/* ---- units ---- */

static struct plan_unit *add(struct plan_system *system, const char *name, const char *hash,
                             const char *flag) {
    struct plan_unit *unit = plan_system_add_unit(system, name, hash);
    if (flag != NULL) {
        plan_unit_flag(unit, flag);
    }
    return unit;
}

static void assert_list(const struct plan_list *list, const char *want) {
    struct buf text = BUF_INIT;
    for (size_t i = 0; i < list->count; i++) {
        buf_printf(&text, "%s%s", i > 0 ? " " : "", list->items[i]);
    }
    cr_assert_str_eq(buf_text(&text), want);
    buf_free(&text);
}

Test(plan, sorts_changed_units_by_what_happens_to_them) {
    struct plan_system from = {.units_known = true};
    struct plan_system to = {.units_known = true};
    const struct {
        const char *name, *flag;
    } changed[] = {{"web.service", NULL},
                   {"sshd.service", "X-StopIfChanged=false"},
                   {"nginx.service", "X-ReloadIfChanged=true"},
                   {"dbus.service", "X-RestartIfChanged=false"},
                   {"manual.service", "RefuseManualStop=yes"},
                   {"data.mount", NULL},
                   {"multi-user.target", NULL},
                   {"getty@.service", NULL},
                   {"idle.service", NULL}};
    for (size_t i = 0; i < ARRAY_LEN(changed); i++) {
        add(&from, changed[i].name, "1", NULL);
        add(&to, changed[i].name, "2", changed[i].flag);
    }
    add(&from, "same.service", "1", NULL);
    add(&to, "same.service", "1", NULL);
    add(&from, "dropped.service", "1", NULL);
    add(&from, "stays.service", "1", "X-StopOnRemoval=false");
    add(&from, "masked.service", "1", NULL);
    add(&to, "masked.service", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        NULL);
    add(&from, "tuned.service", "1", NULL);
    add(&to, "tuned.service", "1", NULL);
    add(&to, "tuned.service.d/limits.conf", "9", NULL);
    add(&to, "new.service", "1", NULL);
    add(&to, "inner.service", "1", NULL);
    add(&to, "other.target", "1", NULL);
    plan_list_add(&from.wants, "multi-user.target.wants/web.service");
    plan_list_add(&to.wants, "multi-user.target.wants/web.service");
    plan_list_add(&to.wants, "multi-user.target.wants/new.service");
    plan_list_add(&to.wants, "multi-user.target.wants/other.target");
    plan_list_add(&to.wants, "other.target.requires/inner.service");
    plan_list_add(&to.wants, "asleep.target.wants/idle.service");
    /* Wanted before, and somebody has stopped it: it stays so. Wanted, and not there: never. */
    add(&from, "halted.service", "1", NULL);
    add(&to, "halted.service", "1", NULL);
    plan_list_add(&from.wants, "multi-user.target.wants/halted.service");
    plan_list_add(&to.wants, "multi-user.target.wants/halted.service");
    plan_list_add(&to.wants, "multi-user.target.wants/nowhere.service");
    plan_system_settle(&from);
    plan_system_settle(&to);
    struct plan_list active = LIST(
        "web.service", "sshd.service", "nginx.service", "dbus.service", "manual.service",
        "data.mount", "multi-user.target", "getty@tty1.service", "same.service", "dropped.service",
        "stays.service", "masked.service", "tuned.service", "session-1.scope", "dev-sda.device");
    struct plan_units units;
    plan_units_compare(&from, &to, &active, &units);
    cr_assert(units.known);
    assert_list(&units.acts[PLAN_STOP], "dropped.service masked.service");
    assert_list(&units.acts[PLAN_START], "inner.service new.service");
    assert_list(&units.acts[PLAN_RESTART],
                "getty@tty1.service sshd.service tuned.service web.service");
    assert_list(&units.acts[PLAN_RELOAD], "data.mount nginx.service");
    plan_units_free(&units);
    plan_units_compare(&from, &to, NULL, &units);
    assert_list(&units.acts[PLAN_RESTART], "web.service");
    plan_units_free(&units);
    from.units_known = false;
    plan_units_compare(&from, &to, &active, &units);
    cr_assert_not(units.known);
    plan_list_free(&active);
    plan_system_free(&from);
    plan_system_free(&to);
}

Test(plan, ends_where_targets_want_each_other) {
    struct plan_system from = {.units_known = true};
    struct plan_system to = {.units_known = true};
    add(&to, "a.target", "1", NULL);
    add(&to, "b.target", "1", NULL);
    plan_list_add(&to.wants, "multi-user.target.wants/a.target");
    plan_list_add(&to.wants, "a.target.wants/b.target");
    plan_list_add(&to.wants, "b.target.wants/a.target");
    plan_system_settle(&from);
    plan_system_settle(&to);
    struct plan_list active = LIST("multi-user.target");
    struct plan_units units;
    plan_units_compare(&from, &to, &active, &units);
    cr_assert_eq(units.acts[PLAN_START].count, 0);
    plan_list_free(&active);
    plan_units_free(&units);
    plan_system_free(&from);
    plan_system_free(&to);
}

static void write_text(const char *folder, const char *name, const char *text) {
    AUTO_FREE char *path = xasprintf("%s/%s", folder, name);
    FILE *file = fopen(path, "we");
    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
}

static void make_folder(const char *folder, const char *name) {
    AUTO_FREE char *path = xasprintf("%s/%s", folder, name);
    cr_assert_eq(mkdir(path, 0700), 0);
}

static void remove_folder(const char *folder) {
    AUTO_FREE char *command = xasprintf("rm -rf %s", folder);
    cr_assert_eq(system(command), 0);
}

Test(plan, reads_a_system_from_its_folder) {
    char folder[] = "/tmp/fleet-plan-XXXXXX";
    cr_assert_not_null(mkdtemp(folder));
    static const char *const folders[] = {"etc",
                                          "etc/systemd",
                                          "etc/systemd/system",
                                          "etc/systemd/system/web.service.d",
                                          "etc/systemd/system/multi-user.target.wants",
                                          "etc/systemd/system/inner.target.requires"};
    for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
        make_folder(folder, folders[i]);
    }
    write_text(folder, "etc/systemd/system/web.service", "[Unit]\nX-ReloadIfChanged=true\n");
    write_text(folder, "etc/systemd/system/web.service.d/a.conf", "[Service]\n");
    write_text(folder, "etc/systemd/system/multi-user.target.wants/web.service", "");
    write_text(folder, "etc/systemd/system/inner.target.requires/web.service", "");
    write_text(folder, "kernel", "12345");
    write_text(folder, "initrd", "123");
    write_text(folder, "init-interface-version", "systemd 2\n");
    AUTO_FREE char *masked = xasprintf("%s/etc/systemd/system/off.service", folder);
    cr_assert_eq(symlink("/dev/null", masked), 0);
    struct plan_system known;
    plan_system_read(folder, &known);
    cr_assert(known.units_known);
    cr_assert_eq(known.unit_count, 3);
    cr_assert_not_null(plan_system_unit(&known, "web.service.d/a.conf"));
    cr_assert(plan_system_unit(&known, "web.service")->reload);
    cr_assert_eq(strncmp(plan_system_unit(&known, "off.service")->hash, "e3b0c442", 8), 0);
    /* sha256sum of the same text. */
    cr_assert_str_eq(plan_system_unit(&known, "web.service.d/a.conf")->hash,
                     "40d8baaabac85ad8ac5a2ec40dd065b4ea0fb47c25ce3ddad4c290d22503c90f");
    assert_list(&known.wants,
                "inner.target.requires/web.service multi-user.target.wants/web.service");
    cr_assert_eq(known.boot_bytes, 8);
    cr_assert_str_eq(known.init_abi, "systemd 2");
    plan_system_free(&known);
    remove_folder(folder);
}

/* ---- a host ---- */

static struct plan_host host_of(const struct inv_host *inv, const char *current,
                                const char *desired) {
    return (struct plan_host){.inv = inv,
                              .reached = true,
                              .current = xstrdup(current),
                              .profile = xstrdup(current),
                              .desired = xstrdup(desired),
                              .generation = 3,
                              .free_boot = -1};
}

Test(plan, judges_change_reboot_and_boot) {
    const struct inv_host inv = {.name = "h1"};
    struct plan_host host = host_of(&inv, A "system-1", A "system-1");
    plan_host_judge(&host);
    cr_assert(host.judged && !host.change && !host.reboot);
    plan_host_free(&host);
    host = host_of(&inv, A "system-1", B "system-2");
    host.running_kernel = (struct plan_system){.kernel = xstrdup(A "k"), .initrd = xstrdup(A "i")};
    host.to = (struct plan_system){
        .kernel = xstrdup(B "k"), .initrd = xstrdup(A "i"), .boot_bytes = 1000000};
    host.free_boot = 1000000;
    plan_host_judge(&host);
    cr_assert(host.change && host.reboot && host.boot_full);
    plan_host_free(&host);
    /* Committed and not running, and the other way round, is a change, too. */
    host = host_of(&inv, A "system-1", A "system-1");
    free(host.profile);
    host.profile = xstrdup(B "system-2");
    plan_host_judge(&host);
    cr_assert(host.change);
    plan_host_free(&host);
    host = host_of(&inv, A "system-1", A "system-1");
    host.error.code = FLEET_ERR_LOST;
    plan_host_judge(&host);
    cr_assert_not(host.judged);
    plan_host_free(&host);
}

/* ---- saved plans ---- */

Test(plan, a_saved_plan_comes_back_and_knows_when_it_is_stale) {
    char folder[] = "/tmp/fleet-plan-XXXXXX";
    cr_assert_not_null(mkdtemp(folder));
    AUTO_FREE char *inventory_path = xasprintf("%s/fleet.json", folder);
    AUTO_FREE char *file = xasprintf("%s/plan.json", folder);
    const struct inventory inventory = {
        .path = inventory_path, .name = "demo", .text = "{}", .text_len = 2};
    const struct inv_host invs[] = {{.name = "h1"}, {.name = "h2"}};
    struct plan_host hosts[] = {host_of(&invs[0], A "system-1", B "system-2"),
                                {.inv = &invs[1], .free_boot = -1}};
    error_set(&hosts[1].error, FLEET_ERR_UNREACHABLE, "connection-refused", "refused");
    plan_host_judge(&hosts[0]);
    struct plan_about about = {.inventory = &inventory, .rev = "abc", .action = ACTION_SWITCH};
    struct error error = ERROR_INIT;
    cr_assert_eq(plan_save(file, &about, hosts, 2, &error), 0, "%s", error.message);
    struct plan_saved saved;
    cr_assert_eq(plan_load(file, &saved, &error), 0, "%s", error.message);
    cr_assert_eq(saved.host_count, 2);
    cr_assert(saved.hosts[0].planned && !saved.hosts[1].planned);
    cr_assert_str_eq(saved.hosts[0].desired, B "system-2");
    cr_assert_str_eq(saved.rev, "abc");
    cr_assert_eq(plan_check_inventory(&saved, &inventory, &error), 0);
    struct status now = {
        .current = A "system-1", .profile = A "system-1", .booted = "", .generation = 3};
    cr_assert_eq(plan_check_host(&saved.hosts[0], &now, &error), 0);
    now.generation = 4;
    cr_assert_eq(plan_check_host(&saved.hosts[0], &now, &error), FLEET_ERR_STALE);
    now.generation = 3;
    now.current = B "system-2";
    cr_assert_eq(plan_check_host(&saved.hosts[0], &now, &error), FLEET_ERR_STALE);
    now.current = A "system-1";
    now.profile = B "system-2";
    cr_assert_eq(plan_check_host(&saved.hosts[0], &now, &error), FLEET_ERR_STALE);
    const struct inventory edited = {
        .path = inventory_path, .name = "demo", .text = "{ }", .text_len = 3};
    cr_assert_eq(plan_check_inventory(&saved, &edited, &error), FLEET_ERR_STALE);
    plan_saved_free(&saved);
    hosts[0].source = BUILD_SOURCE_REMOTE;
    cr_assert_eq(plan_save(file, &about, hosts, 2, &error), FLEET_ERR_USAGE);
    write_text(folder, "plan.json",
               "{\"fleet_plan\": 1, \"hosts\": [{\"host\": \"h1\", "
               "\"planned\": true, \"desired\": \"/etc\"}]}");
    cr_assert_eq(plan_load(file, &saved, &error), FLEET_ERR_USAGE);
    write_text(folder, "plan.json", "[1, 2");
    cr_assert_eq(plan_load(file, &saved, &error), FLEET_ERR_USAGE);
    plan_host_free(&hosts[0]);
    plan_host_free(&hosts[1]);
    unlink(file);
    cr_assert_eq(plan_load(file, &saved, &error), FLEET_ERR_USAGE);
    cr_assert_not_null(strstr(error.message, "plan.json can't be opened"), "%s", error.message);
    rmdir(folder);
}
