#include "core/build_command.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "transport/closure.h"

#define DRV_SUFFIX ".drv"

void build_argv_add(struct build_argv *argv, const char *format, ...) {
    va_list args;
    va_start(args, format);
    argv->items = xrealloc(argv->items, (argv->count + 2) * sizeof(char *));
    argv->items[argv->count++] = xvasprintf(format, args);
    argv->items[argv->count] = NULL;
    va_end(args);
}

void build_argv_free(struct build_argv *argv) {
    for (size_t i = 0; i < argv->count; i++) {
        auto_free(&argv->items[i]);
    }
    auto_free(&argv->items);
    argv->count = 0;
}

static bool same_text(const char *a, const char *b) {
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* The first component of an attribute path with its length, quotes included, or 0 where it is the
 * only one (then Nix also looks for it among the packages of this system). */
static size_t first_component(const char *attr) {
    bool quoted = false;
    for (size_t i = 0; attr[i] != '\0'; i++) {
        if (attr[i] == '"') {
            quoted = !quoted;
        } else if (attr[i] == '.' && !quoted) {
            return i;
        }
    }
    return 0;
}

static bool same_pairs(const struct inv_pairs *a, const struct inv_pairs *b) {
    bool same = a->count == b->count;
    for (size_t i = 0; same && i < a->count; i++) {
        same = same_text(a->items[i].key, b->items[i].key) &&
               same_text(a->items[i].value, b->items[i].value);
    }
    return same;
}

bool build_shares_realisation(const struct inv_system *a, const struct inv_system *b) {
    return same_text(a->nix_bin, b->nix_bin) && same_pairs(&a->nix_options, &b->nix_options);
}

static bool shares_flake(const struct inv_system *a, const struct inv_system *b) {
    size_t len = first_component(a->flake_attr);
    return len != 0 && first_component(b->flake_attr) == len &&
           strncmp(a->flake_attr, b->flake_attr, len) == 0 && same_text(a->flake_ref, b->flake_ref);
}

static bool shares_file(const struct inv_system *a, const struct inv_system *b) {
    return a->attr != NULL && b->attr != NULL && same_text(a->file, b->file) &&
           same_pairs(&a->args, &b->args);
}

bool build_shares_evaluation(const struct inv_system *a, const struct inv_system *b) {
    if (a->kind != b->kind || !build_shares_realisation(a, b)) {
        return false;
    }
    return (a->kind == INV_SYSTEM_FLAKE && shares_flake(a, b)) ||
           (a->kind == INV_SYSTEM_FILE && shares_file(a, b));
}

static void add_tool(struct build_argv *argv, const struct inv_system *system, const char *tool) {
    if (system->nix_bin != NULL) {
        build_argv_add(argv, "%s/%s", system->nix_bin, tool);
    } else {
        build_argv_add(argv, "%s", tool);
    }
}

static void add_options(struct build_argv *argv, const struct inv_system *system) {
    for (size_t i = 0; i < system->nix_options.count; i++) {
        build_argv_add(argv, "--option");
        build_argv_add(argv, "%s", system->nix_options.items[i].key);
        build_argv_add(argv, "%s", system->nix_options.items[i].value);
    }
}

static void add_root(struct build_argv *argv, const char *root) {
    if (root != NULL) {
        build_argv_add(argv, "--add-root");
        build_argv_add(argv, "%s", root);
        build_argv_add(argv, "--indirect"); /* Nix before 2.4 wants it */
    }
}

static void add_flakes(struct build_argv *argv) {
    build_argv_add(argv, "--extra-experimental-features");
    build_argv_add(argv, "nix-command flakes");
}

/* One character inside a Nix string. */
static void add_string_char(struct buf *out, char c) {
    if (c == '"' || c == '\\' || c == '$') {
        buf_add_char(out, '\\');
    }
    buf_add_char(out, c);
}

static void add_string(struct buf *out, const char *text) {
    buf_add_char(out, '"');
    for (; *text != '\0'; text++) {
        add_string_char(out, *text);
    }
    buf_add_char(out, '"');
}

/* `."db1"."config"` for `.db1.config`: an installable's path as a Nix expression selects it. */
static void add_selection(struct buf *out, const char *path) {
    bool quoted = false;
    bool open = false;
    for (; *path != '\0'; path++) {
        if (*path == '"') {
            quoted = !quoted;
        } else if (*path == '.' && !quoted) {
            buf_add_text(out, open ? "\".\"" : ".\"");
            open = true;
        } else {
            add_string_char(out, *path);
        }
    }
    buf_add_text(out, open ? "\"" : "");
}

void build_flake_argv(const struct inv_system *const *systems, size_t count,
                      struct build_argv *ret_argv) {
    size_t first = first_component(systems[0]->flake_attr);
    struct buf apply = BUF_INIT;
    buf_add_text(&apply, "all: map (get: let drv = builtins.tryEval (get all).drvPath; in "
                         "if drv.success then drv.value else null) [");
    for (size_t i = 0; i < count; i++) {
        buf_add_text(&apply, " (all: all");
        add_selection(&apply, systems[i]->flake_attr + first);
        buf_add_char(&apply, ')');
    }
    buf_add_text(&apply, " ]");
    add_tool(ret_argv, systems[0], "nix");
    add_flakes(ret_argv);
    build_argv_add(ret_argv, "eval");
    build_argv_add(ret_argv, "--json");
    build_argv_add(ret_argv, "--apply");
    build_argv_add(ret_argv, "%s", buf_text(&apply));
    add_options(ret_argv, systems[0]);
    build_argv_add(ret_argv, "--");
    build_argv_add(ret_argv, "%s#%.*s", systems[0]->flake_ref, (int)first, systems[0]->flake_attr);
    buf_free(&apply);
}

static bool is_derivation(const char *path) {
    size_t len = strlen(path);
    size_t suffix = strlen(DRV_SUFFIX);
    return store_path_is_valid(path) && len > suffix &&
           strcmp(path + len - suffix, DRV_SUFFIX) == 0;
}

bool build_read_flake(const char *out, size_t count, char **ret_drvs) {
    cJSON *root = cJSON_Parse(out);
    bool ok = cJSON_IsArray(root) && (size_t)cJSON_GetArraySize(root) == count;
    const cJSON *first = ok ? root->child : NULL;
    for (const cJSON *drv = first; drv != NULL; drv = drv->next) {
        ok = ok && (cJSON_IsNull(drv) || (cJSON_IsString(drv) && is_derivation(drv->valuestring)));
    }
    const cJSON *drv = first;
    for (size_t i = 0; ok && drv != NULL && i < count; i++, drv = drv->next) {
        ret_drvs[i] = cJSON_IsNull(drv) ? NULL : xstrdup(drv->valuestring);
    }
    cJSON_Delete(root);
    return ok;
}

void build_evaluate_argv(const struct inv_system *system, const char *root,
                         struct build_argv *ret_argv) {
    if (system->kind == INV_SYSTEM_FLAKE) {
        add_tool(ret_argv, system, "nix");
        add_flakes(ret_argv);
        build_argv_add(ret_argv, "eval");
        build_argv_add(ret_argv, "--raw");
        add_options(ret_argv, system);
        build_argv_add(ret_argv, "--");
        build_argv_add(ret_argv, "%s#%s.drvPath", system->flake_ref, system->flake_attr);
        return;
    }
    add_tool(ret_argv, system, "nix-instantiate");
    build_argv_add(ret_argv, "%s", system->file);
    add_root(ret_argv, root);
    if (system->attr != NULL) {
        build_argv_add(ret_argv, "-A");
        build_argv_add(ret_argv, "%s", system->attr);
    }
    for (size_t i = 0; i < system->args.count; i++) {
        build_argv_add(ret_argv, "--argstr");
        build_argv_add(ret_argv, "%s", system->args.items[i].key);
        build_argv_add(ret_argv, "%s", system->args.items[i].value);
    }
    add_options(ret_argv, system);
}

/* Several `-A` would call a file's function anew for each, and tell no attribute's derivations from
 * the next one's. This calls it once, with exactly the arguments that nix-instantiate would; where it
 * can't tell (a function that names none, a functor, something else than a derivation) it throws. A
 * derivation that stands in the list twice would be printed once, hence the mark on each. */
void build_files_argv(const struct inv_system *const *systems, size_t count, const char *root,
                      struct build_argv *ret_argv) {
    struct buf text = BUF_INIT;
    buf_add_text(&text, "let file = import ");
    add_string(&text, systems[0]->file);
    buf_add_text(&text, "; args = {");
    for (size_t i = 0; i < systems[0]->args.count; i++) {
        add_string(&text, systems[0]->args.items[i].key);
        buf_add_text(&text, " = ");
        add_string(&text, systems[0]->args.items[i].value);
        buf_add_char(&text, ';');
    }
    buf_add_text(
        &text, "}; alone = throw \"evaluated one by one\"; all = if builtins.isFunction file then "
               "if builtins.functionArgs file == { } then alone else file args "
               "else if file ? __functor then alone else file; "
               "one = n: v: if (v.type or null) == \"derivation\" then v // { fleet = n; } "
               "else alone; in [");
    for (size_t i = 0; i < count; i++) {
        buf_printf(&text, " (one %zu all", i);
        AUTO_FREE char *path = xasprintf(".%s", systems[i]->attr);
        add_selection(&text, path);
        buf_add_char(&text, ')');
    }
    buf_add_text(&text, " ]");
    add_tool(ret_argv, systems[0], "nix-instantiate");
    build_argv_add(ret_argv, "-E");
    build_argv_add(ret_argv, "%s", buf_text(&text));
    add_root(ret_argv, root);
    add_options(ret_argv, systems[0]);
    buf_free(&text);
}

static void free_strings(char **strings, size_t count) {
    for (size_t i = 0; i < count; i++) {
        auto_free(&strings[i]);
        strings[i] = NULL;
    }
}

bool build_read_paths(const char *out, size_t count, char **ret_paths) {
    size_t found = 0;
    while (*out != '\0') {
        char *path = found < count ? build_read_path(out) : NULL;
        if (path == NULL) {
            free_strings(ret_paths, found);
            return false;
        }
        ret_paths[found++] = path;
        out += strcspn(out, "\n");
        out += *out == '\n' ? 1 : 0;
    }
    if (found < count) {
        free_strings(ret_paths, found);
    }
    return found == count;
}

bool build_read_files(const char *out, size_t count, char **ret_drvs) {
    bool ok = build_read_paths(out, count, ret_drvs);
    for (size_t i = 0; ok && i < count; i++) {
        ok = is_derivation(ret_drvs[i]);
        if (!ok) {
            free_strings(ret_drvs, count);
        }
    }
    return ok;
}

void build_realise_all_argv(const struct inv_system *system, const char *const *paths, size_t count,
                            const char *root, struct build_argv *ret_argv) {
    add_tool(ret_argv, system, "nix-store");
    build_argv_add(ret_argv, "--realise");
    for (size_t i = 0; i < count; i++) {
        build_argv_add(ret_argv, "%s", paths[i]);
    }
    add_root(ret_argv, root);
    add_options(ret_argv, system);
}

void build_realise_argv(const struct inv_system *system, const char *path, const char *root,
                        struct build_argv *ret_argv) {
    build_realise_all_argv(system, &path, 1, root, ret_argv);
}

void build_cache_argv(const struct inv_system *system, const char *url, const char *const *paths,
                      size_t count, struct build_argv *ret_argv) {
    add_tool(ret_argv, system, "nix");
    add_flakes(ret_argv);
    add_options(ret_argv, system);
    build_argv_add(ret_argv, "copy");
    build_argv_add(ret_argv, "--to");
    build_argv_add(ret_argv, "%s", url);
    for (size_t i = 0; i < count; i++) {
        build_argv_add(ret_argv, "%s", paths[i]);
    }
}

/* Derive([("out","/nix/store/...-name","","")],... */
char *build_output_of(const char *drv) {
    static const char before[] = "Derive([(\"out\",\"";
    static const char after[] = "\",\"\",\"\")],";
    char head[512] = "";
    FILE *file = fopen(drv, "re");
    size_t got = file != NULL ? fread(head, 1, sizeof(head) - 1, file) : 0;
    if (file != NULL) {
        fclose(file);
    }
    head[got] = '\0';
    if (strncmp(head, before, strlen(before)) != 0) {
        return NULL;
    }
    char *path = head + strlen(before);
    size_t len = strcspn(path, "\"");
    if (strncmp(path + len, after, strlen(after)) != 0) {
        return NULL;
    }
    path[len] = '\0';
    return store_path_is_valid(path) ? xstrdup(path) : NULL;
}

char *build_read_path(const char *out) {
    size_t len = strcspn(out, "\r\n");
    char *line = xstrndup(out, len);
    char *bang = strchr(line, '!');
    if (bang != NULL) {
        *bang = '\0';
    }
    if (store_path_is_valid(line)) {
        return line;
    }
    char *found = NULL;
    char target[512];
    ssize_t got = line[0] == '/' ? readlink(line, target, sizeof(target) - 1) : -1;
    if (got > 0) {
        target[got] = '\0';
        found = store_path_is_valid(target) ? xstrdup(target) : NULL;
    }
    auto_free(&line);
    return found;
}

char *build_realise_script(const struct inv_system *system, const char *path, const char *name) {
    struct buf script = BUF_INIT;
    /* One compound command: cut short by a lost connection it is a syntax error. */
    buf_add_text(&script, "{\n"
                          "PATH=/run/current-system/sw/bin:/nix/var/nix/profiles/default/bin:"
                          "${HOME:-/root}/.nix-profile/bin:/usr/local/bin:/usr/bin:/bin:$PATH\n"
                          "export PATH\n"
                          "roots=/nix/var/nix/gcroots/fleet\n"
                          "mkdir -p $roots 2>/dev/null\n"
                          "[ -w $roots ] || roots=${HOME:-/tmp}/.local/state/fleet/roots\n"
                          "mkdir -p \"$roots\" || exit 1\n"
                          /* Known since 2.4. Asking by trying doesn't work: beside --version
                           * 2.3 takes any flag. */
                          "case $(nix-store --version) in\n"
                          "*' 2.'[0-3] | *' 2.'[0-3].* | *' 1.'*) set -- ;;\n"
                          "*) set -- --log-format internal-json ;;\n"
                          "esac\n"
                          "nix-store \"$@\" --realise ");
    text_shell_quote(&script, path);
    for (size_t i = 0; i < system->nix_options.count; i++) {
        buf_add_text(&script, " --option ");
        text_shell_quote(&script, system->nix_options.items[i].key);
        buf_add_char(&script, ' ');
        text_shell_quote(&script, system->nix_options.items[i].value);
    }
    buf_add_text(&script, " --indirect --add-root \"$roots\"/");
    text_shell_quote(&script, name);
    buf_add_text(&script, " </dev/null >/dev/null || exit $?\nreadlink \"$roots\"/");
    text_shell_quote(&script, name);
    buf_add_text(&script, "\nexit\n}\n");
    return buf_take(&script);
}
