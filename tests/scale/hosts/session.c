/* One SSH connection to a played host, on a thread of its own: libssh's server side.
 *
 * A channel is what transport/elevate.c has asked for: it announces itself with the two markers and
 * is then a shell, which takes one script after the other, or `nix-store --serve`. Answers are put
 * off by the host's latency: a channel works when its `due_ms` has come, from the loop and never
 * from libssh's callbacks.
 */
#include <libssh/callbacks.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "tests/pipeline/virtual_time.h"
#include "tests/scale/hosts/host.h"
#include "tests/scale/hosts/script.h"

enum {
    SLOW_MS = 300,
    POLL_TURN_MS = 50,
    IDLE_TURN_MS = 5000,
    DIES_AFTER_BYTES = 20000
};

struct wire {
    struct wire *next;
    struct session *session;
    ssh_channel channel;
    struct ssh_channel_callbacks_struct callbacks;
    char marker[SCRIPT_MARKER_SIZE];
    bool started, announced, serves, ended;
    struct buf in;
    struct store_talk talk;
    uint64_t due_ms;        /* when it works next; UINT64_MAX: when something comes */
    uint64_t poll_until_ms; /* of a guard poll that waits */
};

struct session {
    struct played_host *host;
    ssh_session ssh;
    struct ssh_server_callbacks_struct callbacks;
    struct wire *wires;
    bool dead; /* the connection is to be broken */
};

/* ---- callbacks: they only note what came ---- */

static void set_due(struct wire *wire) {
    if (wire->due_ms == UINT64_MAX) {
        wire->due_ms =
            virtual_time_ms() + (wire->session->host->fault == SLOW ? (uint64_t)SLOW_MS : 0);
    }
}

static int on_data(ssh_session ssh, ssh_channel channel, void *data, uint32_t len, int is_stderr,
                   void *arg) {
    struct wire *wire = arg;
    (void)ssh;
    (void)channel;
    (void)is_stderr;
    if (wire->serves) {
        serve_reader_feed(&wire->talk.reader, data, len);
    } else {
        buf_add(&wire->in, data, len);
    }
    set_due(wire);
    return (int)len;
}

static void on_end(ssh_session ssh, ssh_channel channel, void *arg) {
    struct wire *wire = arg;
    (void)ssh;
    (void)channel;
    wire->ended = true;
    set_due(wire);
}

static int on_exec(ssh_session ssh, ssh_channel channel, const char *command, void *arg) {
    static const char print[] = "printf fleet-%s-%s ";
    struct wire *wire = arg;
    char first[17] = "";
    char second[17] = "";
    (void)ssh;
    (void)channel;
    const char *at = strstr(command, print);
    if (at == NULL || sscanf(at + strlen(print), "%16s %16[0-9a-f]", first, second) != 2) {
        return SSH_ERROR;
    }
    snprintf(wire->marker, sizeof(wire->marker), "fleet-%s-%s", first, second);
    wire->serves = strstr(command, "--serve") != NULL;
    wire->started = true;
    set_due(wire);
    return SSH_OK;
}

static ssh_channel on_channel(ssh_session ssh, void *arg) {
    struct session *session = arg;
    struct wire *wire = xcalloc(1, sizeof(*wire));
    wire->session = session;
    wire->due_ms = UINT64_MAX;
    wire->talk.store = &session->host->store;
    wire->channel = ssh_channel_new(ssh);
    wire->callbacks.userdata = wire;
    wire->callbacks.channel_data_function = on_data;
    wire->callbacks.channel_eof_function = on_end;
    wire->callbacks.channel_close_function = on_end;
    wire->callbacks.channel_exec_request_function = on_exec;
    ssh_callbacks_init(&wire->callbacks);
    ssh_set_channel_callbacks(wire->channel, &wire->callbacks);
    wire->next = session->wires;
    session->wires = wire;
    return wire->channel;
}

/* Any key of anybody's. */
static int on_key(ssh_session ssh, const char *user, struct ssh_key_struct *key, char state,
                  void *arg) {
    (void)ssh;
    (void)user;
    (void)key;
    (void)state;
    (void)arg;
    return SSH_AUTH_SUCCESS;
}

/* ---- work ---- */

static void say(struct wire *wire, const struct buf *out) {
    if (out->len > 0 &&
        ssh_channel_write(wire->channel, out->data, (uint32_t)out->len) != (int)out->len) {
        wire->session->dead = true;
    }
}

static void announce(struct wire *wire) {
    struct buf marker = BUF_INIT;
    buf_add_text(&marker, wire->marker);
    ssh_channel_write_stderr(wire->channel, marker.data, (uint32_t)marker.len);
    say(wire, &marker);
    buf_free(&marker);
    wire->announced = true;
}

static void serve(struct wire *wire) {
    struct played_host *host = wire->session->host;
    struct buf out = BUF_INIT;
    bool well = store_answer(&wire->talk, &out);
    bool dies =
        host->fault == DIES_IN_COPY && !host->has_died && wire->talk.nar_bytes > DIES_AFTER_BYTES;
    host->has_died = host->has_died || dies;
    wire->session->dead = wire->session->dead || dies || !well;
    if (!wire->session->dead) {
        say(wire, &out);
    }
    buf_free(&out);
}

/* What the host's fault makes of a script: its exit status, or 0 where it runs as it should. */
static int spoil(struct wire *wire, const char *name) {
    struct played_host *host = wire->session->host;
    if (host->fault == FULL && strcmp(name, "stage") == 0) {
        static const char words[] = "mkdir: cannot create directory: No space left on device\n";
        ssh_channel_write_stderr(wire->channel, words, sizeof(words) - 1);
        return 1;
    }
    if (host->fault == CUT_IN_ACTIVATION && !host->has_died && strcmp(name, "guard_poll") == 0) {
        host->has_died = true;
        wire->session->dead = true;
    }
    return 0;
}

static void answer(struct wire *wire, const char *marker, struct buf *out, int status) {
    struct buf end = BUF_INIT;
    buf_printf(&end, "%s %d\n", marker, status);
    ssh_channel_write_stderr(wire->channel, end.data, (uint32_t)end.len);
    buf_add(out, end.data, end.len);
    say(wire, out);
    buf_free(&end);
}

static int run(struct wire *wire, const char *name, const struct script_vars *vars,
               struct buf *out) {
    struct machine *machine = &wire->session->host->machine;
    int status = spoil(wire, name);
    if (status != 0 || wire->session->dead) {
        return status;
    }
    status = machine_run(machine, name, vars, out);
    machine_settle(machine);
    if (strstr("guard_start renew commit abort leave", name) != NULL) {
        machine_run(machine, "guard_poll", vars, out);
    }
    return status;
}

static void run_script(struct wire *wire) {
    char marker[SCRIPT_MARKER_SIZE];
    size_t len = script_whole(&wire->in, marker);
    if (len == 0) {
        return;
    }
    AUTO_FREE char *text = xstrndup(wire->in.data, len);
    struct script_vars vars;
    script_parse(text, &vars);
    const char *name = script_name(&vars);
    uint64_t now = virtual_time_ms();
    bool poll = name != NULL && strcmp(name, "guard_poll") == 0;
    if (poll && wire->poll_until_ms == 0) {
        wire->poll_until_ms = now + (uint64_t)atoll(script_var(&vars, "WAIT_MS"));
    }
    if (poll && now < wire->poll_until_ms &&
        machine_poll_waits(&wire->session->host->machine, &vars)) {
        wire->due_ms = now + POLL_TURN_MS;
        script_free(&vars);
        return;
    }
    wire->poll_until_ms = 0;
    buf_consume(&wire->in, len);
    struct buf out = BUF_INIT;
    if (name == NULL) {
        fprintf(stderr, "a script that no played host knows:\n%.600s\n", text);
        wire->session->dead = true;
    }
    int status = name != NULL ? run(wire, name, &vars, &out) : 1;
    if (!wire->session->dead) {
        answer(wire, marker, &out, status);
        set_due(wire); /* the next script may be there already */
    }
    buf_free(&out);
    script_free(&vars);
}

static void work(struct wire *wire) {
    wire->due_ms = UINT64_MAX;
    if (wire->ended) {
        ssh_channel_close(wire->channel);
        return;
    }
    if (!wire->started) {
        return;
    }
    if (!wire->announced) {
        announce(wire);
    }
    if (wire->serves) {
        serve(wire);
    } else {
        run_script(wire);
    }
}

/* Lets every channel work whose time has come; returns the milliseconds until the next one's. */
static int work_all(struct session *session) {
    struct played_host *host = session->host;
    uint64_t next = UINT64_MAX;
    pthread_mutex_lock(&host->mutex);
    for (struct wire *wire = session->wires; wire != NULL && !session->dead; wire = wire->next) {
        if (wire->due_ms <= virtual_time_ms()) {
            work(wire);
        }
        next = wire->due_ms < next ? wire->due_ms : next;
    }
    pthread_mutex_unlock(&host->mutex);
    uint64_t now = virtual_time_ms();
    if (next == UINT64_MAX) {
        return IDLE_TURN_MS;
    }
    return next > now ? (int)(next - now) : 0;
}

/* ---- the connection ---- */

static bool begin(struct session *session, ssh_bind bind, int fd) {
    static pthread_mutex_t binding = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&binding);
    int rc = ssh_bind_accept_fd(bind, session->ssh, fd);
    pthread_mutex_unlock(&binding);
    if (rc != SSH_OK) {
        return false;
    }
    session->callbacks.userdata = session;
    session->callbacks.auth_pubkey_function = on_key;
    session->callbacks.channel_open_request_session_function = on_channel;
    ssh_callbacks_init(&session->callbacks);
    ssh_set_server_callbacks(session->ssh, &session->callbacks);
    ssh_set_auth_methods(session->ssh, SSH_AUTH_METHOD_PUBLICKEY);
    return ssh_handle_key_exchange(session->ssh) == SSH_OK;
}

static void free_wires(struct session *session) {
    while (session->wires != NULL) {
        struct wire *wire = session->wires;
        session->wires = wire->next;
        ssh_channel_free(wire->channel);
        buf_free(&wire->in);
        store_talk_free(&wire->talk);
        free(wire);
    }
}

void session_serve(struct played_host *host, ssh_bind bind, int fd) {
    struct session session = {.host = host, .ssh = ssh_new()};
    ssh_event event = ssh_event_new();
    if (begin(&session, bind, fd) && ssh_event_add_session(event, session.ssh) == SSH_OK) {
        pthread_mutex_lock(&host->mutex);
        host->handshakes++;
        pthread_mutex_unlock(&host->mutex);
        while (!session.dead && ssh_is_connected(session.ssh)) {
            int wait_ms = work_all(&session);
            if (session.dead || ssh_event_dopoll(event, wait_ms) == SSH_ERROR) {
                break;
            }
        }
        ssh_event_remove_session(event, session.ssh);
    }
    if (session.dead) {
        shutdown(fd, SHUT_RDWR);
    }
    free_wires(&session);
    ssh_disconnect(session.ssh);
    ssh_free(session.ssh);
    ssh_event_free(event);
}
