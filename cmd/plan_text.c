/* A plan as text for people (see plan_text.h). */
#include "cmd/plan_text.h"

#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"

#define LIST_SHOWN   12u
#define NAME_COL_MAX 24
#define STORE_LEN    (sizeof("/nix/store/") - 1)
#define HASH_LEN     32u
#define HASH_SHOWN   7u

struct text {
    struct buf *out;
    int verbosity;
    int width;
};

/* "/nix/store/3k7...-nixos-system-db1-24.05" as "3k7xjq1 nixos-system-db1-24.05". */
static void add_system(struct buf *out, const char *path) {
    if (path == NULL || strlen(path) < STORE_LEN + HASH_LEN + 2) {
        buf_add_text(out, path != NULL && path[0] != '\0' ? path : "no system");
        return;
    }
    buf_add(out, path + STORE_LEN, HASH_SHOWN);
    buf_add_char(out, ' ');
    buf_add_text(out, path + STORE_LEN + HASH_LEN + 1);
}

static void add_label(struct text *text, const char *label) {
    buf_printf(text->out, "%*s  %-9s ", text->width, "", label);
}

/* How many of `count` are shown. */
static size_t shown(const struct text *text, size_t count) {
    return text->verbosity > 0 || count <= LIST_SHOWN ? count : LIST_SHOWN;
}

static void end_list(struct text *text, size_t count) {
    if (shown(text, count) < count) {
        buf_printf(text->out, " and %zu more (-v shows all)", count - shown(text, count));
    }
    buf_add_char(text->out, '\n');
}

static void add_list(struct text *text, const char *label, const struct plan_list *list) {
    if (list->count == 0) {
        return;
    }
    add_label(text, label);
    for (size_t i = 0; i < shown(text, list->count); i++) {
        buf_printf(text->out, "%s%s", i > 0 ? ", " : "", list->items[i]);
    }
    end_list(text, list->count);
}

static void add_changed(struct text *text, const struct plan_packages *packages) {
    if (packages->changed_count == 0) {
        return;
    }
    add_label(text, "changed");
    for (size_t i = 0; i < shown(text, packages->changed_count); i++) {
        const struct plan_change *change = &packages->changed[i];
        buf_printf(text->out, "%s%s %s -> %s", i > 0 ? ", " : "", change->name, change->from,
                   change->to);
    }
    end_list(text, packages->changed_count);
}

static void add_closure(struct text *text, const struct plan_host *host) {
    if (!host->closure_from.known || !host->closure_to.known) {
        add_label(text, "packages");
        buf_printf(text->out, "unknown: the %s system's closure could not be read\n",
                   host->closure_from.known ? "new" : "running");
        return;
    }
    uint64_t from = host->closure_from.bytes;
    uint64_t to = host->closure_to.bytes;
    add_label(text, "closure");
    text_add_bytes(text->out, from);
    buf_add_text(text->out, " -> ");
    text_add_bytes(text->out, to);
    buf_add_text(text->out, to >= from ? " (+" : " (-");
    text_add_bytes(text->out, to >= from ? to - from : from - to);
    buf_add_text(text->out, ")\n");
}

static void add_change(struct text *text, const struct plan_host *host) {
    struct buf *out = text->out;
    add_system(out, host->current);
    buf_add_text(out, " -> ");
    add_system(out, host->desired);
    buf_add_char(out, '\n');
    add_closure(text, host);
    add_changed(text, &host->packages);
    add_list(text, "added", &host->packages.added);
    add_list(text, "removed", &host->packages.removed);
    if (!host->units.known) {
        add_label(text, "units");
        buf_add_text(out, "unknown: the units of both systems could not be read\n");
    }
    for (enum plan_unit_act act = 0; act < PLAN_UNIT_ACTS; act++) {
        add_list(text, plan_unit_act_name(act), &host->units.acts[act]);
    }
    if (host->boot_full) {
        add_label(text, "/boot");
        buf_add_text(out, "too full: ");
        text_add_bytes(out, (unsigned long long)host->free_boot);
        buf_add_text(out, " are free; the commit would fail and be taken back\n");
    }
}

static void add_host(struct text *text, const struct plan_host *host) {
    struct buf *out = text->out;
    const struct error *error = host->build_error.code != 0 ? &host->build_error : &host->error;
    if (text->verbosity < 0 && error->code == 0) {
        return;
    }
    buf_printf(out, "%-*s  ", text->width, host->inv->name);
    if (error->code != 0) {
        const char *word = host->build_error.code != 0 ? "not built"
                           : host->reached             ? "failed"
                           : host->inv->optional       ? "offline"
                                                       : "unreachable";
        buf_printf(out, "%s: %s\n", word, error->message);
    } else if (!host->change) {
        buf_add_text(out, "unchanged: ");
        add_system(out, host->current);
        buf_add_char(out, '\n');
    } else {
        add_change(text, host);
    }
    if (host->reboot) {
        add_label(text, "reboot");
        buf_add_text(out, host->change ? "due afterwards: kernel, initrd or init change\n"
                                       : "due: it booted another kernel than its system has\n");
    }
    for (enum drift drift = 0; drift < DRIFT_COUNT; drift++) {
        if (host->drift[drift]) {
            add_label(text, "drift");
            buf_printf(out, "%s\n", drift_words(drift));
        }
    }
}

static void add_sum(const struct plan_host *hosts, size_t count, struct buf *out) {
    size_t changes = 0;
    size_t unchanged = 0;
    size_t unknown = 0;
    size_t reboots = 0;
    for (size_t i = 0; i < count; i++) {
        changes += hosts[i].judged && hosts[i].change ? 1 : 0;
        unchanged += hosts[i].judged && !hosts[i].change ? 1 : 0;
        unknown += hosts[i].judged ? 0 : 1;
        reboots += hosts[i].judged && hosts[i].reboot ? 1 : 0;
    }
    buf_printf(out, "%zu of %zu hosts would change, %zu would not", changes, count, unchanged);
    if (unknown > 0) {
        buf_printf(out, ", for %zu there is no plan", unknown);
    }
    if (reboots > 0) {
        buf_printf(out, "; %zu need a reboot", reboots);
    }
    buf_add_text(out, "; nothing was touched\n");
}

void plan_text(const struct plan_host *hosts, size_t count, int verbosity, struct buf *out) {
    struct text text = {.out = out, .verbosity = verbosity};
    for (size_t i = 0; i < count; i++) {
        int width = (int)strnlen(hosts[i].inv->name, NAME_COL_MAX);
        text.width = width > text.width ? width : text.width;
    }
    for (size_t i = 0; i < count; i++) {
        add_host(&text, &hosts[i]);
    }
    add_sum(hosts, count, out);
}
