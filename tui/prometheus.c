#include "tui/prometheus.h"

#include <stdio.h>

/* A label's value: a backslash, a quote and a line end are escaped, nothing else has a meaning. */
static void add_label(struct buf *out, const char *name, const char *value) {
    buf_printf(out, "%s=\"", name);
    for (; value != NULL && *value != '\0'; value++) {
        if (*value == '\n') {
            buf_add_text(out, "\\n");
            continue;
        }
        if (*value == '"' || *value == '\\') {
            buf_add_char(out, '\\');
        }
        buf_add_char(out, *value);
    }
    buf_add_char(out, '"');
}

static void begin(struct buf *out, const char *name, const char *help) {
    buf_printf(out, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name);
}

/* `ms` as seconds. */
static void add_time(struct buf *out, const struct view *view, const char *name, const char *help,
                     int64_t ms) {
    begin(out, name, help);
    buf_printf(out, "%s{", name);
    add_label(out, "fleet", view->fleet);
    buf_printf(out, "} %lld.%03lld\n", (long long)(ms / 1000), (long long)(ms % 1000));
}

static void add_counts(struct buf *out, const struct view *view) {
    begin(out, "fleet_hosts", "Hosts of the last run by the state that they ended in.");
    for (enum host_state state = 0; state < HOST_STATE_COUNT; state++) {
        buf_add_text(out, "fleet_hosts{");
        add_label(out, "fleet", view->fleet);
        buf_add_char(out, ',');
        add_label(out, "state", host_state_name(state));
        buf_printf(out, "} %zu\n", view_count(view, state));
    }
}

static void add_hosts(struct buf *out, const struct view *view) {
    begin(out, "fleet_host_state", "1 for the state that the host ended in.");
    for (size_t i = 0; i < view->host_count; i++) {
        const struct view_host *host = &view->hosts[i];
        buf_add_text(out, "fleet_host_state{");
        add_label(out, "fleet", view->fleet);
        buf_add_char(out, ',');
        add_label(out, "host", host->name);
        buf_add_char(out, ',');
        add_label(out, "state", host_state_name(host->state));
        buf_add_text(out, "} 1\n");
    }
}

void prometheus_write(const struct view *view, struct buf *out) {
    begin(out, "fleet_run_info", "The last run.");
    buf_add_text(out, "fleet_run_info{");
    add_label(out, "fleet", view->fleet);
    buf_add_char(out, ',');
    add_label(out, "run", view->run);
    buf_add_char(out, ',');
    add_label(out, "action", run_action_name(view->action));
    buf_add_char(out, ',');
    add_label(out, "rev", view->rev);
    buf_add_char(out, ',');
    add_label(out, "result", view->result);
    buf_add_text(out, "} 1\n");
    begin(out, "fleet_run_exit_code", "Exit code of the last run; 0 is good.");
    buf_add_text(out, "fleet_run_exit_code{");
    add_label(out, "fleet", view->fleet);
    buf_printf(out, "} %d\n", view->exit);
    add_time(out, view, "fleet_run_start_timestamp_seconds", "When the last run began.",
             view->started_ms);
    add_time(out, view, "fleet_run_end_timestamp_seconds", "When the last run ended.",
             view->ended_ms);
    add_counts(out, view);
    add_hosts(out, view);
}
