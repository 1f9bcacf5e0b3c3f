/* A plan: what an update would do to each host, and to which state of the hosts it belongs.
 *
 * Pure data and comparisons: nothing here speaks to a host or runs a program (core/plan_ask.h,
 * core/plan_closure.h do). Everything that came from a host has been cleaned before it gets here.
 * All lists are sorted and hold each name once.
 */
#ifndef FLEET_CORE_PLAN_H
#define FLEET_CORE_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/build.h"
#include "core/state.h"
#include "core/status.h"
#include "inventory/inventory.h"

/* A growing list of its own strings; zero-initialised is valid. */
struct plan_list {
    char **items;
    size_t count;
};
void plan_list_add(struct plan_list *list, const char *item);
/* Sorts it by bytes and drops what stands in it twice. */
void plan_list_settle(struct plan_list *list);
/* Only for a settled list. */
bool plan_list_has(const struct plan_list *list, const char *item);
void plan_list_free(struct plan_list *list);

/* ---- packages ---- */

struct plan_change {
    char *name;
    char *from, *to; /* versions; several are joined by ", " */
};

struct plan_packages {
    struct plan_list added, removed; /* "openssl-3.0.13" */
    struct plan_change *changed;
    size_t changed_count;
};

/* Splits the name of a store path into package and version, as Nix does (the version begins at the
 * first dash that no letter follows); an output's name ("-bin", "-dev") behind the version is left
 * out. False where there is no version, or it is no store path. The strings are new. */
bool plan_package_parse(const char *path, char **ret_name, char **ret_version);
/* Compares two closures' store paths. */
void plan_packages_compare(const struct plan_list *from, const struct plan_list *to,
                           struct plan_packages *ret);
/* {"added":[..],"removed":[..],"changed":[{"name","from","to"}]}, at most `max` in each list, and
 * "more" where any are left out. The caller frees. */
char *plan_packages_json(const struct plan_packages *packages, size_t max);
void plan_packages_free(struct plan_packages *packages);

/* ---- systems: units and kernel ---- */

#define PLAN_HASH_SIZE 65

/* A unit's file, or a drop-in ("web.service.d/overrides.conf"). */
struct plan_unit {
    char *name;
    char hash[PLAN_HASH_SIZE]; /* SHA-256 of its text */
    bool keep_on_removal;      /* X-StopOnRemoval=false */
    bool reload;               /* X-ReloadIfChanged=true */
    bool leave;                /* X-RestartIfChanged=false, RefuseManualStop, X-OnlyManualStart */
};

/* What `etc/systemd/system` and the kernel's links of a system hold. */
struct plan_system {
    bool units_known;
    struct plan_unit *units; /* by name, once settled */
    size_t unit_count;
    struct plan_list wants;                     /* "multi-user.target.wants/web.service" */
    char *kernel, *initrd, *modules, *init_abi; /* what the links lead to; NULL: no such link */
    uint64_t boot_bytes;                        /* of kernel and initrd, where known */
};
struct plan_unit *plan_system_add_unit(struct plan_system *system, const char *name,
                                       const char *hash);
/* A line "X-ReloadIfChanged=true" of a unit's file. */
void plan_unit_flag(struct plan_unit *unit, const char *line);
/* After the last unit: sorts. */
void plan_system_settle(struct plan_system *system);
struct plan_unit *plan_system_unit(const struct plan_system *system, const char *name);
/* Reads a system in this machine's own store. What is missing there stays unknown. */
void plan_system_read(const char *path, struct plan_system *ret);
void plan_system_free(struct plan_system *system);

enum plan_unit_act {
    PLAN_STOP,
    PLAN_START,
    PLAN_RESTART, /* stopped and started again, in one step or two */
    PLAN_RELOAD,
    PLAN_UNIT_ACTS
};
/* "stop" */
const char *plan_unit_act_name(enum plan_unit_act act);

struct plan_units {
    bool known; /* the units of both systems could be read */
    struct plan_list acts[PLAN_UNIT_ACTS];
};
/* By switch-to-configuration's rules (NIX-PROTOCOL 9.2). `active` is settled; NULL where nobody
 * knows: then all that the old system's targets want counts as active. */
void plan_units_compare(const struct plan_system *from, const struct plan_system *to,
                        const struct plan_list *active, struct plan_units *ret);
void plan_units_free(struct plan_units *units);

/* ---- a host's plan ---- */

struct plan_closure {
    bool known;
    struct plan_list paths;
    uint64_t bytes; /* NAR sizes */
};

struct plan_host {
    const struct inv_host *inv;
    /* The build; `desired` NULL: it failed, `build_error` says why. */
    char *desired;
    enum build_source source;
    struct error build_error;
    /* What the host said; `reached` false: `error` says why not. With code 0 all was answered. */
    bool reached;
    struct error error;
    char *current, *booted, *profile; /* "" where it has none */
    int64_t generation;               /* 0: the profile is no generation */
    bool drift[DRIFT_COUNT];
    int64_t free_boot; /* bytes; -1: there is no /boot */
    struct plan_system from, to, running_kernel;
    struct plan_closure closure_from, closure_to;
    struct plan_list active;
    bool has_systemd;
    bool reboot_due; /* booted another kernel than its profile has, before any update */
    void *asking;    /* core/plan_ask.c's own, while it asks */
    /* What follows, by plan_host_judge. */
    bool judged;
    bool change;    /* an update would do something */
    bool reboot;    /* kernel, initrd or init differ from the booted ones */
    bool boot_full; /* /boot has no room for what must go there */
    struct plan_packages packages;
    struct plan_units units;
};
/* Compares, once everything is there that can be known. */
void plan_host_judge(struct plan_host *host);
void plan_host_free(struct plan_host *host);

/* ---- a saved plan ---- */

struct plan_saved_host {
    char *name, *current, *profile, *desired;
    int64_t generation;
    bool planned;   /* false: it was not reached or not built, and nothing was planned for it */
    bool on_target; /* its system lies in the host's own store */
};

struct plan_saved {
    char *inventory_hash;
    char *rev;
    char *created;
    bool dirty;
    enum run_action action;
    struct plan_saved_host *hosts;
    size_t host_count;
};

struct plan_about {
    const struct inventory *inventory;
    const char *rev;
    bool dirty;
    enum run_action action;
};

/* One host as the JSON object of CONTRACT, Events ("plan"); the caller frees it. */
char *plan_host_json(const struct plan_host *host);
/* Writes the plan by rename. FLEET_ERR_SYSTEM; FLEET_ERR_USAGE where a system lies on a build host
 * only and the plan could not be carried out. */
int plan_save(const char *file, const struct plan_about *about, const struct plan_host *hosts,
              size_t count, struct error *error);
/* FLEET_ERR_USAGE where the file is no plan of this version. Free with plan_saved_free. */
int plan_load(const char *file, struct plan_saved *ret, struct error *error);
void plan_saved_free(struct plan_saved *saved);
/* FLEET_ERR_STALE unless the inventory is the one that was planned with. */
int plan_check_inventory(const struct plan_saved *saved, const struct inventory *inventory,
                         struct error *error);
/* FLEET_ERR_STALE unless the host is as it was when it was planned. */
int plan_check_host(const struct plan_saved_host *saved, const struct status *now,
                    struct error *error);

#endif
