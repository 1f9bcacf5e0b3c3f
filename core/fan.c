/* One small task on many hosts (see fan.h).
 *
 * A slot a host, all in one array. A slot opens its connection, then its shell, runs the task, and
 * closes; the next host begins when a slot has closed, so that `parallel` bounds the descriptors,
 * not only the tasks. Close once: a slot is gone when its connection and its timer are.
 */
#include "core/fan.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"

#define PARALLEL_DEFAULT 64u
#define SIGNAL_BASE      128
#define ADDRESS_SIZE     128

struct slot {
    struct fan_host host;
    uv_timer_t timer;
    bool done; /* its result is reported */
    char address[ADDRESS_SIZE];
};

struct fan {
    const struct fan_options *options;
    uv_loop_t loop;
    struct transport *transport;
    uv_signal_t signals[2];
    struct slot *slots;
    size_t next;   /* the first host that hasn't begun */
    size_t active; /* slots that haven't closed */
    size_t ended;
    uint32_t parallel;
    int signal; /* the one that interrupted us, or 0 */
    bool filling;
    fan_task task;
    fan_result result;
    void *arg;
};

static void fill_slots(struct fan *fan);

static struct fan *fan_of(const struct slot *slot) {
    return slot->host.fan;
}

static void on_signal_closed(uv_handle_t *handle) {
    (void)handle;
}

static void report(struct slot *slot, const struct error *error) {
    struct fan *fan = fan_of(slot);
    slot->done = true;
    fan->ended++;
    fan->result(&slot->host, error, fan->arg);
    if (fan->ended == fan->options->host_count) {
        uv_close((uv_handle_t *)&fan->signals[0], on_signal_closed);
        uv_close((uv_handle_t *)&fan->signals[1], on_signal_closed);
    }
}

static void on_timer_closed(uv_handle_t *handle) {
    struct fan *fan = handle->data;
    fan->active--;
    fill_slots(fan);
}

static void on_conn_closed(void *arg) {
    struct slot *slot = arg;
    uv_close((uv_handle_t *)&slot->timer, on_timer_closed);
}

static void finish(struct slot *slot, const struct error *error) {
    if (slot->done) {
        return;
    }
    uv_timer_stop(&slot->timer);
    report(slot,
           error); /* while what the task has opened over the connection can still be closed */
    if (slot->host.shell != NULL) {
        shell_close(slot->host.shell);
        slot->host.shell = NULL;
    }
    struct conn *conn = slot->host.conn;
    slot->host.conn = NULL;
    conn_close(conn);
}

void fan_done(struct fan_host *host, const struct error *error) {
    finish(container_of(host, struct slot, host), error);
}

static void on_timeout(uv_timer_t *timer) {
    struct slot *slot = container_of(timer, struct slot, timer);
    struct error error;
    error_set(&error, FLEET_ERR_TIMEOUT, "timeout",
              "gave no answer within %.1f s of being connected; what runs there goes on",
              (double)fan_of(slot)->options->timeout_ms / 1000.0);
    finish(slot, &error);
}

static void on_ready(const char *address, void *arg) {
    struct slot *slot = arg;
    struct fan *fan = fan_of(slot);
    size_t len = strnlen(address, sizeof(slot->address) - 1);
    memcpy(slot->address, address, len);
    slot->host.address = slot->address;
    slot->host.connected = true;
    if (fan->options->shell) {
        slot->host.shell = shell_open(&fan->loop, slot->host.conn, &slot->host.elevation);
    }
    if (fan->options->timeout_ms > 0) {
        uv_timer_start(&slot->timer, on_timeout, fan->options->timeout_ms, 0);
    }
    fan->task(&slot->host, fan->arg);
}

static void on_lost(const struct error *error, void *arg) {
    finish(arg, error);
}

static void on_person(const char *text, void *arg) {
    struct slot *slot = arg;
    const struct fan_options *options = fan_of(slot)->options;
    if (options->person != NULL) {
        options->person(slot->host.inv, text);
    }
}

static const struct conn_handlers handlers = {
    .on_ready = on_ready,
    .on_lost = on_lost,
    .on_closed = on_conn_closed,
    .on_person = on_person,
};

/* A host that nothing can be opened for: reported, and no slot is used up. */
static void begin(struct fan *fan, size_t index) {
    struct slot *slot = &fan->slots[index];
    struct error error = ERROR_INIT;
    if (fan->signal != 0) {
        error_set(&error, FLEET_ERR_CANCELLED, "stopped", "not asked: fleet was interrupted");
        report(slot, &error);
        return;
    }
    if (spec_elevation(fan->options->specs, slot->host.inv, &slot->host.elevation, &error) != 0) {
        report(slot, &error);
        return;
    }
    const struct conn_spec *spec = spec_of(fan->options->specs, slot->host.inv);
    assert(spec != NULL);
    uv_timer_init(&fan->loop, &slot->timer);
    slot->timer.data = fan;
    fan->active++;
    slot->host.conn = transport_open(fan->transport, spec, &handlers, slot);
}

static void fill_slots(struct fan *fan) {
    /* A result may end the last host while we are at it. */
    if (fan->filling) {
        return;
    }
    fan->filling = true;
    while (fan->next < fan->options->host_count && fan->active < fan->parallel) {
        begin(fan, fan->next++);
    }
    fan->filling = false;
}

static void on_signal(uv_signal_t *handle, int number) {
    struct fan *fan = handle->data;
    if (fan->signal != 0) {
        return;
    }
    fan->signal = number;
    struct error error;
    error_set(&error, FLEET_ERR_CANCELLED, "stopped",
              "fleet was interrupted before it had answered; what runs there goes on");
    for (size_t i = 0; i < fan->next; i++) {
        if (!fan->slots[i].done) {
            finish(&fan->slots[i], &error);
        }
    }
    fill_slots(fan);
}

static void watch_signals(struct fan *fan) {
    static const int numbers[] = {SIGINT, SIGTERM};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        uv_signal_init(&fan->loop, &fan->signals[i]);
        fan->signals[i].data = fan;
        uv_signal_start(&fan->signals[i], on_signal, numbers[i]);
    }
}

int fan_run(const struct fan_options *options, fan_task task, fan_result result, void *arg) {
    struct fan fan = {.options = options, .task = task, .result = result, .arg = arg};
    if (options->host_count == 0) {
        return 0;
    }
    fan.parallel = options->parallel != 0 ? options->parallel : PARALLEL_DEFAULT;
    fan.slots = xcalloc(options->host_count, sizeof(*fan.slots));
    int err = uv_loop_init(&fan.loop);
    assert(err == 0);
    (void)err;
    fan.transport = transport_new(&fan.loop, options->keyring);
    for (size_t i = 0; i < options->host_count; i++) {
        fan.slots[i].host = (struct fan_host){
            .index = i, .inv = options->hosts[i], .loop = &fan.loop, .address = "", .fan = &fan};
    }
    watch_signals(&fan);
    fill_slots(&fan);
    uv_run(&fan.loop, UV_RUN_DEFAULT);
    transport_free(fan.transport);
    uv_run(&fan.loop, UV_RUN_DEFAULT);
    err = uv_loop_close(&fan.loop);
    assert(err == 0);
    free(fan.slots);
    return fan.signal != 0 ? SIGNAL_BASE + fan.signal : 0;
}
