#include "transport/ssh_kexinit.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "transport/ssh_wire.h"

enum {
    SEEN_MAX = 64 * 1024,
    PACKET_MAX = 35000,
    MSG_KEXINIT = 20,
    COOKIE = 16
};

/* Looks for the line "SSH-...", behind which the binary packets begin. Each line is looked at once:
 * a peer may send empty ones without end. */
static void find_packets(struct ssh_kexinit *kexinit) {
    const struct buf *seen = &kexinit->seen;
    while (kexinit->packets == 0 && kexinit->line < seen->len) {
        const char *line = seen->data + kexinit->line;
        const char *newline = memchr(line, '\n', seen->len - kexinit->line);
        if (newline == NULL) {
            return;
        }
        kexinit->line = (size_t)(newline + 1 - seen->data);
        if (newline - line >= 4 && memcmp(line, "SSH-", 4) == 0) {
            kexinit->packets = kexinit->line;
        }
    }
}

static void parse(struct ssh_kexinit *kexinit, struct ssh_reader reader) {
    ssh_read_u8(&reader); /* padding length */
    if (ssh_read_u8(&reader) != MSG_KEXINIT) {
        return;
    }
    for (int i = 0; i < COOKIE; i++) {
        ssh_read_u8(&reader);
    }
    struct ssh_bytes lists[SSH_KEX_LISTS];
    for (int i = 0; i < SSH_KEX_LISTS; i++) {
        lists[i] = ssh_read_string(&reader);
    }
    if (reader.bad) {
        return;
    }
    for (int i = 0; i < SSH_KEX_LISTS; i++) {
        kexinit->lists[i] = text_cleaned((const char *)lists[i].data, lists[i].len);
    }
    kexinit->parsed = true;
}

static void try_parse(struct ssh_kexinit *kexinit) {
    size_t start = kexinit->packets;
    if (start == 0 || kexinit->seen.len - start < 4) {
        return;
    }
    struct ssh_reader reader = {(const uint8_t *)kexinit->seen.data + start,
                                kexinit->seen.len - start, false};
    uint32_t len = ssh_read_u32(&reader);
    if (len > PACKET_MAX) {
        kexinit->done = true;
        return;
    }
    if (reader.len < len) {
        return;
    }
    reader.len = len;
    parse(kexinit, reader);
    kexinit->done = true;
}

void ssh_kexinit_feed(struct ssh_kexinit *kexinit, const void *data, size_t len) {
    if (kexinit->done || len == 0) {
        return;
    }
    buf_add(&kexinit->seen, data, len);
    /* libssh2 reads the banner byte by byte; no line is whole before its newline. */
    if (memchr(data, '\n', len) != NULL) {
        find_packets(kexinit);
    }
    try_parse(kexinit);
    if (kexinit->seen.len > SEEN_MAX) {
        kexinit->done = true;
    }
    if (kexinit->done) {
        buf_free(&kexinit->seen);
    }
}

bool ssh_kexinit_is_ssh(const struct ssh_kexinit *kexinit) {
    const char *seen = buf_text(&kexinit->seen);
    return kexinit->parsed || strncmp(seen, "SSH-", 4) == 0 || strstr(seen, "\nSSH-") != NULL;
}

static bool list_has(const char *list, const char *name, size_t len) {
    for (const char *at = list; *at != '\0';) {
        size_t part = strcspn(at, ",");
        if (part == len && memcmp(at, name, len) == 0) {
            return true;
        }
        at += part + (at[part] == ',' ? 1 : 0);
    }
    return false;
}

bool ssh_kexinit_agrees(const struct ssh_kexinit *kexinit, enum ssh_kex_list list,
                        const char *ours) {
    for (const char *at = ours; *at != '\0';) {
        size_t len = strcspn(at, ",");
        if (list_has(kexinit->lists[list], at, len)) {
            return true;
        }
        at += len + (at[len] == ',' ? 1 : 0);
    }
    return false;
}

void ssh_kexinit_release(struct ssh_kexinit *kexinit) {
    for (int i = 0; i < SSH_KEX_LISTS; i++) {
        free(kexinit->lists[i]);
    }
    buf_free(&kexinit->seen);
    *kexinit = (struct ssh_kexinit){.done = true};
}
