/* The HTTP and metric probes against real servers, from here and through a tunnel, in clear and
 * with TLS.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "probe_fixture.h"

#define ASSERT_SAYS(fixture, words)                                                                \
    cr_assert(strstr(buf_text(&(fixture)->results), words) != NULL, "wanted \"%s\" in:\n%s",       \
              words, buf_text(&(fixture)->results))

#define OK(body) "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" body

struct http_case {
    struct fixture fixture;
    struct server server;
    char *url;
};

static struct inv_health *begin(struct http_case *c, enum inv_health_type type,
                                const char *response) {
    fixture_init(&c->fixture, type);
    server_start(&c->server, &c->fixture, response);
    c->url = xasprintf("http://${address}:%u/health", c->server.port);
    c->fixture.entries[0].url = c->url;
    return &c->fixture.entries[0];
}

static void end(struct http_case *c) {
    server_stop(&c->server);
    fixture_end(&c->fixture);
    auto_free(&c->url);
}

Test(http_probe, passes_with_a_status_in_the_range) {
    static const struct inv_pair headers[] = {{"X-Host", "${name}"}, {"X-Empty", ""}};
    struct http_case c;
    struct inv_health *entry = begin(&c, INV_HEALTH_HTTP, OK("fine"));
    entry->headers = (struct inv_pairs){headers, 2};
    entry->method = "POST";
    cr_assert(fixture_round(&c.fixture));
    ASSERT_SAYS(&c.fixture, "probe ok: 200 in ");
    const char *request = buf_text(&c.server.request);
    cr_assert(strstr(request, "POST /health HTTP/1.1\r\n") == request, "%s", request);
    cr_assert(strstr(request, "\r\nX-Host: db1\r\n") != NULL, "%s", request);
    cr_assert(strstr(request, "\r\nX-Empty:\r\n") != NULL, "%s", request);
    end(&c);
}

Test(http_probe, fails_with_another_status_and_follows_nothing) {
    struct http_case c;
    begin(&c, INV_HEALTH_HTTP, "HTTP/1.1 503 Down\r\nConnection: close\r\n\r\n");
    cr_assert_not(fixture_round(&c.fixture));
    ASSERT_SAYS(&c.fixture, "probe fail: 503 in ");
    end(&c);
    begin(&c, INV_HEALTH_HTTP,
          "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nConnection: close\r\n\r\n");
    cr_assert(fixture_round(&c.fixture), "the usual range is 200..399");
    cr_assert_eq(c.server.connections, 1);
    end(&c);
    struct inv_health *entry = begin(&c, INV_HEALTH_HTTP, OK(""));
    entry->status_min = entry->status_max = 204;
    cr_assert_not(fixture_round(&c.fixture));
    end(&c);
}

Test(http_probe, looks_at_the_body) {
    struct http_case c;
    begin(&c, INV_HEALTH_HTTP, OK("{\"state\": \"up\"}"))->body_regex = "\"state\": *\"(up|ok)\"";
    cr_assert(fixture_round(&c.fixture));
    end(&c);
    begin(&c, INV_HEALTH_HTTP, OK("\033[2Jsad story\nmore"))->body_regex = "^up$";
    cr_assert_not(fixture_round(&c.fixture));
    ASSERT_SAYS(&c.fixture, "probe fail: the body does not match \"^up$\": sad story\n");
    end(&c);
}

Test(http_probe, keeps_no_more_than_a_megabyte) {
    struct http_case c;
    enum {
        BLOCK = 100000
    };
    char *response = xmalloc(BLOCK + 64);
    int head = sprintf(response, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    memset(response + head, 'x', BLOCK);
    response[head + BLOCK] = '\0';
    struct inv_health *entry = begin(&c, INV_HEALTH_HTTP, response);
    c.server.repeat = 30; /* 3 MB */
    entry->body_regex = "xxx";
    cr_assert(fixture_round(&c.fixture));
    end(&c);
    auto_free(&response);
}

Test(http_probe, says_what_went_wrong) {
    struct http_case c;
    struct inv_health *entry = begin(&c, INV_HEALTH_HTTP, NULL);
    entry->timeout_ms = 100;
    cr_assert_not(fixture_round(&c.fixture));
    ASSERT_SAYS(&c.fixture, "probe fail: no answer within 100 ms");
    end(&c);

    entry = begin(&c, INV_HEALTH_HTTP, NULL);
    char *url = xasprintf("http://127.0.0.1:%u/", closed_port());
    entry->url = url;
    cr_assert_not(fixture_round(&c.fixture));
    ASSERT_SAYS(&c.fixture, "probe fail: connection refused\n");
    end(&c);
    auto_free(&url);

    begin(&c, INV_HEALTH_HTTP, "");
    cr_assert_not(fixture_round(&c.fixture));
    ASSERT_SAYS(&c.fixture, "probe fail: the server closed the connection without an answer");
    end(&c);

    begin(&c, INV_HEALTH_HTTP, "SSH-2.0-OpenSSH_9.2\r\n");
    cr_assert_not(fixture_round(&c.fixture));
    end(&c);

    begin(&c, INV_HEALTH_HTTP, NULL)->url = "http://[::1";
    cr_assert_not(fixture_round(&c.fixture));
    ASSERT_SAYS(&c.fixture, "probe fail: http://[::1: the URL cannot be read");
    end(&c);
}

Test(http_probe, ignores_the_proxy_environment) {
    struct http_case c;
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
    begin(&c, INV_HEALTH_HTTP, OK(""));
    cr_assert(fixture_round(&c.fixture));
    end(&c);
}

Test(http_probe, from_the_target_the_far_side_connects_and_resolves) {
    struct http_case c;
    struct fake_conn fake;
    struct inv_health *entry = begin(&c, INV_HEALTH_HTTP, OK("through"));
    fake_conn_init(&fake, &c.fixture.loop);
    c.fixture.env.conn = &fake.conn;
    char *url = xasprintf("http://only-the-target-knows.invalid:%u/x", c.server.port);
    entry->url = url;
    entry->from_target = true;
    entry->body_regex = "^through$";
    cr_assert(fixture_round(&c.fixture));
    cr_assert_str_eq(fake.last_host, "only-the-target-knows.invalid");
    cr_assert(strstr(buf_text(&c.server.request), "Host: only-the-target-knows.invalid:") != NULL);
    end(&c);
    auto_free(&url);
}

Test(http_probe, from_the_target_large_answers_and_refusals_come_through) {
    struct http_case c;
    struct fake_conn fake;
    enum {
        BLOCK = 100000
    };
    char *response = xmalloc(BLOCK + 64);
    int head = sprintf(response, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    memset(response + head, 'x', BLOCK);
    response[head + BLOCK] = '\0';
    struct inv_health *entry = begin(&c, INV_HEALTH_HTTP, response);
    fake_conn_init(&fake, &c.fixture.loop);
    c.fixture.env.conn = &fake.conn;
    c.server.repeat = 30;
    entry->from_target = true;
    entry->body_regex = "xxx";
    struct inv_health *refused = fixture_add(&c.fixture, INV_HEALTH_HTTP, "refused");
    char *url = xasprintf("http://127.0.0.1:%u/", closed_port());
    refused->url = url;
    refused->from_target = true;
    cr_assert_not(fixture_round(&c.fixture));
    ASSERT_SAYS(&c.fixture, "probe ok: 200 in ");
    ASSERT_SAYS(&c.fixture, "refused fail: connection refused\n");
    end(&c);
    auto_free(&url);
    auto_free(&response);
}

Test(http_probe, a_connection_that_goes_ends_its_tries) {
    struct http_case c;
    struct fake_conn fake;
    begin(&c, INV_HEALTH_HTTP, NULL)->from_target = true;
    fake_conn_init(&fake, &c.fixture.loop);
    c.fixture.env.conn = &fake.conn;
    fixture_start(&c.fixture);
    fixture_run(&c.fixture, NULL, 50);
    cr_assert_eq(fake.tunnels, 1, "%s", buf_text(&c.fixture.results));
    health_set_conn(c.fixture.health, NULL);
    fixture_run(&c.fixture, NULL, 50);
    ASSERT_SAYS(&c.fixture, "no connection to the host");
    end(&c);
}

Test(http_probe, many_at_once_and_over_time) {
    struct http_case c;
    begin(&c, INV_HEALTH_HTTP, OK("x"));
    for (size_t i = 1; i < FIXTURE_ENTRIES; i++) {
        fixture_add(&c.fixture, INV_HEALTH_HTTP, "more")->url = c.url;
    }
    fixture_start(&c.fixture);
    cr_assert(fixture_run(&c.fixture, &c.fixture.healthy, 3000));
    cr_assert_geq(c.server.connections, 8);
    end(&c);
}

/* --- TLS, with openssl's own server --- */

struct tls {
    char dir[64];
    uint16_t port;
    pid_t pid;
};

static void run(const char *command) {
    cr_assert_eq(system(command), 0, "%s", command);
}

static void tls_start(struct tls *tls, int days) {
    char command[512];
    char port[8];
    char key[96];
    char cert[96];
    strcpy(tls->dir, "/tmp/fleet-tls-XXXXXX");
    cr_assert_not_null(mkdtemp(tls->dir));
    snprintf(key, sizeof(key), "%s/key", tls->dir);
    snprintf(cert, sizeof(cert), "%s/cert", tls->dir);
    snprintf(command, sizeof(command),
             "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout %s "
             "-out %s -days %d -subj /CN=localhost >/dev/null 2>&1",
             key, cert, days);
    run(command);
    tls->port = closed_port();
    snprintf(port, sizeof(port), "%u", tls->port);
    tls->pid = fork();
    if (tls->pid == 0) {
        freopen("/dev/null", "w", stdout);
        freopen("/dev/null", "w", stderr);
        execlp("openssl", "openssl", "s_server", "-www", "-accept", port, "-key", key, "-cert",
               cert, (char *)NULL);
        _exit(127);
    }
}

static void tls_stop(const struct tls *tls) {
    char command[128];
    kill(tls->pid, SIGKILL);
    waitpid(tls->pid, NULL, 0);
    snprintf(command, sizeof(command), "rm -r %s", tls->dir);
    run(command);
}

/* Until the server listens, then one look; the words of the last result. */
static void look(struct fixture *fixture, const struct tls *tls, bool verify, uint32_t min_days,
                 struct conn *conn) {
    char url[64];
    snprintf(url, sizeof(url), "https://127.0.0.1:%u/", tls->port);
    for (int tries = 0; tries < 100; tries++) {
        fixture_init(fixture, INV_HEALTH_HTTP);
        struct inv_health *entry = &fixture->entries[0];
        struct fake_conn fake;
        fake_conn_init(&fake, &fixture->loop);
        fixture->env.conn = &fake.conn;
        entry->from_target = conn != NULL;
        entry->url = url;
        entry->tls_verify = verify;
        entry->tls_min_days = min_days;
        fixture_round(fixture);
        if (strstr(buf_text(&fixture->results), "refused") == NULL) {
            return;
        }
        fixture_end(fixture);
        usleep(50000);
    }
    cr_assert_fail("openssl s_server did not start");
}

Test(http_probe, tls_is_verified_and_certificates_have_to_last) {
    struct tls tls;
    struct fixture fixture;
    struct conn any;
    tls_start(&tls, 10);
    look(&fixture, &tls, true, 0, NULL);
    ASSERT_SAYS(&fixture, "probe fail: SSL certificate problem: self");
    fixture_end(&fixture);
    look(&fixture, &tls, false, 5, NULL);
    ASSERT_SAYS(&fixture, "probe ok: 200 in ");
    fixture_end(&fixture);
    look(&fixture, &tls, false, 30, NULL);
    ASSERT_SAYS(&fixture, " days, wanted 30");
    fixture_end(&fixture);
    look(&fixture, &tls, false, 5, &any);
    ASSERT_SAYS(&fixture, "probe ok: 200 in ");
    fixture_end(&fixture);
    tls_stop(&tls);
}

/* --- Metrics --- */

static bool metric(const char *response, const char *words) {
    struct http_case c;
    struct inv_health *entry = begin(&c, INV_HEALTH_METRIC, response);
    auto_free(&c.url);
    c.url = xasprintf("http://${address}:%u", c.server.port);
    entry->url = c.url;
    entry->query = "errors{host=\"${name}\"} > 0";
    entry->has_below = true;
    entry->below = 5;
    bool healthy = fixture_round(&c.fixture);
    ASSERT_SAYS(&c.fixture, words);
    cr_assert(strstr(buf_text(&c.server.request),
                     "GET /api/v1/query?query=errors%7Bhost%3D%22db1%22%7D%20%3E%200 HTTP") != NULL,
              "%s", buf_text(&c.server.request));
    end(&c);
    return healthy;
}

#define VECTOR(series)                                                                             \
    OK("{\"status\":\"success\",\"data\":{\"resultType\":\"vector\",\"result\":[" series "]}}")
#define SERIES(value) "{\"metric\":{},\"value\":[1435781451.781,\"" value "\"]}"

Test(http_probe, a_metric_passes_in_its_range) {
    cr_assert(metric(VECTOR(SERIES("4.5")), "probe ok: 4.5 in "));
    cr_assert(metric(VECTOR(SERIES("1") "," SERIES("2")), "probe ok: all 2 series are in range"));
    cr_assert(metric(OK("{\"status\":\"success\",\"data\":{\"resultType\":\"scalar\","
                        "\"result\":[1,\"3\"]}}"),
                     "probe ok: 3 in "));
}

/* Health gating, 8: no data and no number are not healthy. */
Test(http_probe, a_metric_out_of_range_or_without_data_is_not_healthy) {
    cr_assert_not(metric(VECTOR(SERIES("5")), "probe fail: 5 is not below 5"));
    cr_assert_not(metric(VECTOR(SERIES("1") "," SERIES("9")), "9 is not below 5 (1 of 2 series)"));
    cr_assert_not(metric(VECTOR(""), "probe fail: no data: the query has no result"));
    cr_assert_not(metric(VECTOR(SERIES("NaN")), "probe fail: the value is not a number"));
    cr_assert_not(metric(VECTOR(SERIES("x")), "probe fail: the answer holds no value"));
    cr_assert_not(metric(OK("<html>"), "probe fail: 200, and the answer is not JSON"));
    cr_assert_not(metric("HTTP/1.1 400 Bad\r\nConnection: close\r\n\r\n"
                         "{\"status\":\"error\",\"error\":\"parse error\"}",
                         "probe fail: the query failed (400): parse error"));
}

Test(http_probe, validate_refuses_what_loading_cannot_see) {
    struct error error = ERROR_INIT;
    struct inv_health entry = {
        .name = "web", .type = INV_HEALTH_HTTP, .url = "http://x/", .body_regex = "a(b"};
    cr_assert_eq(health_validate(&entry, &error), FLEET_ERR_USAGE);
    cr_assert(strstr(error.message, "health \"web\": body_regex \"a(b\" is no extended") != NULL);
    entry.body_regex = "a(b)";
    cr_assert_eq(health_validate(&entry, &error), 0);
    static const struct inv_pair smuggled[] = {{"X", "1\r\nHost: other"}};
    entry.headers = (struct inv_pairs){smuggled, 1};
    cr_assert_eq(health_validate(&entry, &error), FLEET_ERR_USAGE);
}
