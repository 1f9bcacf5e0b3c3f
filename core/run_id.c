/* Run ids: UTC time, so that they sort by age, and six random characters. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "core/journal.h"

static const char id_letters[] = "0123456789abcdefghijklmnopqrstuvwxyz";
#define ID_LETTER_COUNT (sizeof(id_letters) - 1)
#define ID_RANDOM_COUNT 6

/* A letter from the kernel's random bytes, each as likely as any other. */
static char random_letter(void) {
    for (;;) {
        unsigned char byte;
        if (getrandom(&byte, 1, 0) != 1) {
            if (errno == EINTR) {
                continue;
            }
            abort();
        }
        if (byte < 256 - 256 % ID_LETTER_COUNT) {
            return id_letters[byte % ID_LETTER_COUNT];
        }
    }
}

void run_id_new(int64_t wall_ms, char ret_id[RUN_ID_SIZE]) {
    time_t when = (time_t)(wall_ms / 1000);
    struct tm tm;
    gmtime_r(&when, &tm);
    size_t len = strftime(ret_id, RUN_ID_SIZE, "%Y%m%d-%H%M%S-", &tm);
    for (int i = 0; i < ID_RANDOM_COUNT; i++) {
        ret_id[len++] = random_letter();
    }
    ret_id[len] = '\0';
}

bool run_id_is_valid(const char *text) {
    size_t len = strlen(text);
    return len > 0 && len < RUN_ID_SIZE && text[0] != '-' &&
           text[strspn(text, "0123456789abcdefghijklmnopqrstuvwxyz-")] == '\0';
}
