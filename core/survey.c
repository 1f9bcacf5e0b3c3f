/* Kept connections to a fleet at rest (see survey.h).
 *
 * A place a host: closed ─► waiting ─► opening ─► idle ─► asking ─► idle ... A connection that fails
 * or breaks is tried again after the interval, longer each time up to a minute, so that a host that
 * is down costs little. At most `opening` connections are made at once, in the order in which they
 * came to wait. Close once: the survey is freed when the last connection and the last timer have
 * closed.
 */
#include "core/survey.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/xalloc.h"

#define EVERY_DEFAULT_MS 5000u
#define RETRY_MAX_MS     60000u
#define OPENING_DEFAULT  32u
/* A host that says nothing for so long is asked over another connection. */
#define ANSWER_MS    60000u
#define ADDRESS_SIZE 128

enum place_state {
    PLACE_CLOSED,  /* till its timer fires */
    PLACE_WAITING, /* for its turn to connect */
    PLACE_OPENING,
    PLACE_IDLE, /* till its timer fires */
    PLACE_ASKING
};

struct place {
    struct survey *survey;
    size_t index;
    enum place_state state;
    uv_timer_t timer;
    struct elevation elevation;
    struct conn *conn; /* NULL but in OPENING, IDLE, ASKING */
    struct shell *shell;
    struct status_query *query;
    uint64_t began_ms;
    uint32_t failures; /* in a row */
    char address[ADDRESS_SIZE];
};

struct survey {
    uv_loop_t *loop;
    struct survey_options options;
    struct transport *transport;
    struct place *places;
    uint32_t opening;
    size_t next_waiting; /* where the search for the next to connect begins */
    uv_timer_t turn;     /* opens what waits, off everybody's call stack */
    size_t open_handles;
    survey_look_fn looked;
    void *arg;
    bool stopping;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

static void ask(struct place *place);

/* ---- ends ---- */

static void on_transport_idle(uv_handle_t *handle) {
    struct survey *survey = handle->data;
    void (*stopped)(void *arg) = survey->stopped;
    void *arg = survey->stopped_arg;
    transport_free(survey->transport);
    free(survey->places);
    free(survey);
    stopped(arg);
}

static void release_handle(struct survey *survey) {
    survey->open_handles--;
    if (survey->stopping && survey->open_handles == 0) {
        uv_close((uv_handle_t *)&survey->turn, on_transport_idle);
    }
}

static void on_conn_closed(void *arg) {
    const struct place *place = arg;
    release_handle(place->survey);
}

static void on_timer_closed(uv_handle_t *handle) {
    struct place *place = handle->data;
    release_handle(place->survey);
}

/* ---- the order in which connections are made ---- */

static void on_turn(uv_timer_t *timer);

static void wake(struct survey *survey) {
    if (!survey->stopping) {
        uv_timer_start(&survey->turn, on_turn, 0, 0);
    }
}

static void wait_to_open(struct place *place) {
    place->state = PLACE_WAITING;
    wake(place->survey);
}

static uint64_t interval_of(const struct survey *survey) {
    return survey->options.every_ms > 0 ? survey->options.every_ms : EVERY_DEFAULT_MS;
}

static void on_timer(uv_timer_t *timer);

/* Closes the connection, and comes back for another when it is time. */
static void close_place(struct place *place) {
    struct survey *survey = place->survey;
    if (place->state == PLACE_OPENING) {
        survey->opening--;
        wake(survey);
    }
    uv_timer_stop(&place->timer);
    status_query_stop(place->query);
    place->query = NULL;
    if (place->shell != NULL) {
        shell_close(place->shell);
        place->shell = NULL;
    }
    struct conn *conn = place->conn;
    place->conn = NULL;
    place->state = PLACE_CLOSED;
    if (conn != NULL) {
        conn_close(conn);
    }
}

static void tell(struct place *place, const struct status_answer *answer, const struct error *error,
                 bool connected) {
    struct survey *survey = place->survey;
    struct survey_look look = {.host = place->index,
                               .answer = answer,
                               .error = error,
                               .connected = connected,
                               .duration_ms = clock_now_ms(&clock_system) - place->began_ms};
    survey->looked(&look, survey->arg);
}

/* Tells why, and tries again later. */
static void fail(struct place *place, const struct error *error) {
    struct survey *survey = place->survey;
    bool connected = place->state == PLACE_IDLE || place->state == PLACE_ASKING;
    close_place(place);
    uint32_t doublings = place->failures < 8 ? place->failures : 8;
    uint64_t wait = interval_of(survey) << doublings;
    place->failures++;
    uint64_t most = interval_of(survey) > RETRY_MAX_MS ? interval_of(survey) : RETRY_MAX_MS;
    uv_timer_start(&place->timer, on_timer, wait < most ? wait : most, 0);
    tell(place, NULL, error, connected);
}

/* ---- asking ---- */

static void on_answer(const struct status_answer *answer, const struct error *error, void *arg) {
    struct place *place = arg;
    if (answer == NULL) {
        struct error why = *error; /* it belongs to the shell, which goes */
        fail(place, &why);
        return;
    }
    struct survey *survey = place->survey;
    uv_timer_stop(&place->timer);
    place->failures = 0;
    place->state = PLACE_IDLE;
    uv_timer_start(&place->timer, on_timer, interval_of(survey), 0);
    tell(place, answer, NULL, true);
    if (survey->stopping || place->state != PLACE_IDLE) {
        return; /* the callback has stopped the survey, or asked again */
    }
    if (!status_query_stop(place->query)) {
        shell_close(place->shell);
        place->shell = NULL;
    }
    place->query = NULL;
}

static void ask(struct place *place) {
    struct survey *survey = place->survey;
    if (!status_query_stop(place->query)) {
        shell_close(place->shell);
        place->shell = NULL;
    }
    if (place->shell == NULL) {
        place->shell = shell_open(survey->loop, place->conn, &place->elevation);
    }
    place->state = PLACE_ASKING;
    place->began_ms = clock_now_ms(&clock_system);
    uv_timer_start(&place->timer, on_timer, ANSWER_MS, 0);
    struct status_question question = {
        .loop = survey->loop,
        .conn = place->conn,
        .shell = place->shell,
        .elevation = &place->elevation,
        .inv = survey->options.hosts[place->index],
        .address = place->address,
        .desired = survey->options.desired != NULL ? survey->options.desired[place->index] : NULL,
        .probe = survey->options.probe};
    place->query = status_query_start(&question, on_answer, place);
}

static void on_timer(uv_timer_t *timer) {
    struct place *place = container_of(timer, struct place, timer);
    struct error error = ERROR_INIT;
    switch (place->state) {
    case PLACE_CLOSED:
        wait_to_open(place);
        break;
    case PLACE_IDLE:
        ask(place);
        break;
    case PLACE_ASKING:
        error_set(&error, FLEET_ERR_TIMEOUT, "timeout", "gave no answer within %u s",
                  ANSWER_MS / 1000);
        fail(place, &error);
        break;
    case PLACE_WAITING:
    case PLACE_OPENING:
        break;
    }
}

/* ---- connecting ---- */

static void on_ready(const char *address, void *arg) {
    struct place *place = arg;
    size_t len = strnlen(address, sizeof(place->address) - 1);
    memcpy(place->address, address, len);
    place->address[len] = '\0';
    place->survey->opening--;
    wake(place->survey);
    ask(place);
}

static void on_lost(const struct error *error, void *arg) {
    struct error why = *error;
    fail(arg, &why);
}

static void open_place(struct place *place) {
    static const struct conn_handlers handlers = {
        .on_ready = on_ready, .on_lost = on_lost, .on_closed = on_conn_closed};
    struct survey *survey = place->survey;
    const struct inv_host *inv = survey->options.hosts[place->index];
    struct error error = ERROR_INIT;
    place->began_ms = clock_now_ms(&clock_system);
    if (spec_elevation(survey->options.specs, inv, &place->elevation, &error) != 0) {
        fail(place, &error);
        return;
    }
    place->state = PLACE_OPENING;
    survey->opening++;
    survey->open_handles++;
    place->conn =
        transport_open(survey->transport, spec_of(survey->options.specs, inv), &handlers, place);
}

static void on_turn(uv_timer_t *timer) {
    struct survey *survey = timer->data;
    uint32_t most = survey->options.opening > 0 ? survey->options.opening : OPENING_DEFAULT;
    for (size_t i = 0; i < survey->options.host_count && survey->opening < most; i++) {
        size_t at = (survey->next_waiting + i) % survey->options.host_count;
        if (survey->places[at].state == PLACE_WAITING) {
            open_place(&survey->places[at]);
            survey->next_waiting = at + 1;
        }
        if (survey->stopping) {
            return;
        }
    }
}

/* ---- the outside ---- */

struct survey *survey_new(uv_loop_t *loop, const struct survey_options *options,
                          survey_look_fn looked, void *arg) {
    struct survey *survey = xcalloc(1, sizeof(*survey));
    survey->loop = loop;
    survey->options = *options;
    survey->looked = looked;
    survey->arg = arg;
    survey->transport = transport_new(loop, options->keyring);
    survey->places = xcalloc(options->host_count + 1, sizeof(*survey->places));
    uv_timer_init(loop, &survey->turn);
    survey->turn.data = survey;
    for (size_t i = 0; i < options->host_count; i++) {
        struct place *place = &survey->places[i];
        place->survey = survey;
        place->index = i;
        place->state = PLACE_WAITING;
        uv_timer_init(loop, &place->timer);
        place->timer.data = place;
        survey->open_handles++;
    }
    wake(survey);
    return survey;
}

static void ask_now(struct place *place) {
    if (place->state == PLACE_IDLE) {
        uv_timer_start(&place->timer, on_timer, 0, 0);
    } else if (place->state == PLACE_CLOSED) {
        place->failures = 0;
        uv_timer_start(&place->timer, on_timer, 0, 0);
    }
}

void survey_ask(struct survey *survey, size_t host) {
    for (size_t i = 0; i < survey->options.host_count; i++) {
        if (host == SIZE_MAX || host == i) {
            ask_now(&survey->places[i]);
        }
    }
}

void survey_every(struct survey *survey, uint64_t every_ms) {
    survey->options.every_ms = every_ms;
}

void survey_stop(struct survey *survey, void (*stopped)(void *arg), void *arg) {
    assert(!survey->stopping);
    survey->stopping = true;
    survey->stopped = stopped;
    survey->stopped_arg = arg;
    uv_timer_stop(&survey->turn);
    for (size_t i = 0; i < survey->options.host_count; i++) {
        struct place *place = &survey->places[i];
        close_place(place);
        uv_close((uv_handle_t *)&place->timer, on_timer_closed);
    }
    if (survey->options.host_count == 0) {
        uv_close((uv_handle_t *)&survey->turn, on_transport_idle);
    }
}
