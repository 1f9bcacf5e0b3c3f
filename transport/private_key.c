#include "transport/private_key.h"

#include <limits.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "transport/bcrypt_pbkdf.h"
#include "transport/ssh_wire.h"

enum {
    ED25519_BYTES = 32,
    SALT_MAX = 64,
    ROUNDS_MAX = 100000
};

static const char begin_openssh[] = "-----BEGIN OPENSSH PRIVATE KEY-----";
static const char end_openssh[] = "-----END OPENSSH PRIVATE KEY-----";
static const char magic[] = "openssh-key-v1"; /* with its NUL on the wire */

/* Curves by their names on the wire and in OpenSSL. */
static const struct curve {
    const char *algorithm;
    const char *ssh_name;
    const char *openssl_name;
    const char *digest;
} curves[] = {
    {"ecdsa-sha2-nistp256", "nistp256", "prime256v1", "SHA256"},
    {"ecdsa-sha2-nistp384", "nistp384", "secp384r1", "SHA384"},
    {"ecdsa-sha2-nistp521", "nistp521", "secp521r1", "SHA512"},
};

/* Ciphers that ssh-keygen can write; aes256-ctr is its default. */
static const struct cipher {
    const char *name;
    const char *openssl_name;
    size_t key_len;
    size_t iv_len;
    size_t block;
} ciphers[] = {
    {"aes256-ctr", "AES-256-CTR", 32, 16, 16}, {"aes192-ctr", "AES-192-CTR", 24, 16, 16},
    {"aes128-ctr", "AES-128-CTR", 16, 16, 16}, {"aes256-cbc", "AES-256-CBC", 32, 16, 16},
    {"aes192-cbc", "AES-192-CBC", 24, 16, 16}, {"aes128-cbc", "AES-128-CBC", 16, 16, 16},
};

void private_key_release(struct private_key *key) {
    EVP_PKEY_free(key->key);
    free(key->blob);
    *key = (struct private_key){0};
}

static EVP_PKEY *from_params(const char *type, OSSL_PARAM_BLD *build) {
    EVP_PKEY *key = NULL;
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(build);
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    if (params == NULL || context == NULL || EVP_PKEY_fromdata_init(context) != 1 ||
        EVP_PKEY_fromdata(context, &key, EVP_PKEY_KEYPAIR, params) != 1) {
        key = NULL;
    }
    EVP_PKEY_CTX_free(context);
    OSSL_PARAM_free(params);
    return key;
}

static EVP_PKEY *read_ed25519(struct ssh_reader *reader) {
    ssh_read_string(reader); /* the public half */
    struct ssh_bytes both = ssh_read_string(reader);
    if (reader->bad || both.len != 2 * (size_t)ED25519_BYTES) {
        return NULL;
    }
    return EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, both.data, ED25519_BYTES);
}

static EVP_PKEY *read_ecdsa(struct ssh_reader *reader, const struct curve *curve) {
    struct ssh_bytes name = ssh_read_string(reader);
    struct ssh_bytes point = ssh_read_string(reader);
    struct ssh_bytes secret = ssh_read_mpint(reader);
    if (reader->bad || !ssh_bytes_are(name, curve->ssh_name)) {
        return NULL;
    }
    BIGNUM *number = BN_secure_new();
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    EVP_PKEY *key = NULL;
    if (number != NULL && build != NULL &&
        BN_bin2bn(secret.data, (int)secret.len, number) != NULL &&
        OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, curve->openssl_name,
                                        0) == 1 &&
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point.data, point.len) ==
            1 &&
        OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_PRIV_KEY, number) == 1) {
        key = from_params("EC", build);
    }
    OSSL_PARAM_BLD_free(build);
    BN_clear_free(number);
    return key;
}

/* openssh-key-v1 holds n, e, d, iqmp, p, q; OpenSSL wants d mod (p-1) and d mod (q-1) as well. */
static EVP_PKEY *read_rsa(struct ssh_reader *reader) {
    enum {
        N,
        E,
        D,
        IQMP,
        P,
        Q,
        DP,
        DQ,
        ONE,
        COUNT
    };
    static const char *const names[] = {
        [N] = OSSL_PKEY_PARAM_RSA_N,          [E] = OSSL_PKEY_PARAM_RSA_E,
        [D] = OSSL_PKEY_PARAM_RSA_D,          [IQMP] = OSSL_PKEY_PARAM_RSA_COEFFICIENT1,
        [P] = OSSL_PKEY_PARAM_RSA_FACTOR1,    [Q] = OSSL_PKEY_PARAM_RSA_FACTOR2,
        [DP] = OSSL_PKEY_PARAM_RSA_EXPONENT1, [DQ] = OSSL_PKEY_PARAM_RSA_EXPONENT2,
    };
    BIGNUM *numbers[COUNT];
    BN_CTX *context = BN_CTX_secure_new();
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    bool good = context != NULL && build != NULL;
    for (int i = 0; i < COUNT; i++) {
        numbers[i] = BN_secure_new();
        good = good && numbers[i] != NULL;
    }
    for (int i = N; i <= Q; i++) {
        struct ssh_bytes bytes = ssh_read_mpint(reader);
        good = good && bytes.len <= INT_MAX &&
               BN_bin2bn(bytes.data, (int)bytes.len, numbers[i]) != NULL;
    }
    good = good && !reader->bad && BN_sub(numbers[ONE], numbers[P], BN_value_one()) == 1 &&
           BN_mod(numbers[DP], numbers[D], numbers[ONE], context) == 1 &&
           BN_sub(numbers[ONE], numbers[Q], BN_value_one()) == 1 &&
           BN_mod(numbers[DQ], numbers[D], numbers[ONE], context) == 1;
    for (int i = N; i <= DQ; i++) {
        good = good && OSSL_PARAM_BLD_push_BN(build, names[i], numbers[i]) == 1;
    }
    EVP_PKEY *key = good ? from_params("RSA", build) : NULL;
    for (int i = 0; i < COUNT; i++) {
        BN_clear_free(numbers[i]);
    }
    OSSL_PARAM_BLD_free(build);
    BN_CTX_free(context);
    return key;
}

static EVP_PKEY *read_key(struct ssh_reader *reader) {
    struct ssh_bytes type = ssh_read_string(reader);
    if (ssh_bytes_are(type, "ssh-ed25519")) {
        return read_ed25519(reader);
    }
    if (ssh_bytes_are(type, "ssh-rsa")) {
        return read_rsa(reader);
    }
    for (size_t i = 0; i < ARRAY_LEN(curves); i++) {
        if (ssh_bytes_are(type, curves[i].algorithm)) {
            return read_ecdsa(reader, &curves[i]);
        }
    }
    return NULL;
}

/* Decrypts in place. 0 or -1. */
static int decrypt(const struct cipher *cipher, struct ssh_bytes kdf_options,
                   const char *passphrase, uint8_t *data, size_t len) {
    struct ssh_reader options = {kdf_options.data, kdf_options.len, false};
    struct ssh_bytes salt = ssh_read_string(&options);
    uint32_t rounds = ssh_read_u32(&options);
    uint8_t material[32 + 16];
    if (options.bad || salt.len == 0 || salt.len > SALT_MAX || rounds == 0 || rounds > ROUNDS_MAX ||
        len % cipher->block != 0 || len > INT_MAX) {
        return -1;
    }
    bcrypt_pbkdf(passphrase, strlen(passphrase), salt.data, salt.len, rounds, material,
                 cipher->key_len + cipher->iv_len);
    EVP_CIPHER *method = EVP_CIPHER_fetch(NULL, cipher->openssl_name, NULL);
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int done = 0;
    int rc = -1;
    if (method != NULL && context != NULL &&
        EVP_DecryptInit_ex2(context, method, material, material + cipher->key_len, NULL) == 1 &&
        EVP_CIPHER_CTX_set_padding(context, 0) == 1 &&
        EVP_DecryptUpdate(context, data, &done, data, (int)len) == 1 && (size_t)done == len) {
        rc = 0;
    }
    EVP_CIPHER_CTX_free(context);
    EVP_CIPHER_free(method);
    secret_wipe(material, sizeof(material));
    return rc;
}

/* The private section: two equal check words, the key, a comment, padding. */
static enum private_key_result read_section(struct ssh_bytes section, const struct cipher *cipher,
                                            struct ssh_bytes kdf_options, const char *passphrase,
                                            struct private_key *ret) {
    uint8_t *plain = xmalloc(section.len + 1);
    memcpy(plain, section.data, section.len);
    enum private_key_result result = PRIVATE_KEY_WRONG_PASSPHRASE;
    if (cipher == NULL || decrypt(cipher, kdf_options, passphrase, plain, section.len) == 0) {
        struct ssh_reader reader = {plain, section.len, false};
        uint32_t first = ssh_read_u32(&reader);
        uint32_t second = ssh_read_u32(&reader);
        if (!reader.bad && first == second) {
            ret->key = read_key(&reader);
            result = ret->key != NULL ? PRIVATE_KEY_OK : PRIVATE_KEY_UNSUPPORTED;
        } else if (cipher == NULL) {
            result = PRIVATE_KEY_UNSUPPORTED;
        }
    }
    secret_wipe(plain, section.len);
    free(plain);
    return result;
}

static const struct cipher *find_cipher(struct ssh_bytes name) {
    for (size_t i = 0; i < ARRAY_LEN(ciphers); i++) {
        if (ssh_bytes_are(name, ciphers[i].name)) {
            return &ciphers[i];
        }
    }
    return NULL;
}

static enum private_key_result parse_openssh(const uint8_t *data, size_t len,
                                             const char *passphrase, struct private_key *ret) {
    if (len < sizeof(magic) || memcmp(data, magic, sizeof(magic)) != 0) {
        return PRIVATE_KEY_UNSUPPORTED;
    }
    struct ssh_reader reader = {data + sizeof(magic), len - sizeof(magic), false};
    struct ssh_bytes cipher_name = ssh_read_string(&reader);
    struct ssh_bytes kdf_name = ssh_read_string(&reader);
    struct ssh_bytes kdf_options = ssh_read_string(&reader);
    uint32_t keys = ssh_read_u32(&reader);
    struct ssh_bytes blob = ssh_read_string(&reader);
    struct ssh_bytes section = ssh_read_string(&reader);
    if (reader.bad || keys != 1) {
        return PRIVATE_KEY_UNSUPPORTED;
    }
    ret->blob = xmalloc(blob.len + 1);
    memcpy(ret->blob, blob.data, blob.len);
    ret->blob_len = blob.len;
    if (ssh_bytes_are(cipher_name, "none")) {
        return read_section(section, NULL, kdf_options, NULL, ret);
    }
    const struct cipher *cipher = find_cipher(cipher_name);
    if (cipher == NULL || !ssh_bytes_are(kdf_name, "bcrypt")) {
        return PRIVATE_KEY_UNSUPPORTED;
    }
    if (passphrase == NULL) {
        return PRIVATE_KEY_ENCRYPTED;
    }
    return read_section(section, cipher, kdf_options, passphrase, ret);
}

/* The base64 between the marker lines, into memory that the caller wipes. */
static uint8_t *armoured(const char *text, size_t *ret_len) {
    const char *start = strstr(text, begin_openssh);
    if (start == NULL) {
        return NULL;
    }
    start += sizeof(begin_openssh) - 1; /* before the end is looked for: they could share dashes */
    const char *end = strstr(start, end_openssh);
    if (end == NULL) {
        return NULL;
    }
    size_t room = (size_t)(end - start);
    char *base64 = xmalloc(room + 1);
    size_t count = 0;
    for (const char *c = start; c < end; c++) {
        if (*c != '\n' && *c != '\r' && *c != ' ' && *c != '\t') {
            base64[count++] = *c;
        }
    }
    uint8_t *data = xmalloc(count / 4 * 3 + 3);
    long len = ssh_base64_decode(base64, count, data);
    secret_wipe(base64, room);
    free(base64);
    if (len < 0) {
        free(data);
        return NULL;
    }
    *ret_len = (size_t)len;
    return data;
}

static void add_ec_blob(struct buf *out, EVP_PKEY *key) {
    char group[64];
    size_t len = 0;
    if (EVP_PKEY_get_group_name(key, group, sizeof(group), &len) != 1) {
        return;
    }
    uint8_t point[256];
    for (size_t i = 0; i < ARRAY_LEN(curves); i++) {
        if (strcmp(group, curves[i].openssl_name) == 0 &&
            EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point),
                                            &len) == 1) {
            ssh_add_text(out, curves[i].algorithm);
            ssh_add_text(out, curves[i].ssh_name);
            ssh_add_string(out, point, len);
        }
    }
}

static void add_rsa_blob(struct buf *out, EVP_PKEY *key) {
    static const char *const names[] = {OSSL_PKEY_PARAM_RSA_E, OSSL_PKEY_PARAM_RSA_N};
    ssh_add_text(out, "ssh-rsa");
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        BIGNUM *number = NULL;
        if (EVP_PKEY_get_bn_param(key, names[i], &number) != 1) {
            buf_clear(out);
            return;
        }
        size_t len = (size_t)BN_num_bytes(number);
        uint8_t *bytes = xmalloc(len + 1);
        BN_bn2bin(number, bytes);
        ssh_add_mpint(out, bytes, len);
        free(bytes);
        BN_free(number);
    }
}

/* The public half of a key that came from PEM. */
static void add_blob(struct private_key *ret) {
    struct buf out = BUF_INIT;
    int type = EVP_PKEY_get_base_id(ret->key);
    if (type == EVP_PKEY_RSA) {
        add_rsa_blob(&out, ret->key);
    } else if (type == EVP_PKEY_EC) {
        add_ec_blob(&out, ret->key);
    } else if (type == EVP_PKEY_ED25519) {
        uint8_t point[ED25519_BYTES];
        size_t len = sizeof(point);
        if (EVP_PKEY_get_raw_public_key(ret->key, point, &len) == 1) {
            ssh_add_text(&out, "ssh-ed25519");
            ssh_add_string(&out, point, len);
        }
    }
    ret->blob_len = out.len;
    ret->blob = out.len > 0 ? (uint8_t *)buf_take(&out) : NULL;
    buf_free(&out);
}

struct pem_passphrase {
    const char *text;
    bool asked;
};

static int on_pem_passphrase(char *out, int size, int writing, void *arg) {
    struct pem_passphrase *passphrase = arg;
    (void)writing;
    passphrase->asked = true;
    if (passphrase->text == NULL || strlen(passphrase->text) > (size_t)size) {
        return -1;
    }
    size_t len = strlen(passphrase->text);
    memcpy(out, passphrase->text, len);
    return (int)len;
}

static enum private_key_result parse_pem(const char *text, size_t len, const char *passphrase,
                                         struct private_key *ret) {
    struct pem_passphrase answer = {passphrase, false};
    BIO *bio = BIO_new_mem_buf(text, (int)len);
    ret->key = PEM_read_bio_PrivateKey(bio, NULL, on_pem_passphrase, &answer);
    BIO_free(bio);
    if (ret->key == NULL) {
        if (!answer.asked) {
            return PRIVATE_KEY_UNSUPPORTED;
        }
        return passphrase == NULL ? PRIVATE_KEY_ENCRYPTED : PRIVATE_KEY_WRONG_PASSPHRASE;
    }
    add_blob(ret);
    return ret->blob != NULL ? PRIVATE_KEY_OK : PRIVATE_KEY_UNSUPPORTED;
}

enum private_key_result private_key_parse(const char *text, size_t len, const char *passphrase,
                                          struct private_key *ret) {
    *ret = (struct private_key){0};
    if (strstr(text, begin_openssh) == NULL) {
        return parse_pem(text, len, passphrase, ret);
    }
    size_t data_len = 0;
    uint8_t *data = armoured(text, &data_len);
    if (data == NULL) {
        return PRIVATE_KEY_UNSUPPORTED;
    }
    enum private_key_result result = parse_openssh(data, data_len, passphrase, ret);
    secret_wipe(data, data_len);
    free(data);
    return result;
}

/* OpenSSL's ECDSA signature is a DER sequence of r and s; SSH wants two mpints. */
static int convert_ecdsa(uint8_t **signature, size_t *len) {
    const unsigned char *at = *signature;
    ECDSA_SIG *parsed = d2i_ECDSA_SIG(NULL, &at, (long)*len);
    if (parsed == NULL) {
        return -1;
    }
    const BIGNUM *numbers[2];
    ECDSA_SIG_get0(parsed, &numbers[0], &numbers[1]);
    struct buf out = BUF_INIT;
    for (int i = 0; i < 2; i++) {
        uint8_t bytes[80];
        int count = BN_bn2bin(numbers[i], bytes);
        ssh_add_mpint(&out, bytes, (size_t)count);
    }
    ECDSA_SIG_free(parsed);
    free(*signature);
    *len = out.len;
    *signature = (uint8_t *)buf_take(&out);
    return 0;
}

/* The digest of an algorithm that fits the key's type; false where none does. */
static bool find_digest(EVP_PKEY *key, struct ssh_bytes algorithm, const char **ret_digest) {
    switch (EVP_PKEY_get_base_id(key)) {
    case EVP_PKEY_ED25519:
        *ret_digest = NULL;
        return ssh_bytes_are(algorithm, "ssh-ed25519");
    case EVP_PKEY_RSA:
        *ret_digest = ssh_bytes_are(algorithm, "rsa-sha2-512") ? "SHA512" : "SHA256";
        return ssh_bytes_are(algorithm, "rsa-sha2-512") || ssh_bytes_are(algorithm, "rsa-sha2-256");
    case EVP_PKEY_EC:
        for (size_t i = 0; i < ARRAY_LEN(curves); i++) {
            if (ssh_bytes_are(algorithm, curves[i].algorithm)) {
                *ret_digest = curves[i].digest;
                return true;
            }
        }
        return false;
    default:
        return false;
    }
}

int private_key_sign(EVP_PKEY *key, const uint8_t *algorithm, size_t algorithm_len,
                     const uint8_t *data, size_t len, uint8_t **ret, size_t *ret_len) {
    const char *digest = NULL;
    struct ssh_bytes name = {algorithm, algorithm_len};
    if (!find_digest(key, name, &digest)) {
        return -1;
    }
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    uint8_t *signature = NULL;
    size_t signature_len = 0;
    int rc = -1;
    if (context != NULL &&
        EVP_DigestSignInit_ex(context, NULL, digest, NULL, NULL, key, NULL) == 1 &&
        EVP_DigestSign(context, NULL, &signature_len, data, len) == 1) {
        signature = xmalloc(signature_len + 1);
        if (EVP_DigestSign(context, signature, &signature_len, data, len) == 1) {
            rc = EVP_PKEY_get_base_id(key) == EVP_PKEY_EC
                     ? convert_ecdsa(&signature, &signature_len)
                     : 0;
        }
    }
    EVP_MD_CTX_free(context);
    if (rc != 0) {
        free(signature);
        return -1;
    }
    *ret = signature;
    *ret_len = signature_len;
    return 0;
}
