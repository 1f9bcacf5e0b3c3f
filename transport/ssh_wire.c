#include "transport/ssh_wire.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <string.h>

#include "core/base/xalloc.h"

static const uint8_t *take(struct ssh_reader *reader, size_t len) {
    if (reader->bad || reader->len < len) {
        reader->bad = true;
        return NULL;
    }
    const uint8_t *at = reader->data;
    reader->data += len;
    reader->len -= len;
    return at;
}

uint8_t ssh_read_u8(struct ssh_reader *reader) {
    const uint8_t *at = take(reader, 1);
    return at != NULL ? at[0] : 0;
}

uint32_t ssh_read_u32(struct ssh_reader *reader) {
    const uint8_t *at = take(reader, 4);
    if (at == NULL) {
        return 0;
    }
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

struct ssh_bytes ssh_read_string(struct ssh_reader *reader) {
    uint32_t len = ssh_read_u32(reader);
    const uint8_t *at = take(reader, len);
    if (at == NULL) {
        return (struct ssh_bytes){(const uint8_t *)"", 0};
    }
    return (struct ssh_bytes){at, len};
}

struct ssh_bytes ssh_read_mpint(struct ssh_reader *reader) {
    struct ssh_bytes number = ssh_read_string(reader);
    if (number.len > 0 && (number.data[0] & 0x80) != 0) {
        reader->bad = true;
        return (struct ssh_bytes){(const uint8_t *)"", 0};
    }
    while (number.len > 0 && number.data[0] == 0) {
        number.data++;
        number.len--;
    }
    return number;
}

bool ssh_bytes_are(struct ssh_bytes bytes, const char *text) {
    return bytes.len == strlen(text) && memcmp(bytes.data, text, bytes.len) == 0;
}

bool ssh_bytes_equal(struct ssh_bytes a, struct ssh_bytes b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

void ssh_add_u8(struct buf *out, uint8_t value) {
    buf_add(out, &value, 1);
}

void ssh_add_u32(struct buf *out, uint32_t value) {
    uint8_t bytes[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8),
                        (uint8_t)value};
    buf_add(out, bytes, sizeof(bytes));
}

void ssh_add_string(struct buf *out, const void *data, size_t len) {
    ssh_add_u32(out, (uint32_t)len);
    buf_add(out, data, len);
}

void ssh_add_text(struct buf *out, const char *text) {
    ssh_add_string(out, text, strlen(text));
}

void ssh_add_mpint(struct buf *out, const uint8_t *number, size_t len) {
    while (len > 0 && number[0] == 0) {
        number++;
        len--;
    }
    bool sign = len > 0 && (number[0] & 0x80) != 0;
    ssh_add_u32(out, (uint32_t)(len + (sign ? 1 : 0)));
    if (sign) {
        ssh_add_u8(out, 0);
    }
    buf_add(out, number, len);
}

static int base64_digit(char c) {
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

long ssh_base64_decode(const char *text, size_t len, uint8_t *ret) {
    while (len > 0 && text[len - 1] == '=') {
        len--;
    }
    if (len % 4 == 1) {
        return -1;
    }
    uint32_t bits = 0;
    unsigned have = 0;
    long count = 0;
    for (size_t i = 0; i < len; i++) {
        int digit = base64_digit(text[i]);
        if (digit < 0) {
            return -1;
        }
        bits = bits << 6 | (uint32_t)digit;
        have += 6;
        if (have >= 8) {
            have -= 8;
            ret[count++] = (uint8_t)(bits >> have);
        }
    }
    return count;
}

void ssh_base64_add(struct buf *out, const uint8_t *data, size_t len) {
    char *at = buf_reserve(out, (len + 2) / 3 * 4 + 1);
    int written = EVP_EncodeBlock((unsigned char *)at, data, (int)len);
    out->len += (size_t)written;
    out->data[out->len] = '\0';
}

char *ssh_fingerprint(const uint8_t *blob, size_t len) {
    uint8_t digest[SHA256_DIGEST_LENGTH];
    SHA256(blob, len, digest);
    struct buf text = BUF_INIT;
    buf_add_text(&text, "SHA256:");
    ssh_base64_add(&text, digest, sizeof(digest));
    while (text.len > 0 && text.data[text.len - 1] == '=') {
        text.data[--text.len] = '\0';
    }
    return buf_take(&text);
}

const char *ssh_key_type_name(const uint8_t *blob, size_t len) {
    static const struct {
        const char *algorithm;
        const char *name;
    } names[] = {
        {"ssh-ed25519", "ED25519"},
        {"ecdsa-sha2-nistp256", "ECDSA"},
        {"ecdsa-sha2-nistp384", "ECDSA"},
        {"ecdsa-sha2-nistp521", "ECDSA"},
        {"ssh-rsa", "RSA"},
        {"sk-ssh-ed25519@openssh.com", "ED25519-SK"},
        {"sk-ecdsa-sha2-nistp256@openssh.com", "ECDSA-SK"},
    };
    struct ssh_reader reader = {blob, len, false};
    struct ssh_bytes algorithm = ssh_read_string(&reader);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (!reader.bad && ssh_bytes_are(algorithm, names[i].algorithm)) {
            return names[i].name;
        }
    }
    return "key";
}
