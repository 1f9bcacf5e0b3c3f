#include "cmd/desired.h"

#include <stdlib.h>

#include "cmd/evaluate.h"
#include "core/base/xalloc.h"
#include "core/evaluated.h"
#include "core/status.h"

int desired_find(const struct context *context, char **ret_paths) {
    struct evaluated *evaluated = evaluated_open(context->state_dir, context->inventory);
    int code = EXIT_DONE;
    if (args_count(context->args, OPTION_EVAL) > 0) {
        code = evaluate_hosts(context, ret_paths);
    }
    for (size_t i = 0; i < context->host_count; i++) {
        const struct inv_host *host = context->hosts[i];
        const char *known = status_desired(host);
        if (ret_paths[i] != NULL) {
            evaluated_note(evaluated, host, ret_paths[i]);
            continue;
        }
        if (known == NULL && evaluated != NULL && code == EXIT_DONE) {
            known = evaluated_path(evaluated, host);
        }
        ret_paths[i] = known != NULL ? xstrdup(known) : NULL;
    }
    evaluated_close(evaluated);
    return code;
}
