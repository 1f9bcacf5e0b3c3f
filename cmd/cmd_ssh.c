/* `fleet ssh HOST`: hands over to OpenSSH with the inventory's settings.
 *
 * ssh reads ~/.ssh/config itself, by the same name that fleet resolves; so only what the inventory
 * says is passed on. A jump that is an inventory host has settings of its own, which -J has no way
 * to say: each becomes a ProxyCommand that runs the same ssh for it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/context.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"

#define DEPTH_MAX 8

struct command_line {
    char **words;
    size_t count;
};

static void add(struct command_line *line, char *word) {
    line->words = xrealloc(line->words, (line->count + 2) * sizeof(char *));
    line->words[line->count++] = word;
    line->words[line->count] = NULL;
}

static void add_option(struct command_line *line, char *word) {
    add(line, xstrdup("-o"));
    add(line, word);
}

static void release(struct command_line *line) {
    for (size_t i = 0; i < line->count; i++) {
        free(line->words[i]);
    }
    free(line->words);
}

static const char *check_word(enum inv_host_key_check check) {
    switch (check) {
    case INV_HOST_KEY_ASK:
        return "ask";
    case INV_HOST_KEY_STRICT:
        return "yes";
    case INV_HOST_KEY_ACCEPT_NEW:
        return "accept-new";
    case INV_HOST_KEY_OFF:
        return "no";
    }
    return "ask";
}

/* ssh_config(5): arguments may be quoted to hold blanks; %% is a percent sign in file names. */
static char *config_file(const char *key, const char *path) {
    struct buf out = BUF_INIT;
    buf_printf(&out, "%s=\"", key);
    for (; *path != '\0'; path++) {
        if (*path == '"' || *path == '\\') {
            buf_add_char(&out, '\\');
        }
        buf_add_text(&out, *path == '%' ? "%%" : (char[]){*path, '\0'});
    }
    buf_add_char(&out, '"');
    return buf_take(&out);
}

/* Keys that stand in the inventory: ssh takes them from a command's output, else from files only.
 * It expands %H to the name that it looks for and splits the words itself, without a shell. */
static char *known_hosts_command(const struct inv_host *host) {
    struct buf out = BUF_INIT;
    buf_add_text(&out, "KnownHostsCommand=/usr/bin/env printf \"%%s\\\\n\"");
    for (size_t i = 0; i < host->host_keys.count; i++) {
        buf_add_text(&out, " \"%H ");
        for (const char *at = host->host_keys.items[i]; *at != '\0'; at++) {
            if (*at == '"' || *at == '\\') {
                buf_add_char(&out, '\\');
            }
            buf_add_text(&out, *at == '%' ? "%%" : (char[]){*at, '\0'});
        }
        buf_add_char(&out, '"');
    }
    return buf_take(&out);
}

static void add_host_keys(struct command_line *line, const struct inv_host *host) {
    if (host->host_keys.count > 0) {
        add_option(line, known_hosts_command(host));
        add_option(line, xstrdup("UserKnownHostsFile=none"));
        add_option(line, xstrdup("GlobalKnownHostsFile=none"));
        add_option(line, xstrdup("StrictHostKeyChecking=yes"));
        return;
    }
    if (host->known_hosts != NULL) {
        add_option(line, config_file("UserKnownHostsFile", host->known_hosts));
    }
    add_option(line, xasprintf("StrictHostKeyChecking=%s", check_word(host->host_key_check)));
}

static void add_jump(struct command_line *line, const struct inv_host *host, int depth);

/* ssh and its options for a host, without the destination. */
// NOLINTNEXTLINE(misc-no-recursion): as deep as the jumps, which are bounded.
static void add_settings(struct command_line *line, const struct inv_host *host, int depth) {
    uint16_t port = host->addresses[0].port != 0 ? host->addresses[0].port : host->port;
    add(line, xstrdup("ssh"));
    if (port != 0) {
        add(line, xstrdup("-p"));
        add(line, xasprintf("%u", port));
    }
    if (host->user != NULL) {
        add(line, xstrdup("-l"));
        add(line, xstrdup(host->user));
    }
    for (size_t i = 0; i < host->identity_files.count; i++) {
        add(line, xstrdup("-i"));
        add(line, xstrdup(host->identity_files.items[i]));
    }
    add_option(line, xasprintf("ConnectTimeout=%llu",
                               (unsigned long long)(host->connect_timeout_ms + 999) / 1000));
    add_host_keys(line, host);
    add_jump(line, host, depth);
}

// NOLINTNEXTLINE(misc-no-recursion)
static void add_jump(struct command_line *line, const struct inv_host *host, int depth) {
    if (host->jump_host == NULL || host->jump_host->local || depth >= DEPTH_MAX) {
        if (host->jump != NULL && host->jump_host == NULL) {
            add(line, xstrdup("-J"));
            add(line, xstrdup(host->jump));
        }
        return;
    }
    struct command_line inner = {0};
    add_settings(&inner, host->jump_host, depth + 1);
    struct buf proxy = BUF_INIT;
    for (size_t i = 0; i < inner.count; i++) {
        struct buf quoted = BUF_INIT;
        text_shell_quote(&quoted, inner.words[i]);
        /* Our own ssh expands %h and %p; what is meant for the inner one is doubled. */
        for (const char *at = buf_text(&quoted); *at != '\0'; at++) {
            buf_add_text(&proxy, *at == '%' ? "%%" : (char[]){*at, '\0'});
        }
        buf_add_char(&proxy, ' ');
        buf_free(&quoted);
    }
    buf_add_text(&proxy, "-W '[%h]:%p' -- ");
    text_shell_quote(&proxy, host->jump_host->addresses[0].host);
    add_option(line, xasprintf("ProxyCommand=%s", buf_text(&proxy)));
    buf_free(&proxy);
    release(&inner);
}

/* The far side's shell joins the words again: they are quoted for it. */
static void add_remote_command(struct command_line *line, const struct args *args) {
    for (size_t i = 0; i < args->rest_count; i++) {
        struct buf quoted = BUF_INIT;
        text_shell_quote(&quoted, args->rest[i]);
        add(line, buf_take(&quoted));
    }
}

static int hand_over(char **words) {
    execvp(words[0], words);
    fprintf(stderr, "fleet: %s cannot be run: %s; install OpenSSH's client\n", words[0],
            strerror(errno));
    return EXIT_SYSTEM;
}

static int run_local(const struct args *args) {
    const char *shell = getenv("SHELL");
    struct command_line line = {0};
    for (size_t i = 0; i < args->rest_count; i++) {
        add(&line, xstrdup(args->rest[i]));
    }
    if (line.count == 0) {
        add(&line, xstrdup(shell != NULL && shell[0] != '\0' ? shell : "/bin/sh"));
    }
    int code = hand_over(line.words);
    release(&line);
    return code;
}

int cmd_ssh(const struct args *args) {
    struct context context;
    context_init(&context, args);
    if (args->word_count != 1) {
        return context_usage(args, args->word_count == 0
                                       ? "fleet ssh needs a host"
                                       : "fleet ssh takes one host; a command stands behind '--'");
    }
    int code = context_load(&context);
    if (code == 0) {
        code = context_select_one(&context);
    }
    if (code == 0 && context.hosts[0]->local) {
        code = run_local(args);
    } else if (code == 0) {
        struct command_line line = {0};
        add_settings(&line, context.hosts[0], 0);
        add(&line, xstrdup("--"));
        add(&line, xstrdup(context.hosts[0]->addresses[0].host));
        add_remote_command(&line, args);
        if (context.verbosity > 0) {
            for (size_t i = 0; i < line.count; i++) {
                fprintf(stderr, "%s%s", i > 0 ? " " : "", line.words[i]);
            }
            fputc('\n', stderr);
        }
        code = hand_over(line.words);
        release(&line);
    }
    context_release(&context);
    return code;
}
