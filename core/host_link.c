/* A host's connections: opening, losing and opening again.
 *
 * `link` carries everything; `fresh` is the confirmation's own new connection, which then takes
 * the link's place. Reconnecting is patient after the activation (until the guard must have
 * decided, DESIGN step 8) and brief before it.
 */
#include "core/host_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"

#define RECONNECT_BEFORE_MS (60u * 1000u)
#define RECONNECT_AFTER_MS  (30u * 1000u)
#define FIRST_TRIES         3u
#define SHELL_RETRY_MS      2000u

void link_init(struct link *link, struct host *host) {
    *link = (struct link){.host = host, .state = LINK_DOWN};
}

static void end_opening(struct link *link) {
    if (link->state == LINK_OPENING) {
        link->host->env.connect_end(link->host, link->host->env.arg);
    }
}

static void on_ready(const char *address, void *arg) {
    struct tie *tie = arg;
    struct link *link = tie->link;
    struct host *host = tie->host;
    end_opening(link);
    link->state = LINK_UP;
    link->failed = false;
    snprintf(link->address, sizeof(link->address), "%s", address);
    link->shell = shell_open(host->env.loop, link->conn, &host->plan.elevation);
    host->connects++;
    if (link == &host->link) {
        host->link_tries = 0;
        host->link_deadline_ms = 0;
        if (host->health != NULL) {
            health_set_conn(host->health, link->conn);
        }
        host_on_link(host);
    }
    host_drive(host);
}

void link_tell_loss(struct host *host, const struct error *error) {
    char *line = xasprintf("the connection was lost: %.600s; connecting again", error->message);
    host_log(host, "ssh", line, strlen(line));
    free(line);
}

static void on_lost(const struct error *error, void *arg) {
    struct tie *tie = arg;
    struct link *link = tie->link;
    if (link->state == LINK_UP && tie->host->step < STEP_HOLD) {
        link_tell_loss(tie->host, error);
    }
    link->error = *error;
    link->failed = true;
    link_close(link);
    host_drive(tie->host);
}

static void on_closed(void *arg) {
    struct tie *tie = arg;
    struct host *host = tie->host;
    free(tie);
    host->open_handles--;
    host_drive(host);
}

static void on_notice(const char *text, void *arg) {
    struct tie *tie = arg;
    host_log(tie->host, "ssh", text, strlen(text));
}

static void on_person(const char *text, void *arg) {
    struct tie *tie = arg;
    host_log(tie->host, "agent", text, strlen(text));
}

void link_open(struct link *link) {
    struct host *host = link->host;
    if (!host->env.connect_begin(host, host->env.arg)) {
        link->state = LINK_WAITING;
        return;
    }
    static const struct conn_handlers handlers = {.on_ready = on_ready,
                                                  .on_lost = on_lost,
                                                  .on_closed = on_closed,
                                                  .on_notice = on_notice,
                                                  .on_person = on_person};
    link->state = LINK_OPENING;
    link->failed = false;
    host->open_handles++;
    link->tie = xmalloc(sizeof(*link->tie));
    *link->tie = (struct tie){.host = host, .link = link};
    link->conn = transport_open(host->env.transport, host->plan.spec, &handlers, link->tie);
}

void link_close(struct link *link) {
    struct host *host = link->host;
    end_opening(link);
    if (link == &host->link) {
        host->losses++;
        if (host->health != NULL) {
            health_set_conn(host->health, NULL);
        }
        if (host->probe_shell != NULL) {
            shell_close(host->probe_shell);
            host->probe_shell = NULL;
        }
        host_copy_drop(host);
        closure_pair_close(host->pair);
        host->pair = NULL;
        host_asks_drop(host);
        host->renewing = false;
        if (host_steps[host->step].needs_link) {
            host->op_started = false;
            host->op_done = false;
            /* What the step was waiting for can wait: the next connection can't. */
            uv_timer_stop(&host->pause);
            host->pausing = false;
        }
    }
    if (link->shell != NULL) {
        shell_close(link->shell);
        link->shell = NULL;
    }
    if (link->conn != NULL) {
        struct conn *conn = link->conn;
        link->conn = NULL;
        link->tie->link = NULL;
        link->tie = NULL;
        conn_close(conn);
    }
    link->state = LINK_DOWN;
}

void link_take_fresh(struct host *host) {
    link_close(&host->link);
    host->link = host->fresh;
    host->link.tie->link = &host->link;
    host->link.failed = false;
    host->link_tries = 0;
    host->link_deadline_ms = 0;
    link_init(&host->fresh, host);
}

/* When to stop trying to reach a host that was reached before. */
static uint64_t reconnect_until(const struct host *host) {
    uint64_t now = host_now(host);
    if (host->guard_deadline_ms == 0) {
        return now + RECONNECT_BEFORE_MS;
    }
    uint64_t guard = host->guard_deadline_ms > now ? host->guard_deadline_ms : now;
    return guard + host->plan.inv->policy.activate_timeout_ms + RECONNECT_AFTER_MS;
}

bool link_shell_again(struct host *host) {
    if (host->guard_deadline_ms == 0 || host->link.shell == NULL ||
        !shell_has_ended(host->link.shell)) {
        return false;
    }
    uint64_t now = host_now(host);
    if (host->shell_until_ms == 0) {
        host->shell_until_ms = reconnect_until(host);
    } else if (now >= host->shell_until_ms) {
        return false;
    }
    host->link.error = host->op_error;
    link_tell_loss(host, &host->op_error);
    link_close(&host->link);
    host_pause(host, SHELL_RETRY_MS);
    return true;
}

/* After a failed first try: again only where the host dropped us in the middle (sshd's
 * MaxStartups does that at random); a refusal is an answer. */
static bool first_try_again(const struct host *host) {
    return host->link.error.code == FLEET_ERR_LOST && host->link_tries < FIRST_TRIES;
}

static int give_up(struct host *host) {
    struct error error = host->link.error;
    if (host->connects > 0) {
        error_set(&error, FLEET_ERR_LOST, "connection-lost",
                  "the connection was lost and the host could not be reached again: %.700s",
                  host->link.error.message);
    }
    host_fail(host, &error);
    return -1;
}

int link_ensure(struct host *host) {
    struct link *link = &host->link;
    if (link->state == LINK_UP) {
        return 1;
    }
    if (link->state == LINK_OPENING || host->pausing) {
        return 0;
    }
    if (link->failed) {
        if (host->connects == 0 && !host->plan.resume.ask) {
            if (!first_try_again(host)) {
                return give_up(host);
            }
        } else if (host->link_deadline_ms == 0) {
            host->link_deadline_ms = reconnect_until(host);
        } else if (host_now(host) >= host->link_deadline_ms) {
            return give_up(host);
        }
        link->failed = false;
        host->link_tries++;
        host_pause(host, host->link_tries < 2 ? 500 : 1000);
        return 0;
    }
    link_open(link);
    return 0;
}
