/* A pass: the union of what its members lack, read once and fanned out.
 *
 * Where the source is this machine's own store its archives come as blocks from the program's one
 * reader (nar_feed.h), else from a serve process that answers dump requests in order; a few are
 * kept in flight. Bytes are gathered as long as the same members receive them, so many small paths
 * travel in one chunk, which all receivers' queues then share (copy_gather.c). Reading pauses while
 * the slowest receiver's queue is full; who keeps others waiting for COPY_SLOW_MS leaves
 * (copy_job_fall_behind).
 *
 * Members join only at the start: a path may be sent only where all that it refers to has been.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "transport/copy_internal.h"

#define IN_FLIGHT_PATHS 64u
#define IN_FLIGHT_BYTES (8u * 1024u * 1024u)
#define GATHER_MS       300u /* how long the first waits for others that are still being asked */
#define TURN_BYTES      (2u * 1024u * 1024u) /* taken from the port in one turn of the loop */
#define SOURCE_STALL_MS 60000u
#define SOURCE_IDLE_MS  30000u

/* In which forms members want the path; 0 when nobody lacks it. */
static unsigned forms_wanted(const struct copy_pass *pass, uint32_t index) {
    unsigned forms = 0;
    for (size_t i = 0; i < pass->member_count; i++) {
        if (copy_job_lacks(pass->members[i], index)) {
            forms |= pass->members[i]->packed ? NAR_PACKED : NAR_RAW;
        }
    }
    return forms;
}

static void ask_nar(struct copy_pass *pass, uint32_t index, unsigned forms) {
    const struct path_info *info = path_registry_info(pass->copier->registry, index);
    pass->in_flight++;
    pass->in_flight_bytes += info->nar_size;
    if (pass->direct) {
        nar_port_ask(pass->port, index, info, forms);
    } else {
        copy_source_ask_nar(pass->source, index);
    }
}

static void ask_more(struct copy_pass *pass) {
    while (pass->active && pass->next_ask < pass->order_count &&
           pass->in_flight < IN_FLIGHT_PATHS && pass->in_flight_bytes < IN_FLIGHT_BYTES) {
        uint32_t index = pass->order[pass->next_ask++];
        unsigned forms = forms_wanted(pass, index);
        if (forms != 0) {
            ask_nar(pass, index, forms);
        }
    }
}

/* The receivers of a path; what is gathered goes out first if they are others than before. */
static void begin_path(struct copy_pass *pass, uint32_t index) {
    size_t count = 0;
    for (size_t i = 0; i < pass->member_count; i++) {
        if (copy_job_lacks(pass->members[i], index)) {
            pass->next_receivers[count++] = pass->members[i];
        }
    }
    if (count != pass->receiver_count ||
        memcmp(pass->receivers, pass->next_receivers, count * sizeof(struct copy_job *)) != 0) {
        copy_pass_flush(pass);
        struct copy_job **old = pass->receivers;
        pass->receivers = pass->next_receivers;
        pass->next_receivers = old;
        pass->receiver_count = count;
    }
    pass->current = index;
    if (count == 0) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        copy_job_path_begin(pass->receivers[i], index);
    }
    if (!pass->direct) { /* blocks of the feed bring it */
        struct buf header = BUF_INIT;
        serve_put_add(&header, path_registry_info(pass->copier->registry, index));
        copy_pass_gather(pass, header.data, header.len);
        buf_free(&header);
    }
}

static void path_read(struct copy_pass *pass, uint32_t index) {
    pass->current = PATH_UNKNOWN;
    pass->in_flight--;
    pass->in_flight_bytes -= path_registry_info(pass->copier->registry, index)->nar_size;
}

/* The receivers' books after a piece of the path at hand. */
static void count_piece(struct copy_pass *pass, uint64_t nar_bytes, bool last) {
    for (size_t i = 0; i < pass->receiver_count; i++) {
        pass->receivers[i]->current_bytes += nar_bytes;
        if (last) {
            copy_job_path_end(pass->receivers[i]);
        }
    }
    if (last) {
        path_read(pass, pass->current);
    }
}

static void on_nar(uint32_t index, const char *data, size_t len, bool last, void *arg) {
    struct copy_pass *pass = arg;
    if (pass->current != index) {
        begin_path(pass, index);
    }
    if (pass->receiver_count > 0) {
        copy_pass_gather(pass, data, len);
    }
    count_piece(pass, len, last);
}

static void on_bad_path(uint32_t index, const struct error *error, void *arg) {
    struct copy_pass *pass = arg;
    for (size_t i = pass->member_count; i-- > 0;) {
        if (copy_job_lacks(pass->members[i], index)) {
            copy_job_fail(pass->members[i], error);
        }
    }
    path_read(pass, index);
}

static void pass_end(struct copy_pass *pass) {
    pass->active = false;
    pass->paused = false;
    pass->current = PATH_UNKNOWN;
    pass->receiver_count = 0;
    pass->raw.len = 0;
    pass->packed.len = 0;
    size_t count = pass->member_count;
    pass->member_count = 0;
    for (size_t i = 0; i < count; i++) {
        copy_job_pass_over(pass->members[i]);
    }
    free(pass->order);
    pass->order = NULL;
    pass->order_count = 0;
    copier_wake(pass->copier);
}

static void set_paused(struct copy_pass *pass, bool paused) {
    pass->paused = paused;
    if (!pass->direct) {
        copy_source_pause(pass->source, paused);
    } else if (!paused) {
        nar_port_poke(pass->port);
    }
}

static void check_queues(struct copy_pass *pass) {
    size_t limit = pass->paused ? COPY_QUEUE_LOW : COPY_QUEUE_HIGH;
    bool full = false;
    for (size_t i = 0; i < pass->member_count; i++) {
        full = full || copy_job_backlog(pass->members[i]) > limit;
    }
    if (full != pass->paused) {
        set_paused(pass, full);
    }
}

static void on_batch(void *arg) {
    struct copy_pass *pass = arg;
    copy_pass_flush(pass);
    if (!pass->active) {
        return;
    }
    ask_more(pass);
    if (pass->next_ask == pass->order_count && pass->in_flight == 0) {
        pass_end(pass);
        return;
    }
    check_queues(pass);
}

void copy_pass_drained(struct copy_pass *pass) {
    if (pass->paused) {
        check_queues(pass);
    }
}

/* What was in flight is lost: what is lacked still is read again. */
static void read_again(struct copy_pass *pass) {
    pass->current = PATH_UNKNOWN;
    pass->in_flight = 0;
    pass->in_flight_bytes = 0;
    pass->next_ask = 0;
    pass->paused = false;
    if (pass->active && pass->member_count > 0) {
        ask_more(pass);
    }
}

static void on_failed(uint32_t index, const struct error *error, void *arg) {
    struct copy_pass *pass = arg;
    /* Known to be one path's fault: only who lacks that path fails, the rest is read again. */
    for (size_t i = pass->member_count; i-- > 0;) {
        if (index == PATH_UNKNOWN || copy_job_lacks(pass->members[i], index)) {
            copy_job_fail(pass->members[i], error);
        }
    }
    read_again(pass);
}

/* The files can't be opened here although their store has the path: it must lie elsewhere (another
 * root, no permission). Whoever serves that store knows; nothing of the path has been sent. */
static void fall_back(struct copy_pass *pass) {
    nar_port_cancel(pass->port);
    copy_pass_flush(pass);
    pass->direct = false;
    free(pass->copier->root);
    pass->copier->root = NULL;
    read_again(pass);
}

/* Takes one block; false when there is none. */
static bool take_block(struct copy_pass *pass, size_t *taken) {
    uint32_t index;
    struct nar_block block;
    bool begun;
    struct error error = ERROR_INIT;
    int got = nar_port_next(pass->port, &index, &block, &begun, &error);
    if (got == 0) {
        return false;
    }
    if (got == FLEET_ERR_SYSTEM && !begun) {
        fall_back(pass);
        return false;
    }
    if (got < 0) {
        on_bad_path(index, &error, pass);
        return true;
    }
    if (pass->current != index) {
        begin_path(pass, index);
    }
    *taken += block.nar_bytes;
    copy_pass_take_block(pass, &block);
    count_piece(pass, block.nar_bytes, block.last);
    return true;
}

static void on_port_ready(void *arg) {
    struct copy_pass *pass = arg;
    if (!pass->active || !pass->direct || pass->paused) {
        return;
    }
    size_t taken = 0;
    pass->port_ms = uv_now(pass->copier->loop);
    while (taken < TURN_BYTES && take_block(pass, &taken)) {
    }
    if (pass->direct && taken >= TURN_BYTES) {
        nar_port_poke(pass->port);
    }
    on_batch(pass);
}

static void on_closure(const char *top, const struct error *error, void *arg) {
    struct copier *copier = ((struct copy_pass *)arg)->copier;
    for (struct closure_wait *wait = copier->waits; wait != NULL && error != NULL;
         wait = wait->next) {
        if (strcmp(wait->top, top) == 0) {
            wait->failed = true;
            wait->error = *error;
        }
    }
    for (struct copy_job *job = copier->first_job; job != NULL && error != NULL; job = job->next) {
        if (job->state == COPY_CLOSURE && strcmp(job->top, top) == 0) {
            copy_job_fail(job, error);
        }
    }
    copier_wake(copier);
}

static const struct copy_source_handlers source_handlers = {
    .on_nar = on_nar,
    .on_bad_path = on_bad_path,
    .on_batch = on_batch,
    .on_closure = on_closure,
    .on_failed = on_failed,
};

void copy_pass_init(struct copy_pass *pass, struct copier *copier, enum copy_lane lane,
                    struct conn *source, const char *command, const char *name) {
    pass->copier = copier;
    pass->lane = lane;
    pass->current = PATH_UNKNOWN;
    pass->source = copy_source_new(copier->loop, source, command, name, copier->registry,
                                   &source_handlers, pass);
}

void copy_pass_release(struct copy_pass *pass) {
    copy_source_free(pass->source);
    pass->source = NULL;
    nar_port_close(pass->port);
    pass->port = NULL;
    zstd_packer_free(pass->packer);
    pass->packer = NULL;
    copy_pass_drop_gathered(pass);
    free(pass->members);
    free(pass->receivers);
    free(pass->next_receivers);
    free(pass->order);
}

/* May this pass serve the job? */
static bool suits(const struct copy_pass *pass, const struct copy_job *job) {
    return !job->closed && (job->lane == COPY_LANE_SLOW) == (pass->lane == COPY_LANE_SLOW);
}

/* A pass beside others that run; each has more patience than the one before, since more hosts may
 * come yet, and there is an end to the passes. */
static bool is_extra(const struct copy_pass *pass) {
    return pass->lane != COPY_LANE_MAIN && pass->lane != COPY_LANE_SLOW;
}

/* True when nobody else is about to know what it lacks, or the first has waited long enough. */
static bool is_time(const struct copy_pass *pass, uint64_t now_ms, size_t *ret_waiting) {
    bool others = is_extra(pass);
    uint64_t patience_ms = is_extra(pass) ? GATHER_MS << pass->lane : GATHER_MS;
    bool patient = true;
    *ret_waiting = 0;
    for (const struct copy_job *job = pass->copier->first_job; job != NULL; job = job->next) {
        if (!suits(pass, job)) {
            continue;
        }
        if (job->state == COPY_WAITING) {
            ++*ret_waiting;
            patient = patient && now_ms - job->since_ms < patience_ms;
        }
        others = others || job->state == COPY_ASKING || job->state == COPY_CLOSURE ||
                 job->state == COPY_OPENING;
    }
    return *ret_waiting > 0 && !(others && patient);
}

static void collect_order(struct copy_pass *pass) {
    uint32_t total = path_registry_count(pass->copier->registry);
    pass->order = xcalloc(total, sizeof(pass->order[0]));
    AUTO_FREE uint8_t *wanted = xcalloc(total / 8 + 1, 1);
    for (size_t i = 0; i < pass->member_count; i++) {
        const struct closure *closure = pass->members[i]->closure;
        uint32_t bytes = path_registry_indices(closure)[closure->count - 1] / 8 + 1;
        for (uint32_t byte = 0; byte < bytes; byte++) {
            wanted[byte] |= pass->members[i]->missing[byte];
        }
    }
    pass->order_count = 0;
    for (uint32_t index = 0; index < total; index++) {
        if ((wanted[index / 8] & (1u << (index % 8))) != 0) {
            pass->order[pass->order_count++] = index;
        }
    }
}

void copy_pass_start(struct copy_pass *pass, uint64_t now_ms) {
    size_t waiting;
    if (pass->active || (is_extra(pass) && pass->copier->root == NULL) ||
        !is_time(pass, now_ms, &waiting)) {
        return;
    }
    pass->members = xrealloc(pass->members, waiting * sizeof(struct copy_job *));
    pass->receivers = xrealloc(pass->receivers, waiting * sizeof(struct copy_job *));
    pass->next_receivers = xrealloc(pass->next_receivers, waiting * sizeof(struct copy_job *));
    for (struct copy_job *job = pass->copier->first_job; job != NULL; job = job->next) {
        if (suits(pass, job) && job->state == COPY_WAITING) {
            job->lane = pass->lane;
            job->state = COPY_SENDING;
            job->since_ms = now_ms;
            job->active_ms = now_ms;
            job->slow_ms = 0;
            pass->members[pass->member_count++] = job;
        }
    }
    collect_order(pass);
    pass->active = true;
    pass->direct = pass->copier->root != NULL;
    if (pass->direct && pass->port == NULL) {
        pass->port = nar_port_new(pass->copier->loop, pass->copier->root, on_port_ready, pass);
    }
    pass->port_ms = now_ms;
    pass->paused = false;
    pass->next_ask = 0;
    pass->in_flight = 0;
    pass->in_flight_bytes = 0;
    pass->receiver_count = 0;
    ask_more(pass);
}

static size_t without(struct copy_job **list, size_t count, const struct copy_job *job) {
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (list[i] != job) {
            list[kept++] = list[i];
        }
    }
    return kept;
}

void copy_pass_leave(struct copy_pass *pass, struct copy_job *job) {
    pass->member_count = without(pass->members, pass->member_count, job);
    pass->receiver_count = without(pass->receivers, pass->receiver_count, job);
    copier_wake(pass->copier);
}

/* A full queue counts against its owner only while another member runs dry because of it. */
static void watch_slow(struct copy_pass *pass, uint64_t elapsed_ms) {
    bool starving = false;
    for (size_t i = 0; i < pass->member_count; i++) {
        starving = starving || copy_job_backlog(pass->members[i]) < STREAM_LOW_WATER;
    }
    for (size_t i = pass->member_count; i-- > 0;) {
        struct copy_job *job = pass->members[i];
        bool holds_up = pass->paused && starving && copy_job_backlog(job) > COPY_QUEUE_LOW;
        if (holds_up) {
            job->slow_ms += elapsed_ms;
        } else {
            job->slow_ms -= elapsed_ms / 2 < job->slow_ms ? elapsed_ms / 2 : job->slow_ms;
        }
        if (job->slow_ms > COPY_SLOW_MS && pass->member_count > 1) {
            copy_job_fall_behind(job);
        }
    }
}

/* This machine's own disk hangs: who has waited for long enough fails. */
static void watch_port(struct copy_pass *pass) {
    if (!pass->direct || pass->paused || pass->in_flight == 0) {
        return;
    }
    for (size_t i = pass->member_count; i-- > 0;) {
        struct error error = ERROR_INIT;
        if (nar_port_hangs(pass->port, copy_job_stall_ms(pass->members[i]), &error)) {
            copy_job_fail(pass->members[i], &error);
        }
    }
}

void copy_pass_tick(struct copy_pass *pass, uint64_t now_ms, uint64_t elapsed_ms) {
    if (copy_source_is_waiting(pass->source) &&
        now_ms - copy_source_active_ms(pass->source) > SOURCE_STALL_MS) {
        copy_source_stalled(pass->source, SOURCE_STALL_MS);
    }
    if (pass->active && pass->member_count == 0) {
        /* Nobody wants the rest. What is in flight would only be in the next pass's way. */
        if (pass->in_flight > 0 && pass->direct) {
            nar_port_cancel(pass->port);
        } else if (pass->in_flight > 0) {
            copy_source_restart(pass->source);
        }
        pass_end(pass);
    } else if (pass->active) {
        watch_slow(pass, elapsed_ms);
        watch_port(pass);
        check_queues(pass);
    }
    if (!pass->active && now_ms - copy_source_active_ms(pass->source) > SOURCE_IDLE_MS) {
        copy_source_rest(pass->source);
    }
    if (!pass->active && now_ms - pass->port_ms > SOURCE_IDLE_MS) {
        nar_port_close(pass->port);
        pass->port = NULL;
    }
}
