/* `fleet secrets push` and `fleet secrets check`: the inventory's secrets on the selected hosts.
 *
 * All secrets are read first, so that one that can't be read touches no host, and each source once.
 * `check` changes nothing: the host tells the hashes of what it has. `push` works under the host's
 * lock, writes only what is missing or differs, then restarts the units of what it wrote.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/json_line.h"
#include "cmd/locked_task.h"
#include "core/base/xalloc.h"
#include "core/name_index.h"
#include "core/secrets.h"

#define TASK_TIMEOUT_MS    600000u
#define RESTART_TIMEOUT_MS 90000u

struct pushing;

struct secret_host {
    struct pushing *pushing;
    struct locked_host *host;
    const struct secret **secrets; /* one each of the inventory's */
    enum secret_state *states;     /* as they were found */
    bool looked;
    bool restart; /* units are to be restarted */
    size_t next;  /* the secret that is being put */
    bool *written;
};

struct pushing {
    struct context *context;
    bool push;
    struct secret_host *hosts; /* one a host */
    struct secret **read;      /* one each of the sources */
    char **keys;
    size_t read_count;
    struct host_tally tally;
};

/* ---- one host ---- */

static const struct inv_host *inv_of(const struct secret_host *host) {
    return host->host->host->inv;
}

static void on_restarted(int err, const struct target_reply *reply, const struct error *error,
                         void *arg) {
    struct secret_host *host = arg;
    struct error failed = ERROR_INIT;
    const char *unit = target_reply_get(reply, "restart_failed");
    const char *said = target_reply_get(reply, "out");
    if (err == 0 && unit != NULL) {
        error_set(&failed, FLEET_ERR_REMOTE, "restart-failed",
                  "the secrets are in their places, but %s failed as it was restarted: %.500s",
                  unit, said != NULL ? said : "look at its log");
        error = &failed;
        err = failed.code;
    }
    if (err == 0 && target_reply_get(reply, "restart_slow") != NULL) {
        fprintf(stderr, "%s: units of the secrets are still starting\n", inv_of(host)->name);
    }
    locked_done(host->host, err != 0 ? error : NULL);
}

static void put_next(struct secret_host *host);

static void on_put(int err, const struct target_reply *reply, const struct error *error,
                   void *arg) {
    struct secret_host *host = arg;
    const struct inv_secret *what = &inv_of(host)->secrets[host->next];
    const char *answer = target_reply_get(reply, "secret");
    struct error failed = *error;
    if (err == 0 && (answer == NULL || strcmp(answer, "written") != 0)) {
        err = error_set(&failed, FLEET_ERR_LOCKED, "lock-lost",
                        "another run took the host over; nothing was written");
    }
    if (err != 0) {
        error_wrap(&failed, "the secret \"%s\"", what->name);
        locked_done(host->host, &failed);
        return;
    }
    host->restart |= what->restart.count > 0;
    host->written[host->next++] = true;
    put_next(host);
}

static void put_next(struct secret_host *host) {
    while (host->next < inv_of(host)->secret_count && host->states[host->next] == SECRET_CURRENT) {
        host->next++;
    }
    struct shell *shell = host->host->host->shell;
    if (host->next < inv_of(host)->secret_count) {
        secret_put(shell, &inv_of(host)->secrets[host->next], host->secrets[host->next],
                   host->host->lock_id, on_put, host);
    } else if (host->restart) {
        secret_restart(shell, RESTART_TIMEOUT_MS, on_restarted, host);
    } else {
        locked_done(host->host, NULL);
    }
}

static void on_looked(int err, const struct target_reply *reply, const struct error *error,
                      void *arg) {
    struct secret_host *host = arg;
    if (err != 0) {
        locked_done(host->host, error);
        return;
    }
    const char *restart = target_reply_get(reply, "restart");
    host->looked = true;
    host->restart = restart != NULL && strcmp(restart, "yes") == 0;
    for (size_t i = 0; i < inv_of(host)->secret_count; i++) {
        host->states[i] = secret_judge(reply, &inv_of(host)->secrets[i], host->secrets[i]);
    }
    if (host->pushing->push) {
        put_next(host);
    } else {
        locked_done(host->host, NULL);
    }
}

static void begin(struct locked_host *locked, void *arg) {
    struct pushing *pushing = arg;
    struct secret_host *host = &pushing->hosts[locked->host->index];
    host->host = locked;
    secret_look(locked->host->shell, locked->host->inv, on_looked, host);
}

/* ---- results ---- */

static void print_secret(const struct pushing *pushing, const struct inv_host *inv, size_t i,
                         const struct secret_host *host) {
    const char *state = host->written[i] ? "written" : secret_state_name(host->states[i]);
    const struct inv_secret *what = &inv->secrets[i];
    if (!pushing->context->json) {
        bool mode = !host->written[i] && host->states[i] == SECRET_MODE;
        printf("%s: %s: %s (%s)\n", inv->name, what->name,
               mode ? "its owner, group or mode differs" : state, what->path);
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
    (void)error;
    const struct secret_host *host = &pushing->hosts[fan_host->index];
    for (size_t i = 0; host->looked && i < fan_host->inv->secret_count; i++) {
        print_secret(pushing, fan_host->inv, i, host);
        /* A check that finds something to do is no success. */
        bool current = host->written[i] || host->states[i] == SECRET_CURRENT;
        pushing->tally.failed += pushing->push || current ? 0 : 1;
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

/* The secret of that source, which is read where it wasn't yet; NULL where it can't be. */
static const struct secret *read_secret(struct pushing *pushing, struct name_index *known,
                                        const struct inv_host *inv, const struct inv_secret *what,
                                        struct error *error) {
    struct secret_reading reading = {.dir = pushing->context->inventory->dir};
    char *key = secret_key(inv, what);
    size_t number = name_index_find(known, key);
    if (number != NAME_INDEX_NONE) {
        assert(number < pushing->read_count && pushing->read != NULL);
        free(key);
        return pushing->read[number];
    }
    size_t count = pushing->read_count + 1;
    pushing->read = xrealloc(pushing->read, count * sizeof(*pushing->read));
    pushing->keys = xrealloc(pushing->keys, count * sizeof(*pushing->keys));
    struct secret *secret = xcalloc(1, sizeof(*secret));
    pushing->read[pushing->read_count] = secret;
    pushing->keys[pushing->read_count] = key;
    name_index_add(known, key, pushing->read_count++);
    if (secret_read(inv, what, &reading, secret, error) != 0) {
        error_wrap(error, "%s", inv->name);
        return NULL;
    }
    return secret;
}

static int read_secrets(struct pushing *pushing) {
    const struct context *context = pushing->context;
    struct error error = ERROR_INIT;
    struct name_index *known = name_index_new();
    for (size_t i = 0; i < context->host_count && error.code == 0; i++) {
        const struct inv_host *inv = context->hosts[i];
        struct secret_host *host = &pushing->hosts[i];
        host->pushing = pushing;
        host->secrets = xcalloc(inv->secret_count, sizeof(*host->secrets));
        host->states = xcalloc(inv->secret_count, sizeof(*host->states));
        host->written = xcalloc(inv->secret_count, sizeof(*host->written));
        for (size_t j = 0; j < inv->secret_count && error.code == 0; j++) {
            host->secrets[j] = read_secret(pushing, known, inv, &inv->secrets[j], &error);
        }
    }
    name_index_free(known);
    if (error.code != 0) {
        int code = context_fail(&error);
        fputs("fleet: nothing was touched\n", stderr);
        return code;
    }
    return 0;
}

static void release_secrets(struct pushing *pushing) {
    for (size_t i = 0; i < pushing->read_count; i++) {
        secret_release(pushing->read[i]);
        free(pushing->read[i]);
        free(pushing->keys[i]);
    }
    free(pushing->read);
    free(pushing->keys);
    for (size_t i = 0; i < pushing->context->host_count; i++) {
        free(pushing->hosts[i].secrets);
        free(pushing->hosts[i].states);
        free(pushing->hosts[i].written);
    }
    free(pushing->hosts);
}

static int run(struct context *context, bool push) {
    struct pushing pushing = {.context = context, .push = push};
    pushing.hosts = xcalloc(context->host_count + 1, sizeof(*pushing.hosts));
    int code = read_secrets(&pushing);
    if (code == 0) {
        struct locked_task task = {.begin = begin,
                                   .result = result,
                                   .lock = push,
                                   .timeout_ms = TASK_TIMEOUT_MS,
                                   .arg = &pushing};
        code = locked_task_run(context, &task, &pushing.tally);
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
