/* A metric: an instant query of Prometheus (or what speaks like it), whose value must lie `above`
 * and `below` what the entry says. With several series every one must; none at all, or a NaN, is
 * no data, and no data is never healthy.
 *
 * Source: https://prometheus.io/docs/prometheus/latest/querying/api/ (instant queries; result
 * types vector and scalar).
 */
#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/xalloc.h"
#include "healthcheck/http.h"
#include "healthcheck/probe.h"

#define BODY_MAX (1024u * 1024u)

/* [time, "value"]. False where it isn't that. */
static bool read_sample(const cJSON *sample, double *ret) {
    const cJSON *value = cJSON_IsArray(sample) ? cJSON_GetArrayItem(sample, 1) : NULL;
    if (value == NULL || !cJSON_IsString(value) || value->valuestring[0] == '\0') {
        return false;
    }
    char *end = NULL;
    *ret = strtod(value->valuestring, &end); /* reads NaN, +Inf and -Inf as well */
    return *end == '\0';
}

/* What is wrong with one value, as a new string, or NULL. */
static char *complaint(const struct inv_health *entry, double value) {
    if (isnan(value)) {
        return xstrdup("the value is not a number");
    }
    if (entry->has_above && !(value > entry->above)) {
        return xasprintf("%g is not above %g", value, entry->above);
    }
    if (entry->has_below && !(value < entry->below)) {
        return xasprintf("%g is not below %g", value, entry->below);
    }
    return NULL;
}

struct tally {
    size_t series;
    size_t bad;
    double value; /* the last one */
    char *why;    /* the first complaint */
};

static void count_sample(const struct inv_health *entry, const cJSON *sample, struct tally *tally) {
    double value = NAN;
    char *why = read_sample(sample, &value) ? complaint(entry, value)
                                            : xstrdup("the answer holds no value");
    tally->series++;
    tally->value = value;
    if (why != NULL) {
        tally->bad++;
        if (tally->why == NULL) {
            tally->why = why;
            return;
        }
        auto_free(&why);
    }
}

static void conclude(struct probe *probe, struct tally *tally, unsigned long long took) {
    if (tally->series == 0) {
        probe_done(probe, GATE_FAIL, "no data: the query has no result");
    } else if (tally->bad > 0 && tally->series > 1) {
        probe_done(probe, GATE_FAIL, "%s (%zu of %zu series)", tally->why, tally->bad,
                   tally->series);
    } else if (tally->bad > 0) {
        probe_done(probe, GATE_FAIL, "%s", tally->why);
    } else if (tally->series > 1) {
        probe_done(probe, GATE_PASS, "all %zu series are in range, in %llu ms", tally->series,
                   took);
    } else {
        probe_done(probe, GATE_PASS, "%g in %llu ms", tally->value, took);
    }
}

static void on_json(struct probe *probe, const cJSON *root, const struct http_answer *answer) {
    const cJSON *status = cJSON_GetObjectItemCaseSensitive(root, "status");
    if (!cJSON_IsString(status) || strcmp(status->valuestring, "success") != 0) {
        const cJSON *error = cJSON_GetObjectItemCaseSensitive(root, "error");
        probe_done(probe, GATE_FAIL, "the query failed (%ld): %s", answer->status,
                   cJSON_IsString(error) ? error->valuestring : "no reason given");
        return;
    }
    const cJSON *data = cJSON_GetObjectItemCaseSensitive(root, "data");
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(data, "resultType");
    const cJSON *result = cJSON_GetObjectItemCaseSensitive(data, "result");
    struct tally tally = {0};
    if (cJSON_IsString(type) && strcmp(type->valuestring, "scalar") == 0) {
        count_sample(probe->entry, result, &tally);
    } else if (cJSON_IsString(type) && strcmp(type->valuestring, "vector") == 0 &&
               cJSON_IsArray(result)) {
        const cJSON *series;
        cJSON_ArrayForEach(series, result) {
            count_sample(probe->entry, cJSON_GetObjectItemCaseSensitive(series, "value"), &tally);
        }
    } else {
        probe_done(probe, GATE_FAIL, "the answer is no instant vector or scalar");
        return;
    }
    conclude(probe, &tally, answer->duration_ms);
    auto_free(&tally.why);
}

static void on_answer(const struct http_answer *answer, void *arg) {
    struct probe *probe = arg;
    if (answer->failure != NULL) {
        probe_done(probe, GATE_FAIL, "%s", answer->failure);
        return;
    }
    cJSON *root = cJSON_ParseWithLength(buf_text(answer->body), answer->body->len);
    if (root == NULL) {
        probe_done(probe, GATE_FAIL, "%ld, and the answer is not JSON", answer->status);
        return;
    }
    on_json(probe, root, answer);
    cJSON_Delete(root);
}

/* The query's URL. `url` may be the server ("http://prometheus:9090") or the API itself. */
static char *query_url(const struct probe *probe) {
    char *base = inv_expand(probe->entry->url, probe->host, probe->address);
    char *query = inv_expand(probe->entry->query, probe->host, probe->address);
    char *escaped = curl_easy_escape(NULL, query, 0);
    char *host = strstr(base, "://");
    const char *path = host != NULL ? strchr(host + 3, '/') : NULL;
    const char *api = path == NULL ? "/api/v1/query" : path[1] == '\0' ? "api/v1/query" : "";
    char *url = xasprintf("%s%s%cquery=%s", base, api, strchr(base, '?') != NULL ? '&' : '?',
                          escaped != NULL ? escaped : "");
    curl_free(escaped);
    auto_free(&query);
    auto_free(&base);
    return url;
}

static void start(struct probe *probe) {
    const struct inv_health *entry = probe->entry;
    if (entry->from_target && probe->env->conn == NULL) {
        probe_done(probe, GATE_FAIL, "no connection to the host");
        return;
    }
    char *url = query_url(probe);
    char **headers = xcalloc(entry->headers.count + 1, sizeof(char *));
    for (size_t i = 0; i < entry->headers.count; i++) {
        headers[i] =
            xasprintf("%s: %s", entry->headers.items[i].key, entry->headers.items[i].value);
    }
    const char *failure = NULL;
    probe->attempt = http_ask(probe->env->loop, entry->from_target ? probe->env->conn : NULL,
                              &(struct http_question){
                                  .url = url,
                                  .headers = (const char *const *)headers,
                                  .header_count = entry->headers.count,
                                  .tls_verify = entry->tls_verify,
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

static int validate(const struct inv_health *entry, struct error *error) {
    if (entry->url == NULL || entry->query == NULL || entry->query[0] == '\0') {
        return error_set(error, FLEET_ERR_USAGE, "bad-health",
                         "health \"%s\": a metric needs `url` and `query`", entry->name);
    }
    if (!entry->has_above && !entry->has_below) {
        return error_set(error, FLEET_ERR_USAGE, "bad-health",
                         "health \"%s\": a metric needs `above` or `below`", entry->name);
    }
    return 0;
}

const struct probe_type probe_metric = {
    .name = "metric",
    .start = start,
    .cancel = cancel,
    .validate = validate,
};
