/* Loads and selects from an inventory of many hosts, and prints how long it took. Nothing is
 * asserted: times depend on the machine. Usage: bench_inventory [HOSTS]
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "core/base/buf.h"
#include "inventory/inventory.h"
#include "inventory/select.h"

#define ROUNDS 5

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* A fleet as large ones look: an address, a few tags, now and then a probe of its own. */
static void write_fleet(FILE *file, size_t hosts) {
    static const char *const roles[] = {"db", "web", "cache", "queue", "edge"};
    fprintf(file, "{ \"version\": 1, // a fleet for measuring\n"
                  "  \"defaults\": { \"user\": \"root\", \"system\": { \"flake\": \".\" },\n"
                  "    \"health\": [ { \"name\": \"ssh\", \"type\": \"tcp\", \"port\": 22 } ] },\n"
                  "  \"tags\": { \"db\": { \"policy\": { \"max_parallel\": 1 } },\n"
                  "    \"web\": { \"health\": [ { \"name\": \"http\", \"type\": \"http\",\n"
                  "      \"url\": \"http://${address}/\" } ] } },\n  \"hosts\": {\n");
    for (size_t i = 0; i < hosts; i++) {
        fprintf(file, "    \"host%05zu\": { \"address\": [\"10.%zu.%zu.%zu\", \"fd00::%zx\"],\n", i,
                i / 65536, i / 256 % 256, i % 256, i + 1);
        fprintf(file, "      \"tags\": [\"%s\", \"dc%zu\", \"%s\"]", roles[i % 5], i % 7,
                i % 10 == 0 ? "canary" : "prod");
        if (i % 4 == 0) {
            fprintf(file, ",\n      \"health\": [ { \"name\": \"app\", \"type\": \"tcp\", "
                          "\"port\": 8080, } ]");
        }
        fprintf(file, " },\n");
    }
    fprintf(file, "  }\n}\n");
}

static int measure(const char *path, double *ret_load_ms, double *ret_select_ms) {
    struct inventory *inventory;
    struct inv_errors errors;
    struct error error = ERROR_INIT;
    double start = now_ms();
    if (inventory_load(path, NULL, 0, &inventory, &errors, &error) != 0) {
        struct buf out = BUF_INIT;
        inv_errors_print(&errors, path, &out);
        fprintf(stderr, "%s\n%s", error.message, buf_text(&out));
        buf_free(&out);
        inv_errors_free(&errors);
        return 1;
    }
    double loaded = now_ms();
    const char *const selectors[] = {"host*"};
    const char *const tags[] = {"db,web+prod", "!canary"};
    const char *const on[] = {"@dc1,@dc2,host000*,!host00001"};
    struct selection_args args = {.selectors = {selectors, 1}, .tags = {tags, 2}, .on = {on, 1}};
    const struct inv_host **hosts;
    size_t count;
    int code = selection_resolve(inventory, &args, &hosts, &count, &error);
    double selected = now_ms();
    if (code != 0) {
        fprintf(stderr, "%s\n", error.message);
        inventory_free(inventory);
        return 1;
    }
    *ret_load_ms = loaded - start;
    *ret_select_ms = selected - loaded;
    free(hosts);
    inventory_free(inventory);
    return 0;
}

int main(int argc, char **argv) {
    size_t hosts = argc > 1 ? strtoul(argv[1], NULL, 10) : 10000;
    char path[] = "/tmp/fleet-bench-XXXXXX";
    int fd = mkstemp(path);
    FILE *file = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (file == NULL) {
        perror(path);
        return 1;
    }
    write_fleet(file, hosts);
    long size = ftell(file);
    fclose(file);
    int code = 0;
    for (int i = 0; i < ROUNDS && code == 0; i++) {
        double load = 0;
        double select = 0;
        code = measure(path, &load, &select);
        if (code == 0) {
            printf("inventory: %zu hosts, %.1f MB: load %.1f ms, select %.1f ms, both %.1f ms\n",
                   hosts, (double)size / 1e6, load, select, load + select);
        }
    }
    unlink(path);
    return code;
}
