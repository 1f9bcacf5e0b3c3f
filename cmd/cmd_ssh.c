/* `fleet ssh HOST`: hands over to OpenSSH with the inventory's settings.
 *
 * ssh reads ~/.ssh/config itself, by the same name that fleet resolves; so only what the inventory
 * says is passed on. A jump that is an inventory host has settings of its own, which -J has no way
 * to say: each becomes a ProxyCommand that runs the same ssh for it. ssh knows one address only:
 * of several the first that takes a connection is given to it.
 */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cmd/context.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "inventory/address.h"

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

static uint16_t port_of(const struct inv_host *host, size_t address) {
    uint16_t port = host->addresses[address].port;
    return port != 0 ? port : host->port;
}

static bool connects(const struct addrinfo *to, int timeout_ms) {
    int fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return false;
    }
    int err = connect(fd, to->ai_addr, to->ai_addrlen) == 0 ? 0 : errno;
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    socklen_t len = sizeof(err);
    if (err == EINPROGRESS && (poll(&wait, 1, timeout_ms) != 1 ||
                               getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0)) {
        err = ETIMEDOUT;
    }
    close(fd);
    return err == 0;
}

/* The first address that takes a connection within connect_timeout; the first of all where none
 * does, for ssh to say why. Behind a jump host only ssh could tell. */
static size_t pick_address(const struct inv_host *host) {
    bool direct = host->jump == NULL && host->jump_host == NULL;
    for (size_t i = 0; direct && host->address_count > 1 && i < host->address_count; i++) {
        const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
        struct addrinfo *found = NULL;
        uint16_t port = port_of(host, i);
        AUTO_FREE char *service = xasprintf("%u", port != 0 ? port : 22);
        if (getaddrinfo(host->addresses[i].host, service, &hints, &found) != 0) {
            continue;
        }
        bool up = connects(found, (int)host->connect_timeout_ms);
        freeaddrinfo(found);
        if (up) {
            return i;
        }
    }
    return 0;
}

static void add_jump(struct command_line *line, const struct inv_host *host, int depth);

/* ssh and its options for a host, without the destination. */
// NOLINTNEXTLINE(misc-no-recursion): as deep as the jumps, which are bounded.
static void add_settings(struct command_line *line, const struct inv_host *host, size_t address,
                         int depth) {
    uint16_t port = port_of(host, address);
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

/* Goes through `jump`, by a ProxyCommand that is the same ssh for it. */
// NOLINTNEXTLINE(misc-no-recursion)
static void add_proxy(struct command_line *line, const struct inv_host *jump, int depth) {
    size_t address = pick_address(jump);
    struct command_line inner = {0};
    add_settings(&inner, jump, address, depth + 1);
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
    text_shell_quote(&proxy, jump->addresses[address].host);
    add_option(line, xasprintf("ProxyCommand=%s", buf_text(&proxy)));
    buf_free(&proxy);
    release(&inner);
}

/* A jump "user@host:port" that the inventory doesn't know takes keys and known_hosts of the host
 * that names it, as in core/spec.c. */
// NOLINTNEXTLINE(misc-no-recursion)
static void add_outside_jump(struct command_line *line, const struct inv_host *host, int depth) {
    size_t user_len = 0;
    const char *rest;
    struct address_parts parts;
    const char *at = address_user(host->jump, &user_len, &rest);
    if (!address_split(rest, &parts)) {
        add(line, xstrdup("-J"));
        add(line, xstrdup(host->jump));
        return;
    }
    AUTO_FREE char *user = at != NULL ? xstrndup(at, user_len) : NULL;
    AUTO_FREE char *name = xstrndup(parts.host, parts.host_len);
    struct inv_address address = {.host = name, .port = parts.port};
    struct inv_host jump = *host;
    jump.user = user;
    jump.addresses = &address;
    jump.address_count = 1;
    jump.port = 0;
    jump.host_keys = (struct inv_strings){0};
    jump.jump = NULL;
    add_proxy(line, &jump, depth);
}

// NOLINTNEXTLINE(misc-no-recursion)
static void add_jump(struct command_line *line, const struct inv_host *host, int depth) {
    if (host->jump_host != NULL && !host->jump_host->local && depth < DEPTH_MAX) {
        add_proxy(line, host->jump_host, depth);
    } else if (host->jump_host == NULL && host->jump != NULL) {
        add_outside_jump(line, host, depth);
    }
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
    /* What main ignores is ours alone: a shell passes it on to all that it starts. */
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
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
        size_t address = pick_address(context.hosts[0]);
        add_settings(&line, context.hosts[0], address, 0);
        add(&line, xstrdup("--"));
        add(&line, xstrdup(context.hosts[0]->addresses[address].host));
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
