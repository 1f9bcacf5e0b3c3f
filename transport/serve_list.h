/* A list of store paths out of a target's answer, while it is being read.
 *
 * The target is hostile: what it names is checked, and of a list that is too long to be a system's
 * closure only the beginning is kept. Embedded by value, zero at first.
 */
#ifndef FLEET_TRANSPORT_SERVE_LIST_H
#define FLEET_TRANSPORT_SERVE_LIST_H

#include "transport/serve.h"

struct serve_list {
    char **paths;
    size_t count;
    uint64_t left; /* still to be read */
    bool begun;
};

/* 1 when the list is complete, else as serve_take_*. `most` is how many paths it may have. */
int serve_list_take(struct serve_list *list, struct serve_reader *reader, uint64_t most,
                    struct error *error);
/* Nothing of a complete list was dropped. */
bool serve_list_is_whole(const struct serve_list *list);
/* Frees the paths; what is left is empty, for the next list. */
void serve_list_free(struct serve_list *list);

#endif
