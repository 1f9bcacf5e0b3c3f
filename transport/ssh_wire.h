/* The SSH wire's data types (RFC 4251, section 5): reading without trust, writing into a buffer.
 *
 * A reader never leaves its bytes: after the first thing that does not fit it is `bad`, and
 * everything it returns is empty. So a parser reads all its fields and asks once at the end.
 */
#ifndef FLEET_TRANSPORT_SSH_WIRE_H
#define FLEET_TRANSPORT_SSH_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/buf.h"

struct ssh_reader {
    const uint8_t *data;
    size_t len;
    bool bad;
};

/* A string on the wire; points into the reader's bytes. */
struct ssh_bytes {
    const uint8_t *data;
    size_t len;
};

uint8_t ssh_read_u8(struct ssh_reader *reader);
uint32_t ssh_read_u32(struct ssh_reader *reader);
struct ssh_bytes ssh_read_string(struct ssh_reader *reader);
/* The bytes of a mpint without sign and leading zeros; a negative one makes the reader bad. */
struct ssh_bytes ssh_read_mpint(struct ssh_reader *reader);
/* True if the bytes are exactly `text`. */
bool ssh_bytes_are(struct ssh_bytes bytes, const char *text);
bool ssh_bytes_equal(struct ssh_bytes a, struct ssh_bytes b);

void ssh_add_u8(struct buf *out, uint8_t value);
void ssh_add_u32(struct buf *out, uint32_t value);
void ssh_add_string(struct buf *out, const void *data, size_t len);
void ssh_add_text(struct buf *out, const char *text);
/* A positive number, big-endian, as a mpint. */
void ssh_add_mpint(struct buf *out, const uint8_t *number, size_t len);

/* Standard base64 (RFC 4648). `ret` needs room for len / 4 * 3 + 3 bytes. Returns the decoded
 * length or -1. */
long ssh_base64_decode(const char *text, size_t len, uint8_t *ret);
void ssh_base64_add(struct buf *out, const uint8_t *data, size_t len);
/* "SHA256:..." without padding, as OpenSSH prints fingerprints. Caller frees. */
char *ssh_fingerprint(const uint8_t *blob, size_t len);
/* "ED25519", "ECDSA", "RSA", "ED25519-SK" ... for a public key blob; "key" when unknown. */
const char *ssh_key_type_name(const uint8_t *blob, size_t len);

#endif
