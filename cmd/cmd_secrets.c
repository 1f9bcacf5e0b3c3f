/* `fleet secrets push` and `fleet secrets check`: the inventory's secrets on the selected hosts.
 *
 * All secrets are read first, so that one that can't be read touches no host. `check` changes
 * nothing: the host tells the hashes of what it has. `push` works under the host's lock, writes
 * only what is missing or differs, then restarts the units of what it wrote.
 */
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/host_task.h"
#include "cmd/json_line.h"
#include "core/base/clock.h"
#include "core/base/xalloc.h"
#include "core/journal.h"
#include "core/secrets.h"

#define TASK_TIMEOUT_MS    600000u
#define RESTART_TIMEOUT_MS 90000u
#define LEASE_MS           TASK_TIMEOUT_MS

struct pushing;

struct secret_host {
    struct pushing *pushing;
    struct fan_host *host;
    struct secret *secrets;    /* one each of the inventory's */
    enum secret_state *states; /* as they were found */
    bool looked, locked;
    size_t next;        /* the secret that is being put, then whose units are being restarted */
    bool *written;      /* one each */
    struct error error; /* the verdict while the lock is let go */
};

struct pushing {
    struct context *context;
    bool push;
    char id[RUN_ID_SIZE];
    char *who;
    struct secret_host *hosts; /* one a host */
    struct host_tally tally;
    size_t held, not_current;
};

/* ---- one host ---- */

static const struct inv_host *inv_of(const struct secret_host *host) {
    return host->host->inv;
}

static void on_released(int err, const struct target_reply *reply, const struct error *error,
                        void *arg) {
    struct secret_host *host = arg;
    (void)reply;
    if (err != 0 && host->error.code == 0) {
        host->error = *error;
    }
    fan_done(host->host, host->error.code != 0 ? &host->error : NULL);
}

static void finish(struct secret_host *host, const struct error *error) {
    if (error != NULL) {
        host->error = *error;
    }
    if (!host->locked) {
        fan_done(host->host, error);
        return;
    }
    host->locked = false;
    target_lock_release(host->host->shell, host->pushing->id, on_released, host);
}

static void restart_next(struct secret_host *host);

static void on_restarted(int err, const struct target_reply *reply, const struct error *error,
                         void *arg) {
    struct secret_host *host = arg;
    struct error failed = ERROR_INIT;
    if (err == 0 && target_reply_number(reply, "rc", -1) != 0) {
        const char *words = target_reply_get(reply, "out");
        err = error_set(&failed, FLEET_ERR_REMOTE, "restart-failed",
                        "the secret \"%s\" is in its place, but restarting its units failed: %s",
                        inv_of(host)->secrets[host->next - 1].name, words != NULL ? words : "");
        error = &failed;
    }
    if (err != 0) {
        finish(host, error);
        return;
    }
    restart_next(host);
}

/* Units that run are restarted; those that don't will read the secret when they start. */
static void restart_next(struct secret_host *host) {
    while (host->next < inv_of(host)->secret_count) {
        const struct inv_secret *what = &inv_of(host)->secrets[host->next++];
        if (!host->written[host->next - 1] || what->restart.count == 0) {
            continue;
        }
        AUTO_FREE const char **argv = xcalloc(what->restart.count + 3, sizeof(*argv));
        argv[0] = "systemctl";
        argv[1] = "try-restart";
        argv[2] = "--";
        for (size_t i = 0; i < what->restart.count; i++) {
            argv[i + 3] = what->restart.items[i];
        }
        target_run(host->host->shell, argv, what->restart.count + 3, RESTART_TIMEOUT_MS,
                   on_restarted, host);
        return;
    }
    finish(host, NULL);
}

static void put_next(struct secret_host *host);

static void on_put(int err, const struct target_reply *reply, const struct error *error,
                   void *arg) {
    struct secret_host *host = arg;
    (void)reply;
    if (err != 0) {
        struct error failed = *error;
        error_wrap(&failed, "the secret \"%s\"", inv_of(host)->secrets[host->next].name);
        finish(host, &failed);
        return;
    }
    host->written[host->next++] = true;
    put_next(host);
}

static void put_next(struct secret_host *host) {
    while (host->next < inv_of(host)->secret_count && host->states[host->next] == SECRET_CURRENT) {
        host->next++;
    }
    if (host->next < inv_of(host)->secret_count) {
        secret_put(host->host->shell, &inv_of(host)->secrets[host->next],
                   &host->secrets[host->next], on_put, host);
        return;
    }
    host->next = 0;
    restart_next(host);
}

static void on_looked(int err, const struct target_reply *reply, const struct error *error,
                      void *arg) {
    struct secret_host *host = arg;
    if (err != 0) {
        finish(host, error);
        return;
    }
    host->looked = true;
    for (size_t i = 0; i < inv_of(host)->secret_count; i++) {
        host->states[i] = secret_judge(reply, &inv_of(host)->secrets[i], &host->secrets[i]);
    }
    if (host->pushing->push) {
        put_next(host);
    } else {
        finish(host, NULL);
    }
}

static const char *said(const struct target_reply *reply, const char *key) {
    const char *value = target_reply_get(reply, key);
    return value != NULL ? value : "?";
}

static void on_locked(int err, const struct target_reply *reply, const struct error *error,
                      void *arg) {
    struct secret_host *host = arg;
    if (err != 0) {
        finish(host, error);
        return;
    }
    if (strcmp(said(reply, "lock"), "ok") != 0) {
        struct error held;
        error_set(&held, FLEET_ERR_LOCKED, "locked",
                  "held by %s since %s (run %s): wait for it, or if it is dead: fleet unlock %s "
                  "--id %s",
                  said(reply, "lock_who"), said(reply, "lock_since"), said(reply, "lock_run"),
                  inv_of(host)->name, said(reply, "lock_id"));
        host->pushing->held++;
        finish(host, &held);
        return;
    }
    host->locked = true;
    secret_look(host->host->shell, inv_of(host), on_looked, host);
}

static void begin(struct fan_host *fan_host, void *arg) {
    struct pushing *pushing = arg;
    struct secret_host *host = &pushing->hosts[fan_host->index];
    host->host = fan_host;
    if (!pushing->push) {
        secret_look(fan_host->shell, fan_host->inv, on_looked, host);
        return;
    }
    struct target_lock lock = {
        .id = pushing->id, .run = pushing->id, .who = pushing->who, .lease_ms = LEASE_MS};
    target_lock_take(fan_host->shell, &lock, on_locked, host);
}

/* ---- results ---- */

static void print_secret(const struct pushing *pushing, const struct inv_host *inv, size_t i,
                         const struct secret_host *host) {
    const char *state = host->written[i] ? "written" : secret_state_name(host->states[i]);
    const struct inv_secret *what = &inv->secrets[i];
    if (!pushing->context->json) {
        printf("%s: %s: %s (%s)\n", inv->name, what->name, state, what->path);
        return;
    }
    struct buf line = BUF_INIT;
    json_open(&line, NULL);
    json_text(&line, "host", inv->name);
    json_text(&line, "secret", what->name);
    json_text(&line, "path", what->path);
    json_text(&line, "state", state);
    json_close(&line);
    json_print(&line);
    buf_free(&line);
}

static void result(const struct fan_host *fan_host, const struct error *error, void *arg) {
    struct pushing *pushing = arg;
    const struct secret_host *host = &pushing->hosts[fan_host->index];
    for (size_t i = 0; host->looked && i < fan_host->inv->secret_count; i++) {
        print_secret(pushing, fan_host->inv, i, host);
        pushing->not_current += !host->written[i] && host->states[i] != SECRET_CURRENT ? 1 : 0;
    }
    if (error == NULL) {
        return;
    }
    fprintf(stderr, "%s: %s\n", fan_host->inv->name, error->message);
    if (error->code != FLEET_ERR_LOCKED) {
        host_tally_add(&pushing->tally, fan_host, error);
    }
}

/* ---- the command ---- */

/* Hosts without secrets are left out of the selection. */
static void keep_hosts_with_secrets(struct context *context) {
    size_t kept = 0;
    for (size_t i = 0; i < context->host_count; i++) {
        if (context->hosts[i]->secret_count > 0) {
            context->hosts[kept++] = context->hosts[i];
        }
    }
    context->host_count = kept;
}

static int read_secrets(struct pushing *pushing) {
    const struct context *context = pushing->context;
    struct error error = ERROR_INIT;
    for (size_t i = 0; i < context->host_count; i++) {
        const struct inv_host *inv = context->hosts[i];
        struct secret_host *host = &pushing->hosts[i];
        host->pushing = pushing;
        host->secrets = xcalloc(inv->secret_count, sizeof(*host->secrets));
        host->states = xcalloc(inv->secret_count, sizeof(*host->states));
        host->written = xcalloc(inv->secret_count, sizeof(*host->written));
        for (size_t j = 0; j < inv->secret_count; j++) {
            if (secret_read(inv, &inv->secrets[j], context->inventory->dir, &host->secrets[j],
                            &error) != 0) {
                fputs("fleet: nothing was touched\n", stderr);
                return context_fail(&error);
            }
        }
    }
    return 0;
}

static void release_secrets(struct pushing *pushing) {
    for (size_t i = 0; i < pushing->context->host_count; i++) {
        struct secret_host *host = &pushing->hosts[i];
        for (size_t j = 0; host->secrets != NULL && j < pushing->context->hosts[i]->secret_count;
             j++) {
            secret_release(&host->secrets[j]);
        }
        free(host->secrets);
        free(host->states);
        free(host->written);
    }
    free(pushing->hosts);
    free(pushing->who);
}

static char *who_am_i(void) {
    char machine[256] = "";
    const struct passwd *user = getpwuid(getuid());
    gethostname(machine, sizeof(machine) - 1);
    return xasprintf("%s@%s pid %d", user != NULL ? user->pw_name : "?", machine, (int)getpid());
}

static int run(struct context *context, bool push) {
    struct pushing pushing = {.context = context, .push = push, .who = who_am_i()};
    pushing.hosts = xcalloc(context->host_count + 1, sizeof(*pushing.hosts));
    run_id_new(clock_wall_ms(&clock_system), pushing.id);
    int code = read_secrets(&pushing);
    if (code == 0) {
        int interrupted = host_task_run(context, true, TASK_TIMEOUT_MS, begin, result, &pushing);
        /* A check that finds something to do is no success. */
        pushing.tally.failed += !push ? pushing.not_current : 0;
        code = host_tally_exit(&pushing.tally, interrupted);
        if (pushing.held > 0 && (code == EXIT_DONE || code == EXIT_UNREACHABLE)) {
            code = EXIT_LOCKED;
        }
    }
    release_secrets(&pushing);
    return code;
}

int cmd_secrets(const struct args *args) {
    bool push = args->word_count > 0 && strcmp(args->words[0], "push") == 0;
    bool check = args->word_count > 0 && strcmp(args->words[0], "check") == 0;
    if (!push && !check) {
        return context_usage(args, "fleet secrets takes push or check first, then selectors");
    }
    struct args selectors = *args;
    selectors.words = args->words + 1;
    selectors.word_count--;
    struct context context;
    context_init(&context, &selectors);
    int code = context_load(&context);
    if (code == 0) {
        code = context_select(&context);
    }
    if (code == 0) {
        keep_hosts_with_secrets(&context);
        code = context_connect(&context, true);
    }
    if (code == 0 && context.host_count == 0) {
        fputs("fleet: no selected host has secrets in the inventory\n", stderr);
    } else if (code == 0) {
        code = run(&context, push);
    }
    context_release(&context);
    return code;
}
