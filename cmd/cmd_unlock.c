/* `fleet unlock HOST --id ID`: breaks a lock, by its id only.
 *
 * Only the lock goes: a guard that is at work on the host keeps others away by itself, and ends by
 * itself.
 */
#include <stdio.h>
#include <string.h>

#include "cmd/host_task.h"
#include "cmd/json_line.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"

#define ASK_TIMEOUT_MS 60000

struct unlocking {
    const struct context *context;
    const char *id;
    struct fan_host *host;
    struct host_tally tally;
    bool held; /* by another id */
};

static void print_json(const struct unlocking *unlocking, const char *lock) {
    struct buf line = BUF_INIT;
    json_open(&line, NULL);
    json_text(&line, "host", unlocking->host->inv->name);
    json_text(&line, "lock", lock);
    json_close(&line);
    json_print(&line);
    buf_free(&line);
}

static const char *word(const struct target_reply *reply, const char *key) {
    const char *value = target_reply_get(reply, key);
    return value != NULL && value[0] != '\0' ? value : "?";
}

static void on_released(int err, const struct target_reply *reply, const struct error *error,
                        void *arg) {
    struct unlocking *unlocking = arg;
    const char *name = unlocking->host->inv->name;
    if (err != 0) {
        fan_done(unlocking->host, error);
        return;
    }
    const char *lock = word(reply, "lock");
    if (unlocking->context->json) {
        print_json(unlocking, lock);
    }
    if (strcmp(lock, "held") == 0) {
        unlocking->held = true;
        fprintf(stderr,
                "fleet: %s is held under another id, nothing was done: %s by %s since %s, run %s\n",
                name, word(reply, "lock_id"), word(reply, "lock_who"), word(reply, "lock_since"),
                word(reply, "lock_run"));
    } else if (!unlocking->context->json) {
        printf(strcmp(lock, "free") == 0 ? "%s: no lock was held, nothing to do\n"
                                         : "%s: the lock is gone\n",
               name);
    }
    fan_done(unlocking->host, NULL);
}

static void ask(struct fan_host *host, void *arg) {
    struct unlocking *unlocking = arg;
    unlocking->host = host;
    target_lock_release(host->shell, unlocking->id, on_released, unlocking);
}

static void result(const struct fan_host *host, const struct error *error, void *arg) {
    struct unlocking *unlocking = arg;
    host_tally_add(&unlocking->tally, host, error);
    if (error != NULL) {
        fprintf(stderr, "%s: %s\n", host->inv->name, error->message);
    }
}

/* The id goes into a script's variable; it is quoted there, and yet nothing but an id is sent. */
static bool is_id(const char *text) {
    return text[0] != '\0' && strlen(text) <= 64 &&
           strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == strlen(text);
}

int cmd_unlock(const struct args *args) {
    struct context context;
    context_init(&context, args);
    struct unlocking unlocking = {.context = &context, .id = args_value(args, OPTION_ID)};
    if (args->word_count == 0) {
        return context_usage(args, "fleet unlock needs a host");
    }
    int code = context_words(args, 1);
    if (code != 0) {
        return code;
    }
    if (unlocking.id == NULL) {
        return context_usage(args, "fleet unlock needs --id ID; `fleet status` prints it, and who "
                                   "holds the lock");
    }
    if (!is_id(unlocking.id)) {
        return context_usage(args, "--id takes a lock's id of [a-z0-9-], as `fleet status` prints "
                                   "it");
    }
    code = context_load(&context);
    if (code == 0) {
        code = context_select_one(&context);
    }
    if (code == 0) {
        code = context_connect(&context, true);
    }
    if (code == 0) {
        int interrupted = host_task_run(&context, true, ASK_TIMEOUT_MS, ask, result, &unlocking);
        code = host_tally_exit(&unlocking.tally, interrupted);
        if (code == 0 && unlocking.held) {
            code = EXIT_LOCKED;
        }
    }
    context_release(&context);
    return code;
}
