/* Lists, and the judgement of one host (see plan.h). */
#include "core/plan.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"

/* What a new menu entry takes on /boot besides kernel and initrd. */
#define BOOT_ENTRY_BYTES 16384u

void plan_list_add(struct plan_list *list, const char *item) {
    /* Doubles at powers of two. */
    if ((list->count & (list->count - 1)) == 0) {
        size_t room = list->count == 0 ? 1 : list->count * 2;
        list->items = xrealloc(list->items, room * sizeof(*list->items));
    }
    list->items[list->count++] = xstrdup(item);
}

static int by_text(const void *a, const void *b) {
    const char *const *left = a;
    const char *const *right = b;
    return strcmp(*left, *right);
}

void plan_list_settle(struct plan_list *list) {
    if (list->count < 2) {
        return;
    }
    qsort(list->items, list->count, sizeof(*list->items), by_text);
    size_t kept = 1;
    for (size_t i = 1; i < list->count; i++) {
        if (strcmp(list->items[i], list->items[kept - 1]) == 0) {
            free(list->items[i]);
        } else {
            list->items[kept++] = list->items[i];
        }
    }
    /* plan_list_add counts on the room that goes with the number. */
    size_t room = 1;
    while (room < kept) {
        room *= 2;
    }
    list->items = xrealloc(list->items, room * sizeof(*list->items));
    list->count = kept;
}

bool plan_list_has(const struct plan_list *list, const char *item) {
    return list->count > 0 &&
           bsearch(&item, list->items, list->count, sizeof(*list->items), by_text) != NULL;
}

void plan_list_free(struct plan_list *list) {
    for (size_t i = 0; i < list->count; i++) {
        free(list->items[i]);
    }
    free(list->items);
    *list = (struct plan_list){0};
}

static bool same(const char *a, const char *b) {
    return strcmp(a != NULL ? a : "", b != NULL ? b : "") == 0;
}

/* What the running kernel came with is compared, not what the running system would boot. */
static bool needs_reboot(const struct plan_host *host) {
    const struct plan_system *booted = &host->running_kernel;
    const struct plan_system *to = &host->to;
    if (booted->kernel == NULL && booted->initrd == NULL) {
        return false;
    }
    return (to->kernel != NULL || to->initrd != NULL) &&
           (!same(booted->kernel, to->kernel) || !same(booted->initrd, to->initrd) ||
            !same(booted->modules, to->modules) || !same(booted->init_abi, to->init_abi));
}

/* Kernels and initrds that the running or the booted system has are on /boot already. */
static bool lacks_boot_room(const struct plan_host *host) {
    if (host->free_boot < 0) {
        return false;
    }
    const struct plan_system *to = &host->to;
    const struct plan_system *there[] = {&host->from, &host->running_kernel};
    uint64_t need = to->boot_bytes;
    for (size_t i = 0; i < ARRAY_LEN(there); i++) {
        if (same(there[i]->kernel, to->kernel) && same(there[i]->initrd, to->initrd)) {
            need = 0;
        }
    }
    return (uint64_t)host->free_boot < need + BOOT_ENTRY_BYTES;
}

void plan_host_judge(struct plan_host *host) {
    if (!host->reached || host->error.code != 0 || host->desired == NULL) {
        return;
    }
    host->judged = true;
    host->change = !same(host->current, host->desired) || !same(host->profile, host->desired);
    host->reboot = host->change ? needs_reboot(host) : host->reboot_due;
    if (!host->change) {
        host->units.known = true;
        return;
    }
    host->boot_full = lacks_boot_room(host);
    if (host->closure_from.known && host->closure_to.known) {
        plan_packages_compare(&host->closure_from.paths, &host->closure_to.paths, &host->packages);
    }
    plan_units_compare(&host->from, &host->to, host->has_systemd ? &host->active : NULL,
                       &host->units);
}

void plan_host_free(struct plan_host *host) {
    free(host->asking);
    free(host->desired);
    free(host->current);
    free(host->booted);
    free(host->profile);
    plan_system_free(&host->from);
    plan_system_free(&host->to);
    plan_system_free(&host->running_kernel);
    plan_list_free(&host->closure_from.paths);
    plan_list_free(&host->closure_to.paths);
    plan_list_free(&host->active);
    plan_packages_free(&host->packages);
    plan_units_free(&host->units);
    *host = (struct plan_host){0};
}
