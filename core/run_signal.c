/* Signals: the first drains, the second leaves with the guards armed, the third ends the process.
 */
#include "core/run_internal.h"

#include <stdio.h>
#include <stdlib.h>

void run_on_signal(uv_signal_t *handle, int number) {
    static const char first[] =
        "interrupted: no more hosts are started, those under way are finished. "
        "Once more to leave at once, with the guards armed";
    static const char second[] =
        "leaving: hosts under way go back by themselves unless `fleet resume` "
        "takes them up";
    struct run *run = handle->data;
    run->signal_count++;
    if (run->signal == 0) {
        run->signal = number;
    }
    if (run->signal_count == 1) {
        run_publish_log(run, SIZE_MAX, "fleet", first, sizeof(first) - 1);
        rollout_control(run->rollout, ROLLOUT_CONTROL_DRAIN, SIZE_MAX, run_now_ms());
        run_decide(run);
    } else if (run->signal_count == 2) {
        run_publish_log(run, SIZE_MAX, "fleet", second, sizeof(second) - 1);
        run_end(run);
    } else {
        run_publish_end(run, rollout_exit_code(run->rollout, run->signal));
        fflush(stdout);
        quick_exit(128 + run->signal); /* which gives the terminal back */
    }
}
