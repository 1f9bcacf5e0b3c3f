/* fleet.schema.json is what the tables generate, and says the same as the loader.
 *
 * The corpus is made from one inventory that uses every field: each value in it is replaced in turn
 * by each of a pool of others, and each object is given a key that nobody knows. The loader judges
 * each variant here, python3-jsonschema all of them in one process. A value meets one in seven of
 * the pool, another seventh than its neighbours do, which can miss a wrong limit; with FLEET_FULL=1
 * or in CI all of them. What only the loader can know (names that must exist, merged layers) is
 * kept out by the corpus's construction.
 */
#include <cjson/cJSON.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "inventory/inventory.h"
#include "inventory/schema.h"

#define STORE_PATH "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-system"
#define SETTINGS                                                                                   \
    "\"address\": [\"10.0.0.1\", \"[fd00::1]:22\"], \"user\": \"u\", \"port\": 22,"                \
    "\"identity_file\": [\"~/k\", \"/k\"], \"known_hosts\": \"~/h\","                              \
    "\"host_key\": [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGFiY2Q=\"],"                            \
    "\"host_key_check\": \"strict\", \"jump\": \"u@j:22\", \"connect_timeout\": \"10s\","          \
    "\"sudo\": false, \"password_command\": [\"pass\", \"x\"]"
#define POLICY_HOST                                                                                \
    "\"exclusive\": \"g\", \"activate_timeout\": \"1m\", \"confirm_timeout\": \"1m\","             \
    "\"startup_grace\": \"0s\", \"min_healthy_time\": \"0s\", \"healthy_deadline\": \"1m\","       \
    "\"fail_fast\": true, \"tolerate_preexisting\": true, \"rollback\": true,"                     \
    "\"reboot\": \"if-needed\""
#define HEALTH                                                                                     \
    "\"health\": [{\"name\": \"s\", \"type\": \"systemd\", \"units\": [\"a\"], \"ignore\": "       \
    "[\"b\"], \"interval\": \"5s\", \"timeout\": \"3s\", \"successes\": 1, \"failures\": 3},"      \
    "{\"name\": \"t\", \"type\": \"tcp\", \"port\": 22, \"host\": \"h\", \"from\": \"target\"},"   \
    "{\"name\": \"h\", \"type\": \"http\", \"url\": \"http://x/\", \"method\": \"GET\","           \
    "\"headers\": {\"A\": \"b\"}, \"status\": 200, \"body_regex\": \"ok\", \"tls_verify\": true,"  \
    "\"tls_min_days\": 3}, {\"name\": \"c\", \"type\": \"command\", \"run\": [\"true\"]},"         \
    "{\"name\": \"m\", \"type\": \"metric\", \"url\": \"https://x\", \"query\": \"q\","            \
    "\"above\": 1, \"below\": 2.5}]"
#define SECRETS                                                                                    \
    "\"secrets\": [{\"name\": \"a\", \"file\": \"f\", \"path\": \"/p\", \"owner\": \"o\","         \
    "\"group\": \"g\", \"mode\": \"0400\", \"when\": \"after\", \"restart\": [\"u\"]},"            \
    "{\"name\": \"b\", \"command\": [\"sops\"]}, {\"name\": \"c\", \"age\": \"f\","                \
    "\"identity\": \"i\"}]"
#define OTHERS                                                                                     \
    "\"optional\": false, \"profile\": \"/nix/var/nix/profiles/system\","                          \
    "\"nix_options\": {\"cores\": 4, \"x\": [\"a\"], \"s\": false}, \"nix_bin\": \"/b\","          \
    "\"copy\": {\"compress\": \"zstd\", \"substitute\": true, \"max_rate\": \"10MB\","             \
    "\"cache\": {\"push\": \"file:///c\", \"substituter\": \"http://c\","                          \
    "\"public_key\": \"c:AAAAC3NzaC1lZDI1NTE5AAAAIGFiY2Q=\"}}"

static const char full[] =
    "{\"$schema\": \"x\", \"version\": 1, \"name\": \"n\","
    "\"defaults\": {" SETTINGS ", " OTHERS ", " HEALTH ", " SECRETS ","
    "\"system\": {\"file\": \"f\", \"attr\": \"a\", \"args\": {\"k\": \"v\"}, "
    "\"nix_options\": {\"cores\": 1}, \"nix_bin\": \"b\"},"
    "\"build\": {\"on\": [\"local\", \"target\", {\"address\": \"b.lan\", \"sudo\": true}]},"
    "\"policy\": {" POLICY_HOST ", \"waves\": [1, \"10%\", {\"tag\": \"t\"}], \"max_parallel\": 2,"
    "\"copy_parallel\": 3, \"prestage\": \"all\", \"order\": \"shuffle\", \"bake\": \"0s\","
    "\"max_failed\": 1, \"max_unreachable\": \"10%\", \"on_failure\": \"leave\","
    "\"promote\": \"manual\"}},"
    "\"tags\": {\"t\": {\"policy\": {\"fail_fast\": true, \"max_parallel\": 2}}, \"e\": {}},"
    "\"hosts\": {\"h1\": {\"address\": [\"10.0.0.1\"], \"tags\": [\"t\", \"v\"], \"policy\": "
    "{" POLICY_HOST "},"
    "\"system\": {\"path\": \"" STORE_PATH "\"}, \"build\": {\"on\": \"local\"}},"
    "\"h2\": {\"address\": \"local\", \"system\": {\"command\": [\"c\"]}, \"health\": false},"
    "\"h3\": {\"system\": {\"flake\": \".#x\"}}}}";

/* Values that some field takes and others do not, and the edges of the formats. None of them is a
 * name that would have to exist, hence no plain word but "local". */
static const char *const pool[] = {
    "null",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "1.5",
    "65536",
    "600",
    "1e9",
    "\"\"",
    "\"local\"",
    "\"10s\"",
    "\"0s\"",
    "\"1.5s\"",
    "\"1234567890s\"",
    "\"10MB\"",
    "\"1.5KiB\"",
    "\"10%\"",
    "\"101%\"",
    "\"a b\"",
    "\"-a\"",
    "\"~/x\"",
    "\"~x/y\"",
    "\"~\"",
    "\"/abs\"",
    "\"/a/../b\"",
    "\"/nix/store/x\"",
    "\"" STORE_PATH "\"",
    "\"" STORE_PATH "/sub\"",
    "\"http://x\"",
    "\"ftp://x y\"",
    "\"a\\u0007b\"",
    "\"a\\nb\"",
    "\"a\\tb\"",
    "\"$(x)\"",
    "\"${name}\"",
    "\"${address}\"",
    "\"a:65535\"",
    "\"a:65536\"",
    "\"a:0\"",
    "\"[::1]:22\"",
    "\"u@j.lan:22\"",
    "\"0400\"",
    "\"0999\"",
    "\"07777\"",
    "\"200..399\"",
    "\"099..200\"",
    "\"GET\"",
    "\"a,b\"",
    "\".hidden\"",
    "\"ssh-ed25519 AAAA\"",
    "\"c:AAAA\"",
    "\"true\"",
    "[]",
    "[1]",
    "[\"a.lan\"]",
    "[\"\"]",
    "[null]",
    "[\"local\"]",
    "{}",
    "{\"x\": 1}",
    "{\"x\": \"y\"}",
    "{\"a b\": \"y\"}",
    "{\"x\": null}",
    "{\".\": {}, \"..\": {}}",
    "{\"tag\": \"t\"}",
    "{\"tag\": \"t\", \"x\": 1}",
    "{\"address\": \"b.lan\"}",
    "[{\"address\": \"b.lan\"}]",
    "\"\\u00fc\"",
    "\"systemd\"",
    "\"never\"",
};

static char corpus_path[] = "/tmp/fleet-schema-XXXXXX";
static char *variant_path;
static size_t variant_count, accepted_count;
static size_t stride = 7;

enum verdict {
    REFUSED,
    ACCEPTED,
    BEYOND_SCHEMA
};

/* What the merged whole makes of a variant, so that a schema cannot know it: a cache or a system
 * that lacks a part, `attr` without `file`. Such variants are told from the rest by the loader's
 * own words. */
static bool is_beyond_schema(const struct inv_errors *errors) {
    static const char *const words[] = {"host h1:",
                                        "host h2:",
                                        "host h3:",
                                        "no host of the inventory",
                                        "no system",
                                        "no host has the tag",
                                        "in a circle",
                                        "is this machine: a jump",
                                        "\"${address}\" is not allowed here; allowed: a POSIX"};
    size_t beyond = 0;
    for (size_t i = 0; i < errors->count; i++) {
        for (size_t j = 0; j < ARRAY_LEN(words); j++) {
            if (strstr(errors->items[i].message, words[j]) != NULL) {
                beyond++;
                break;
            }
        }
    }
    return beyond == errors->count;
}

static enum verdict loader_verdict(const char *text) {
    FILE *file = fopen(variant_path, "w");
    struct inventory *inventory = NULL;
    struct inv_errors errors;
    struct error error = ERROR_INIT;
    cr_assert_not_null(file);
    fputs(text, file);
    fclose(file);
    int code = inventory_load(variant_path, NULL, 0, &inventory, &errors, &error);
    enum verdict verdict = ACCEPTED;
    if (code == 0) {
        inventory_free(inventory);
    } else {
        verdict = is_beyond_schema(&errors) ? BEYOND_SCHEMA : REFUSED;
    }
    inv_errors_free(&errors);
    return verdict;
}

static void add_variant(FILE *corpus, const cJSON *root) {
    char *text = cJSON_PrintUnformatted(root);
    enum verdict verdict = loader_verdict(text);
    if (verdict != BEYOND_SCHEMA) {
        fprintf(corpus, "%d %s\n", verdict == ACCEPTED ? 1 : 0, text);
        variant_count++;
        accepted_count += verdict == ACCEPTED ? 1 : 0;
    }
    cJSON_free(text);
}

/* The first value of the pool is another one at each item, so that all of them come up. */
static void add_replacements(FILE *corpus, cJSON *root, cJSON *item) {
    static size_t items;
    for (size_t i = items++ % stride; i < ARRAY_LEN(pool); i += stride) {
        cJSON *other = cJSON_Parse(pool[i]);
        cr_assert_not_null(other, "%s", pool[i]);
        /* Swapped by hand: cJSON's own functions free what they take out. */
        cJSON saved = *item;
        item->type = other->type;
        item->child = other->child;
        item->valuestring = other->valuestring;
        item->valuedouble = other->valuedouble;
        item->valueint = other->valueint;
        add_variant(corpus, root);
        *item = saved;
        cJSON_Delete(other);
    }
}

static void add_variants(FILE *corpus, cJSON *root, cJSON *parent) {
    if (cJSON_IsObject(parent)) {
        cJSON_AddNumberToObject(parent, "nobody_knows", 1);
        add_variant(corpus, root);
        cJSON_DeleteItemFromObjectCaseSensitive(parent, "nobody_knows");
    }
    for (cJSON *item = parent->child; item != NULL; item = item->next) {
        add_replacements(corpus, root, item);
        add_variants(corpus, root, item);
    }
    /* Each key left out once. Unlinked by hand, since printing follows `next` alone. */
    cJSON **link = &parent->child;
    for (cJSON *item = parent->child; cJSON_IsObject(parent) && item != NULL; item = item->next) {
        *link = item->next;
        add_variant(corpus, root);
        *link = item;
        link = &item->next;
    }
}

static const char judge[] =
    "import json, sys\n"
    "import jsonschema\n"
    "validator = jsonschema.Draft7Validator(json.load(open('fleet.schema.json')))\n"
    "jsonschema.Draft7Validator.check_schema(validator.schema)\n"
    "full = None\n"
    "wrong = 0\n"
    "def difference(a, b=None, path=''):\n"
    "    b = full if path == '' else b\n"
    "    if isinstance(a, dict) and isinstance(b, dict):\n"
    "        return ''.join(difference(a.get(k), b.get(k), path + '.' + k)\n"
    "                       for k in {**a, **b} if a.get(k) != b.get(k))\n"
    "    return '%s = %s' % (path, json.dumps(a)[:600])\n"
    "for line in open(sys.argv[1]):\n"
    "    verdict, text = line.split(' ', 1)\n"
    "    error = next(validator.iter_errors(json.loads(text)), None)\n"
    "    full = full or json.loads(text)\n"
    "    if (error is None) != (verdict == '1'):\n"
    "        wrong += 1\n"
    "        if wrong <= 20:\n"
    "            where = 'loader refuses, schema accepts' if error is None else "
    "'schema refuses: ' + '.'.join(map(str, error.path)) + ': ' + error.message[:150]\n"
    "            print(where, difference(json.loads(text)), file=sys.stderr)\n"
    "print(wrong, 'verdicts differ', file=sys.stderr)\n"
    "sys.exit(1 if wrong else 0)\n";

/* The Python that has jsonschema: Debian's, or another in PATH. */
static const char *find_python(void) {
    static const char *const pythons[] = {"/usr/bin/python3", "python3"};
    for (size_t i = 0; i < ARRAY_LEN(pythons); i++) {
        AUTO_FREE char *command = xasprintf("%s -c 'import jsonschema' 2>/dev/null", pythons[i]);
        if (system(command) == 0) {
            return pythons[i];
        }
    }
    return NULL;
}

Test(schema, is_what_the_tables_generate) {
    struct buf generated = BUF_INIT;
    inventory_schema(&generated);
    if (getenv("FLEET_UPDATE") != NULL) {
        FILE *file = fopen("fleet.schema.json", "w");
        cr_assert_not_null(file);
        fputs(buf_text(&generated), file);
        fclose(file);
    }
    FILE *file = fopen("fleet.schema.json", "r");
    cr_assert_not_null(file, "run in the repository's root");
    struct buf kept = BUF_INIT;
    for (size_t got; (got = fread(buf_reserve(&kept, 4096), 1, 4096, file)) > 0;) {
        kept.len += got;
    }
    fclose(file);
    buf_add(&kept, "", 0);
    cr_assert(strcmp(buf_text(&generated), buf_text(&kept)) == 0,
              "fleet.schema.json is not what the tables say; run this test with FLEET_UPDATE=1");
    buf_free(&generated);
    buf_free(&kept);
}

Test(schema, gives_the_loaders_verdicts) {
    const char *python = find_python();
    cr_assert_not_null(python, "python3-jsonschema is missing: scripts/packages test installs it");
    int fd = mkstemp(corpus_path);
    FILE *corpus = fd >= 0 ? fdopen(fd, "w") : NULL;
    cr_assert_not_null(corpus);
    variant_path = xasprintf("%s.json", corpus_path);
    stride = getenv("FLEET_FULL") != NULL || getenv("CI") != NULL ? 1 : stride;
    cr_assert(loader_verdict(full) == ACCEPTED, "the inventory with every field is refused");
    cJSON *root = cJSON_Parse(full);
    add_variant(corpus, root);
    add_variants(corpus, root, root);
    cJSON_Delete(root);
    fclose(corpus);
    cr_assert_gt(variant_count, 5000 / stride);
    cr_assert_gt(accepted_count, 500 / stride);
    AUTO_FREE char *command = xasprintf("%s -c \"$FLEET_JUDGE\" %s", python, corpus_path);
    setenv("FLEET_JUDGE", judge, 1);
    int status = system(command);
    if (getenv("FLEET_KEEP_CORPUS") == NULL) {
        unlink(corpus_path);
    }
    unlink(variant_path);
    free(variant_path);
    cr_assert_eq(status, 0, "%zu variants, %zu accepted", variant_count, accepted_count);
}
