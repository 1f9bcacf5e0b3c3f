#include "transport/bcrypt_pbkdf.h"

#include <openssl/bn.h>
#include <openssl/sha.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"

enum {
    WORDS_P = 18,
    WORDS_S = 4 * 256,
    HASH_BYTES = 32,
    HASH_WORDS = 8,
    DIGEST = 64
};

/* Blowfish's state. Its initial value is the fraction of pi in binary, so it is computed rather
 * than copied from a table of a thousand figures; a test compares keys with ssh-keygen's. */
struct blowfish {
    uint32_t p[WORDS_P];
    uint32_t s[WORDS_S];
};

/* Adds or subtracts multiplier * arctan(1 / x), scaled by 2^bits, by its power series. */
static void add_arctan(BIGNUM *sum, unsigned bits, BN_ULONG multiplier, BN_ULONG x, bool negative) {
    BIGNUM *power = BN_new();
    BIGNUM *term = BN_new();
    BN_one(power);
    BN_lshift(power, power, (int)bits);
    BN_mul_word(power, multiplier);
    BN_div_word(power, x);
    for (BN_ULONG odd = 1; !BN_is_zero(power); odd += 2) {
        BN_copy(term, power);
        BN_div_word(term, odd);
        if (negative) {
            BN_sub(sum, sum, term);
        } else {
            BN_add(sum, sum, term);
        }
        negative = !negative;
        BN_div_word(power, x * x);
    }
    BN_free(power);
    BN_free(term);
}

/* Machin: pi = 16 arctan(1/5) - 4 arctan(1/239). */
static void blowfish_init(struct blowfish *state) {
    enum {
        BITS = (WORDS_P + WORDS_S) * 32,
        GUARD = 64,
        BYTES = (BITS + GUARD) / 8
    };
    BIGNUM *pi = BN_new();
    BN_zero(pi);
    add_arctan(pi, BITS + GUARD, 16, 5, false);
    add_arctan(pi, BITS + GUARD, 4, 239, true);
    BN_mask_bits(pi, BITS + GUARD); /* drops the 3 */
    uint8_t *bytes = xmalloc(BYTES);
    BN_bn2binpad(pi, bytes, BYTES);
    for (size_t i = 0; i < WORDS_P + WORDS_S; i++) {
        const uint8_t *at = bytes + i * 4;
        uint32_t word =
            (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
        if (i < WORDS_P) {
            state->p[i] = word;
        } else {
            state->s[i - WORDS_P] = word;
        }
    }
    free(bytes);
    BN_free(pi);
}

static uint32_t mix(const struct blowfish *state, uint32_t x) {
    const uint32_t *s = state->s;
    return ((s[x >> 24] + s[256 + (x >> 16 & 0xff)]) ^ s[512 + (x >> 8 & 0xff)]) +
           s[768 + (x & 0xff)];
}

static void encipher(const struct blowfish *state, uint32_t *left, uint32_t *right) {
    uint32_t l = *left ^ state->p[0];
    uint32_t r = *right;
    for (int i = 1; i < WORDS_P - 1; i += 2) {
        r ^= mix(state, l) ^ state->p[i];
        l ^= mix(state, r) ^ state->p[i + 1];
    }
    *left = r ^ state->p[WORDS_P - 1];
    *right = l;
}

/* The next four bytes of `data`, going round. */
static uint32_t next_word(const uint8_t *data, size_t len, size_t *at) {
    uint32_t word = 0;
    for (int i = 0; i < 4; i++) {
        word = word << 8 | data[*at];
        *at = (*at + 1) % len;
    }
    return word;
}

/* Mixes a key into the state, and `salt` where there is one. */
static void expand(struct blowfish *state, const uint8_t *salt, const uint8_t *key) {
    size_t at = 0;
    for (int i = 0; i < WORDS_P; i++) {
        state->p[i] ^= next_word(key, DIGEST, &at);
    }
    size_t salt_at = 0;
    uint32_t left = 0;
    uint32_t right = 0;
    for (int i = 0; i < WORDS_P + WORDS_S; i += 2) {
        if (salt != NULL) {
            left ^= next_word(salt, DIGEST, &salt_at);
            right ^= next_word(salt, DIGEST, &salt_at);
        }
        encipher(state, &left, &right);
        uint32_t *words = i < WORDS_P ? state->p + i : state->s + (i - WORDS_P);
        words[0] = left;
        words[1] = right;
    }
}

static void bcrypt_hash(const struct blowfish *initial, const uint8_t *passphrase,
                        const uint8_t *salt, uint8_t *out) {
    static const uint8_t text[] = "OxychromaticBlowfishSwatDynamite";
    struct blowfish state = *initial;
    expand(&state, salt, passphrase);
    for (int i = 0; i < 64; i++) {
        expand(&state, NULL, salt);
        expand(&state, NULL, passphrase);
    }
    uint32_t words[HASH_WORDS];
    size_t at = 0;
    for (int i = 0; i < HASH_WORDS; i++) {
        words[i] = next_word(text, sizeof(text) - 1, &at);
    }
    for (int i = 0; i < 64; i++) {
        for (int j = 0; j < HASH_WORDS; j += 2) {
            encipher(&state, &words[j], &words[j + 1]);
        }
    }
    for (int i = 0; i < HASH_WORDS; i++) {
        for (int j = 0; j < 4; j++) {
            out[4 * i + j] = (uint8_t)(words[i] >> (8 * j));
        }
    }
    secret_wipe(&state, sizeof(state));
    secret_wipe(words, sizeof(words));
}

/* One block of 32 bytes of output: `rounds` hashes, each salted by the one before, xored. */
static void make_block(const struct blowfish *initial, const uint8_t *passphrase,
                       const uint8_t *salt, size_t salt_len, uint32_t block, uint32_t rounds,
                       uint8_t *out) {
    uint8_t counted[64 + 4];
    uint8_t digest[DIGEST];
    uint8_t hash[HASH_BYTES];
    memcpy(counted, salt, salt_len);
    for (int i = 0; i < 4; i++) {
        counted[salt_len + (size_t)i] = (uint8_t)(block >> (24 - 8 * i));
    }
    SHA512(counted, salt_len + 4, digest);
    bcrypt_hash(initial, passphrase, digest, hash);
    memcpy(out, hash, sizeof(hash));
    for (uint32_t round = 1; round < rounds; round++) {
        SHA512(hash, sizeof(hash), digest);
        bcrypt_hash(initial, passphrase, digest, hash);
        for (int i = 0; i < HASH_BYTES; i++) {
            out[i] ^= hash[i];
        }
    }
    secret_wipe(hash, sizeof(hash));
    secret_wipe(digest, sizeof(digest));
}

void bcrypt_pbkdf(const char *passphrase, size_t passphrase_len, const uint8_t *salt,
                  size_t salt_len, uint32_t rounds, uint8_t *key, size_t key_len) {
    struct blowfish initial;
    uint8_t digest[DIGEST];
    uint8_t out[HASH_BYTES];
    blowfish_init(&initial);
    SHA512((const unsigned char *)passphrase, passphrase_len, digest);
    /* The output is not one block after the other but interleaved: byte i of block b goes to
     * i * stride + b. */
    size_t stride = (key_len + HASH_BYTES - 1) / HASH_BYTES;
    for (size_t block = 0; block < stride; block++) {
        make_block(&initial, digest, salt, salt_len, (uint32_t)block + 1, rounds, out);
        for (size_t i = 0; i < HASH_BYTES && i * stride + block < key_len; i++) {
            key[i * stride + block] = out[i];
        }
    }
    secret_wipe(digest, sizeof(digest));
    secret_wipe(out, sizeof(out));
}
