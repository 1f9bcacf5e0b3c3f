/* `fleet resume` and `fleet promote`: a run goes on where its journal ends.
 *
 * Inventory, policy, hosts, waves and action are those of the run, not of the command line; what is
 * true of the hosts is asked of them (core/resume.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "cmd/displays.h"
#include "cmd/let_go.h"
#include "cmd/question.h"
#include "cmd/run_elsewhere.h"
#include "cmd/run_log.h"
#include "cmd/run_unfinished.h"
#include "cmd/undo.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/resume.h"
#include "core/run.h"

#define TARGET_RUN   "run:"
#define DEAD_LOOKS   10u
#define DEAD_LOOK_MS 100u

/* As in cmd_run.c: lanes that did not let go in time still read it when the process ends. */
static struct context resume_context;

static int refuse_options(const struct args *args) {
    static const enum option_id not_here[] = {OPTION_TAG,      OPTION_ON,         OPTION_EXCLUDE,
                                              OPTION_POLICY,   OPTION_WAVES,      OPTION_NOW,
                                              OPTION_PARALLEL, OPTION_NO_ROLLBACK};
    for (size_t i = 0; i < ARRAY_LEN(not_here); i++) {
        if (args_count(args, not_here[i]) > 0) {
            return context_usage(
                args,
                "a run goes on with its own hosts and its own policy: --%s can't be "
                "given to `fleet %s`",
                option_defs[not_here[i]].name, args->command->name);
        }
    }
    return context_words(args, 1);
}

/* The hosts of the run, in its order. */
static int find_hosts(struct context *context, const struct run_log *log) {
    const struct view *view = log->view;
    context->hosts = xcalloc(view->host_count + 1, sizeof(*context->hosts));
    for (size_t i = 0; i < view->host_count; i++) {
        const char *name = view->hosts[i].name;
        context->hosts[i] = inventory_host(context->inventory, name);
        if (context->hosts[i] == NULL) {
            return context_usage(context->args,
                                 "host '%s' of run %s is not in %s any more: put it back, or begin "
                                 "anew with `fleet update`; nothing was touched",
                                 name, log->id, context->inventory->path);
        }
    }
    context->host_count = view->host_count;
    return 0;
}

static int load(struct context *context, const struct run_log *log) {
    struct error error = ERROR_INIT;
    const char *given = args_value(context->args, OPTION_INVENTORY);
    const char *path = given != NULL ? given : log->view->inventory;
    if (override_parse(log->view->policy, &context->overrides, &error) != 0) {
        return context_fail(&error);
    }
    int code = path != NULL ? context_load_file(context, path)
                            : context_usage(context->args,
                                            "run %s does not tell its inventory: "
                                            "give it with --inventory",
                                            log->id);
    if (code == 0) {
        code = find_hosts(context, log);
    }
    if (code == 0 && git_state_read(context->inventory->dir, &context->git, &error) != 0) {
        code = context_fail(&error);
    }
    return code == 0 ? context_connect(context, true) : code;
}

/* Hosts that were not built yet get what the tree says now. */
static void warn_of_tree(const struct context *context, const struct view *view) {
    const char *then = view->rev != NULL ? view->rev : "";
    if (strcmp(then, context->git.rev) != 0) {
        fprintf(stderr,
                "fleet: the run began at revision %.12s, the tree is at %.12s now: hosts that had "
                "not been built by then get the new one\n",
                then[0] != '\0' ? then : "(none)",
                context->git.rev[0] != '\0' ? context->git.rev : "(none)");
    }
}

/* What `rollback` named: a run, a generation or a path. */
static int set_target(struct context *context, const char *to, struct run_options *options) {
    static struct undo undo; /* as long as the context */
    size_t prefix = strlen(TARGET_RUN);
    if (to != NULL && strncmp(to, TARGET_RUN, prefix) == 0) {
        int code = undo_load(context, to + prefix, false, &undo);
        options->systems = undo.systems;
        options->to_run = undo.run;
        return code;
    }
    if (to != NULL && to[0] == '/') {
        options->to_path = to;
    } else if (to != NULL) {
        options->to_generation = strtoll(to, NULL, 10);
    }
    return 0;
}

static int execute(struct context *context, const struct run_log *log, bool promote) {
    struct displays displays;
    displays_open(context, false, &displays);
    struct run_options options = {
        .inventory = context->inventory,
        .hosts = context->hosts,
        .host_count = context->host_count,
        .action = log->view->action,
        .state_dir = context->state_dir,
        .rev = log->view->rev != NULL ? log->view->rev : "",
        .dirty = log->view->dirty,
        .lock_timeout_ms = args_duration_ms(context->args, OPTION_LOCK_TIMEOUT, 0),
        .policy_json = log->view->policy != NULL ? log->view->policy : "{}",
        .specs = context->specs,
        .keyring = context->keyring,
        .resume_id = log->id,
        .promote = promote,
        .observer = {.event = displays_event,
                     .tick = displays_tick,
                     .attach = displays_attach,
                     .arg = &displays},
        .interactive = question_possible(),
    };
    int unset = set_target(context, log->view->target, &options);
    if (unset != 0) {
        displays_close(&displays);
        return unset;
    }
    struct error error = ERROR_INIT;
    int code = run_execute(&options, NULL, &error);
    if (error.code != 0) {
        fprintf(stderr, "fleet: %s\n", error.message);
    }
    fflush(stdout);
    displays_close(&displays);
    if (code < 128) { /* else somebody is in a hurry */
        let_go_of_ended(context, log);
    }
    return code;
}

static int go_on(struct context *context, struct run_log *log, bool promote) {
    int code = load(context, log);
    if (code != 0) {
        return code;
    }
    warn_of_tree(context, log->view);
    /* The run outlives this reading, and a second signal outlives the run: strings stay. */
    return execute(context, log, promote);
}

static bool waits(const struct view *view) {
    return view->paused != NULL && strcmp(view->paused, "promote") == 0;
}

/* Leaves word for the process that runs it. */
static int signal_promotion(const struct context *context, const struct run_log *log) {
    if (!waits(log->view)) {
        fprintf(stderr, "fleet: run %s goes on, it does not wait for promotion: nothing to do\n",
                log->id);
        return EXIT_DONE;
    }
    AUTO_FREE char *path =
        xasprintf("%s/runs/%s/%s", context->state_dir, log->id, RUN_PROMOTE_FILE);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        fprintf(stderr, "fleet: %s can't be made: %s; see to the folder's permissions\n", path,
                strerror(errno));
        return EXIT_SYSTEM;
    }
    close(fd);
    fprintf(stderr, "fleet: promoted; `fleet watch %s` shows how it goes on\n", log->id);
    return EXIT_DONE;
}

/* A run that was killed just now may still look alive: a program that it was about to start holds its
 * lock until it has become that program. So who wants to go on with it looks for a second. */
static int open_log(const struct context *context, const char *name, bool promote,
                    struct run_log *ret, struct error *error) {
    for (unsigned look = 1;; look++) {
        int err = run_log_open(context->state_dir, name, ret, error);
        if (err != 0 || !ret->live || promote || look == DEAD_LOOKS) {
            return err;
        }
        run_log_release(ret);
        uv_sleep(DEAD_LOOK_MS);
    }
}

static int choose(struct context *context, struct run_log *log, bool promote) {
    if (log->live && promote) {
        return signal_promotion(context, log);
    }
    if (log->live) {
        fprintf(stderr,
                "fleet: run %s is alive here: `fleet watch %s` shows it, Ctrl-C in its own "
                "terminal ends it; nothing was touched\n",
                log->id, log->id);
        return EXIT_LOCKED;
    }
    if (log->view->run == NULL) {
        fprintf(stderr, "fleet: run %s ended before it had begun: nothing to do\n", log->id);
        return EXIT_DONE;
    }
    if (!resume_is_due(log->view)) {
        fprintf(stderr, "fleet: run %s is finished (%s): nothing to do\n", log->id,
                run_log_result(log));
        if (context->args->word_count == 0 && log->view->inventory != NULL) {
            run_unfinished_tell(context, log->view->inventory);
        }
        return EXIT_DONE;
    }
    if (log->view->action == ACTION_BUILD) {
        fputs("fleet: a build has nothing to resume: begin it anew with `fleet build`\n", stderr);
        return EXIT_DONE;
    }
    if (promote && !waits(log->view)) {
        return context_usage(context->args,
                             "run %s does not wait for promotion, it was interrupted: "
                             "go on with `fleet resume %s`",
                             log->id, log->id);
    }
    return go_on(context, log, promote);
}

static int take_up(const struct args *args, bool promote) {
    static struct run_log log;
    struct context *context = &resume_context;
    context_init(context, args);
    int code = refuse_options(args);
    if (code == 0) {
        code = context_surroundings(context);
    }
    if (code == 0) {
        struct error error = ERROR_INIT;
        const char *name = args->word_count > 0 ? args->words[0] : NULL;
        int err = open_log(context, name, promote, &log, &error);
        if (err == 0) {
            err = run_log_read(&log, &error);
        }
        bool elsewhere = err != 0 && strcmp(error.reason, "no-run") == 0 && !promote;
        code = err == 0    ? choose(context, &log, promote)
               : elsewhere ? run_elsewhere(context, name, &error)
                           : context_fail(&error);
    }
    if (code == EXIT_DONE) {
        run_log_release(&log);
        context_release(context);
    }
    return code;
}

int cmd_resume(const struct args *args) {
    return take_up(args, false);
}

int cmd_promote(const struct args *args) {
    if (args->word_count == 0) {
        return context_usage(args, "fleet promote takes the run that waits; `fleet history` lists "
                                   "the runs");
    }
    return take_up(args, true);
}
