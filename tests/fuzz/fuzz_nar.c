/* A NAR from a hostile source, whole and in pieces: both ways must come to the same verdict. */
#include <stdint.h>
#include <stdlib.h>

#include "transport/nar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct nar_reader *whole = nar_reader_new();
    struct nar_reader *cut = nar_reader_new();
    size_t used = 0;
    int verdict = nar_read(whole, (const char *)data, size, &used, NULL);
    int state = NAR_MORE;
    size_t total = 0;
    for (size_t at = 0; at < size && state == NAR_MORE; at++) {
        size_t one = 0;
        state = nar_read(cut, (const char *)data + at, 1, &one, NULL);
        total += one;
    }
    if (state != verdict || (verdict >= 0 && (total != used || nar_size(cut) != used))) {
        abort();
    }
    nar_reader_free(whole);
    nar_reader_free(cut);
    return 0;
}
