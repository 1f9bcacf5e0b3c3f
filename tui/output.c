#include "tui/output.h"

void output_free(struct output *output) {
    if (output != NULL) {
        output->ops->free(output);
    }
}
