/* What `fleet status` prints of a host: a JSON line, or a row of the table and the notes below it.
 */
#ifndef FLEET_CMD_STATUS_SHOW_H
#define FLEET_CMD_STATUS_SHOW_H

#include "cmd/context.h"
#include "core/fan.h"
#include "core/status_query.h"

/* In sync, and every probe that was asked has passed. */
bool status_is_good(const struct status_answer *answer);

/* status_json.c. `probed`: the probes were asked for. */
void status_json_print(const struct inv_host *host, const struct status_answer *answer,
                       bool probed);
/* The same fields, unknown. */
void status_json_print_error(const struct fan_host *host, const char *desired,
                             const struct error *error);

/* status_table.c */
struct status_row {
    char *text;  /* without the host's name */
    char *notes; /* lines, or NULL */
};
void status_row_fill(struct status_row *row, const struct inv_host *host,
                     const struct status_answer *answer, bool probed);
void status_row_fill_error(struct status_row *row, const struct fan_host *host,
                           const struct error *error, bool probed);
void status_row_release(struct status_row *row);
/* One row a host of the selection. */
void status_table_print(const struct context *context, const struct status_row *rows, bool probed);

#endif
