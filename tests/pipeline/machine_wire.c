/* A played target as a transport: connections, and streams that understand fleet's scripts.
 *
 * A stream is what elevate.c has asked for: it announces itself with the two markers and is then
 * either a shell or `nix-store --serve`. A shell takes one script after the other, cut at the line
 * that prints the end marker; which script it is is told by its text, the very one that is embedded
 * in the program, so that a script which is never sent as it stands would be noticed.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "target_script.h"
#include "tests/pipeline/machine.h"
#include "tests/pipeline/virtual_time.h"
#include "transport/serve.h"

#define POLL_TURN_MS 100u
#define BOOT_MS      15000u

struct machine_conn {
    struct conn conn;
    struct machine *machine;
    struct machine_conn *next;
    struct conn_handlers handlers;
    void *arg;
    uv_timer_t timer;
    struct wire *streams;
    unsigned number;
    bool up, lost, closed;
};

struct wire {
    struct stream stream;
    struct machine_conn *conn; /* NULL once ended or closed */
    struct machine *machine;
    struct wire *next;
    struct stream_handlers handlers;
    void *arg;
    uv_timer_t timer;
    char marker[64];
    bool announced, serves, writes_store, hangs, asked;
    struct buf in;
    struct serve_reader reader;
    uint64_t poll_until_ms;
};

struct script_vars {
    struct {
        char *name, *value;
    } items[32];
    size_t count;
    const char *body; /* what follows the variables */
};

/* ---- a script's text ---- */

const char *script_var(const struct script_vars *vars, const char *name) {
    for (size_t i = 0; i < vars->count; i++) {
        if (strcmp(vars->items[i].name, name) == 0) {
            return vars->items[i].value;
        }
    }
    return "";
}

/* One NAME='value' with quotes as text_shell_quote writes them; NULL if there is none. */
static const char *take_var(const char *at, char **ret_name, char **ret_value) {
    size_t len = strspn(at, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_");
    if (len == 0 || at[len] != '=' || at[len + 1] != '\'') {
        return NULL;
    }
    struct buf value = BUF_INIT;
    const char *text = at + len + 2;
    for (;;) {
        size_t part = strcspn(text, "'");
        buf_add(&value, text, part);
        text += part + 1;
        if (strncmp(text, "\\''", 3) != 0) {
            break;
        }
        buf_add_char(&value, '\'');
        text += 3;
    }
    *ret_name = xstrndup(at, len);
    *ret_value = buf_take(&value);
    return text + (*text == '\n');
}

static void take_vars(const char *text, struct script_vars *vars) {
    const char *at = text + strcspn(text, "\n") + 1;
    const char *next;
    while (vars->count < ARRAY_LEN(vars->items) &&
           (next = take_var(at, &vars->items[vars->count].name, &vars->items[vars->count].value)) !=
               NULL) {
        vars->count++;
        at = next;
    }
    vars->body = at;
}

static void free_vars(struct script_vars *vars) {
    for (size_t i = 0; i < vars->count; i++) {
        free(vars->items[i].name);
        free(vars->items[i].value);
    }
}

/* True if the lines of a script stand in `body`, those that are only a comment left out. */
static bool body_has(const char *body, const char *script) {
    struct buf lines = BUF_INIT;
    while (*script != '\0') {
        size_t len = strcspn(script, "\n");
        size_t blank = strspn(script, " ");
        if (blank < len && script[blank] != '#') {
            buf_add(&lines, script, len);
            buf_add_char(&lines, '\n');
        }
        script += len + (script[len] == '\n');
    }
    bool has = strstr(body, buf_text(&lines)) != NULL;
    buf_free(&lines);
    return has;
}

static const char *name_of(const struct script_vars *vars) {
    static const struct {
        const char *name, *text;
    } scripts[] = {{"request", target_script_guard_request},
                   {"guard_start", target_script_guard_start},
                   {"guard_poll", target_script_guard_poll},
                   {"commit_now", target_script_commit_now},
                   {"repair", target_script_repair},
                   {"inspect", target_script_inspect},
                   {"lock_take", target_script_lock_take},
                   {"lock_release", target_script_lock_release},
                   {"stage", target_script_stage},
                   {"unstage", target_script_unstage},
                   {"dry_activate", target_script_dry_activate},
                   {"units", target_script_units},
                   {"secret_look", target_script_secret_look},
                   {"secret_put", target_script_secret_put},
                   {"secret_restart", target_script_secret_restart},
                   {"generations", target_script_generations},
                   {"reboot", target_script_reboot}};
    for (size_t i = 0; i < ARRAY_LEN(scripts); i++) {
        if (body_has(vars->body, scripts[i].text)) {
            return i == 0 ? script_var(vars, "REQUEST") : scripts[i].name;
        }
    }
    cr_assert_fail("a script that this machine doesn't know:\n%.2000s", vars->body);
    return "";
}

/* ---- ends ---- */

static void wire_freed(uv_handle_t *handle) {
    struct wire *wire = handle->data;
    buf_free(&wire->in);
    serve_reader_free(&wire->reader);
    wire->machine->streams_open--;
    free(wire);
}

/* Off its connection; nothing is called any more. */
static void wire_release(struct wire *wire) {
    if (wire->conn != NULL) {
        struct wire **slot = &wire->conn->streams;
        while (*slot != wire) {
            slot = &(*slot)->next;
        }
        *slot = wire->next;
        wire->conn = NULL;
    }
    if (!uv_is_closing((uv_handle_t *)&wire->timer)) {
        uv_close((uv_handle_t *)&wire->timer, wire_freed);
    }
}

static void wire_lost(struct wire *wire) {
    struct stream_end end = {.lost = true, .status = -1};
    error_set(&end.error, FLEET_ERR_LOST, "connection-lost", "the connection broke");
    struct stream_handlers handlers = wire->handlers;
    void *arg = wire->arg;
    wire_release(wire);
    handlers.on_end(&end, arg);
}

static void conn_lost(struct machine_conn *conn, enum fleet_err code, const char *why) {
    struct error error = ERROR_INIT;
    error_set(&error, code, code == FLEET_ERR_LOST ? "connection-lost" : "connection-refused", "%s",
              why);
    conn->lost = true;
    conn->up = false;
    while (!conn->closed && conn->streams != NULL) {
        wire_lost(conn->streams);
    }
    if (!conn->closed) {
        conn->handlers.on_lost(&error, conn->arg);
    }
}

/* Connections are lost off the stack of whoever caused it. */
static void on_conn_timer(uv_timer_t *timer);

static void conn_cut(struct machine_conn *conn) {
    if (!conn->closed && !conn->lost && conn->up) {
        conn->lost = true;
        uv_timer_start(&conn->timer, on_conn_timer, 0, 0);
    }
}

void machine_cut(struct machine *machine) {
    for (struct machine_conn *conn = machine->conns; conn != NULL; conn = conn->next) {
        conn_cut(conn);
    }
}

/* ---- a shell ---- */

static void answer(struct wire *wire, const struct buf *out, const char *err_text, int status) {
    struct buf text[2] = {BUF_INIT, BUF_INIT};
    struct stream_handlers handlers = wire->handlers;
    buf_add(&text[0], buf_text(out), out->len);
    buf_add_text(&text[1], err_text);
    for (int i = 0; i < 2; i++) {
        buf_printf(&text[i], "%s %d\n", wire->marker, status);
    }
    wire->asked = false;
    handlers.on_data(2, text[1].data, text[1].len, wire->arg);
    if (wire->conn != NULL) {
        handlers.on_data(1, text[0].data, text[0].len, wire->arg);
    }
    buf_free(&text[0]);
    buf_free(&text[1]);
}

static bool is_quiet(const char *name) {
    return strcmp(name, "guard_poll") == 0 || strcmp(name, "units") == 0;
}

static void act(struct wire *wire, const char *name, const struct script_vars *vars,
                enum fault fault) {
    struct machine *machine = wire->machine;
    struct machine_conn *conn = wire->conn;
    struct buf out = BUF_INIT;
    bool acts = fault == FAULT_NONE || fault == FAULT_CUT_AFTER || fault == FAULT_GONE_AFTER;
    int status = fault == FAULT_FAIL ? 1 : 0;
    if (acts && !is_quiet(name)) {
        buf_printf(&machine->trace, "%s ", name);
    }
    if (acts) {
        status = machine_run(machine, name, vars, &out);
        machine_settle(machine);
        if (strstr("guard_start renew commit abort leave", name) != NULL) {
            machine_run(machine, "guard_poll", vars, &out);
        }
        if (strcmp(name, "renew") == 0 && conn->number < ARRAY_LEN(machine->renewals_by_conn)) {
            machine->renewals_by_conn[conn->number]++;
        }
        if (strcmp(name, "commit") == 0) {
            machine->commit_conn = conn->number;
        }
    }
    if (fault == FAULT_GONE || fault == FAULT_GONE_AFTER) {
        machine->reachable_at_ms = UINT64_MAX;
    }
    if (fault == FAULT_NONE || fault == FAULT_FAIL) {
        answer(wire, &out, fault == FAULT_FAIL ? "sh: broken on purpose\n" : "", status);
    } else if (fault == FAULT_HANG) {
        wire->hangs = true;
    } else {
        machine_cut(machine);
    }
    if (machine->reboots && !machine->stays_up) {
        machine->reboots = false;
        machine_power_cut(machine, BOOT_MS);
    }
    buf_free(&out);
}

/* The first whole script in `in`: its length, 0 if there is none, and its marker. */
static size_t whole_script(struct wire *wire) {
    static const char last[] = "$fleet_status >&2\n";
    static const char print[] = "printf 'fleet-%s-%s %d\\n' ";
    const char *text = buf_text(&wire->in);
    const char *end = strstr(text, last);
    if (end == NULL) {
        return 0;
    }
    const char *at = end - strlen(print) - 34;
    char first[17] = "", second[17] = "";
    cr_assert_eq(sscanf(at + strlen(print), "%16s %16s", first, second), 2);
    snprintf(wire->marker, sizeof(wire->marker), "fleet-%s-%s", first, second);
    return (size_t)(end - text) + strlen(last);
}

static void run_script(struct wire *wire) {
    struct machine *machine = wire->machine;
    size_t len = whole_script(wire);
    struct script_vars vars = {.count = 0};
    take_vars(buf_text(&wire->in), &vars);
    const char *name = name_of(&vars);
    bool poll = strcmp(name, "guard_poll") == 0;
    if (poll && wire->poll_until_ms == 0) {
        wire->poll_until_ms =
            virtual_time_ms() + (uint64_t)strtoll(script_var(&vars, "WAIT_MS"), NULL, 10);
    }
    if (poll && virtual_time_ms() < wire->poll_until_ms && machine_poll_waits(machine, &vars)) {
        uv_timer_start(&wire->timer, wire->timer.timer_cb, POLL_TURN_MS, 0);
        free_vars(&vars);
        return;
    }
    wire->poll_until_ms = 0;
    char *text = xstrndup(buf_text(&wire->in), len);
    buf_consume(&wire->in, len);
    enum fault fault =
        machine->on_script != NULL ? machine->on_script(machine, name, machine->arg) : FAULT_NONE;
    /* The scenario may have cut the connection itself. */
    if (wire->conn != NULL && !wire->conn->lost) {
        act(wire, name, &vars, fault);
    }
    free(text);
    free_vars(&vars);
}

/* ---- nix-store --serve ---- */

static void serve_infos(struct buf *out) {
    serve_put_text(out, NEW);
    serve_put_text(out, "");
    serve_put_int(out, 0);
    serve_put_int(out, 0);
    serve_put_int(out, 120);
    serve_put_text(out, "sha256:0000000000000000000000000000000000000000000000000000");
    serve_put_text(out, "");
    serve_put_int(out, 0);
    serve_put_text(out, "");
}

/* Answers what has come in: the handshake, and closures of one path that every store has. */
static void serve(struct wire *wire) {
    struct machine *machine = wire->machine;
    struct buf out = BUF_INIT;
    const char *name = wire->writes_store ? "serve" : "closures";
    enum fault fault = FAULT_NONE;
    if (machine->on_script != NULL) {
        fault = machine->on_script(machine, name, machine->arg);
    }
    if (wire->conn == NULL || wire->conn->lost) {
        return;
    }
    if (fault == FAULT_HANG) {
        wire->hangs = true;
        return;
    }
    if (fault == FAULT_FAIL) {
        struct stream_end end = {.status = 1};
        struct stream_handlers handlers = wire->handlers;
        void *arg = wire->arg;
        wire_release(wire);
        handlers.on_end(&end, arg);
        return;
    }
    if (fault != FAULT_NONE) {
        machine->reachable_at_ms = fault == FAULT_CUT || fault == FAULT_CUT_AFTER ? 0 : UINT64_MAX;
        machine_cut(machine);
        return;
    }
    struct error error = ERROR_INIT;
    uint64_t op = 0, word = 0, count = 0;
    while (serve_take_int(&wire->reader, &op) == 1) {
        if (op == 0x390c9debu) {
            serve_take_int(&wire->reader, &word);
            serve_put_int(&out, 0x5452eecbu);
            serve_put_int(&out, 0x0207u);
            continue;
        }
        cr_assert(op == 1 || op == 2 || op == 7, "serve command %llu", (unsigned long long)op);
        for (int flags = op == 1 ? 2 : op == 7 ? 1 : 0; flags > 0; flags--) {
            serve_take_int(&wire->reader, &word);
        }
        serve_take_int(&wire->reader, &count);
        bool old = false;
        for (uint64_t i = 0; i < count; i++) {
            char *path = NULL;
            cr_assert_eq(serve_take_text(&wire->reader, &path, &error), 1);
            old = op == 7 && strcmp(path, OLD) == 0;
            cr_assert(old || strcmp(path, NEW) == 0, "%s", path);
            free(path);
        }
        if (op == 2) {
            serve_infos(&out);
        } else {
            serve_put_int(&out, 1);
            serve_put_text(&out, old ? OLD : NEW);
        }
    }
    if (out.len > 0) {
        wire->handlers.on_data(1, out.data, out.len, wire->arg);
    }
    buf_free(&out);
}

/* ---- streams ---- */

static void announce(struct wire *wire) {
    wire->announced = true;
    wire->handlers.on_data(2, wire->marker, strlen(wire->marker), wire->arg);
    if (wire->conn != NULL) {
        wire->handlers.on_data(1, wire->marker, strlen(wire->marker), wire->arg);
    }
}

static void on_wire_timer(uv_timer_t *timer) {
    struct wire *wire = timer->data;
    if (wire->conn == NULL || wire->hangs) {
        return;
    }
    if (wire->conn->lost) {
        if (!wire->conn->up) {
            wire_lost(wire);
        }
    } else if (!wire->announced) {
        announce(wire);
    } else if (wire->serves) {
        serve(wire);
    } else if (whole_script(wire) > 0) {
        run_script(wire);
    }
}

static int wire_write(struct stream *stream, const void *data, size_t len) {
    struct wire *wire = container_of(stream, struct wire, stream);
    if (wire->serves) {
        serve_reader_feed(&wire->reader, data, len);
    } else {
        buf_add(&wire->in, data, len);
    }
    uv_timer_start(&wire->timer, on_wire_timer, wire->machine->latency_ms, 0);
    return 0;
}

static int wire_write_chunk(struct stream *stream, struct chunk *chunk) {
    return wire_write(stream, chunk->data, chunk->len);
}

static size_t wire_queued(const struct stream *stream) {
    (void)stream;
    return 0;
}

static void wire_eof(struct stream *stream) {
    (void)stream;
}

static void wire_pause(struct stream *stream, bool paused) {
    (void)stream;
    (void)paused;
}

static void wire_close(struct stream *stream) {
    wire_release(container_of(stream, struct wire, stream));
}

static const struct stream_ops wire_ops = {.write = wire_write,
                                           .write_chunk = wire_write_chunk,
                                           .queued = wire_queued,
                                           .eof = wire_eof,
                                           .pause = wire_pause,
                                           .close = wire_close};

static struct stream *machine_exec(struct conn *conn, const char *command,
                                   const struct stream_handlers *handlers, void *arg) {
    static const char print[] = "printf fleet-%s-%s ";
    struct machine_conn *self = container_of(conn, struct machine_conn, conn);
    cr_assert(!self->closed, "a stream over a connection that is closed");
    struct wire *wire = xcalloc(1, sizeof(*wire));
    wire->stream.ops = &wire_ops;
    wire->conn = self;
    wire->machine = self->machine;
    wire->handlers = *handlers;
    wire->arg = arg;
    wire->serves = strstr(command, "--serve") != NULL;
    wire->writes_store = strstr(command, "--write") != NULL;
    char first[17] = "", second[17] = "";
    const char *at = strstr(command, print);
    cr_assert_not_null(at);
    cr_assert_eq(sscanf(at + strlen(print), "%16s %16[0-9a-f]", first, second), 2);
    snprintf(wire->marker, sizeof(wire->marker), "fleet-%s-%s", first, second);
    wire->next = self->streams;
    self->streams = wire;
    self->machine->streams_open++;
    uv_timer_init(self->machine->loop, &wire->timer);
    wire->timer.data = wire;
    uv_timer_start(&wire->timer, on_wire_timer, self->machine->latency_ms, 0);
    return &wire->stream;
}

/* ---- connections ---- */

static void conn_freed(uv_handle_t *handle) {
    struct machine_conn *conn = handle->data;
    struct machine_conn **slot = &conn->machine->conns;
    while (*slot != conn) {
        slot = &(*slot)->next;
    }
    *slot = conn->next;
    conn->machine->conns_open--;
    if (conn->handlers.on_closed != NULL) {
        conn->handlers.on_closed(conn->arg);
    }
    free(conn);
}

static void machine_conn_close(struct conn *conn) {
    struct machine_conn *self = container_of(conn, struct machine_conn, conn);
    cr_assert(!self->closed, "a connection is closed twice");
    self->closed = true;
    while (self->streams != NULL) {
        wire_release(self->streams);
    }
    uv_close((uv_handle_t *)&self->timer, conn_freed);
}

static const struct conn_ops machine_conn_ops = {.exec = machine_exec, .close = machine_conn_close};

static void on_conn_timer(uv_timer_t *timer) {
    struct machine_conn *conn = timer->data;
    struct machine *machine = conn->machine;
    if (conn->lost) {
        conn_lost(conn, FLEET_ERR_LOST, "the connection broke");
    } else if (machine->swallow_connections) {
        conn_lost(conn, FLEET_ERR_TIMEOUT, "no answer within connect_timeout");
    } else if (machine->refuse_connections > 0) {
        machine->refuse_connections--;
        conn_lost(conn, FLEET_ERR_UNREACHABLE, "connection refused");
    } else if (virtual_time_ms() < machine->reachable_at_ms) {
        conn_lost(conn, FLEET_ERR_UNREACHABLE, "no route to host");
    } else {
        conn->up = true;
        conn->handlers.on_ready("127.0.0.1", conn->arg);
    }
}

static struct conn *machine_open(struct transport *transport, const struct conn_spec *spec,
                                 const struct conn_handlers *handlers, void *arg) {
    struct machine *machine = container_of(transport, struct machine, transport);
    struct machine_conn *conn = xcalloc(1, sizeof(*conn));
    (void)spec;
    conn->conn.ops = &machine_conn_ops;
    conn->machine = machine;
    conn->handlers = *handlers;
    conn->arg = arg;
    conn->number = ++machine->conns_made;
    conn->next = machine->conns;
    machine->conns = conn;
    machine->conns_open++;
    uv_timer_init(machine->loop, &conn->timer);
    conn->timer.data = conn;
    uint64_t wait = machine->swallow_connections ? 10000 : 2 * machine->latency_ms;
    uv_timer_start(&conn->timer, on_conn_timer, wait, 0);
    return &conn->conn;
}

const struct transport_ops machine_transport_ops = {.open = machine_open};
