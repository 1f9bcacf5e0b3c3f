/* Reboots: the whole of `fleet reboot`, and the end of an update whose policy asks for one.
 *
 * Proof is a boot id that differs from the one before, told over a new connection; then the probes
 * run again, over time, and the host's own word ends it. A reboot is not taken back: what runs
 * afterwards is the boot default, which was proven before or chosen by a person.
 */
#include "core/host_internal.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"

#define BOOT_RETRY_MS 1000u

bool host_reboot_is_due(const struct host *host, const struct target_reply *reply) {
    bool of_update =
        host->plan.run->action == ACTION_SWITCH || host->plan.run->action == ACTION_ROLLBACK;
    /* Our own machine is rebooted by whoever sits at it. */
    if (!of_update || host->going_back || host->booted_anew || host->plan.inv->local) {
        return false;
    }
    switch (host->plan.inv->policy.reboot) {
    case INV_REBOOT_NEVER:
        break;
    case INV_REBOOT_IF_NEEDED:
        return host_says(reply, "reboot_needed", "yes");
    case INV_REBOOT_ALWAYS:
        return true;
    }
    return false;
}

enum step_result host_begin_reboot(struct host *host) {
    if (host->profile == NULL || host->profile[0] == '\0') {
        return host_failf(host, FLEET_ERR_REMOTE, "no-profile",
                          "%s leads to no system there, so nobody knows what it would boot; it was "
                          "not rebooted",
                          host->plan.inv->profile);
    }
    host_set_string(&host->desired, host->profile);
    bool look = host->plan.inv->policy.tolerate_preexisting && host->plan.inv->health_count > 0;
    return host_go(host, look ? STEP_LOOK : STEP_AWAIT_COPY);
}

static enum step_result not_without_secrets(struct host *host) {
    error_wrap(&host->error, "not rebooted");
    return STEP_FAILED;
}

enum step_result step_await_reboot(struct host *host) {
    host_health_stop(host);
    if (host->plan.run->action == ACTION_REBOOT && host->state != HOST_STAGED) {
        host_publish(host, HOST_STAGED, "", "ready for its reboot");
    }
    if (!host_granted(host, ACT_REBOOT)) {
        return STEP_AGAIN;
    }
    /* /run comes up empty: what can't be put there again would be missing. */
    int ready = host_secrets_ready(host);
    if (ready <= 0) {
        return ready < 0 ? not_without_secrets(host) : STEP_AGAIN;
    }
    return host_go(host, host->locked ? STEP_REBOOT : STEP_LOCK);
}

/* The driver must not mend the connection here: its loss is what is hoped for. Whoever answers next
 * is looked at by step_boot. */
enum step_result step_reboot(struct host *host) {
    if (host->link.state != LINK_UP && !host->op_done) {
        return host_go(host, STEP_BOOT);
    }
    if (host_op_begin(host)) {
        struct target_env env = host_target_env(host);
        host->reboot_asked = false;
        target_inspect(host->link.shell, &env, NULL, host_on_reply, host);
        return STEP_AGAIN;
    }
    if (!host->op_done) {
        return STEP_AGAIN;
    }
    if (host->op_err == FLEET_ERR_LOST || host->op_err == FLEET_ERR_TIMEOUT) {
        return host_go(host, STEP_BOOT);
    }
    if (host->op_err != 0) {
        return host_fail(host, &host->op_error);
    }
    if (host->reboot_asked) {
        return host_go(host, STEP_BOOT);
    }
    const char *boot_id = target_reply_get(host->reply, "boot_id");
    if (host->boot_id == NULL || host->boot_id[0] == '\0' || boot_id == NULL) {
        return host_failf(host, FLEET_ERR_REMOTE, "no-boot-id",
                          "the host tells no boot id, so a reboot could not be proven; it was not "
                          "rebooted");
    }
    if (!host_same(boot_id, host->boot_id)) {
        return host_go(host, STEP_BOOT);
    }
    host->reboot_asked = true;
    host->op_done = false;
    target_reboot(host->link.shell, host_on_reply, host);
    return STEP_AGAIN;
}

/* True when the new connection has told a new boot id. */
static bool is_back(struct host *host) {
    const char *boot_id =
        host->op_err == 0 && host->reply != NULL ? target_reply_get(host->reply, "boot_id") : NULL;
    if (boot_id == NULL || boot_id[0] == '\0' || host_same(boot_id, host->boot_id)) {
        return false;
    }
    host_set_string(&host->boot_id, boot_id);
    host_set_string(&host->booted, target_reply_get(host->reply, "booted"));
    return true;
}

static enum step_result try_later(struct host *host) {
    if (host_now(host) < host->boot_until_ms) {
        host_pause(host, BOOT_RETRY_MS);
        return STEP_AGAIN;
    }
    error_set(&host->verdict, FLEET_ERR_TIMEOUT, "not-back", "%s within %llu s (activate_timeout)",
              host->reboot_asked ? "it was rebooted and did not come back"
                                 : "it could not be reached any more to be rebooted",
              (unsigned long long)(host->plan.inv->policy.activate_timeout_ms / 1000));
    host_set_end(host, HOST_UNKNOWN, "%.300s: %.500s", host->verdict.message,
                 host->fresh.error.code != 0 ? host->fresh.error.message
                                             : "it answers, and is still the boot from before");
    return host_go(host, STEP_END);
}

/* Knocks until somebody answers who has booted anew. */
enum step_result step_boot(struct host *host) {
    if (host->pausing) {
        return STEP_AGAIN;
    }
    if (!host->booting) {
        host->booting = true;
        if (host->boot_until_ms == 0) {
            host->boot_until_ms = host_now(host) + host->plan.inv->policy.activate_timeout_ms;
        }
        host_health_stop(host);
        link_close(&host->link);
    }
    if (host->op_started && !host->op_done) {
        return STEP_AGAIN;
    }
    if (host->op_started) {
        host->op_started = false;
        if (is_back(host)) {
            link_take_fresh(host);
            host->booting = false;
            host->booted_anew = true;
            host->unguarded = true;
            return host_go(host, host_has_secrets(host, SECRETS_BOOT) ? STEP_SECRETS_BOOT
                                                                      : STEP_PROBE_BOOT);
        }
        if (host->op_err == 0 && !host->reboot_asked) {
            link_take_fresh(host); /* the connection broke before the host was told */
            host->booting = false;
            return host_go(host, STEP_REBOOT);
        }
        link_close(&host->fresh);
        return try_later(host);
    }
    if (host->fresh.failed) {
        host->fresh.failed = false;
        return try_later(host);
    }
    if (host->fresh.state == LINK_DOWN || host->fresh.state == LINK_WAITING) {
        link_open(&host->fresh);
        return STEP_AGAIN;
    }
    if (host->fresh.state == LINK_UP && host_op_begin(host)) {
        struct target_env env = host_target_env(host);
        target_inspect(host->fresh.shell, &env, NULL, host_on_reply, host);
    }
    return STEP_AGAIN;
}

enum step_result step_probe_boot(struct host *host) {
    enum step_result result = step_probe(host);
    if (result == STEP_FAILED) {
        error_wrap(&host->error, "after the reboot");
    }
    return result;
}

/* The boot default is the profile's system: whoever boots into anything else has fallen back. */
enum step_result step_verify_boot(struct host *host) {
    if (host_op_begin(host)) {
        struct target_env env = host_target_env(host);
        target_inspect(host->link.shell, &env, NULL, host_on_reply, host);
        return STEP_AGAIN;
    }
    if (!host->op_done) {
        return STEP_AGAIN;
    }
    if (host->op_err != 0) {
        return host_fail(host, &host->op_error);
    }
    const char *current = target_reply_get(host->reply, "current");
    const char *profile = target_reply_get(host->reply, "profile");
    if (!host_same(current, host->desired) || !host_same(profile, host->desired)) {
        return host_failf(host, FLEET_ERR_REMOTE, "booted-another",
                          "it was rebooted and runs %s with the profile %s, where both should be "
                          "%s: look at its boot menu",
                          current != NULL ? current : "?", profile != NULL ? profile : "?",
                          host->desired);
    }
    host_set_string(&host->current, current);
    host->generation = target_reply_number(host->reply, "generation", host->generation);
    host_set_end(host, HOST_HEALTHY, "%s", "rebooted");
    return host_go(host, STEP_END);
}
