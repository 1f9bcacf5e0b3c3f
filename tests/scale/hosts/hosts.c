/* Plays a fleet of up to some thousand hosts for the real program: SSH servers on 127.x addresses of
 * this machine, each with a state of its own, delays and faults. Plain executable for Linux, where
 * all of 127.0.0.0/8 is this machine.
 *
 * scale_hosts --dir DIR [OPTION...]
 *   --hosts N          default 100
 *   --port P           default 2222; host I listens on 127.77.(I / 250).(I % 250 + 1)
 *   --packages N --package-bytes B   the new system's closure; default 0: every host has it
 *   --activation-ms MS default 200
 *   --connect-timeout DURATION       of the inventory, default 10s
 *   --fault NAME=FIRST-LAST          repeatable; names: see the table below
 *   --unchanged        the hosts run the new system already
 * Writes into DIR: fleet.json, key, known_hosts, and bin/nix-store, a link to this program that
 * plays the local store. Then it prints "ready" and serves until its stdin ends; then it prints
 * "handshakes N most M": of all hosts, and of the host that had the most.
 *
 * As `nix-store --serve` it serves that closure on stdin and stdout, as large as
 * $SCALE_PACKAGES and $SCALE_PACKAGE_BYTES say; as `nix-store --realise PATH` it prints the path.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "tests/pipeline/virtual_time.h"
#include "tests/scale/hosts/host.h"
#include "tests/scale/hosts/script.h"

enum {
    THREAD_STACK = 256 * 1024,
    FAULTS_MAX = 32,
    HOSTS_MAX = 10000
};

static const char *const fault_names[HOST_FAULT_COUNT] = {
    [FAULTLESS] = "none",
    [REFUSES] = "refuses",
    [SILENT] = "silent",
    [GARBAGE] = "garbage",
    [DROPS_IN_KEX] = "drops-in-kex",
    [SLOW] = "slow",
    [DIES_IN_COPY] = "dies-in-copy",
    [CUT_IN_ACTIVATION] = "cut-in-activation",
    [FAILS_ACTIVATION] = "fails-activation",
    [BREAKS_UNIT] = "breaks-unit",
    [FULL] = "full",
};

struct fault_range {
    enum host_fault fault;
    unsigned first, last;
};

struct settings {
    const char *dir;
    unsigned hosts;
    uint16_t port;
    struct store_contents contents;
    uint64_t activation_ms;
    const char *connect_timeout;
    struct fault_range faults[FAULTS_MAX];
    size_t fault_count;
    bool unchanged;
};

struct visit {
    struct played_host *host;
    ssh_bind bind;
    int fd;
};

/* The machine's own clock, where the pipeline's tests have one of theirs. */
uint64_t virtual_time_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The pipeline's way to a machine; these hosts are reached by SSH, and cut by session.c. */
const struct transport_ops machine_transport_ops = {.open = NULL};

void machine_cut(struct machine *machine) {
    (void)machine;
}

__attribute__((noreturn)) static void die(const char *what) {
    fprintf(stderr, "scale_hosts: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- the folder ---- */

static FILE *create(const char *dir, const char *name) {
    AUTO_FREE char *path = xasprintf("%s/%s", dir, name);
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        die(path);
    }
    return file;
}

static void address_of(unsigned number, char ret_address[INET_ADDRSTRLEN]) {
    snprintf(ret_address, INET_ADDRSTRLEN, "127.77.%u.%u", number / 250 % 250, number % 250 + 1);
}

static void write_inventory(const struct settings *settings) {
    FILE *file = create(settings->dir, "fleet.json");
    char address[INET_ADDRSTRLEN];
    fprintf(file,
            "{\"version\": 1, \"name\": \"scale\",\n"
            " \"defaults\": {\"user\": \"root\", \"port\": %u, \"identity_file\": \"%s/key\",\n"
            "  \"known_hosts\": \"%s/known_hosts\", \"host_key_check\": \"strict\",\n"
            "  \"connect_timeout\": \"%s\",\n"
            "  \"copy\": {\"substitute\": false, \"compress\": \"none\"},\n"
            "  \"system\": {\"path\": \"%s\"}},\n \"hosts\": {\n",
            settings->port, settings->dir, settings->dir, settings->connect_timeout, NEW);
    for (unsigned i = 1; i <= settings->hosts; i++) {
        address_of(i, address);
        fprintf(file, "  \"host-%u\": {\"address\": \"%s\"}%s\n", i, address,
                i < settings->hosts ? "," : "");
    }
    fprintf(file, "}}\n");
    if (fclose(file) != 0) {
        die("fleet.json");
    }
}

/* Makes the hosts' one key and everybody's user key; returns the former for ssh_bind. */
static ssh_key write_keys(const struct settings *settings) {
    ssh_key host_key = NULL;
    ssh_key user_key = NULL;
    char *base64 = NULL;
    char address[INET_ADDRSTRLEN];
    AUTO_FREE char *path = xasprintf("%s/key", settings->dir);
    if (ssh_pki_generate(SSH_KEYTYPE_ED25519, 0, &host_key) != SSH_OK ||
        ssh_pki_generate(SSH_KEYTYPE_ED25519, 0, &user_key) != SSH_OK ||
        ssh_pki_export_privkey_file(user_key, NULL, NULL, NULL, path) != SSH_OK ||
        ssh_pki_export_pubkey_base64(host_key, &base64) != SSH_OK || chmod(path, 0600) != 0) {
        die(path);
    }
    FILE *file = create(settings->dir, "known_hosts");
    for (unsigned i = 1; i <= settings->hosts; i++) {
        address_of(i, address);
        fprintf(file, "[%s]:%u ssh-ed25519 %s\n", address, settings->port, base64);
    }
    if (fclose(file) != 0) {
        die("known_hosts");
    }
    ssh_string_free_char(base64);
    ssh_key_free(user_key);
    return host_key;
}

static void link_store(const struct settings *settings) {
    AUTO_FREE char *bin = xasprintf("%s/bin", settings->dir);
    AUTO_FREE char *path = xasprintf("%s/nix-store", bin);
    char self[4096];
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (len < 0 || (mkdir(bin, 0755) != 0 && errno != EEXIST)) {
        die(bin);
    }
    self[len] = '\0';
    unlink(path);
    if (symlink(self, path) != 0) {
        die(path);
    }
}

/* ---- the hosts ---- */

static enum host_fault fault_of(const struct settings *settings, unsigned number) {
    for (size_t i = 0; i < settings->fault_count; i++) {
        if (number >= settings->faults[i].first && number <= settings->faults[i].last) {
            return settings->faults[i].fault;
        }
    }
    return FAULTLESS;
}

static void init_host(struct played_host *host, unsigned number, const struct settings *settings) {
    *host = (struct played_host){.number = number, .fault = fault_of(settings, number)};
    pthread_mutex_init(&host->mutex, NULL);
    machine_init(&host->machine, NULL);
    host->machine.activation_ms = settings->activation_ms;
    host->machine.activation_rc = host->fault == FAILS_ACTIVATION ? 2 : 0;
    host->machine.breaks_unit = host->fault == BREAKS_UNIT ? "web.service" : NULL;
    if (settings->unchanged) {
        snprintf(host->machine.running, sizeof(host->machine.running), "%s", NEW);
        snprintf(host->machine.profile, sizeof(host->machine.profile), "%s", NEW);
    }
    store_init(&host->store, settings->contents.package_count > 0);
}

static int listen_on(const struct settings *settings, unsigned number) {
    char address[INET_ADDRSTRLEN];
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons(settings->port)};
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address_of(number, address);
    inet_pton(AF_INET, address, &where.sin_addr);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        bind(fd, (const struct sockaddr *)&where, sizeof(where)) != 0 || listen(fd, 64) != 0) {
        die(address);
    }
    return fd;
}

/* ---- connections ---- */

/* Reads what comes until the other side has begun its key exchange, then hangs up. */
static void drop_in_kex(int fd) {
    static const char banner[] = "SSH-2.0-OpenSSH_9.2\r\n";
    char data[4096];
    size_t got = 0;
    if (write(fd, banner, sizeof(banner) - 1) > 0) {
        ssize_t part;
        while (got < 200 && (part = read(fd, data, sizeof(data))) > 0) {
            got += (size_t)part;
        }
    }
    close(fd);
}

static void talk_garbage(int fd) {
    char data[4096];
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (char)(i * 37 % 251);
    }
    if (write(fd, data, sizeof(data)) > 0) {
        while (read(fd, data, sizeof(data)) > 0) {
        }
    }
    close(fd);
}

static void *visit_main(void *arg) {
    struct visit *visit = arg;
    switch (visit->host->fault) {
    case SILENT:
        break; /* left open */
    case GARBAGE:
        talk_garbage(visit->fd);
        break;
    case DROPS_IN_KEX:
        drop_in_kex(visit->fd);
        break;
    case FAULTLESS:
    case REFUSES:
    case SLOW:
    case DIES_IN_COPY:
    case CUT_IN_ACTIVATION:
    case FAILS_ACTIVATION:
    case BREAKS_UNIT:
    case FULL:
    case HOST_FAULT_COUNT:
        session_serve(visit->host, visit->bind, visit->fd);
        break;
    }
    free(visit);
    return NULL;
}

static void accept_one(struct played_host *host, ssh_bind bind, int listener) {
    int on = 1;
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
        return;
    }
    setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, sizeof(on));
    struct visit *visit = xmalloc(sizeof(*visit));
    *visit = (struct visit){.host = host, .bind = bind, .fd = fd};
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, THREAD_STACK);
    if (pthread_create(&thread, &attributes, visit_main, visit) != 0) {
        die("a thread");
    }
    pthread_attr_destroy(&attributes);
}

static ssh_bind make_bind(ssh_key host_key) {
    ssh_bind bind = ssh_bind_new();
    bool no_config = false;
    ssh_bind_options_set(bind, SSH_BIND_OPTIONS_PROCESS_CONFIG, &no_config);
    if (bind == NULL || ssh_bind_options_set(bind, SSH_BIND_OPTIONS_IMPORT_KEY, host_key) != 0) {
        die("ssh_bind");
    }
    return bind;
}

/* Serves until stdin ends. The last entry of `polled` is stdin. */
static void serve_all(struct played_host *hosts, struct pollfd *polled, unsigned count,
                      ssh_bind bind) {
    for (;;) {
        if (poll(polled, count + 1, -1) < 0 && errno != EINTR) {
            die("poll");
        }
        for (unsigned i = 0; i < count; i++) {
            if ((polled[i].revents & POLLIN) != 0) {
                accept_one(&hosts[i], bind, polled[i].fd);
            }
        }
        if (polled[count].revents != 0) {
            return;
        }
    }
}

static void print_handshakes(struct played_host *hosts, unsigned count) {
    unsigned all = 0;
    unsigned most = 0;
    for (unsigned i = 0; i < count; i++) {
        pthread_mutex_lock(&hosts[i].mutex);
        all += hosts[i].handshakes;
        most = hosts[i].handshakes > most ? hosts[i].handshakes : most;
        pthread_mutex_unlock(&hosts[i].mutex);
    }
    printf("handshakes %u most %u\n", all, most);
}

/* ---- command line ---- */

static unsigned long number_of(const char *text, unsigned long max) {
    char *end = NULL;
    unsigned long number = strtoul(text, &end, 10);
    if (*text == '\0' || *end != '\0' || number > max) {
        fprintf(stderr, "scale_hosts: \"%s\" is no number up to %lu\n", text, max);
        exit(2);
    }
    return number;
}

static void add_fault(struct settings *settings, const char *text) {
    size_t len = strcspn(text, "=");
    struct fault_range range = {.fault = HOST_FAULT_COUNT};
    for (int i = 0; i < HOST_FAULT_COUNT; i++) {
        if (strlen(fault_names[i]) == len && strncmp(text, fault_names[i], len) == 0) {
            range.fault = (enum host_fault)i;
        }
    }
    if (range.fault == HOST_FAULT_COUNT || settings->fault_count == FAULTS_MAX ||
        sscanf(text + len, "=%u-%u", &range.first, &range.last) != 2) {
        fprintf(stderr, "scale_hosts: \"%s\" is not NAME=FIRST-LAST of a known fault\n", text);
        exit(2);
    }
    settings->faults[settings->fault_count++] = range;
}

static void read_options(int argc, char **argv, struct settings *settings) {
    static const struct option options[] = {{"dir", 1, NULL, 'd'},
                                            {"hosts", 1, NULL, 'n'},
                                            {"port", 1, NULL, 'p'},
                                            {"packages", 1, NULL, 'k'},
                                            {"package-bytes", 1, NULL, 'b'},
                                            {"activation-ms", 1, NULL, 'a'},
                                            {"connect-timeout", 1, NULL, 'c'},
                                            {"fault", 1, NULL, 'f'},
                                            {"unchanged", 0, NULL, 'u'},
                                            {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'd':
            settings->dir = optarg;
            break;
        case 'n':
            settings->hosts = (unsigned)number_of(optarg, HOSTS_MAX);
            break;
        case 'p':
            settings->port = (uint16_t)number_of(optarg, UINT16_MAX);
            break;
        case 'k':
            settings->contents.package_count = (uint32_t)number_of(optarg, 10000);
            break;
        case 'b':
            settings->contents.package_bytes = number_of(optarg, 1u << 30);
            break;
        case 'a':
            settings->activation_ms = number_of(optarg, 3600000);
            break;
        case 'c':
            settings->connect_timeout = optarg;
            break;
        case 'f':
            add_fault(settings, optarg);
            break;
        case 'u':
            settings->unchanged = true;
            break;
        default:
            exit(2);
        }
    }
    if (settings->dir == NULL) {
        fprintf(stderr, "scale_hosts: --dir DIR is needed; see the head of its source\n");
        exit(2);
    }
}

/* `--realise PATH` prints the path, which is there. */
static bool realise(int argc, char **argv) {
    bool realises = false;
    for (int i = 1; i < argc; i++) {
        realises = realises || strcmp(argv[i], "--realise") == 0;
    }
    for (int i = 1; realises && i < argc; i++) {
        if (strncmp(argv[i], "/nix/store/", 11) == 0) {
            puts(argv[i]);
        }
    }
    return realises;
}

static int play_store(int argc, char **argv) {
    if (realise(argc, argv)) {
        return 0;
    }
    const char *packages = getenv("SCALE_PACKAGES");
    const char *bytes = getenv("SCALE_PACKAGE_BYTES");
    store_contents_set(&(struct store_contents){
        .package_count = packages != NULL ? (uint32_t)number_of(packages, 10000) : 0,
        .package_bytes = bytes != NULL ? number_of(bytes, 1u << 30) : 0});
    return store_serve_stdio();
}

int main(int argc, char **argv) {
    const char *slash = strrchr(argv[0], '/');
    signal(SIGPIPE, SIG_IGN);
    if (strcmp(slash != NULL ? slash + 1 : argv[0], "nix-store") == 0) {
        return play_store(argc, argv);
    }
    struct settings settings = {
        .hosts = 100, .port = 2222, .activation_ms = 200, .connect_timeout = "10s"};
    read_options(argc, argv, &settings);
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    script_init();
    store_contents_set(&settings.contents);
    ssh_bind bind = make_bind(write_keys(&settings));
    write_inventory(&settings);
    link_store(&settings);
    struct played_host *hosts = xcalloc(settings.hosts + 1, sizeof(*hosts));
    struct pollfd *polled = xcalloc(settings.hosts + 1, sizeof(*polled));
    for (unsigned i = 0; i < settings.hosts; i++) {
        init_host(&hosts[i], i + 1, &settings);
        bool deaf = hosts[i].fault == REFUSES;
        polled[i] =
            (struct pollfd){.fd = deaf ? -1 : listen_on(&settings, i + 1), .events = POLLIN};
    }
    polled[settings.hosts] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
    printf("ready\n");
    fflush(stdout);
    serve_all(hosts, polled, settings.hosts, bind);
    print_handshakes(hosts, settings.hosts);
    fflush(stdout);
    _exit(0); /* with the threads of connections that are still open */
}
