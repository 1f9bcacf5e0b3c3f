#include "rollout_script.h"

#include <stdio.h>

#include "core/base/xalloc.h"

struct fixture *f;
struct rollout *r;
uint64_t now_ms;

void with_hosts(size_t hosts) {
    f = fixture_new(hosts);
    now_ms = 1000;
}

void free_rollout(void) {
    rollout_free(r);
    r = NULL;
    if (f != NULL) {
        fixture_free(f);
        f = NULL;
    }
}

void say_decision(const struct rollout_decision *decision, struct buf *out) {
    static const char *const kinds[] = {
        [ROLLOUT_GRANT] = "",          [ROLLOUT_LEAVE] = "leave",
        [ROLLOUT_TAKE_BACK] = "back",  [ROLLOUT_SKIP] = "skip",
        [ROLLOUT_WAVE_START] = "wave", [ROLLOUT_BAKE] = "bake",
        [ROLLOUT_REPROBE] = "reprobe", [ROLLOUT_WAVE_END] = "end-wave",
        [ROLLOUT_PAUSE] = "pause",     [ROLLOUT_STOP] = "stop",
        [ROLLOUT_END] = "end",         [ROLLOUT_RETRY] = "retry",
    };
    if (out->len > 0) {
        buf_add_text(out, "; ");
    }
    buf_add_text(out,
                 decision->kind == ROLLOUT_GRANT ? act_name(decision->act) : kinds[decision->kind]);
    if (decision->kind == ROLLOUT_WAVE_START || decision->kind == ROLLOUT_WAVE_END) {
        buf_printf(out, " %zu", decision->wave);
    } else if (decision->kind <= ROLLOUT_SKIP || decision->kind == ROLLOUT_REPROBE ||
               decision->kind == ROLLOUT_RETRY) {
        buf_printf(out, " h%zu", decision->host);
    }
    if (decision->reason != NULL && decision->kind != ROLLOUT_TAKE_BACK) {
        buf_printf(out, " %s", decision->reason);
    }
}

void start_rollout(void) {
    r = fixture_rollout(f);
    rollout_start(r, now_ms);
}

void moved(size_t host, enum host_state state) {
    rollout_moved(r, host, state, NULL, ++now_ms);
}

void failed(size_t host, enum host_state state, const char *reason) {
    rollout_moved(r, host, state, reason, ++now_ms);
}

void wants(size_t host, enum act act) {
    rollout_wants(r, host, act, ++now_ms);
}

void control(enum rollout_control what, size_t host) {
    rollout_control(r, what, host, ++now_ms);
}

void answer(size_t host) {
    moved(host, HOST_CONNECTING);
    moved(host, HOST_BUILDING);
}

void stage(size_t host) {
    moved(host, HOST_STAGED);
    wants(host, ACT_ACTIVATE);
}

void stage_all(void) {
    for (size_t i = 0; i < f->count; i++) {
        answer(i);
    }
    for (size_t i = 0; i < f->count; i++) {
        stage(i);
    }
}

void probe(size_t host) {
    moved(host, HOST_ACTIVATING);
    moved(host, HOST_CONFIRMING);
    moved(host, HOST_PROBING);
}

void commit(size_t host) {
    wants(host, ACT_COMMIT);
    struct rollout_decision decision;
    cr_assert(rollout_next(r, &decision) && decision.act == ACT_COMMIT && decision.host == host);
    moved(host, HOST_COMMITTING);
    moved(host, HOST_HEALTHY);
}

void go_well(size_t host) {
    probe(host);
    commit(host);
}

void go_back(size_t host) {
    probe(host);
    wants(host, ACT_ROLLBACK);
    struct rollout_decision decision;
    cr_assert(rollout_next(r, &decision) && decision.act == ACT_ROLLBACK);
    moved(host, HOST_ROLLING_BACK);
    failed(host, HOST_ROLLED_BACK, "probe-failed");
}

void end_back(size_t host) {
    moved(host, HOST_ROLLING_BACK);
    failed(host, HOST_ROLLED_BACK, "taken-back");
}

void skip_all(void) {
    for (size_t i = 0; i < f->count; i++) {
        if (rollout_count(r, HOST_SKIPPED) < f->count) {
            failed(i, HOST_SKIPPED, "budget");
        }
    }
}

const char *waves_text(void) {
    static char text[256];
    size_t len = 0;
    for (size_t i = 0; i < f->count; i++) {
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%zu", rollout_wave_of(r, i));
    }
    return text;
}
