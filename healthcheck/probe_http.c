/* HTTP: a status in the range, a body that matches, certificates that last.
 */
#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "healthcheck/http.h"
#include "healthcheck/probe.h"

#define BODY_MAX         (1024u * 1024u)
#define SECONDS_A_DAY    86400
#define STATUS_MIN_USUAL 200
#define STATUS_MAX_USUAL 399

/* The compiled expression is what a probe remembers between tries. */
static bool body_matches(struct probe *probe, const struct buf *body) {
    if (probe->state == NULL) {
        regex_t *compiled = xcalloc(1, sizeof(*compiled));
        if (regcomp(compiled, probe->entry->body_regex, REG_EXTENDED | REG_NOSUB) != 0) {
            auto_free(&compiled);
            return false;
        }
        probe->state = compiled;
    }
    return regexec(probe->state, buf_text(body), 0, NULL, 0) == 0;
}

/* The first words of a body that doesn't match, for the detail. */
static void fail_body(struct probe *probe, const struct http_answer *answer) {
    enum {
        SHOWN = 60
    };
    size_t len = strcspn(buf_text(answer->body), "\r\n");
    char *words = text_cleaned(buf_text(answer->body), len < SHOWN ? len : SHOWN);
    probe_done(probe, GATE_FAIL, "the body does not match \"%s\": %s%s", probe->entry->body_regex,
               words[0] != '\0' ? words : "it is empty", len > SHOWN ? "..." : "");
    auto_free(&words);
}

static void on_answer(const struct http_answer *answer, void *arg) {
    struct probe *probe = arg;
    const struct inv_health *entry = probe->entry;
    if (answer->failure != NULL) {
        probe_done(probe, GATE_FAIL, "%s", answer->failure);
        return;
    }
    long min = entry->status_min > 0 ? entry->status_min : STATUS_MIN_USUAL;
    long max = entry->status_max > 0 ? entry->status_max : STATUS_MAX_USUAL;
    unsigned long long took = answer->duration_ms;
    if (answer->status < min || answer->status > max) {
        probe_done(probe, GATE_FAIL, "%ld in %llu ms", answer->status, took);
        return;
    }
    if (entry->body_regex != NULL && !body_matches(probe, answer->body)) {
        fail_body(probe, answer);
        return;
    }
    if (entry->tls_min_days > 0) {
        if (answer->expires == 0) {
            probe_done(probe, GATE_FAIL, "the server showed no certificate, tls_min_days is %u",
                       entry->tls_min_days);
            return;
        }
        long long left = (answer->expires - (int64_t)time(NULL)) / SECONDS_A_DAY;
        if (left < (long long)entry->tls_min_days) {
            probe_done(probe, GATE_FAIL, "the certificate expires in %lld days, wanted %u", left,
                       entry->tls_min_days);
            return;
        }
    }
    probe_done(probe, GATE_PASS, "%ld in %llu ms", answer->status, took);
}

/* "Name: value" with the value expanded; libcurl sends an empty one only where it ends in ';'. */
static char *header_line(const struct probe *probe, const struct inv_pair *header) {
    char *value = inv_expand(header->value, probe->host, probe->address);
    char *line =
        value[0] == '\0' ? xasprintf("%s;", header->key) : xasprintf("%s: %s", header->key, value);
    auto_free(&value);
    return line;
}

static void start(struct probe *probe) {
    const struct inv_health *entry = probe->entry;
    if (entry->from_target && probe->env->conn == NULL) {
        probe_done(probe, GATE_FAIL, "no connection to the host");
        return;
    }
    char *url = inv_expand(entry->url, probe->host, probe->address);
    char **headers = xcalloc(entry->headers.count, sizeof(char *));
    for (size_t i = 0; i < entry->headers.count; i++) {
        headers[i] = header_line(probe, &entry->headers.items[i]);
    }
    const char *failure = NULL;
    probe->attempt = http_ask(probe->env->loop, entry->from_target ? probe->env->conn : NULL,
                              &(struct http_question){
                                  .url = url,
                                  .method = entry->method,
                                  .headers = (const char *const *)headers,
                                  .header_count = entry->headers.count,
                                  .tls_verify = entry->tls_verify,
                                  .want_expiry = entry->tls_min_days > 0,
                                  .body_max = BODY_MAX,
                              },
                              on_answer, probe, &failure);
    for (size_t i = 0; i < entry->headers.count; i++) {
        auto_free(&headers[i]);
    }
    auto_free(&headers);
    auto_free(&url);
    if (probe->attempt == NULL) {
        probe_done(probe, GATE_FAIL, "%s: %s", entry->url, failure);
    }
}

static void cancel(struct probe *probe) {
    http_cancel(probe->attempt);
}

static void release(struct probe *probe) {
    regfree(probe->state);
    auto_free(&probe->state);
}

static int validate(const struct inv_health *entry, struct error *error) {
    if (entry->url == NULL ||
        (strncmp(entry->url, "http://", 7) != 0 && strncmp(entry->url, "https://", 8) != 0)) {
        return error_set(error, FLEET_ERR_USAGE, "bad-health",
                         "health \"%s\": `url` must begin with http:// or https://", entry->name);
    }
    for (size_t i = 0; i < entry->headers.count; i++) {
        const struct inv_pair *header = &entry->headers.items[i];
        if (strpbrk(header->key, "\r\n:") != NULL || strpbrk(header->value, "\r\n") != NULL) {
            return error_set(error, FLEET_ERR_USAGE, "bad-health",
                             "health \"%s\": a header holds a line break, or a colon in its name",
                             entry->name);
        }
    }
    if (entry->body_regex != NULL) {
        regex_t compiled;
        int err = regcomp(&compiled, entry->body_regex, REG_EXTENDED | REG_NOSUB);
        if (err != 0) {
            char why[128];
            regerror(err, &compiled, why, sizeof(why));
            return error_set(error, FLEET_ERR_USAGE, "bad-health",
                             "health \"%s\": body_regex \"%s\" is no extended regular expression: "
                             "%s",
                             entry->name, entry->body_regex, why);
        }
        regfree(&compiled);
    }
    return 0;
}

const struct probe_type probe_http = {
    .name = "http",
    .start = start,
    .cancel = cancel,
    .release = release,
    .validate = validate,
};
