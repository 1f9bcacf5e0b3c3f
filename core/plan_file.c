/* Plans as JSON: the object of CONTRACT for one host, and the file that `plan --out` leaves.
 *
 * The file holds the same objects and, beside them, what `update --plan` needs to carry them out or
 * to refuse them: the inventory's hash, and each host's profile and generation.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cjson/cJSON.h>
#include <openssl/evp.h>

#include "core/base/clock.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/plan.h"
#include "transport/closure.h"

#define PLAN_FORMAT     1
#define PLAN_FILE_MAX   (256u * 1024u * 1024u)
#define READ_PIECE      65536u
#define GENERATIONS_MAX 1e15

/* ---- one host ---- */

static void add_text(cJSON *object, const char *key, const char *text) {
    if (text != NULL && text[0] != '\0') {
        cJSON_AddStringToObject(object, key, text);
    } else {
        cJSON_AddNullToObject(object, key);
    }
}

/* At most `max` of them; returns how many are left out. */
static size_t add_some(cJSON *object, const char *key, const struct plan_list *list, size_t max) {
    cJSON *array = cJSON_AddArrayToObject(object, key);
    size_t count = list->count < max ? list->count : max;
    for (size_t i = 0; i < count; i++) {
        cJSON_AddItemToArray(array, cJSON_CreateString(list->items[i]));
    }
    return list->count - count;
}

static void add_list(cJSON *object, const char *key, const struct plan_list *list) {
    add_some(object, key, list, SIZE_MAX);
}

static cJSON *packages_object(const struct plan_packages *packages, size_t max) {
    cJSON *object = cJSON_CreateObject();
    size_t left_out = add_some(object, "added", &packages->added, max);
    left_out += add_some(object, "removed", &packages->removed, max);
    cJSON *changed = cJSON_AddArrayToObject(object, "changed");
    size_t count = packages->changed_count < max ? packages->changed_count : max;
    for (size_t i = 0; i < count; i++) {
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "name", packages->changed[i].name);
        cJSON_AddStringToObject(item, "from", packages->changed[i].from);
        cJSON_AddStringToObject(item, "to", packages->changed[i].to);
        cJSON_AddItemToArray(changed, item);
    }
    left_out += packages->changed_count - count;
    if (left_out > 0) {
        cJSON_AddNumberToObject(object, "more", (double)left_out);
    }
    return object;
}

char *plan_packages_json(const struct plan_packages *packages, size_t max) {
    cJSON *object = packages_object(packages, max);
    char *printed = cJSON_PrintUnformatted(object);
    char *text = xstrdup(printed);
    cJSON_free(printed);
    cJSON_Delete(object);
    return text;
}

static void add_packages(cJSON *object, const struct plan_host *host) {
    bool known =
        host->judged && (!host->change || (host->closure_from.known && host->closure_to.known));
    if (!known) {
        cJSON_AddNullToObject(object, "packages");
        return;
    }
    cJSON_AddItemToObject(object, "packages", packages_object(&host->packages, SIZE_MAX));
}

static void add_bytes(cJSON *object, const char *key, const struct plan_closure *closure) {
    if (closure->known) {
        cJSON_AddNumberToObject(object, key, (double)closure->bytes);
    } else {
        cJSON_AddNullToObject(object, key);
    }
}

static void add_units(cJSON *object, const struct plan_host *host) {
    if (!host->judged || !host->units.known) {
        cJSON_AddNullToObject(object, "units");
        return;
    }
    cJSON *inner = cJSON_AddObjectToObject(object, "units");
    for (enum plan_unit_act act = 0; act < PLAN_UNIT_ACTS; act++) {
        add_list(inner, plan_unit_act_name(act), &host->units.acts[act]);
    }
}

static void add_drift(cJSON *object, const struct plan_host *host) {
    cJSON *drift = cJSON_AddArrayToObject(object, "drift");
    for (enum drift code = 0; code < DRIFT_COUNT; code++) {
        if (host->drift[code]) {
            cJSON_AddItemToArray(drift, cJSON_CreateString(drift_code(code)));
        }
    }
}

static void add_flag(cJSON *object, const char *key, bool known, bool value) {
    if (known) {
        cJSON_AddBoolToObject(object, key, value);
    } else {
        cJSON_AddNullToObject(object, key);
    }
}

static const struct error *what_failed(const struct plan_host *host) {
    if (host->build_error.code != 0) {
        return &host->build_error;
    }
    return host->error.code != 0 ? &host->error : NULL;
}

static cJSON *host_object(const struct plan_host *host) {
    cJSON *object = cJSON_CreateObject();
    const struct error *error = what_failed(host);
    cJSON_AddStringToObject(object, "host", host->inv->name);
    cJSON_AddBoolToObject(object, "reachable", host->reached);
    add_text(object, "current", host->current);
    add_text(object, "desired", host->desired);
    add_flag(object, "change", host->judged, host->change);
    add_packages(object, host);
    cJSON *bytes = cJSON_AddObjectToObject(object, "closure_bytes");
    add_bytes(bytes, "from", &host->closure_from);
    add_bytes(bytes, "to", &host->closure_to);
    add_units(object, host);
    add_flag(object, "reboot", host->judged, host->reboot);
    add_drift(object, host);
    add_flag(object, "boot_full", host->judged, host->boot_full);
    add_text(object, "profile", host->profile);
    if (host->generation > 0) {
        cJSON_AddNumberToObject(object, "generation", (double)host->generation);
    } else {
        cJSON_AddNullToObject(object, "generation");
    }
    if (error != NULL) {
        cJSON_AddStringToObject(object, "reason", error->reason);
        cJSON_AddStringToObject(object, "message", error->message);
    }
    return object;
}

char *plan_host_json(const struct plan_host *host) {
    cJSON *object = host_object(host);
    char *printed = cJSON_PrintUnformatted(object);
    char *text = xstrdup(printed != NULL ? printed : "{}");
    cJSON_free(printed);
    cJSON_Delete(object);
    return text;
}

/* ---- the file ---- */

static char *read_whole(const char *path, size_t *ret_len, struct error *error) {
    AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        error_errno(error, errno, "%s can't be opened", path);
        return NULL;
    }
    struct buf text = BUF_INIT;
    for (;;) {
        ssize_t n = read(fd, buf_reserve(&text, READ_PIECE), READ_PIECE);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 || text.len > PLAN_FILE_MAX) {
            error_errno(error, n < 0 ? errno : EFBIG, "%s can't be read", path);
            buf_free(&text);
            return NULL;
        }
        if (n == 0) {
            break;
        }
        text.len += (size_t)n;
    }
    *ret_len = text.len;
    return buf_take(&text);
}

static char *inventory_hash(const struct inventory *inventory) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    EVP_Digest(inventory->text, inventory->text_len, digest, &size, EVP_sha256(), NULL);
    struct buf hex = BUF_INIT;
    for (unsigned int i = 0; i < size; i++) {
        buf_printf(&hex, "%02x", digest[i]);
    }
    return buf_take(&hex);
}

static int write_whole(const char *file, const char *text, struct error *error) {
    AUTO_FREE char *fresh = xasprintf("%s.fresh", file);
    AUTO_CLOSE int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0) {
        return error_errno(error, errno, "%s can't be made; the plan was not saved", fresh);
    }
    size_t left = strlen(text);
    while (left > 0) {
        ssize_t n = write(fd, text, left);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            unlink(fresh);
            return error_errno(error, errno, "writing %s; the plan was not saved", fresh);
        }
        text += n;
        left -= (size_t)n;
    }
    if (fsync(fd) != 0 || rename(fresh, file) != 0) {
        int errnum = errno;
        unlink(fresh);
        return error_errno(error, errnum, "%s can't be written; the plan was not saved", file);
    }
    return 0;
}

static cJSON *saved_host(const struct plan_host *host) {
    cJSON *object = host_object(host);
    cJSON_AddBoolToObject(object, "planned", host->judged);
    cJSON_AddBoolToObject(object, "on_target", host->source == BUILD_SOURCE_TARGET);
    return object;
}

int plan_save(const char *file, const struct plan_about *about, const struct plan_host *hosts,
              size_t count, struct error *error) {
    for (size_t i = 0; i < count; i++) {
        if (hosts[i].judged && hosts[i].change && hosts[i].source == BUILD_SOURCE_REMOTE) {
            return error_set(error, FLEET_ERR_USAGE, "usage",
                             "the system of %s lies on its build host only, so the plan could not "
                             "be carried out from a file; leave --out out, or build it here",
                             hosts[i].inv->name);
        }
    }
    AUTO_FREE char *hash = inventory_hash(about->inventory);
    char now[CLOCK_RFC3339_SIZE];
    clock_rfc3339(clock_wall_ms(&clock_system), now);
    cJSON *plan = cJSON_CreateObject();
    cJSON_AddNumberToObject(plan, "fleet_plan", PLAN_FORMAT);
    cJSON_AddStringToObject(plan, "fleet", about->inventory->name);
    cJSON_AddStringToObject(plan, "inventory", about->inventory->path);
    cJSON_AddStringToObject(plan, "inventory_sha256", hash);
    cJSON_AddStringToObject(plan, "created", now);
    cJSON_AddStringToObject(plan, "action", run_action_name(about->action));
    cJSON_AddStringToObject(plan, "rev", about->rev);
    cJSON_AddBoolToObject(plan, "dirty", about->dirty);
    cJSON *array = cJSON_AddArrayToObject(plan, "hosts");
    for (size_t i = 0; i < count; i++) {
        cJSON_AddItemToArray(array, saved_host(&hosts[i]));
    }
    char *text = cJSON_Print(plan);
    int err = write_whole(file, text != NULL ? text : "", error);
    cJSON_free(text);
    cJSON_Delete(plan);
    return err;
}

/* ---- reading it again ---- */

static char *member(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsString(item) ? text_cleaned(item->valuestring, strlen(item->valuestring))
                                : xstrdup("");
}

static bool is_true(const cJSON *object, const char *key) {
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(object, key)) != 0;
}

static bool read_host(const cJSON *object, struct plan_saved_host *ret) {
    const cJSON *number = cJSON_GetObjectItemCaseSensitive(object, "generation");
    *ret = (struct plan_saved_host){.name = member(object, "host"),
                                    .current = member(object, "current"),
                                    .profile = member(object, "profile"),
                                    .desired = member(object, "desired"),
                                    .planned = is_true(object, "planned"),
                                    .on_target = is_true(object, "on_target")};
    if (cJSON_IsNumber(number) && isfinite(number->valuedouble) && number->valuedouble > 0 &&
        number->valuedouble < GENERATIONS_MAX) {
        ret->generation = (int64_t)number->valuedouble;
    }
    return ret->name[0] != '\0' && (!ret->planned || store_path_is_valid(ret->desired));
}

static bool read_plan(const cJSON *plan, struct plan_saved *ret) {
    const cJSON *format = cJSON_GetObjectItemCaseSensitive(plan, "fleet_plan");
    const cJSON *hosts = cJSON_GetObjectItemCaseSensitive(plan, "hosts");
    if (!cJSON_IsNumber(format) || format->valueint != PLAN_FORMAT || !cJSON_IsArray(hosts)) {
        return false;
    }
    AUTO_FREE char *action = member(plan, "action");
    ret->action = run_action_parse(action);
    ret->inventory_hash = member(plan, "inventory_sha256");
    ret->rev = member(plan, "rev");
    ret->created = member(plan, "created");
    ret->dirty = is_true(plan, "dirty");
    ret->hosts = xcalloc((size_t)cJSON_GetArraySize(hosts) + 1, sizeof(*ret->hosts));
    const cJSON *object;
    cJSON_ArrayForEach(object, hosts) {
        if (!read_host(object, &ret->hosts[ret->host_count++])) {
            return false;
        }
    }
    return ret->action == ACTION_SWITCH || ret->action == ACTION_BOOT || ret->action == ACTION_TEST;
}

int plan_load(const char *file, struct plan_saved *ret, struct error *error) {
    *ret = (struct plan_saved){0};
    size_t len = 0;
    AUTO_FREE char *text = read_whole(file, &len, error);
    if (text == NULL) {
        error->code = FLEET_ERR_USAGE; /* the caller named the file: exit code 2, not 1 */
        return FLEET_ERR_USAGE;
    }
    cJSON *plan = cJSON_ParseWithLength(text, len);
    bool good = plan != NULL && read_plan(plan, ret);
    cJSON_Delete(plan);
    if (good) {
        return 0;
    }
    plan_saved_free(ret);
    return error_set(error, FLEET_ERR_USAGE, "usage",
                     "%s is no plan that this version of fleet can read; make a new one with "
                     "`fleet plan --out %s`",
                     file, file);
}

void plan_saved_free(struct plan_saved *saved) {
    for (size_t i = 0; i < saved->host_count; i++) {
        free(saved->hosts[i].name);
        free(saved->hosts[i].current);
        free(saved->hosts[i].profile);
        free(saved->hosts[i].desired);
    }
    free(saved->hosts);
    free(saved->inventory_hash);
    free(saved->rev);
    free(saved->created);
    *saved = (struct plan_saved){0};
}

/* ---- stale? ---- */

int plan_check_inventory(const struct plan_saved *saved, const struct inventory *inventory,
                         struct error *error) {
    AUTO_FREE char *hash = inventory_hash(inventory);
    if (strcmp(hash, saved->inventory_hash) == 0) {
        return 0;
    }
    return error_set(error, FLEET_ERR_STALE, "stale",
                     "%s is not the inventory that was planned with (%s); make a new plan",
                     inventory->path, saved->created);
}

int plan_check_host(const struct plan_saved_host *saved, const struct status *now,
                    struct error *error) {
    if (strcmp(saved->current, now->current) != 0) {
        return error_set(error, FLEET_ERR_STALE, "stale",
                         "it ran %s when it was planned, and runs %s now", saved->current,
                         now->current[0] != '\0' ? now->current : "no system");
    }
    if (strcmp(saved->profile, now->profile) != 0 || saved->generation != now->generation) {
        return error_set(error, FLEET_ERR_STALE, "stale",
                         "its profile was generation %lld (%s) when it was planned, and is "
                         "generation %lld (%s) now",
                         (long long)saved->generation, saved->profile, (long long)now->generation,
                         now->profile[0] != '\0' ? now->profile : "none");
    }
    return 0;
}
