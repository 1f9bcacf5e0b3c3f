/* The shared beginning of commands (see context.h). */
#include "cmd/context.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/question.h"
#include "cmd/reports.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/journal.h"
#include "inventory/select.h"

/* "always" and "never" win; then NO_COLOR (no-color.org: set and not empty), then the terminal. */
static bool wants_color(const struct args *args, int fd) {
    const char *when = args_value(args, OPTION_COLOR);
    if (when != NULL && strcmp(when, "auto") != 0) {
        return strcmp(when, "always") == 0;
    }
    const char *no_color = getenv("NO_COLOR");
    const char *term = getenv("TERM");
    return (no_color == NULL || no_color[0] == '\0') && term != NULL && strcmp(term, "dumb") != 0 &&
           isatty(fd) == 1;
}

void context_init(struct context *context, const struct args *args) {
    *context = (struct context){.args = args};
    context->json = args_count(args, OPTION_JSON) > 0;
    context->asks = question_possible() && args_count(args, OPTION_YES) == 0 &&
                    args_count(args, OPTION_NO_INPUT) == 0;
    context->verbosity =
        args_count(args, OPTION_QUIET) > 0 ? -1 : (int)args_count(args, OPTION_VERBOSE);
    context->color_out = wants_color(args, STDOUT_FILENO);
    context->color_err = wants_color(args, STDERR_FILENO);
}

int context_fail(const struct error *error) {
    fprintf(stderr, "fleet: %s\n", error->message);
    switch (error->code) {
    case FLEET_ERR_USAGE:
        return EXIT_USAGE;
    case FLEET_ERR_UNREACHABLE:
        return EXIT_UNREACHABLE;
    case FLEET_ERR_LOCKED:
        return EXIT_LOCKED;
    case FLEET_OK:
    case FLEET_ERR_SYSTEM:
    case FLEET_ERR_TIMEOUT:
    case FLEET_ERR_LOST:
    case FLEET_ERR_PROTOCOL:
    case FLEET_ERR_REMOTE:
    case FLEET_ERR_BUILD:
    case FLEET_ERR_HEALTH:
    case FLEET_ERR_CANCELLED:
    case FLEET_ERR_SPACE:
        return EXIT_SYSTEM;
    case FLEET_ERR_STALE:
        return EXIT_STALE;
    }
    return EXIT_SYSTEM;
}

int context_usage(const struct args *args, const char *format, ...) {
    struct error error;
    va_list list;
    va_start(list, format);
    error_setv(&error, FLEET_ERR_USAGE, "usage", format, list);
    va_end(list);
    fprintf(stderr, "fleet: %s\n", error.message);
    if (args->command != NULL) {
        fprintf(stderr, "See `fleet %s --help`.\n", args->command->name);
    } else {
        fputs("See `fleet --help`.\n", stderr);
    }
    return EXIT_USAGE;
}

int context_words(const struct args *args, size_t words) {
    if (args->word_count > words) {
        const char *extra = args->words[words];
        AUTO_FREE char *shown = text_cleaned(extra, strlen(extra));
        return context_usage(args, "fleet %s takes %s; '%s' is too much", args->command->name,
                             words == 0   ? "no words"
                             : words == 1 ? "one word only"
                                          : "two words at most",
                             shown);
    }
    if (args->has_rest) {
        return context_usage(args, "fleet %s takes nothing behind '--'", args->command->name);
    }
    return 0;
}

int context_load(struct context *context) {
    struct error error = ERROR_INIT;
    if (override_read(context->args, &context->overrides, &error) != 0) {
        return context_usage(context->args, "%s", error.message);
    }
    char *path = NULL;
    const char *given = args_value(context->args, OPTION_INVENTORY);
    if (given != NULL) {
        path = xstrdup(given);
    } else if (inventory_find(&path, &error) != 0) {
        return context_fail(&error);
    }
    int code = context_load_file(context, path);
    free(path);
    return code;
}

/* Where the errors are: in the file, in what the command line overrides, or in both. */
static void print_error_count(const struct inv_errors *errors, const char *path) {
    size_t in_file = 0;
    for (size_t i = 0; i < errors->count; i++) {
        in_file += errors->items[i].line > 0 ? 1 : 0;
    }
    bool both = in_file > 0 && in_file < errors->count;
    fprintf(stderr, "fleet: %zu error%s %s%s%s%s; nothing was touched\n", errors->count,
            errors->count == 1 ? "" : "s", in_file > 0 ? "in " : "", in_file > 0 ? path : "",
            both ? " and " : "", in_file < errors->count ? "on the command line" : "");
}

int context_load_file(struct context *context, const char *path) {
    struct error error = ERROR_INIT;
    struct inv_errors errors = {0};
    int err = inventory_load(path, context->overrides.items, context->overrides.count,
                             &context->inventory, &errors, &error);
    if (err != 0 && errors.count > 0) {
        struct buf text = BUF_INIT;
        inv_errors_print(&errors, path, &text);
        fputs(buf_text(&text), stderr);
        print_error_count(&errors, path);
        buf_free(&text);
    }
    int code = err == 0 ? 0 : EXIT_USAGE;
    if (err != 0 && errors.count == 0) {
        code = context_fail(&error);
    }
    inv_errors_free(&errors);
    return code;
}

int context_select(struct context *context) {
    const struct args *args = context->args;
    if (args->has_rest && args->command->run != cmd_exec) {
        return context_words(args, SIZE_MAX);
    }
    struct selection_args selection = {.selectors = {args->words, args->word_count}};
    const char **tags = args_values(args, OPTION_TAG, &selection.tags.count);
    const char **on = args_values(args, OPTION_ON, &selection.on.count);
    const char **exclude = args_values(args, OPTION_EXCLUDE, &selection.exclude.count);
    selection.tags.items = tags;
    selection.on.items = on;
    selection.exclude.items = exclude;
    context->all_hosts = args->word_count + selection.tags.count + selection.on.count == 0;
    struct error error = ERROR_INIT;
    int err = selection_resolve(context->inventory, &selection, &context->hosts,
                                &context->host_count, &error);
    free(tags);
    free(on);
    free(exclude);
    return err == 0 ? 0 : context_fail(&error);
}

int context_select_one(struct context *context) {
    const char *name = context->args->words[0];
    const struct inv_host *host = inventory_host(context->inventory, name);
    if (host == NULL) {
        size_t count = context->inventory->host_count;
        AUTO_FREE const char **names = xcalloc(count + 1, sizeof(*names));
        for (size_t i = 0; i < count; i++) {
            names[i] = context->inventory->hosts[i].name;
        }
        const char *nearest = text_nearest(name, names, count);
        AUTO_FREE char *shown = text_cleaned(name, strlen(name));
        return context_usage(
            context->args, "no host '%s' in %s%s%s%s", shown, context->inventory->path,
            nearest != NULL ? "; did you mean '" : "; `fleet list` shows the hosts",
            nearest != NULL ? nearest : "", nearest != NULL ? "'?" : "");
    }
    context->hosts = xcalloc(1, sizeof(const struct inv_host *));
    context->hosts[0] = host;
    context->host_count = 1;
    return 0;
}

int context_surroundings(struct context *context) {
    struct error error = ERROR_INIT;
    if (reports_check(context->args) != 0) {
        return EXIT_USAGE;
    }
    const char *given = args_value(context->args, OPTION_STATE_DIR);
    if (given != NULL) {
        context->state_dir = xstrdup(given);
    } else if (state_dir_default(&context->state_dir, &error) != 0) {
        return context_fail(&error);
    }
    if (context->inventory != NULL &&
        git_state_read(context->inventory->dir, &context->git, &error) != 0) {
        return context_fail(&error);
    }
    return 0;
}

static char *ask_passphrase(const char *file, int attempt, void *arg) {
    (void)arg;
    AUTO_FREE char *shown = text_cleaned(file, strlen(file));
    AUTO_FREE char *prompt =
        xasprintf("%sPassphrase for %s: ", attempt > 1 ? "That was not it. " : "", shown);
    char *secret = question_secret(prompt);
    if (secret != NULL && secret[0] == '\0') {
        free(secret);
        return NULL;
    }
    return secret;
}

static bool ask_host_keys(const char *list, size_t count, void *arg) {
    (void)arg;
    fprintf(stderr, "%zu host key%s not known yet:\n%s", count, count == 1 ? " is" : "s are", list);
    return question_confirm(count == 1 ? "Is it right, and shall it be trusted from now on?"
                                       : "Are they right, and shall they be trusted from now on?");
}

int context_connect(struct context *context, bool targets) {
    struct error error = ERROR_INIT;
    int err = spec_set_new(context->inventory, context->hosts, context->host_count, &context->specs,
                           &error);
    if (err != 0) {
        return context_fail(&error);
    }
    size_t count;
    const char *const *files = spec_key_files(context->specs, &count);
    context->keyring = keyring_new(spec_agent_socket(context->specs));
    err = keyring_prepare(context->keyring, files, count, context->asks ? ask_passphrase : NULL,
                          NULL, &error);
    if (err == 0) {
        err =
            spec_settle_host_keys(context->specs, context->hosts, targets ? context->host_count : 0,
                                  context->asks ? ask_host_keys : NULL, NULL, &error);
    }
    if (err == FLEET_ERR_CANCELLED) {
        context_fail(&error);
        return EXIT_USAGE;
    }
    return err == 0 ? 0 : context_fail(&error);
}

int context_build_access(const struct context *context) {
    struct error error = ERROR_INIT;
    return spec_build_elevations(context->specs, &error) == 0 ? 0 : context_fail(&error);
}

void context_release(struct context *context) {
    spec_set_free(context->specs);
    if (context->keyring != NULL) {
        keyring_free(context->keyring);
    }
    free(context->hosts);
    free(context->state_dir);
    if (context->inventory != NULL) {
        inventory_free(context->inventory);
    }
    override_release(&context->overrides);
}
