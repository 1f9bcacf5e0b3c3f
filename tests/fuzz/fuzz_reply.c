/* The answer of a script on a hostile host, read in every way that fleet reads one: as facts of the
 * host, as a guard's state, as what Nix collected. Whatever it says can be printed. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/gc.h"
#include "core/status.h"
#include "core/target_reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* No byte of it moves a cursor, and it is one line. */
static void check_clean(const char *text) {
    for (; text != NULL && *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7F) {
            abort();
        }
    }
}

static void check_guard(const struct target_reply *reply) {
    static const char *const keys[] = {"guard", "state", "last"};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        struct guard_state state;
        const char *line = target_reply_get(reply, keys[i]);
        check_clean(line);
        guard_state_parse(line, &state);
        if (strlen(guard_phase_name(state.phase)) == 0 ||
            (state.phase != GUARD_NONE && state.nonce[0] == '\0')) {
            abort();
        }
    }
}

static void check_status(const struct target_reply *reply, const char *desired) {
    struct status status;
    status_read(reply, desired, &status);
    bool drifts = false;
    for (size_t i = 0; i < DRIFT_COUNT; i++) {
        drifts = drifts || status.drift[i];
    }
    if (status.in_sync && drifts) {
        abort();
    }
    check_clean(status.deployed.path);
    check_clean(status.deployed.rev);
    check_clean(status.deployed.who);
    check_clean(status.deployed.when);
    check_clean(status.deployed.run);
    check_clean(status.lock_who);
    status_release(&status);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct target_reply *reply = target_reply_parse((const char *)data, size);
    check_guard(reply);
    check_status(reply, NULL);
    check_status(reply, "/nix/store/7z7y2q0b1n5d3l8x9v4k6s2h1m0c3w5r-system");
    uint64_t paths, bytes;
    const char *words = target_reply_get(reply, "words");
    if (words != NULL) {
        gc_read_words(words, &paths, &bytes);
    }
    status_guard_left_s(reply);
    target_reply_free(reply);
    return 0;
}
