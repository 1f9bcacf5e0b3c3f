#include "transport/known_hosts.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "core/base/xalloc.h"
#include "transport/ssh_wire.h"

enum {
    FILE_BYTES_MAX = 64 * 1024 * 1024,
    ANSWER_BUCKETS = 1024
};

static const char *skip_blank(const char *at, const char *end) {
    while (at < end && (*at == ' ' || *at == '\t')) {
        at++;
    }
    return at;
}

/* The next blank-separated word; its length may be 0 at the line's end. */
static const char *next_word(const char **at, const char *end, size_t *ret_len) {
    const char *start = skip_blank(*at, end);
    const char *stop = start;
    while (stop < end && *stop != ' ' && *stop != '\t' && *stop != '\r') {
        stop++;
    }
    *at = stop;
    *ret_len = (size_t)(stop - start);
    return start;
}

static bool word_is(const char *word, size_t len, const char *text) {
    return strlen(text) == len && memcmp(word, text, len) == 0;
}

/* The key's blob, checked to begin with the algorithm that the line names. */
static uint8_t *parse_key(const char *type, size_t type_len, const char *base64, size_t base64_len,
                          size_t *ret_len) {
    uint8_t *blob = xmalloc(base64_len / 4 * 3 + 3);
    long len = ssh_base64_decode(base64, base64_len, blob);
    if (len > 0) {
        struct ssh_reader reader = {blob, (size_t)len, false};
        struct ssh_bytes name = ssh_read_string(&reader);
        if (!reader.bad && name.len == type_len && memcmp(name.data, type, type_len) == 0) {
            *ret_len = (size_t)len;
            return blob;
        }
    }
    free(blob);
    return NULL;
}

static char *copy_patterns(const char *word, size_t len) {
    char *patterns = xstrndup(word, len);
    if (patterns[0] != '|') {
        for (char *c = patterns; *c != '\0'; c++) {
            *c = (char)tolower((unsigned char)*c);
        }
    }
    return patterns;
}

static bool parse_line(const char *at, const char *end, struct known_host *ret) {
    size_t len;
    const char *word = next_word(&at, end, &len);
    if (len == 0 || word[0] == '#') {
        return false;
    }
    ret->mark = KNOWN_HOST_KEY;
    if (word[0] == '@') {
        if (word_is(word, len, "@revoked")) {
            ret->mark = KNOWN_HOST_REVOKED;
        } else if (word_is(word, len, "@cert-authority")) {
            ret->mark = KNOWN_HOST_AUTHORITY;
        } else {
            return false;
        }
        word = next_word(&at, end, &len);
    }
    size_t type_len;
    const char *type = next_word(&at, end, &type_len);
    size_t base64_len;
    const char *base64 = next_word(&at, end, &base64_len);
    if (len == 0 || type_len == 0 || base64_len == 0 || memchr(word, '\0', len) != NULL) {
        return false;
    }
    ret->blob = parse_key(type, type_len, base64, base64_len, &ret->blob_len);
    if (ret->blob == NULL) {
        return false;
    }
    ret->patterns = copy_patterns(word, len);
    return true;
}

/* ---- names ---- */

/* A name that stands in a line as it is. */
struct plain_name {
    const char *text; /* in the entry's patterns */
    size_t len;
    size_t entry;
};

/* Lines of plain names, sorted by name, and the lines that must be tried: hashed and patterns. */
struct known_hosts_index {
    struct plain_name *names;
    size_t name_count;
    size_t *others;
    size_t other_count;
};

static int compare_text(const char *a, size_t a_len, const char *b, size_t b_len) {
    int order = memcmp(a, b, a_len < b_len ? a_len : b_len);
    return order != 0 ? order : (a_len > b_len) - (a_len < b_len);
}

static int compare_names(const void *a, const void *b) {
    const struct plain_name *left = a;
    const struct plain_name *right = b;
    int order = compare_text(left->text, left->len, right->text, right->len);
    return order != 0 ? order : (left->entry > right->entry) - (left->entry < right->entry);
}

static void index_names(struct known_hosts_index *index, const char *patterns, size_t entry) {
    for (const char *at = patterns; *at != '\0';) {
        size_t len = strcspn(at, ",");
        if ((index->name_count & (index->name_count + 1)) == 0) {
            index->names =
                xrealloc(index->names, (2 * index->name_count + 2) * sizeof(*index->names));
        }
        index->names[index->name_count++] =
            (struct plain_name){.text = at, .len = len, .entry = entry};
        at += len + (at[len] == ',' ? 1 : 0);
    }
}

static struct known_hosts_index *index_new(const struct known_hosts *hosts) {
    struct known_hosts_index *index = xcalloc(1, sizeof(*index));
    index->others = xcalloc(hosts->count + 1, sizeof(*index->others));
    for (size_t i = 0; i < hosts->count; i++) {
        const char *patterns = hosts->entries[i].patterns;
        if (patterns[0] == '|' || strpbrk(patterns, "*?!") != NULL) {
            index->others[index->other_count++] = i;
        } else {
            index_names(index, patterns, i);
        }
    }
    if (index->name_count > 0) {
        qsort(index->names, index->name_count, sizeof(*index->names), compare_names);
    }
    return index;
}

/* The first of the sorted names that is not below `name`. */
static size_t lower_bound(const struct known_hosts_index *index, const char *name, size_t len) {
    size_t low = 0;
    size_t high = index->name_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct plain_name *at = &index->names[middle];
        if (compare_text(at->text, at->len, name, len) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static int compare_entries(const void *a, const void *b) {
    const struct known_host *left = *(const struct known_host *const *)a;
    const struct known_host *right = *(const struct known_host *const *)b;
    return (left > right) - (left < right);
}

/* A growing list of entries. */
struct found {
    const struct known_host **entries;
    size_t count;
};

static void found_add(struct found *found, const struct known_host *entry) {
    if (found->count > 0 && found->entries[found->count - 1] == entry) {
        return; /* a line that has the name twice */
    }
    if ((found->count & (found->count + 1)) == 0) {
        found->entries = xrealloc(found->entries, (2 * found->count + 2) * sizeof(*found->entries));
    }
    found->entries[found->count++] = entry;
}

size_t known_hosts_find(const struct known_hosts *hosts, const char *name,
                        const struct known_host ***ret_entries) {
    const struct known_hosts_index *index = hosts->index;
    size_t len = strlen(name);
    struct found found = {0};
    for (size_t i = lower_bound(index, name, len); i < index->name_count; i++) {
        const struct plain_name *at = &index->names[i];
        if (compare_text(at->text, at->len, name, len) != 0) {
            break;
        }
        found_add(&found, &hosts->entries[at->entry]);
    }
    for (size_t i = 0; i < index->other_count; i++) {
        const struct known_host *entry = &hosts->entries[index->others[i]];
        if (known_host_matches(entry, name)) {
            found_add(&found, entry);
        }
    }
    if (found.count > 1) {
        qsort(found.entries, found.count, sizeof(*found.entries), compare_entries);
    }
    *ret_entries = found.entries;
    return found.count;
}

/* ---- files ---- */

struct known_hosts *known_hosts_parse(const char *path, const char *text, size_t len) {
    struct known_hosts *hosts = xcalloc(1, sizeof(*hosts));
    hosts->path = xstrdup(path);
    const char *at = text;
    const char *end = text + len;
    size_t cap = 0;
    for (unsigned number = 1; at < end; number++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *stop = newline != NULL ? newline : end;
        struct known_host entry = {.file = hosts->path, .line = number};
        if (parse_line(at, stop, &entry)) {
            if (hosts->count == cap) {
                cap = cap == 0 ? 16 : cap * 2;
                hosts->entries = xrealloc(hosts->entries, cap * sizeof(*hosts->entries));
            }
            hosts->entries[hosts->count++] = entry;
        }
        at = newline != NULL ? newline + 1 : end;
    }
    hosts->index = index_new(hosts);
    return hosts;
}

void known_hosts_free(struct known_hosts *hosts) {
    if (hosts == NULL) {
        return;
    }
    for (size_t i = 0; i < hosts->count; i++) {
        free(hosts->entries[i].patterns);
        free(hosts->entries[i].blob);
    }
    free(hosts->index->names);
    free(hosts->index->others);
    free(hosts->index);
    free(hosts->entries);
    free(hosts->fault);
    free(hosts->path);
    free(hosts);
}

/* "|1|base64 salt|base64 HMAC-SHA1(salt, name)". */
static bool hashed_matches(const char *hashed, const char *name) {
    enum {
        SHA1_BYTES = 20,
        BASE64_BYTES = 28
    };
    if (strncmp(hashed, "|1|", 3) != 0) {
        return false;
    }
    const char *salt64 = hashed + 3;
    const char *bar = strchr(salt64, '|');
    if (bar == NULL || bar - salt64 != BASE64_BYTES || strlen(bar + 1) != BASE64_BYTES) {
        return false;
    }
    uint8_t salt[BASE64_BYTES];
    uint8_t want[BASE64_BYTES];
    if (ssh_base64_decode(salt64, BASE64_BYTES, salt) != SHA1_BYTES ||
        ssh_base64_decode(bar + 1, BASE64_BYTES, want) != SHA1_BYTES) {
        return false;
    }
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned digest_len = 0;
    HMAC(EVP_sha1(), salt, SHA1_BYTES, (const unsigned char *)name, strlen(name), digest,
         &digest_len);
    return digest_len == SHA1_BYTES && memcmp(digest, want, SHA1_BYTES) == 0;
}

/* A glob of * and ? against the whole name, without recursion. */
static bool glob_matches(const char *pattern, size_t len, const char *name) {
    const char *end = pattern + len;
    const char *star = NULL;
    const char *retry = NULL;
    while (*name != '\0') {
        if (pattern < end && *pattern == '*') {
            star = ++pattern;
            retry = name;
        } else if (pattern < end && (*pattern == '?' || *pattern == *name)) {
            pattern++;
            name++;
        } else if (star != NULL) {
            pattern = star;
            name = ++retry;
        } else {
            return false;
        }
    }
    while (pattern < end && *pattern == '*') {
        pattern++;
    }
    return pattern == end;
}

bool known_host_matches(const struct known_host *entry, const char *name) {
    if (entry->patterns[0] == '|') {
        return hashed_matches(entry->patterns, name);
    }
    bool found = false;
    for (const char *at = entry->patterns; *at != '\0';) {
        size_t len = strcspn(at, ",");
        if (*at == '!') {
            if (glob_matches(at + 1, len - 1, name)) {
                return false;
            }
        } else if (glob_matches(at, len, name)) {
            found = true;
        }
        at += len + (at[len] == ',' ? 1 : 0);
    }
    return found;
}

char *known_hosts_name(const char *host, uint16_t port) {
    char *name = port == 22 ? xstrdup(host) : xasprintf("[%s]:%u", host, (unsigned)port);
    for (char *c = name; *c != '\0'; c++) {
        *c = (char)tolower((unsigned char)*c);
    }
    return name;
}

/* What known_hosts_find has said of a name. */
struct answer {
    struct answer *next;
    char *name;
    const struct known_host **entries;
    size_t count;
};

struct cached_file {
    struct cached_file *next;
    struct known_hosts *hosts;
    struct stat stat;
    bool missing;
    struct answer *answers[ANSWER_BUCKETS];
};

struct known_hosts_cache {
    struct cached_file *files;
};

struct known_hosts_cache *known_hosts_cache_new(void) {
    return xcalloc(1, sizeof(struct known_hosts_cache));
}

static void forget_answers(struct cached_file *file) {
    for (size_t i = 0; i < ANSWER_BUCKETS; i++) {
        while (file->answers[i] != NULL) {
            struct answer *answer = file->answers[i];
            file->answers[i] = answer->next;
            free(answer->name);
            free(answer->entries);
            free(answer);
        }
    }
}

void known_hosts_cache_free(struct known_hosts_cache *cache) {
    while (cache->files != NULL) {
        struct cached_file *file = cache->files;
        cache->files = file->next;
        forget_answers(file);
        known_hosts_free(file->hosts);
        free(file);
    }
    free(cache);
}

/* Appends what the file holds. Returns NULL, or why that isn't known. */
static const char *read_text(const char *path, struct buf *text) {
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0) {
        return errno == ENOENT || errno == ENOTDIR ? NULL : strerror(errno);
    }
    if (S_ISCHR(status.st_mode)) {
        return NULL; /* /dev/null: none */
    }
    if (!S_ISREG(status.st_mode)) {
        return "it is no file";
    }
    for (;;) {
        ssize_t got = read(fd, buf_reserve(text, 65536), 65536);
        if (got == 0) {
            return NULL;
        }
        if (got < 0) {
            return strerror(errno);
        }
        text->len += (size_t)got;
        if (text->len > FILE_BYTES_MAX) {
            return strerror(EFBIG);
        }
    }
}

static struct known_hosts *read_file(const char *path) {
    struct buf text = BUF_INIT;
    const char *fault = read_text(path, &text);
    struct known_hosts *hosts = known_hosts_parse(path, text.data, fault == NULL ? text.len : 0);
    hosts->fault = fault != NULL ? xstrdup(fault) : NULL;
    buf_free(&text);
    return hosts;
}

static bool unchanged(const struct cached_file *file, bool missing, const struct stat *now) {
    if (file->hosts->fault != NULL) {
        return false; /* it may be readable by now */
    }
    if (missing || file->missing) {
        return missing && file->missing;
    }
    const struct stat *was = &file->stat;
    return was->st_dev == now->st_dev && was->st_ino == now->st_ino &&
           was->st_size == now->st_size && was->st_mtim.tv_sec == now->st_mtim.tv_sec &&
           was->st_mtim.tv_nsec == now->st_mtim.tv_nsec;
}

static struct cached_file *get_file(struct known_hosts_cache *cache, const char *path) {
    struct stat now = {0};
    bool missing = stat(path, &now) != 0;
    struct cached_file *file = cache->files;
    while (file != NULL && strcmp(file->hosts->path, path) != 0) {
        file = file->next;
    }
    if (file != NULL && unchanged(file, missing, &now)) {
        return file;
    }
    if (file == NULL) {
        file = xcalloc(1, sizeof(*file));
        file->next = cache->files;
        cache->files = file;
    }
    forget_answers(file);
    known_hosts_free(file->hosts);
    file->hosts = read_file(path);
    file->stat = now;
    file->missing = missing;
    return file;
}

const struct known_hosts *known_hosts_cache_get(struct known_hosts_cache *cache, const char *path) {
    return get_file(cache, path)->hosts;
}

/* FNV-1a. */
static size_t bucket_of(const char *name) {
    uint64_t hash = 14695981039346656037u;
    for (const char *c = name; *c != '\0'; c++) {
        hash = (hash ^ (unsigned char)*c) * 1099511628211u;
    }
    return hash % ANSWER_BUCKETS;
}

size_t known_hosts_cache_find(struct known_hosts_cache *cache, const char *path, const char *name,
                              const struct known_host *const **ret_entries) {
    struct cached_file *file = get_file(cache, path);
    struct answer **bucket = &file->answers[bucket_of(name)];
    struct answer *answer = *bucket;
    while (answer != NULL && strcmp(answer->name, name) != 0) {
        answer = answer->next;
    }
    if (answer == NULL) {
        answer = xcalloc(1, sizeof(*answer));
        answer->name = xstrdup(name);
        answer->count = known_hosts_find(file->hosts, name, &answer->entries);
        answer->next = *bucket;
        *bucket = answer;
    }
    *ret_entries = answer->entries;
    return answer->count;
}
