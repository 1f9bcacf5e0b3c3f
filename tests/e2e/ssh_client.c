/* A small client of transport/: what tests/e2e/ssh.bats drives against real sshds.
 *
 * ssh_client [OPTION...] ADDRESS:PORT[,ADDRESS:PORT...] COMMAND
 *   -i KEY  -k KNOWN_HOSTS  -H HOST_KEY  -u USER  -J HOST:PORT   may be repeated where that makes
 *                                  sense; -J's go from the first hop to the last
 *   -c strict|accept-new|off       host key check, default strict
 *   -a  -I                         use $SSH_AUTH_SOCK; only the keys that -i names
 *   -P PASSPHRASE                  for every encrypted key file
 *   -t MS  -K MS                   connect time-out (10000) and keepalive
 *   -n COUNT  -e COUNT             connections at once, commands at once on each; without stdin
 *   -X MS                          close everything after so long
 *   -T HOST:PORT                   instead of a command a tunnel through the host; stdin is sent
 *   -S                             print the unknown host keys and accept them
 *   -l                             local processes instead of SSH
 *
 * Copies stdin to the command and its output to stdout and stderr; exits with its status, or with
 * 200 and "REASON: message" on stderr where there was no session, 201 where a signal ended it.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "transport/host_keys.h"
#include "transport/keyring.h"
#include "transport/transport.h"

enum {
    NO_SESSION = 200,
    LIST_MAX = 16,
    READ_BYTES = 256 * 1024,
    QUEUE_HIGH = 1024 * 1024
};

struct options {
    struct conn_spec spec;
    struct conn_spec jumps[LIST_MAX];
    size_t jump_count;
    struct conn_address addresses[LIST_MAX];
    const char *identities[LIST_MAX];
    const char *known_hosts[LIST_MAX];
    const char *host_keys[LIST_MAX];
    const char *passphrase;
    const char *command;
    bool agent;
    bool scan;
    struct conn_address tunnel; /* host NULL: none */
    unsigned count;
    unsigned commands;
    uint64_t close_after_ms;
};

struct client {
    const struct options *options;
    struct conn *conn;
    struct stream *stream;
    bool reads_stdin;
    unsigned running;
    int result;
};

static uv_loop_t loop;

static void pump_stdin(struct client *client) {
    while (client->reads_stdin && stream_queued(client->stream) < QUEUE_HIGH) {
        struct chunk *chunk = chunk_new(READ_BYTES);
        ssize_t got = read(STDIN_FILENO, chunk->data, READ_BYTES);
        if (got > 0) {
            chunk->len = (uint32_t)got;
            stream_write_chunk(client->stream, chunk);
        } else {
            client->reads_stdin = false;
            stream_eof(client->stream);
        }
        chunk_unref(chunk);
    }
}

static void on_data(int fd, const char *data, size_t len, void *arg) {
    (void)arg;
    fwrite(data, 1, len, fd == 2 ? stderr : stdout);
}

static void on_drain(void *arg) {
    pump_stdin(arg);
}

static void print_error(struct client *client, const struct error *error) {
    fprintf(stderr, "%s: %s\n", error->reason, error->message);
    client->result = NO_SESSION;
}

static void on_end(const struct stream_end *end, void *arg) {
    struct client *client = arg;
    client->stream = NULL;
    client->reads_stdin = false;
    client->running--;
    if (end->lost) {
        print_error(client, &end->error);
    } else if (end->signal[0] != '\0') {
        fprintf(stderr, "signal %s\n", end->signal);
        client->result = NO_SESSION + 1;
    } else {
        client->result = end->status;
    }
    if (client->running == 0) {
        conn_close(client->conn);
    }
}

static const struct stream_handlers stream_handlers = {
    .on_data = on_data, .on_drain = on_drain, .on_end = on_end};

static void on_ready(const char *address, void *arg) {
    struct client *client = arg;
    if (getenv("SSH_CLIENT_VERBOSE") != NULL) {
        fprintf(stderr, "ready: %s\n", address);
    }
    const struct options *options = client->options;
    client->running = options->commands;
    client->reads_stdin = options->count == 1 && options->commands == 1;
    for (unsigned i = 0; i < options->commands; i++) {
        client->stream = options->tunnel.host != NULL
                             ? conn_tunnel(client->conn, options->tunnel.host, options->tunnel.port,
                                           &stream_handlers, client)
                             : conn_exec(client->conn, options->command, &stream_handlers, client);
        if (!client->reads_stdin) {
            stream_eof(client->stream);
        }
    }
    pump_stdin(client);
}

static void on_lost(const struct error *error, void *arg) {
    struct client *client = arg;
    if (client->result != NO_SESSION) {
        print_error(client, error);
    }
    conn_close(client->conn);
}

static void on_notice(const char *text, void *arg) {
    (void)arg;
    fprintf(stderr, "notice: %s\n", text);
}

static void on_closed(void *arg) {
    struct client *client = arg;
    client->conn = NULL;
}

static const struct conn_handlers conn_handlers = {.on_ready = on_ready,
                                                   .on_lost = on_lost,
                                                   .on_closed = on_closed,
                                                   .on_notice = on_notice,
                                                   .on_person = on_notice};

static uint64_t number(const char *text) {
    return strtoull(text, NULL, 10);
}

/* "10.0.0.1:22", "[::1]:22". Writes into the argument. */
static struct conn_address parse_address(char *text) {
    char *colon = strrchr(text, ':');
    if (colon == NULL) {
        return (struct conn_address){text, 22};
    }
    *colon = '\0';
    if (text[0] == '[') {
        text++;
        text[strlen(text) - 1] = '\0';
    }
    return (struct conn_address){text, (uint16_t)number(colon + 1)};
}

static char *ask_passphrase(const char *file, int attempt, void *arg) {
    const struct options *options = arg;
    fprintf(stderr, "asked for %s, attempt %d\n", file, attempt);
    return options->passphrase != NULL ? xstrdup(options->passphrase) : NULL;
}

static void parse(struct options *options, int argc, char **argv) {
    struct conn_spec *spec = &options->spec;
    spec->name = "testhost";
    spec->user = "root";
    spec->connect_timeout_ms = 10000;
    options->count = 1;
    options->commands = 1;
    for (int c; (c = getopt(argc, argv, "i:k:H:c:au:J:t:K:n:e:X:T:SlP:I")) != -1;) {
        switch (c) {
        case 'i':
            options->identities[spec->identity_count++] = optarg;
            break;
        case 'k':
            options->known_hosts[spec->known_hosts_count++] = optarg;
            break;
        case 'H':
            options->host_keys[spec->host_key_count++] = optarg;
            break;
        case 'c':
            spec->host_key_check = strcmp(optarg, "off") == 0          ? HOST_KEY_OFF
                                   : strcmp(optarg, "accept-new") == 0 ? HOST_KEY_ACCEPT_NEW
                                                                       : HOST_KEY_STRICT;
            break;
        case 'a':
            options->agent = true;
            break;
        case 'I':
            spec->identities_only = true;
            break;
        case 'u':
            spec->user = optarg;
            break;
        case 'J': {
            static struct conn_address addresses[LIST_MAX];
            struct conn_address *address = &addresses[options->jump_count];
            *address = parse_address(optarg);
            options->jumps[options->jump_count++].addresses = address;
            break;
        }
        case 't':
            spec->connect_timeout_ms = number(optarg);
            break;
        case 'K':
            spec->keepalive_ms = number(optarg);
            break;
        case 'n':
            options->count = (unsigned)number(optarg);
            break;
        case 'e':
            options->commands = (unsigned)number(optarg);
            break;
        case 'X':
            options->close_after_ms = number(optarg);
            break;
        case 'T':
            options->tunnel = parse_address(optarg);
            break;
        case 'S':
            options->scan = true;
            break;
        case 'l':
            spec->local = true;
            break;
        case 'P':
            options->passphrase = optarg;
            break;
        default:
            exit(2);
        }
    }
    spec->identity_files = options->identities;
    spec->known_hosts = options->known_hosts;
    spec->host_keys = options->host_keys;
    spec->addresses = options->addresses;
    if (argc - optind != 2) {
        exit(2);
    }
    for (char *at = strtok(argv[optind], ","); at != NULL; at = strtok(NULL, ",")) {
        options->addresses[spec->address_count++] = parse_address(at);
    }
    options->command = argv[optind + 1];
    for (size_t i = 0; i < options->jump_count; i++) {
        const struct conn_address *address = options->jumps[i].addresses;
        options->jumps[i] = *spec;
        options->jumps[i].name = "jumphost";
        options->jumps[i].addresses = address;
        options->jumps[i].address_count = 1;
        options->jumps[i].jump = i > 0 ? &options->jumps[i - 1] : NULL;
    }
    if (options->jump_count > 0) {
        spec->jump = &options->jumps[options->jump_count - 1];
    }
}

static int scan(const struct options *options) {
    const struct conn_spec *specs[] = {&options->spec};
    struct host_key_offer *offers = NULL;
    size_t count = 0;
    struct error error = ERROR_INIT;
    int rc = host_keys_scan(specs, 1, &offers, &count, &error);
    for (size_t i = 0; i < count; i++) {
        printf("%s %s %s\n", offers[i].address, offers[i].type, offers[i].fingerprint);
    }
    if (rc == 0) {
        rc = host_keys_accept(offers, count, &error);
    }
    host_key_offers_free(offers, count);
    return rc == 0 ? 0 : NO_SESSION;
}

static struct client *clients;
static unsigned client_count;

static void on_close_timer(uv_timer_t *timer) {
    for (unsigned i = 0; i < client_count; i++) {
        if (clients[i].conn != NULL) {
            conn_close(clients[i].conn);
        }
    }
    uv_close((uv_handle_t *)timer, NULL);
}

static void close_after(uint64_t ms) {
    static uv_timer_t timer;
    uv_timer_init(&loop, &timer);
    uv_timer_start(&timer, on_close_timer, ms, 0);
}

int main(int argc, char **argv) {
    static struct options options;
    signal(SIGPIPE, SIG_IGN);
    parse(&options, argc, argv);
    if (options.scan) {
        return scan(&options);
    }
    struct error error = ERROR_INIT;
    struct keyring *keyring = keyring_new(options.agent ? getenv("SSH_AUTH_SOCK") : NULL);
    keyring_prepare(keyring, options.identities, options.spec.identity_count, ask_passphrase,
                    &options, &error);
    uv_loop_init(&loop);
    struct transport *transport = transport_new(&loop, keyring);
    clients = xcalloc(options.count, sizeof(*clients));
    client_count = options.count;
    for (unsigned i = 0; i < options.count; i++) {
        clients[i].options = &options;
        clients[i].conn = transport_open(transport, &options.spec, &conn_handlers, &clients[i]);
    }
    if (options.close_after_ms > 0) {
        close_after(options.close_after_ms - 1);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    transport_free(transport);
    uv_run(&loop, UV_RUN_DEFAULT);
    int closed = uv_loop_close(&loop);
    keyring_free(keyring);
    int result = 0;
    for (unsigned i = 0; i < options.count; i++) {
        result = clients[i].result != 0 ? clients[i].result : result;
    }
    free(clients);
    fflush(stdout);
    if (closed != 0) {
        fprintf(stderr, "handles were left open\n");
        return 99;
    }
    return result;
}
