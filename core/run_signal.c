/* Signals: the first drains, the second leaves with the guards armed, the third ends the process.
 * Each says at once what state the fleet is in, and how to go on.
 *
 * A terminal that closes (SIGHUP) is a first signal and never more: a shell and the kernel both send
 * one, and nobody has asked twice. It counts as SIGTERM.
 *
 * Who was stopped (Ctrl-Z) and goes on is told what the hosts' guards may have done meanwhile: that
 * they went back is then no verdict on the version.
 */
#include "core/run_internal.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"

/* "3 healthy, 1 probing, 2 pending", those that need someone first. */
static void add_states(const struct run *run, struct buf *out) {
    bool any = false;
    for (int state = HOST_STATE_COUNT; state-- > 0;) {
        size_t count = rollout_count(run->rollout, (enum host_state)state);
        if (count > 0) {
            buf_printf(out, "%s%zu %s", any ? ", " : "", count,
                       host_state_name((enum host_state)state));
            any = true;
        }
    }
    if (!any) {
        buf_add_text(out, "no hosts");
    }
}

static void tell(struct run *run, const char *what) {
    struct buf line = BUF_INIT;
    buf_printf(&line, "%s. Now: ", what);
    add_states(run, &line);
    buf_printf(&line, ". What is left goes on with: fleet resume %s", run->id);
    run_publish_log(run, SIZE_MAX, "fleet", buf_text(&line), line.len);
    buf_free(&line);
}

static void drain(struct run *run, int number) {
    tell(run, number == SIGHUP
                  ? "the terminal is gone: no more hosts are started, those under way are finished"
                  : "interrupted: no more hosts are started, those under way are finished; once "
                    "more to leave at once, with the guards armed");
    rollout_control(run->rollout, ROLLOUT_CONTROL_DRAIN, SIZE_MAX, run_now_ms());
    run_decide(run);
}

static void exit_now(struct run *run) {
    int code = rollout_exit_code(run->rollout, run->signal);
    run_publish_end(run, code);
    fflush(NULL);
    quick_exit(code); /* which gives the terminal back */
}

void run_interrupt(struct run *run, int number) {
    if (number == SIGHUP && run->signal_count > 0) {
        return;
    }
    run->signal_count++;
    if (run->signal == 0) {
        run->signal = number == SIGHUP ? SIGTERM : number;
    }
    if (run->signal_count == 1) {
        drain(run, number);
    } else if (run->signal_count == 2) {
        tell(run, "leaving: hosts under way go back by themselves unless they are taken up before");
        run_end(run);
    } else {
        exit_now(run);
    }
}

/* Only where a guard may have waited for us. */
static void tell_continued(struct run *run) {
    static const char line[] =
        "fleet was stopped (Ctrl-Z?) and goes on: a host whose guard was not "
        "renewed meanwhile has gone back by itself, which says nothing of "
        "the new version";
    size_t waiting = rollout_count(run->rollout, HOST_ACTIVATING) +
                     rollout_count(run->rollout, HOST_CONFIRMING) +
                     rollout_count(run->rollout, HOST_PROBING);
    if (waiting > 0) {
        run_publish_log(run, SIZE_MAX, "fleet", line, sizeof(line) - 1);
    }
}

static void on_signal(uv_signal_t *handle, int number) {
    if (number == SIGCONT) {
        tell_continued(handle->data);
    } else {
        run_interrupt(handle->data, number);
    }
}

/* Who was told to ignore hang-ups (nohup) does. */
static bool is_ignored(int number) {
    struct sigaction action;
    return sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

void run_watch_signals(struct run *run) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGCONT};
    _Static_assert(ARRAY_LEN(numbers) == ARRAY_LEN(run->signals), "one handle each");
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        uv_signal_init(&run->loop, &run->signals[i]);
        run->signals[i].data = run;
        if (numbers[i] != SIGHUP || !is_ignored(numbers[i])) {
            uv_signal_start(&run->signals[i], on_signal, numbers[i]);
        }
    }
}
